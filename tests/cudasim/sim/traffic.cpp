// The checked build's counts of memory traffic: accesses of a warp's lanes are one request where they are the k-th execution of one instruction.
// (Approximate where lanes of a warp part and meet again at different counts; then there are more requests, never fewer.)
#include "internal.h"

#include <unordered_map>

namespace cudasim {
namespace {
struct Request {
    int lanes = 0;
    u32 size;
    Kind kind;
    Space space;
    uptr address[32];
};

// Distinct units of `unit` bytes that the request's lanes from..to touch.
size_t distinct(const Request& r, int from, int to, uptr unit, std::vector<uptr>& scratch) {
    scratch.clear();
    for (int i = from; i < to; i++)
        for (uptr u = r.address[i] / unit; u <= (r.address[i] + r.size - 1) / unit; u++) scratch.push_back(u);
    std::sort(scratch.begin(), scratch.end());
    return size_t(std::unique(scratch.begin(), scratch.end()) - scratch.begin());
}

void count_global(const Request& r, std::vector<uptr>& scratch) {
    const u64 bytes = distinct(r, 0, r.lanes, 1, scratch), sectors = distinct(r, 0, r.lanes, 32, scratch);
    u64* counts = r.kind == Kind::read ? &stats.read_requests : r.kind == Kind::write ? &stats.write_requests : &stats.atomic_requests;
    counts[0]++;
    counts[1] += bytes;
    counts[2] += sectors;
    counts[3] += (bytes + 31) / 32;
}

void count_shared(const Request& r, std::vector<uptr>& scratch) {
    // The hardware serves 32 lanes of 4 bytes at a time, 16 of 8, 8 of 16.
    const int at_a_time = int(std::max(1u, 32 / std::max(1u, r.size / 4)));
    for (int from = 0; from < r.lanes; from += at_a_time) {
        const size_t words = distinct(r, from, std::min(from + at_a_time, r.lanes), 4, scratch);
        u32 bank[32] = {}, most = 0;
        for (size_t i = 0; i < words; i++) most = std::max(most, ++bank[scratch[i] % 32]);
        stats.shared_requests++;
        stats.shared_wavefronts += most;
    }
}
}  // namespace

void count_traffic() {
    if (!checked) return;
    std::unordered_map<const void*, std::vector<Request>> requests;  // by instruction, then by execution
    std::unordered_map<const void*, size_t> executions;
    std::vector<uptr> scratch;
    for (size_t first = 0; first < threads.size(); first += 32) {
        requests.clear();
        for (size_t t = first; t < std::min(first + 32, threads.size()); t++) {
            executions.clear();
            for (const Access& a : threads[t].log) {
                std::vector<Request>& of_instruction = requests[a.pc];
                const size_t k = executions[a.pc]++;
                if (of_instruction.size() <= k) of_instruction.resize(k + 1);
                Request& r = of_instruction[k];
                r.size = a.size;
                r.kind = a.kind;
                r.space = a.space;
                r.address[r.lanes++] = a.address;
            }
            stats.accesses += threads[t].log.size();
            threads[t].log.clear();
        }
        u64 of_warp = 0;
        for (auto& [pc, executed] : requests)
            for (const Request& r : executed) {
                of_warp++;
                if (r.space == Space::shared)
                    count_shared(r, scratch);
                else
                    count_global(r, scratch);
            }
        stats.warp_requests += of_warp;
        stats.longest_warp = std::max(stats.longest_warp, of_warp);
    }
}
}  // namespace cudasim
