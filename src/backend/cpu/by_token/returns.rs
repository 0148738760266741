//! Discounted return-to-go of rewards a token (a chunk a token, nothing else credited), from the rewards to the advantages, or what is kept of them for whitening,
//! in one pass: `fused` of values that are neither shifted nor scaled.
use super::fused::{self, Fused};
use super::kl::within;
use super::lanes::{Ahead, Line};
use super::{Way, bits, went, wide};
use crate::backend::cpu::scope::Scope;
use crate::backend::cpu::shape::Sink;
use crate::backend::cpu::terms::Terms;
use crate::backend::cpu::worker::Worker;
use crate::model::array::Array;
use crate::model::batch::Extent;
use crate::numerics::convert::OutElem;
use crate::numerics::simd::Simd;

impl Worker<'_> {
    pub(super) fn usual_returns(&mut self, i: usize, at: &Extent, scope: &Scope, terms: &Terms, sink: Sink) -> Option<f64> {
        let job = self.job;
        let (problem, c, plan) = (job.problem, job.config(), job.plan);
        let (outputs, rewards) = (job.outputs?, problem.token_rewards.as_ref()?);
        let keep = matches!(sink, Sink::Keep);
        let n = scope.count;
        // Rewards alone: a term of a stream would be added to them in another order.
        let alone = terms.gated.is_none() && terms.every().iter().chain(terms.at_last()).all(|term| *term == 0.0);
        // Far from the end of f32, nothing need be saturated or counted.
        let usual = alone && (keep || matches!(sink, Sink::Write(None))) && within(f32::from_bits(self.credit_most as u32) as f64, &[], n);
        if !usual {
            return None;
        }
        let divisors: &[f64] = if c.k == 0.0 { &[] } else { &plan.divisors[plan.limits.rollout_tokens - n..] };
        let sums = outputs.report && !keep;
        let line = Fused { mean: 0.0, inv: 1.0, weight: 1.0, terms: &[], powers: &plan.decay, divisors, sums, exact: std::ptr::null_mut() };
        let tokens = if plan.simd == Simd::Avx512 { wide::tokens } else { fused::tokens };
        let stream = job.by_token.stream;
        let mut ahead = self.ahead(i, false, [Some(rewards), None]);
        self.ends_ahead(i, [Some(&outputs.advantages).filter(|_| !keep), outputs.returns.as_ref()]);
        // SAFETY: the rollout's own list.
        let kept_list = keep.then(|| unsafe { Line::of_f32(job.whitened(at)) });
        // The tokens in scope, side by side where there are holes.
        let holes = scope.has_holes();
        // SAFETY: the rollout's own words.
        let words: &[u64] = if holes { unsafe { job.scope_bits(i, at) } } else { &[] };
        let from = if holes {
            let list = &mut self.compressed[..n + 8];
            // SAFETY: AVX2 is there in a usual call; a list in this thread's scratch, which has room for eight more.
            unsafe { bits::compress(Self::line(rewards, at), at.len, words, list) };
            Line::of_f32(list)
        } else {
            Self::line(rewards, at).from(scope.first)
        };
        let scratch = self.d.as_mut_ptr();
        let write = |to: &Array, ahead: &mut Ahead| {
            let own = Self::line(to, at);
            // SAFETY: AVX2 is there in a usual call, AVX-512 where `tokens` asks for it; n tokens, in place or apart (`check` has seen which); a list in this
            // thread's scratch, which has room for eight more.
            unsafe {
                if !holes {
                    return tokens(from, own.from(scope.first), n, stream, &line, ahead);
                }
                let results = Line { at: scratch.cast(), narrow: own.narrow };
                let done = tokens(from, results, n, false, &line, ahead);
                bits::expand(results, words, true, own, at.len, stream);
                done
            }
        };
        // Returns lie over no input: they come first. (Without Divide-Length they are the advantages.)
        let mut nothing = Ahead::NONE;
        outputs.returns.iter().for_each(|returns| _ = write(returns, &mut nothing));
        let done = match kept_list {
            // SAFETY: as above; the rollout's own list.
            Some(list) => unsafe { tokens(from, list, n, false, &line, &mut ahead) },
            None => write(&outputs.advantages, &mut ahead),
        };
        self.asked(&ahead, rewards);
        let (first, end) = if holes { (0, at.len) } else { (scope.first, scope.end) };
        let written = [Some(&outputs.advantages).filter(|_| !keep), outputs.returns.as_ref()];
        written.into_iter().flatten().for_each(|array| self.around(array, at, first, end));
        if keep {
            // SAFETY: the rollout is this thread's.
            unsafe { *job.path(i) = f32::from_f64(done.path, &mut 0) };
        }
        went(if holes { Way::ToGoHoles } else { Way::ToGo });
        self.report.sum_advantages += done.sum;
        self.report.sum_squares += done.squares;
        Some(done.path)
    }
}
