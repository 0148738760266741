//! Loads and stores of the element types. Loads widen exactly; stores round once, to nearest even, and the two narrow types are
//! rounded through f32 *to odd* first, so that the second rounding still sees on which side of a tie the f64 was. (Rounding twice to
//! nearest does not, nor does `from_f64` of the `half` crate, which drops low bits.)
//!
//! Everything is straight-line code: comparisons become masks and selections, so the slice loops vectorise. The default
//! floating-point mode is assumed (`fpmode`).

use half::{bf16, f16};

/// A type that results are stored in.
pub trait OutElem: Copy {
    /// `x` rounded to nearest even. What would round to an infinity (an infinite `x` too) becomes the largest finite value and adds 1
    /// to `overflowed`. A zero is stored as +0, whether it came as -0 or by underflow. NaN does not occur in results; it gives +0.
    fn from_f64(x: f64, overflowed: &mut u64) -> Self;
}

/// A type that inputs are read from.
pub trait InElem: Copy {
    /// The value as f32: exact, but for f64, which is rounded to nearest even (beyond the range of f32 to an infinity).
    fn to_f32(self) -> f32;
    /// The exact value; for log-probabilities, whose differences are formed before they are rounded.
    fn to_f64(self) -> f64;
}

/// The largest finite value of each type, and the least magnitude that nearest even sends to infinity: half an ulp further, where the
/// tie goes to the even side, the infinity.
const F32_MAX: f64 = f32::MAX as f64;
const F32_LIMIT: f64 = f64::from_bits(0x47ef_ffff_f000_0000); // 2^128 - 2^103
const BF16_MAX: f64 = f64::from_bits(0x47ef_e000_0000_0000); // 2^128 - 2^120
const BF16_LIMIT: f64 = f64::from_bits(0x47ef_f000_0000_0000); // 2^128 - 2^119
const F16_MAX: f64 = 65_504.0;
const F16_LIMIT: f64 = 65_520.0;

/// `x` between -max and max, 0 for NaN; counts what reaches the limit.
#[inline(always)]
fn saturate(x: f64, max: f64, limit: f64, overflowed: &mut u64) -> f64 {
    *overflowed += u64::from(x.abs() >= limit);
    let y = if x < max { x } else { max };
    let y = if y > -max { y } else { -max };
    if x.is_nan() { 0.0 } else { y }
}

/// `x` as an f32 rounded to odd: exact, or the one of its two neighbours whose last bit is set. |x| <= f32::MAX.
///
/// From the nearest f32, that is one step towards zero if it lies beyond `x`, which truncates, and then the last bit set if anything
/// was cut off. (On a device: convert towards zero, then the same.)
#[inline(always)]
fn round_to_odd(x: f64) -> f32 {
    let nearest = x as f32;
    let back = f64::from(nearest);
    let truncated = nearest.to_bits() - u32::from(back.abs() > x.abs());
    f32::from_bits(truncated | u32::from(back != x))
}

/// The sign back on a magnitude of 15 bits, except on zero.
#[inline(always)]
fn with_sign(magnitude: u32, bits: u32) -> u16 {
    let sign = (bits >> 16) & 0x8000;
    let signed = magnitude | sign;
    (if magnitude == 0 { 0 } else { signed }) as u16
}

/// A finite f32 to bf16, nearest even: the upper half, with a carry that reaches the exponent where it should.
#[inline(always)]
fn narrow_bf16(x: f32) -> u16 {
    let bits = x.to_bits();
    let magnitude = bits & 0x7fff_ffff;
    let rounded = (magnitude + 0x7fff + ((magnitude >> 16) & 1)) >> 16;
    with_sign(rounded, bits)
}

/// An f32 within the range of f16 to f16, nearest even.
#[inline(always)]
fn narrow_f16(x: f32) -> u16 {
    let bits = x.to_bits();
    let magnitude = bits & 0x7fff_ffff;
    // Normal results: the bias of the exponent from 127 to 15, 13 bits of the significand rounded off.
    let rebased = magnitude.wrapping_sub(112 << 23);
    let normal = (rebased.wrapping_add(0xfff + ((rebased >> 13) & 1))) >> 13;
    // Below 2^-14 the unit is 2^-24, which is the ulp of 0.5: the addition does the rounding and leaves the result in the low bits.
    let subnormal = (f32::from_bits(magnitude) + 0.5).to_bits().wrapping_sub(0.5f32.to_bits());
    let is_normal = magnitude >= 113 << 23;
    with_sign(if is_normal { normal } else { subnormal }, bits)
}

impl OutElem for f32 {
    #[inline(always)]
    fn from_f64(x: f64, overflowed: &mut u64) -> f32 {
        // Adding +0 turns -0 into +0 and changes nothing else.
        saturate(x, F32_MAX, F32_LIMIT, overflowed) as f32 + 0.0
    }
}

impl OutElem for bf16 {
    #[inline(always)]
    fn from_f64(x: f64, overflowed: &mut u64) -> bf16 {
        bf16::from_bits(narrow_bf16(round_to_odd(saturate(x, BF16_MAX, BF16_LIMIT, overflowed))))
    }
}

impl OutElem for f16 {
    #[inline(always)]
    fn from_f64(x: f64, overflowed: &mut u64) -> f16 {
        f16::from_bits(narrow_f16(round_to_odd(saturate(x, F16_MAX, F16_LIMIT, overflowed))))
    }
}

impl OutElem for f64 {
    #[inline(always)]
    fn from_f64(x: f64, overflowed: &mut u64) -> f64 {
        saturate(x, f64::MAX, f64::INFINITY, overflowed) + 0.0
    }
}

/// Stores `src` in `dst`, of the same length, and returns how many values overflowed. Inlined always, so that a caller compiled for
/// more than the baseline processor gets this loop compiled for the same.
#[inline(always)]
pub fn store_slice<T: OutElem>(src: &[f64], dst: &mut [T]) -> u64 {
    assert_eq!(src.len(), dst.len());
    let mut overflowed = 0;
    for (d, s) in dst.iter_mut().zip(src) {
        *d = T::from_f64(*s, &mut overflowed);
    }
    overflowed
}

/// [`store_slice`] for f32.
#[inline(always)]
pub fn store_slice_f32(src: &[f64], dst: &mut [f32]) -> u64 {
    store_slice(src, dst)
}

impl InElem for f32 {
    #[inline(always)]
    fn to_f32(self) -> f32 {
        self
    }

    #[inline(always)]
    fn to_f64(self) -> f64 {
        f64::from(self)
    }
}

impl InElem for f64 {
    #[inline(always)]
    fn to_f32(self) -> f32 {
        self as f32
    }

    #[inline(always)]
    fn to_f64(self) -> f64 {
        self
    }
}

impl InElem for bf16 {
    #[inline(always)]
    fn to_f32(self) -> f32 {
        f32::from_bits(u32::from(self.to_bits()) << 16)
    }

    #[inline(always)]
    fn to_f64(self) -> f64 {
        f64::from(InElem::to_f32(self))
    }
}

impl InElem for f16 {
    #[inline(always)]
    fn to_f32(self) -> f32 {
        let bits = u32::from(self.to_bits());
        let sign = (bits & 0x8000) << 16;
        let magnitude = (bits & 0x7fff) << 13;
        // The bias of the exponent from 15 to 127, and again for an infinity or NaN, whose exponent is all ones.
        let normal = magnitude + (112 << 23);
        let special = magnitude + (224 << 23);
        // A subnormal is m * 2^-24; behind the leading bit of 2^-14 m has that unit, and the subtraction is exact.
        let smallest_normal = f32::from_bits(113 << 23);
        let subnormal = (f32::from_bits(magnitude + (113 << 23)) - smallest_normal).to_bits();
        let value = if magnitude < 1 << 23 { subnormal } else { normal };
        let value = if magnitude >= 31 << 23 { special } else { value };
        f32::from_bits(value | sign)
    }

    #[inline(always)]
    fn to_f64(self) -> f64 {
        f64::from(InElem::to_f32(self))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A binary format for the reference below: bits of the significand, exponent of the smallest subnormal, of the largest value.
    #[derive(Clone, Copy)]
    struct Format {
        precision: i32,
        unit: i32,
        top: i32,
    }

    const F32: Format = Format { precision: 24, unit: -149, top: 127 };
    const BF16: Format = Format { precision: 8, unit: -133, top: 127 };
    const F16: Format = Format { precision: 11, unit: -24, top: 15 };

    /// 2^e, for the exponents that occur here, all within the normal range of f64.
    fn two_to(e: i32) -> f64 {
        f64::from_bits(((e + 1023) as u64) << 52)
    }

    /// The rounding stated on integers: |x| = m * 2^e, the quotient by the unit of the result and the remainder against half of it.
    fn reference(x: f64, format: Format) -> (f64, bool) {
        let max = (((1u64 << format.precision) - 1) as f64) * two_to(format.top - format.precision + 1);
        let field = ((x.to_bits() >> 52) & 0x7ff) as i32;
        let fraction = x.to_bits() & ((1 << 52) - 1);
        let (m, e) = if field == 0 { (fraction, -1074) } else { (fraction | 1 << 52, field - 1075) };
        if m == 0 {
            return (0.0, false);
        }
        let leading = e + 63 - m.leading_zeros() as i32;
        let unit = (leading - format.precision + 1).max(format.unit);
        let shift = unit - e;
        let m = u128::from(m);
        let quotient = match shift {
            ..=0 => m << -shift,
            1..=100 => {
                let (quotient, remainder, half) = (m >> shift, m & ((1 << shift) - 1), 1 << (shift - 1));
                quotient + u128::from(remainder > half || (remainder == half && quotient & 1 == 1))
            }
            _ => 0,
        };
        // Beyond the range it is enough to know that it is: no format here has a unit that large.
        let value = if leading > format.top + 1 { f64::INFINITY } else { quotient as f64 * two_to(unit) };
        let bounded = if value > max { max } else { value };
        let signed = if x < 0.0 && bounded != 0.0 { -bounded } else { bounded };
        (signed, value > max)
    }

    fn store<T: OutElem + InElem>(x: f64) -> (f64, bool) {
        let mut overflowed = 0;
        let value = T::from_f64(x, &mut overflowed).to_f64();
        assert!(overflowed <= 1);
        (value, overflowed == 1)
    }

    #[track_caller]
    fn check<T: OutElem + InElem>(x: f64, format: Format) {
        for x in [x, -x] {
            let ((value, over), (expected, expected_over)) = (store::<T>(x), reference(x, format));
            assert_eq!(value.to_bits(), expected.to_bits(), "{x:e} gave {value:e}, not {expected:e}");
            assert_eq!(over, expected_over, "{x:e}");
        }
    }

    fn next(state: &mut u64) -> u64 {
        *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = *state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Every bit pattern: the load agrees with the `half` crate's (whose widening is exact), and storing it again gives it back.
    #[test]
    fn all_patterns_of_f16_and_bf16() {
        for bits in 0..=u16::MAX {
            let without_sign = bits & 0x7fff;
            let stored = if without_sign == 0 { 0 } else { bits };

            let h = f16::from_bits(bits);
            let loaded = InElem::to_f32(h);
            let mut over = 0;
            let back = <f16 as OutElem>::from_f64(InElem::to_f64(h), &mut over).to_bits();
            if h.is_nan() {
                assert!(loaded.is_nan());
                assert_eq!((back, over), (0, 0));
            } else {
                assert_eq!(loaded.to_bits(), f16::to_f32(h).to_bits());
                assert_eq!((back, over), if h.is_finite() { (stored, 0) } else { (bits - 1, 1) });
            }

            let b = bf16::from_bits(bits);
            let loaded = InElem::to_f32(b);
            let mut over = 0;
            let back = <bf16 as OutElem>::from_f64(InElem::to_f64(b), &mut over).to_bits();
            if b.is_nan() {
                assert!(loaded.is_nan());
                assert_eq!((back, over), (0, 0));
            } else {
                assert_eq!(loaded.to_bits(), bf16::to_f32(b).to_bits());
                assert_eq!((back, over), if b.is_finite() { (stored, 0) } else { (bits - 1, 1) });
            }
        }
    }

    /// Around every midpoint of two neighbours `lo` and `hi` (bit patterns, the second one the infinity for the last pair).
    fn around_midpoint<T: OutElem>(lo: u16, lo_value: f64, hi_value: f64, largest: u16, bits: impl Fn(T) -> u16) {
        let middle = 0.5 * (lo_value + hi_value);
        let even = lo + (lo & 1);
        let cases = [(middle.next_down(), lo), (middle, even), (middle.next_up(), lo + 1), (lo_value, lo)];
        for (x, expected) in cases {
            let expected_over = u64::from(expected > largest);
            let expected = expected.min(largest);
            let mut over = 0;
            assert_eq!(bits(T::from_f64(x, &mut over)), expected, "{x:e}");
            let negative = if expected == 0 { 0 } else { expected | 0x8000 };
            assert_eq!(bits(T::from_f64(-x, &mut over)), negative, "{x:e}");
            assert_eq!(over, 2 * expected_over, "{x:e}");
        }
    }

    #[test]
    fn every_midpoint_of_f16_and_bf16() {
        for lo in 0..=0x7bffu16 {
            let hi = if lo == 0x7bff { 65_536.0 } else { InElem::to_f64(f16::from_bits(lo + 1)) };
            around_midpoint::<f16>(lo, InElem::to_f64(f16::from_bits(lo)), hi, 0x7bff, f16::to_bits);
        }
        for lo in 0..=0x7f7fu16 {
            let hi = if lo == 0x7f7f { two_to(128) } else { InElem::to_f64(bf16::from_bits(lo + 1)) };
            around_midpoint::<bf16>(lo, InElem::to_f64(bf16::from_bits(lo)), hi, 0x7f7f, bf16::to_bits);
        }
    }

    /// A tie of the narrow type plus a bit that f32 has no room for. Rounding through the nearest f32 makes it a tie again, and so does
    /// cutting off the low half of the f64, as `half::{f16, bf16}::from_f64` do on processors without a conversion of their own.
    #[test]
    fn double_rounding() {
        let x = 1.0 + two_to(-11) + two_to(-40);
        assert_eq!(f16::from_f32(x as f32).to_bits(), 0x3c00);
        assert_eq!(<f16 as OutElem>::from_f64(x, &mut 0).to_bits(), 0x3c01);
        let y = 1.0 + two_to(-8) + two_to(-40);
        assert_eq!(bf16::from_f32(y as f32).to_bits(), 0x3f80);
        assert_eq!(<bf16 as OutElem>::from_f64(y, &mut 0).to_bits(), 0x3f81);
        // And downwards: a tie less a bit, where the even neighbour is the upper one.
        let z = 1.0 + 3.0 * two_to(-11) - two_to(-40);
        assert_eq!(f16::from_f32(z as f32).to_bits(), 0x3c02);
        assert_eq!(<f16 as OutElem>::from_f64(z, &mut 0).to_bits(), 0x3c01);
        #[cfg(target_arch = "x86_64")]
        {
            assert_eq!(f16::from_f64(x).to_bits(), 0x3c00);
            assert_eq!(bf16::from_f64(y).to_bits(), 0x3f80);
        }
    }

    #[test]
    fn random_values_against_integers() {
        let mut state = 7;
        for i in 0..400_000u32 {
            let r = next(&mut state);
            // Exponents in and around the range of the formats, or any.
            let exponent = match i % 4 {
                0 => 1023 - 30 + (r >> 52) % 50,
                1 => 1023 - 160 + (r >> 52) % 300,
                2 => 1023 + 120 + (r >> 52) % 12,
                _ => (r >> 52) % 2047,
            };
            // Full fractions, and short ones with a few low bits, which lie on and next to ties.
            let fraction = next(&mut state) >> 12;
            let cut = (1u64 << (next(&mut state) % 53)) - 1;
            let x = f64::from_bits(exponent << 52 | fraction & !cut);
            for x in [f64::from_bits(exponent << 52 | fraction), x, x.next_up(), x.next_down()] {
                check::<f32>(x, F32);
                check::<bf16>(x, BF16);
                check::<f16>(x, F16);
            }
        }
    }

    #[test]
    fn edges_of_f32_and_f64() {
        for x in [F32_MAX, F32_LIMIT, F32_LIMIT.next_down(), F32_MAX.next_up(), two_to(-149), two_to(-150), f64::MAX] {
            check::<f32>(x, F32);
            check::<bf16>(x, BF16);
        }
        assert_eq!(store::<f32>(F32_LIMIT.next_down()), (F32_MAX, false));
        assert_eq!(store::<f32>(F32_LIMIT), (F32_MAX, true));
        for infinity in [f64::INFINITY, f64::NEG_INFINITY] {
            assert_eq!(store::<f32>(infinity), (F32_MAX.copysign(infinity), true));
            assert_eq!(store::<f64>(infinity), (f64::MAX.copysign(infinity), true));
        }
        for zero in [0.0, -0.0, f64::NAN, -f64::NAN] {
            for (value, over) in [store::<f32>(zero), store::<f64>(zero), store::<bf16>(zero), store::<f16>(zero)] {
                assert_eq!((value.to_bits(), over), (0, false));
            }
        }
        assert_eq!(store::<f32>(-two_to(-150)).0.to_bits(), 0);
        for x in [f64::MAX, f64::from_bits(1), -1.5] {
            assert_eq!(store::<f64>(x), (x, false));
        }
        assert_eq!(InElem::to_f32(1e300f64), f32::INFINITY);
        assert_eq!(InElem::to_f32(1.0 + two_to(-24)), 1.0);
        assert_eq!(InElem::to_f64(0.1f64).to_bits(), 0.1f64.to_bits());
    }

    #[test]
    fn slices_store_what_elements_do() {
        let mut state = 11;
        for len in [0, 1, 3, 4, 7, 64, 1001] {
            let mut src: Vec<f64> = (0..len).map(|_| f64::from_bits(next(&mut state))).collect();
            if len > 3 {
                src[..4].copy_from_slice(&[f64::NAN, -0.0, f64::NEG_INFINITY, -F32_LIMIT]);
            }
            let mut expected_over = 0;
            let expected: Vec<u32> = src.iter().map(|x| f32::from_f64(*x, &mut expected_over).to_bits()).collect();
            let mut dst = vec![1f32; len];
            assert_eq!(store_slice_f32(&src, &mut dst), expected_over);
            assert_eq!(dst.iter().map(|y| y.to_bits()).collect::<Vec<_>>(), expected);
            let mut narrow = vec![f16::ONE; len];
            let mut narrow_over = 0;
            let one_by_one: Vec<f16> = src.iter().map(|x| OutElem::from_f64(*x, &mut narrow_over)).collect();
            assert_eq!(store_slice(&src, &mut narrow), narrow_over);
            assert_eq!(narrow, one_by_one);
        }
    }
}
