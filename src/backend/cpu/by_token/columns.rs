//! Statistics of a group's tokens and of its positions in one pass (numerics contract 5.3, 5.4): rollouts side by side, the longest first, eight positions
//! at a time, sums in registers. Integers add in any order.
use super::lanes::Line;
use crate::backend::cpu::chunk::{RUNS, Run, Runs};
use crate::numerics::exact::{STEP_BITS, Sums, power_of_two};
use std::arch::x86_64::*;

/// Rollouts of one pass.
pub const TOGETHER: usize = RUNS;
const _: () = assert!(TOGETHER == crate::plan::workspace::TOGETHER);

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

struct Pass {
    up: __m256,
    largest: __m256i,
    /// Pairs of sums, even and odd lanes, of q with 2^31 added.
    both: [__m256i; VECTORS],
    odd: [__m256i; VECTORS],
    /// Sums of at most eight squares.
    squares: [__m256i; 2],
    limbs: [__m256i; 2],
}

impl Pass {
    /// Always inlined, into functions that have AVX2; likewise below.
    ///
    /// # Safety
    /// AVX2.
    #[inline(always)]
    unsafe fn add(&mut self, x: __m256, v: usize) {
        // SAFETY: by the caller's word.
        unsafe {
            self.largest = _mm256_max_epu32(self.largest, _mm256_and_si256(_mm256_castps_si256(x), _mm256_set1_epi32(i32::MAX)));
            // A product by a power of two is exact, or far below the half that would round to 1.
            let q = _mm256_cvtps_epi32(_mm256_mul_ps(x, self.up));
            let raised = _mm256_xor_si256(q, _mm256_set1_epi32(i32::MIN));
            self.both[v] = _mm256_add_epi64(self.both[v], raised);
            self.odd[v] = _mm256_add_epi64(self.odd[v], _mm256_srli_epi64::<32>(raised));
            let other = _mm256_srli_epi64::<32>(q);
            self.squares[0] = _mm256_add_epi64(self.squares[0], _mm256_mul_epi32(q, q));
            self.squares[1] = _mm256_add_epi64(self.squares[1], _mm256_mul_epi32(other, other));
        }
    }

    /// Squares into limbs: |q| <= 2^30, so eight of them fit in 64 bits.
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
        (pass.both, pass.odd) = ([zero; VECTORS], [zero; VECTORS]);
        for four in rollouts[..full].chunks(8 / VECTORS) {
            for r in four {
                // As many lines at a time as there are rollouts: more than the processor follows.
                _mm_prefetch::<_MM_HINT_T0>(r.line.at.wrapping_add((t + SOON) * if NARROW { 2 } else { 4 }).cast());
                for v in 0..VECTORS {
                    // SAFETY: t + STEP <= its count.
                    unsafe { pass.add(eight::<NARROW>(r.line.at, t + 8 * v), v) };
                }
            }
            // SAFETY: AVX2.
            unsafe { pass.split() };
        }
        for r in &rollouts[full..alive] {
            // SAFETY: the elements from t on, below its count.
            unsafe {
                for (v, x) in some::<NARROW>(r.line, t, r.count - t).iter().enumerate() {
                    pass.add(*x, v);
                }
                pass.split();
            }
        }
        // Back from the raised sums to those of q, in the positions' order.
        let raise = _mm256_set1_epi64x((alive as i64) << 31);
        let mut found = [zero; 2 * VECTORS];
        for v in 0..VECTORS {
            let even = _mm256_sub_epi64(_mm256_sub_epi64(pass.both[v], _mm256_slli_epi64::<32>(pass.odd[v])), raise);
            let odd = _mm256_sub_epi64(pass.odd[v], raise);
            let (a, b) = (_mm256_unpacklo_epi64(even, odd), _mm256_unpackhi_epi64(even, odd));
            (found[2 * v], found[2 * v + 1]) = (_mm256_permute2x128_si256::<0x20>(a, b), _mm256_permute2x128_si256::<0x31>(a, b));
            total = _mm256_add_epi64(total, _mm256_add_epi64(a, b));
        }
        if t + STEP <= longest {
            for (part, found) in found.iter().enumerate() {
                // SAFETY: four elements, below t + STEP.
                unsafe {
                    let c = columns.as_mut_ptr().add(t + 4 * part).cast::<__m256i>();
                    _mm256_storeu_si256(c, if fresh { *found } else { _mm256_add_epi64(_mm256_loadu_si256(c), *found) });
                }
            }
        } else {
            let mut lanes = [0i64; STEP];
            for (part, found) in found.iter().enumerate() {
                // SAFETY: four elements.
                unsafe { _mm256_storeu_si256(lanes.as_mut_ptr().add(4 * part).cast(), *found) };
            }
            columns[t..].iter_mut().zip(lanes).for_each(|(c, lane)| *c = if fresh { lane } else { *c + lane });
        }
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
