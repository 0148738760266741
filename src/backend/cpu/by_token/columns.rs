//! Statistics of a group's tokens and of its positions in one pass (numerics contract 5.3, 5.4): rollouts side by side, the longest first, eight positions
//! at a time, sums in registers. Integers add in any order.
use super::lanes::Line;
use crate::backend::cpu::chunk::{RUNS, Run, Runs};
use crate::numerics::exact::{STEP_BITS, Sums, power_of_two};
use std::arch::x86_64::*;

/// Rollouts of one pass.
pub const TOGETHER: usize = RUNS;

/// A rollout's tokens in scope.
#[derive(Clone, Copy)]
pub struct Tokens {
    pub line: Line,
    pub count: usize,
}

impl Tokens {
    pub const NONE: Tokens = Tokens { line: Line::NONE, count: 0 };
}

/// Exponents whose grids f32 has: 2^(30 - e) is a normal one.
pub fn in_f32(exponent: i32) -> bool {
    (-90..=128).contains(&exponent)
}

/// Positions of one step: of f32 those of a line of the caches.
const STEP: usize = 16;

/// How many positions before it is read a line is asked for.
const SOON: usize = 96;

/// Vectors of a step.
const VECTORS: usize = STEP / 8;

/// Squares that fit in 64 bits: |q| <= 2^30 - 64, as 24 bits of f32 stand on a grid of 30.
const SQUARES: usize = 16;

/// Rollouts between which squares are split.
const SPLIT: usize = SQUARES / VECTORS;

struct Pass {
    up: __m256,
    largest: __m256i,
    /// Pairs of sums, even and odd lanes, of q with 2^31 added.
    both: [__m256i; VECTORS],
    odd: [__m256i; VECTORS],
    /// Sums of at most `SQUARES` squares.
    squares: [__m256i; 2],
    limbs: [__m256i; 2],
}

impl Pass {
    /// q of eight values, which the largest and the sums of squares take in. Always inlined, into functions that have AVX2; likewise below.
    ///
    /// # Safety
    /// AVX2.
    #[inline(always)]
    unsafe fn quantized(&mut self, x: __m256) -> __m256i {
        // SAFETY: by the caller's word.
        unsafe {
            self.largest = _mm256_max_epu32(self.largest, _mm256_and_si256(_mm256_castps_si256(x), _mm256_set1_epi32(i32::MAX)));
            // A product by a power of two is exact, or far below the half that would round to 1.
            let q = _mm256_cvtps_epi32(_mm256_mul_ps(x, self.up));
            let other = _mm256_srli_epi64::<32>(q);
            self.squares[0] = _mm256_add_epi64(self.squares[0], _mm256_mul_epi32(q, q));
            self.squares[1] = _mm256_add_epi64(self.squares[1], _mm256_mul_epi32(other, other));
            q
        }
    }

    /// Adds q of eight positions, of one rollout or of two together, to their sums.
    ///
    /// # Safety
    /// AVX2.
    #[inline(always)]
    unsafe fn add(&mut self, q: __m256i, v: usize) {
        // SAFETY: by the caller's word.
        unsafe {
            let raised = _mm256_xor_si256(q, _mm256_set1_epi32(i32::MIN));
            self.both[v] = _mm256_add_epi64(self.both[v], raised);
            self.odd[v] = _mm256_add_epi64(self.odd[v], _mm256_srli_epi64::<32>(raised));
        }
    }

    /// Squares into limbs.
    ///
    /// # Safety
    /// AVX2.
    #[inline(always)]
    unsafe fn split(&mut self) {
        // SAFETY: by the caller's word.
        unsafe {
            let low = _mm256_set1_epi64x((1 << STEP_BITS) - 1);
            for s in &mut self.squares {
                self.limbs[0] = _mm256_add_epi64(self.limbs[0], _mm256_srli_epi64::<STEP_BITS>(*s));
                self.limbs[1] = _mm256_add_epi64(self.limbs[1], _mm256_and_si256(*s, low));
                *s = _mm256_setzero_si256();
            }
        }
    }
}

/// The runs of rollouts, the longest first; how many there are.
pub fn runs(rollouts: &[Tokens], to: &mut [Run; TOGETHER]) -> usize {
    let mut found = 0;
    for (i, r) in rollouts.iter().enumerate().rev() {
        let begin = if found == 0 { 0 } else { to[found - 1].end };
        if r.count > begin {
            to[found] = Run { end: r.count, live: i as i64 + 1 };
            found += 1;
        }
    }
    found
}

/// Counts of rollouts, the longest first, added to `live`.
pub fn count(rollouts: &[Tokens], live: &mut [i64]) {
    let mut list = Runs::NONE.list;
    let found = runs(rollouts, &mut list);
    let mut begin = 0;
    for run in &list[..found] {
        live[begin..run.end].iter_mut().for_each(|n| *n += run.live);
        begin = run.end;
    }
}

/// The bits of the largest magnitude of the first `count` elements.
///
/// # Safety
/// AVX2; they are readable.
#[target_feature(enable = "avx2")]
pub unsafe fn largest(line: Line, count: usize) -> u32 {
    let (mut most, mut t) = (_mm256_setzero_si256(), 0);
    // SAFETY: elements below `count`.
    unsafe {
        while t + 8 <= count {
            most = _mm256_max_epu32(most, _mm256_and_si256(_mm256_castps_si256(line.eight(t)), _mm256_set1_epi32(i32::MAX)));
            t += 8;
        }
        (t..count).fold(super::lanes::most(most), |most, t| most.max(line.one(t).to_bits() & !(1 << 31)))
    }
}

/// Adds rollouts (at most `TOGETHER`, the longest first) to the columns and the sums, on the grid of `exponent`; returns the bits of max|x|. Where that has
/// another exponent all of it is void. `fresh`: the columns that they reach are written, not added to.
///
/// # Safety
/// AVX2; the tokens are readable, and of one type.
#[target_feature(enable = "avx2")]
pub unsafe fn add(rollouts: &[Tokens], exponent: i32, fresh: bool, columns: &mut [i64], sums: &mut Sums) -> u32 {
    // SAFETY: passed on.
    unsafe {
        match rollouts.first() {
            None => 0,
            Some(first) if first.line.narrow => add_as::<true>(rollouts, exponent, fresh, columns, sums),
            _ => add_as::<false>(rollouts, exponent, fresh, columns, sums),
        }
    }
}

/// Eight elements of f32 or of bf16 (`NARROW`). Inlined as `Pass::add` is.
///
/// # Safety
/// AVX2; elements i .. i + 8 are readable.
#[inline(always)]
unsafe fn eight<const NARROW: bool>(at: *const u8, i: usize) -> __m256 {
    // SAFETY: by the caller's word.
    unsafe {
        if NARROW {
            let x = _mm256_cvtepu16_epi32(_mm_loadu_si128(at.cast::<u16>().add(i).cast()));
            _mm256_castsi256_ps(_mm256_slli_epi32::<16>(x))
        } else {
            _mm256_loadu_ps(at.cast::<f32>().add(i))
        }
    }
}

/// The first `count` (at most `STEP`) elements, zeros after them. Inlined as `Pass::add` is.
///
/// # Safety
/// AVX2; elements i .. i + count are readable.
#[inline(always)]
unsafe fn some<const NARROW: bool>(line: Line, i: usize, count: usize) -> [__m256; VECTORS] {
    // SAFETY: by the caller's word.
    unsafe {
        if !NARROW {
            let lanes = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
            return std::array::from_fn(|v| {
                let there = _mm256_cmpgt_epi32(_mm256_set1_epi32(count as i32 - 8 * v as i32), lanes);
                _mm256_maskload_ps(line.at.cast::<f32>().wrapping_add(i + 8 * v), there)
            });
        }
        let mut rest = [0.0f32; STEP];
        rest.iter_mut().enumerate().take(count).for_each(|(lane, x)| *x = line.one(i + lane));
        std::array::from_fn(|v| _mm256_loadu_ps(rest.as_ptr().add(8 * v)))
    }
}

#[target_feature(enable = "avx2")]
unsafe fn add_as<const NARROW: bool>(rollouts: &[Tokens], exponent: i32, fresh: bool, columns: &mut [i64], sums: &mut Sums) -> u32 {
    let zero = _mm256_setzero_si256();
    let longest = rollouts.first().map_or(0, |r| r.count);
    let mut lines = [std::ptr::null(); TOGETHER];
    lines.iter_mut().zip(rollouts).for_each(|(line, r)| *line = r.line.at.cast_const());
    let (mut full, mut alive) = (rollouts.len(), rollouts.len());
    let up = power_of_two(STEP_BITS - exponent) as f32;
    let mut pass = Pass { up: _mm256_set1_ps(up), largest: zero, both: [zero; VECTORS], odd: [zero; VECTORS], squares: [zero; 2], limbs: [zero; 2] };
    let mut total = zero;
    let columns = &mut columns[..longest];
    let mut t = 0;
    while t < longest {
        while rollouts[alive - 1].count <= t {
            alive -= 1;
        }
        full = full.min(alive);
        while full > 0 && rollouts[full - 1].count < t + STEP {
            full -= 1;
        }
        if full == alive {
            // Whole steps, as long as no rollout ends.
            let (lines, end) = (&lines[..full], rollouts[full - 1].count);
            let raise = _mm256_set1_epi64x((full.div_ceil(2) as i64) << 31);
            while t + STEP <= end {
                // SAFETY: t + STEP <= the counts; as many columns.
                unsafe {
                    step::<NARROW>(&mut pass, lines, t);
                    put(&found(&mut pass, raise, &mut total), columns.as_mut_ptr().add(t), fresh);
                }
                t += STEP;
            }
            continue;
        }
        // SAFETY: of the first ones t + STEP <= the counts, of the others the elements from t on, below their counts.
        let found = unsafe {
            step::<NARROW>(&mut pass, &lines[..full], t);
            for r in &rollouts[full..alive] {
                for (v, x) in some::<NARROW>(r.line, t, r.count - t).iter().enumerate() {
                    let q = pass.quantized(*x);
                    pass.add(q, v);
                }
                pass.split();
            }
            found(&mut pass, _mm256_set1_epi64x(((full.div_ceil(2) + alive - full) as i64) << 31), &mut total)
        };
        let mut lanes = [0i64; STEP];
        // SAFETY: a step's elements.
        unsafe { put(&found, lanes.as_mut_ptr(), true) };
        columns[t..].iter_mut().zip(lanes).for_each(|(c, lane)| *c = if fresh { lane } else { *c + lane });
        t += STEP;
    }
    let sum = |x: __m256i| {
        let mut lanes = [0i64; 4];
        // SAFETY: 32 bytes.
        unsafe { _mm256_storeu_si256(lanes.as_mut_ptr().cast(), x) };
        lanes.iter().fold(0i64, |a, b| a.wrapping_add(*b))
    };
    sums.n += rollouts.iter().map(|r| r.count as i64).sum::<i64>();
    sums.q = sums.q.wrapping_add(sum(total));
    sums.hi = sums.hi.wrapping_add(sum(pass.limbs[0]));
    sums.lo = sums.lo.wrapping_add(sum(pass.limbs[1]));
    super::lanes::most(pass.largest)
}

/// A step of rollouts that all reach its end, two by two: the sum of two q fits in 32 bits. Inlined as `Pass::add` is; likewise below.
///
/// # Safety
/// AVX2; elements t .. t + STEP of each are readable.
#[inline(always)]
unsafe fn step<const NARROW: bool>(pass: &mut Pass, lines: &[*const u8], t: usize) {
    // SAFETY: by the caller's word.
    unsafe {
        // As many lines at a time as there are rollouts: more than the processor follows.
        let soon = |line: *const u8| _mm_prefetch::<_MM_HINT_T0>(line.wrapping_add((t + SOON) * if NARROW { 2 } else { 4 }).cast());
        for some in lines.chunks(SPLIT) {
            let mut pairs = some.chunks_exact(2);
            for pair in &mut pairs {
                soon(pair[0]);
                soon(pair[1]);
                for v in 0..VECTORS {
                    let (a, b) = (pass.quantized(eight::<NARROW>(pair[0], t + 8 * v)), pass.quantized(eight::<NARROW>(pair[1], t + 8 * v)));
                    pass.add(_mm256_add_epi32(a, b), v);
                }
            }
            for line in pairs.remainder() {
                soon(*line);
                for v in 0..VECTORS {
                    let q = pass.quantized(eight::<NARROW>(*line, t + 8 * v));
                    pass.add(q, v);
                }
            }
            pass.split();
        }
    }
}

/// The sums of a step's positions, back from the raised ones, which are 0 again: of each eight those of 0, 1, 4, 5 and of 2, 3, 6, 7.
///
/// # Safety
/// AVX2.
#[inline(always)]
unsafe fn found(pass: &mut Pass, raise: __m256i, total: &mut __m256i) -> [__m256i; 2 * VECTORS] {
    // SAFETY: by the caller's word.
    unsafe {
        let zero = _mm256_setzero_si256();
        let mut found = [zero; 2 * VECTORS];
        for v in 0..VECTORS {
            let even = _mm256_sub_epi64(_mm256_sub_epi64(pass.both[v], _mm256_slli_epi64::<32>(pass.odd[v])), raise);
            let odd = _mm256_sub_epi64(pass.odd[v], raise);
            (found[2 * v], found[2 * v + 1]) = (_mm256_unpacklo_epi64(even, odd), _mm256_unpackhi_epi64(even, odd));
            *total = _mm256_add_epi64(*total, _mm256_add_epi64(even, odd));
        }
        (pass.both, pass.odd) = ([zero; VECTORS], [zero; VECTORS]);
        found
    }
}

/// What was `found` of a step, in the positions' order.
///
/// # Safety
/// AVX2; `STEP` elements are readable and writable.
#[inline(always)]
unsafe fn put(found: &[__m256i; 2 * VECTORS], to: *mut i64, fresh: bool) {
    // SAFETY: by the caller's word.
    unsafe {
        for v in 0..VECTORS {
            let (a, b) = (found[2 * v], found[2 * v + 1]);
            let halves = [_mm256_castsi256_si128(a), _mm256_castsi256_si128(b), _mm256_extracti128_si256::<1>(a), _mm256_extracti128_si256::<1>(b)];
            for (part, half) in halves.into_iter().enumerate() {
                let c = to.add(8 * v + 2 * part).cast::<__m128i>();
                _mm_storeu_si128(c, if fresh { half } else { _mm_add_epi64(_mm_loadu_si128(c), half) });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::numerics::exact::{Extremes, Grid, exponent};
    use crate::numerics::simd::Simd;

    /// As many rollouts as go together, all values as large as their exponent allows: no sum on the way is beyond its integer.
    #[test]
    fn the_largest_sums_fit() {
        if Simd::best() < Simd::Avx2 {
            println!("SKIPPED: no AVX2 on this processor");
            return;
        }
        for x in [1.0f32.next_down(), -1.0f32.next_down()] {
            let mut values = vec![x; 50];
            let line = Line::of_f32(&mut values);
            let (mut columns, mut live, mut sums) = (vec![0i64; 50], vec![0i64; 50], Sums::default());
            let all = [Tokens { line, count: 50 }; TOGETHER];
            // SAFETY: AVX2 is there; the tokens are the vector's.
            let most = unsafe { add(&all, 0, false, &mut columns, &mut sums) };
            count(&all, &mut live);
            let (grid, mut wanted) = (Grid::new(STEP_BITS, most as i32), Sums::default());
            wanted.push(&grid, grid.quantize(x), (50 * TOGETHER) as i64);
            assert_eq!((sums.n, sums.q, ((sums.hi as i128) << STEP_BITS) + sums.lo as i128), (wanted.n, wanted.q, ((wanted.hi as i128) << STEP_BITS) + wanted.lo as i128));
            assert!(columns.iter().all(|c| *c == grid.quantize(x) * TOGETHER as i64) && live.iter().all(|n| *n == TOGETHER as i64));
        }
    }

    /// Against the sums and columns one rollout after the other: lengths around whole vectors, more rollouts than a pass takes, both types.
    #[test]
    fn one_pass_is_rollout_after_rollout() {
        if Simd::best() < Simd::Avx2 {
            println!("SKIPPED: no AVX2 on this processor");
            return;
        }
        let mut seed = 5u64;
        let mut next = || {
            seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            seed >> 33
        };
        for case in 0..200 {
            let narrow = case % 2 == 1;
            let rollouts: Vec<Vec<f32>> = (0..1 + next() as usize % 40)
                .map(|_| {
                    (0..next() as usize % [3, 9, 40, 200][case % 4])
                        .map(|_| {
                            let x = (next() as f32 / 2f32.powi(31) - 0.4) * [1.0, 1e-12, 3e20, 1.0][case % 4];
                            if narrow { f32::from_bits(x.to_bits() & !0xffff) } else { x }
                        })
                        .collect()
                })
                .collect();
            let short: Vec<Vec<u16>> = rollouts.iter().map(|r| r.iter().map(|x| (x.to_bits() >> 16) as u16).collect()).collect();
            let mut extremes = Extremes::EMPTY;
            rollouts.iter().flatten().for_each(|x| extremes.push(*x));
            let longest = rollouts.iter().map(Vec::len).max().unwrap_or(0);
            let mut wanted = (vec![0i64; longest], vec![0i64; longest], Sums::default());
            let grid = Grid::new(STEP_BITS, extremes.absmax);
            for (t, x) in rollouts.iter().flat_map(|r| r.iter().enumerate()) {
                wanted.0[t] += grid.quantize(*x);
                wanted.1[t] += 1;
                wanted.2.push(&grid, grid.quantize(*x), 1);
            }
            let mut all: Vec<Tokens> = (0..rollouts.len())
                .map(|i| {
                    let at = if narrow { short[i].as_ptr().cast_mut().cast() } else { rollouts[i].as_ptr().cast_mut().cast() };
                    Tokens { line: Line { at, narrow }, count: rollouts[i].len() }
                })
                .filter(|r| r.count > 0)
                .collect();
            let mut got = (vec![0i64; longest], vec![0i64; longest], Sums::default());
            let mut most = 0;
            for (pass, some) in all.chunks_mut(TOGETHER).enumerate() {
                some.sort_by_key(|r| std::cmp::Reverse(r.count));
                // The first pass writes what it reaches.
                let fresh = pass == 0 && case % 3 > 0;
                got.0.iter_mut().take(if fresh { some[0].count } else { 0 }).for_each(|c| *c = -7);
                // SAFETY: AVX2 is there; the tokens are the vectors'.
                most = most.max(unsafe { add(some, exponent(extremes.absmax.max(1)), fresh, &mut got.0, &mut got.2) });
                count(some, &mut got.1);
            }
            assert_eq!(most as i32, extremes.absmax, "case {case}");
            assert_eq!((&got.0, &got.1), (&wanted.0, &wanted.1), "case {case}");
            assert_eq!((got.2.n, got.2.q, got.2.numerator(&grid)), (wanted.2.n, wanted.2.q, wanted.2.numerator(&grid)), "case {case}");
        }
    }
}
