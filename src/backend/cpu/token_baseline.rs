//! Baselines a token: the advantages of a group's tokens at one place lose the weighted mean of the returns there (optimal token baseline). Three passes
//! over the group: weights and weighted returns with their maxima at each place, sums of integers on the grids that the maxima set, and, where each
//! rollout is shaped, the subtraction. Integers add in any order.
use super::members::Members;
use super::scope::Scope;
use super::shape::Group;
use super::worker::Worker;
use crate::model::batch::Extent;
use crate::model::config::*;
use crate::model::flags;
use crate::numerics::exact::{MAGIC, ROLLOUT_BITS, power_of_two};
use crate::numerics::exp::exp;
use crate::numerics::simd::dispatch;
use crate::plan::workspace::{Rollout, state};

/// Beside the sum of weights.
const EPSILON: f64 = 1e-8;
/// No weighted return and no baseline is beyond this, so that nothing that comes of finite input is NaN.
const MOST: f64 = 1e250;
/// Maxima below this (2^-900) count as 0: far below `EPSILON`, and the grid stays within f64.
const LEAST: f64 = f64::from_bits((1023 - 900) << 52);

/// A thread's tables, an entry a place of the group in work.
pub struct Places<'a> {
    /// Largest |G W|; then B.
    pub gain_most: &'a mut [f64],
    pub weight_most: &'a mut [f64],
    pub gain_sums: &'a mut [i64],
    pub weight_sums: &'a mut [i64],
}

/// The one rollout with the most tokens in scope has no baseline from place `from` on, where its only company is itself.
#[derive(Clone, Copy)]
pub struct Tail {
    pub rollout: usize,
    pub from: usize,
}

impl Tail {
    /// Every place has a baseline. (Not an `Option`: what lies under a `None` would be compared, which checkers of memory report.)
    pub const NONE: Tail = Tail { rollout: usize::MAX, from: usize::MAX };
}

/// 2^(46 - e) and 2^(e - 46) for 2^(e-1) <= most < 2^e.
fn grid(most: f64) -> (f64, f64) {
    if most < LEAST {
        return (0.0, 0.0);
    }
    let shift = ROLLOUT_BITS - ((most.to_bits() >> 52) as i32 - 1022);
    (power_of_two(shift), power_of_two(-shift))
}

/// rint(x up), |x up| at most 2^46.
fn quantize(x: f64, up: f64) -> i64 {
    ((x * up + MAGIC).to_bits() as i64).wrapping_sub(MAGIC.to_bits() as i64)
}

/// (sum G W) / (sum W + 1e-8); 0 where nothing is divided by.
fn baseline(gains: f64, weights: f64) -> f64 {
    let divisor = weights + EPSILON;
    if divisor == 0.0 { 0.0 } else { (gains / divisor).clamp(-MOST, MOST) }
}

/// Does the rollout count in the baselines?
fn counts(kept: &Rollout) -> bool {
    kept.count > 0 && kept.state & (state::OUT_OF_STATS | state::ZEROED) == 0
}

/// Places that a rollout reaches: tokens in scope, or tokens of its extent up to the last in scope.
fn reach(by: TokenBaseline, kept: &Rollout) -> usize {
    if by == TokenBaseline::Token { kept.count as usize } else { kept.end as usize }
}

/// Calls `each(line, place, count)` for runs of tokens in scope: the first's number among them, and its place.
fn runs(by: TokenBaseline, scope: &Scope, len: usize, mut each: impl FnMut(usize, usize, usize)) {
    let mut line = 0;
    scope.runs(0, len, |a, b| {
        each(line, if by == TokenBaseline::Token { line } else { a }, b - a);
        line += b - a;
    });
}

dispatch! {
    /// w of each token in place of its log-probability; those out of scope are no one's.
    fn weigh(squared: &[f64], ratio: &[f64], logps: &mut [f64]) {
        let limited = |x: f64| x.clamp(-f32::MAX as f64, f32::MAX as f64);
        for ((q, rho), logp) in squared.iter().zip(ratio).zip(logps) {
            let (p, q, rho) = (limited(exp(*logp)), limited(*q), limited(*rho));
            *logp = ((1.0 - 2.0 * p) + q) * (rho * rho);
        }
    }
}

dispatch! {
    /// Tokens of which an input is not finite.
    fn count_bad(logps: &[f64], squared: &[f64], ratio: &[f64]) -> i64 {
        logps.iter().zip(squared).zip(ratio).map(|((logp, q), rho)| i64::from(!(logp.is_finite() & q.is_finite() & rho.is_finite()))).sum()
    }
}

impl Worker<'_> {
    /// Keeps W of a rollout's tokens in scope: the sum of w up to and with each. A bad input is a finding, once a token.
    pub fn keep_baseline_weights(&mut self, at: &Extent, scope: &Scope, kept: &mut Rollout) {
        let job = self.job;
        let Some(inputs) = &job.problem.baseline_inputs else { return };
        let (policy, squared, ratio) = (at.of(&inputs.policy), at.of(&inputs.sum_pi_squared), inputs.ratio.as_ref().map(|array| at.of(array)));
        let (p, q, rho) = (&mut self.f[..at.len], &mut self.d[..at.len], &mut self.v[..at.len]);
        policy.read_f64(p);
        squared.read_f64(q);
        match ratio {
            Some(row) => row.read_f64(rho),
            None => rho.fill(1.0),
        }
        let mut bad = 0;
        scope.runs(0, at.len, |a, b| bad += count_bad(job.simd(), &p[a..b], &q[a..b], &rho[a..b]));
        weigh(job.simd(), q, rho, p);
        // SAFETY: the rollout's own list.
        let mut to = unsafe { job.baseline_weights(at) }.iter_mut();
        let mut sum = 0.0;
        scope.runs(0, at.len, |a, b| {
            for (w, to) in p[a..b].iter().zip(&mut to) {
                sum += w;
                *to = sum;
            }
        });
        if bad > 0 {
            kept.flags |= flags::ROLLOUT_NONFINITE;
            kept.state |= state::INFINITE;
            self.report.nonfinite_values += if job.counting { bad } else { 0 };
        }
    }

    /// B of every place of a group without findings, for `take_baseline`.
    pub fn baselines(&mut self, members: Members, group: &Group) -> Tail {
        let job = self.job;
        let by = job.config().token_baseline;
        // What credit counts is counted where the rollouts are shaped.
        let report = self.report;
        let (mut places, mut counted, mut most, mut second) = (0, 0, 0, 0);
        let mut tail = usize::MAX;
        for i in members.iter() {
            let kept = job.rollout(i);
            places = places.max(reach(by, &kept));
            if counts(&kept) {
                counted += 1;
                let n = kept.count as usize;
                if n > most {
                    (second, most, tail) = (most, n, i);
                } else {
                    second = second.max(n);
                }
            }
        }
        self.places.gain_most[..places].fill(0.0);
        if counted < 2 {
            return Tail::NONE;
        }
        self.places.weight_most[..places].fill(0.0);
        self.places.gain_sums[..places].fill(0);
        self.places.weight_sums[..places].fill(0);
        for i in members.iter() {
            self.weigh_returns(i, group);
        }
        for i in members.iter() {
            self.add_returns(i);
        }
        let to = &mut self.places;
        for place in 0..places {
            let (gains, weights) = (to.gain_sums[place] as f64 * grid(to.gain_most[place]).1, to.weight_sums[place] as f64 * grid(to.weight_most[place]).1);
            to.gain_most[place] = baseline(gains, weights);
        }
        self.report = report;
        if most > second { Tail { rollout: tail, from: second } } else { Tail::NONE }
    }

    /// First pass: G W of each token, and the maxima of its place.
    fn weigh_returns(&mut self, i: usize, group: &Group) {
        let job = self.job;
        let mut kept = job.rollout(i);
        if !counts(&kept) {
            return;
        }
        let at = job.problem.extent(i);
        let scope = job.kept_scope(i, &kept, &at);
        if job.config().kind == Kind::Kl {
            self.kl_chunks(i, &at, &scope, group.edges.as_ref(), &mut kept);
        }
        self.place = job.place(i, &kept, &at);
        let terms = self.terms(i, &at, &scope, &kept, group);
        self.credited(i, &at, &scope, &kept, group, &terms);
        let n = kept.count as usize;
        // SAFETY: the rollout's own lists.
        let (gains, weights) = unsafe { (job.baseline_gains(&at), job.baseline_weights(&at)) };
        for ((gain, weight), g) in gains[..n].iter_mut().zip(&weights[..n]).zip(&self.v[..n]) {
            *gain = (g * weight).clamp(-MOST, MOST);
        }
        let to = &mut self.places;
        runs(job.config().token_baseline, &scope, at.len, |line, place, count| {
            let most = |to: &mut [f64], from: &[f64]| to[place..].iter_mut().zip(&from[line..line + count]).for_each(|(to, x)| *to = to.max(x.abs()));
            most(to.gain_most, gains);
            most(to.weight_most, weights);
        });
    }

    /// Second pass: sums on the grids of the maxima.
    fn add_returns(&mut self, i: usize) {
        let job = self.job;
        let kept = job.rollout(i);
        if !counts(&kept) {
            return;
        }
        let at = job.problem.extent(i);
        let scope = job.kept_scope(i, &kept, &at);
        // SAFETY: the rollout's own lists.
        let (gains, weights) = unsafe { (job.baseline_gains(&at), job.baseline_weights(&at)) };
        let to = &mut self.places;
        runs(job.config().token_baseline, &scope, at.len, |line, place, count| {
            for k in 0..count {
                let at = place + k;
                // Fewer than 2^17 rollouts of 46 bits each.
                to.gain_sums[at] = to.gain_sums[at].wrapping_add(quantize(gains[line + k], grid(to.gain_most[at]).0));
                to.weight_sums[at] = to.weight_sums[at].wrapping_add(quantize(weights[line + k], grid(to.weight_most[at]).0));
            }
        });
    }

    /// Takes B from the advantages of a rollout's tokens in scope, in d.
    pub fn take_baseline(&mut self, i: usize, at: &Extent, scope: &Scope, tail: Tail) {
        let until = if tail.rollout == i { tail.from } else { usize::MAX };
        let (d, b) = (&mut *self.d, &*self.places.gain_most);
        runs(self.job.config().token_baseline, scope, at.len, |line, place, count| {
            let count = count.min(until.saturating_sub(place));
            d[line..line + count].iter_mut().zip(&b[place..]).for_each(|(d, b)| *d -= b);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grids_hold_46_bits_of_the_largest_value() {
        for most in [1.0, 0.75, 1e-8, 3e38, MOST, LEAST, 1.0 - f64::EPSILON] {
            let (up, down) = grid(most);
            let q = quantize(most, up);
            assert!((1 << 45..=1 << 46).contains(&q), "{most:e}: {q}");
            assert!((q as f64 * down - most).abs() <= most * 2f64.powi(-46), "{most:e}");
            assert_eq!(quantize(-most, up), -q);
        }
        assert_eq!(quantize(LEAST / 2.0, grid(LEAST / 2.0).0), 0);
    }
}
