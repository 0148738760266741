//! GAE over the tokens in scope, from rewards and values to advantages and returns in one pass.
use super::lanes::{Line, TILE};
use super::{Way, bits, steered, went, wide};
use crate::backend::cpu::scope::Scope;
use crate::backend::cpu::shape::Sink;
use crate::backend::cpu::terms::Terms;
use crate::backend::cpu::worker::Worker;
use crate::model::array::Array;
use crate::model::batch::Extent;
use crate::model::config::{Fusion, ScanMask};
use crate::numerics::simd::Simd;
use crate::plan::workspace::Rollout;

/// Bits of the magnitude from which on a result may have to be saturated or be no number: 1e38.
pub(super) const LIMIT: u32 = 1e38f32.to_bits();

impl Worker<'_> {
    /// The reward of the last token in scope where none are given a token: F of the only chunk.
    fn last_reward(terms: &Terms) -> f64 {
        match terms.gated {
            Some(gated) => gated.last,
            None => (if terms.placed { terms.at_last() } else { terms.every() }).iter().fold(0.0, |f, t| f + t),
        }
    }

    /// Positions of a `scan_mask` other than carry that come after the last token in scope and are scanned, as the tiles of the scan are counted from the extent's
    /// end: whole tiles of them change nothing. `None`: other tokens out of scope take part, or something comes from the end.
    fn tail_of_zeros(&self, at: &Extent, scope: &Scope, next: f64) -> Option<usize> {
        let c = self.job.config();
        let after = at.len - scope.end;
        if !c.spreads() || (after == 0 && !scope.has_holes()) {
            return Some(0);
        }
        let tail = after % TILE;
        // What is short is scanned in another way.
        let usual = c.scan_mask == ScanMask::Decay && !scope.has_holes() && next == 0.0 && (tail == 0 || scope.count + tail > TILE);
        usual.then_some(tail)
    }

    /// A rollout that is not a usual one: its rewards and values are judged before the general stages read them.
    fn left_to_others(&mut self, i: usize, at: &Extent, kept: &Rollout) -> Option<f64> {
        if !self.late || !self.credit_extremes(i, kept, at, false).is_bad() {
            return None;
        }
        went(Way::Again);
        self.unclean = true;
        Some(0.0)
    }

    pub(super) fn usual_gae(&mut self, i: usize, at: &Extent, scope: &Scope, kept: &Rollout, terms: &Terms, sink: Sink) -> Option<f64> {
        let job = self.job;
        let (problem, c) = (job.problem, job.config());
        let (outputs, values) = (job.outputs?, problem.values.as_ref()?);
        let keep = matches!(sink, Sink::Keep);
        if !keep && !matches!(sink, Sink::Write(None)) {
            return None;
        }
        debug_assert!(matches!(c.fusion, Fusion::Advantage | Fusion::RewardSum));
        let rewards = problem.token_rewards.as_ref();
        let reward = if rewards.is_none() { Self::last_reward(terms) } else { 0.0 };
        let next = problem.bootstrap.map_or(0.0, |b| b.f32(problem.row(i)) as f64);
        let Some(tail) = self.tail_of_zeros(at, scope, next) else { return self.left_to_others(i, at, kept) };
        let n = scope.count + tail;
        if !self.late {
            // Judged before: far from the end of f32, nothing need be saturated or counted.
            let most = 3.0 * f32::from_bits(self.credit_most as u32) as f64 + reward.abs() + next.abs();
            if most * (n + 1) as f64 > 1e38 {
                return None;
            }
        }
        let stream = job.by_token.stream;
        let powers = self.scan_powers(i, kept);
        let gae = if job.simd() == Simd::Avx512 { wide::gae } else { steered::gae };
        let line = steered::Steered { gamma: c.gamma, next, reward, powers: &powers, tail, sums: outputs.report && !keep };
        let mut ahead = self.ahead(i, false, [Some(values), rewards]);
        self.ends_ahead(i, [Some(&outputs.advantages).filter(|_| !keep), outputs.returns.as_ref()]);
        // SAFETY: the rollout's own list.
        let kept_list = keep.then(|| unsafe { job.whitened(at) });
        let target = |array: &Array| Self::line(array, at);
        let done;
        if !scope.has_holes() {
            let from = |array: &Array| Self::line(array, at).from(scope.first);
            // SAFETY: AVX2 is there in a usual call, AVX-512 where `gae` asks for it; n tokens from the first in scope on, in place or apart (`check` has seen which).
            unsafe {
                let to = kept_list.map_or_else(|| (from(&outputs.advantages), stream), |list| (Line::of_f32(list), false));
                let returns = outputs.returns.as_ref().map(|r| (from(r), stream));
                done = gae((rewards.map(from), from(values)), to, returns, n, &line, &mut ahead);
            }
        } else {
            // SAFETY: the rollout's own words.
            let words: &[u64] = unsafe { job.scope_bits(i, at) };
            let room = n + 8;
            let (value_list, reward_list) = (&mut self.compressed[..room], &mut self.signal[..room]);
            let scratch = |list: &mut [f64], narrow: bool| Line { at: list.as_mut_ptr().cast(), narrow };
            // SAFETY: as above; lists of the tokens in scope lie in this thread's scratch, which has room for eight more.
            unsafe {
                bits::compress(Self::line(values, at), at.len, words, value_list);
                let rewards = rewards.map(|r| {
                    bits::compress(Self::line(r, at), at.len, words, reward_list);
                    Line::of_f32(reward_list)
                });
                let advantages = scratch(self.d, target(&outputs.advantages).narrow);
                let to = kept_list.map_or(advantages, |list| Line::of_f32(list));
                let sums = outputs.returns.map(|r| scratch(self.v, target(&r).narrow));
                done = gae((rewards, Line::of_f32(value_list)), (to, false), sums.map(|line| (line, false)), n, &line, &mut ahead);
                if !self.late || done.largest < LIMIT {
                    if !keep {
                        bits::expand(advantages, words, true, target(&outputs.advantages), at.len, stream);
                    }
                    if let (Some(returns), Some(sums)) = (&outputs.returns, sums) {
                        bits::expand(sums, words, true, target(returns), at.len, stream);
                    }
                }
            }
        }
        self.asked(&ahead, values);
        if done.largest >= LIMIT {
            // The group is done again, by the general stages.
            debug_assert!(self.late);
            went(Way::Again);
            self.unclean = true;
            return Some(0.0);
        }
        let (first, end) = if scope.has_holes() { (0, at.len) } else { (scope.first, scope.end + tail) };
        if !keep {
            self.around(&outputs.advantages, at, first, end);
        }
        if let Some(returns) = &outputs.returns {
            self.around(returns, at, first, end);
        }
        if keep {
            let mut over = 0;
            // SAFETY: the rollout is this thread's.
            unsafe { *job.path(i) = <f32 as crate::numerics::convert::OutElem>::from_f64(done.path, &mut over) };
        }
        went(if scope.has_holes() { Way::GaeHoles } else if tail > 0 { Way::GaeTail } else { Way::Gae });
        self.report.sum_advantages += done.sum;
        self.report.sum_squares += done.squares;
        Some(done.path)
    }
}

