//! Masks to bits, 64 tokens at a time.
use std::arch::x86_64::*;

/// Bits of the nonzero elements of a mask, of 1, 4 or 8 bytes each.
///
/// # Safety
/// AVX2; `from` holds `len` elements of `bytes` bytes; `bits` has a word for each 64 of them or part of it.
#[target_feature(enable = "avx2")]
pub unsafe fn words(from: *const u8, bytes: usize, len: usize, bits: &mut [u64]) {
    let whole = len / 64;
    assert!(bits.len() >= len.div_ceil(64));
    let zero = _mm256_setzero_si256();
    // SAFETY: 64 elements from element 64 w on, below `len`.
    unsafe {
        for (w, word) in bits.iter_mut().enumerate().take(whole) {
            let at = from.add(64 * w * bytes).cast::<__m256i>();
            let mut clear = 0u64;
            match bytes {
                8 => {
                    for v in 0..16 {
                        let none = _mm256_cmpeq_epi64(_mm256_loadu_si256(at.add(v)), zero);
                        clear |= (_mm256_movemask_pd(_mm256_castsi256_pd(none)) as u64) << (4 * v);
                    }
                }
                4 => {
                    for v in 0..8 {
                        let none = _mm256_cmpeq_epi32(_mm256_loadu_si256(at.add(v)), zero);
                        clear |= (_mm256_movemask_ps(_mm256_castsi256_ps(none)) as u64) << (8 * v);
                    }
                }
                _ => {
                    for v in 0..2 {
                        let none = _mm256_cmpeq_epi8(_mm256_loadu_si256(at.add(v)), zero);
                        clear |= (_mm256_movemask_epi8(none) as u32 as u64) << (32 * v);
                    }
                }
            }
            *word = !clear;
        }
        if len % 64 != 0 {
            bits[whole] = (64 * whole..len).fold(0, |word, t| {
                let set = match bytes {
                    8 => *from.cast::<u64>().add(t) != 0,
                    4 => *from.cast::<u32>().add(t) != 0,
                    _ => *from.add(t) != 0,
                };
                word | u64::from(set) << (t % 64)
            });
        }
    }
}
