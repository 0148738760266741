// One rank's run among several (src/backend/cuda/ranks.rs): what it says before the maxima of its first message, and what all ranks' words came to. The words are
// those of `Header` in src/model/ranks.rs, judged as in src/check/ranks.rs; the statistics themselves are a buffer of partials.
#ifndef PASSRL_RANKS_CUH
#define PASSRL_RANKS_CUH
#include "report.cuh"

enum HeaderWord { HEADER_PLAN = 0, HEADER_CALL = 2, HEADER_REFUSED = 4, HEADER_FORMS = 5, HEADER_NOTE = 7 };
enum { NOTE_OFFSETS = 3, NOTE_GROUPS = 4 };
// `PASSRL_RANKS_*`.
enum RanksFault { RANKS_AGREE = 0, RANKS_REFUSED = 1, RANKS_OFFSETS = 2, RANKS_PLANS = 3, RANKS_CALLS = 4, RANKS_INPUTS = 5, RANKS_GROUPS = 6, RANKS_PHASES = 7 };

// A number and its complement: their maxima tell whether all ranks said the same.
INLINE bool ranks_differ(const i32* words, i32 at) { return words[at] != ~words[at + 1]; }

// Why this run is none, once the first message is there. Every rank comes to the same. Of a call that is of one rank alone: RANKS_AGREE, unless it is one on a buffer of
// partials whose phases are not complete (phases.cuh), or a group that must be whole in it is not.
INLINE i32 ranks_fault(const Args& args) {
    if (!(args.mode & MODE_RANKS)) {
        if (args.layout.keys_from_zero) return RANKS_AGREE;
        return counts_of(args).disorder ? RANKS_PHASES : counts_of(args).split ? RANKS_GROUPS : RANKS_AGREE;
    }
    const i32* words = (const i32*)args.work.state;
    if (words[HEADER_REFUSED] != 0) {
        const i32 note = words[HEADER_NOTE];
        return note == NOTE_OFFSETS ? RANKS_OFFSETS : note == NOTE_GROUPS ? RANKS_GROUPS : RANKS_REFUSED;
    }
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
    const u64 split = counts_of(args).split;
    const i64 named = split ? (i64)~split : (i64)((const i32*)args.work.state)[HEADER_REFUSED] - 1;
    to.first_rollout = fault <= RANKS_OFFSETS ? named : -1;
    to.first_group = fault == RANKS_GROUPS ? named : -1;
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

// Where a group must be whole in one call (on one rank): counts rollout i of this one, and with the first of a group the call. One thread.
INLINE void claim(const Args& args, i64 i) {
    const u32 g = rollout_of(args, i).group;
    if (g == NO_GROUP) return;
    const bool first = atomicAdd(&marks_of(args, g).claimed, 1u) == 0;
    atomicAdd((u64*)(args.work.state + args.layout.claims) + g, (u64)1 + (first ? (u64)1 << 32 : (u64)0));
}

// All micro-batches have claimed their groups: is each that has rollouts in this call whole in it? A thread a group.
INLINE void look_for_split_group(const Args& args, i64 g) {
    const u32 here = marks_of(args, g).rollouts;
    const i64 claimed = ((const i64*)(args.work.state + args.layout.claims))[g];
    if (here > 0 && claimed != (1ll << 32) + (i64)here) atomicMax(&counts_of(args).split, ~(u64)g);
}

// All ranks have claimed their groups: the first group that is on several is told where a refused rank is. One block. Of partials (no MODE_RANKS): see above.
extern "C" __global__ void __launch_bounds__(MOST_THREADS, 2) passrl_claims(const __grid_constant__ Args given) {
    const Args& args = open_args(given);
    if (!(args.mode & MODE_RANKS)) {
        for (i64 g = threadIdx.x; g < args.batch.groups; g += blockDim.x) look_for_split_group(args, g);
        return;
    }
    if (ranks_fault(args)) return;
    const i64* const claims = (const i64*)(args.work.state + args.layout.claims);
    const i64 groups = plan_of(args).max_groups;
    // The first is the one with the most groups from it on.
    i64 left = 0;
    for (i64 g = threadIdx.x; g < groups; g += blockDim.x)
        if (claims[g] >> 32 > 1) left = larger(left, groups - g);
    left = block_max(left, (i64)0);
    if (left == 0 || !is_first_thread()) return;
    i32* const words = (i32*)args.work.state;
    words[HEADER_NOTE] = NOTE_GROUPS;
    words[HEADER_REFUSED] = (i32)(groups - left) + 1;
}

#endif
