//! 128-bit integers to f64, nearest even. Exact sums are integers, and this is the one place where they become floating point, so the
//! rounding is written out on two 64-bit limbs with shifts alone: the same lines serve the host and a device compiler that has no
//! 128-bit integers (or whose conversion from them is not specified).

/// `hi * 2^64 + lo`, rounded to nearest even.
#[inline]
pub fn limbs_to_f64(mut hi: u64, mut lo: u64) -> f64 {
    // The exponent of the leading bit of `hi` once everything is shifted up against bit 127.
    let mut exponent: u64 = 127;
    if hi == 0 {
        hi = lo;
        lo = 0;
        exponent = 63;
    }
    if hi == 0 {
        return 0.0;
    }
    let shift = hi.leading_zeros();
    if shift > 0 {
        // `64 - shift` must stay below 64, hence the test: a shift by the full width is undefined in C.
        hi = (hi << shift) | (lo >> (64 - shift));
        lo <<= shift;
    }
    exponent -= u64::from(shift);

    let significand = hi >> 11; // 53 bits, the leading one among them
    let below = hi & 0x7ff; // the highest 11 of the 75 bits that are dropped
    let tie_or_more = below >> 10;
    let not_a_tie = u64::from((below & 0x3ff) != 0 || lo != 0);
    let up = tie_or_more & (not_a_tie | (significand & 1));
    // The leading one adds 1 to the exponent field (hence 1022), and a carry out of the significand does so too, as it should.
    f64::from_bits(((exponent + 1022) << 52) + significand + up)
}

/// `x` rounded to nearest even.
#[inline]
pub fn u128_to_f64(x: u128) -> f64 {
    limbs_to_f64((x >> 64) as u64, x as u64)
}

/// `x` rounded to nearest even; zero is +0.
#[inline]
pub fn i128_to_f64(x: i128) -> f64 {
    let magnitude = u128_to_f64(x.unsigned_abs());
    if x < 0 { -magnitude } else { magnitude }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn next(state: &mut u64) -> u64 {
        *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = *state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn check(x: u128) {
        assert_eq!(u128_to_f64(x).to_bits(), (x as f64).to_bits(), "{x:#x}");
        let signed = x as i128;
        for s in [signed, signed.wrapping_neg()] {
            assert_eq!(i128_to_f64(s).to_bits(), (s as f64).to_bits(), "{s}");
        }
    }

    #[test]
    fn edges() {
        assert_eq!(u128_to_f64(0).to_bits(), 0);
        assert_eq!(i128_to_f64(0).to_bits(), 0);
        assert_eq!(u128_to_f64(u128::MAX), 2f64.powi(128));
        assert_eq!(i128_to_f64(i128::MIN), -(2f64.powi(127)));
        assert_eq!(i128_to_f64(i128::MAX), 2f64.powi(127));
        for bit in 0..128 {
            let power = 1u128 << bit;
            for x in [power - 1, power, power | 1, !0 >> bit] {
                check(x);
            }
        }
    }

    /// Ties, and their neighbours one unit away, at every position and with an odd and an even significand.
    #[test]
    fn halfway_cases() {
        let mut state = 1;
        for width in 54..=128u32 {
            let dropped = width - 53;
            let half = 1u128 << (dropped - 1);
            for _ in 0..200 {
                let significand = (1 << 52) | u128::from(next(&mut state) >> 12);
                for significand in [significand & !1, significand | 1, (1 << 53) - 1] {
                    let tie = (significand << dropped) | half;
                    // What nearest even means, stated without the routine under test: the significand as an integer is exact in f64.
                    let rounded = (significand + (significand & 1)) as f64;
                    assert_eq!(u128_to_f64(tie), rounded * 2f64.powi(dropped as i32));
                    let above = (significand + 1) as f64 * 2f64.powi(dropped as i32);
                    if dropped > 1 {
                        assert_eq!(u128_to_f64(tie + 1), above);
                        let below = significand as f64 * 2f64.powi(dropped as i32);
                        assert_eq!(u128_to_f64(tie - 1), below);
                    }
                    check(tie);
                    check(tie.wrapping_add(1));
                    check(tie - 1);
                }
            }
        }
    }

    #[test]
    fn random_values() {
        let mut state = 2;
        for _ in 0..200_000 {
            let x = (u128::from(next(&mut state)) << 64) | u128::from(next(&mut state));
            let shift = next(&mut state) % 128;
            check(x >> shift);
            // Long runs of zeros below the significand make the sticky bits count.
            check((x >> shift) & !((1u128 << (next(&mut state) % 127)) - 1) | (x & 1));
        }
    }
}
