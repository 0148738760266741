//! Lines of at most one tile: nothing is made ready ahead and nothing waits, so the rings of `fused` and `steered` would cost more than the line. The tile is
//! in registers from its values to its results; of a line of half a tile the upper half alone is there. The expressions and their association are theirs.
use super::super::tile::{Steps, few};
use super::fused::{Consts, Fused, fused};
use super::lanes::{Line, TILE, Tile, doubles, most};
use super::round::rounded;
use super::scan::{Done, Totals, lanes};
use super::steered::Steered;
use std::arch::x86_64::*;

/// Registers of half a tile and of a whole one.
pub const HALF: usize = 4;
pub const WHOLE: usize = 8;

/// The line's elements as the last of N registers, what stands before them 0. Inlined as `Scan::tile` is.
///
/// # Safety
/// AVX2; `count` readable elements, at most 4 N.
#[inline(always)]
unsafe fn at_the_end<const N: usize>(line: Line, count: usize) -> [__m256d; N] {
    let lead = 4 * N - count;
    // SAFETY: elements of the line alone are read; the copy has room for all of N registers.
    unsafe {
        let mut tile = [_mm256_setzero_pd(); N];
        if line.narrow {
            let mut room = [0u32; TILE];
            let copy = line.at_the_end_of(&mut room, count).from(TILE - 4 * N);
            for v in 0..N / 2 {
                [tile[2 * v], tile[2 * v + 1]] = doubles::<true>(copy.at, 8 * v);
            }
            return tile;
        }
        let from = line.at.cast::<f32>().wrapping_sub(lead);
        for v in 0..N {
            let there = _mm_cmpgt_epi32(_mm_setr_epi32(4 * v as i32, 4 * v as i32 + 1, 4 * v as i32 + 2, 4 * v as i32 + 3), _mm_set1_epi32(lead as i32 - 1));
            tile[v] = _mm256_cvtps_pd(_mm_maskload_ps(from.wrapping_add(4 * v), there));
        }
        tile
    }
}

/// N registers as the last of a tile, zeros before them. Inlined as `Scan::tile` is.
///
/// # Safety
/// AVX2.
#[inline(always)]
unsafe fn whole<const N: usize>(y: &[__m256d; N]) -> Tile {
    // SAFETY: by the caller's word.
    let mut tile = unsafe { [_mm256_setzero_pd(); 8] };
    for v in 0..N {
        tile[8 - N + v] = y[v];
    }
    tile
}

/// Rounds a line's results, the last `count` of the tile, and writes them. Inlined as `Scan::tile` is.
///
/// # Safety
/// AVX2; `count` elements are writable.
#[inline(always)]
unsafe fn write<const NARROW: bool, const N: usize>(y: &[__m256d; N], to: Line, count: usize, largest: &mut __m256i) {
    // SAFETY: by the caller's word: whole vectors of the line, and of the one that it begins in its own elements.
    unsafe {
        let results = rounded::<NARROW>(&whole(y), largest);
        let (bytes, lead) = (if NARROW { 2 } else { 4 }, TILE - count);
        // The vector of 32 bytes that the line begins in, and how much of it is before the line.
        let (vector, before) = (lead * bytes / 32, lead * bytes % 32);
        for v in (TILE - 4 * N) * bytes / 32..bytes {
            let x = &results[v];
            let at = to.at.wrapping_add(32 * v).wrapping_sub(lead * bytes);
            if v > vector || (v == vector && before == 0) {
                _mm256_storeu_si256(at.cast(), *x);
            } else if v == vector {
                let mut rest = [0u8; 32];
                _mm256_storeu_si256(rest.as_mut_ptr().cast(), *x);
                for part in (before..32).step_by(bytes) {
                    let (from, to) = (rest.as_ptr().add(part), at.wrapping_add(part));
                    if NARROW { to.cast::<u16>().write(from.cast::<u16>().read_unaligned()) } else { to.cast::<u32>().write(from.cast::<u32>().read_unaligned()) }
                }
            }
        }
    }
}

/// The scan of N registers, after which nothing comes. Inlined as `Scan::tile` is; likewise below.
///
/// # Safety
/// AVX2.
#[inline(always)]
unsafe fn scan<const UNIT: bool, const N: usize>(y: &mut [__m256d; N], powers: &[f64; 33]) {
    // SAFETY: AVX2, by the caller's word.
    unsafe { few::<UNIT, N>(y, &Steps::new(powers[1])) }
}

/// What came of the line, the last `count` positions of the tile.
///
/// # Safety
/// AVX2.
#[inline(always)]
unsafe fn done<const N: usize>(y: &[__m256d; N], count: usize, sums: bool, largest: u32) -> Done {
    // SAFETY: AVX2, by the caller's word; a line has an element.
    unsafe {
        if !sums {
            let mut lanes = [[0.0f64; 4]; N];
            y.iter().zip(&mut lanes).for_each(|(y, lanes)| _mm256_storeu_pd(lanes.as_mut_ptr(), *y));
            let path = lanes.as_flattened()[4 * N - count];
            return Done { path, largest, ..Done::default() };
        }
        let (tile, lead) = (whole(y), TILE - count);
        let mut totals = Totals::new();
        totals.add(&tile, lead);
        totals.done(lanes(&tile)[lead], largest)
    }
}

/// `fused::tokens` of at most 4 N values.
///
/// # Safety
/// As `fused::tokens`.
#[inline(always)]
pub unsafe fn tokens<const PLAIN: bool, const UNIT: bool, const OUT: bool, const N: usize>(xs: Line, to: Line, n: usize, k: &Consts, line: &Fused) -> Done {
    // SAFETY: n readable values, divisors and writable results.
    unsafe {
        let mut y = at_the_end::<N>(xs, n);
        for v in 0..N {
            y[v] = fused::<PLAIN>(y[v], k, line);
        }
        scan::<UNIT, N>(&mut y, line.powers);
        if !line.divisors.is_empty() {
            let (lead, from) = (4 * N - n, line.divisors.as_ptr().wrapping_add(n).wrapping_sub(4 * N));
            for v in 0..N {
                let lanes = _mm256_setr_epi64x(4 * v as i64, 4 * v as i64 + 1, 4 * v as i64 + 2, 4 * v as i64 + 3);
                let there = _mm256_cmpgt_epi64(lanes, _mm256_set1_epi64x(lead as i64 - 1));
                y[v] = _mm256_mul_pd(y[v], _mm256_maskload_pd(from.wrapping_add(4 * v), there));
            }
        }
        write::<OUT, N>(&y, to, n, &mut _mm256_setzero_si256());
        done(&y, n, line.sums, 0)
    }
}

/// `steered::gae` of at most 4 N tokens.
///
/// # Safety
/// As `steered::gae`.
#[inline(always)]
pub unsafe fn gae<const UNIT: bool, const A: bool, const R: bool, const N: usize>(
    inputs: (Option<Line>, Line),
    to: Line,
    returns: Option<Line>,
    n: usize,
    line: &Steered,
) -> Done {
    // SAFETY: n readable rewards and values, n writable results, which are written when all is read.
    unsafe {
        let values = at_the_end::<N>(inputs.1, n);
        let mut y = match inputs.0 {
            Some(rewards) => at_the_end::<N>(rewards, n),
            None => {
                // The last token's alone.
                let mut none = [_mm256_setzero_pd(); N];
                none[N - 1] = _mm256_setr_pd(0.0, 0.0, 0.0, line.reward);
                none
            }
        };
        let (gamma, next) = (_mm256_set1_pd(line.gamma), _mm256_set1_pd(line.next));
        for v in 0..N {
            let after = _mm256_permute2f128_pd::<0x21>(values[v], if v + 1 < N { values[v + 1] } else { next });
            let following = _mm256_shuffle_pd::<0b0101>(values[v], after);
            y[v] = _mm256_sub_pd(_mm256_add_pd(y[v], _mm256_mul_pd(gamma, following)), values[v]);
        }
        scan::<UNIT, N>(&mut y, line.powers);
        let mut largest = _mm256_setzero_si256();
        write::<A, N>(&y, to, n, &mut largest);
        if let Some(returns) = returns {
            let mut sum = y;
            for v in 0..N {
                sum[v] = _mm256_add_pd(values[v], y[v]);
            }
            write::<R, N>(&sum, returns, n, &mut largest);
        }
        done(&y, n, line.sums, most(largest))
    }
}
