//! Runs of equal values, found by comparisons of 64 tokens at a time.
use super::read::changes;
use crate::plan::workspace::SPARE;
use std::arch::x86_64::*;

/// `read::changes` from the first token on.
#[target_feature(enable = "avx2,popcnt,bmi1")]
pub fn runs(xs: &[f32], from: u32, ends: &mut [u32], values: &mut [f32], begin: usize) -> Option<usize> {
    const BLOCK: usize = 64;
    assert!(ends.len() == values.len());
    let (mut count, mut t) = (begin, 0);
    let at = xs.as_ptr();
    // Bit i: tokens t + i and t + i + 1 differ. Unordered: a NaN differs from everything.
    let eight = |t: usize| -> u64 {
        // SAFETY: the callers below keep t + 9 <= the length.
        let (now, next) = unsafe { (_mm256_loadu_ps(at.add(t)), _mm256_loadu_ps(at.add(t + 1))) };
        _mm256_movemask_ps(_mm256_cmp_ps::<_CMP_NEQ_UQ>(now, next)) as u32 as u64
    };
    let mut list = |t: usize, mut differs: u64| -> Option<()> {
        let n = differs.count_ones() as usize;
        if count + n + SPARE > ends.len() {
            return None;
        }
        let mut to = count;
        count += n;
        loop {
            // Two at a time, whether there are so many or not: most blocks have one or two, and no branch depends on which. Of none left the
            // position is 64, whose token may lie beyond the line: its place is that of the first.
            for _ in 0..2 {
                let bit = differs.trailing_zeros() as usize;
                differs &= differs.wrapping_sub(1);
                let token = t + (bit & (BLOCK - 1));
                // SAFETY: `to` is at most `count` + 1, for which there is room; the token is in the block, or its first.
                unsafe {
                    *ends.get_unchecked_mut(to) = from + token as u32;
                    *values.get_unchecked_mut(to) = *at.add(token);
                }
                to += 1;
            }
            if differs == 0 {
                return Some(());
            }
        }
    };
    while t + BLOCK < xs.len() {
        let mut differs = 0;
        for part in 0..8 {
            differs |= eight(t + 8 * part) << (8 * part);
        }
        list(t, differs)?;
        t += BLOCK;
    }
    let (first, mut differs) = (t, 0);
    while t + 8 < xs.len() {
        differs |= eight(t) << (t - first);
        t += 8;
    }
    if t > first {
        list(first, differs)?;
    }
    changes(xs, t, from, ends, values, count)
}
