//! `exact::sums_narrow` in AVX2: the compiler finds the vectors of these loops only in part. Integers: the order does not matter.
#![cfg(target_arch = "x86_64")]
use super::exact::{Grid, MAGIC, STEP_BITS, Sums};
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
    let total = |x: [__m256i; 2]| {
        let mut lanes = [0i64; 4];
        // SAFETY: 32 bytes.
        unsafe { _mm256_storeu_si256(lanes.as_mut_ptr().cast(), _mm256_add_epi64(x[0], x[1])) };
        lanes.iter().sum::<i64>()
    };
    sums.n += whole as i64;
    sums.q += total(q);
    sums.hi += total(hi);
    sums.lo += total(lo);
    for t in whole..xs.len() {
        let v = grid.quantize(xs[t]);
        if COLUMNS {
            columns[t] += v;
        }
        sums.push(grid, v, 1);
    }
}
