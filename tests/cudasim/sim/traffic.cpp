// The checked build's counts of memory traffic: accesses of a warp's lanes are one request where they are the k-th execution of one instruction since the whole warp
// met (at a barrier, or a collective of all lanes). (Approximate where lanes part and go on at different counts before they meet; then there are more requests.)
#include "internal.h"

#include <unordered_map>

namespace cudasim {
namespace {
struct Request {
    Request() {}  // the addresses stay as they are
    int lanes = 0;
    u32 size;
    Kind kind;
    Space space;
    uptr address[32];
};
struct Instruction {
    std::vector<Request> executions;
    size_t used = 0;                  // of them, by this warp
    const Thread* lane = nullptr;     // whose log is read
    u32 met = 0, executed = 0;        // by that lane: where it met, how often since
    std::unordered_map<u64, size_t> number;  // of them: which is the k-th since the warp met so often
};

// In the order of addresses, as they mostly are.
void sort(Request& r) {
    for (int i = 1; i < r.lanes; i++)
        for (int j = i; j > 0 && r.address[j] < r.address[j - 1]; j--) std::swap(r.address[j], r.address[j - 1]);
}

// Calls visit(first, last) for the units of `unit` bytes that lanes from..to touch, each unit once.
template <class Visit>
void each_unit(const Request& r, int from, int to, uptr unit, Visit visit) {
    uptr next = 0;
    for (int i = from; i < to; i++) {
        const uptr first = std::max(next, r.address[i] / unit), last = (r.address[i] + r.size - 1) / unit;
        if (first > last) continue;
        visit(first, last);
        next = last + 1;
    }
}

// CUDASIM_PROFILE: traffic in global memory by kernel and instruction, printed at the end of the process by line of the source, the most bytes first;
// before it, of each kernel the requests of the warp that has the most.
struct Line {
    u64 requests = 0, bytes = 0, sectors = 0, ideal = 0;
    Kind kind = Kind::read;
};
// Requests of one warp, those in shared memory too, by instruction.
struct WarpWay {
    u64 requests = 0;
    std::map<const void*, u64> by_instruction;
};
struct Profile {
    const bool asked = getenv("CUDASIM_PROFILE") != nullptr;
    std::map<std::pair<std::string, const void*>, Line> lines;
    std::map<std::string, WarpWay> longest;  // of each kernel
    ~Profile() {
        if (!asked) return;
        for (auto& [kernel, way] : longest) {
            std::map<std::string, u64> by_place;
            for (auto& [pc, requests] : way.by_instruction) by_place[position(pc)] += requests;
            std::vector<std::pair<std::string, u64>> sorted(by_place.begin(), by_place.end());
            std::sort(sorted.begin(), sorted.end(), [](auto& a, auto& b) { return a.second > b.second; });
            fprintf(stderr, "the longest warp of %s: %llu requests\n", kernel.c_str(), way.requests);
            for (auto& [place, requests] : sorted) fprintf(stderr, "%9llu requests %s\n", requests, place.c_str());
        }
        std::map<std::string, Line> by_place;
        static const char* const VERBS[] = {"read", "write", "atomic"};
        for (auto& [at, line] : lines) {
            Line& to = by_place[at.first + " " + VERBS[int(line.kind)] + position(at.second)];
            to.requests += line.requests, to.bytes += line.bytes, to.sectors += line.sectors, to.ideal += line.ideal;
        }
        std::vector<std::pair<std::string, Line>> sorted(by_place.begin(), by_place.end());
        std::sort(sorted.begin(), sorted.end(), [](auto& a, auto& b) { return a.second.bytes > b.second.bytes; });
        for (auto& [place, l] : sorted)
            fprintf(stderr, "%9llu bytes %8llu sectors (ideal %8llu) %8llu requests  %s\n", l.bytes, l.sectors, l.ideal, l.requests, place.c_str());
    }
} profile;

void count_global(Request& r, const void* pc) {
    sort(r);
    u64 bytes = 0, sectors = 0;
    each_unit(r, 0, r.lanes, 1, [&](uptr first, uptr last) { bytes += last - first + 1; });
    each_unit(r, 0, r.lanes, 32, [&](uptr first, uptr last) { sectors += last - first + 1; });
    u64* counts = r.kind == Kind::read ? &stats.read_requests : r.kind == Kind::write ? &stats.write_requests : &stats.atomic_requests;
    counts[0]++;
    counts[1] += bytes;
    counts[2] += sectors;
    counts[3] += (bytes + 31) / 32;
    if (!profile.asked) return;
    Line& line = profile.lines[{kernel_name, pc}];
    line.kind = r.kind;
    line.requests++;
    line.bytes += bytes, line.sectors += sectors, line.ideal += (bytes + 31) / 32;
}

void count_shared(Request& r) {
    // The hardware serves 32 lanes of 4 bytes at a time, 16 of 8, 8 of 16, in the order of lanes.
    const int at_a_time = int(std::max(1u, 32 / std::max(1u, r.size / 4)));
    for (int from = 0; from < r.lanes; from += at_a_time) {
        Request part;
        part.size = r.size;
        for (int i = from; i < std::min(from + at_a_time, r.lanes); i++) part.address[part.lanes++] = r.address[i];
        sort(part);
        u32 bank[32] = {}, most = 0;
        each_unit(part, 0, part.lanes, 4, [&](uptr first, uptr last) {
            for (uptr word = first; word <= last; word++) most = std::max(most, ++bank[word % 32]);
        });
        stats.shared_requests++;
        stats.shared_wavefronts += most;
    }
}
}  // namespace

void count_traffic() {
    if (!checked) return;
    static std::unordered_map<const void*, Instruction> instructions;
    for (size_t first = 0; first < threads.size(); first += 32) {
        for (size_t i = first; i < std::min(first + 32, threads.size()); i++) {
            Thread& lane = threads[i];
            for (const Access& a : lane.log) {
                Instruction& at = instructions[a.pc];
                if (at.lane != &lane || at.met != a.met) {
                    at.lane = &lane;
                    at.met = a.met;
                    at.executed = 0;
                }
                const auto [found, is_new] = at.number.try_emplace(u64(a.met) << 32 | at.executed++, at.used);
                if (is_new) {
                    if (at.executions.size() == at.used) at.executions.resize(at.used + 1 + at.used / 2);
                    at.executions[at.used++].lanes = 0;
                }
                Request& r = at.executions[found->second];
                r.size = a.size;
                r.kind = a.kind;
                r.space = a.space;
                r.address[r.lanes++] = a.address;
            }
            stats.accesses += lane.log.size();
            lane.log.clear();
        }
        u64 of_warp = 0;
        if (profile.asked) {
            u64 requests = 0;
            for (auto& [pc, at] : instructions) requests += at.used;
            WarpWay& longest = profile.longest[kernel_name];
            if (requests > longest.requests) {
                longest.requests = requests;
                longest.by_instruction.clear();
                for (auto& [pc, at] : instructions) longest.by_instruction[pc] += at.used;
            }
        }
        for (auto& [pc, at] : instructions) {
            for (size_t k = 0; k < at.used; k++) {
                if (at.executions[k].space == Space::shared)
                    count_shared(at.executions[k]);
                else
                    count_global(at.executions[k], pc);
            }
            of_warp += at.used;
            at.used = 0;
            at.number.clear();
            at.lane = nullptr;
        }
        stats.warp_requests += of_warp;
        stats.longest_warp = std::max(stats.longest_warp, of_warp);
    }
}
}  // namespace cudasim
