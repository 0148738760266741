//! Credit: chunk values to advantages, by return-to-go and Divide-Length (eq. 7), broadcast, or GAE.
use super::expand::Chunks;
use super::returns;
use super::scope::Scope;
use super::terms::Terms;
use super::worker::Worker;
use crate::model::batch::Extent;
use crate::model::config::*;
use crate::plan::workspace::{Rollout, state};

impl Worker<'_> {
    /// G in v, D in d: a value a chunk.
    pub fn credit(&mut self, kept: &Rollout, terms: &Terms) {
        let job = self.job;
        let (c, plan, simd) = (job.config(), job.plan, job.simd());
        let k = kept.chunks as usize;
        let apart = c.divide_scope == DivideScope::Process && c.fusion == Fusion::Advantage;
        let (f, d, v) = (&mut self.f[..k], &mut self.d[..k], &mut self.v[..k]);
        if let (true, Some(gated)) = (apart, terms.gated) {
            // A place other than every is refused with `divide_scope = process`.
            v.fill(gated.every);
            return d.fill(gated.every);
        }
        if apart {
            // f holds process + terms, the chunk values; `fuse` has left the process part in d.
            v.copy_from_slice(d);
        } else {
            v.copy_from_slice(f);
        }
        if c.credit == Credit::ReturnToGo {
            returns::scan(simd, v, &plan.decay);
        }
        let divisors: &[f64] = if c.k == 0.0 { &[] } else { &plan.divisors[plan.limits.rollout_tokens - k..] };
        if c.k == 0.0 {
            d.copy_from_slice(v);
        } else {
            returns::divide(simd, v, divisors, d);
        }
        if apart {
            let sum = terms.sum();
            d.iter_mut().for_each(|d| *d += sum);
            v.iter_mut().for_each(|g| *g += sum);
        }
    }

    /// Advantages in d, returns in v: a value a token in scope. r = a_j on the last token of chunk j, or the caller's token rewards.
    pub fn gae(&mut self, i: usize, at: &Extent, scope: &Scope, kept: &Rollout) {
        let job = self.job;
        let (problem, c, simd) = (job.problem, job.config(), job.simd());
        let n = kept.count as usize;
        let k = kept.chunks as usize;
        // Rewards to d, values to v; f keeps the chunk values.
        let (rewards, values) = (&mut self.d[..n], &mut self.v[..n]);
        let mut token = 0;
        match &problem.token_rewards {
            Some(array) => {
                let row = at.of(array);
                scope.runs(0, at.len, |a, b| {
                    for t in a..b {
                        rewards[token] = row.f32(t) as f64;
                        token += 1;
                    }
                });
            }
            None => {
                rewards.fill(0.0);
                // SAFETY: the rollout's own list.
                let last: &[u32] = unsafe { job.last(at) };
                let chunks = if kept.state & state::EVERY_TOKEN != 0 { Chunks::EveryToken } else { Chunks::Last(&last[..k]) };
                let f = &self.f[..k];
                let mut after = 0;
                chunks.each(scope, |j, a, b| {
                    after += scope.count_in(a, b);
                    rewards[after - 1] = f[j];
                });
            }
        }
        token = 0;
        if let Some(array) = &problem.values {
            let row = at.of(array);
            let line = match row.slice::<f32>() {
                Some(line) if row.dtype() == crate::model::array::DType::F32 => line,
                _ => {
                    let line = &mut self.compressed[..at.len];
                    row.read_f32(line);
                    &*line
                }
            };
            scope.runs(0, at.len, |a, b| {
                for x in &line[a..b] {
                    values[token] = *x as f64;
                    token += 1;
                }
            });
        }
        let after = if n > 0 { problem.bootstrap.map_or(0.0, |b| b.f32(i) as f64) } else { 0.0 };
        // A in place of the rewards; the deltas read a reward and two values and write where the reward was.
        let mut next = after;
        for t in (0..n).rev() {
            rewards[t] = (rewards[t] + c.gamma * next) - values[t];
            next = values[t];
        }
        returns::scan(simd, rewards, &job.plan.decay);
        for (value, a) in values.iter_mut().zip(rewards.iter()) {
            *value += *a;
        }
    }
}
