//! exp in f64, from + - * and integers alone, so that every backend gives the same bits: `libm`'s differ between C libraries and versions, and a fused
//! multiply-add would round elsewhere. Reduction x = q ln 2 + r with |r| <= 0.347, a Taylor polynomial in r, a scale of 2^q in two exact factors.
//!
//! Error below 1 ulp where the result is normal: 1/2 from the last addition, 1/4 from rounding the sum of the terms below 1, and what the terms of
//! second order and the reduction add, together below 1/8. Subnormal results round once more.

/// ln 2 in two parts; the first ends in 21 zero bits, so its product with an integer below 2^11 is exact.
const LN2_HI: f64 = f64::from_bits(0x3fe6_2e42_fee0_0000);
const LN2_LO: f64 = f64::from_bits(0x3dea_39ef_3579_3c76);
const INV_LN2: f64 = std::f64::consts::LOG2_E;
/// 3 times 2^51: added to |v| < 2^51 it rounds v to an integer, which its low bits then are.
const SHIFTER: f64 = 6_755_399_441_055_744.0;

/// 1/2!, 1/3!, ..., 1/20!.
const TAYLOR: [f64; 19] = [
    0.5,
    1.0 / 6.0,
    1.0 / 24.0,
    1.0 / 120.0,
    1.0 / 720.0,
    1.0 / 5_040.0,
    1.0 / 40_320.0,
    1.0 / 362_880.0,
    1.0 / 3_628_800.0,
    1.0 / 39_916_800.0,
    1.0 / 479_001_600.0,
    1.0 / 6_227_020_800.0,
    1.0 / 87_178_291_200.0,
    1.0 / 1_307_674_368_000.0,
    1.0 / 20_922_789_888_000.0,
    1.0 / 355_687_428_096_000.0,
    1.0 / 6_402_373_705_728_000.0,
    1.0 / 121_645_100_408_832_000.0,
    1.0 / 2_432_902_008_176_640_000.0,
];

/// c0 + x (c1 + x (c2 + ...)).
#[inline(always)]
fn horner(c: &[f64], x: f64) -> f64 {
    c.iter().rev().fold(0.0, |sum, c| sum * x + c)
}

/// 2^p for -1022 <= p <= 1023.
#[inline(always)]
fn scale(p: i64) -> f64 {
    f64::from_bits(((1023 + p) as u64) << 52)
}

/// e^x: +inf above 709.78, 0 below -745.13, NaN for NaN.
#[inline(always)]
pub fn exp(x: f64) -> f64 {
    let x = if x > 710.0 { 710.0 } else { x };
    let x = if x < -746.0 { -746.0 } else { x };
    let shifted = x * INV_LN2 + SHIFTER;
    let q = shifted - SHIFTER;
    // Exact, by Sterbenz's lemma where q is not 0.
    let high = x - q * LN2_HI;
    let low = q * LN2_LO;
    let r = high - low;
    let rest = (high - r) - low;
    // e^r - 1 - r: terms to r^15/15!, the next below 2^-67 of r^2.
    let tail = (r * r) * horner(&TAYLOR[..14], r);
    let e = 1.0 + (r + (tail + rest));
    let n = (shifted.to_bits() as i64).wrapping_sub(SHIFTER.to_bits() as i64);
    // Two factors: q reaches from -1076 to 1024, beyond one. (Half of it by a shift without a sign, which AVX2 has for vectors.)
    let half = ((n.wrapping_add(1 << 12) as u64) >> 1) as i64 - (1 << 11);
    (e * scale(half)) * scale(n.wrapping_sub(half))
}

/// e^-d - 1 + d, at least 0. Within 1 of zero the series d^2/2 - d^3/6 + ..., as the terms of the closed form cancel there.
#[inline(always)]
pub fn exp_minus_linear(d: f64) -> f64 {
    // To d^20/20!: the next is below 2^-64 of d^2/2. Both are made, so that vectors may choose.
    let near = (d * d) * horner(&TAYLOR, -d);
    let far = (exp(-d) - 1.0) + d;
    if d.abs() <= 1.0 { near } else { far }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fixed point with 110 bits behind the point: an e^x of its own, in integers, good to 2^-100.
    const BITS: u32 = 110;
    const ONE: i128 = 1 << BITS;

    /// a b 2^-110, |a|, |b| < 2^116 and the product within range.
    fn times(a: i128, b: i128) -> i128 {
        let (negative, a, b) = ((a < 0) != (b < 0), a.unsigned_abs(), b.unsigned_abs());
        let (a1, a0, b1, b0) = (a >> 64, a & u64::MAX as u128, b >> 64, b & u64::MAX as u128);
        // a1 b1 2^128 + (a1 b0 + a0 b1) 2^64 + a0 b0, shifted right by 110.
        let product = ((a1 * b1) << 18) + ((a1 * b0) >> 46) + ((a0 * b1) >> 46) + ((a0 * b0) >> 110);
        if negative { -(product as i128) } else { product as i128 }
    }

    fn fixed(x: f64) -> i128 {
        let (bits, sign) = (x.abs().to_bits(), if x < 0.0 { -1 } else { 1 });
        if x == 0.0 {
            return 0;
        }
        let (mantissa, exponent) = (((bits & ((1 << 52) - 1)) | (1 << 52)) as i128, (bits >> 52) as i32 - 1075);
        let shift = exponent + BITS as i32;
        sign * if shift >= 0 { mantissa << shift } else if shift > -64 { mantissa >> -shift } else { 0 }
    }

    /// ln 2 as sum of 1 / (k 2^k).
    fn ln2() -> i128 {
        (1..=BITS as i128).map(|k| (ONE >> k) / k).sum()
    }

    /// (m, q): e^x = m 2^q, 1/2 < m < 2, as (fixed point, exponent).
    fn reference(x: f64) -> (i128, i32) {
        let q = (x / std::f64::consts::LN_2).round() as i32;
        let r = fixed(x) - q as i128 * ln2();
        let (mut term, mut sum) = (ONE, ONE);
        for n in 1..40 {
            term = times(term, r) / n;
            sum += term;
        }
        (sum, q)
    }

    /// Distance of y from m 2^q in ulps of y.
    fn ulps(y: f64, (m, q): (i128, i32)) -> f64 {
        let bits = y.to_bits();
        let exponent = ((bits >> 52) as i32).max(1) - 1075;
        let mantissa = ((bits & ((1 << 52) - 1)) | if bits >> 52 == 0 { 0 } else { 1 << 52 }) as i128;
        // m 2^(q - 110) in units of 2^exponent, with 40 bits behind the point.
        let shift = q - BITS as i32 - exponent + 40;
        let wanted = if shift >= 0 { m << shift } else if shift > -127 { m >> -shift } else { 0 };
        ((mantissa << 40) - wanted).unsigned_abs() as f64 / (1u64 << 40) as f64
    }

    fn points() -> impl Iterator<Item = f64> {
        let mut seed = 7u64;
        (0..200_000).map(move |n| {
            seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            let unit = (seed >> 11) as f64 / (1u64 << 52) as f64 - 1.0;
            match n % 4 {
                0 => unit * 708.0,
                1 => unit * 10.0,
                2 => unit,
                _ => unit * 2f64.powi(-(n % 60)),
            }
        })
    }

    #[test]
    fn exp_is_within_one_ulp() {
        let mut worst = (0.0, 0.0);
        for x in points() {
            let error = ulps(exp(x), reference(x));
            if error > worst.0 {
                worst = (error, x);
            }
        }
        println!("largest error {:.3} ulp at {:e}", worst.0, worst.1);
        assert!(worst.0 < 1.0, "{} ulp at {:e}", worst.0, worst.1);
        // The reference itself, against the constant that everyone knows.
        assert!(ulps(std::f64::consts::E, reference(1.0)) <= 0.5);
        assert_eq!((exp(0.0), exp(-0.0)), (1.0, 1.0));
    }

    #[test]
    fn exp_at_the_ends() {
        assert_eq!(exp(709.79), f64::INFINITY);
        assert_eq!((exp(f64::INFINITY), exp(f64::NEG_INFINITY)), (f64::INFINITY, 0.0));
        assert_eq!((exp(1e308), exp(-1e308), exp(-745.2)), (f64::INFINITY, 0.0, 0.0));
        assert!(exp(f64::NAN).is_nan());
        assert!(exp(709.78).is_finite() && exp(-745.1) > 0.0);
        // Subnormal results: two roundings.
        for i in 0..2000 {
            let x = -708.3 - i as f64 * 0.0184;
            assert!(ulps(exp(x), reference(x)) <= 1.0, "{x}: {:e}", exp(x));
        }
    }

    #[test]
    fn k3_has_no_cancellation() {
        for x in points().filter(|x| x.abs() < 700.0 && x.abs() > 1e-8) {
            // e^-d - 1 + d in fixed point.
            let (m, q) = reference(-x);
            if q.abs() > 10 {
                continue;
            }
            let value = (if q >= 0 { m << q } else { m >> -q }) - ONE + fixed(x);
            let wanted = value as f64 / ONE as f64;
            let got = exp_minus_linear(x);
            // Fixed point has 2^-108 of its own to lose.
            assert!((got - wanted).abs() <= 4.0 * f64::EPSILON * wanted + 2f64.powi(-100), "{x:e}: {got:e}, {wanted:e}");
        }
        // Where the closed form has nothing left the series is d^2 / 2.
        assert_eq!(exp_minus_linear(1e-9), 5e-19 * (1.0 - 1e-9 / 3.0));
        assert_eq!((exp_minus_linear(0.0), exp_minus_linear(-1e-200)), (0.0, 0.0));
        assert!(exp_minus_linear(1e-160) > 0.0);
        assert_eq!(exp_minus_linear(-800.0), f64::INFINITY);
        // The branches meet.
        for d in [1.0f64, -1.0] {
            let (inside, outside) = (exp_minus_linear(d), (exp(-d) - 1.0) + d);
            assert!((inside - outside).abs() < 1e-15);
        }
    }

    /// The bits are part of the contract.
    #[test]
    fn exp_keeps_its_bits() {
        let fnv = |h: u64, b: u64| (h ^ b).wrapping_mul(0x0100_0000_01b3);
        let hash = points().fold(0xcbf2_9ce4_8422_2325, |h, x| fnv(fnv(h, exp(x).to_bits()), exp_minus_linear(x).to_bits()));
        assert_eq!(hash, 0x1831_be6b_8e8d_22ed, "{hash:#018x}");
    }
}
