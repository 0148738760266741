//! `exact::sums_narrow` in AVX2: the compiler finds the vectors of these loops only in part. Integers: the order does not matter.
#![cfg(target_arch = "x86_64")]
use super::exact::{Extremes, Grid, INFINITE, MAGIC, NAN, STEP_BITS, Sums, key};
use std::arch::x86_64::*;

/// Adds the elements of `xs` on a grid of `STEP_BITS`; element t's q also to `columns[t]`, where columns are given.
#[target_feature(enable = "avx2")]
pub fn sums_narrow(grid: &Grid, xs: &[f32], columns: &mut [i64], sums: &mut Sums) {
    if columns.is_empty() {
        add::<false>(grid, xs, columns, sums);
    } else {
        add::<true>(grid, xs, &mut columns[..xs.len()], sums);
    }
}

#[inline]
#[target_feature(enable = "avx2")]
fn add<const COLUMNS: bool>(grid: &Grid, xs: &[f32], columns: &mut [i64], sums: &mut Sums) {
    let (up, magic) = (_mm256_set1_pd(grid.up), _mm256_set1_pd(MAGIC));
    let magic_bits = _mm256_castpd_si256(magic);
    let mask = _mm256_set1_epi64x((1 << STEP_BITS) - 1);
    let zero = _mm256_setzero_si256();
    let (mut q, mut hi, mut lo) = ([zero; 2], [zero; 2], [zero; 2]);
    let whole = xs.len() / 8 * 8;
    let mut t = 0;
    while t < whole {
        for half in 0..2 {
            let at = t + 4 * half;
            // SAFETY: at + 4 <= xs.len(), which is the columns' length where they are given.
            let x = unsafe { _mm256_cvtps_pd(_mm_loadu_ps(xs.as_ptr().add(at))) };
            let rounded = _mm256_add_pd(_mm256_mul_pd(x, up), magic);
            let v = _mm256_sub_epi64(_mm256_castpd_si256(rounded), magic_bits);
            if COLUMNS {
                // SAFETY: as above.
                unsafe {
                    let column = columns.as_mut_ptr().add(at).cast::<__m256i>();
                    _mm256_storeu_si256(column, _mm256_add_epi64(_mm256_loadu_si256(column), v));
                }
            }
            // q is below 2^30 in magnitude: its low 32 bits are its value.
            let square = _mm256_mul_epi32(v, v);
            q[half] = _mm256_add_epi64(q[half], v);
            hi[half] = _mm256_add_epi64(hi[half], _mm256_srli_epi64::<STEP_BITS>(square));
            lo[half] = _mm256_add_epi64(lo[half], _mm256_and_si256(square, mask));
        }
        t += 8;
    }
    if !COLUMNS && t < xs.len() {
        let n = xs.len() - t;
        // SAFETY: lanes below n are read; the lanes of n elements are there for n from 0 to 8.
        let x = unsafe { _mm256_maskload_ps(xs.as_ptr().add(t), _mm256_loadu_si256(LANES.as_ptr().add(8 - n).cast())) };
        // Of lanes that are not there q is 0.
        for (half, x) in [_mm256_castps256_ps128(x), _mm256_extractf128_ps::<1>(x)].into_iter().enumerate() {
            let rounded = _mm256_add_pd(_mm256_mul_pd(_mm256_cvtps_pd(x), up), magic);
            let v = _mm256_sub_epi64(_mm256_castpd_si256(rounded), magic_bits);
            let square = _mm256_mul_epi32(v, v);
            q[half] = _mm256_add_epi64(q[half], v);
            hi[half] = _mm256_add_epi64(hi[half], _mm256_srli_epi64::<STEP_BITS>(square));
            lo[half] = _mm256_add_epi64(lo[half], _mm256_and_si256(square, mask));
        }
        sums.n += n as i64;
    }
    let total = |x: [__m256i; 2]| {
        let x = _mm256_add_epi64(x[0], x[1]);
        let x = _mm_add_epi64(_mm256_castsi256_si128(x), _mm256_extracti128_si256::<1>(x));
        _mm_cvtsi128_si64(x).wrapping_add(_mm_extract_epi64::<1>(x))
    };
    sums.n += whole as i64;
    sums.q += total(q);
    sums.hi += total(hi);
    sums.lo += total(lo);
    if COLUMNS {
        for t in whole..xs.len() {
            let v = grid.quantize(xs[t]);
            columns[t] += v;
            sums.push(grid, v, 1);
        }
    }
}

/// Ones and then zeros: 8 - n entries on, the lanes of n elements.
static LANES: [i32; 16] = [-1, -1, -1, -1, -1, -1, -1, -1, 0, 0, 0, 0, 0, 0, 0, 0];

/// `exact::extremes`: eight at a time, the last of them again where fewer are left.
#[target_feature(enable = "avx2")]
pub fn few_extremes(xs: &[f32]) -> Extremes {
    if xs.len() < 8 {
        let mut all = Extremes::EMPTY;
        xs.iter().for_each(|x| all.push(*x));
        return all;
    }
    let last = xs.len() - 8;
    // SAFETY: t + 8 <= xs.len() for t <= last.
    let eight = |t: usize| unsafe { _mm256_loadu_ps(xs.as_ptr().add(t.min(last))) };
    let magnitude = _mm256_castsi256_ps(_mm256_set1_epi32(i32::MAX));
    let mut max = eight(0);
    let (mut min, mut abs) = (max, _mm256_castps_si256(_mm256_and_ps(max, magnitude)));
    let mut t = 8;
    while t < xs.len() {
        let x = eight(t);
        max = _mm256_max_ps(max, x);
        min = _mm256_min_ps(min, x);
        abs = _mm256_max_epi32(abs, _mm256_castps_si256(_mm256_and_ps(x, magnitude)));
        t += 8;
    }
    // Numbers: of a set with a NaN only the largest bits are read.
    let fold = |x: __m256| _mm_max_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps::<1>(x));
    let most = |x: __m256| {
        let x = fold(x);
        let x = _mm_max_ps(x, _mm_movehl_ps(x, x));
        _mm_cvtss_f32(_mm_max_ss(x, _mm_shuffle_ps::<1>(x, x)))
    };
    let abs = {
        let x = _mm_max_epi32(_mm256_castsi256_si128(abs), _mm256_extracti128_si256::<1>(abs));
        let x = _mm_max_epi32(x, _mm_shuffle_epi32::<0b00_00_11_10>(x));
        _mm_cvtsi128_si32(_mm_max_epi32(x, _mm_shuffle_epi32::<1>(x)))
    };
    let negative = most(_mm256_xor_ps(min, _mm256_set1_ps(-0.0)));
    Extremes { absmax: if abs > INFINITE { NAN } else { abs }, max: key(most(max)), min: key(negative) }
}

/// `exact::sums_wide` of elements that count once: q = a 2^23 + b, whose products are below 2^46 in magnitude, so that fewer than
/// 2^17 of them add up.
#[target_feature(enable = "avx2")]
pub fn sums_wide(grid: &Grid, xs: &[f32], extremes: &Extremes, sums: &mut Sums) {
    const LOW: i32 = 23;
    let (up, magic) = (_mm256_set1_pd(grid.up), _mm256_set1_pd(MAGIC));
    let low = _mm256_set1_epi64x((1 << LOW) - 1);
    let (most, least) = (_mm256_set1_ps(extremes.max_value()), _mm256_set1_ps(extremes.min_value()));
    let zero = _mm256_setzero_si256();
    let (mut q, mut aa, mut ab, mut bb) = (zero, zero, zero, zero);
    let (mut at_max, mut at_min) = (0, 0);
    for t in (0..xs.len()).step_by(8) {
        let n = (xs.len() - t).min(8);
        // SAFETY: lanes below n are read; the lanes of n elements are there for n from 0 to 8.
        let (lanes, x) = unsafe {
            let lanes = _mm256_loadu_si256(LANES.as_ptr().add(8 - n).cast());
            (lanes, _mm256_maskload_ps(xs.as_ptr().add(t), lanes))
        };
        let count = |like: __m256| (_mm256_movemask_ps(_mm256_and_ps(_mm256_cmp_ps::<_CMP_EQ_OQ>(x, like), _mm256_castsi256_ps(lanes))) as u32).count_ones();
        at_max += count(most);
        at_min += count(least);
        // Of lanes that are not there q is 0.
        for half in [_mm256_castps256_ps128(x), _mm256_extractf128_ps::<1>(x)] {
            let rounded = _mm256_add_pd(_mm256_mul_pd(_mm256_cvtps_pd(half), up), magic);
            let v = _mm256_sub_epi64(_mm256_castpd_si256(rounded), _mm256_castpd_si256(magic));
            // Of a the low 32 bits are all: it is below 2^24 in magnitude.
            let (a, b) = (_mm256_srli_epi64::<LOW>(v), _mm256_and_si256(v, low));
            q = _mm256_add_epi64(q, v);
            aa = _mm256_add_epi64(aa, _mm256_mul_epi32(a, a));
            ab = _mm256_add_epi64(ab, _mm256_mul_epi32(a, b));
            bb = _mm256_add_epi64(bb, _mm256_mul_epi32(b, b));
        }
    }
    let total = |x: __m256i| {
        let x = _mm_add_epi64(_mm256_castsi256_si128(x), _mm256_extracti128_si256::<1>(x));
        _mm_cvtsi128_si64(x).wrapping_add(_mm_extract_epi64::<1>(x))
    };
    let squares = ((total(aa) as i128) << (2 * LOW)) + ((total(ab) as i128) << (LOW + 1)) + total(bb) as i128;
    sums.n += xs.len() as i64;
    sums.q += total(q);
    sums.hi += (squares >> grid.bits) as i64;
    sums.lo += (squares & ((1 << grid.bits) - 1)) as i64;
    sums.at_max += at_max as i64;
    sums.at_min += at_min as i64;
}
