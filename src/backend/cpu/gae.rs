//! GAE over tokens or over chunks. Lines are what the scan runs over: tokens in scope, with `scan_mask` other than carry every token from the first in
//! scope on, or chunks.
use std::borrow::Cow;
use super::credit::gather;
use super::expand::Chunks;
use super::returns;
use super::scope::Scope;
use super::worker::Worker;
use crate::model::array::{DType, Row};
use crate::model::batch::Extent;
use crate::model::config::*;
use crate::numerics::simd::dispatch;
use crate::numerics::table::decay_powers;
use crate::plan::workspace::{Rollout, state};

/// Calls `each(begin, end, line of begin)` for the runs of tokens whose own rewards and values take part.
pub fn taking_part(scope: &Scope, first: usize, len: usize, mask: ScanMask, mut each: impl FnMut(usize, usize, usize)) {
    if mask == ScanMask::None {
        return each(first, len, 0);
    }
    let mut n = 0;
    scope.runs(0, len, |a, b| {
        each(a, b, if mask == ScanMask::Carry { n } else { a - first });
        n += b - a;
    });
}

/// Values of a line, rounded to f32: the caller's memory where that will do, else `to`.
pub fn rounded<'s>(row: &'s Row, to: &'s mut [f32]) -> &'s [f32] {
    match row.slice::<f32>() {
        Some(line) if row.dtype() == DType::F32 => line,
        _ => {
            let to = &mut to[..row.len()];
            row.read_f32(to);
            to
        }
    }
}

dispatch! {
    /// Deltas in place of rewards, of all lines but the last.
    fn deltas(gamma: f64, values: &[f64], rewards: &mut [f64]) {
        for (reward, pair) in rewards.iter_mut().zip(values.windows(2)) {
            *reward = (*reward + gamma * pair[1]) - pair[0];
        }
    }
}

impl<'a> Worker<'a> {
    /// Has each rollout a coefficient of its own?
    pub fn own_powers(&self) -> bool {
        let c = self.job.config();
        c.credit == Credit::Gae && (self.job.problem.rollout_lam.is_some() || c.lam_length_alpha > 0.0)
    }

    /// Powers of the scan's coefficient.
    pub fn scan_powers(&self, i: usize, kept: &Rollout) -> Cow<'a, [f64; 33]> {
        let (c, plan) = (self.job.config(), self.job.plan);
        if self.own_powers() { Cow::Owned(decay_powers(c.gamma * self.lambda(i, kept))) } else { Cow::Borrowed(&plan.decay) }
    }
}

impl Worker<'_> {
    /// Rewards of a line a token in d: the caller's, or a_j on the last token of chunk j (f); less the KL. Returns how many lines there are.
    pub fn rewards(&mut self, at: &Extent, scope: &Scope, kept: &Rollout) -> usize {
        let job = self.job;
        let (problem, c) = (job.problem, job.config());
        let spread = c.scan_mask != ScanMask::Carry;
        let (k, first) = (kept.chunks as usize, self.place.line);
        let n = if spread { at.len - first } else { kept.count as usize };
        let rewards = &mut self.d[..n];
        match &problem.token_rewards {
            Some(array) => {
                if spread {
                    rewards.fill(0.0);
                }
                let row = at.of(array);
                let from = rounded(&row, self.compressed);
                taking_part(scope, first, at.len, c.scan_mask, |a, b, line| {
                    rewards[line..].iter_mut().zip(&from[a..b]).for_each(|(r, x)| *r = *x as f64);
                });
            }
            None => {
                if spread {
                    rewards.copy_from_slice(&self.lines[..n]);
                } else {
                    rewards.fill(0.0);
                }
                // SAFETY: the rollout's own list.
                let last: &[u32] = unsafe { job.last(at) };
                let chunks = if kept.state & state::EVERY_TOKEN != 0 { Chunks::EveryToken } else { Chunks::Last(&last[..k]) };
                let f = &self.f[..kept.own_chunks()];
                let mut after = 0;
                chunks.each(scope, |j, a, b| {
                    after += scope.count_in(a, b);
                    // Of a piece the last chunk may go on in another, which has its reward.
                    if let Some(f) = f.get(j) {
                        rewards[if spread { b - 1 - first } else { after - 1 }] = *f;
                    }
                });
            }
        }
        if problem.reference.is_some() && c.kl_place == KlPlace::Reward {
            Self::take_kl(job, at, scope, spread.then_some(first), rewards);
        }
        if spread {
            Self::take_gap_kl(job, at, scope, first, rewards);
        }
        n
    }

    /// Lambda of rollout i.
    fn lambda(&self, i: usize, kept: &Rollout) -> f64 {
        let c = self.job.config();
        match &self.job.problem.rollout_lam {
            Some(given) => given.f32(self.job.problem.row(i)) as f64,
            None if c.lam_length_alpha > 0.0 => (1.0 - 1.0 / (c.lam_length_alpha * kept.total as f64)).max(0.0),
            None => c.lam,
        }
    }

    /// From rewards in d and values in v, n lines: advantages in d, returns in v. Of a piece whose last chunk goes on in a later one there are `all` > n.
    fn advantages(&mut self, i: usize, kept: &Rollout, by_token: bool, n: usize, all: usize) {
        let job = self.job;
        let (c, simd) = (job.config(), job.simd());
        let (rewards, values) = (&mut self.d[..n], &mut self.v[..all]);
        let bootstrap = || if n > 0 { job.problem.bootstrap.map_or(0.0, |b| b.f32(job.problem.row(i)) as f64) } else { 0.0 };
        let next = if all > n { values[n] } else { job.next_value(i).unwrap_or_else(bootstrap) };
        // A in place of the rewards.
        if let Some((last, others)) = rewards.split_last_mut() {
            deltas(simd, c.gamma, &values[..n], others);
            *last = (*last + c.gamma * next) - values[n - 1];
        }
        if c.lam_returns >= 0.0 {
            let apart = std::mem::take(&mut self.lines);
            apart[..n].copy_from_slice(rewards);
            let powers = decay_powers(c.gamma * c.lam_returns);
            if self.place.joint {
                self.joint_scan(1, by_token, n, all, &powers, apart);
            } else {
                returns::scan(simd, &mut apart[..n], &powers);
            }
            self.v[..all].iter_mut().zip(&apart[..all]).for_each(|(value, a)| *value += *a);
            self.lines = apart;
        }
        let powers = self.scan_powers(i, kept);
        if self.place.joint {
            let d = std::mem::take(&mut self.d);
            self.joint_credit(by_token, n, all, &powers, d);
            self.d = d;
        } else {
            returns::scan(simd, &mut self.d[..n], &powers);
        }
        if c.lam_returns < 0.0 {
            self.v[..all].iter_mut().zip(&self.d[..all]).for_each(|(value, a)| *value += *a);
        }
    }

    /// Values of a line a token in v; 0 where a token takes part without its own.
    pub fn values(&mut self, at: &Extent, scope: &Scope, n: usize) {
        let (problem, c, first) = (self.job.problem, self.job.config(), self.place.line);
        let values = &mut self.v[..n];
        if c.scan_mask != ScanMask::Carry {
            values.fill(0.0);
        }
        if let Some(array) = &problem.values {
            let row = at.of(array);
            let from = rounded(&row, self.compressed);
            taking_part(scope, first, at.len, c.scan_mask, |a, b, line| {
                values[line..].iter_mut().zip(&from[a..b]).for_each(|(v, x)| *v = *x as f64);
            });
        }
    }

    /// Advantages in d, returns in v: a value a token in scope.
    pub fn gae(&mut self, i: usize, at: &Extent, scope: &Scope, kept: &Rollout) {
        let spread = self.job.config().scan_mask != ScanMask::Carry;
        if if spread { self.place.line == at.len } else { scope.is_empty() } {
            return;
        }
        let n = self.rewards(at, scope, kept);
        self.values(at, scope, n);
        self.advantages(i, kept, true, n, n);
        if spread {
            gather(scope, self.place.line, at.len, self.d);
            gather(scope, self.place.line, at.len, self.v);
        }
    }

    /// The units are chunks: r = a_j, V at the chunk's first token in scope. A value a chunk.
    pub fn gae_over_chunks(&mut self, i: usize, at: &Extent, scope: &Scope, kept: &Rollout) {
        let job = self.job;
        let (k, own) = (kept.chunks as usize, kept.own_chunks());
        self.d[..own].copy_from_slice(&self.f[..own]);
        // SAFETY: the rollout's own list.
        let last: &[u32] = unsafe { job.last(at) };
        let chunks = if kept.state & state::EVERY_TOKEN != 0 { Chunks::EveryToken } else { Chunks::Last(&last[..k]) };
        if let Some(array) = &job.problem.values {
            let row = at.of(array);
            let values = &mut self.v[..k];
            chunks.each(scope, |j, a, b| values[j] = scope.first_in(a, b).map_or(0.0, |t| row.f32(t) as f64));
        }
        if let (true, Some(before)) = (k > 0, self.value_before()) {
            self.v[0] = before;
        }
        self.advantages(i, kept, false, own, k);
    }
}
