//! Tokens of a line that bits choose, eight at a time: brought together, and back to their places.
use super::lanes::{Line, put};
use std::arch::x86_64::*;

/// Lanes of the bits set, rising, for each of 256 words of eight bits; and how many bits are set below each lane.
const fn tables() -> ([[u8; 8]; 256], [[u8; 8]; 256]) {
    let (mut chosen, mut below) = ([[0u8; 8]; 256], [[0u8; 8]; 256]);
    let mut word = 0;
    while word < 256 {
        let (mut lane, mut count) = (0, 0u8);
        while lane < 8 {
            below[word][lane] = count;
            if word >> lane & 1 == 1 {
                chosen[word][count as usize] = lane as u8;
                count += 1;
            }
            lane += 1;
        }
        word += 1;
    }
    (chosen, below)
}
static CHOSEN: [[u8; 8]; 256] = tables().0;
static BELOW: [[u8; 8]; 256] = tables().1;

/// Bits t .. t + 8 of a list of words, 0 beyond it.
#[inline(always)]
fn word(bits: &[u64], t: usize) -> usize {
    let (w, s) = (t / 64, t % 64);
    let low = bits.get(w).map_or(0, |x| x >> s);
    let high = if s > 56 { bits.get(w + 1).map_or(0, |x| x << (64 - s)) } else { 0 };
    ((low | high) & 0xff) as usize
}

/// Are bits t .. t + 64 all set? (Most are: neighbours that are equal, and gaps, are few.)
#[inline(always)]
fn all_set(bits: &[u64], t: usize) -> bool {
    let (w, s) = (t / 64, t % 64);
    let low = bits.get(w).map_or(0, |x| x >> s);
    let high = if s > 0 { bits.get(w + 1).map_or(0, |x| x << (64 - s)) } else { 0 };
    low | high == !0
}

#[inline]
#[target_feature(enable = "avx2")]
fn lanes(table: &[u8; 8]) -> __m256i {
    // SAFETY: eight bytes.
    unsafe { _mm256_cvtepu8_epi32(_mm_loadl_epi64(table.as_ptr().cast())) }
}

/// The elements of `from[..n]` whose bits are set, as f32; returns how many.
///
/// # Safety
/// n elements are readable; `to` has room for as many as are chosen and eight more.
#[target_feature(enable = "avx2")]
pub unsafe fn compress(from: Line, n: usize, bits: &[u64], to: &mut [f32]) -> usize {
    let mut k = 0;
    let mut t = 0;
    while t + 8 <= n {
        if t + 64 <= n && all_set(bits, t) {
            assert!(k + 64 <= to.len());
            for part in (0..64).step_by(8) {
                // SAFETY: t + 64 <= n; room for 64.
                unsafe { _mm256_storeu_ps(to.as_mut_ptr().add(k + part), from.eight(t + part)) };
            }
            (k, t) = (k + 64, t + 64);
            continue;
        }
        let chosen = word(bits, t);
        assert!(k + 8 <= to.len());
        // SAFETY: t + 8 <= n; room for eight.
        unsafe { _mm256_storeu_ps(to.as_mut_ptr().add(k), _mm256_permutevar8x32_ps(from.eight(t), lanes(&CHOSEN[chosen]))) };
        k += chosen.count_ones() as usize;
        t += 8;
    }
    for t in t..n {
        if word(bits, t) & 1 == 1 {
            // SAFETY: t < n.
            to[k] = unsafe { from.one(t) };
            k += 1;
        }
    }
    k
}

/// Element t of `to[..n]` becomes the one of `from` whose number is that of the bits set before t; with `holes` it is 0 where its own bit is not set.
///
/// # Safety
/// n elements are writable; `from` is of the same type and holds as many as are read and eight more.
#[target_feature(enable = "avx2")]
pub unsafe fn expand(from: Line, bits: &[u64], holes: bool, to: Line, n: usize, stream: bool) {
    let vector = 8 * to.bytes();
    let head = ((vector - to.at as usize % vector) % vector / to.bytes()).min(n);
    let mut k = 0;
    let one = |t: usize, k: &mut usize| {
        let set = word(bits, t) & 1;
        // SAFETY: t < n; k is the number of bits set before t.
        unsafe {
            let x = if holes && set == 0 { 0.0 } else { from.one(*k) };
            if to.narrow { *to.at.cast::<u16>().add(t) = (x.to_bits() >> 16) as u16 } else { *to.at.cast::<f32>().add(t) = x }
        }
        *k += set;
    };
    (0..head).for_each(|t| one(t, &mut k));
    let mut t = head;
    while t + 8 <= n {
        if t + 64 <= n && all_set(bits, t) {
            for part in (0..64).step_by(8) {
                // SAFETY: t + 64 <= n; `from` has as many elements from k on.
                unsafe { put(to, t + part, from.eight(k + part), stream) };
            }
            (k, t) = (k + 64, t + 64);
            continue;
        }
        let set = word(bits, t);
        // SAFETY: t + 8 <= n; `from` holds eight more than are read.
        unsafe {
            let mut x = _mm256_permutevar8x32_ps(from.eight(k), lanes(&BELOW[set]));
            if holes {
                let bit = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
                let there = _mm256_cmpeq_epi32(_mm256_and_si256(_mm256_set1_epi32(set as i32), bit), bit);
                x = _mm256_and_ps(x, _mm256_castsi256_ps(there));
            }
            put(to, t, x, stream);
        }
        k += set.count_ones() as usize;
        t += 8;
    }
    (t..n).for_each(|t| one(t, &mut k));
}
