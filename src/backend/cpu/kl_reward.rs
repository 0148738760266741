//! KL in the reward: a divergence from the reference policy a token in scope, taken from the rollout's outcome (its exact sum), the tokens' rewards or
//! the tokens' advantages.
use super::pieces::Joint;
use super::scope::Scope;
use super::steps;
use super::worker::{Job, Worker};
use crate::model::batch::Extent;
use crate::model::config::*;
use crate::model::flags;
use crate::model::pieces as words;
use crate::numerics::exact::{self, Extremes, Grid};
use crate::numerics::exp::exp_minus_linear;
use crate::numerics::simd::dispatch;
use crate::plan::partials::Stage;
use crate::plan::workspace::{Rollout, state};

/// `of` each d = policy - reference, not below `floor`.
#[inline(always)]
fn each(floor: f64, most: f64, policy: &[f64], reference: &[f64], to: &mut [f32], of: impl Fn(f64) -> f64) {
    for ((p, r), to) in policy.iter().zip(reference).zip(to) {
        let there = p.is_finite() & r.is_finite();
        let kl = of((p - r).max(floor)).clamp(-most, most) as f32;
        *to = if there { kl } else { f32::NAN };
    }
}

dispatch! {
    /// d = policy - reference, not below `floor`; its divergence within +-`most`, rounded to f32. Not finite where a log-probability is not.
    pub fn divergence(kind: KlInReward, floor: f64, most: f64, policy: &[f64], reference: &[f64], to: &mut [f32]) {
        match kind {
            KlInReward::K1 | KlInReward::None => each(floor, most, policy, reference, to, |d| d),
            KlInReward::K2 => each(floor, most, policy, reference, to, |d| (d * d) * 0.5),
            KlInReward::K3 => each(floor, most, policy, reference, to, exp_minus_linear),
            KlInReward::Abs => each(floor, most, policy, reference, to, |d| d.abs()),
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
        let by_token = c.kl_by_token();
        let in_gaps = by_token && c.spreads() && c.scan_mask == ScanMask::None && c.kl_place == KlPlace::Reward;
        // Of tokens before and after the scope it is not asked.
        let (first, end) = if in_gaps { (0, at.len) } else { (scope.first, scope.end) };
        let (p, r) = (&mut self.f[first..end], &mut self.d[first..end]);
        let own = at.part(first, end);
        own.of(policy).read_f64(p);
        own.of(reference).read_f64(r);
        // SAFETY: the rollout's own list.
        let kl = if by_token { unsafe { job.kl(at) } } else { &mut self.compressed[..at.len] };
        divergence(job.simd(), c.kl_in_reward, -c.kl_log_ratio_clamp, c.kl_clamp, p, r, &mut kl[first..end]);
        let mut bad = 0;
        scope.runs(0, at.len, |a, b| bad += kl[a..b].iter().filter(|x| !x.is_finite()).count() as i64);
        if in_gaps {
            scope.gaps(job.line(i, kept, at), at.len, |a, b| bad += kl[a..b].iter().filter(|x| !x.is_finite()).count() as i64);
        }
        let mut sum = 0.0;
        if let (Some(joint), false) = (&job.joint, by_token) {
            let mut own = Extremes::EMPTY;
            scope.runs(0, at.len, |a, b| own.add(&exact::extremes(job.simd(), &kl[a..b])));
            if let Some(found) = Self::joint_kl(job, joint, i, at, own.absmax, |grid| {
                let mut q = 0i64;
                scope.runs(0, at.len, |a, b| q += steps::sum_on(job.simd(), grid, &kl[a..b]));
                q
            }) {
                sum = found;
                if bad == 0 && !sum.is_finite() {
                    kept.flags |= flags::ROLLOUT_NONFINITE;
                    kept.state |= state::INFINITE;
                    bad = i64::from(job.is_head(i));
                }
                sum = if sum.is_finite() { sum } else { 0.0 };
            }
        } else if !by_token && bad == 0 {
            sum = steps::exact_sum(job.simd(), kl, scope, 0, at.len);
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

    /// KL of a rollout in pieces: tells the largest, then the sum on the grid that all pieces' largest sets; then it is known. A piece with a bad value is a finding of its own.
    fn joint_kl(job: &Job, joint: &Joint, i: usize, at: &Extent, own: i32, sum: impl Fn(&Grid) -> i64) -> Option<f32> {
        let (rollout, piece) = job.piece(i);
        if joint.stage == Some(Stage::Edges) {
            // SAFETY: the piece's group is this thread's; likewise below.
            let word = unsafe { &mut joint.layout.row(joint.buffer, rollout, piece)[words::MOST] };
            *word = word.wrapping_add(own as i64);
            return None;
        }
        let most = job.rows(rollout)?.most(0);
        if most >= exact::INFINITE {
            return None;
        }
        let grid = Grid::new(steps::sum_bits(at.whole), most);
        // SAFETY: as above.
        let word = unsafe { joint.layout.own_kl(joint.buffer, rollout) };
        if joint.stage == Some(Stage::Own) {
            *word = word.wrapping_add(sum(&grid));
            return None;
        }
        Some((*word as f64 * grid.down) as f32)
    }

    /// `scan_mask = none`: takes `kl_coef` times the KL of the tokens out of scope from their rewards, `lines` from token `first` on.
    pub fn take_gap_kl(job: &Job, at: &Extent, scope: &Scope, first: usize, lines: &mut [f64]) {
        let c = job.config();
        if job.problem.reference.is_none() || c.scan_mask != ScanMask::None || c.kl_place != KlPlace::Reward {
            return;
        }
        // SAFETY: the rollout's own list, kept by `keep_kl`.
        let kl: &[f32] = unsafe { job.kl(at) };
        scope.gaps(first, at.len, |a, b| (a..b).for_each(|t| lines[t - first] -= c.kl_coef * kl[t] as f64));
    }

    /// Takes `kl_coef` times the KL of the tokens in scope from a line of theirs, `to` (in order), or at their place after token `first`.
    pub fn take_kl(job: &Job, at: &Extent, scope: &Scope, first: Option<usize>, to: &mut [f64]) {
        let coef = job.config().kl_coef;
        // SAFETY: the rollout's own list, kept by `keep_kl`.
        let kl: &[f32] = unsafe { job.kl(at) };
        let mut n = 0;
        scope.runs(0, at.len, |a, b| {
            let line = first.map_or(n, |first| a - first);
            to[line..].iter_mut().zip(&kl[a..b]).for_each(|(x, kl)| *x -= coef * *kl as f64);
            n += b - a;
        });
    }
}
