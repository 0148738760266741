//! Sets of the whole batch (`center = batch`, `scale = batch` or `nonzero_share`): exact, on a grid of 30 bits, in any slicing.
use super::members::Members;
use super::rollout_streams;
use super::worker::Worker;
use crate::model::config::Pool;
use crate::model::flags;
use crate::numerics::exact::{self, Extremes, Grid, STEP_BITS, Sums};
use crate::plan::partials::BatchState;
use crate::plan::workspace::state;

impl Worker<'_> {
    /// Hands every (slot, values, weights) of the group's rollouts that count in the batch's sets to `each`. A rollout with a finding does not.
    /// The group's extremes have been taken: they mark such rollouts.
    fn batch_each(&mut self, members: Members, mut each: impl FnMut(usize, &[f32], Option<&[u32]>)) {
        let job = self.job;
        let slots = &job.plan.slots;
        for i in members.iter() {
            let kept = job.rollout(i);
            let outside = flags::ROLLOUT_ABSENT | flags::ROLLOUT_NONFINITE | flags::ROLLOUT_BAD_STEPS;
            if kept.state & state::OUT_OF_STATS != 0 || (kept.flags | job.found_in_pieces(i)) & outside != 0 {
                continue;
            }
            for slot in (0..slots.sets).filter(|slot| slots.batch >> slot & 1 == 1) {
                let once = job.config().pool == Pool::Rollouts && !job.is_head(i);
                if once || kept.state & state::HAS_PROCESS == 0 || slot >= job.problem.num_process {
                    continue;
                }
                let skip = self.skips_nan(slot);
                self.each_run(i, &kept, slot, |run, weights, _| {
                    if !skip {
                        return each(slot, run, weights);
                    }
                    for (j, x) in run.iter().enumerate().filter(|(_, x)| !x.is_nan()) {
                        each(slot, std::slice::from_ref(x), weights.map(|w| std::slice::from_ref(&w[j])));
                    }
                });
            }
            for s in rollout_streams::places(if job.is_head(i) { job.sets } else { 0 }) {
                let slot = slots.of_rollout_stream(s);
                if slots.batch >> slot & 1 == 1 {
                    if let Some(x) = job.rollout_value(s, i) {
                        each(slot, &[x], None);
                    }
                }
            }
        }
    }

    /// Maxima of the group's share; prepares its rollouts and looks for findings, which it does not report.
    pub fn batch_extremes(&mut self, g: usize, members: Members, to: &mut [Extremes; 16]) {
        self.look_at(g, members);
        let simd = self.job.simd();
        self.batch_each(members, |slot, values, _| to[slot].add(&exact::extremes(simd, values)));
    }

    /// Sums of the group's share on the grids that the batch's maxima set. The rollouts are prepared.
    pub fn batch_sums(&mut self, members: Members, of: &[Extremes; 16], sums: &mut [Sums; 16], nonzero: &mut [i64; 16]) {
        self.batch_each(members, |slot, values, weights| {
            exact::sums_wide(&Grid::new(STEP_BITS, of[slot].absmax), values, weights, &of[slot], &mut sums[slot]);
            for (j, x) in values.iter().enumerate() {
                nonzero[slot] += if *x != 0.0 { weights.map_or(1, |w| w[j] as i64) } else { 0 };
            }
        });
    }
}

/// The batch's state from all groups' shares.
pub fn add(to: &mut BatchState, sums: &[Sums; 16], nonzero: &[i64; 16]) {
    to.sums.iter_mut().zip(sums).for_each(|(a, b)| a.add(b));
    to.nonzero.iter_mut().zip(nonzero).for_each(|(a, b)| *a += b);
}
