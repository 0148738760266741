//! V-trace (Espeholt et al. 2018, arXiv 1802.01561): advantages and targets corrected by clipped importance ratios.
use super::scope::Scope;
use super::worker::Worker;
use crate::model::array::Array;
use crate::model::batch::Extent;
use crate::numerics::exp::exp;
use crate::plan::workspace::Rollout;

/// No ratio is beyond f32, and no sum beyond this: so nothing that comes of finite input is NaN.
const MOST: f64 = 1e250;

impl Worker<'_> {
    /// Advantages in d, targets vs in v: a value a token in scope, from the last.
    pub fn vtrace(&mut self, i: usize, at: &Extent, scope: &Scope, kept: &Rollout) {
        let job = self.job;
        let (problem, c) = (job.problem, job.config());
        let Some((policy, behavior)) = &problem.behavior else { return };
        let n = self.rewards(at, scope, kept);
        self.values(at, scope, n);
        let (policy, behavior) = (at.of(policy), at.of(behavior));
        let ratios = &mut self.lines[..n];
        let mut line = ratios.iter_mut();
        scope.runs(0, at.len, |a, b| (a..b).zip(&mut line).for_each(|(t, ratio)| *ratio = exp(policy.f64(t) - behavior.f64(t)).min(f32::MAX as f64)));
        let bootstrap = problem.bootstrap.map_or(0.0, |b| b.f32(i) as f64);
        let (mut value, mut target, mut a) = (bootstrap, bootstrap, 0.0);
        for t in (0..n).rev() {
            let (reward, v, ratio) = (self.d[t], self.v[t], ratios[t]);
            let rho = ratio.min(c.rho_clip);
            let delta = rho * ((reward + c.gamma * value) - v);
            a = (delta + (c.gamma * (c.lam * ratio.min(c.c_clip))) * a).clamp(-MOST, MOST);
            self.d[t] = rho * ((reward + c.gamma * target) - v);
            (value, target) = (v, v + a);
            self.v[t] = target;
        }
    }

    /// Tokens in scope with a log-probability that is not finite.
    pub fn bad_logps(&self, at: &Extent, scope: &Scope, (policy, behavior): &(Array, Array)) -> i64 {
        let (policy, behavior) = (at.of(policy), at.of(behavior));
        let mut bad = 0;
        scope.runs(0, at.len, |a, b| {
            bad += (a..b).filter(|t| !(policy.f64(*t).is_finite() && behavior.f64(*t).is_finite())).count() as i64;
        });
        bad
    }
}
