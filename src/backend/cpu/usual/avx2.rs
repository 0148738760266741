//! Runs of equal values, found by comparisons of 64 tokens at a time.
use super::short_avx2::differs;
use crate::numerics::convert::InElem;
use crate::plan::workspace::SPARE;

const BLOCK: usize = 64;

/// Ends of runs of equal values, after those listed: the new count. `None`: there is no room. Numbers of 2 bytes are compared as `differs` does.
#[target_feature(enable = "avx2,popcnt,bmi1")]
pub fn runs<T: InElem + Default>(xs: &[T], from: u32, ends: &mut [u32], values: &mut [f32], begin: usize) -> Option<usize> {
    assert!(ends.len() == values.len());
    let Some(last) = xs.len().checked_sub(1) else { return Some(begin) };
    let (mut count, at) = (begin, xs.as_ptr());
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
                    *values.get_unchecked_mut(to) = xs.get_unchecked(token).to_f32();
                }
                to += 1;
            }
            if differs == 0 {
                return Some(());
            }
        }
    };
    let mut t = 0;
    while t + BLOCK <= last {
        // SAFETY: tokens t ..= t + 64 are there.
        list(t, unsafe { differs(at.add(t)) })?;
        t += BLOCK;
    }
    // The last token ends a run, whatever follows.
    let rest = if last >= BLOCK {
        // SAFETY: the last 65 tokens; those before t have been listed.
        unsafe { differs(at.add(last - BLOCK)) }.checked_shr((BLOCK - (last - t)) as u32).unwrap_or(0)
    } else {
        let mut few = [T::default(); BLOCK + 1];
        few[..=last].copy_from_slice(xs);
        // SAFETY: 65 tokens.
        unsafe { differs(few.as_ptr()) & ((1 << last) - 1) }
    };
    list(t, rest | 1 << (last - t))?;
    Some(count)
}
