//! Bits of a mask by comparisons of whole vectors, and what they say of the scope.
#![cfg(target_arch = "x86_64")]
use super::lines::LINE;
use crate::model::array::{DType, Row};
use std::arch::x86_64::*;

/// Bit t: element t is not 0. Sets the words that the mask has. `false`: not a mask that this knows, nothing done.
#[target_feature(enable = "avx2")]
pub fn read_mask(mask: &Row, bits: &mut [u64]) -> bool {
    match mask.dtype() {
        DType::U8 | DType::Bool => mask.slice::<u8>().map(|from| words::<u8>(from, bits)).is_some(),
        DType::I32 => mask.slice::<i32>().map(|from| words::<i32>(from, bits)).is_some(),
        DType::I64 => mask.slice::<i64>().map(|from| words::<i64>(from, bits)).is_some(),
        _ => false,
    }
}

/// Bits of the elements that are 0 among the 32 bytes at `at`.
///
/// # Safety
/// They are readable.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn zeros<T>(at: *const T) -> u64 {
    let none = _mm256_setzero_si256();
    // SAFETY: by the caller's word.
    let x = unsafe { _mm256_loadu_si256(at.cast()) };
    (match size_of::<T>() {
        1 => _mm256_movemask_epi8(_mm256_cmpeq_epi8(x, none)) as u32,
        4 => _mm256_movemask_ps(_mm256_castsi256_ps(_mm256_cmpeq_epi32(x, none))) as u32,
        _ => _mm256_movemask_pd(_mm256_castsi256_pd(_mm256_cmpeq_epi64(x, none))) as u32,
    }) as u64
}

/// Bytes between what is read of a mask and what is asked for. A mask is read once: it need not drive out what is read again.
const AHEAD: usize = 4096;

#[inline]
#[target_feature(enable = "avx2")]
fn words<T: Copy + Default + PartialEq>(from: &[T], bits: &mut [u64]) {
    let lanes = 32 / size_of::<T>();
    let mut blocks = from.chunks_exact(64);
    let mut words = bits.iter_mut();
    for (block, word) in blocks.by_ref().zip(words.by_ref()) {
        for line in (0..size_of_val(block)).step_by(LINE) {
            _mm_prefetch::<_MM_HINT_NTA>(block.as_ptr().cast::<i8>().wrapping_add(AHEAD + line));
        }
        let mut zero = 0;
        for at in (0..64).step_by(lanes) {
            // SAFETY: at + lanes <= 64, the elements of the block.
            zero |= unsafe { zeros(block.as_ptr().add(at)) } << at;
        }
        *word = !zero;
    }
    if let (rest @ [_, ..], Some(word)) = (blocks.remainder(), words.next()) {
        *word = rest.iter().enumerate().fold(0, |word, (t, x)| word | u64::from(*x != T::default()) << t);
    }
}

/// First bit set, one past the last, how many: (0, 0, 0) where none is.
#[target_feature(enable = "avx2,popcnt,bmi1")]
pub fn survey(bits: &[u64]) -> (usize, usize, usize) {
    super::scope::survey(bits)
}
