//! Bits of a mask by comparisons of whole vectors, and what they say of the scope.
#![cfg(target_arch = "x86_64")]
use super::lines::LINE;
use super::scope::ROWS;
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
    let (blocks, rest) = from.as_chunks::<64>();
    let mut words = bits.iter_mut();
    for (block, word) in blocks.iter().zip(words.by_ref()) {
        for line in (0..size_of_val(block)).step_by(LINE) {
            _mm_prefetch::<_MM_HINT_NTA>(block.as_ptr().cast::<i8>().wrapping_add(AHEAD + line));
        }
        [*word] = side_by_side([block]);
    }
    if let ([_, ..], Some(word)) = (rest, words.next()) {
        *word = rest.iter().enumerate().fold(0, |word, (t, x)| word | u64::from(*x != T::default()) << t);
    }
}

/// Bits of blocks of 64 elements, of which a line of each is read in turn.
#[inline]
#[target_feature(enable = "avx2")]
fn side_by_side<T, const N: usize>(blocks: [&[T; 64]; N]) -> [u64; N] {
    let (line, lanes) = (LINE / size_of::<T>(), 32 / size_of::<T>());
    let mut zero = [0; N];
    for from in (0..64).step_by(line) {
        for (zero, block) in zero.iter_mut().zip(blocks) {
            for at in (from..from + line).step_by(lanes) {
                // SAFETY: a vector of the block's 64 elements.
                *zero |= unsafe { zeros(block.as_ptr().add(at)) } << at;
            }
        }
    }
    zero.map(|zero| !zero)
}

/// Bytes from which on it pays to read several masks at once. (Short ones follow each other soon enough for the one asked for ahead.)
const LONG: usize = 16 << 10;

/// `read_mask` of several.
#[target_feature(enable = "avx2")]
pub fn read_masks(masks: [&Row; ROWS], bits: [&mut [u64]; ROWS]) -> bool {
    match masks[0].dtype() {
        DType::U8 | DType::Bool => rows::<u8>(masks, bits),
        DType::I32 => rows::<i32>(masks, bits),
        DType::I64 => rows::<i64>(masks, bits),
        _ => false,
    }
}

#[inline]
#[target_feature(enable = "avx2")]
fn rows<T: Copy + Default + PartialEq>(masks: [&Row; ROWS], mut bits: [&mut [u64]; ROWS]) -> bool {
    let [Some(a), Some(b), Some(c), Some(d)] = masks.map(|mask| mask.slice::<T>()) else { return false };
    let each = [a, b, c, d];
    if size_of_val(a) < LONG {
        return false;
    }
    let blocks = each.map(|from| from.as_chunks::<64>().0);
    let all = blocks.iter().map(|blocks| blocks.len()).min().unwrap_or(0);
    for i in 0..all {
        let words = side_by_side(blocks.map(|blocks| &blocks[i]));
        bits.iter_mut().zip(words).for_each(|(bits, word)| bits[i] = word);
    }
    for (from, bits) in each.iter().zip(bits) {
        words(&from[64 * all..], &mut bits[all..]);
    }
    true
}

/// First bit set, one past the last, how many: (0, 0, 0) where none is.
#[target_feature(enable = "avx2,popcnt,bmi1")]
pub fn survey(bits: &[u64]) -> (usize, usize, usize) {
    super::scope::survey(bits)
}
