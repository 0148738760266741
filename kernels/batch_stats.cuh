// Sets of the whole batch (`center = batch`, `scale = batch` or `nonzero_share`): exact, on a grid of 30 bits (src/backend/cpu/batch_stats.rs).
#ifndef PASSRL_BATCH_STATS_CUH
#define PASSRL_BATCH_STATS_CUH
#include "findings.cuh"

// Does the rollout count in the batch's sets? One with a finding does not.
INLINE bool counts_in_batch(const PlanConstants& plan, const Rollout& kept, u32 flags) {
    return plan.slots_batch != 0 && counts_in_stats(kept) && !(flags & (ROLLOUT_ABSENT | ROLLOUT_NONFINITE | ROLLOUT_BAD_STEPS));
}
INLINE bool asks_batch(const PlanConstants& plan, i32 slot) { return plan.slots_batch >> slot & 1; }
// Process sets of the batch: a pooled or shaped one has none.
INLINE bool batch_list(const Args& args, const PlanConstants& plan, const Rollout& kept, i32 slot) {
    return asks_batch(plan, slot) && slot < args.batch.num_process && (kept.state & STATE_HAS_PROCESS);
}

// Takes a rollout's maxima into the batch's; its findings are known. The block.
OUT_OF_LINE void add_batch_extremes(const Args& args, const Work& w) {
    const PlanConstants& plan = plan_of(args);
    i32* keys = batch_keys(args);
    for (i32 slot = 0; slot < plan.sets; ++slot) {
        if (!batch_list(args, plan, w.kept, slot)) continue;
        Extremes found = list_extremes(args, w, slot);
        if (is_first_thread()) max_extremes_to(args, keys + 3 * slot, found);
    }
    for (i32 s = 0; s < ROLLOUT_STREAMS; ++s) {
        i32 slot = slot_of_stream(plan, s);
        if (slot >= plan.slots || !asks_batch(plan, slot)) continue;
        Value v = rollout_value(args, plan, s, w.i);
        Extremes one = no_extremes();
        extremes_push(one, v.x);
        if (v.there && is_first_thread()) max_extremes_to(args, keys + 3 * slot, one);
    }
}

// Adds a sum to the batch's, in every thread the same. The first thread does.
INLINE void add_to_batch(const Args& args, i32 slot, const Sums& sums, i64 nonzero) {
    if (!is_first_thread()) return;
    i64* words = batch_words(args) + 7 * slot;
    add_sums_to(words, sums);
    add_to(words + 6, nonzero);
}
// Adds a rollout's elements of a list, whose mean (`pool = rollouts`) is there, on the grid that the batch's maxima set. The block.
OUT_OF_LINE void add_batch_list(const Args& args, const Work& w, i32 slot) {
    const PlanConstants& plan = plan_of(args);
    const Extremes of = load_extremes(args, batch_keys(args), slot);
    const Grid grid = grid_of(STEP_BITS, of.absmax);
    Sums own = no_sums();
    u32 nonzero = 0;
    each_element(args, plan, w, slot, [&](f32 x, u32 weight) {
        sums_push_element(own, grid, x, weight, of);
        nonzero += x != 0.0f ? weight : 0;
    });
    own = block_sums(own);
    const i64 all = block_sum((i64)nonzero);
    add_to_batch(args, slot, own, all);
}
// Adds a rollout's share of the batch's sets: its process lists, its own values. The block.
OUT_OF_LINE void add_batch_sums(const Args& args, const Work& w, bool lists = true, bool values = true) {
    const PlanConstants& plan = plan_of(args);
    for (i32 slot = 0; slot < plan.sets && lists; ++slot) {
        if (!batch_list(args, plan, w.kept, slot)) continue;
        if (plan.pool == POOL_ROLLOUTS) mean_of_list(args, w, slot);
        add_batch_list(args, w, slot);
    }
    if (!values) return;
    for (i32 s = 0; s < ROLLOUT_STREAMS; ++s) {
        i32 slot = slot_of_stream(plan, s);
        if (slot >= plan.slots || !asks_batch(plan, slot)) continue;
        Value v = rollout_value(args, plan, s, w.i);
        if (!v.there) continue;
        Extremes of = load_extremes(args, batch_keys(args), slot);
        Sums own = no_sums();
        sums_push_element(own, grid_of(STEP_BITS, of.absmax), v.x, 1, of);
        add_to_batch(args, slot, own, v.x != 0.0f ? 1 : 0);
    }
}

#endif
