//! Credit: chunk values to advantages, by return-to-go and Divide-Length (eq. 7) or broadcast. GAE is in `gae`, V-trace in `vtrace`.
use super::gae::rounded;
use super::returns;
use super::scope::Scope;
use super::terms::Terms;
use super::worker::Worker;
use crate::model::batch::Extent;
use crate::model::config::*;
use crate::plan::workspace::Rollout;

/// Every token's value from token `first` on, in place: to those of the tokens in scope.
pub fn gather(scope: &Scope, first: usize, len: usize, lines: &mut [f64]) {
    let mut n = 0;
    scope.runs(0, len, |a, b| {
        lines.copy_within(a - first..b - first, n);
        n += b - a;
    });
}

impl Worker<'_> {
    /// G in v, D in d: a value a chunk.
    pub fn credit(&mut self, at: &Extent, scope: &Scope, kept: &Rollout, terms: &Terms) {
        let job = self.job;
        let (c, plan, simd) = (job.config(), job.plan, job.simd());
        // Of a piece: the chunks that end in it, then the one that goes on, if any.
        let (k, own) = (kept.chunks as usize, kept.own_chunks());
        let apart = c.divide_scope == DivideScope::Process && c.fusion == Fusion::Advantage;
        let (f, d, v) = (&mut self.f[..own], &mut self.d[..own], &mut self.v[..own]);
        match (apart, terms.gated) {
            // f holds process + terms, the chunk values; `fuse` has left the process part in d. A wrong format has none.
            (true, None) => v.copy_from_slice(d),
            (true, Some(_)) => v.fill(0.0),
            (false, _) => v.copy_from_slice(f),
        }
        self.add_token_rewards(at, scope);
        if job.problem.reference.is_some() && c.kl_place == KlPlace::Reward {
            Self::take_kl(job, at, scope, None, &mut self.v[..own]);
        }
        if self.place.joint && !c.spreads() {
            let v = std::mem::take(&mut self.v);
            self.joint_credit(false, own, k, &plan.decay, v);
            self.v = v;
            if self.tells {
                return;
            }
        }
        if c.spreads() {
            let first = self.place.line;
            let all = std::mem::take(&mut self.lines);
            let lines = &mut all[..at.len - first];
            let mut n = 0;
            scope.runs(0, at.len, |a, b| {
                lines[a - first..b - first].copy_from_slice(&self.v[n..n + b - a]);
                n += b - a;
            });
            Self::take_gap_kl(job, at, scope, first, lines);
            if self.place.joint {
                let n = lines.len();
                self.joint_credit(true, n, n, &plan.decay, all);
            } else {
                returns::scan(simd, lines, &plan.decay);
            }
            gather(scope, first, at.len, all);
            self.v[..k].copy_from_slice(&all[..k]);
            self.lines = all;
            if self.tells {
                return;
            }
        } else if c.credit == Credit::ReturnToGo && !self.place.joint {
            returns::scan(simd, &mut self.v[..k], &plan.decay);
        }
        let v = &mut self.v[..k];
        let d = &mut self.d[..k];
        let divisors: &[f64] = if c.k == 0.0 { &[] } else { &plan.divisors[plan.limits.rollout_tokens - (self.place.after + own)..] };
        if c.k == 0.0 {
            d.copy_from_slice(v);
        } else {
            returns::divide(simd, v, divisors, d);
        }
        if apart {
            // A place other than every is refused with `divide_scope = process`.
            let sum = terms.gated.map_or_else(|| terms.sum(), |gated| gated.every);
            d.iter_mut().for_each(|d| *d += sum);
            v.iter_mut().for_each(|g| *g += sum);
        }
    }

    /// `chunk = token`: each token's reward (in v) gains its own.
    fn add_token_rewards(&mut self, at: &Extent, scope: &Scope) {
        let Some(row) = self.job.problem.token_rewards.as_ref().map(|array| at.of(array)) else { return };
        let (from, mut n) = (rounded(&row, self.compressed), 0);
        scope.runs(0, at.len, |a, b| {
            self.v[n..].iter_mut().zip(&from[a..b]).for_each(|(r, x)| *r += *x as f64);
            n += b - a;
        });
    }
}
