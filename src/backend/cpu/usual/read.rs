//! Reads the rollouts of a group: scope, chunks, elements of the process set.
use super::{Group, Ints, Lane, Source, Steps};
use crate::backend::cpu::members::Members;
use crate::backend::cpu::scope::Scope;
use crate::backend::cpu::worker::{Job, Worker};
use crate::backend::cpu::chunk;
use crate::model::array::{Array, DType};
use crate::model::batch::Extent;
use crate::model::config::Chunk;
use crate::model::flags;
use crate::numerics::convert::InElem;
use crate::numerics::simd::Simd;
use crate::plan::workspace::{Rollout, SPARE, state};
use half::{bf16, f16};

/// Chunks of a group, one rollout after the other: the last token of each, its value, and the values of the elements, where the two are not one list.
struct Lists<'s> {
    ends: &'s mut [u32],
    values: &'s mut [f32],
    elements: &'s mut [f32],
    chunks: usize,
    listed: usize,
}

impl Lists<'_> {
    /// Is there room for `count` more of each, and a few written in advance?
    fn room(&self, count: usize) -> bool {
        self.chunks.max(self.listed) + count + SPARE <= self.ends.len()
    }

    fn push(&mut self, end: usize, value: f32) {
        (self.ends[self.chunks], self.values[self.chunks]) = (end as u32, value);
        self.chunks += 1;
    }
}

impl Worker<'_> {
    /// `None`: the group is not usual.
    pub(super) fn usual_read(&mut self, lane: &Lane, members: Members) -> Option<Group> {
        let job = self.job;
        let problem = job.problem;
        let (mut all_count, mut format) = (true, 0);
        let mut lists = Lists { ends: &mut *self.usual_ends, values: &mut *self.usual_values, elements: &mut *self.usual_elements, chunks: 0, listed: 0 };
        for i in members.iter() {
            if problem.absent.is_some_and(|a| a.flag(i)) {
                return None;
            }
            let at = lane.extent(i);
            #[cfg(target_arch = "x86_64")]
            if let Some(outputs) = job.outputs.filter(|_| job.streams) {
                crate::backend::cpu::lines::ask(job, &outputs.advantages, &at);
            }
            let mut kept = Rollout::default();
            if problem.in_stats.is_some_and(|a| !a.flag(i)) {
                kept.state |= state::OUT_OF_STATS;
                all_count = false;
            }
            let violates = problem.format_ok.is_some_and(|a| !a.flag(i));
            kept.flags |= if violates { flags::ROLLOUT_FORMAT_VIOLATING } else { 0 };
            format = format.max(if violates { 1 } else { 2 });
            let scope = match &problem.mask {
                None => Scope::span(0, at.len),
                // SAFETY: the rollout's own words, which no other thread uses.
                Some(_) => Scope::counted(job.simd(), unsafe { job.scope_bits(i, &at) }),
            };
            (kept.first, kept.end, kept.count) = (scope.first as u32, scope.end as u32, scope.count as u32);
            let (chunks, listed) = (lists.chunks, lists.listed);
            let scored = match &lane.source {
                Source::Whole => {
                    kept.state |= state::ONE_VALUE;
                    false
                }
                Source::Dense(signal) => {
                    dense(job, signal, &at, &scope, &mut *self.signal, &mut lists)?;
                    lists.chunks > chunks
                }
                Source::Steps(steps) => {
                    by_steps(job, steps, i, &at, &scope, &mut lists)?;
                    lists.listed > listed
                }
            };
            if scope.is_empty() {
                kept.flags |= flags::ROLLOUT_NO_SCOPE;
            } else if !scored {
                lists.room(1).then_some(())?;
                lists.push(scope.end - 1, 0.0);
            }
            kept.chunks = (lists.chunks - chunks) as u32;
            if scored {
                kept.state |= state::HAS_PROCESS;
                kept.elements = if let Source::Dense(_) = lane.source { kept.chunks } else { (lists.listed - listed) as u32 };
            }
            // SAFETY: the rollout is this thread's.
            unsafe { job.keep(i, kept) };
        }
        let elements = if let Source::Dense(_) = lane.source { lists.chunks } else { lists.listed };
        Some(Group { elements, all_count, format, in_values: matches!(lane.source, Source::Dense(_)) })
    }
}

/// Runs of equal values; a gap of the scope ends one.
fn dense(job: &Job, signal: &Array, at: &Extent, scope: &Scope, room: &mut [f32], lists: &mut Lists) -> Option<()> {
    let row = at.of(signal);
    let (simd, eta) = (job.simd(), job.config().eta);
    // Read as it lies where there are comparisons for it.
    match (row.slice::<f32>(), row.slice::<bf16>()) {
        (Some(line), _) => by_runs(simd, line, at, scope, eta, lists),
        (None, Some(line)) if simd >= Simd::Avx2 && row.dtype() == DType::Bf16 => by_runs(simd, line, at, scope, eta, lists),
        (None, Some(_)) if simd >= Simd::Avx2 => by_runs(simd, row.slice::<f16>()?, at, scope, eta, lists),
        _ => {
            let line = &mut room[..at.len];
            row.read_f32(line);
            by_runs(simd, line, at, scope, eta, lists)
        }
    }
}

fn by_runs<T: InElem + Default>(simd: Simd, line: &[T], at: &Extent, scope: &Scope, eta: f64, lists: &mut Lists) -> Option<()> {
    let mut fits = true;
    scope.runs(0, at.len, |a, b| fits = fits && runs(simd, &line[a..b], a as u32, eta, lists));
    fits.then_some(())
}

/// Lists the runs of a line without gaps. `false`: there is no room.
fn runs<T: InElem + Default>(simd: Simd, xs: &[T], from: u32, eta: f64, lists: &mut Lists) -> bool {
    let begin = lists.chunks;
    let done = match simd {
        // SAFETY: `Simd::Avx2` is only made where the processor has what the function asks for.
        #[cfg(target_arch = "x86_64")]
        Simd::Avx2 | Simd::Avx512 => unsafe { super::avx2::runs(xs, from, lists.ends, lists.values, begin) },
        _ => changes(xs, from, lists.ends, lists.values, begin),
    };
    let Some(count) = done else { return false };
    let values = &lists.values[begin..count];
    // Neighbouring runs differ; by no more than eta is seldom, and then they are one.
    let differ = values.windows(2).fold(true, |all, pair| all & chunk::edge(pair[0], pair[1], eta));
    lists.chunks = count;
    if !differ {
        lists.chunks = begin;
        for t in 0..xs.len() {
            if t + 1 == xs.len() || chunk::edge(xs[t].to_f32(), xs[t + 1].to_f32(), eta) {
                lists.push(from as usize + t, xs[t].to_f32());
            }
        }
    }
    true
}

/// Ends of runs of equal values, after those listed: the new count. `None`: there is no room.
fn changes<T: InElem>(xs: &[T], from: u32, ends: &mut [u32], values: &mut [f32], mut count: usize) -> Option<usize> {
    for t in 0..xs.len() {
        // A NaN differs from everything, itself too, and so comes to be listed.
        if t + 1 == xs.len() || xs[t].to_f32() != xs[t + 1].to_f32() {
            if count + SPARE > ends.len() {
                return None;
            }
            (ends[count], values[count]) = (from + t as u32, xs[t].to_f32());
            count += 1;
        }
    }
    Some(count)
}

/// Steps that have a token in scope are elements; each of their runs of tokens is a chunk (`chunk = step`: all of them are one).
fn by_steps(job: &Job, steps: &Steps, i: usize, at: &Extent, scope: &Scope, lists: &mut Lists) -> Option<()> {
    let (from, to) = (steps.offsets.at(i), steps.offsets.at(i + 1));
    let scores = steps.scores.get(from..to)?;
    lists.room(to - from).then_some(())?;
    match steps.ends {
        Ints::I32(ends) => listed(job, &ends[from..to], scores, at, scope, lists),
        Ints::I64(ends) => listed(job, &ends[from..to], scores, at, scope, lists),
    }
}

fn listed<T: Copy + Into<i64>>(job: &Job, ends: &[T], scores: &[f32], at: &Extent, scope: &Scope, lists: &mut Lists) -> Option<()> {
    let len = at.len as i64;
    let (mut before, mut fits) = (0i64, true);
    let (mut chunks, mut elements) = (lists.chunks, lists.listed);
    // All tokens in scope: each step is a chunk.
    let whole = scope.count == at.len;
    let n = ends.len();
    if whole {
        let to_ends = &mut lists.ends[chunks..chunks + n];
        let (to_values, to_elements) = (&mut lists.values[chunks..chunks + n], &mut lists.elements[elements..elements + n]);
        let mut count = 0;
        for (j, (end, score)) in ends.iter().zip(scores).enumerate() {
            let end: i64 = (*end).into();
            fits &= before <= end && end <= len;
            // The last step takes the tokens that follow.
            let last = if j + 1 == n { len } else { end };
            // An empty step is written over by the next.
            // SAFETY: count <= j < n, the length of the three.
            unsafe {
                *to_ends.get_unchecked_mut(count) = (last - 1) as u32;
                *to_values.get_unchecked_mut(count) = *score;
                *to_elements.get_unchecked_mut(count) = *score;
            }
            count += usize::from(last > before);
            before = end;
        }
        lists.chunks += count;
        lists.listed += count;
        return fits.then_some(());
    }
    for (j, (end, score)) in ends.iter().zip(scores).enumerate() {
        let end: i64 = (*end).into();
        if before > end || end > len {
            return None;
        }
        let (a, b) = (before as usize, if j + 1 == n { at.len } else { end as usize });
        before = end;
        let Some(last) = scope.last_in(a, b) else { continue };
        lists.room(1).then_some(())?;
        lists.elements[elements] = *score;
        elements += 1;
        if job.config().chunk == Chunk::Step {
            (lists.ends[chunks], lists.values[chunks]) = (last as u32, *score);
            chunks += 1;
            continue;
        }
        let mut room = true;
        scope.runs(a, b, |_, y| {
            room = room && chunks + SPARE <= lists.ends.len();
            if room {
                (lists.ends[chunks], lists.values[chunks]) = (y as u32 - 1, *score);
                chunks += 1;
            }
        });
        room.then_some(())?;
        (lists.chunks, lists.listed) = (chunks, elements);
    }
    (lists.chunks, lists.listed) = (chunks, elements);
    Some(())
}
