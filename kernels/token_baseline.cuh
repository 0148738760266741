// Baselines a token: the advantages of a group's tokens at one place lose the weighted mean of the returns there (optimal token baseline). A few passes over
// the batch: how far each group reaches, the maxima of weights and weighted returns at each place, sums of integers on the grids that the maxima set, and,
// where each rollout is shaped, the subtraction. Integers add in any order. Twin of token_baseline.rs.
#ifndef PASSRL_TOKEN_BASELINE_CUH
#define PASSRL_TOKEN_BASELINE_CUH
#include "shaping.cuh"

// Beside the sum of weights.
constexpr f64 BASELINE_EPSILON = 1e-8;
// No weighted return and no baseline is beyond this, so that nothing that comes of finite input is NaN.
constexpr f64 MOST_BASELINE = 1e250;

// A group's places, at the slot of the rollout that reaches furthest, which no other group uses.
struct Places {
    // Largest |G W| and |W|, as bits: those of numbers that are not negative rise with them.
    u64 *gain_most, *weight_most;
    i64 *gain_sums, *weight_sums;
    i64 count;
};

INLINE Places places_of(const Args& args, i64 g) {
    const u64 reach = marks_of(args, g).reach;
    const i64 count = (i64)(reach >> 32), slot = count > 0 ? extent(args, (i64)(u32)~reach).slot : 0, each = plan_of(args).max_tokens;
    u64* const base = (u64*)args.work.places + slot;
    return Places{base, base + each, (i64*)base + 2 * each, (i64*)base + 3 * each, count};
}

// 2^(46 - e) and 2^(e - 46) for 2^(e-1) <= most < 2^e; 0 below 2^-900, far below `BASELINE_EPSILON`, so that the grid stays within f64.
struct PlaceGrid {
    f64 up, down;
};
INLINE PlaceGrid place_grid(u64 most) {
    if (most < (u64)(1023 - 900) << 52) return PlaceGrid{0.0, 0.0};
    const i32 shift = ROLLOUT_BITS - ((i32)(most >> 52) - 1022);
    return PlaceGrid{power_of_two(shift), power_of_two(-shift)};
}
// rint(x up), |x up| at most 2^46.
INLINE i64 place_integer(f64 x, f64 up) { return (i64)(bits_of(x * up + MAGIC) - bits_of(MAGIC)); }

// Does the rollout count in the baselines?
INLINE bool counts_in_baselines(const Rollout& kept) { return kept.count > 0 && !(kept.state & (STATE_OUT_OF_STATS | STATE_ZEROED)); }

// Place of token t, the line-th in scope: its offset in the extent, or its number among the tokens in scope.
INLINE i64 place_of(const PlanConstants& plan, i64 t, i64 line) { return plan.token_baseline == TOKEN_BASELINE_TOKEN ? line : t; }

// B of a place: (sum G W) / (sum W + 1e-8); 0 where nothing is divided by.
INLINE f64 baseline_at(const Places& places, i64 place) {
    const f64 gains = (f64)places.gain_sums[place] * place_grid(places.gain_most[place]).down;
    const f64 divisor = (f64)places.weight_sums[place] * place_grid(places.weight_most[place]).down + BASELINE_EPSILON;
    return divisor == 0.0 ? 0.0 : clamped(gains / divisor, -MOST_BASELINE, MOST_BASELINE);
}

// How far the groups reach, and which of their rollouts has the most tokens in scope. A thread a rollout.
INLINE void baselines_longest(const Args& args, i64 i) {
    if (i >= args.batch.rollouts) return;
    const Rollout& kept = rollout_of(args, i);
    if (kept.group == NO_GROUP) return;
    GroupMarks& marks = marks_of(args, kept.group);
    const u64 reach = plan_of(args).token_baseline == TOKEN_BASELINE_TOKEN ? kept.count : kept.end;
    if (reach > 0) atomicMax(&marks.reach, reach << 32 | (u32)~(u32)i);
    if (!counts_in_baselines(kept)) return;
    atomicAdd(&marks.counted, 1u);
    atomicMax(&marks.most, (u64)kept.count << 32 | (u32)~(u32)i);
}

// The second most tokens in scope, and zeros in the groups' places. A block a rollout.
INLINE void baselines_clear(const Args& args, i64 i) {
    const Rollout& kept = rollout_of(args, i);
    if (kept.group == NO_GROUP) return;
    GroupMarks& marks = marks_of(args, kept.group);
    if (is_first_thread() && counts_in_baselines(kept) && (u32)~marks.most != (u32)i) atomicMax(&marks.second, kept.count);
    if (marks.reach == 0 || (u32)~marks.reach != (u32)i) return;
    const Places places = places_of(args, kept.group);
    for (i64 place = threadIdx.x; place < places.count; place += blockDim.x) {
        places.gain_most[place] = places.weight_most[place] = 0;
        places.gain_sums[place] = places.weight_sums[place] = 0;
    }
}

// G W of each token of a rollout whose returns are in v, and the maxima of its place.
OUT_OF_LINE void weigh_returns(const Args& args, const Shaping& w) {
    const PlanConstants& plan = plan_of(args);
    const Places places = places_of(args, w.kept.group);
    f64* const gains = list_of<f64>(args.work.baseline_gains, w.e);
    const f64* const weights = list_of<f64>(args.work.baseline_weights, w.e);
    each_in_scope(w.scope, [&](i64 t, i64 line) {
        const f64 weight = weights[line], gain = clamped(w.v[line] * weight, -MOST_BASELINE, MOST_BASELINE);
        const i64 place = place_of(plan, t, line);
        gains[line] = gain;
        atomicMax(&places.gain_most[place], bits_of(absolute(gain)));
        atomicMax(&places.weight_most[place], bits_of(absolute(weight)));
    });
}

// Sums of a rollout's tokens on the grids of the maxima: fewer than 2^17 rollouts of 46 bits each.
INLINE void baselines_add(const Args& args, i64 i) {
    const PlanConstants& plan = plan_of(args);
    const Rollout kept = rollout_of(args, i);
    if (kept.group == NO_GROUP || !counts_in_baselines(kept) || marks_of(args, kept.group).counted < 2) return;
    const Extent e = extent(args, i);
    const Places places = places_of(args, kept.group);
    const f64 *const gains = list_of<f64>(args.work.baseline_gains, e), *const weights = list_of<f64>(args.work.baseline_weights, e);
    each_in_scope(kept_scope(args, i, e, kept), [&](i64 t, i64 line) {
        const i64 place = place_of(plan, t, line);
        add_to(&places.gain_sums[place], place_integer(gains[line], place_grid(places.gain_most[place]).up));
        add_to(&places.weight_sums[place], place_integer(weights[line], place_grid(places.weight_most[place]).up));
    });
}

// Takes B from the advantages of a rollout's tokens in scope, in d. The one rollout with the most tokens in scope has no baseline where its only company is
// itself.
OUT_OF_LINE void take_baseline(const Args& args, const Shaping& w) {
    const PlanConstants& plan = plan_of(args);
    const GroupMarks& marks = marks_of(args, w.kept.group);
    if (marks.counted < 2) return;
    const bool alone = (u32)~marks.most == (u32)w.i && (u32)(marks.most >> 32) > marks.second;
    const Places places = places_of(args, w.kept.group);
    each_in_scope(w.scope, [&](i64 t, i64 line) {
        const i64 place = place_of(plan, t, line);
        if (!alone || place < (i64)marks.second) w.d[line] -= baseline_at(places, place);
    });
    __syncthreads();
}

#endif
