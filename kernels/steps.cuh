// Steps of a rollout: the units that the process signal scores, listed where they have a token in scope (src/backend/cpu/steps.rs).
#ifndef PASSRL_STEPS_CUH
#define PASSRL_STEPS_CUH
#include "scope.cuh"
#include "signal.cuh"

// The caller's steps of a rollout: numbers from .. to of the CSR arrays.
struct StepRange {
    i64 from, to;
    // Offsets within the arrays and the limits.
    bool good;
};
INLINE StepRange step_numbers(const Args& args, i64 i) {
    const Batch& batch = args.batch;
    if (args.work.joint) {
        const i64 at = item_int(batch.extents, i) - item_int(batch.extents, 0) + i;
        return StepRange{at, at + unit_of(args, i).clipped, true};
    }
    i64 from = item_int(batch.step_offsets, i), to = item_int(batch.step_offsets, i + 1);
    bool good = 0 <= from && from <= to && to <= batch.steps;
    return good ? StepRange{from, to, true} : StepRange{0, 0, false};
}
// Do the steps lie in order inside the rollout's `len` tokens? Ends are read once (the one before comes from a neighbour), and the first `room` of them, as they
// are, kept in `ends`. `filled` (MODE_IN_PLACE): has every step a token? The whole block.
OUT_OF_LINE bool block_steps_fit(const Args& args, const StepRange& steps, i64 len, u32* ends, i64 room, bool& filled) {
    const Batch& batch = args.batch;
    bool good = steps.good, full = true;
    for (i64 tile = steps.from; tile < steps.to; tile += blockDim.x) {
        const i64 j = tile + threadIdx.x;
        const bool there = j < steps.to;
        const i64 end = there ? item_int(batch.step_ends, j) : 0;
        i64 before = __shfl_up_sync(WARP, end, 1);
        if (lane() == 0) before = there && j > steps.from ? item_int(batch.step_ends, j - 1) : 0;
        if (!there) continue;
        const i64 begin = is_given(batch.step_begins) ? item_int(batch.step_begins, j) : before;
        good = good && before <= begin && begin <= end && end <= len;
        full = full && before < (j + 1 == steps.to ? len : end);
        if (j - steps.from < room) ends[j - steps.from] = (u32)end;
    }
    filled = (args.mode & MODE_IN_PLACE) && __syncthreads_and(full) != 0;
    return __syncthreads_and(good) != 0;
}
// Token range of step j of a rollout whose steps fit; without begins the last step takes the tokens that follow.
struct TokenRange {
    i64 begin, end;
};
INLINE TokenRange step_tokens(const Args& args, const StepRange& steps, i64 j, i64 len) {
    const Batch& batch = args.batch;
    if (is_given(batch.step_begins)) return TokenRange{item_int(batch.step_begins, j), item_int(batch.step_ends, j)};
    return TokenRange{j == steps.from ? 0 : item_int(batch.step_ends, j - 1), j + 1 == steps.to ? len : item_int(batch.step_ends, j)};
}
// Does token t lie in a step, begins given? The first step that ends beyond t is the one that could hold it.
INLINE bool in_a_step(const Args& args, const StepRange& steps, i64 t) {
    i64 low = steps.from, high = steps.to;
    while (low < high) {
        i64 middle = low + (high - low) / 2;
        if (item_int(args.batch.step_ends, middle) <= t) low = middle + 1;
        else high = middle;
    }
    return low < steps.to && item_int(args.batch.step_begins, low) <= t;
}
// Score of step j for process stream p.
INLINE f32 step_score(const Args& args, i32 p, i64 j) {
    const Array& scores = args.batch.scores;
    return load_f32(scores, args.batch.scores_flat ? j * scores.stride[0] : p * scores.stride[0] + j * scores.stride[1]);
}
// The listed step that token t belongs to: the first that ends beyond it.
INLINE i64 listed_step(const u32* ends, i64 count, i64 t) {
    i64 low = 0, high = count - 1;
    while (low < high) {
        i64 middle = low + (high - low) / 2;
        if ((i64)ends[middle] <= t) low = middle + 1;
        else high = middle;
    }
    return low;
}

// Bits of the grid on which `most` values at most are summed within 64 bits.
INLINE i32 sum_bits(i64 most) { return most < 1 << 17 ? ROLLOUT_BITS : STEP_BITS; }
// What an exact sum with a bad value in it comes to.
INLINE f32 bad_sum(i32 absmax) { return f32_of(absmax >= KEY_NAN ? 0x7fc00000u : 0x7f800000u); }

// Exact sum of value(t) over the tokens of a .. b in scope, rounded once; the values' own maximum sets the grid. A warp.
template <class Value> INLINE f32 warp_exact_sum(const Scope& scope, i64 a, i64 b, Value value) {
    i32 absmax = 0;
    for (i64 t = a + lane(); t < b; t += 32) {
        if (contains(scope, t)) absmax = larger(absmax, absolute_key(value(t)));
    }
    absmax = warp_max(absmax);
    if (absmax >= KEY_INFINITE) return bad_sum(absmax);
    Grid grid = grid_of(sum_bits(b - a), absmax);
    i64 q = 0;
    for (i64 t = a + lane(); t < b; t += 32) {
        if (contains(scope, t)) q += quantize(grid, value(t));
    }
    return (f32)((f64)warp_sum(q) * grid.down);
}
// Likewise over the whole scope of a rollout of `len` tokens. The block.
template <class Value> INLINE f32 block_exact_sum(const Scope& scope, i64 len, Value value) {
    i32 absmax = 0;
    for (i64 t = scope.first + threadIdx.x; t < scope.end; t += blockDim.x) {
        if (contains(scope, t)) absmax = larger(absmax, absolute_key(value(t)));
    }
    absmax = block_max(absmax, 0);
    if (absmax >= KEY_INFINITE) return bad_sum(absmax);
    Grid grid = grid_of(sum_bits(len), absmax);
    i64 q = 0;
    for (i64 t = scope.first + threadIdx.x; t < scope.end; t += blockDim.x) {
        if (contains(scope, t)) q += quantize(grid, value(t));
    }
    return (f32)((f64)block_sum(q) * grid.down);
}

// Each value becomes the return from it on, a plain sequence in f64 from the last, rounded to f32. One that is not finite (missing, or a finding) stays
// and is 0 to those before it. One thread.
INLINE void returns_to_go(f32* values, i64 count, f64 gamma) {
    f64 to_go = 0.0;
    for (i64 j = count - 1; j >= 0; --j) {
        f32 x = values[j];
        bool there = is_finite(x);
        to_go = (there ? (f64)x : 0.0) + gamma * to_go;
        if (there) values[j] = (f32)to_go;
    }
}

#endif
