// Reports, statistics, call counts, faults, attributes: what tests set and read (control.h).
#include "internal.h"

#include <cstdarg>
#include <dlfcn.h>
#include <tuple>
#include <unistd.h>

namespace cudasim {
std::recursive_mutex lock;
CudasimStats stats;
bool checked, defer_work = true;
u64 seed;

namespace {
struct Finding {
    std::string text;
    const void* pc;
};
std::vector<Finding> findings;
// Of each kind at each place so many, so that the findings of many threads and launches hide no others.
constexpr size_t OF_A_KIND = 3, IN_ALL = 1000;
using Origin = std::tuple<const char*, const void*, const char*>;
std::map<Origin, size_t> of_kind;
std::map<std::string, CudasimStats> by_kernel;
std::map<std::string, int> calls;
std::vector<const char*> trace;
struct Fault {
    std::string function;
    int nth, code;
};
std::vector<Fault> faults;
u64 random_state = 1;

// What a data-centre card of compute capability 9.0 says; numbers are CUdevice_attribute's.
const std::map<int, int> BEGINNING{
    {1, 1024}, {2, 1024}, {3, 1024}, {4, 64}, {5, 0x7fffffff}, {6, 65535}, {7, 65535}, {8, 48 << 10}, {9, 64 << 10}, {10, 32}, {12, 65536},
    {13, 1980000}, {14, 512}, {16, 132}, {31, 1}, {36, 2619000}, {37, 5120}, {38, 50 << 20}, {39, 2048}, {40, 3}, {41, 1}, {75, 9}, {76, 0},
    {81, 228 << 10}, {82, 65536}, {83, 1}, {97, 227 << 10}, {106, 32}, {111, 1 << 10}, {115, 1}};
std::map<int, int>& attributes() {
    static std::map<int, int> now = [] {
        std::map<int, int> all = BEGINNING;
        // "75=8,76=0"
        for (const char* p = getenv("CUDASIM_ATTRIBUTES"); p && *p;) {
            int which, value, read = 0;
            if (sscanf(p, "%d=%d%n", &which, &value, &read) < 2) break;
            all[which] = value;
            p += read + (p[read] == ',');
        }
        return all;
    }();
    return now;
}

u64 number(const char* variable, u64 otherwise) {
    const char* text = getenv(variable);
    return text && *text ? strtoull(text, nullptr, 10) : otherwise;
}

void set_seed(u64 value) {
    seed = value;
    random_state = value * 0x9E3779B97F4A7C15ull + 1;
}

size_t give(const std::string& text, char* out, size_t capacity) {
    if (capacity) {
        size_t n = std::min(text.size(), capacity - 1);
        memcpy(out, text.data(), n);
        out[n] = 0;
    }
    return text.size();
}

std::string whole_report() {
    std::string all;
    for (Finding& f : findings) {
        if (f.pc) f.text += position(f.pc);
        f.pc = nullptr;
        all += f.text + "\n";
    }
    return all;
}

void add(CudasimStats& sum, const CudasimStats& more) {
    const u64 longest = std::max(sum.longest_warp, more.longest_warp);
    u64* to = reinterpret_cast<u64*>(&sum);
    const u64* from = reinterpret_cast<const u64*>(&more);
    for (size_t i = 0; i < sizeof sum / sizeof(u64); i++) to[i] += from[i];
    sum.longest_warp = longest;
}

void forget() {
    findings.clear();
    of_kind.clear();
}

struct Process {
    Process() {
        checked = number("CUDASIM_CHECKED", 0) != 0;
        defer_work = number("CUDASIM_DEFER", 1) != 0;
        set_seed(number("CUDASIM_SEED", 0));
    }
    // A program that never asks still hears what was found.
    ~Process() {
        if (findings.empty()) return;
        fprintf(stderr, "cudasim found:\n%s", whole_report().c_str());
        fflush(nullptr);
        if (number("CUDASIM_STRICT", 0)) _exit(99);
    }
} process;
}  // namespace

// By addr2line of the library that holds pc.
std::string position(const void* pc) {
    Dl_info info;
    if (!pc || !dladdr(pc, &info) || !info.dli_fname) return "";
    char command[1024], line[512];
    size_t offset = size_t((const char*)pc - (const char*)info.dli_fbase);
    // A return address: the instruction before it is the one meant.
    snprintf(command, sizeof command, "addr2line -sfCe '%s' %#zx 2>/dev/null", info.dli_fname, offset - 1);
    std::string found;
    if (FILE* pipe = popen(command, "r")) {
        while (fgets(line, sizeof line, pipe)) {
            for (char* c = line; *c; c++)
                if (*c == '\n') *c = 0;
            found += std::string(" ") + line;
        }
        pclose(pipe);
    }
    if (found.empty()) {
        snprintf(line, sizeof line, " %s+%#zx", info.dli_fname, offset);
        found = line;
    }
    return "; at" + found;
}

u64 random_bits() {
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return random_state;
}

void report(const void* pc, const char* format, ...) {
    if (findings.size() >= IN_ALL || of_kind[{format, pc, kernel_name}]++ >= OF_A_KIND) return;
    char text[600];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    findings.push_back({text, pc});
}


void keep_stats(const char* kernel) {
    add(by_kernel[kernel], stats);
    stats = {};
}

int attribute(int which) {
    auto found = attributes().find(which);
    return found == attributes().end() ? 0 : found->second;
}

int enter(const char* function) {
    static const bool loud = getenv("CUDASIM_TRACE");
    if (loud) fprintf(stderr, "%s\n", function);
    calls[function]++;
    if (trace.size() < 65536) trace.push_back(function);
    for (size_t i = 0; i < faults.size(); i++) {
        Fault& f = faults[i];
        if ((f.function == "*" || f.function == function) && f.nth-- == 0) {
            int code = f.code;
            faults.erase(faults.begin() + i);
            return code;
        }
    }
    return SUCCESS;
}
}  // namespace cudasim

using namespace cudasim;
#define LOCK std::lock_guard<std::recursive_mutex> guard_(lock)

API void cudasim_stats(const char* kernel, CudasimStats* out) {
    LOCK;
    *out = {};
    for (auto& [name, of_kernel] : by_kernel)
        if (!kernel || name == kernel) add(*out, of_kernel);
}
API size_t cudasim_launched(char* out, size_t capacity) {
    LOCK;
    std::string all;
    for (auto& [name, of_kernel] : by_kernel)
        if (of_kernel.launches) all += name + "\n";
    return give(all, out, capacity);
}
API size_t cudasim_report(char* out, size_t capacity, int take) {
    LOCK;
    std::string all = whole_report();
    if (take) forget();
    return give(all, out, capacity);
}
API void cudasim_reset() {
    LOCK;
    forget();
    by_kernel.clear();
    calls.clear();
    trace.clear();
    faults.clear();
    attributes() = BEGINNING;
    stats = {};
    set_seed(0);
    defer_work = true;
    for (Context* c : contexts) c->failed = 0;
}
API void cudasim_seed(u64 value) {
    LOCK;
    set_seed(value);
}
API void cudasim_defer(int on) {
    LOCK;
    defer_work = on;
}
API void cudasim_fault(const char* function, int nth, int code) {
    LOCK;
    faults.push_back({function, nth, code});
}
API int cudasim_faults_left() {
    LOCK;
    return int(faults.size());
}
API int cudasim_calls(const char* function) {
    LOCK;
    int n = 0;
    for (auto& [name, count] : calls)
        if (!function || name == function) n += count;
    return n;
}
API size_t cudasim_trace(char* out, size_t capacity) {
    LOCK;
    std::string all;
    for (const char* name : trace) all += std::string(name) + "\n";
    return give(all, out, capacity);
}
API void cudasim_attribute(int which, int value) {
    LOCK;
    attributes()[which] = value;
}
API void cudasim_live(CudasimLive* out) {
    LOCK;
    *out = {};
    for (Context* c : contexts) {
        out->contexts += c->alive && !c->primary;
        out->primary_retains += c->retains;
    }
    StreamCounts counts = stream_counts();
    out->streams = counts.streams;
    out->events = counts.events;
    out->graphs = counts.graphs;
    out->graph_execs = counts.graph_execs;
    out->modules = module_count();
    out->bytes = live_bytes;
    out->host_allocations = host_allocation_count();
    out->allocations = live_allocations();
}
API int cudasim_checked() { return checked; }
