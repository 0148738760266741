//! V-trace (Espeholt et al. 2018, arXiv 1802.01561): advantages and targets corrected by clipped importance ratios.
use super::logps::{self, Logp, by_logp};
use super::scope::Scope;
use super::worker::Worker;
use crate::model::array::{Array, Row};
use crate::model::batch::Extent;
use crate::numerics::simd::Simd;
use crate::plan::workspace::Rollout;

/// No ratio is beyond f32 (`logps::ratio`), and no sum beyond this: so nothing that comes of finite input is NaN.
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
        let simd = job.simd();
        let made = by_logp!(policy.dtype(), T => make_ratios::<T>(simd, &policy, &behavior, scope, ratios));
        if made.is_none() {
            let mut line = ratios.iter_mut();
            scope.runs(0, at.len, |a, b| (a..b).zip(&mut line).for_each(|(t, ratio)| *ratio = logps::ratio(policy.f64(t), behavior.f64(t))));
        }
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
        let (simd, policy, behavior) = (self.job.simd(), at.of(policy), at.of(behavior));
        let found = by_logp!(policy.dtype(), T => count_bad::<T>(simd, &policy, &behavior, scope));
        found.unwrap_or_else(|| {
            let mut bad = 0;
            scope.runs(0, at.len, |a, b| {
                bad += (a..b).filter(|t| !(policy.f64(*t).is_finite() && behavior.f64(*t).is_finite())).count() as i64;
            });
            bad
        })
    }
}

/// Ratios of the tokens in scope, where both log-probabilities lie side by side and are of type T.
fn make_ratios<T: Logp>(simd: Simd, policy: &Row, behavior: &Row, scope: &Scope, to: &mut [f64]) -> Option<()> {
    let (p, q) = (logps::slice::<T>(policy)?, logps::slice::<T>(behavior)?);
    let mut n = 0;
    scope.runs(0, p.len(), |a, b| {
        T::ratios(simd, &p[a..b], &q[a..b], &mut to[n..n + b - a]);
        n += b - a;
    });
    Some(())
}

/// Likewise, how many tokens in scope have one that is not finite.
fn count_bad<T: Logp>(simd: Simd, policy: &Row, behavior: &Row, scope: &Scope) -> Option<i64> {
    let (p, q) = (logps::slice::<T>(policy)?, logps::slice::<T>(behavior)?);
    let mut bad = 0;
    scope.runs(0, p.len(), |a, b| bad += T::bad(simd, &p[a..b], &q[a..b]));
    Some(bad)
}
