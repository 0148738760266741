//! Usual cases of work with a value a token (kind kl with a chunk a token, GAE over tokens, return-to-go of rewards a token), in fewer passes than the general
//! stages take: what the maxima and sums need is read once, and results go straight from the scan to their memory. Decided once a call; whatever a group or
//! a rollout has that is not usual (holes where none are expected, values that are not finite, a set of zero variance) gives it to the general stages, from
//! which its findings and its report then come. The bits are the same.
#[cfg(target_arch = "x86_64")]
mod alike;
#[cfg(target_arch = "x86_64")]
mod bits;
#[cfg(target_arch = "x86_64")]
mod columns;
#[cfg(target_arch = "x86_64")]
mod fused;
#[cfg(target_arch = "x86_64")]
mod gae;
#[cfg(target_arch = "x86_64")]
mod kl;
#[cfg(target_arch = "x86_64")]
mod lanes;
#[cfg(target_arch = "x86_64")]
mod returns;
#[cfg(target_arch = "x86_64")]
mod round;
#[cfg(target_arch = "x86_64")]
mod scan;
#[cfg(target_arch = "x86_64")]
mod short;
#[cfg(target_arch = "x86_64")]
mod steered;
#[cfg(target_arch = "x86_64")]
mod whitened;
#[cfg(target_arch = "x86_64")]
mod wide;

use super::expand::Chunks;
use super::scope::Scope;
use super::shape::{Group, Sink};
use super::terms::Terms;
use super::worker::Worker;
use crate::model::batch::{Extent, Problem};
use crate::model::outputs::Outputs;
use crate::plan::Plan;
use crate::plan::workspace::Rollout;

/// Tests set it: results go past the caches however few they are.
#[cfg(all(test, target_arch = "x86_64"))]
pub static ALWAYS_STREAMS: std::sync::atomic::AtomicBool = std::sync::atomic::AtomicBool::new(false);

/// The short ways; tests count how often each was gone.
#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy, Debug)]
pub enum Way {
    Columns,
    Tokens,
    Chunks,
    Gae,
    GaeHoles,
    /// Positions after the scope take part with 0.
    GaeTail,
    ToGo,
    ToGoHoles,
    Again,
    /// Rollouts prepared alike, groups whose per-rollout streams were summed at once.
    Alike,
    Together,
    /// Groups that were decided once for all their rollouts.
    Once,
    Whitened,
}

#[cfg(all(test, target_arch = "x86_64"))]
thread_local! {
    pub static TAKEN: std::cell::RefCell<[usize; 13]> = const { std::cell::RefCell::new([0; 13]) };
}

#[cfg(target_arch = "x86_64")]
pub fn went(way: Way) {
    #[cfg(test)]
    TAKEN.with(|taken| taken.borrow_mut()[way as usize] += 1);
    let _ = way;
}

/// What of a call is usual.
#[derive(Clone, Copy, Debug, Default)]
pub struct ByToken {
    /// kl: a group's maxima, sums and columns may be taken in one pass.
    pub columns: bool,
    /// kl: a rollout's advantages may be.
    pub kl: bool,
    /// kl: the signal is formed before it is read (`formed`).
    pub formed: bool,
    pub gae: bool,
    /// Return-to-go of rewards a token.
    pub returns: bool,
    /// kl: a rollout's chunks are listed where the general stages come to read them.
    pub counted: bool,
    /// gae: a rollout's only chunk is listed where the general stages come to read it.
    pub unlisted: bool,
    /// gae: rewards and values are judged by the results, which lie over none of them.
    pub late: bool,
    /// Results go past the caches.
    pub stream: bool,
}

#[cfg(not(target_arch = "x86_64"))]
impl ByToken {
    pub fn new(_: &Plan, _: &Problem, _: &Outputs, _: bool) -> ByToken {
        ByToken::default()
    }
}

#[cfg(not(target_arch = "x86_64"))]
impl Worker<'_> {
    pub fn token_columns(&mut self, _: super::members::Members, _: &mut crate::plan::partials::GroupState) -> Option<usize> {
        None
    }
    pub fn shape_alike(&mut self, _: super::members::Members, _: &Group, _: Sink) -> bool {
        false
    }
    pub fn whitened_tokens(&mut self, _: &Extent, _: &Scope, _: &[f32], _: &super::whiten::Affine, _: &crate::model::array::Array) -> bool {
        false
    }
    #[allow(clippy::too_many_arguments)]
    pub fn by_token(&mut self, _: usize, _: &Extent, _: &Scope, _: &Rollout, _: &Group, _: &Terms, _: Chunks, _: Sink) -> Option<f64> {
        None
    }
}

#[cfg(target_arch = "x86_64")]
mod decide {
    use super::lanes::{Ahead, Line, ask_for_ends, zero};
    use super::*;
    use crate::backend::cpu::members::{Members, members};
    use crate::model::array::Array;
    use crate::model::batch::Process;
    use crate::model::config::*;
    use crate::numerics::simd::Simd;

    fn overlap(a: &Array, b: &Array) -> bool {
        match (a.span(), b.span()) {
            (Some(a), Some(b)) => a.0 <= b.1 && b.0 <= a.1,
            _ => false,
        }
    }

    impl ByToken {
        pub fn new(plan: &Plan, problem: &Problem, outputs: &Outputs, streams: bool) -> ByToken {
            let (c, packed) = (&plan.config, problem.packed());
            let fits = |a: &Array| Line::fits(a, packed);
            #[cfg(test)]
            let streams = streams || super::ALWAYS_STREAMS.load(std::sync::atomic::Ordering::Relaxed);
            let plain = plan.simd >= Simd::Avx2
                && problem.pieces.is_none()
                && fits(&outputs.advantages)
                && outputs.returns.is_none_or(|r| fits(&r))
                && outputs.chunk_values.is_none()
                && c.temperature == 1.0
                && c.clip == f64::INFINITY
                && c.gamma <= 1.0
                && c.lam <= 1.0
                && problem.reference.is_none()
                && problem.behavior.is_none()
                && problem.baseline_inputs.is_none();
            let (signal, formed) = match &problem.process {
                Process::Signal([Some(signal), ..]) => (problem.num_process == 1, !fits(signal)),
                Process::LogProbs { .. } => (true, true),
                _ => (false, false),
            };
            let row = &c.streams[0];
            let kl = plain
                && signal
                && c.kind == Kind::Kl
                && c.credit == Credit::ReturnToGo
                && !c.spreads()
                && c.divide_scope == DivideScope::All
                && c.fusion == Fusion::Advantage
                && c.chunk_value == ChunkValue::Last
                && c.pool != Pool::Rollouts
                && row.missing != Missing::Zero
                && problem.token_rewards.is_none()
                && outputs.returns.is_none();
            let columns = kl
                && c.chunk == Chunk::ByValue
                && row.missing == Missing::Error
                && matches!(row.center, Center::None | Center::Group)
                && matches!(row.scale, Scale::None | Scale::Group | Scale::AbsMax)
                && plan.slots.batch == 0;
            let gae = plain
                && c.kind == Kind::None
                && c.chunk == Chunk::None
                && c.credit == Credit::Gae
                && c.gae_over == GaeOver::Tokens
                && c.lam_returns < 0.0
                && matches!(c.fusion, Fusion::Advantage | Fusion::RewardSum)
                && problem.values.is_some_and(|v| fits(&v))
                && problem.token_rewards.is_none_or(|r| fits(&r));
            let returns = plain
                && c.kind == Kind::None
                && c.chunk == Chunk::Token
                && c.credit == Credit::ReturnToGo
                && !c.spreads()
                && c.divide_scope == DivideScope::All
                && matches!(c.fusion, Fusion::Advantage | Fusion::RewardSum)
                && (outputs.returns.is_none() || c.k == 0.0)
                && problem.token_rewards.is_some_and(|r| fits(&r));
            let inputs = [problem.values, problem.token_rewards];
            let apart = !inputs.iter().flatten().any(|x| overlap(x, &outputs.advantages));
            let counted = columns && outputs.chunk_ends.is_none() && !outputs.report;
            ByToken { columns, kl, formed, counted, gae, returns, unlisted: gae && outputs.chunk_ends.is_none(), late: gae && apart, stream: streams }
        }
    }

    impl Worker<'_> {
        /// Results of a rollout in one pass from its inputs to its outputs; its path score. `None`: it is not a usual one, nothing was done.
        #[allow(clippy::too_many_arguments)]
        pub fn by_token(&mut self, i: usize, at: &Extent, scope: &Scope, kept: &Rollout, group: &Group, terms: &Terms, chunks: Chunks, sink: Sink) -> Option<f64> {
            let usual = self.job.by_token;
            if scope.is_empty() {
                return None;
            }
            if usual.kl {
                self.usual_kl(i, at, scope, kept, group, terms, chunks, sink)
            } else if usual.gae {
                self.usual_gae(i, at, scope, kept, terms, sink)
            } else if usual.returns {
                self.usual_returns(i, at, scope, terms, sink)
            } else {
                None
            }
        }

        /// The rollout's line of an array whose lines fit.
        pub(super) fn line(array: &Array, at: &Extent) -> Line {
            Line::of(&at.of(array))
        }

        /// Zeros where an output of the rollout has no token in first .. end.
        pub(super) fn around(&self, output: &Array, at: &Extent, first: usize, end: usize) {
            let (job, own) = (self.job, Self::line(output, at));
            let (before, after) = match (at.flat, job.config().fill_padding) {
                (false, true) => (at.column, job.problem.slots - at.column - at.len),
                (true, true) => (0, at.tail),
                _ => (0, 0),
            };
            if before + first == 0 && at.len - end + after == 0 {
                return;
            }
            let bytes = own.bytes();
            // SAFETY: slots of the rollout's row or extent, this thread's; AVX2 is there in a usual call.
            unsafe {
                zero(own.at.wrapping_sub(before * bytes), (before + first) * bytes, job.by_token.stream);
                zero(own.from(end).at, (at.len - end + after) * bytes, job.by_token.stream);
            }
        }

        /// The tokens of `arrays` that will be read when this rollout's are done: those of the rollouts after it, or with `by_group` of the group after. What is
        /// still to be asked for of rollouts side by side goes on from one to the next (`asked`); else the next one's, or its like's in the group after.
        pub(super) fn ahead(&mut self, i: usize, by_group: bool, arrays: [Option<&Array>; 2]) -> Ahead {
            let (problem, mut ahead) = (self.job.problem, Ahead::NONE);
            let own = members(&self.job, problem, self.group);
            let after = self.upcoming.map(|g| members(&self.job, problem, g));
            if let (true, Members::Range(_, end)) = (problem.packed(), own) {
                let tokens = |a: usize, b: usize| if a < b { problem.extent(a).column..problem.extent(b - 1).column + problem.extent(b - 1).len } else { 0..0 };
                let following = || if let Some(Members::Range(a, b)) = after { tokens(a, b) } else { 0..0 };
                if self.ordinal == 0 {
                    self.next_tokens = if by_group { following() } else { tokens(i + 1, end) };
                }
                if self.next_tokens.is_empty() && !by_group {
                    self.next_tokens = following();
                }
                for (part, array) in ahead.parts.iter_mut().zip(arrays) {
                    if let Some(array) = array {
                        let line = Line::of(&array.line(0, 0, problem.slots, true));
                        *part = (line.from(self.next_tokens.start).at, line.from(self.next_tokens.end).at);
                    }
                }
                return ahead;
            }
            let next = if by_group || self.ordinal + 1 >= self.members {
                after.and_then(|after| after.nth(if by_group { self.ordinal } else { 0 }))
            } else {
                own.nth(self.ordinal + 1)
            };
            let Some(next) = next.filter(|n| *n != i) else { return ahead };
            let at = problem.extent(next);
            let (first, end) = match (by_group || self.ordinal + 1 >= self.members, problem.mask) {
                (false, _) => {
                    let kept = self.job.rollout(next);
                    (kept.first as usize, kept.end as usize)
                }
                (true, None) => (0, at.len),
                // Not known yet.
                (true, Some(_)) => return ahead,
            };
            for (part, array) in ahead.parts.iter_mut().zip(arrays) {
                if let Some(array) = array {
                    let line = Self::line(array, &at);
                    *part = (line.from(first).at, line.from(end).at);
                }
            }
            ahead
        }

        /// Where results go past the caches: asks for the ends of the next rollout's lines of `outputs`, and of this one's where it is the call's first.
        #[inline(always)]
        pub(super) fn ends_ahead(&self, i: usize, outputs: [Option<&Array>; 2]) {
            if self.job.by_token.stream {
                self.ask_for_ends(i, outputs);
            }
        }

        fn ask_for_ends(&self, i: usize, outputs: [Option<&Array>; 2]) {
            let (job, problem) = (self.job, self.job.problem);
            let next = match members(job, problem, self.group).nth(self.ordinal + 1) {
                Some(next) => Some(next),
                None => self.upcoming.and_then(|g| members(job, problem, g).nth(0)),
            };
            let own = (self.ordinal == 0).then_some(i);
            for at in own.into_iter().chain(next).map(|i| problem.extent(i)) {
                outputs.iter().flatten().for_each(|output| ask_for_ends(Self::line(output, &at), at.len));
            }
        }

        /// Tokens of `array`, the first of `ahead`'s, that have been asked for.
        pub(super) fn asked(&mut self, ahead: &Ahead, array: &Array) {
            let line = Line::of(&array.line(0, 0, 0, self.job.problem.packed()));
            let reached = ahead.parts[0].0.addr().saturating_sub(line.at.addr()) / line.bytes();
            self.next_tokens.start = reached.clamp(self.next_tokens.start, self.next_tokens.end.max(self.next_tokens.start));
        }
    }
}
