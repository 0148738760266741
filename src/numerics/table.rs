//! The tables that are built on the host and uploaded: n^-k, 1/n and the powers of a decay.
//!
//! `powf` differs between C libraries, processors and versions, so n^-k is made here from + - * / alone, which IEEE 754 fixes to the
//! bit: ln n as a double-double through the atanh series, times k, then exp by Taylor after reduction by ln 2. Products are made
//! exact by Dekker's splitting rather than by a fused multiply-add: both give the same bits, but on a processor without the
//! instruction `mul_add` is a call into the C library, slow and beyond our control.
//!
//! Error of n^-k, relative, for 2 <= n <= 2^31 and 0 <= k <= 8: the series below their leading terms are summed in plain f64, which
//! costs at most 2^-57 in k ln n and 2^-59 in exp; the final addition rounds once, 2^-53. Together below 2^-52.8, and nearly always
//! the nearest f64.

/// ln 2 in two parts. The first ends in 21 zero bits, so its product with an integer below 2^21 is exact.
const LN2_HI: f64 = f64::from_bits(0x3fe6_2e42_fee0_0000);
const LN2_LO: f64 = f64::from_bits(0x3dea_39ef_3579_3c76);
const INV_LN2: f64 = std::f64::consts::LOG2_E;

/// 1/3, 1/5, ..., 1/25: atanh(s)/s - 1 as a polynomial in s^2, without its leading s^2. With s^2 <= 0.0295 the first term left out is
/// below 2^-66 of ln n even at k = 8.
const ATANH: [f64; 12] = [
    1.0 / 3.0,
    1.0 / 5.0,
    1.0 / 7.0,
    1.0 / 9.0,
    1.0 / 11.0,
    1.0 / 13.0,
    1.0 / 15.0,
    1.0 / 17.0,
    1.0 / 19.0,
    1.0 / 21.0,
    1.0 / 23.0,
    1.0 / 25.0,
];

/// 1/3!, ..., 1/15!: the divisors are exact in f64. With |x| <= 0.347 the first term left out is below 2^-68.
const EXP: [f64; 13] = [
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
];

/// `a + b` exactly, as a rounded sum and what the rounding left.
#[inline(always)]
fn two_sum(a: f64, b: f64) -> (f64, f64) {
    let sum = a + b;
    let b_part = sum - a;
    (sum, (a - (sum - b_part)) + (b - b_part))
}

/// `a + b` exactly, for |a| >= |b| or a = 0.
#[inline(always)]
fn fast_two_sum(a: f64, b: f64) -> (f64, f64) {
    let sum = a + b;
    (sum, b - (sum - a))
}

/// `a` as two parts of at most 26 bits (Veltkamp), whose products are exact.
#[inline(always)]
fn split(a: f64) -> (f64, f64) {
    let scaled = 134_217_729.0 * a; // 2^27 + 1
    let hi = scaled - (scaled - a);
    (hi, a - hi)
}

/// `a * b` exactly, as a rounded product and what the rounding left (Dekker); the operands here are far from over- and underflow.
#[inline(always)]
fn two_prod(a: f64, b: f64) -> (f64, f64) {
    let product = a * b;
    let (a_hi, a_lo) = split(a);
    let (b_hi, b_lo) = split(b);
    let rest = ((a_hi * b_hi - product) + a_hi * b_lo + a_lo * b_hi) + a_lo * b_lo;
    (product, rest)
}

/// Horner, from the last coefficient down; the order of operations is part of the result.
#[inline(always)]
fn polynomial<const N: usize>(coefficients: &[f64; N], x: f64) -> f64 {
    let mut y = coefficients[N - 1];
    let mut i = N - 1;
    while i > 0 {
        i -= 1;
        y = y * x + coefficients[i];
    }
    y
}

/// ln n as a double-double, for 1 <= n < 2^50.
#[inline(always)]
fn ln(n: f64) -> (f64, f64) {
    // n = 2^e * m, m in [1, 2), then m in (0.707, 1.415). Selections instead of branches, and the exponent made a number by adding
    // and subtracting 2^52, so that the compiler can do several n at once.
    const TWO_52: f64 = 4_503_599_627_370_496.0;
    let bits = n.to_bits();
    let e = f64::from_bits((bits >> 52) | TWO_52.to_bits()) - (TWO_52 + 1023.0);
    let m = f64::from_bits((bits & 0x000f_ffff_ffff_ffff) | 1.0f64.to_bits());
    let above = m > std::f64::consts::SQRT_2;
    let e = if above { e + 1.0 } else { e };
    let m = if above { 0.5 * m } else { m };
    // s = (m - 1) / (m + 1): numerator and denominator are exact, the quotient gets its remainder as a second part.
    let numerator = m - 1.0;
    let denominator = m + 1.0;
    let s = numerator / denominator;
    let (product, rest) = two_prod(s, denominator);
    let s_lo = ((numerator - product) - rest) / denominator;
    // ln m = 2 (s + s^3/3 + s^5/5 + ...); s^3/3 and on are at most 0.0017, so plain f64 will do for them.
    let z = s * s;
    let tail = s * (z * polynomial(&ATANH, z));
    let (m_hi, m_lo) = fast_two_sum(2.0 * s, 2.0 * (s_lo + tail));
    // e <= 50, so e * LN2_HI is exact. It is 0 or larger than |ln m| <= 0.347.
    let (hi, lo) = fast_two_sum(e * LN2_HI, m_hi);
    fast_two_sum(hi, lo + (m_lo + e * LN2_LO))
}

/// exp(-(hi + lo)), for 0 <= hi < 700 and |lo| <= ulp(hi).
#[inline(always)]
fn exp_minus(hi: f64, lo: f64) -> f64 {
    // q = hi / ln 2 to the nearest integer: adding 3 * 2^51 leaves no room for a fraction, and its low bits are then q.
    const SHIFTER: f64 = 6_755_399_441_055_744.0;
    let shifted = hi * INV_LN2 + SHIFTER;
    let q = shifted - SHIFTER;
    // x = q ln 2 - (hi + lo), |x| <= 0.347; q < 2^11, so q * LN2_HI is exact.
    let (x, rest) = two_sum(q * LN2_HI, -hi);
    let (x, x_lo) = two_sum(x, rest + (q * LN2_LO - lo));
    // 1 + x + x^2/2 as a double-double; x^3/6 and on are at most 0.0078, so plain f64 will do for them.
    let (square, square_lo) = two_prod(x, x);
    let tail = (square * x) * polynomial(&EXP, x);
    let (sum, rest_1) = fast_two_sum(1.0, x);
    let (sum, rest_2) = fast_two_sum(sum, 0.5 * square);
    let low = (rest_1 + rest_2) + (x_lo + (0.5 * square_lo + x * x_lo)) + tail;
    // The scale 2^-q is exact, and the result far from subnormal for every n and k in range.
    (sum + low) * f64::from_bits(1023_u64.wrapping_sub(shifted.to_bits()) << 52)
}

/// n^-k for 1 <= n <= 2^31 and 0 <= k <= 8, relative error below 2^-50; 0 for n = 0. Exactly 1 for k = 0 and n = 1, and the correctly
/// rounded 1/n for k = 1. Bit for bit the entry that [`power_table`] has for n.
#[inline]
pub fn power_at(k: f64, n: u64) -> f64 {
    debug_assert!((0.0..=8.0).contains(&k) && n <= 1 << 31, "{n}^-{k} is out of range");
    if n == 0 {
        0.0
    } else if k == 1.0 {
        1.0 / n as f64
    } else {
        power(k, n as f64)
    }
}

#[inline(always)]
fn power(k: f64, n: f64) -> f64 {
    let (ln_hi, ln_lo) = ln(n);
    let (y, y_lo) = two_prod(k, ln_hi);
    let (y, y_lo) = fast_two_sum(y, y_lo + k * ln_lo);
    exp_minus(y, y_lo)
}

/// T\[n\] = n^-k for n = 0..len, with T\[0\] = 0 (positions count from 1); ranges and exactness as [`power_at`].
pub fn power_table(k: f64, len: usize) -> Vec<f64> {
    debug_assert!((0.0..=8.0).contains(&k) && len as u64 <= (1 << 31) + 1, "a table of {len}, n^-{k}, is out of range");
    if k == 1.0 {
        return reciprocal_table(len);
    }
    let mut table = vec![0.0; len];
    if let Some((_, from_one)) = table.split_first_mut() {
        for (i, t) in from_one.iter_mut().enumerate() {
            *t = power(k, (i as u32 + 1) as f64);
        }
    }
    table
}

/// 1/n for n = 0..len, correctly rounded, with 0 at n = 0.
pub fn reciprocal_table(len: usize) -> Vec<f64> {
    (0..len as u64).map(|n| power_at(1.0, n)).collect()
}

/// 1 / (1 + c + ... + c^(n-1)) for n = 0..len, with 0 at n = 0: s_n = 1 + c s_(n-1), then one division.
pub fn discounted_count_table(c: f64, len: usize) -> Vec<f64> {
    let mut sum = 0.0;
    let mut table = vec![0.0; len];
    for t in table.iter_mut().skip(1) {
        sum = 1.0 + c * sum;
        *t = 1.0 / sum;
    }
    table
}

/// c^m for m = 0..=32, each the one before times c: the order of rounding is part of the contract.
pub fn decay_powers(c: f64) -> [f64; 33] {
    let mut powers = [1.0; 33];
    for m in 1..33 {
        powers[m] = powers[m - 1] * c;
    }
    powers
}

#[cfg(test)]
mod tests {
    use super::*;

    const KS: [f64; 15] = [1e-3, 0.1, 0.25, 0.5, 0.7, 0.9, 1.0, 1.1, 1.5, 2.0, 3.0, std::f64::consts::PI, 5.5, 7.999, 8.0];

    /// n, and for each k above n^-k as the bits of the nearest f64 and what is missing to it: from Python's `decimal` with 60 digits,
    /// `(-Decimal(k) * Decimal(n).ln()).exp()`.
    #[rustfmt::skip]
    const REFERENCE: [(u64, [(u64, f64); 15]); 15] = [
        (2, [
            (0x3feffa52de61c11f, 1.620e-17), (0x3feddb680117ab12, 2.320e-18), (0x3feae89f995ad3ad, 4.100e-17),
            (0x3fe6a09e667f3bcd, -4.834e-17), (0x3fe3b2c47bff8329, 5.824e-18), (0x3fe125fbee250664, 8.304e-18),
            (0x3fe0000000000000, 0.000e+00), (0x3fdddb680117ab12, -2.577e-17), (0x3fd6a09e667f3bcd, -2.417e-17),
            (0x3fd0000000000000, 0.000e+00), (0x3fc0000000000000, 0.000e+00), (0x3fbd0231bd5e9cfd, 1.536e-18),
            (0x3f96a09e667f3bcd, -1.511e-18), (0x3f7002d711c79a97, -3.871e-19), (0x3f70000000000000, 0.000e+00),
        ]),
        (3, [
            (0x3feff7014ee34f60, -4.129e-17), (0x3fecabb11372e638, 2.212e-17), (0x3fe85092ed86a26b, 6.730e-18),
            (0x3fe279a74590331c, 3.345e-17), (0x3fdda960f3ef58e9, -2.996e-18), (0x3fd7cf854c3b60ba, -2.626e-17),
            (0x3fd5555555555555, 1.850e-17), (0x3fd31d20b7a1eed0, -1.995e-17), (0x3fc8a2345cc04426, -7.354e-18),
            (0x3fbc71c71c71c71c, 6.168e-18), (0x3fa2f684bda12f68, 2.056e-18), (0x3fa03b2cbf2c9c5c, -2.048e-18),
            (0x3f6376ae1d09b11b, -1.497e-19), (0x3f23ffd8cf023ac1, 1.127e-20), (0x3f23fa39ab547995, -3.921e-21),
        ]),
        (5, [
            (0x3feff2d37a8d94a5, -4.828e-17), (0x3feb3e2d38a030b1, -1.308e-17), (0x3fe56652116c816c, 1.757e-17),
            (0x3fdc9f25c5bfedd9, 1.158e-17), (0x3fd4be914a0ac751, 1.753e-17), (0x3fce11fb92951f8d, -3.149e-18),
            (0x3fc999999999999a, -1.110e-17), (0x3fc5cb57608026f3, 2.322e-18), (0x3fb6e5b7d16657e1, -4.599e-19),
            (0x3fa47ae147ae147b, -8.327e-19), (0x3f80624dd2f1a9fc, -1.665e-19), (0x3f7a1725298ee456, 1.822e-19),
            (0x3f22c1eb5ef1f1f9, 1.136e-20), (0x3ec58269ca2f15d1, 1.949e-22), (0x3ec5798ee2308c3a, -5.356e-23),
        ]),
        (7, [
            (0x3feff013193bb7e8, -1.494e-17), (0x3fea576b3ddd09b4, -2.060e-17), (0x3fe3ac58345c9b0b, 4.349e-17),
            (0x3fd83091e6a7f7e7, -2.588e-17), (0x3fd0642728a123fc, 9.668e-18), (0x3fc636b7d46b5303, 1.029e-17),
            (0x3fc2492492492492, 7.930e-18), (0x3fbe1ac3b46a543a, -2.171e-18), (0x3faba539079b6475, 1.259e-18),
            (0x3f94e5e0a72f0539, 1.629e-18), (0x3f67e225515a4f1d, 4.678e-20), (0x3f6221b097a3f766, -2.632e-20),
            (0x3ef794b6fd366467, -2.081e-22), (0x3e8753dfb5973470, -7.772e-24), (0x3e874843b1ee4c1e, 5.376e-25),
        ]),
        (10, [
            (0x3fefed28af2ab826, 4.355e-17), (0x3fe96b230bcdc434, 1.882e-18), (0x3fe1feb33c1c381e, 7.568e-18),
            (0x3fd43d136248490f, -7.977e-18), (0x3fc98a13577c93c0, 6.989e-18), (0x3fc01d3f2d9684d0, -1.356e-17),
            (0x3fb999999999999a, -5.551e-18), (0x3fb455b5a30b035c, -3.939e-18), (0x3fa030dc4ea03a72, 1.978e-18),
            (0x3f847ae147ae147b, -2.082e-19), (0x3f50624dd2f1a9fc, -2.082e-20), (0x3f47a6c3add2d6f9, 2.145e-21),
            (0x3eca86f0875fcf94, 1.409e-22), (0x3e45863b37bccec9, 1.631e-25), (0x3e45798ee2308c3a, -2.092e-25),
        ]),
        (97, [
            (0x3fefda9c0bfffff7, 2.236e-18), (0x3fe44092012d2f8c, 2.902e-17), (0x3fd464addea25999, -2.281e-17),
            (0x3fb9fe2c315637ee, 1.602e-18), (0x3fa4d2858b6e7163, -2.275e-18), (0x3f90ae2c036e1b57, -9.122e-19),
            (0x3f851d07eae2f815, 1.967e-19), (0x3f7ab97eafbcf232, 2.281e-19), (0x3f512661c6d1f566, -6.843e-20),
            (0x3f1bdc69754b2cfa, -6.076e-21), (0x3eb261ebd944131e, 1.159e-23), (0x3ea33c80ab3611b2, 4.788e-23),
            (0x3daa002ed4882367, -7.037e-28), (0x3ca278ed540d8bf8, 8.167e-33), (0x3ca26357ceac0e97, -1.019e-32),
        ]),
        (1000, [
            (0x3fefc79b4ea338a2, -4.541e-17), (0x3fe009b9cf334252, 2.188e-17), (0x3fc6c310e3769f3f, -1.240e-17),
            (0x3fa030dc4ea03a72, 1.978e-18), (0x3f8044914f3c02b2, 1.979e-19), (0x3f60585e4c78b07a, -5.854e-20),
            (0x3f50624dd2f1a9fc, -2.082e-20), (0x3f406c436388750e, -7.927e-21), (0x3f009456549be1bd, -1.979e-21),
            (0x3eb0c6f7a0b5ed8d, 4.525e-23), (0x3e112e0be826d695, -6.228e-26), (0x3df9d72ecab4b33f, 1.309e-26),
            (0x3c823ab2b8f933d6, -2.276e-33), (0x3af37a1588cf03f5, 2.401e-41), (0x3af357c299a88ea7, 7.630e-41),
        ]),
        (4095, [
            (0x3fefbc253bade713, -1.387e-17), (0x3fdbdbb96edf264a, -2.296e-18), (0x3fc0004002801e02, -1.322e-17),
            (0x3f90008006005004, 1.304e-18), (0x3f68416fafee701c, 9.698e-20), (0x3f42621a3f6f0fdb, -4.449e-20),
            (0x3f30010010010010, 2.118e-22), (0x3f1bdd7746538b7d, 3.334e-21), (0x3ed001801e023027, 3.266e-22),
            (0x3e70020030040050, 3.103e-25), (0x3db00300600a00f0, 2.651e-28), (0x3d93b9beb9210fdf, -3.920e-29),
            (0x3bd005811e2cb5f0, 2.410e-37), (0x39f02a494d318c3b, -2.056e-46), (0x39f00802407814a3, 2.673e-46),
        ]),
        (65537, [
            (0x3fefa5a64db7a230, 2.237e-17), (0x3fd51cb237420de8, -2.232e-17), (0x3faffff80004fffc, 1.735e-18),
            (0x3f6ffff0000bfff6, 5.790e-23), (0x3f3bdb795ad6a7f4, 4.745e-21), (0x3f08404a303dcd82, 1.458e-21),
            (0x3eefffe0001fffe0, 8.272e-25), (0x3ed51c9d1aa4f33d, 1.356e-22), (0x3e6fffd0003bffba, 7.952e-27),
            (0x3defffc0005fff80, 6.311e-29), (0x3cefffa000bffec0, 2.889e-33), (0x3cca9ec4127ccc79, 1.133e-32),
            (0x3a6fff50023bfa6a, 1.663e-44), (0x37f02d2c66e4b609, 2.727e-55), (0x37efff00047ff100, 5.257e-56),
        ]),
        (131071, [
            (0x3fefa0093f15f372, 2.907e-18), (0x3fd3b2c578233519, -1.492e-17), (0x3faae8a2f66fd3ef, 2.436e-18),
            (0x3f66a0a40ea8f47c, 4.638e-20), (0x3f312601eea626c4, 9.551e-21), (0x3ef9fe046f1d69b1, 6.445e-22),
            (0x3ee0000800040002, 2.585e-26), (0x3ec3b2cf518addd9, -1.168e-22), (0x3e56a0af5f00a3fc, 1.414e-24),
            (0x3dd00010000c0008, 9.861e-31), (0x3cc0001800180014, 2.257e-35), (0x3c982226b658912e, 2.374e-33),
            (0x3a16a0dca097f3ed, -3.295e-45), (0x377030cdbc1f51d1, -7.906e-58), (0x37700040009000f0, 1.284e-59),
        ]),
        (131072, [
            (0x3fefa0093b09a786, -1.601e-17), (0x3fd3b2c47bff8329, -2.670e-17), (0x3faae89f995ad3ad, 2.562e-18),
            (0x3f66a09e667f3bcd, -1.888e-19), (0x3f3125fbee250667, -1.762e-20), (0x3ef9fdf8bcce533c, -1.589e-21),
            (0x3ee0000000000000, -3.000e-64), (0x3ec3b2c47bff8323, 3.342e-23), (0x3e56a09e667f3bcd, -1.441e-24),
            (0x3dd0000000000000, -4.600e-69), (0x3cc0000000000000, -5.300e-74), (0x3c982200cdced964, -2.233e-35),
            (0x3a16a09e667f3bcd, -4.881e-45), (0x3770308cfb6c37aa, -7.685e-59), (0x3770000000000000, -3.703e-99),
        ]),
        (1000003, [
            (0x3fef8f99fd5965a0, 3.964e-17), (0x3fd0137936f39c3c, -7.752e-18), (0x3fa030db82e5e905, -4.793e-19),
            (0x3f50624c36a0c905, -7.279e-20), (0x3f108a463002a940, -1.732e-21), (0x3ed0b2a1b404076d, 1.075e-22),
            (0x3eb0c6f45449cb5a, -4.752e-23), (0x3e90db5fb0a48a72, -1.785e-23), (0x3e112e06d71eb0a6, -3.253e-26),
            (0x3d719792964cc5a3, 4.845e-29), (0x3c327252f079147b, 8.542e-35), (0x3c04ddd3364e5514, -1.024e-36),
            (0x3914c4d3025f4a31, 1.425e-50), (0x35f7b571641e4913, 1.586e-65), (0x35f7622ac2efa922, -1.313e-65),
        ]),
        (1073741825, [
            (0x3fef57693c6574e8, 3.794e-17), (0x3fbffffffff33332, 2.230e-18), (0x3f76a09e66689b2e, 1.432e-19),
            (0x3effffffffc00000, 9.926e-24), (0x3e9fffffffa6666f, -1.470e-23), (0x3e3fffffff8cccc9, -2.913e-25),
            (0x3e0fffffff800000, 8.078e-28), (0x3ddfffffff733323, -5.512e-27), (0x3d1fffffff400000, 4.622e-32),
            (0x3c2fffffff000000, 2.257e-36), (0x3a4ffffffe800000, 4.204e-45), (0x3a0af33bcb5e4929, -1.224e-45),
            (0x359ffffffd400000, 3.315e-67), (0x30f05610cd81045a, 1.343e-89), (0x30effffffc000000, 1.767e-89),
        ]),
        (2147483647, [
            (0x3fef51da027624f2, -5.294e-17), (0x3fbddb68011da3bf, 6.269e-18), (0x3f7306fe0a3b3a94, 1.730e-19),
            (0x3ef6a09e6695dc6b, -1.168e-22), (0x3e93b2c47c1b170e, 2.725e-24), (0x3e3125fbee43e45b, -3.958e-25),
            (0x3e00000000200000, 1.010e-28), (0x3dcddb6801595a80, 2.752e-27), (0x3d06a09e66c31da8, -3.655e-31),
            (0x3c10000000400000, 1.411e-37), (0x3a20000000600000, 1.314e-46), (0x39d86e4749c681d9, -1.931e-46),
            (0x3546a09e6778229b, -4.838e-70), (0x307058f72954514d, 4.462e-92), (0x3070000001000000, 1.726e-92),
        ]),
        (2147483648, [
            (0x3fef51da027614e8, 4.254e-17), (0x3fbddb680117ab11, 7.050e-19), (0x3f7306fe0a31b715, 1.555e-19),
            (0x3ef6a09e667f3bcd, -1.475e-21), (0x3e93b2c47bff832e, 9.140e-24), (0x3e3125fbee250662, -1.273e-25),
            (0x3e00000000000000, -9.000e-69), (0x3dcddb680117ab02, 9.273e-29), (0x3d06a09e667f3bcd, -6.869e-31),
            (0x3c10000000000000, -9.000e-78), (0x3a20000000000000, -5.703e-87), (0x39d86e47492d010e, 2.378e-46),
            (0x3546a09e667f3bcd, -3.230e-68), (0x307058f7284eca39, 1.169e-91), (0x3070000000000000, -7.881e-133),
        ]),
    ];

    #[test]
    fn relative_error() {
        let mut worst = 0.0f64;
        for (n, row) in REFERENCE {
            for (k, (hi, lo)) in KS.into_iter().zip(row) {
                let exact = f64::from_bits(hi);
                let error = (((power_at(k, n) - exact) - lo) / exact).abs();
                // 2^-50 is promised; this is what the analysis at the top of the file leaves.
                assert!(error < 2f64.powf(-52.8), "{n}^-{k}: relative error {error:e}");
                worst = worst.max(error);
            }
        }
        // An error of 0 throughout would mean that the reference is not read.
        assert!(worst > 2f64.powi(-56));
    }

    #[test]
    fn exact_cases() {
        for n in [1, 2, 3, 7, 1_000, 131_071, (1 << 31) - 1, 1 << 31] {
            assert_eq!(power_at(0.0, n).to_bits(), 1f64.to_bits());
            assert_eq!(power_at(-0.0, n).to_bits(), 1f64.to_bits());
            assert_eq!(power_at(1.0, n).to_bits(), (1.0 / n as f64).to_bits());
        }
        for k in KS {
            assert_eq!(power_at(k, 0), 0.0);
            assert_eq!(power_at(k, 1).to_bits(), 1f64.to_bits());
        }
        for e in 0..=31 {
            for k in 0..=8 {
                assert_eq!(power_at(f64::from(k), 1 << e), 2f64.powi(-e * k));
            }
        }
        assert_eq!(power_table(0.0, 3), [0.0, 1.0, 1.0]);
        assert_eq!(reciprocal_table(4), [0.0, 1.0, 0.5, 1.0 / 3.0]);
        for len in [0, 1] {
            for k in [0.5, 1.0] {
                assert_eq!(power_table(k, len), vec![0.0; len]);
            }
        }
    }

    /// The table is computed several entries at a time and a single value is not; neither may show, nor may the table's length.
    #[test]
    fn single_values_are_the_tables() {
        for k in [0.0, 0.3, 0.5, 1.0, 2.0, 7.3] {
            let table = power_table(k, 20_003);
            for (n, t) in table.iter().enumerate() {
                assert_eq!(t.to_bits(), power_at(k, n as u64).to_bits(), "{n}^-{k}");
            }
            assert_eq!(power_table(k, 777), table[..777]);
        }
    }

    #[test]
    fn tables_fall() {
        for k in [1e-3, 0.5, 1.0, 8.0] {
            let table = power_table(k, 131_073);
            assert!(table[1..].windows(2).all(|w| w[0] > w[1]), "n^-{k}");
        }
    }

    /// FNV-1a over the bytes of the entries, lowest first.
    fn fnv(values: &[f64]) -> u64 {
        let bytes = values.iter().flat_map(|v| v.to_bits().to_le_bytes());
        bytes.fold(0xcbf2_9ce4_8422_2325, |h, b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3))
    }

    /// The bits are part of the library's results: a change here is a new numerics version. The same hashes came from a transcription
    /// of the builder to Python, whose floats are IEEE doubles without contraction.
    #[test]
    fn pinned() {
        let short = [
            (0.0, 0xc957_4cdf_bfcb_39c5),
            (0.25, 0x5c2f_dd8e_3bb7_7a2c),
            (0.5, 0xbe28_4c3b_2cac_1565),
            (0.7, 0x0251_acfc_b000_0ef7),
            (0.9, 0xa3fb_d7c4_d050_4102),
            (1.0, 0xa8a8_483c_3ed3_8cf8),
            (1.1, 0x3adc_cb07_726a_f85f),
            (1.5, 0xf4e0_dc4b_3e56_88fe),
            (2.0, 0xd864_b1ce_af75_6cdd),
            (3.0, 0x75c7_2bc6_71df_c29e),
            (std::f64::consts::PI, 0xbfab_012f_d6d6_3257),
            (5.5, 0x2280_97b2_684d_0254),
            (8.0, 0x048e_9523_d657_dfe2),
        ];
        for (k, hash) in short {
            assert_eq!(fnv(&power_table(k, 4_097)), hash, "n^-{k}");
        }
        let long = [(0.5, 0xc46e_ed85_1b53_6983), (0.7, 0x155c_e67b_c8ba_4a7b), (2.0, 0x069b_572f_7152_10c2), (8.0, 0x85da_ef79_0e9d_e406)];
        for (k, hash) in long {
            assert_eq!(fnv(&power_table(k, 131_073)), hash, "n^-{k}");
        }
        let cs = [0.0, 0.5, 0.9, 0.95, 0.99, 1.0, 1.0 / 3.0];
        let decays: Vec<f64> = cs.into_iter().flat_map(decay_powers).collect();
        assert_eq!(fnv(&decays), 0x3074_69c3_86c4_1c80);
    }

    #[test]
    fn decays() {
        let powers = decay_powers(0.9);
        assert_eq!(powers[..3], [1.0, 0.9, 0.9 * 0.9]);
        assert_eq!(powers[3], (0.9 * 0.9) * 0.9);
        assert_eq!(decay_powers(0.5)[32], 2f64.powi(-32));
        assert_eq!(decay_powers(0.0)[..2], [1.0, 0.0]);
        assert_eq!(decay_powers(1.0), [1.0; 33]);
    }
}
