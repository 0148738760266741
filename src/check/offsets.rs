//! What offsets and indices say, read element by element: on the host this is known before anything is done. In device memory the kernels look.
use crate::abi::status::*;
use crate::error::Result;
use crate::model::array::{Array, DType};
use crate::model::batch::{Extents, Groups};
use crate::model::config::Limits;
use crate::model::context::Where;
use crate::refuse;

/// Hands over the integers, where they lie side by side in a type that they usually have.
macro_rules! side_by_side {
    ($array:expr, |$all:ident| $body:expr) => {{
        let row = $array.whole();
        match $array.dtype {
            DType::I32 => row.slice::<i32>().map(|$all| $body),
            DType::I64 => row.slice::<i64>().map(|$all| $body),
            _ => None,
        }
    }};
}

/// Do offsets rise from at least 0 to at most `end`, each by at most `longest`? (The usual answer, found without looking for words.)
fn rise(offsets: &Array, end: usize, longest: usize) -> bool {
    fn all<T: Copy + Into<i64>>(offsets: &[T], end: u64, longest: u64) -> bool {
        let mut before: i64 = offsets.first().map_or(0, |first| (*first).into());
        let mut fit = true;
        for now in offsets {
            let now: i64 = (*now).into();
            // Of offsets that are all at least 0 the difference is what it is; below 0 it is a large number.
            fit &= (now as u64 <= end) & (now.wrapping_sub(before) as u64 <= longest);
            before = now;
        }
        fit
    }
    let longest = longest.min(i64::MAX as usize) as u64;
    side_by_side!(offsets, |offsets| all(offsets, end.min(i64::MAX as usize) as u64, longest)).unwrap_or(false)
}

/// Are all lengths from 0 to `longest`?
fn fit(lengths: &Array, longest: usize) -> bool {
    fn all<T: Copy + Into<i64>>(lengths: &[T], longest: u64) -> bool {
        lengths.iter().fold(true, |fit, len| fit & (Into::<i64>::into(*len) as u64 <= longest))
    }
    side_by_side!(lengths, |lengths| all(lengths, longest.min(i64::MAX as usize) as u64)).unwrap_or(false)
}

/// Offsets from at least 0, not decreasing, to at most `end`.
fn ascending(name: &str, offsets: &Array, end: usize) -> Result<()> {
    if rise(offsets, end, usize::MAX) {
        return Ok(());
    }
    let mut before = 0;
    for i in 0..offsets.shape[0] {
        let now = offsets.int(i);
        if now < before {
            return match i {
                0 => refuse!(PASSRL_ERR_OFFSETS, "{name}[0] is {now}; offsets are 0 or more"),
                _ => refuse!(PASSRL_ERR_OFFSETS, "{name}[{i}] is {now} after {before}; offsets do not decrease"),
            };
        }
        before = now;
    }
    if before as u64 > end as u64 {
        return refuse!(PASSRL_ERR_OFFSETS, "{name}[{}] is {before}; there are {end} elements", offsets.shape[0] - 1);
    }
    Ok(())
}

/// `pieces`: an extent is a piece, whose rollout's length has been seen.
pub fn extents(place: Where, extents: &Extents, rollouts: usize, slots: usize, limits: &Limits, pieces: bool) -> Result<()> {
    let longest = |i: usize, len: i64| match len as u64 <= limits.rollout_tokens as u64 {
        true => Ok(()),
        false => refuse!(PASSRL_ERR_LIMIT, "rollout {i} has {len} tokens; the plan's limits.rollout_tokens allows {}", limits.rollout_tokens),
    };
    match extents {
        Extents::Packed { cu_seqlens } => {
            if place != Where::Host {
                return Ok(());
            }
            let fit = rise(cu_seqlens, slots, limits.rollout_tokens);
            if !fit {
                ascending("batch.cu_seqlens", cu_seqlens, slots)?;
            }
            let used = cu_seqlens.int(rollouts) - cu_seqlens.int(0);
            if used as usize > limits.tokens {
                return refuse!(PASSRL_ERR_LIMIT, "batch has {used} tokens; the plan's limits.tokens allows {}", limits.tokens);
            }
            if pieces || fit {
                return Ok(());
            }
            (0..rollouts).try_for_each(|i| longest(i, cu_seqlens.int(i + 1) - cu_seqlens.int(i)))
        }
        Extents::Padded { lengths, .. } => {
            if rollouts.checked_mul(slots).is_none_or(|n| n > limits.tokens) {
                return refuse!(PASSRL_ERR_LIMIT, "batch has {rollouts} rows of {slots} slots; the plan's limits.tokens allows {}", limits.tokens);
            }
            let Some(lengths) = lengths else {
                return if rollouts > 0 { longest(0, slots as i64) } else { Ok(()) };
            };
            if place != Where::Host || fit(lengths, slots.min(limits.rollout_tokens)) {
                return Ok(());
            }
            (0..rollouts).try_for_each(|i| {
                let len = lengths.int(i);
                if len < 0 || len as u64 > slots as u64 {
                    return refuse!(PASSRL_ERR_OFFSETS, "batch.lengths[{i}] is {len}; a row has {slots} slots");
                }
                longest(i, len)
            })
        }
    }
}

pub fn steps(place: Where, offsets: &Array, rollouts: usize, count: usize) -> Result<()> {
    if place != Where::Host {
        return Ok(());
    }
    ascending("batch.step_offsets", offsets, count)?;
    debug_assert!(offsets.shape[0] == rollouts + 1);
    Ok(())
}

pub fn groups(place: Where, grouping: &Groups, rollouts: usize, groups: usize) -> Result<()> {
    if place != Where::Host {
        return Ok(());
    }
    match grouping {
        Groups::Constant(_) => Ok(()),
        Groups::Offsets(offsets) => {
            ascending("batch.group_offsets", offsets, rollouts)?;
            let (first, last) = (offsets.int(0), offsets.int(groups));
            if first != 0 || last as usize != rollouts {
                return refuse!(PASSRL_ERR_OFFSETS, "batch.group_offsets runs from {first} to {last}; it must run from 0 to the {rollouts} rollouts");
            }
            Ok(())
        }
        Groups::Index(index) => (0..rollouts).try_for_each(|i| {
            let g = index.int(i);
            if g < 0 || g as u64 >= groups as u64 {
                return refuse!(PASSRL_ERR_OFFSETS, "batch.group_index[{i}] is {g}; there are {groups} groups (0 to {}); see passrl_group_index", groups as i64 - 1);
            }
            Ok(())
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_usual_answer_is_that_of_a_plain_loop() {
        let array = |offsets: &mut [i64]| Array { data: offsets.as_mut_ptr().cast(), dtype: DType::I64, shape: [offsets.len(), 1], stride: [1, 1] };
        let kinds = [0, 1, 2, 7, 8, -1, i64::MAX, i64::MAX - 1, i64::MIN, i64::MIN + 1];
        let (mut seed, mut held) = (5u64, 0);
        for case in 0..20_000 {
            let mut offsets: Vec<i64> = (0..case % 5)
                .map(|_| {
                    seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                    kinds[(seed >> 40) as usize % kinds.len()]
                })
                .collect();
            if case % 2 == 0 {
                offsets.sort_unstable();
            }
            for (end, longest) in [(8, 8), (8, 1), (2, usize::MAX), (usize::MAX, 7), (usize::MAX, usize::MAX)] {
                let end_here = i64::try_from(end).unwrap_or(i64::MAX);
                let plain = offsets.iter().all(|x| (0..=end_here).contains(x))
                    && offsets.windows(2).all(|pair| pair[0] <= pair[1] && pair[1].abs_diff(pair[0]) <= longest as u64);
                assert_eq!(rise(&array(&mut offsets), end, longest), plain, "{offsets:?}, to {end} by {longest}");
                assert_eq!(fit(&array(&mut offsets), end), offsets.iter().all(|x| (0..=end_here).contains(x)), "{offsets:?}, to {end}");
                held += usize::from(plain && offsets.len() > 1);
            }
        }
        assert!(held > 1000, "{held}");
    }
}
