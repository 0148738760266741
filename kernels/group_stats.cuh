// A rollout's share of its group's statistics (numerics contract 5.3; src/backend/cpu/group_stats.rs): the elements of its lists, their maxima and their sums
// on the group's grids. Which rollouts are looked at, and where findings go, is in prepare.cuh and sums.cuh.
#ifndef PASSRL_GROUP_STATS_CUH
#define PASSRL_GROUP_STATS_CUH
#include "pieces_rows.cuh"
#include "rollout_streams.cuh"
#include "steps.cuh"

// A rollout that has been prepared, as the stages after see it. The same in every thread of its block.
struct Work {
    i64 i;
    Extent e;
    Scope scope;
    Rollout kept;
};

// The block's rollout until it is shaped, at one address in all kernels.
INLINE Work& shared_work() {
    SHARED(Work, work_of_block, [1]);
    return work_of_block[0];
}

INLINE bool counts_in_stats(const Rollout& kept) { return (kept.state & STATE_OUT_OF_STATS) == 0; }
// Is a rollout's value of a per-rollout stream in the stream's set, if the rollout counts? One that weighs nothing is not.
INLINE bool weighs(const Stream& row, const Rollout& kept) {
    return (row.center != CENTER_LENGTH_WEIGHTED || kept.count > 0) && (row.count_by == COUNT_BY_ROLLOUT || kept.elements > 0);
}
// Lists of process values that the batch has: one a stream; with a shaped reward also that.
INLINE i32 lists_of(const Args& args, const PlanConstants& plan) { return plan.shaped ? 2 : args.batch.num_process; }
// Does the pooled set hold what list 0 and the per-rollout streams hold?
INLINE bool pools(const PlanConstants& plan) { return plan.joint && !plan.shaped; }
// Does a NaN of this list mean "not there"? (Of the first stream such steps are out of scope already.)
INLINE bool skips_nan(const PlanConstants& plan, i32 list) { return list > 0 && !plan.shaped && plan.streams[list].missing == MISSING_EXCLUDE; }

// Values of list `list` of a rollout's elements (prm), whose place is e.
INLINE const f32* elements_of(const Args& args, i64 i, const Extent& e, const Rollout& kept, i32 list) {
    if (kept.state & STATE_IN_PLACE) return (const f32*)args.batch.scores.data + item_int(args.batch.step_offsets, i);
    return list_of<f32>(args, args.work.elements, list, e);
}

// The last token of chunk j of a rollout whose steps are in place.
INLINE u32 last_in_place(const Args& args, i64 i, const Extent& e, const Rollout& kept, i64 j) {
    return (u32)(j + 1 == (i64)kept.chunks ? e.len : item_int(args.batch.step_ends, item_int(args.batch.step_offsets, i) + j)) - 1;
}

// The shaped reward of the rollout whose list is read: in shared memory, so that it takes no registers of the loops.
INLINE ShapedReward& shared_list_shape() {
    SHARED(ShapedReward, shape_of_list, [1]);
    return shape_of_list[0];
}

OUT_OF_LINE void shape_list(const Args& args, i64 i) {
    __syncthreads();
    if (is_first_thread()) shared_list_shape() = shaped_reward(args, plan_of(args), i);
    __syncthreads();
}

// Calls each(x, weight) for this thread's share of the values that a rollout's steps or tokens have in a list. The block.
template <class Each> INLINE void each_value(const Args& args, const PlanConstants& plan, const Work& w, i32 list, Each each) {
    bool skip = skips_nan(plan, list);
    if (plan.kind != KIND_KL) {
        const f32* values = elements_of(args, w.i, w.e, w.kept, list);
        const u32* weights = plan.pool == POOL_TOKENS ? list_of<u32>(args.work.weights, w.e) : 0;
        for (u32 j = threadIdx.x; j < w.kept.elements; j += blockDim.x) {
            f32 x = values[j];
            if (!skip || !is_nan(x)) each(x, weights ? weights[j] : 1u);
        }
        return;
    }
    bool by_reward = plan.shaped && list == 1;
    if (by_reward) shape_list(args, w.i);
    const Array& signal = args.batch.signal[by_reward ? 0 : list];
    const i64 lead = args.batch.process == PROCESS_SIGNAL ? sector_lead(signal, at(w.e, signal, w.scope.first), token_stride(w.e, signal)) : 0;
    // (A rollout has less than 2^31 tokens: numbers of 32 bits take half the registers.)
    for (i32 t = (i32)smaller(w.scope.first - lead + threadIdx.x, w.scope.end); t < (i32)w.scope.end; t = next_below(t, blockDim.x, (i32)w.scope.end)) {
        if (!contains(w.scope, t)) continue;
        f32 x = signal_value(args, plan, w.e, by_reward ? 0 : list, t);
        if (by_reward) x = shaped(shared_list_shape(), x);
        if (!skip || !is_nan(x)) each(x, 1u);
    }
}

// Key of the largest value of a list that a rollout's pieces have, and the grid on which they are summed: no piece knows how many steps the rollout has.
INLINE i32 joint_most(const Args& args, const Unit& unit, i32 list) {
    const i64* const rows = rows_of(args, unit);
    i32 most = 0;
    for (i64 j = 0; j < unit.pieces; ++j) most = larger(most, (i32)row_at(rows, j)[ROW_MOST + 1 + list]);
    return most;
}
INLINE Grid joint_grid(const Args& args, const Unit& unit, i32 most) { return grid_of(sum_bits(plan_of(args).kind == KIND_KL ? unit.total : 0), most); }
// `pool = rollouts` of a rollout in pieces: the mean that their sums come to.
OUT_OF_LINE Value joint_mean(const Args& args, const Work& w, i32 list) {
    const Unit& unit = unit_of(args, w.i);
    const i32 most = joint_stage(args) > JOINT_OWN ? joint_most(args, unit, list) : 0;
    if (joint_stage(args) <= JOINT_OWN) return Value{0.0f, false};
    if (most >= KEY_INFINITE) return Value{bad_sum(most), true};
    const i64* const sum = own_list(args, unit, list);
    return sum[1] > 0 ? Value{(f32)(((f64)sum[0] / (f64)sum[1]) * joint_grid(args, unit, most).down), true} : Value{0.0f, false};
}

// Exact sum of a rollout's values of a list on a grid, and their number. The block.
INLINE i64 block_sum_of(const Args& args, const PlanConstants& plan, const Work& w, i32 list, const Grid& grid, i64& n) {
    i64 q = 0;
    u32 own = 0;
    each_value(args, plan, w, list, [&](f32 x, u32) {
        q += quantize(grid, x);
        ++own;
    });
    n = block_sum((i64)own);
    return block_sum(q);
}

// Key of the largest of a rollout's values of a list. The block.
OUT_OF_LINE i32 list_absmax(const Args& args, const Work& w, i32 list) {
    i32 absmax = 0;
    each_value(args, plan_of(args), w, list, [&](f32 x, u32) { absmax = larger(absmax, absolute_key(x)); });
    return block_max(absmax, 0);
}
// Their mean, by an exact sum on the grid that it sets. The block.
OUT_OF_LINE Value list_mean(const Args& args, const Work& w, i32 list, i32 absmax) {
    const Grid grid = grid_of(sum_bits((i64)w.kept.elements), absmax);
    i64 n;
    const i64 q = block_sum_of(args, plan_of(args), w, list, grid, n);
    return n > 0 ? Value{(f32)(((f64)q / (f64)n) * grid.down), true} : Value{0.0f, false};
}
// `pool = rollouts`: the one value that a rollout's list comes to, where `mean_of_list` has put it.
INLINE Value& shared_list_mean() {
    SHARED(Value, mean_of_rollout, [1]);
    return mean_of_rollout[0];
}
// The mean of a rollout's values of a list, by an exact sum on a grid of its own. The block meets at the end.
OUT_OF_LINE void mean_of_list(const Args& args, const Work& w, i32 list) {
    Value mean;
    if (args.work.joint) {
        mean = joint_mean(args, w, list);
    } else {
        const i32 absmax = list_absmax(args, w, list);
        mean = absmax >= KEY_INFINITE ? Value{bad_sum(absmax), true} : list_mean(args, w, list, absmax);
    }
    __syncthreads();
    if (is_first_thread()) shared_list_mean() = mean;
    __syncthreads();
}
// Calls each(x, weight) for this thread's share of the elements: the values, or (`pool = rollouts`) their one mean, which is there.
template <class Each> INLINE void each_element(const Args& args, const PlanConstants& plan, const Work& w, i32 list, Each each) {
    if (plan.pool != POOL_ROLLOUTS) return each_value(args, plan, w, list, each);
    if (shared_list_mean().there && is_first_thread()) each(shared_list_mean().x, 1u);
}

// Maxima of a rollout's elements of a list. The block.
OUT_OF_LINE Extremes extremes_of_list(const Args& args, const Work& w, i32 list) {
    Extremes found = no_extremes();
    each_element(args, plan_of(args), w, list, [&](f32 x, u32) { extremes_push(found, x); });
    return block_extremes(found);
}
// (The mean is found before, so that nothing is kept while it is.)
INLINE Extremes list_extremes(const Args& args, const Work& w, i32 list) {
    if (plan_of(args).pool == POOL_ROLLOUTS) mean_of_list(args, w, list);
    FORGET(list);
    return extremes_of_list(args, w, list);
}

// Does the slot's set know how many of its elements are at the extremes? (On a grid of 30 bits, without weights and missing values, the CPU does not count.)
INLINE bool counts_extremes(const PlanConstants& plan, i32 list, i32 bits) {
    return skips_nan(plan, list) || (plan.kind != KIND_KL && plan.pool == POOL_TOKENS) || bits != STEP_BITS;
}

// Sums of a rollout's elements of a list on the grid of a slot, whose set has the extremes `of`; in every thread. The block.
OUT_OF_LINE Sums sums_of_list(const Args& args, const Work& w, i32 list, i32 slot, Extremes of) {
    const PlanConstants& plan = plan_of(args);
    Sums own = no_sums();
    // A set with findings has no grid, and its group no use for sums.
    if (extremes_bad(of)) return own;
    const Grid grid = grid_of(plan.slot_bits[slot], of.absmax);
    const bool at_extremes = counts_extremes(plan, list, grid.bits);
    // What a thread counts stays below 2^32: weights are tokens of one rollout.
    u32 n = 0, at_max = 0, at_min = 0;
    each_element(args, plan, w, list, [&](f32 x, u32 weight) {
        i64 q = quantize(grid, x);
        u64 a = (u64)(q < 0 ? -q : q), low = a * a, high = __umul64hi(a, a);
        n += weight;
        own.q += q * weight;
        own.hi += (i64)(high << (64 - grid.bits) | low >> grid.bits) * weight;
        own.lo += (i64)(low & ((1ull << grid.bits) - 1)) * weight;
        if (!at_extremes) return;
        at_max += x == max_value(of) ? weight : 0;
        at_min += x == min_value(of) ? weight : 0;
    });
    own.n = n;
    own.at_max = at_max;
    own.at_min = at_min;
    return block_sums(own);
}

// The same, with what they are made of before. `of()`: the set's extremes, asked when they are needed.
template <class Of> INLINE Sums list_sums(const Args& args, const Work& w, i32 list, i32 slot, Of of) {
    if (plan_of(args).pool == POOL_ROLLOUTS) mean_of_list(args, w, list);
    FORGET(list);
    FORGET(slot);
    return sums_of_list(args, w, list, slot, of());
}

// A per-rollout value's share of a slot's set, as often as `weight` says. Of a sum of rewards a finding is in the set of a term: it is not looked for here.
INLINE Sums one_sum(const PlanConstants& plan, f32 x, i32 slot, i64 weight, const Extremes& of) {
    Sums own = no_sums();
    if (extremes_bad(of) || !is_finite(x) || weight == 0) return own;
    sums_push_element(own, grid_of(plan.slot_bits[slot], of.absmax), x, weight, of);
    return own;
}

// Sums of one rollout's own elements of a process slot, for leave-one-out by rollout; in every thread. `of()`: the set's extremes, asked again where they are needed. The block.
template <class Of> INLINE Sums block_own_sums(const Args& args, const PlanConstants& plan, const Work& w, i32 slot, Of of) {
    Sums own = no_sums();
    if (!counts_in_stats(w.kept)) return own;
    auto pooled = [&] { return slot == 1 && pools(plan); };
    if (slot < plan.sets && (w.kept.state & STATE_HAS_PROCESS)) own = list_sums(args, w, pooled() ? 0 : slot, slot, of);
    FORGET(slot);
    if (pooled()) {
        for (i32 s = 0; s < 2; ++s) {
            Value v = rollout_value(args, plan, s, w.i);
            if (v.there) sums_add(own, one_sum(plan, v.x, slot, 1, of()));
        }
    }
    return own;
}

// ---- leave-one-out by rollout: slots all of whose elements are one rollout's ----
// `GroupMarks::one_rollout`: bit s where a rollout with elements in slot s has been seen, bit 16 + s where a second one has.
INLINE bool asks_one_rollout(const PlanConstants& plan, i32 slot) {
    const Stream& row = plan.streams[plan.slot_row[slot]];
    bool leaves_out = row.center == CENTER_LEAVE_ONE_OUT || row.scale == SCALE_LEAVE_ONE_OUT;
    return slot < plan.sets && leaves_out && row.loo_unit == LOO_ROLLOUT && row.singleton == SINGLETON_REFUSE;
}
INLINE void mark_rollout(GroupMarks& marks, i32 slot) {
    u32 seen = atomicOr(&marks.one_rollout, 1u << slot);
    if (seen >> slot & 1) atomicOr(&marks.one_rollout, 1u << (16 + slot));
}
INLINE bool is_one_rollout(const GroupMarks& marks, i32 slot) { return (marks.one_rollout >> slot & 1) && !(marks.one_rollout >> (16 + slot) & 1); }

#endif
