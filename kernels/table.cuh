// n^-k as the host's tables have it, to the bit: from + - * / alone, in one stated order (src/numerics/table.rs says why and how exact). For Divide-Length on its own,
// which has no plan whose table it could read.
#ifndef PASSRL_TABLE_CUH
#define PASSRL_TABLE_CUH
#include "numerics.cuh"

// A sum or product of two numbers, rounded, and what the rounding left.
struct Exact {
    f64 x, rest;
};
INLINE Exact exact_sum(f64 a, f64 b) {
    const f64 sum = a + b, b_part = sum - a;
    return Exact{sum, (a - (sum - b_part)) + (b - b_part)};
}
// For |a| >= |b| or a = 0.
INLINE Exact fast_exact_sum(f64 a, f64 b) {
    const f64 sum = a + b;
    return Exact{sum, b - (sum - a)};
}
// a as two parts of at most 26 bits, whose products are exact.
INLINE Exact in_halves(f64 a) {
    const f64 scaled = 134217729.0 * a, high = scaled - (scaled - a);
    return Exact{high, a - high};
}
INLINE Exact exact_product(f64 a, f64 b) {
    const f64 product = a * b;
    const Exact p = in_halves(a), q = in_halves(b);
    return Exact{product, ((p.x * q.x - product) + p.x * q.rest + p.rest * q.x) + p.rest * q.rest};
}

// 1/3 + z (1/5 + z (... 1/25)).
INLINE f64 atanh_series(f64 z) {
    f64 y = 1.0 / 25.0;
    y = y * z + 1.0 / 23.0;
    y = y * z + 1.0 / 21.0;
    y = y * z + 1.0 / 19.0;
    y = y * z + 1.0 / 17.0;
    y = y * z + 1.0 / 15.0;
    y = y * z + 1.0 / 13.0;
    y = y * z + 1.0 / 11.0;
    y = y * z + 1.0 / 9.0;
    y = y * z + 1.0 / 7.0;
    y = y * z + 1.0 / 5.0;
    return y * z + 1.0 / 3.0;
}

// ln n in two parts, 1 <= n < 2^50.
INLINE Exact ln_of(f64 n) {
    const f64 ln2_high = f64_of(0x3fe62e42fee00000ull), ln2_low = f64_of(0x3dea39ef35793c76ull), sqrt2 = f64_of(0x3ff6a09e667f3bcdull), two_52 = 4503599627370496.0;
    const u64 bits = bits_of(n);
    f64 e = f64_of(bits >> 52 | bits_of(two_52)) - (two_52 + 1023.0);
    f64 m = f64_of((bits & 0x000fffffffffffffull) | bits_of(1.0));
    if (m > sqrt2) {
        e = e + 1.0;
        m = 0.5 * m;
    }
    const f64 numerator = m - 1.0, denominator = m + 1.0, s = numerator / denominator;
    const Exact back = exact_product(s, denominator);
    const f64 s_low = ((numerator - back.x) - back.rest) / denominator, z = s * s, tail = s * (z * atanh_series(z));
    const Exact of_m = fast_exact_sum(2.0 * s, 2.0 * (s_low + tail)), all = fast_exact_sum(e * ln2_high, of_m.x);
    return fast_exact_sum(all.x, all.rest + (of_m.rest + e * ln2_low));
}

// e^-(high + low), 0 <= high < 700.
INLINE f64 exp_minus(f64 high, f64 low) {
    const f64 ln2_high = f64_of(0x3fe62e42fee00000ull), ln2_low = f64_of(0x3dea39ef35793c76ull), inv_ln2 = f64_of(0x3ff71547652b82feull);
    const f64 shifted = high * inv_ln2 + MAGIC, q = shifted - MAGIC;
    const Exact first = exact_sum(q * ln2_high, -high), second = exact_sum(first.x, first.rest + (q * ln2_low - low));
    const f64 x = second.x, x_low = second.rest;
    const Exact square = exact_product(x, x);
    const f64 tail = (square.x * x) * exp_series(x);
    const Exact one = fast_exact_sum(1.0, x), two = fast_exact_sum(one.x, 0.5 * square.x);
    const f64 rest = (one.rest + two.rest) + (x_low + (0.5 * square.rest + x * x_low)) + tail;
    return (two.x + rest) * f64_of((1023ull - bits_of(shifted)) << 52);
}

// n^-k, 1 <= n <= 2^31, 0 <= k <= 8.
OUT_OF_LINE f64 power_at(f64 k, i64 n) {
    if (k == 1.0) return 1.0 / (f64)n;
    const Exact ln = ln_of((f64)n), product = exact_product(k, ln.x), y = fast_exact_sum(product.x, product.rest + k * ln.rest);
    return exp_minus(y.x, y.rest);
}

#endif
