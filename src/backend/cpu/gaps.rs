//! `scan_mask` other than carry: what tokens out of scope bring to the scan.
use super::scope::Scope;
use super::shape::Group;
use super::steps;
use super::terms::Terms;
use super::worker::Worker;
use crate::model::batch::{Extent, Process};
use crate::model::config::*;
use crate::model::flags;
use crate::numerics::exact::{Extremes, INFINITE};
use crate::plan::workspace::{Rollout, state};

impl Worker<'_> {
    /// Does a token out of scope bring its own process value? It does where each token is a chunk and has a value of its own.
    fn process_in_gaps(&self, kept: &Rollout) -> bool {
        kept.state & state::HAS_PROCESS != 0 && self.reads_gaps()
    }

    fn reads_gaps(&self) -> bool {
        let (problem, c) = (self.job.problem, self.job.config());
        let by_token = match problem.process {
            Process::Signal(_) => problem.step_marks.is_none(),
            Process::LogProbs { .. } => c.kind == Kind::Kl,
            _ => false,
        };
        // GAE takes the caller's rewards in place of the chunks' values.
        let replaced = c.credit == Credit::Gae && problem.token_rewards.is_some();
        // With sets of steps F is the step's, and a token out of scope has none.
        problem.step_group.is_none() && c.spreads() && c.scan_mask == ScanMask::None && c.chunk == Chunk::Token && by_token && !replaced
    }

    /// Rewards of the tokens out of scope, from the first in scope on, in `lines`; 0 in scope. Uses f, d and v.
    pub fn gap_rewards(&mut self, i: usize, at: &Extent, scope: &Scope, kept: &Rollout, group: &Group, terms: &Terms) {
        let job = self.job;
        let (problem, c, slots) = (job.problem, job.config(), &job.plan.slots);
        let first = self.place.line;
        let lines = std::mem::take(&mut self.lines);
        lines[..at.len - first].fill(0.0);
        if self.process_in_gaps(kept) && terms.gated.is_none() {
            let counts = kept.state & state::OUT_OF_STATS == 0;
            for p in 0..if slots.joint { 1 } else { problem.num_process } {
                let slot = if slots.joint { 1 } else { p };
                let standard = &group.standards[slot];
                let mut lost = 0;
                let apply = standard.resolve(counts, || self.own_sums(i, kept, slot, group.state), &mut lost);
                let weight = if slots.shaped { 1.0 } else { c.streams[p].weight };
                let shape = slots.shaped.then(|| job.shaped_reward(i));
                let xs = self.load(at, p);
                scope.gaps(first, at.len, |a, b| {
                    // A NaN that is no finding is a missing value: it contributes 0.
                    for t in (a..b).filter(|t| !xs[*t].is_nan()) {
                        let x = shape.as_ref().map_or(xs[t], |shape| shape(xs[t]));
                        lines[t - first] += weight * standard.one(apply, x, &mut lost);
                    }
                });
                self.report.lost_deviations += lost;
            }
        }
        if let (Some(array), ScanMask::None, Credit::ReturnToGo) = (&problem.token_rewards, c.scan_mask, c.credit) {
            let row = at.of(array);
            scope.gaps(first, at.len, |a, b| (a..b).for_each(|t| lines[t - first] += row.f32(t) as f64));
        }
        let has_end = first < at.len && at.begin + at.len == at.whole;
        if let (Some(beyond), ScanMask::None, true) = (terms.beyond, c.scan_mask, has_end) {
            // `place = end` means the extent's last token, in scope or not.
            lines[at.len - first - 1] += beyond;
        }
        self.lines = lines;
    }

    /// Process values out of scope that the scan will read; a bad one is a finding of its stream. `each(list, key)` for every stream that has one.
    pub fn gap_extremes(&mut self, i: usize, kept: &Rollout, mut each: impl FnMut(&mut Self, usize, i32)) {
        if !self.process_in_gaps(kept) {
            return;
        }
        let job = self.job;
        let at = job.problem.extent(i);
        let scope = job.kept_scope(i, kept, &at);
        for p in 0..job.problem.num_process {
            let error = job.config().streams[p].missing == Missing::Error;
            let (mut found, mut bad) = (Extremes::EMPTY, 0);
            let shape = job.plan.slots.shaped.then(|| job.shaped_reward(i));
            let xs = self.load(&at, p);
            scope.gaps(job.line(i, kept, &at), at.len, |a, b| {
                for x in xs[a..b].iter().filter(|x| error || !x.is_nan()) {
                    bad += i64::from(!x.is_finite());
                    // A shaped reward may be beyond f32 where its signal is not.
                    let x = shape.as_ref().map_or(*x, |shape| shape(*x));
                    if !x.is_finite() {
                        found.push(x);
                    }
                }
            });
            if found.absmax >= INFINITE {
                self.report.nonfinite_values += if job.counting { bad } else { 0 };
                each(self, p, found.absmax);
            }
        }
    }

    /// Of a piece whose edges are told: is a value that the scan would read before its first token in scope a finding? It is if the rollout's scope begins in an earlier piece.
    pub fn bad_before(&mut self, i: usize, kept: &Rollout) -> bool {
        let job = self.job;
        let (problem, c) = (job.problem, job.config());
        if !c.spreads() || c.scan_mask != ScanMask::None || kept.flags & (flags::ROLLOUT_ABSENT | flags::ROLLOUT_BAD_STEPS) != 0 {
            return false;
        }
        let at = problem.extent(i);
        let before = if kept.count > 0 { kept.first as usize } else { at.len };
        let mut bad = false;
        for array in [&problem.values, &problem.token_rewards].into_iter().flatten() {
            let row = at.of(array);
            bad |= (0..before).any(|t| !row.f32(t).is_finite());
        }
        if problem.reference.is_some() && c.kl_place == KlPlace::Reward {
            // SAFETY: the rollout's own list, kept by `keep_kl`.
            bad |= unsafe { job.kl(&at) }[..before].iter().any(|x| !x.is_finite());
        }
        let stepless = problem.steps.as_ref().is_some_and(|csr| {
            let (from, to) = steps::numbers(csr, problem.row(i));
            c.kind == Kind::Prm && from == to
        });
        if self.reads_gaps() && !stepless {
            for p in 0..problem.num_process {
                let error = c.streams[p].missing == Missing::Error;
                let shape = job.plan.slots.shaped.then(|| job.shaped_reward(i));
                let read = |x: &f32| shape.as_ref().map_or(*x, |shape| shape(*x));
                bad |= self.load(&at, p)[..before].iter().filter(|x| error || !x.is_nan()).any(|x| !read(x).is_finite());
            }
        }
        bad
    }
}
