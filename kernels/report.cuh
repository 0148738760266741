// The report of a run: findings and counts by atomics while the kernels run, the caller's passrl_report when the last block is done. Twin of
// src/model/report.rs and check/report.rs.
#ifndef PASSRL_REPORT_CUH
#define PASSRL_REPORT_CUH
#include "block.cuh"
#include "views.cuh"

// A finding of group g as a whole, told before those of its rollouts (`find` in findings.cuh), whatever the order in which blocks come here. One thread.
INLINE void find_in_group(const Args& args, i64 g, i32 finding, i32 stream) {
    Counts& counts = counts_of(args);
    atomicOr((u64*)&counts.findings, (u64)finding);
    atomicMax(&counts.first_group, ~(u64)g);
    atomicMax(&marks_of(args, g).first, ~((u64)stream << 8 | (u64)finding));
}

// What a thread counts while it writes results of one rollout; added to `Counts` once a block.
struct Totals {
    u32 clipped, overflowed;
    f64 sum, squares;
};
INLINE Totals no_totals() { return Totals{0, 0, 0.0, 0.0}; }

// to += v in device memory. The order of these sums is the schedule's, and so are their last bits: the report alone has them.
INLINE void add_f64_to(f64* to, f64 v) {
    if (v == 0.0) return;
    u64 seen = *(volatile u64*)to, expected;
    do {
        expected = seen;
        seen = atomicCAS((u64*)to, expected, bits_of(f64_of(expected) + v));
    } while (seen != expected);
}

// What the block's threads have counted. The block.
OUT_OF_LINE void add_totals(const Args& args, Totals totals) {
    const u32 clipped = warp_sum(totals.clipped), overflowed = warp_sum(totals.overflowed);
    Counts& counts = counts_of(args);
    if (lane() == 0) {
        add_to(&counts.clipped_tokens, (i64)clipped);
        add_to(&counts.overflowed_tokens, (i64)overflowed);
    }
    if (!args.outputs.report) return;
    const f64 sum = block_sum(totals.sum), squares = block_sum(totals.squares);
    if (!is_first_thread()) return;
    add_f64_to(&counts.sum_advantages, sum);
    add_f64_to(&counts.sum_squares, squares);
}

// Of a call that counts what it writes: what the block's threads have written, and the deviations that each has seen lost. The block.
INLINE bool counts_written(const Args& args) { return (args.mode & MODE_COUNTING) || args.work.joint != 0; }
INLINE void add_written(const Args& args, const Totals& totals) {
    if (counts_written(args)) add_totals(args, totals);
}
// (Not of a call that only weighs, brings tiles together, or looks.)
INLINE bool counts_lost(const Args& args) {
    const bool beside = (args.mode & (MODE_WEIGH | MODE_CHUNKS | MODE_SCAN)) || (args.work.joint && (args.mode & MODE_DRY));
    return counts_written(args) && !beside;
}
INLINE void add_lost(const Args& args, u32 lost) {
    if (counts_lost(args)) add_counts_to(&counts_of(args).lost_deviations, lost);
}
// Deviations lost are seldom any: where registers are few, no thread keeps a count of its own, but notes each in shared memory.
INLINE void note_lost(u32& noted, u32 lost) {
    if (lost) atomicAdd(&noted, lost);
}
// What the block has noted, to the run's counts (where it is `counted`), and notes anew. The block, after a barrier.
INLINE void add_noted(const Args& args, u32& noted, bool counted = true) {
    if (!is_first_thread()) return;
    if (noted && counted && counts_lost(args)) add_to(&counts_of(args).lost_deviations, (i64)noted);
    noted = 0;
}

// `passrl_report` of passrl.h.
struct ReportOut {
    u32 struct_size, reserved0;
    i64 findings, first_finding, first_rollout, first_group, first_stream, rollouts, tokens, chunks, degenerate_groups, bad_groups, violating_groups, missing_values,
        nonfinite_values, low_logps, clipped_tokens, overflowed_tokens, bad_steps, lost_deviations;
    f64 sum_advantages, sum_squares;
};

// Is this the last block of the grid to come here? What the others have written before is then to be seen. The block.
INLINE bool is_last_block(const Args& args) {
    __threadfence();
    __syncthreads();
    const bool last = is_first_thread() && atomicAdd(&counts_of(args).done, 1u) + 1 == gridDim.x;
    if (!__syncthreads_or(last)) return false;
    __threadfence();
    return true;
}

// What the run has counted, for the caller. One thread, when all blocks have.
OUT_OF_LINE void write_report(const Args& args) {
    const volatile Counts& c = counts_of(args);
    ReportOut& to = *(ReportOut*)args.outputs.report;
    to.struct_size = sizeof(ReportOut);
    to.reserved0 = 0;
    to.findings = c.findings;
    const u64 first_group = c.first_group;
    to.first_finding = 0;
    to.first_rollout = to.first_group = to.first_stream = -1;
    // Of offsets of the whole batch, and of rollouts whose group is none, no group is to be named.
    if (c.bad_offsets || (!first_group && (to.findings & FOUND_BAD_OFFSETS))) {
        to.findings |= FOUND_BAD_OFFSETS;
        to.first_finding = FOUND_BAD_OFFSETS;
        to.first_stream = 0;
    } else if (first_group) {
        const i64 g = (i64)~first_group;
        const u64 first = ~*(const volatile u64*)&marks_of(args, g).first;
        to.first_group = g;
        to.first_rollout = (i64)(first >> 16) - 1;
        to.first_stream = (i64)(first >> 8 & 0xff);
        to.first_finding = (i64)(first & 0xff);
    }
    to.rollouts = c.rollouts;
    to.tokens = c.tokens;
    to.chunks = c.chunks;
    to.degenerate_groups = c.degenerate_groups;
    to.bad_groups = c.bad_groups;
    to.violating_groups = c.violating_groups;
    to.missing_values = c.missing_values;
    to.nonfinite_values = c.nonfinite_values;
    to.low_logps = c.low_logps;
    to.clipped_tokens = c.clipped_tokens;
    to.overflowed_tokens = c.overflowed_tokens;
    to.bad_steps = c.bad_steps;
    to.lost_deviations = c.lost_deviations;
    to.sum_advantages = c.sum_advantages;
    to.sum_squares = c.sum_squares;
}

// Called by every block of a run's last kernel when it is done: the last of them writes the report.
OUT_OF_LINE void finish_report(const Args& args) {
    if (args.outputs.report && is_last_block(args) && is_first_thread()) write_report(args);
}

#endif
