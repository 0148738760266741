//! Exact statistics of a set (numerics contract): maxima first, then sums of integers on a grid that the maximum sets. Integers add in any order, so any
//! slicing of the set, in time or space, gives the same bits.
use super::simd::{Simd, dispatch};
use super::wide::u128_to_f64;

/// Keys of the maxima: order-preserving integers, so that a MAX reduction of `i32` serves. `min` is the key of the largest -x.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(C)]
pub struct Extremes {
    /// Bits of max|x|; `INFINITE` and above: a finding.
    pub absmax: i32,
    pub max: i32,
    pub min: i32,
}

/// Keys of `Extremes::absmax` that are findings, the worst the largest.
pub const INFINITE: i32 = 0x7f80_0000;
pub const NAN: i32 = 0x7fc0_0000;
pub const BAD_STEPS: i32 = 0x7fff_ffff;

/// Sums of a set on its grid: elements, q, the two limbs of q squared, elements equal to the maximum and to the minimum.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(C)]
pub struct Sums {
    pub n: i64,
    pub q: i64,
    pub hi: i64,
    pub lo: i64,
    pub at_max: i64,
    pub at_min: i64,
}

/// Bits a value: 30 for steps, tokens and batch-wide sets, 46 for a group's per-rollout streams and leave-one-out deviations.
pub const STEP_BITS: i32 = 30;
pub const ROLLOUT_BITS: i32 = 46;

/// Integer whose order is that of the value; -0 and +0 are one.
#[inline(always)]
pub fn key(x: f32) -> i32 {
    let bits = (x + 0.0).to_bits() as i32;
    bits ^ (((bits >> 31) as u32) >> 1) as i32
}

/// The value of a key.
pub fn value(key: i32) -> f32 {
    f32::from_bits((key ^ (((key >> 31) as u32) >> 1) as i32) as u32)
}

impl Extremes {
    pub const EMPTY: Extremes = Extremes { absmax: 0, max: i32::MIN, min: i32::MIN };

    pub fn add(&mut self, other: &Extremes) {
        self.absmax = self.absmax.max(other.absmax);
        self.max = self.max.max(other.max);
        self.min = self.min.max(other.min);
    }

    #[inline(always)]
    pub fn push(&mut self, x: f32) {
        let abs = (x.to_bits() & 0x7fff_ffff) as i32;
        self.absmax = self.absmax.max(if abs > INFINITE { NAN } else { abs });
        self.max = self.max.max(key(x));
        self.min = self.min.max(key(-x));
    }

    pub fn is_bad(&self) -> bool {
        self.absmax >= INFINITE
    }

    pub fn is_empty(&self) -> bool {
        self.max == i32::MIN
    }

    pub fn max_value(&self) -> f32 {
        value(self.max)
    }

    pub fn min_value(&self) -> f32 {
        -value(self.min)
    }

    /// Are all elements equal, exactly?
    pub fn all_equal(&self) -> bool {
        self.max_value() == self.min_value()
    }

    pub fn absmax_value(&self) -> f32 {
        f32::from_bits(self.absmax as u32)
    }
}

dispatch! {
    /// Extremes of a slice.
    pub fn extremes(xs: &[f32]) -> Extremes {
        const LANES: usize = 16;
        if xs.is_empty() {
            return Extremes::EMPTY;
        }
        // Bits of |x| above infinity (NaN) come back as one key at the end. NaN is passed over by the comparisons: its set is bad, and the maximum
        // of a bad set is not read.
        let (mut absmax, mut max, mut min) = ([0i32; LANES], [f32::NEG_INFINITY; LANES], [f32::INFINITY; LANES]);
        let mut chunks = xs.chunks_exact(LANES);
        for chunk in &mut chunks {
            for lane in 0..LANES {
                let x = chunk[lane];
                absmax[lane] = absmax[lane].max((x.to_bits() & 0x7fff_ffff) as i32);
                max[lane] = if x > max[lane] { x } else { max[lane] };
                min[lane] = if x < min[lane] { x } else { min[lane] };
            }
        }
        let mut all = Extremes::EMPTY;
        for x in chunks.remainder() {
            all.push(*x);
        }
        for lane in 0..LANES {
            let abs = if absmax[lane] > INFINITE { NAN } else { absmax[lane] };
            if xs.len() >= LANES {
                all.add(&Extremes { absmax: abs, max: key(max[lane]), min: key(-min[lane]) });
            }
        }
        all
    }
}

/// The grid that a set's maximum sets: q = rint(x 2^(bits - e)).
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Grid {
    pub bits: i32,
    /// 2^(bits - e); 0 for a set of zeros: every q is 0.
    pub up: f64,
    /// 2^(e - bits).
    pub down: f64,
}

/// 2^p for -1022 <= p <= 1023.
pub fn power_of_two(p: i32) -> f64 {
    f64::from_bits(((1023 + p) as u64) << 52)
}

/// frexp's exponent of a positive finite f32, from its bits: 2^(e-1) <= x < 2^e.
pub fn exponent(absmax: i32) -> i32 {
    if absmax >= 0x0080_0000 { (absmax >> 23) - 126 } else { 32 - absmax.leading_zeros() as i32 - 149 }
}

/// 1.5 times 2^52: added to |v| < 2^51 it rounds v to an integer, ties to even, in the low bits.
pub const MAGIC: f64 = 6_755_399_441_055_744.0;

impl Grid {
    pub fn new(bits: i32, absmax: i32) -> Grid {
        if absmax <= 0 || absmax >= INFINITE {
            return Grid { bits, up: 0.0, down: 0.0 };
        }
        let e = exponent(absmax);
        Grid { bits, up: power_of_two(bits - e), down: power_of_two(e - bits) }
    }

    /// q of x, |x| at most the set's maximum.
    #[inline(always)]
    pub fn quantize(&self, x: f32) -> i64 {
        ((x as f64 * self.up + MAGIC).to_bits() as i64).wrapping_sub(MAGIC.to_bits() as i64)
    }
}

impl Sums {
    pub fn add(&mut self, other: &Sums) {
        self.n += other.n;
        self.q += other.q;
        self.hi += other.hi;
        self.lo += other.lo;
        self.at_max += other.at_max;
        self.at_min += other.at_min;
    }

    /// One element, `weight` times.
    #[inline(always)]
    pub fn push(&mut self, grid: &Grid, q: i64, weight: i64) {
        let square = (q as i128 * q as i128) as u128;
        self.n += weight;
        self.q += q * weight;
        self.hi += (square >> grid.bits) as i64 * weight;
        self.lo += (square & ((1u128 << grid.bits) - 1)) as i64 * weight;
    }

    /// Sums without some of the elements.
    pub fn without(&self, own: &Sums) -> Sums {
        Sums {
            n: self.n.wrapping_sub(own.n),
            q: self.q.wrapping_sub(own.q),
            hi: self.hi.wrapping_sub(own.hi),
            lo: self.lo.wrapping_sub(own.lo),
            at_max: self.at_max.wrapping_sub(own.at_max),
            at_min: self.at_min.wrapping_sub(own.at_min),
        }
    }

    /// f64(sum q) / f64(n) 2^(e - bits).
    pub fn mean(&self, grid: &Grid) -> f64 {
        (self.q as f64 / self.n as f64) * grid.down
    }

    /// n sum q^2 - (sum q)^2, exactly: at least 0 and below 2^126 within the limits.
    pub fn numerator(&self, grid: &Grid) -> u128 {
        // The limbs are sums of differences in leave-one-out; as a whole they are a sum of squares.
        let squares = ((self.hi as i128) << grid.bits) + self.lo as i128;
        let q = self.q.unsigned_abs() as u128;
        let found = (self.n as u128).wrapping_mul(squares as u128).wrapping_sub(q.wrapping_mul(q));
        // A value that is no element, left out all the same, may leave sums that belong to no set: they have no deviation.
        if found >> 127 == 1 { 0 } else { found }
    }

    /// num / den, in grid units squared.
    pub fn variance_units(&self, grid: &Grid, ddof: i32) -> f64 {
        let n = self.n as u128;
        u128_to_f64(self.numerator(grid)) / u128_to_f64(n.wrapping_mul(n.wrapping_sub(ddof as u128)))
    }
}

/// Adds the elements of a slice on a grid of `STEP_BITS`, and q of element t to `columns[t]` where columns are given.
pub fn sums_narrow(simd: Simd, grid: &Grid, xs: &[f32], columns: &mut [i64], sums: &mut Sums) {
    match simd {
        // SAFETY: `Simd::Avx2` is only made where the processor has AVX2.
        #[cfg(target_arch = "x86_64")]
        Simd::Avx2 | Simd::Avx512 => unsafe { super::sums_avx2::sums_narrow(grid, xs, columns, sums) },
        _ => {
            for (t, x) in xs.iter().enumerate() {
                let q = grid.quantize(*x);
                if !columns.is_empty() {
                    columns[t] += q;
                }
                let square = ((q as i32 as i64) * (q as i32 as i64)) as u64;
                sums.n += 1;
                sums.q += q;
                sums.hi += (square >> STEP_BITS) as i64;
                sums.lo += (square & ((1 << STEP_BITS) - 1)) as i64;
            }
        }
    }
}

/// Adds elements of any grid with weights, counting those at the extremes (leave-one-out deviations compare with them).
pub fn sums_wide(grid: &Grid, xs: &[f32], weights: Option<&[u32]>, extremes: &Extremes, sums: &mut Sums) {
    let (max, min) = (extremes.max_value(), extremes.min_value());
    for (i, x) in xs.iter().enumerate() {
        let weight = weights.map_or(1, |w| w[i] as i64);
        sums.push(grid, grid.quantize(*x), weight);
        sums.at_max += if *x == max { weight } else { 0 };
        sums.at_min += if *x == min { weight } else { 0 };
    }
}

/// `extremes` of a few elements.
pub fn few_extremes(simd: Simd, xs: &[f32]) -> Extremes {
    match simd {
        // SAFETY: `Simd::Avx2` is only made where the processor has AVX2.
        #[cfg(target_arch = "x86_64")]
        Simd::Avx2 | Simd::Avx512 => unsafe { super::sums_avx2::few_extremes(xs) },
        _ => extremes(simd, xs),
    }
}

/// `sums_wide` of elements that count once each; the limbs may divide the same sum of squares otherwise.
pub fn sums_wide_of(simd: Simd, grid: &Grid, xs: &[f32], extremes: &Extremes, sums: &mut Sums) {
    match simd {
        // SAFETY: as above.
        #[cfg(target_arch = "x86_64")]
        Simd::Avx2 | Simd::Avx512 if grid.bits <= ROLLOUT_BITS && xs.len() < 1 << 17 => unsafe { super::sums_avx2::sums_wide(grid, xs, extremes, sums) },
        _ => sums_wide(grid, xs, None, extremes, sums),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stats(xs: &[f32], bits: i32) -> (Extremes, Grid, Sums) {
        let e = extremes(Simd::Baseline, xs);
        let grid = Grid::new(bits, e.absmax);
        let mut sums = Sums::default();
        sums_wide(&grid, xs, None, &e, &mut sums);
        (e, grid, sums)
    }

    #[test]
    fn exponent_is_frexp() {
        for (x, e) in [(1.0f32, 1), (0.5, 0), (0.75, 0), (2.0, 2), (f32::MIN_POSITIVE, -125), (f32::from_bits(1), -148), (f32::MAX, 128)] {
            assert_eq!(exponent(x.to_bits() as i32), e, "{x:e}");
        }
    }

    #[test]
    fn keys_order_values_and_join_zeros() {
        let xs = [-f32::MAX, -1.0, -f32::from_bits(1), 0.0, f32::from_bits(1), 1.0, f32::MAX];
        for pair in xs.windows(2) {
            assert!(key(pair[0]) < key(pair[1]));
        }
        assert_eq!(key(-0.0), key(0.0));
        assert!(stats(&[0.0, -0.0], 30).0.all_equal());
        assert!(!stats(&[0.0, f32::from_bits(1)], 30).0.all_equal());
    }

    #[test]
    fn rint_rounds_ties_to_even() {
        let grid = Grid { bits: 30, up: 1.0, down: 1.0 };
        for (x, q) in [(0.5, 0), (1.5, 2), (2.5, 2), (-0.5, 0), (-1.5, -2), (-2.5, -2), (7.0, 7)] {
            assert_eq!(grid.quantize(x), q, "{x}");
        }
    }

    #[test]
    fn narrow_wide_and_every_slicing_agree() {
        let xs: Vec<f32> = (0..1003).map(|i| ((i * 7919) % 1009) as f32 * 0.37 - 150.0).collect();
        let (e, grid, wide) = stats(&xs, STEP_BITS);
        for simd in [Simd::Baseline, Simd::best()] {
            assert_eq!(extremes(simd, &xs), e);
            let mut columns = vec![0i64; xs.len()];
            let mut parts = Sums::default();
            for part in xs.chunks(97) {
                sums_narrow(simd, &grid, part, &mut [], &mut parts);
            }
            let mut with_columns = Sums::default();
            sums_narrow(simd, &grid, &xs, &mut columns, &mut with_columns);
            let plain = Sums { at_max: 0, at_min: 0, ..wide };
            assert_eq!((parts, with_columns), (plain, plain));
            assert_eq!(columns.iter().sum::<i64>(), wide.q);
        }
    }

    #[test]
    fn few_elements_in_vectors_have_the_sums_of_one_by_one() {
        let mut seed = 11u64;
        let mut next = move || {
            seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (seed >> 33) as usize
        };
        for case in 0..4000 {
            let n = 1 + next() % if case % 9 == 0 { 300 } else { 20 };
            let kinds = [1.0f32, -1.0, 0.0, -0.0, 0.5, 3e38, -3e38, 1e-44, 7.25, 1e-3];
            let mut xs: Vec<f32> = (0..n).map(|_| if case % 2 == 0 { kinds[next() % kinds.len()] } else { (next() % 100_000) as f32 * 0.37 - 9000.0 }).collect();
            if case % 50 == 0 {
                xs[next() % n] = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY][next() % 3];
            }
            let mut one = Extremes::EMPTY;
            xs.iter().for_each(|x| one.push(*x));
            let few = few_extremes(Simd::best(), &xs);
            assert_eq!(few.absmax, one.absmax, "{xs:?}");
            if few.is_bad() {
                continue;
            }
            assert_eq!(few, one, "{xs:?}");
            for bits in [STEP_BITS, ROLLOUT_BITS] {
                let grid = Grid::new(bits, one.absmax);
                let (mut a, mut b) = (Sums::default(), Sums::default());
                sums_wide(&grid, &xs, None, &one, &mut a);
                sums_wide_of(Simd::best(), &grid, &xs, &one, &mut b);
                assert_eq!((a.n, a.q, a.at_max, a.at_min, a.numerator(&grid)), (b.n, b.q, b.at_max, b.at_min, b.numerator(&grid)), "{bits} {xs:?}");
            }
        }
    }

    #[test]
    fn mean_and_deviation_against_f64() {
        let xs: Vec<f32> = (0..500).map(|i| (i as f32 * 0.1).sin() * 3.0 + 1.0).collect();
        for bits in [STEP_BITS, ROLLOUT_BITS] {
            let (_, grid, sums) = stats(&xs, bits);
            let n = xs.len() as f64;
            let mean = xs.iter().map(|x| *x as f64).sum::<f64>() / n;
            let std = (xs.iter().map(|x| (*x as f64 - mean).powi(2)).sum::<f64>() / (n - 1.0)).sqrt();
            let got = sums.variance_units(&grid, 1).sqrt() * grid.down;
            assert!((sums.mean(&grid) - mean).abs() < 1e-9 && (got - std).abs() < 1e-8, "{bits}: {} {mean} {got} {std}", sums.mean(&grid));
        }
    }

    #[test]
    fn leaving_out_is_exact() {
        let xs = [3.5f32, -1.25, 7.0, 7.0, 0.125];
        let (e, grid, all) = stats(&xs, ROLLOUT_BITS);
        for i in 0..xs.len() {
            let others: Vec<f32> = xs.iter().enumerate().filter(|(j, _)| *j != i).map(|(_, x)| *x).collect();
            let (mut direct, mut own) = (Sums::default(), Sums::default());
            sums_wide(&grid, &others, None, &e, &mut direct);
            sums_wide(&grid, &xs[i..=i], None, &e, &mut own);
            let left = all.without(&own);
            assert_eq!((left.n, left.q, left.numerator(&grid)), (direct.n, direct.q, direct.numerator(&grid)));
        }
    }
}
