// One rank's run among several (src/backend/cuda/ranks.rs): what it says before the maxima of its first message, and what all ranks' words came to. The words are
// those of `Header` in src/model/ranks.rs, judged as in src/check/ranks.rs; the statistics themselves are a buffer of partials.
#ifndef PASSRL_RANKS_CUH
#define PASSRL_RANKS_CUH
#include "report.cuh"

enum HeaderWord { HEADER_PLAN = 0, HEADER_CALL = 2, HEADER_REFUSED = 4, HEADER_FORMS = 5, HEADER_NOTE = 7 };
enum { NOTE_OFFSETS = 3 };
// `PASSRL_RANKS_*`.
enum RanksFault { RANKS_AGREE = 0, RANKS_REFUSED = 1, RANKS_OFFSETS = 2, RANKS_PLANS = 3, RANKS_CALLS = 4, RANKS_INPUTS = 5 };

// A number and its complement: their maxima tell whether all ranks said the same.
INLINE bool ranks_differ(const i32* words, i32 at) { return words[at] != ~words[at + 1]; }

// Why this run is none, once the first message is there. Every rank comes to the same. Of a call that is of one rank alone: RANKS_AGREE.
INLINE i32 ranks_fault(const Args& args) {
    if (!(args.mode & MODE_RANKS)) return RANKS_AGREE;
    const i32* words = (const i32*)args.work.state;
    if (words[HEADER_REFUSED] != 0) return words[HEADER_NOTE] == NOTE_OFFSETS ? RANKS_OFFSETS : RANKS_REFUSED;
    if (ranks_differ(words, HEADER_PLAN)) return RANKS_PLANS;
    if (ranks_differ(words, HEADER_CALL)) return RANKS_CALLS;
    // Ranks without rollouts say the least number twice.
    return words[HEADER_FORMS] != KEY_EMPTY && ranks_differ(words, HEADER_FORMS) ? RANKS_INPUTS : RANKS_AGREE;
}

// The report of a run on which the ranks did not agree: nothing else is written. One block.
INLINE void report_fault(const Args& args, i32 fault) {
    if (!args.outputs.report || blockIdx.x != 0 || !is_first_thread()) return;
    ReportOut to = {};
    to.struct_size = sizeof(ReportOut);
    to.findings = FOUND_COLLECTIVE | (counts_of(args).bad_offsets ? FOUND_BAD_OFFSETS : 0);
    to.first_finding = FOUND_COLLECTIVE;
    to.first_rollout = fault <= RANKS_OFFSETS ? (i64)((const i32*)args.work.state)[HEADER_REFUSED] - 1 : -1;
    to.first_group = -1;
    to.first_stream = fault;
    *(ReportOut*)args.outputs.report = to;
}

// Before the first message. The number of the call is counted here, so that a graph that is replayed says another one each time. One thread.
extern "C" __global__ void passrl_announce(const __grid_constant__ Announcement say) {
    i32* words = (i32*)say.words;
    u32& calls = *(u32*)say.calls;
    const i32 call = (i32)(calls & 0x7fffffffu);
    calls += 1;
    for (i32 w = 0; w < HEADER_WORDS; w++) words[w] = say.header[w];
    words[HEADER_CALL] = call;
    words[HEADER_CALL + 1] = ~call;
    // The host could not see them; every rank is told.
    if (say.counts && ((const Counts*)say.counts)->bad_offsets) {
        words[HEADER_REFUSED] = say.rank + 1;
        words[HEADER_NOTE] = NOTE_OFFSETS;
    }
}

#endif
