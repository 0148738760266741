// Kernel libraries, and the run of one launch: its blocks in the schedule's order, the shared memory, faults that the processor raises, the time limit.
#include "internal.h"

#include <csignal>
#include <dlfcn.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>
#include <xmmintrin.h>

namespace cudasim {
std::vector<SharedArray> shared_arrays;
u8 *static_shared, *dynamic_shared_room;
u32 dynamic_shared_size;

namespace {
// Not a vector: they register before its constructor might have run.
Library libraries[16];
size_t library_count;
u32 shared_limit;  // what static shared memory may come to in this launch
volatile sig_atomic_t timed_out;
struct sigaction old_segv, old_bus, old_timer;
int time_limit() {
    static const int seconds = getenv("CUDASIM_TIMEOUT") ? atoi(getenv("CUDASIM_TIMEOUT")) : 300;
    return seconds;
}

const void* program_counter(void* context) {
    // One further, as a return address would be.
    return reinterpret_cast<const char*>(static_cast<ucontext_t*>(context)->uc_mcontext.gregs[REG_RIP]) + 1;
}

void hand_on(int signal, siginfo_t* info, void* context, struct sigaction& old) {
    if (old.sa_flags & SA_SIGINFO) {
        old.sa_sigaction(signal, info, context);
    } else if (old.sa_handler == SIG_DFL || old.sa_handler == SIG_IGN) {
        // The host's own fault: let it happen again, with nobody to catch it.
        sigaction(signal, &old, nullptr);
    } else {
        old.sa_handler(signal);
    }
}

void on_fault(int signal, siginfo_t* info, void* context) {
    if (!running || !pthread_equal(pthread_self(), runner)) return hand_on(signal, info, context, signal == SIGBUS ? old_bus : old_segv);
    const uptr address = uptr(info->si_addr);
    if (in_stack_guard(address)) {
        report(nullptr, "%s: a thread's local memory exceeds the simulator's 60 KB: block %u thread %d", kernel_name, block_number, running->number);
        end_launch(LAUNCH_FAILED);
    }
    Allocation* a = find_allocation(address);
    char what[160];
    if (a)
        snprintf(what, sizeof what, "offset %td of %s of %zu bytes", ptrdiff_t(address - a->base), a->live ? "an allocation" : "a freed allocation", a->size);
    else
        snprintf(what, sizeof what, "no allocation is there");
    if (a && a->live && address >= a->base && address < a->base + a->size) snprintf(what, sizeof what, "memory of another context");
    report(program_counter(context), "%s: illegal address %#zx (%s): block %u thread %d", kernel_name, size_t(address), what, block_number, running->number);
    end_launch(ILLEGAL_ADDRESS);
}

[[noreturn]] void say_timeout(const void* pc) {
    report(pc, "%s: no end after %d s (CUDASIM_TIMEOUT): block %u thread %d. Blocks run one after another: none may wait for one that has not begun",
           kernel_name, time_limit(), block_number, running->number);
    end_launch(LAUNCH_TIMEOUT);
}

// A kernel that spins is ended from here where its own code was interrupted; in the driver's code the next barrier, collective or atomic does it.
void on_timer(int, siginfo_t*, void* context) {
    if (!running || !pthread_equal(pthread_self(), runner)) return;
    timed_out = 1;
    const void* pc = program_counter(context);
    if (library_of(pc)) say_timeout(pc);
}

// Signals and their stack for the time of a launch; Rust's threads have their own, put back after it.
class Signals {
   public:
    Signals() {
        static u8* stack;
        constexpr size_t SIZE = 128 << 10;
        if (!stack) stack = static_cast<u8*>(mmap(nullptr, SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
        stack_t own{};
        own.ss_sp = stack;
        own.ss_size = SIZE;
        sigaltstack(&own, &old_stack_);
        struct sigaction action {};
        action.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER;
        action.sa_sigaction = on_fault;
        sigaction(SIGSEGV, &action, &old_segv);
        sigaction(SIGBUS, &action, &old_bus);
        action.sa_sigaction = on_timer;
        action.sa_flags |= SA_RESTART;
        sigaction(SIGRTMIN + 5, &action, &old_timer);
        timed_out = 0;
        sigevent event{};
        event.sigev_notify = SIGEV_THREAD_ID;
        event.sigev_signo = SIGRTMIN + 5;
#ifndef sigev_notify_thread_id
#define sigev_notify_thread_id _sigev_un._tid
#endif
        event.sigev_notify_thread_id = pid_t(syscall(SYS_gettid));
        has_timer_ = timer_create(CLOCK_MONOTONIC, &event, &timer_) == 0;
        itimerspec when{};
        when.it_value.tv_sec = time_limit();
        when.it_interval.tv_nsec = 20'000'000;
        if (has_timer_) timer_settime(timer_, 0, &when, nullptr);
    }
    ~Signals() {
        if (has_timer_) timer_delete(timer_);
        sigaction(SIGSEGV, &old_segv, nullptr);
        sigaction(SIGBUS, &old_bus, nullptr);
        sigaction(SIGRTMIN + 5, &old_timer, nullptr);
        sigaltstack(&old_stack_, nullptr);
    }

   private:
    stack_t old_stack_{};
    timer_t timer_{};
    bool has_timer_;
};

// Kernels compute in the default floating-point mode, whatever the host has set.
class FloatingPoint {
   public:
    FloatingPoint() : mode_(_mm_getcsr()) { _mm_setcsr(0x1F80); }
    ~FloatingPoint() { _mm_setcsr(mode_); }

   private:
    unsigned mode_;
};

std::string folder() {
    Dl_info info;
    char path[4096];
    if (!dladdr(reinterpret_cast<void*>(&folder), &info) || !realpath(info.dli_fname, path)) return ".";
    std::string all = path;
    return all.substr(0, all.rfind('/'));
}
}  // namespace

std::map<std::string, Entry>& entries() {
    static std::map<std::string, Entry> all;
    return all;
}

void register_library(const Library& library) {
    if (library_count < 16) libraries[library_count++] = library;
}

void register_kernel(const char* name, const unsigned* sizes, const unsigned* alignments, int count, int max_threads, Call call) {
    entries()[name] = {name, {sizes, sizes + count}, {alignments, alignments + count}, max_threads, call, &libraries[library_count - 1]};
}

const Library* library_of(const void* p) {
    for (size_t i = 0; i < library_count; i++)
        if (p >= libraries[i].begin && p < libraries[i].end) return &libraries[i];
    return nullptr;
}

// CUDASIM_KERNELS, paths with ':' between, or what lies beside the driver.
void load_libraries() {
    static bool done;
    if (std::exchange(done, true)) return;
    const char* given = getenv("CUDASIM_KERNELS");
    std::string rest = given && *given ? given : folder() + (checked ? "/kernels-checked.so" : "/kernels-fast.so");
    while (!rest.empty()) {
        const size_t colon = rest.find(':');
        const std::string path = rest.substr(0, colon);
        rest = colon == std::string::npos ? "" : rest.substr(colon + 1);
        if (!dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL)) fprintf(stderr, "cudasim: no kernels: %s\n", dlerror());
    }
    for (size_t i = 0; i < library_count; i++)
        if (libraries[i].checked != checked)
            fprintf(stderr, "cudasim: kernels of the %s build are loaded, and CUDASIM_CHECKED asks for the other\n", libraries[i].checked ? "checked" : "fast");
}

void check_timeout() {
    if (timed_out) say_timeout(nullptr);
}

void* shared(const void* id, size_t size, const char* name) {
    for (const SharedArray& s : shared_arrays)
        if (s.id == id) return reinterpret_cast<void*>(s.begin);
    // Each on its own 128 bytes, with as many between.
    const uptr begin = shared_arrays.empty() ? uptr(static_shared) : (shared_arrays.back().begin + shared_arrays.back().size + 255) & ~uptr(127);
    size_t sum = size;
    for (const SharedArray& s : shared_arrays) sum += s.size;
    if (sum > shared_limit || begin + size > uptr(static_shared) + STATIC_SHARED_ROOM) {
        report(__builtin_return_address(0), "%s: %zu bytes of shared arrays beside %u bytes of dynamic shared memory; the launch may have %u", kernel_name,
               sum, dynamic_shared_size, shared_limit);
        end_launch(LAUNCH_OUT_OF_RESOURCES);
    }
    shared_arrays.push_back({id, name, begin, size});
    return reinterpret_cast<void*>(begin);
}

int run_kernel(Context* context, Entry& kernel, const Geometry& geometry, void** arguments) {
    if (!static_shared) {
        const auto room = [](size_t bytes) {
            void* p = mmap(nullptr, bytes + PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
            mprotect(static_cast<u8*>(p) + bytes, PAGE, PROT_NONE);
            return static_cast<u8*>(p);
        };
        static_shared = room(STATIC_SHARED_ROOM);
        dynamic_shared_room = room(DYNAMIC_SHARED_ROOM);
    }
    Open memory(context);
    Signals signals;
    FloatingPoint mode;
    stats = {};
    stats.launches = 1;
    kernel_name = kernel.name.c_str();
    runner = pthread_self();
    fenced = false;
    launch_epoch = ++epoch;
    shared_arrays.clear();
    dynamic_shared_size = geometry.dynamic_shared;
    // Without the attribute both together may have 48 KB; with it, the dynamic part what was asked for.
    shared_limit = geometry.max_dynamic_shared > int(DEFAULT_SHARED) ? u32(attribute(97)) - dynamic_shared_size : u32(DEFAULT_SHARED) - dynamic_shared_size;
    // It ends at an inaccessible page.
    dynamic_shared = dynamic_shared_room + DYNAMIC_SHARED_ROOM - ((dynamic_shared_size + 15) & ~15u);
    const dim3 grid = geometry.grid, block = geometry.block;
    here.block_size = block;
    here.grid_size = grid;
    const u32 per_block = block.x * block.y * block.z;
    const u64 blocks = u64(grid.x) * grid.y * grid.z;
    std::vector<u32> order;
    if (seed) {
        for (u64 i = 0; i < blocks; i++) order.push_back(u32(i));
        for (u64 i = blocks; i > 1; i--) std::swap(order[i - 1], order[random_bits() % i]);
    }
    threads.resize(per_block);
    int result = SUCCESS;
    for (u64 i = 0; i < blocks && !result; i++) {
        const u32 b = order.empty() ? u32(i) : order[i];
        block_number = b;
        here.block = {b % grid.x, b / grid.x % grid.y, b / grid.x / grid.y};
        // Nothing is carried over from one block to the next.
        const size_t used = shared_arrays.empty() ? (i ? 0 : STATIC_SHARED_ROOM) : shared_arrays.back().begin + shared_arrays.back().size - uptr(static_shared);
        memset(static_shared, POISON, used);
        memset(dynamic_shared, POISON, dynamic_shared_room + DYNAMIC_SHARED_ROOM - dynamic_shared);
        for (u32 n = 0; n < per_block; n++) {
            Thread& t = threads[n];
            t.index = {n % block.x, n / block.x % block.y, n / block.x / block.y};
            t.number = int(n);
            t.lane = int(n % 32);
            t.warp_epoch = t.met = 0;
            t.ended = false;
            t.async_groups = 0;
            t.async.clear();
            t.log.clear();
        }
        result = run_block(kernel.call, arguments);
        if (result) break;
        count_traffic();
        stats.blocks++;
        stats.threads += per_block;
        stats.warps += (per_block + 31) / 32;
    }
    running = nullptr;
    if (result) forget_fibers();
    size_t static_bytes = 0;
    for (const SharedArray& s : shared_arrays) static_bytes += s.size;
    kernel.static_shared = std::max(kernel.static_shared, static_bytes);
    check_canaries(kernel_name);
    keep_stats(kernel_name);
    return result;
}
}  // namespace cudasim

using namespace cudasim;
API uint64_t cudasim_source_hash() {
    std::lock_guard<std::recursive_mutex> guard_(lock);
    load_libraries();
    return library_count ? libraries[library_count - 1].source_hash : 0;
}

// Kernels are compiled with -fsanitize=alignment and others whose findings come here: what x86 forgives or does otherwise than a GPU.
namespace {
struct Position {
    const char* file;
    u32 line, column;
};
}  // namespace
#define FINDING(...)                                                                      \
    if (!running) abort();                                                                \
    report(nullptr, __VA_ARGS__, kernel_name, at->file, at->line, block_number, running->number)
API void __ubsan_handle_type_mismatch_v1(Position* at, uptr p) {
    if (!running) abort();
    report(nullptr, "%s: misaligned or null address %#zx (%s:%u): block %u thread %d", kernel_name, size_t(p), at->file, at->line, block_number, running->number);
    end_launch(MISALIGNED_ADDRESS);
}
API void __ubsan_handle_shift_out_of_bounds(Position* at, uptr, uptr) { FINDING("%s: shift by the type's width or more (%s:%u): block %u thread %d"); }
API void __ubsan_handle_out_of_bounds(Position* at, uptr) {
    FINDING("%s: index outside an array (%s:%u): block %u thread %d");
    end_launch(ILLEGAL_ADDRESS);
}
API void __ubsan_handle_divrem_overflow(Position* at, uptr, uptr) {
    FINDING("%s: integer division by zero or out of range (%s:%u): block %u thread %d");
    end_launch(LAUNCH_FAILED);
}
API void __ubsan_handle_float_cast_overflow(Position* at, uptr) {
    FINDING("%s: a float beyond the integer's range, which x86 and a GPU convert differently; use an intrinsic (%s:%u): block %u thread %d");
}
