//! Results rounded, a tile at a time.
use super::lanes::{Results, Tile};
use std::arch::x86_64::*;

/// A tile as f32 or as bf16 (`NARROW`) to nearest even. Of all of `largest`'s tiles together the largest magnitude in f32 is kept there.
#[inline]
#[target_feature(enable = "avx2")]
pub fn rounded<const NARROW: bool>(tile: &Tile, largest: &mut __m256i) -> Results {
    let pair = |low: usize, high: usize| {
        _mm256_insertf128_ps::<1>(_mm256_castps128_ps256(_mm256_cvtpd_ps(tile[low])), _mm256_cvtpd_ps(tile[high]))
    };
    if NARROW {
        // SAFETY: AVX2, as here.
        return unsafe { narrow([pair(0, 2), pair(1, 3), pair(4, 6), pair(5, 7)], || *tile, largest) };
    }
    wide([pair(0, 1), pair(2, 3), pair(4, 5), pair(6, 7)], largest)
}

#[inline]
#[target_feature(enable = "avx2")]
fn magnitudes(nearest: &[__m256; 4], largest: &mut __m256i) {
    for x in nearest {
        *largest = _mm256_max_epu32(*largest, _mm256_and_si256(_mm256_castps_si256(*x), _mm256_set1_epi32(i32::MAX)));
    }
}

/// `rounded` from the nearest f32 on, in their order. -0, also one that underflow made, is stored as +0.
#[inline]
#[target_feature(enable = "avx2")]
pub fn wide(nearest: [__m256; 4], largest: &mut __m256i) -> Results {
    magnitudes(&nearest, largest);
    let mut results = [_mm256_setzero_si256(); 4];
    for (to, x) in results.iter_mut().zip(nearest) {
        *to = _mm256_castps_si256(_mm256_add_ps(x, _mm256_setzero_ps()));
    }
    results
}

/// `rounded` to bf16 from the nearest f32 on, whose quarters stand as packing wants them: registers 0 and 2 of the tile, 1 and 3, 4 and 6, 5 and 7. `tile` gives it unrounded.
/// Always inlined, into functions that have AVX2.
///
/// # Safety
/// AVX2.
#[inline(always)]
pub unsafe fn narrow(nearest: [__m256; 4], tile: impl Fn() -> Tile, largest: &mut __m256i) -> Results {
    // SAFETY: by the caller's word.
    unsafe {
        magnitudes(&nearest, largest);
        // Half a unit of bf16, and the rest is cut off: right for all but ties.
        let zero = _mm256_setzero_si256();
        let mut up = [zero; 4];
        for (to, x) in up.iter_mut().zip(nearest) {
            *to = _mm256_add_epi32(_mm256_castps_si256(x), _mm256_set1_epi32(0x8000));
        }
        let first = _mm256_blend_epi16::<0b10101010>(up[0], _mm256_slli_epi32::<16>(up[1]));
        let second = _mm256_blend_epi16::<0b10101010>(up[2], _mm256_slli_epi32::<16>(up[3]));
        if _mm256_movemask_epi8(_mm256_cmpeq_epi16(_mm256_min_epu16(first, second), zero)) != 0 {
            up = ties(nearest, tile());
        }
        let mut results = [zero; 4];
        for v in 0..2 {
            let x = _mm256_packus_epi32(_mm256_srli_epi32::<16>(up[2 * v]), _mm256_srli_epi32::<16>(up[2 * v + 1]));
            // -0 is stored as +0.
            results[v] = _mm256_andnot_si256(_mm256_cmpeq_epi16(x, _mm256_set1_epi16(i16::MIN)), x);
        }
        results
    }
}

/// Bits of which the upper halves are the bf16 wanted, where an f32 stands on a tie of two: it does not say on which side of it the result was.
#[cold]
#[inline(never)]
#[target_feature(enable = "avx2")]
fn ties(nearest: [__m256; 4], tile: Tile) -> [__m256i; 4] {
    let magnitude = |x: __m256d| _mm256_and_pd(x, _mm256_castsi256_pd(_mm256_set1_epi64x(i64::MAX)));
    let order = |low: __m256d, high: __m256d| {
        let lanes = _mm256_shuffle_ps::<0b10001000>(_mm256_castpd_ps(low), _mm256_castpd_ps(high));
        _mm256_permute4x64_epi64::<0b11011000>(_mm256_castps_si256(lanes))
    };
    std::array::from_fn(|v| {
        let (low, high) = [(0, 2), (1, 3), (4, 6), (5, 7)][v];
        let (a, b) = (magnitude(tile[low]), magnitude(tile[high]));
        let x = _mm256_cvtps_pd(_mm256_castps256_ps128(nearest[v]));
        let y = _mm256_cvtps_pd(_mm256_extractf128_ps::<1>(nearest[v]));
        let (x, y) = (magnitude(x), magnitude(y));
        // -1 where the result lies beyond the tie, or before it.
        let beyond = order(_mm256_cmp_pd::<_CMP_GT_OQ>(a, x), _mm256_cmp_pd::<_CMP_GT_OQ>(b, y));
        let before = order(_mm256_cmp_pd::<_CMP_LT_OQ>(a, x), _mm256_cmp_pd::<_CMP_LT_OQ>(b, y));
        let bits = _mm256_castps_si256(nearest[v]);
        let tie = _mm256_cmpeq_epi32(_mm256_slli_epi32::<16>(bits), _mm256_set1_epi32(i32::MIN));
        let aside = _mm256_add_epi32(bits, _mm256_and_si256(tie, _mm256_sub_epi32(before, beyond)));
        let odd = _mm256_and_si256(_mm256_srli_epi32::<16>(aside), _mm256_set1_epi32(1));
        _mm256_add_epi32(_mm256_add_epi32(aside, _mm256_set1_epi32(0x7fff)), odd)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::numerics::convert::OutElem;
    use half::bf16;

    /// Tiles about ties of bf16, a little beside them, of both signs and many magnitudes, zeros among them: as each is rounded alone.
    #[test]
    fn ties_go_where_the_result_lies() {
        if !is_x86_feature_detected!("avx2") {
            println!("SKIPPED: no AVX2 on this processor");
            return;
        }
        let mut seed = 3u64;
        let mut next = || {
            seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            seed >> 33
        };
        for case in 0..2000 {
            let lanes: [f64; 32] = std::array::from_fn(|_| {
                let (upper, exponent) = (next() as u32 % 0x7f00 << 16, next() % 3);
                let tie = f32::from_bits(upper | if case % 2 == 0 { 0x8000 } else { next() as u32 & 0xffff }) as f64;
                let beside = tie * (1.0 + [0.0, 1e-12, -1e-12][exponent as usize]);
                [beside, -beside, -beside, 0.0, -0.0, beside * 1e-40][next() as usize % if case % 3 == 0 { 6 } else { 3 }]
            });
            // SAFETY: AVX2 is there; whole vectors of the arrays.
            let (got, most) = unsafe {
                let tile: Tile = std::array::from_fn(|v| _mm256_loadu_pd(lanes.as_ptr().add(4 * v)));
                let mut largest = _mm256_setzero_si256();
                let results = rounded::<true>(&tile, &mut largest);
                (std::mem::transmute::<Results, [u16; 64]>(results), super::super::lanes::most(largest))
            };
            let mut over = 0;
            let want = lanes.map(|x| <bf16 as OutElem>::from_f64(x, &mut over).to_bits());
            assert_eq!(got[..32], want, "case {case}");
            assert_eq!(most, lanes.iter().fold(0, |m, x| m.max((*x as f32).abs().to_bits())), "case {case}");
        }
    }
}
