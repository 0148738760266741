//! Groups whose rollouts are all alike (`together`): what `shape` decides for each rollout is decided once for all, and only what differs between them is left.
//! Of a short call this is most of the work. The expressions are those of `terms`, `usual_kl` and `usual_gae`.
use super::fused::{self, Fused};
use super::lanes::Ahead;
use super::steered::{self, Steered};
use super::gae::LIMIT;
use super::kl::within;
use super::{Way, went, wide};
use crate::backend::cpu::members::Members;
use crate::backend::cpu::rollout_streams;
use crate::backend::cpu::shape::{Group, Sink};
use crate::backend::cpu::standard::{Apply, plain};
use crate::backend::cpu::usual::slice;
use crate::backend::cpu::worker::Worker;
use crate::model::array::{Array, DType};
use crate::model::batch::Extent;
use crate::model::config::*;
use crate::numerics::exact::Sums;
use crate::numerics::simd::Simd;

/// Bytes that a call moves below which all of it is in the nearest caches: nothing is asked for ahead.
const NEAR: usize = 16 << 10;

/// A per-rollout stream of the fusion: how its values are standardised, limited, weighted.
#[derive(Clone, Copy)]
struct Term<'a> {
    stream: usize,
    /// Its values, where they lie side by side and nothing is done to them but to those that are missing.
    values: Option<&'a [f32]>,
    apply: Apply,
    limit: f64,
    weight: f64,
}

impl Worker<'_> {
    /// Shapes the group's rollouts. `false`: they are shaped one after the other by `shape`; nothing was done.
    pub fn shape_alike(&mut self, members: Members, group: &Group, sink: Sink) -> bool {
        let job = self.job;
        let Some(outputs) = job.outputs else { return false };
        let told = [outputs.path_scores, outputs.num_chunks, outputs.chunk_ends, outputs.chunk_values, outputs.rollout_flags];
        if !job.alike || group.bad || !matches!(sink, Sink::Write(None)) || told.iter().any(Option::is_some) {
            return false;
        }
        if job.by_token.columns {
            self.kl_alike(members, group)
        } else if job.by_token.gae && self.late {
            self.gae_alike(members, group)
        } else {
            false
        }
    }

    /// What is asked for ahead of rollout i.
    fn ahead_alike(&mut self, i: usize, by_group: bool, arrays: [Option<&Array>; 2]) -> Ahead {
        if self.job.problem.bytes() < NEAR { Ahead::NONE } else { self.ahead(i, by_group, arrays) }
    }

    /// A rollout is done: zeros around it, counts.
    fn done_alike(&mut self, at: &Extent, arrays: [Option<&Array>; 2], chunks: usize, sum: f64, squares: f64) {
        if !at.flat {
            arrays.iter().flatten().for_each(|array| self.around(array, at, 0, at.len));
        }
        let report = &mut self.report;
        report.sum_advantages += sum;
        report.sum_squares += squares;
        report.rollouts += 1;
        report.tokens += at.len as i64;
        report.chunks += chunks as i64;
    }

    fn kl_alike(&mut self, members: Members, group: &Group) -> bool {
        let job = self.job;
        let (problem, c, plan) = (job.problem, job.config(), job.plan);
        let Some(outputs) = job.outputs else { return false };
        let arrays = self.kl_arrays();
        if group.edges.is_none() || c.boundary_rule != BoundaryRule::Adjacent || plan.slots.joint {
            return false;
        }
        let standard = &group.standards[0];
        let Apply::Affine { mean, inv } = standard.resolve(true, Sums::default, &mut 0) else { return false };
        let mut list = [Term { stream: 0, values: None, apply: Apply::Zero, limit: 0.0, weight: 0.0 }; rollout_streams::COUNT];
        let mut count = 0;
        for s in rollout_streams::places(job.sets) {
            let row = &c.streams[OUTCOME + s];
            let (Some(apply), Place::Every) = (group.applies[s], row.place) else { return false };
            let plain = row.clip_value == f64::INFINITY;
            let values = problem.rollout_streams[s].as_ref().filter(|values| plain && values.dtype == DType::F32).and_then(slice);
            list[count] = Term { stream: s, values, apply, limit: row.clip_standardized, weight: job.stream_weight(s) };
            count += 1;
        }
        let list = &list[..count];
        let largest = standard.extremes.absmax_value() as f64;
        went(Way::Once);
        let stream = job.by_token.stream;
        let divisors: &[f64] = if c.k == 0.0 { &[] } else { &plan.divisors };
        let tokens = if plan.simd == Simd::Avx512 { wide::tokens } else { fused::tokens };
        // What a usual rollout has that is multiplied, and at most comes to.
        let weight = c.streams[0].weight;
        let (own, most) = ((mean, inv, weight), weight.abs() * (largest + mean.abs()) * inv.abs());
        for (ordinal, i) in members.iter().enumerate() {
            self.ordinal = ordinal;
            let at = problem.extent(i);
            let n = at.len;
            let mut terms = [0.0; rollout_streams::COUNT];
            let mut gated = None;
            for (to, term) in terms.iter_mut().zip(list) {
                let x = match term.values.map(|values| values[i]) {
                    Some(x) if !x.is_nan() => Some(x),
                    _ => job.rollout_value(term.stream, i),
                };
                let r = x.map_or(0.0, |x| plain(term.apply, x as f64).clamp(-term.limit, term.limit));
                *to = term.weight * r;
                if term.stream == 1 && problem.format_ok.is_some_and(|ok| !ok.flag(i)) {
                    gated = Some([group.weight * r]);
                }
            }
            let ((mean, inv, weight), most, terms) = match &gated {
                // A wrong format says all there is to say: the values are multiplied by 0.
                Some(gated) => ((0.0, 0.0, 1.0), 0.0, &gated[..]),
                None => (own, most, &terms[..count]),
            };
            let usual = n > 0 && every_edge(self.edges, n - 1) && within(most, terms, n);
            let Some(from) = usual.then(|| self.kl_line_alone(i, &at)).flatten() else {
                self.shape(i, group, Sink::Write(None));
                continue;
            };
            let divisors = if divisors.is_empty() { divisors } else { &divisors[divisors.len() - n..] };
            let line = Fused { mean, inv, weight, terms, powers: &plan.decay, divisors, sums: outputs.report, exact: std::ptr::null_mut() };
            let mut ahead = self.ahead_alike(i, true, arrays);
            self.ends_ahead(i, [Some(&outputs.advantages), None]);
            // SAFETY: AVX2 is there in a usual call, AVX-512 where `tokens` asks for it; n tokens, in place or apart (`check` has seen which).
            let done = unsafe { tokens(from, Self::line(&outputs.advantages, &at), n, stream, &line, &mut ahead) };
            arrays[0].iter().for_each(|array| self.asked(&ahead, array));
            went(Way::Tokens);
            self.done_alike(&at, [Some(&outputs.advantages), None], n, done.sum, done.squares);
        }
        true
    }

    fn gae_alike(&mut self, members: Members, group: &Group) -> bool {
        let job = self.job;
        let (problem, c) = (job.problem, job.config());
        let (Some(outputs), Some(values), Some(rewards)) = (job.outputs, problem.values.as_ref(), problem.token_rewards.as_ref()) else { return false };
        if rollout_streams::places(job.sets).any(|s| group.applies[s].is_none()) {
            // What is lost of their deviations is counted, though no reward is made of them.
            return false;
        }
        went(Way::Once);
        let (stream, own_powers) = (job.by_token.stream, self.own_powers());
        let gae = if job.simd() == Simd::Avx512 { wide::gae } else { steered::gae };
        for (ordinal, i) in members.iter().enumerate() {
            self.ordinal = ordinal;
            let at = problem.extent(i);
            let n = at.len;
            if n == 0 {
                self.shape(i, group, Sink::Write(None));
                continue;
            }
            let next = problem.bootstrap.map_or(0.0, |b| b.f32(i) as f64);
            let own;
            let powers = if own_powers {
                own = self.scan_powers(i, &job.rollout(i));
                &*own
            } else {
                &job.plan.decay
            };
            let line = Steered { gamma: c.gamma, next, reward: 0.0, powers, tail: 0, sums: outputs.report };
            let mut ahead = self.ahead_alike(i, false, [Some(values), Some(rewards)]);
            self.ends_ahead(i, [Some(&outputs.advantages), outputs.returns.as_ref()]);
            let from = |array: &Array| Self::line(array, &at);
            let to = (from(&outputs.advantages), stream);
            let returns = outputs.returns.as_ref().map(|r| (from(r), stream));
            // SAFETY: as above; the rewards and values that lie under the advantages are read before.
            let done = unsafe { gae((Some(from(rewards)), from(values)), to, returns, n, &line, &mut ahead) };
            self.asked(&ahead, values);
            if done.largest >= LIMIT {
                // The group is done again, by the general stages.
                went(Way::Again);
                self.unclean = true;
                return true;
            }
            went(Way::Gae);
            self.done_alike(&at, [Some(&outputs.advantages), outputs.returns.as_ref()], 1, done.sum, done.squares);
        }
        true
    }
}

/// Are the first `count` bits set?
fn every_edge(edges: &[u64], count: usize) -> bool {
    let (whole, rest) = (count / 64, count % 64);
    edges[..whole].iter().all(|word| *word == !0) && (rest == 0 || !edges[whole] << (64 - rest) == 0)
}

#[cfg(test)]
mod tests {
    #[test]
    fn every_edge_is_every_bit() {
        for count in 0..200usize {
            let mut edges = [0u64; 4];
            (0..count).for_each(|t| edges[t / 64] |= 1 << (t % 64));
            assert!(super::every_edge(&edges, count));
            for t in 0..count {
                let mut one = edges;
                one[t / 64] &= !(1 << (t % 64));
                assert!(!super::every_edge(&one, count), "{count} {t}");
            }
        }
    }
}
