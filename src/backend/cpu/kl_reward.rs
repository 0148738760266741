//! KL in the reward: a divergence from the reference policy a token in scope, taken from the rollout's outcome (its exact sum), the tokens' rewards or
//! the tokens' advantages.
use super::scope::Scope;
use super::steps;
use super::worker::{Job, Worker};
use crate::model::batch::Extent;
use crate::model::config::*;
use crate::model::flags;
use crate::numerics::exp::exp_minus_linear;
use crate::numerics::simd::dispatch;
use crate::plan::workspace::{Rollout, state};

dispatch! {
    /// d = policy - reference, not below `floor`; its divergence within +-`most`, rounded to f32. Not finite where a log-probability is not.
    pub fn divergence(kind: KlInReward, floor: f64, most: f64, policy: &[f64], reference: &[f64], to: &mut [f32]) {
        for ((p, r), to) in policy.iter().zip(reference).zip(to) {
            let d = (p - r).max(floor);
            let kl = match kind {
                KlInReward::K1 | KlInReward::None => d,
                KlInReward::K2 => (d * d) * 0.5,
                KlInReward::K3 => exp_minus_linear(d),
                KlInReward::Abs => d.abs(),
            };
            let there = p.is_finite() && r.is_finite();
            *to = if there { kl.clamp(-most, most) as f32 } else { f32::NAN };
        }
    }
}

impl<'a> Job<'a> {
    /// What the KL takes from the outcome of rollout i: `kl_coef` times its sum; 0 where that is not asked.
    pub fn kl_of(&self, i: usize) -> f64 {
        let c = self.config();
        if self.problem.reference.is_none() || c.kl_by_token() {
            return 0.0;
        }
        // SAFETY: written by `keep_kl` of the thread that has the rollout.
        c.kl_coef * unsafe { *self.kl_sum(i) } as f64
    }
}

impl Worker<'_> {
    /// Keeps the KL of a rollout's tokens in scope, or their sum. A bad log-probability, or a KL beyond f32, is a finding.
    pub fn keep_kl(&mut self, i: usize, at: &Extent, scope: &Scope, kept: &mut Rollout) {
        let job = self.job;
        let (problem, c) = (job.problem, job.config());
        let Some((policy, reference)) = &problem.reference else { return };
        let (p, r) = (&mut self.f[..at.len], &mut self.d[..at.len]);
        at.of(policy).read_f64(p);
        at.of(reference).read_f64(r);
        let by_token = c.kl_by_token();
        // SAFETY: the rollout's own list.
        let kl = if by_token { unsafe { job.kl(at) } } else { &mut self.compressed[..at.len] };
        divergence(job.simd(), c.kl_in_reward, -c.kl_log_ratio_clamp, c.kl_clamp, p, r, kl);
        let mut bad = 0;
        scope.runs(0, at.len, |a, b| bad += kl[a..b].iter().filter(|x| !x.is_finite()).count() as i64);
        if !scope.is_empty() && by_token && c.spreads() && c.scan_mask == ScanMask::None && c.kl_place == KlPlace::Reward {
            scope.gaps(scope.first, at.len, |a, b| bad += kl[a..b].iter().filter(|x| !x.is_finite()).count() as i64);
        }
        let mut sum = 0.0;
        if !by_token && bad == 0 {
            sum = steps::exact_sum(kl, scope, 0, at.len);
            bad = i64::from(!sum.is_finite());
        }
        if bad > 0 {
            kept.flags |= flags::ROLLOUT_NONFINITE;
            kept.state |= state::INFINITE;
            self.report.nonfinite_values += if job.counting { bad } else { 0 };
        }
        if !by_token {
            // SAFETY: the rollout is this thread's. The finding has been made: the outcome is no second one.
            unsafe { *job.kl_sum(i) = if bad > 0 { 0.0 } else { sum } };
        }
    }

    /// `scan_mask = none`: takes `kl_coef` times the KL of the tokens out of scope from their rewards, `lines` from the first in scope on.
    pub fn take_gap_kl(job: Job, at: &Extent, scope: &Scope, lines: &mut [f64]) {
        let c = job.config();
        if job.problem.reference.is_none() || c.scan_mask != ScanMask::None || c.kl_place != KlPlace::Reward {
            return;
        }
        // SAFETY: the rollout's own list, kept by `keep_kl`.
        let kl: &[f32] = unsafe { job.kl(at) };
        scope.gaps(scope.first, at.len, |a, b| (a..b).for_each(|t| lines[t - scope.first] -= c.kl_coef * kl[t] as f64));
    }

    /// Takes `kl_coef` times the KL of the tokens in scope from a line of theirs, `to` (in order), or (`spread`) at their place after the first.
    pub fn take_kl(job: Job, at: &Extent, scope: &Scope, spread: bool, to: &mut [f64]) {
        let coef = job.config().kl_coef;
        // SAFETY: the rollout's own list, kept by `keep_kl`.
        let kl: &[f32] = unsafe { job.kl(at) };
        let mut n = 0;
        scope.runs(0, at.len, |a, b| {
            let line = if spread { a - scope.first } else { n };
            to[line..].iter_mut().zip(&kl[a..b]).for_each(|(x, kl)| *x -= coef * *kl as f64);
            n += b - a;
        });
    }
}
