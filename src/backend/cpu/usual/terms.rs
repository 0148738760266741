//! Terms of the per-rollout streams, and the format gate: of a rollout, or of eight at a time.
use super::Lane;
use super::sets::Sets;
use crate::backend::cpu::rollout_streams;
use crate::backend::cpu::standard::{Apply, plain};
use crate::backend::cpu::worker::Job;
use crate::model::config::*;
use crate::numerics::exact::{self, Sums};

/// How a rollout's values of a slot are standardised; `x`, its value of a per-rollout stream.
pub fn usual_apply(sets: &Sets, slot: usize, counts: bool, x: f32, lost: &mut i64) -> Apply {
    let standard = sets.standard(slot);
    let own = || {
        let mut own = Sums::default();
        exact::sums_wide(&standard.grid, &[x], None, &standard.extremes, &mut own);
        own
    };
    sets.applies[slot].unwrap_or_else(|| standard.resolve(counts, own, lost))
}

/// Per-rollout terms of a rollout, in the order of the streams.
pub struct Terms {
    terms: [f64; rollout_streams::COUNT],
    count: usize,
    /// The format is violated: what every chunk has instead of all of them.
    pub gated: Option<f64>,
}

impl Terms {
    pub fn all(&self) -> &[f64] {
        &self.terms[..self.count]
    }

    /// `counts`: the rollout is in the sets.
    #[inline]
    pub fn new(job: &Job, sets: &Sets, lane: &Lane, i: usize, counts: bool, violates: bool, lost: &mut i64) -> Terms {
        let (c, plan) = (job.config(), job.plan);
        let gate = c.fusion == Fusion::Advantage && violates;
        let mut all = Terms { terms: [0.0; rollout_streams::COUNT], count: 0, gated: None };
        for s in rollout_streams::places(job.sets) {
            let slot = plan.slots.of_rollout_stream(s);
            let row = &c.streams[OUTCOME + s];
            let x = match lane.rewards[s] {
                Some(rewards) => rewards[i],
                None => job.rollout_value(s, i).unwrap_or(0.0),
            };
            let apply = usual_apply(sets, slot, counts, x, lost);
            let r = sets.standard(slot).one(apply, x, lost).clamp(-row.clip_standardized, row.clip_standardized);
            all.terms[all.count] = job.stream_weight(s) * r;
            all.count += 1;
            if gate && s == 1 {
                all.gated = Some(lane.weight * r);
            }
        }
        all
    }
}

/// Per-rollout terms of up to eight rollouts: `Terms`, a stream at a time.
#[cfg_attr(not(target_arch = "x86_64"), allow(dead_code))]
pub struct Eight {
    pub terms: [[f64; 8]; rollout_streams::COUNT],
    pub count: usize,
    /// What a rollout has instead of them whose format is violated; a bit each: is it?
    pub gated: [f64; 8],
    pub violates: u32,
}

#[cfg_attr(not(target_arch = "x86_64"), allow(dead_code))]
impl Eight {
    pub const NONE: Eight = Eight { terms: [[0.0; 8]; rollout_streams::COUNT], count: 0, gated: [0.0; 8], violates: 0 };

    /// Terms of rollout j, in the order of the streams.
    #[inline(always)]
    pub fn of(&self, j: usize) -> impl Iterator<Item = f64> + '_ {
        self.terms[..self.count].iter().map(move |terms| terms[j])
    }

    /// Of n rollouts from i on, all in the sets; `sums`: their sums of rewards, where these are what is standardised.
    #[allow(clippy::too_many_arguments)]
    pub fn read(&mut self, job: &Job, sets: &Sets, lane: &Lane, i: usize, n: usize, sums: Option<&[f32]>, lost: &mut i64) {
        let (c, plan) = (job.config(), job.plan);
        (self.count, self.violates) = (0, 0);
        if let (Some(ok), None) = (&job.problem.format_ok, sums) {
            (0..n).for_each(|j| self.violates |= u32::from(!ok.flag(i + j)) << j);
        }
        for s in rollout_streams::places(job.sets) {
            let (slot, row, weight) = (plan.slots.of_rollout_stream(s), &c.streams[OUTCOME + s], job.stream_weight(s));
            let mut xs = [0.0f32; 8];
            match (sums, lane.rewards[s]) {
                (Some(sums), _) => xs[..n].copy_from_slice(&sums[..n]),
                // Most of the time there are eight, which are no loop.
                (None, Some(rewards)) => match rewards.get(i..i + 8) {
                    Some(eight) => xs.copy_from_slice(eight),
                    None => xs[..n].copy_from_slice(&rewards[i..i + n]),
                },
                (None, None) => (0..n).for_each(|j| xs[j] = job.rollout_value(s, i + j).unwrap_or(0.0)),
            }
            let mut standard: [f64; 8] = match sets.applies[slot] {
                // (Most of them, as a loop of its own.)
                Some(Apply::Affine { mean, inv }) => xs.map(|x| (x as f64 - mean) * inv),
                Some(apply) => xs.map(|x| plain(apply, x as f64)),
                None => std::array::from_fn(|j| {
                    if j >= n {
                        return 0.0;
                    }
                    let apply = usual_apply(sets, slot, true, xs[j], lost);
                    sets.standard(slot).one(apply, xs[j], lost)
                }),
            };
            if row.clip_standardized != f64::INFINITY {
                standard = standard.map(|r| r.clamp(-row.clip_standardized, row.clip_standardized));
            }
            self.terms[self.count] = standard.map(|r| weight * r);
            self.count += 1;
            if s == 1 {
                self.gated = standard.map(|r| lane.weight * r);
            }
        }
    }
}
