// Kernel of the sums (src/backend/cpu/group_stats.rs, `sums`): the maxima are complete, so that every set has its grid; one block a rollout adds the
// rollout's elements, and for kl by value the column sums of the group's table.
#ifndef PASSRL_SUMS_CUH
#define PASSRL_SUMS_CUH
#include "batch_stats.cuh"
#include "ranks.cuh"

// Adds q of each token in scope to its position's column and counts the rollout as live there.
OUT_OF_LINE void add_to_table(const Args& args, const Work& w) {
    const PlanConstants& plan = plan_of(args);
    Extremes of = load_extremes(group_keys(args, w.kept.group), 0);
    if (extremes_bad(of)) return;
    KlTable table = kl_table(args, w.kept.group);
    Grid grid = grid_of(plan.slot_bits[0], of.absmax);
    bool sums = !counts_extremes(plan, 0, plan.slot_bits[0]);
    for (i64 t = w.scope.first + threadIdx.x; t < w.scope.end; t += blockDim.x) {
        i64 position = t - w.scope.first;
        if (!contains(w.scope, t) || position >= table.positions) continue;
        if (sums) add_to(table.columns + position, quantize(grid, signal_value(args, plan, w.e, 0, t)));
        atomicAdd((u64*)table.live + position, (u64)1);
    }
}

OUT_OF_LINE void add_process_sums(const Args& args, const Work& w) {
    const PlanConstants& plan = plan_of(args);
    const i32* keys = group_keys(args, w.kept.group);
    i64* words = group_words(args, w.kept.group);
    for (i32 slot = 0; slot < plan.sets; ++slot) {
        bool pooled = slot == 1 && pools(plan);
        i32 list = pooled ? 0 : slot;
        if (list >= lists_of(args, plan)) continue;
        Sums own = list_sums(args, w, list, slot, load_extremes(keys, slot));
        if (!is_first_thread()) continue;
        add_sums_to(words + 6 * slot, own);
        if (asks_one_rollout(plan, slot) && own.n > 0) mark_rollout(marks_of(args, w.kept.group), slot);
    }
}

// The per-rollout streams: scalars, one thread a stream.
OUT_OF_LINE void rollout_sums(const Args& args, const Work& w) {
    const PlanConstants& plan = plan_of(args);
    const i32* keys = group_keys(args, w.kept.group);
    i64* words = group_words(args, w.kept.group);
    i32 s = (i32)threadIdx.x;
    if (s >= ROLLOUT_STREAMS) return;
    i32 slot = slot_of_stream(plan, s);
    Value v = rollout_value(args, plan, s, w.i);
    if (!v.there || slot >= plan.slots) return;
    const Stream& row = plan.streams[OUTCOME + s];
    Extremes of = load_extremes(keys, slot);
    if (row.center == CENTER_LENGTH_WEIGHTED) {
        // As often as the rollout has tokens in scope; the counts at the extremes are of rollouts.
        Sums own = one_sum(plan, v.x, slot, (i64)w.kept.count, of);
        own.at_max = own.at_max > 0 ? 1 : 0;
        own.at_min = own.at_min > 0 ? 1 : 0;
        add_sums_to(words + 6 * slot, own);
    } else {
        add_sums_to(words + 6 * slot, one_sum(plan, v.x, slot, row.count_by == COUNT_BY_STEP ? (i64)w.kept.elements : (i64)1, of));
    }
    if ((plan.slots_runner_up >> slot & 1) && weighs(row, w.kept) && key(v.x) < of.max) atomicMax(group_seconds(args, w.kept.group) + slot, key(v.x));
    if (pools(plan)) {
        Sums own = one_sum(plan, v.x, 1, 1, load_extremes(keys, 1));
        add_sums_to(words + 6, own);
        if (asks_one_rollout(plan, 1) && s < 2 && own.n > 0) mark_rollout(marks_of(args, w.kept.group), 1);
    }
}

// The rollout as it was kept; false where it is in no set. The first thread.
OUT_OF_LINE bool open_work(const Args& args, i64 i, Work& w) {
    w.i = i;
    w.kept = rollout_of(args, i);
    if (w.kept.group == NO_GROUP || !counts_in_stats(w.kept)) return false;
    w.e = extent(args, i);
    w.scope = kept_scope(args, i, w.e, w.kept);
    if (counts_members(plan_of(args))) add_to(group_words(args, w.kept.group) + 6 * plan_of(args).slots, 1);
    return true;
}

extern "C" __global__ void __launch_bounds__(MOST_THREADS, BLOCKS_AT_ONCE) passrl_sums(const __grid_constant__ Args args) {
    const PlanConstants& plan = plan_of(args);
    SHARED(Work, shared_work, [1]);
    Work& w = shared_work[0];
    if (ranks_fault(args)) return;
    if (!__syncthreads_or(is_first_thread() && open_work(args, blockIdx.x, w))) return;
    if (w.kept.state & STATE_HAS_PROCESS) {
        add_process_sums(args, w);
        if (plan.kind == KIND_KL && plan.chunk == CHUNK_BY_VALUE) add_to_table(args, w);
    }
    rollout_sums(args, w);
    if (counts_in_batch(plan, w.kept, w.kept.flags)) add_batch_sums(args, w);
}

#endif
