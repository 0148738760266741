// Standardisation N(x; S) of one stream in one group: decided once a block, resolved once a rollout, applied to values. Twin of standard.rs.
#ifndef PASSRL_STANDARD_CUH
#define PASSRL_STANDARD_CUH
#include "args.cuh"
#include "choices.cuh"
#include "numerics.cuh"

// What a set is, before any element is looked at. Flat: all equal under a deviation or a mean, or max|S| = 0 under `abs_max`.
// Empty beside one: that of the singleton rule (the batch's, under a scale of the group's) has one element.
enum Set { SET_EMPTY_BESIDE_ONE = -1, SET_EMPTY = 0, SET_SINGLE = 1, SET_FLAT = 2, SET_PROPER = 3 };

// How the values of one rollout are standardised. a and b: affine (x - a) b; divide (x - a) / b; best: (x - a) b for the one value above a.
enum How { HOW_ZERO = 0, HOW_RAW = 1, HOW_AFFINE = 2, HOW_DIVIDE = 3, HOW_BEST = 4, HOW_LEAVE_OUT = 5 };
struct Apply {
    i32 how;
    f64 a, b;
};

struct Standard {
    const Stream *stream;
    Grid grid;
    Extremes extremes;
    Sums sums;
    i32 set;
    f64 mean, inv;
    // `runner_up`: the second largest value.
    f64 second;
};

// The set of the whole batch beside the group's own.
struct Whole {
    i64 n, nonzero;
    f64 mean, inv;
    bool flat;
};

// Is a standard deviation divided by (so that equal values give 0)?
INLINE bool has_std(const Stream &s) {
    return s.scale == SCALE_GROUP || s.scale == SCALE_LEAVE_ONE_OUT || s.scale == SCALE_BATCH || s.scale == SCALE_GIVEN;
}
INLINE bool asks_batch(const Stream &s) {
    return s.center == CENTER_BATCH || s.scale == SCALE_BATCH || s.scale == SCALE_NONZERO_SHARE;
}
// `none` as well: an empty set gives 0.
INLINE bool asks_group(const Stream &s) {
    return s.center == CENTER_GROUP || s.center == CENTER_LEAVE_ONE_OUT || s.center == CENTER_LENGTH_WEIGHTED || s.center == CENTER_RUNNER_UP ||
           s.scale == SCALE_GROUP || s.scale == SCALE_LEAVE_ONE_OUT || s.scale == SCALE_ABS_MAX || s.scale == SCALE_MEAN ||
           (s.center == CENTER_NONE && s.scale == SCALE_NONE);
}
// Is the element itself left out of a statistic?
INLINE bool leaves_out(const Stream &s) { return s.center == CENTER_LEAVE_ONE_OUT || s.scale == SCALE_LEAVE_ONE_OUT; }

// 1 / (std + epsilon) and its kin, from the variance in grid units.
OUT_OF_LINE f64 inverse(f64 units, f64 down, f64 epsilon, i32 mode) {
    const f64 std = __dsqrt_rn(units) * down, var = units * (down * down);
    switch (mode) {
        case EPSILON_ADD_STD: return 1.0 / (std + epsilon);
        case EPSILON_ADD_VAR: return 1.0 / __dsqrt_rn(var + epsilon);
        case EPSILON_FLOOR_STD: return 1.0 / larger(epsilon, std);
        default: return 1.0 / __dsqrt_rn(larger(epsilon, var));
    }
}

INLINE f64 deviation_of(const Stream &s, const Sums &sums, const Grid &grid) {
    return inverse(variance_units(sums, grid, s.ddof), grid.down, s.epsilon, s.epsilon_mode);
}

// From the group's set (stream, extremes and sums, which are in `to`), the batch's, and the caller's mean and deviation. `second`: key of the set's largest value below
// the maximum.
INLINE void make_standard(Standard &to, i32 bits, i32 second, const Whole &whole, f64 given_mean, f64 given_std) {
    const Stream &s = *to.stream;
    const bool empty = extremes_bad(to.extremes) || (asks_group(s) && to.sums.n <= 0) || (asks_batch(s) && whole.n <= 0);
    // Of length weights the rollouts are counted, in `at_max` when all are equal.
    const bool one = s.center == CENTER_LENGTH_WEIGHTED ? all_equal(to.extremes) && to.sums.at_max == 1 : to.sums.n == 1;
    bool single = false;
    if (s.center == CENTER_GROUP || s.center == CENTER_LEAVE_ONE_OUT || s.center == CENTER_LENGTH_WEIGHTED || s.center == CENTER_RUNNER_UP) single = one;
    // The others of one element are none.
    else if (s.center == CENTER_BATCH || s.scale == SCALE_BATCH) single = whole.n == 1 || (s.scale == SCALE_LEAVE_ONE_OUT && one);
    else if (s.scale == SCALE_GROUP || s.scale == SCALE_LEAVE_ONE_OUT) single = one;
    bool flat = false;
    if (s.scale == SCALE_GROUP || s.scale == SCALE_MEAN) flat = all_equal(to.extremes);
    else if (s.scale == SCALE_BATCH) flat = whole.flat;
    else if (s.scale == SCALE_ABS_MAX) flat = to.extremes.absmax == 0;
    // Below the smallest f32 there is no deviation to speak of.
    else if (s.scale == SCALE_GIVEN) flat = given_std < (f64)f32_of(1u);
    const i32 set = empty && single ? SET_EMPTY_BESIDE_ONE : empty ? SET_EMPTY : single ? SET_SINGLE : flat ? SET_FLAT : SET_PROPER;
    to.grid = grid_of(bits, to.extremes.absmax);
    to.set = set;
    to.mean = 0.0;
    to.inv = 1.0;
    to.second = (f64)(to.sums.at_max > 1 ? max_value(to.extremes) : key_value(second));
    if (!empty) {
        if (s.center == CENTER_GROUP || s.center == CENTER_LENGTH_WEIGHTED) to.mean = sums_mean(to.sums, to.grid);
        else if (s.center == CENTER_BATCH) to.mean = whole.mean;
        else if (s.center == CENTER_GIVEN) to.mean = given_mean;
    }
    if (set == SET_PROPER || (set == SET_SINGLE && asks_batch(s) && !flat)) {
        switch (s.scale) {
            case SCALE_GROUP: to.inv = deviation_of(s, to.sums, to.grid); break;
            case SCALE_BATCH: to.inv = whole.inv; break;
            case SCALE_GIVEN: to.inv = inverse(given_std * given_std, 1.0, s.epsilon, s.epsilon_mode); break;
            case SCALE_NONZERO_SHARE: to.inv = (f64)whole.n / (f64)(whole.nonzero > 1 ? whole.nonzero : 1); break;
            case SCALE_MEAN: {
                const f64 divisor = sums_mean(to.sums, to.grid) + s.epsilon;
                to.inv = divisor != 0.0 ? 1.0 / divisor : 0.0;
                break;
            }
            default: break;
        }
    }
}

INLINE Apply zero_apply() { return Apply{HOW_ZERO, 0.0, 0.0}; }

// A set of zero variance: 0, or the deviation undivided.
INLINE Apply undivided(const Standard &n, f64 mean) {
    if (has_std(*n.stream) && n.stream->zero_variance == ZERO_VARIANCE_CENTER)
        return n.stream->center == CENTER_RUNNER_UP ? Apply{HOW_BEST, n.second, 1.0} : Apply{HOW_AFFINE, mean, 1.0};
    return zero_apply();
}

INLINE Apply singleton(const Standard &n) {
    if (n.stream->singleton != SINGLETON_PASSTHROUGH) return zero_apply();
    // Nothing is subtracted; a scale of the batch's is a scale all the same.
    if (asks_batch(*n.stream) && n.stream->center != CENTER_BATCH) return Apply{HOW_AFFINE, 0.0, n.inv};
    return Apply{HOW_RAW, 0.0, 0.0};
}

// 1 / std of the others; false: they are equal (as far as their sums can tell).
INLINE bool others_deviation(const Standard &n, const Sums &others, bool equal, f64 *inv, u32 *lost) {
    if (equal || others.n <= 1) return false;
    const f64 units = variance_units(others, n.grid, n.stream->ddof);
    if (units == 0.0) {
        *lost += 1;
        return false;
    }
    *inv = inverse(units, n.grid.down, n.stream->epsilon, n.stream->epsilon_mode);
    return true;
}

// Does `resolve` look at the rollout's own sums? (`s`: the set's stream, from where the caller has it.)
INLINE bool needs_own(const Standard &n, const Stream &s, bool counts) { return n.set >= SET_FLAT && leaves_out(s) && counts && s.loo_unit != LOO_ELEMENT; }
INLINE bool needs_own(const Standard &n, bool counts) { return needs_own(n, *n.stream, counts); }

// For a rollout: `of_mean`, what its set's mean is for it; `own`, the sums of its elements (read where `needs_own`); `counts`: it is in the set.
INLINE Apply resolve(const Standard &n, f64 of_mean, bool counts, const Sums &own, u32 *lost) {
    const Stream &s = *n.stream;
    if (n.set <= SET_EMPTY) return zero_apply();
    if (n.set == SET_SINGLE) return singleton(n);
    const bool by_element = s.loo_unit == LOO_ELEMENT && counts;
    Sums others = n.sums;
    if (needs_own(n, counts)) {
        others = sums_without(n.sums, own);
        // Tested before zero variance: nothing is left when the rollout is left out.
        if (others.n <= 0) return singleton(n);
    }
    f64 mean = of_mean, inv = n.inv;
    if (leaves_out(s)) {
        if (by_element && (n.set == SET_PROPER || (has_std(s) && s.zero_variance == ZERO_VARIANCE_CENTER))) return Apply{HOW_LEAVE_OUT, 0.0, 0.0};
        if (s.center == CENTER_LEAVE_ONE_OUT) mean = sums_mean(others, n.grid);
    }
    if (s.center == CENTER_RUNNER_UP && !counts) return zero_apply();
    if (n.set == SET_FLAT) return undivided(n, mean);
    if (s.scale == SCALE_LEAVE_ONE_OUT && !others_deviation(n, others, others.at_max == others.n || others.at_min == others.n, &inv, lost))
        return undivided(n, mean);
    if (s.center == CENTER_RUNNER_UP) {
        // A maximum of the set is above 0 here: a flat set has been answered.
        return Apply{HOW_BEST, n.second, s.scale == SCALE_ABS_MAX ? 1.0 / (f64)absmax_value(n.extremes) : inv};
    }
    if (s.scale == SCALE_ABS_MAX) return Apply{HOW_DIVIDE, mean, (f64)absmax_value(n.extremes)};
    return Apply{HOW_AFFINE, mean, inv};
}

// Integers of an f64 that has one, as Rust's `as` converts: beyond the range the nearest end.
INLINE i64 saturated_i64(f64 x) {
    if (x >= 9223372036854775808.0) return 0x7fffffffffffffffll;
    return x >= -9223372036854775808.0 ? (i64)x : (i64)0x8000000000000000ull;
}
INLINE Wide saturated_wide(f64 x) {
    if (absolute(x) < 9223372036854775808.0) return wide((i64)x);
    const i32 shift = (i32)(bits_of(x) >> 52 & 0x7ff) - 1075;
    const u64 significand = (bits_of(x) & 0xfffffffffffffull) | 1ull << 52;
    if (shift > 74) return x < 0.0 ? Wide{1ull << 63, 0} : Wide{~0ull >> 1, ~0ull};
    // 2^63 <= |x|: the shift is at least 11.
    const Wide magnitude = shift >= 64 ? Wide{significand << (shift - 64), 0} : wide_shifted(Wide{0, significand}, shift);
    return x < 0.0 ? wide_minus(Wide{0, 0}, magnitude) : magnitude;
}

// What one value comes to where an element is left out; `lost`: a deviation of the others that sums cannot tell from none.
struct LeftOut {
    f64 x;
    bool lost;
};
// A deviation from the mean, scaled by what the others' set says: without the element whose integer is q, and which is all that the set has at an extreme (`equal`).
INLINE LeftOut scaled(const Standard &s, f64 deviation, bool equal, f64 q) {
    if (s.stream->scale == SCALE_ABS_MAX) return LeftOut{deviation / (f64)absmax_value(s.extremes), false};
    // `zero_variance = center` of a set that is flat: inv is 1.
    if (s.stream->scale != SCALE_LEAVE_ONE_OUT) return LeftOut{deviation * s.inv, false};
    Sums own = no_sums();
    sums_push(own, s.grid, saturated_i64(q), 1);
    u32 lost = 0;
    f64 inv;
    if (others_deviation(s, sums_without(s.sums, own), equal, &inv, &lost)) return LeftOut{deviation * inv, false};
    return LeftOut{s.stream->zero_variance == ZERO_VARIANCE_CENTER ? deviation : 0.0, lost != 0};
}
// Are the set's elements but this one all equal?
INLINE bool others_equal(const Standard &s, f32 element) {
    const f32 max = max_value(s.extremes), min = min_value(s.extremes);
    const i64 n = s.sums.n - 1;
    return max == min || (s.sums.at_max == n && s.sums.at_min == 1 && element == min) || (s.sums.at_min == n && s.sums.at_max == 1 && element == max);
}

// N(x; S \ {x}). `mean`: of the set, where none is left out of that.
OUT_OF_LINE LeftOut leave_out(const Standard &s, f64 mean, f32 x) {
    // A value that is no element of the set (a token's own under dense input) may lie beyond the grid.
    const f64 q = rint((f64)x * s.grid.up);
    if (s.stream->center == CENTER_LEAVE_ONE_OUT) {
        const i64 n = s.sums.n - 1;
        // A set of zeros has no grid for a value that is none of its elements.
        if (s.grid.up == 0.0) mean = -(f64)x / (f64)n;
        else mean = (signed_to_f64(wide_minus(wide(s.sums.q), saturated_wide(q))) / (f64)n) * s.grid.down;
    }
    return scaled(s, (f64)x - mean, others_equal(s, x), q);
}

// N of a mean over tokens (`chunk_value = mean`), whose own q need not be an integer.
OUT_OF_LINE LeftOut leave_out_mean(const Standard &s, f64 x) {
    f64 mean = s.mean;
    if (s.stream->center == CENTER_LEAVE_ONE_OUT) {
        const i64 n = s.sums.n - 1;
        if (s.grid.up == 0.0) mean = -x / (f64)n;
        else mean = (((f64)s.sums.q - x * s.grid.up) / (f64)n) * s.grid.down;
    }
    return scaled(s, x - mean, others_equal(s, 0.0f), 0.0);
}
INLINE f64 noted(const LeftOut &of, u32 *lost) {
    *lost += of.lost ? 1 : 0;
    return of.x;
}

// N without leaving anything out.
INLINE f64 plain(const Apply &apply, f64 x) {
    switch (apply.how) {
        case HOW_AFFINE: return (x - apply.a) * apply.b;
        case HOW_DIVIDE: return (x - apply.a) / apply.b;
        case HOW_RAW: return x;
        case HOW_BEST: return x > apply.a ? (x - apply.a) * apply.b : 0.0;
        default: return 0.0;
    }
}

// N of one value, and of a chunk's mean.
INLINE f64 standardised(const Standard &s, f64 mean, const Apply &apply, f32 x, u32 *lost) {
    return apply.how == HOW_LEAVE_OUT ? noted(leave_out(s, mean, x), lost) : plain(apply, (f64)x);
}
INLINE f64 standardised(const Standard &s, const Apply &apply, f32 x, u32 *lost) { return standardised(s, s.mean, apply, x, lost); }
INLINE f64 standardised_mean(const Standard &s, const Apply &apply, f64 x, u32 *lost) {
    return apply.how == HOW_LEAVE_OUT ? noted(leave_out_mean(s, x), lost) : plain(apply, x);
}

// (mean, std) as reported: of the whole set, whatever the operator.
INLINE void reported(const Standard &s, f64 *mean, f64 *std) {
    *mean = *std = 0.0;
    if (s.sums.n <= 0 || extremes_bad(s.extremes)) return;
    *mean = sums_mean(s.sums, s.grid);
    if (s.sums.n > s.stream->ddof && !all_equal(s.extremes)) *std = __dsqrt_rn(variance_units(s.sums, s.grid, s.stream->ddof)) * s.grid.down;
}

// Scale that makes KL position averages comparable with eta; false: the set is degenerate and has no edges.
INLINE bool edge_scale(const Standard &n, f64 *scale) {
    if (n.set != SET_PROPER || n.extremes.absmax == 0) return false;
    const Stream &s = *n.stream;
    *scale = s.scale == SCALE_ABS_MAX ? 1.0 / (f64)absmax_value(n.extremes) : n.inv;
    if (s.center == CENTER_LEAVE_ONE_OUT) *scale = *scale * ((f64)n.sums.n / (f64)(n.sums.n - 1));
    return true;
}

#endif
