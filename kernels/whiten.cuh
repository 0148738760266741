// Whitening over the batch (docs/formulas.md 2.6): exact statistics of the advantages rounded to f32, then one shift and scale for all. Twin of whiten.rs.
#ifndef PASSRL_WHITEN_CUH
#define PASSRL_WHITEN_CUH
#include "expand.cuh"
#include "standard.cuh"

// Shift and scale of a batch. `flat`: one element, or all equal: the deviation from the mean is 0.
struct Whitening {
    f64 mean, inv;
    bool flat, empty, shift;
};

OUT_OF_LINE Whitening make_whitening(const Args& args) {
    const PlanConstants& plan = plan_of(args);
    const Extremes extremes = load_extremes(args, whiten_keys(args), 0);
    const Sums sums = load_sums(whiten_words(args), 0);
    const Grid grid = grid_of(STEP_BITS, extremes.absmax);
    Whitening to;
    to.empty = sums.n <= 0;
    to.flat = to.empty || sums.n == 1 || all_equal(extremes);
    to.mean = to.empty ? 0.0 : sums_mean(sums, grid);
    to.inv = to.flat ? 0.0 : inverse(variance_units(sums, grid, plan.whiten_ddof), grid.down, plan.whiten_epsilon, plan.whiten_epsilon_mode);
    to.shift = plan.whiten_shift;
    return to;
}

// Values are read rounded to f32, as the statistics did.
INLINE f64 whitened(const Whitening& w, f64 x) {
    const f64 back = w.shift ? 0.0 : w.mean;
    const f64 a = clamped((f64)(f32)x, -F32_LARGEST, F32_LARGEST);
    if (w.empty) return a;
    return w.flat ? back : (a - w.mean) * w.inv + back;
}

// Do a rollout's advantages count in the whitening's set?
INLINE bool whitens(const Rollout& kept) { return !(kept.state & (STATE_ZEROED | STATE_OUT_OF_STATS)) && !(kept.flags & ROLLOUT_ABSENT); }

// Are the results of a rollout a value a token in scope (gae over tokens, vtrace, every token a chunk), not a value a chunk?
INLINE bool lies_by_token(const PlanConstants& plan, const Rollout& kept) { return plan.credits_tokens || (kept.state & STATE_EVERY_TOKEN); }

INLINE Lines result_lines(const PlanConstants& plan, const Rollout& kept, const u32* last) {
    const bool every = lies_by_token(plan, kept);
    return Lines{every, last, every ? (i64)kept.count : (i64)kept.chunks};
}

#endif
