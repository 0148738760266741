// Loads and stores of the element types (src/numerics/convert.rs). Loads widen exactly, f64 to f32 rounds once; stores round once, to nearest even, the
// narrow types through an f32 rounded to odd. What would become an infinity becomes the largest finite value and is counted; zeros are +0.
#ifndef PASSRL_CONVERT_CUH
#define PASSRL_CONVERT_CUH
#include "numerics.cuh"

INLINE f32 f32_of_bf16(u16 bits) { return f32_of((u32)bits << 16); }

INLINE f32 f32_of_f16(u16 half) {
    u32 sign = (u32)(half & 0x8000) << 16, magnitude = (u32)(half & 0x7fff) << 13;
    // A subnormal is m 2^-24; behind the leading bit of 2^-14 m has that unit, and the subtraction is exact.
    u32 value = magnitude < 1u << 23 ? bits_of(f32_of(magnitude + (113u << 23)) - f32_of(113u << 23)) : magnitude + (112u << 23);
    value = magnitude >= 31u << 23 ? magnitude + (224u << 23) : value;
    return f32_of(value | sign);
}

// x between -max and max, 0 for NaN; counts what reaches `limit`, the least magnitude that nearest even sends to infinity.
template <class Count> INLINE f64 saturated(f64 x, f64 max, f64 limit, Count& overflowed) {
    overflowed += absolute(x) >= limit ? 1 : 0;
    f64 y = x < max ? x : max;
    y = y > -max ? y : -max;
    return is_nan(x) ? 0.0 : y;
}

// x as an f32 rounded to odd: exact, or the one of its two neighbours whose last bit is set. |x| <= the largest f32.
INLINE f32 rounded_to_odd(f64 x) {
    f32 nearest = (f32)x;
    f64 back = (f64)nearest;
    u32 truncated = bits_of(nearest) - (absolute(back) > absolute(x) ? 1u : 0u);
    return f32_of(truncated | (back != x ? 1u : 0u));
}

// The sign back on a magnitude of 15 bits, except on zero.
INLINE u16 with_sign(u32 magnitude, u32 bits) { return magnitude == 0 ? (u16)0 : (u16)(magnitude | (bits >> 16 & 0x8000)); }

INLINE u16 bf16_of(f32 x) {
    u32 bits = bits_of(x), magnitude = bits & 0x7fffffffu;
    return with_sign((magnitude + 0x7fff + (magnitude >> 16 & 1)) >> 16, bits);
}

INLINE u16 f16_of(f32 x) {
    u32 bits = bits_of(x), magnitude = bits & 0x7fffffffu;
    u32 rebased = magnitude - (112u << 23);
    u32 normal = (rebased + (0xfff + (rebased >> 13 & 1))) >> 13;
    // Below 2^-14 the unit is 2^-24, the ulp of 0.5: the addition rounds and leaves the result in the low bits.
    u32 subnormal = bits_of(f32_of(magnitude) + 0.5f) - bits_of(0.5f);
    return with_sign(magnitude >= 113u << 23 ? normal : subnormal, bits);
}

// The stored value of an output of type `dtype`; `overflowed` grows by 1 where it is beyond the type's range.
template <class Count> INLINE f32 stored_f32(f64 x, Count& overflowed) { return (f32)saturated(x, F32_LARGEST, f64_of(0x47effffff0000000ull), overflowed) + 0.0f; }
template <class Count> INLINE u16 stored_bf16(f64 x, Count& overflowed) {
    return bf16_of(rounded_to_odd(saturated(x, f64_of(0x47efe00000000000ull), f64_of(0x47eff00000000000ull), overflowed)));
}
template <class Count> INLINE u16 stored_f16(f64 x, Count& overflowed) { return f16_of(rounded_to_odd(saturated(x, 65504.0, 65520.0, overflowed))); }
template <class Count> INLINE f64 stored_f64(f64 x, Count& overflowed) { return saturated(x, f64_of(0x7fefffffffffffffull), f64_of(0x7ff0000000000000ull), overflowed) + 0.0; }

#endif
