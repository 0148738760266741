// The numerics contract on the device: exact statistics of a set (src/numerics/exact.rs), 128-bit integers to f64 (wide.rs), exp (exp.rs). Expressions and
// their association are those of the CPU, so the bits are; nothing here may be contracted or reassociated.
#ifndef PASSRL_NUMERICS_CUH
#define PASSRL_NUMERICS_CUH
#include "args.cuh"
#include "device.cuh"

#define INLINE __device__ __forceinline__
// A stage, or what few configurations come to: its code stands once a kernel, and its registers are not those of the loops around it.
#define OUT_OF_LINE static __device__ __attribute__((noinline))

// Keys of `Extremes::absmax` that are findings, the worst the largest.
constexpr i32 KEY_INFINITE = 0x7f800000, KEY_NAN = 0x7fc00000, KEY_BAD_STEPS = 0x7fffffff;
// Key of nothing: below that of every value.
constexpr i32 KEY_EMPTY = (i32)0x80000000;
// Bits a value: steps, tokens and sets of the batch; per-rollout streams of a group and leave-one-out deviations.
constexpr i32 STEP_BITS = 30, ROLLOUT_BITS = 46;
// 1.5 times 2^52: added to |v| < 2^51 it rounds v to an integer, ties to even, in the low bits.
constexpr f64 MAGIC = 6755399441055744.0;
constexpr f64 F32_LARGEST = 3.4028234663852886e38;

INLINE u64 bits_of(f64 x) { return (u64)__double_as_longlong(x); }
INLINE f64 f64_of(u64 bits) { return __longlong_as_double((i64)bits); }
INLINE u32 bits_of(f32 x) { return __float_as_uint(x); }
INLINE f32 f32_of(u32 bits) { return __uint_as_float(bits); }
INLINE bool is_nan(f32 x) { return x != x; }
INLINE bool is_nan(f64 x) { return x != x; }
INLINE bool is_infinite(f32 x) { return (bits_of(x) & 0x7fffffffu) == 0x7f800000u; }
INLINE bool is_infinite(f64 x) { return (bits_of(x) & 0x7fffffffffffffffull) == 0x7ff0000000000000ull; }
INLINE bool is_finite(f32 x) { return (bits_of(x) & 0x7f800000u) != 0x7f800000u; }
INLINE bool is_finite(f64 x) { return (bits_of(x) & 0x7ff0000000000000ull) != 0x7ff0000000000000ull; }
INLINE f64 absolute(f64 x) { return f64_of(bits_of(x) & 0x7fffffffffffffffull); }
template <class T> INLINE T larger(T a, T b) { return b > a ? b : a; }
template <class T> INLINE T smaller(T a, T b) { return b < a ? b : a; }
// x within low .. high; NaN stays (f64::clamp of the host).
INLINE f64 clamped(f64 x, f64 low, f64 high) {
    x = x < low ? low : x;
    return x > high ? high : x;
}

// Keys of the maxima; `min` is the key of the largest -x.
struct Extremes {
    i32 absmax, max, min;
};
// Elements, q, the two limbs of q squared, elements equal to the maximum and to the minimum.
struct Sums {
    i64 n, q, hi, lo, at_max, at_min;
};
INLINE Extremes no_extremes() { return Extremes{0, KEY_EMPTY, KEY_EMPTY}; }
INLINE Sums no_sums() { return Sums{0, 0, 0, 0, 0, 0}; }

// Integer whose order is that of the value; -0 and +0 are one.
INLINE i32 key(f32 x) {
    i32 bits = (i32)bits_of(x + 0.0f);
    return bits ^ (i32)((u32)(bits >> 31) >> 1);
}
// The value of a key.
INLINE f32 key_value(i32 key) { return f32_of((u32)(key ^ (i32)((u32)(key >> 31) >> 1))); }
// Key of |x| as a set's maximum: bits of |x|, all NaN as one.
INLINE i32 absolute_key(f32 x) {
    i32 bits = (i32)(bits_of(x) & 0x7fffffffu);
    return bits > KEY_INFINITE ? KEY_NAN : bits;
}

INLINE void extremes_push(Extremes& e, f32 x) {
    e.absmax = larger(e.absmax, absolute_key(x));
    e.max = larger(e.max, key(x));
    e.min = larger(e.min, key(-x));
}
INLINE void extremes_add(Extremes& e, const Extremes& other) {
    e.absmax = larger(e.absmax, other.absmax);
    e.max = larger(e.max, other.max);
    e.min = larger(e.min, other.min);
}
INLINE bool extremes_bad(const Extremes& e) { return e.absmax >= KEY_INFINITE; }
INLINE bool extremes_empty(const Extremes& e) { return e.max == KEY_EMPTY; }
INLINE f32 max_value(const Extremes& e) { return key_value(e.max); }
INLINE f32 min_value(const Extremes& e) { return -key_value(e.min); }
INLINE bool all_equal(const Extremes& e) { return max_value(e) == min_value(e); }
INLINE f32 absmax_value(const Extremes& e) { return f32_of((u32)e.absmax); }

// 2^p for -1022 <= p <= 1023.
INLINE f64 power_of_two(i32 p) { return f64_of((u64)(1023 + p) << 52); }
// frexp's exponent of a positive finite f32, from its bits: 2^(e-1) <= x < 2^e.
INLINE i32 exponent(i32 absmax) { return absmax >= 0x00800000 ? (absmax >> 23) - 126 : 32 - __clz(absmax) - 149; }

// The grid that a set's maximum sets: q = rint(x 2^(bits - e)). `up` 0 for a set of zeros: every q is 0.
struct Grid {
    i32 bits;
    f64 up, down;
};
INLINE Grid grid_of(i32 bits, i32 absmax) {
    if (absmax <= 0 || absmax >= KEY_INFINITE) return Grid{bits, 0.0, 0.0};
    i32 e = exponent(absmax);
    return Grid{bits, power_of_two(bits - e), power_of_two(e - bits)};
}
// q of x, |x| at most the set's maximum.
INLINE i64 quantize(const Grid& grid, f32 x) { return (i64)(bits_of((f64)x * grid.up + MAGIC) - bits_of(MAGIC)); }

INLINE void sums_add(Sums& to, const Sums& other) {
    to.n += other.n;
    to.q += other.q;
    to.hi += other.hi;
    to.lo += other.lo;
    to.at_max += other.at_max;
    to.at_min += other.at_min;
}
// Sums without some of the elements.
INLINE Sums sums_without(const Sums& all, const Sums& own) {
    return Sums{all.n - own.n, all.q - own.q, all.hi - own.hi, all.lo - own.lo, all.at_max - own.at_max, all.at_min - own.at_min};
}
// One element, `weight` times; |q| <= 2^46, so that q squared takes 93 bits.
INLINE void sums_push(Sums& to, const Grid& grid, i64 q, i64 weight) {
    u64 a = (u64)(q < 0 ? -q : q);
    u64 low = a * a, high = __umul64hi(a, a);
    to.n += weight;
    to.q += q * weight;
    to.hi += (i64)(high << (64 - grid.bits) | low >> grid.bits) * weight;
    to.lo += (i64)(low & ((1ull << grid.bits) - 1)) * weight;
}
// The same, counting it where it is at an extreme of the set.
INLINE void sums_push_element(Sums& to, const Grid& grid, f32 x, i64 weight, const Extremes& extremes) {
    sums_push(to, grid, quantize(grid, x), weight);
    to.at_max += x == max_value(extremes) ? weight : 0;
    to.at_min += x == min_value(extremes) ? weight : 0;
}

// A 128-bit integer in two limbs; everything wraps.
struct Wide {
    u64 hi, lo;
};
INLINE Wide wide(i64 x) { return Wide{x < 0 ? ~0ull : 0ull, (u64)x}; }
INLINE Wide wide_product(u64 a, u64 b) { return Wide{__umul64hi(a, b), a * b}; }
INLINE Wide wide_times(Wide a, Wide b) {
    Wide low = wide_product(a.lo, b.lo);
    return Wide{low.hi + a.hi * b.lo + a.lo * b.hi, low.lo};
}
INLINE Wide wide_plus(Wide a, Wide b) {
    u64 lo = a.lo + b.lo;
    return Wide{a.hi + b.hi + (lo < a.lo ? 1 : 0), lo};
}
INLINE Wide wide_minus(Wide a, Wide b) { return Wide{a.hi - b.hi - (a.lo < b.lo ? 1 : 0), a.lo - b.lo}; }
// a 2^by, 0 < by < 64.
INLINE Wide wide_shifted(Wide a, i32 by) { return Wide{a.hi << by | a.lo >> (64 - by), a.lo << by}; }
INLINE bool wide_negative(Wide a) { return a.hi >> 63 != 0; }
INLINE Wide wide_absolute(Wide a) { return wide_negative(a) ? wide_minus(Wide{0, 0}, a) : a; }

// The unsigned number, rounded to nearest even.
INLINE f64 wide_to_f64(Wide x) {
    u64 hi = x.hi, lo = x.lo, exponent = 127;
    if (hi == 0) {
        hi = lo;
        lo = 0;
        exponent = 63;
    }
    if (hi == 0) return 0.0;
    i32 shift = __clzll((i64)hi);
    if (shift > 0) {
        hi = hi << shift | lo >> (64 - shift);
        lo <<= shift;
    }
    exponent -= (u64)shift;
    u64 significand = hi >> 11, below = hi & 0x7ff;
    u64 not_a_tie = (below & 0x3ff) != 0 || lo != 0 ? 1 : 0;
    u64 up = below >> 10 & (not_a_tie | (significand & 1));
    return f64_of(((exponent + 1022) << 52) + significand + up);
}
// The signed number; zero is +0.
INLINE f64 signed_to_f64(Wide x) {
    f64 magnitude = wide_to_f64(wide_absolute(x));
    return wide_negative(x) ? -magnitude : magnitude;
}

// f64(sum q) / f64(n) 2^(e - bits).
INLINE f64 sums_mean(const Sums& s, const Grid& grid) { return ((f64)s.q / (f64)s.n) * grid.down; }
// n sum q^2 - (sum q)^2, exactly; 0 for sums that belong to no set (a value left out that was no element).
INLINE Wide sums_numerator(i64 n, i64 sum, i64 hi, i64 lo, i32 bits) {
    Wide squares = wide_plus(wide_shifted(wide(hi), bits), wide(lo));
    u64 q = (u64)(sum < 0 ? -sum : sum);
    Wide found = wide_minus(wide_times(wide(n), squares), wide_product(q, q));
    return wide_negative(found) ? Wide{0, 0} : found;
}
OUT_OF_LINE f64 variance_of(i64 n, i64 q, i64 hi, i64 lo, i32 bits, i32 ddof) {
    return wide_to_f64(sums_numerator(n, q, hi, lo, bits)) / wide_to_f64(wide_times(wide(n), wide_minus(wide(n), wide(ddof))));
}
// num / den, in grid units squared.
INLINE f64 variance_units(const Sums& s, const Grid& grid, i32 ddof) { return variance_of(s.n, s.q, s.hi, s.lo, grid.bits, ddof); }

// 1/3! + x (1/4! + x (... 1/15!)).
INLINE f64 exp_series(f64 x) {
    f64 y = 1.0 / 1307674368000.0;
    y = y * x + 1.0 / 87178291200.0;
    y = y * x + 1.0 / 6227020800.0;
    y = y * x + 1.0 / 479001600.0;
    y = y * x + 1.0 / 39916800.0;
    y = y * x + 1.0 / 3628800.0;
    y = y * x + 1.0 / 362880.0;
    y = y * x + 1.0 / 40320.0;
    y = y * x + 1.0 / 5040.0;
    y = y * x + 1.0 / 720.0;
    y = y * x + 1.0 / 120.0;
    y = y * x + 1.0 / 24.0;
    return y * x + 1.0 / 6.0;
}
// 1/2! + x (1/3! + x (... 1/15!)).
INLINE f64 taylor_to_15(f64 x) { return exp_series(x) * x + 0.5; }
// 1/2! + x (1/3! + x (... 1/20!)).
INLINE f64 taylor_to_20(f64 x) {
    f64 s = 1.0 / 2432902008176640000.0;
    s = s * x + 1.0 / 121645100408832000.0;
    s = s * x + 1.0 / 6402373705728000.0;
    s = s * x + 1.0 / 355687428096000.0;
    s = s * x + 1.0 / 20922789888000.0;
    s = s * x + 1.0 / 1307674368000.0;
    s = s * x + 1.0 / 87178291200.0;
    s = s * x + 1.0 / 6227020800.0;
    s = s * x + 1.0 / 479001600.0;
    s = s * x + 1.0 / 39916800.0;
    s = s * x + 1.0 / 3628800.0;
    s = s * x + 1.0 / 362880.0;
    s = s * x + 1.0 / 40320.0;
    s = s * x + 1.0 / 5040.0;
    s = s * x + 1.0 / 720.0;
    s = s * x + 1.0 / 120.0;
    s = s * x + 1.0 / 24.0;
    s = s * x + 1.0 / 6.0;
    return s * x + 0.5;
}

// e^x: +inf above 709.78, 0 below -745.13, NaN for NaN. One list of operations on every backend; never `::exp`.
INLINE f64 exp_of(f64 x) {
    const f64 ln2_high = f64_of(0x3fe62e42fee00000ull), ln2_low = f64_of(0x3dea39ef35793c76ull), inv_ln2 = f64_of(0x3ff71547652b82feull);
    x = x > 710.0 ? 710.0 : x;
    x = x < -746.0 ? -746.0 : x;
    f64 shifted = x * inv_ln2 + MAGIC;
    f64 q = shifted - MAGIC;
    f64 high = x - q * ln2_high;
    f64 low = q * ln2_low;
    f64 r = high - low;
    f64 rest = (high - r) - low;
    f64 tail = (r * r) * taylor_to_15(r);
    f64 e = 1.0 + (r + (tail + rest));
    i64 n = (i64)(bits_of(shifted) - bits_of(MAGIC));
    // Two factors: q reaches from -1076 to 1024, beyond one.
    i64 half = n >> 1;
    return (e * f64_of((u64)(1023 + half) << 52)) * f64_of((u64)(1023 + (n - half)) << 52);
}
// e^-d - 1 + d, at least 0: within 1 of zero its series, as the terms of the closed form cancel there.
INLINE f64 exp_minus_linear(f64 d) { return absolute(d) <= 1.0 ? (d * d) * taylor_to_20(-d) : (exp_of(-d) - 1.0) + d; }

#endif
