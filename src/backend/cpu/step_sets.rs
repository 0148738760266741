//! Sets of steps of equal state (GiGPO): the process elements of a group whose steps have one key are a set of their own.
use super::members::Members;
use super::standard::{Beside, Standard};
use super::worker::Worker;
use crate::model::config::Missing;
use crate::numerics::exact::{self, Extremes, Grid, Sums};
use crate::plan::workspace::{KeyedStep, state};

/// Lowest bit of `KeyedStep::slot`: the step is in its set, not only standardised with it.
const COUNTS: u64 = 1;

impl Worker<'_> {
    /// Standardises every process element of group g with the set of its key, for `fuse` to read. The group has no findings.
    pub fn step_sets(&mut self, g: usize, members: Members) {
        let job = self.job;
        // SAFETY: the group is this thread's; likewise below.
        let room = unsafe { job.keyed(g) };
        let mut count = 0;
        for i in members.iter() {
            let kept = job.rollout(i);
            if kept.state & state::HAS_PROCESS == 0 {
                continue;
            }
            let at = job.problem.extent(i);
            let counts = if kept.state & state::OUT_OF_STATS == 0 { COUNTS } else { 0 };
            // SAFETY: as above.
            let keys: &[i64] = unsafe { &job.step_keys(&at)[..kept.elements as usize] };
            for (to, (j, key)) in room[count..].iter_mut().zip(keys.iter().enumerate()) {
                *to = KeyedStep { key: *key, slot: ((at.slot + j) as u64) << 1 | counts };
            }
            count = (count + keys.len()).min(room.len());
        }
        // Sums are exact and each element is standardised on its own: the order within a key makes no difference.
        let steps = &mut room[..count];
        steps.sort_unstable_by_key(|step| step.key);
        for set in steps.chunk_by(|a, b| a.key == b.key) {
            for p in 0..job.problem.num_process {
                self.step_set(set, p);
            }
        }
    }

    fn step_set(&mut self, set: &[KeyedStep], p: usize) {
        let job = self.job;
        let stream = &job.config().streams[p];
        let bits = job.plan.bits(p);
        let slot = |step: &KeyedStep| (step.slot >> 1) as usize;
        let counts = |step: &KeyedStep| step.slot & COUNTS != 0;
        // SAFETY: elements of this group.
        let value = |step: &KeyedStep| unsafe { job.element(p, slot(step)) };
        // A NaN that is left is a missing value: in no set, and 0 in the fusion.
        let there = |x: f32| !(stream.missing == Missing::Exclude && x.is_nan());
        let elements = || set.iter().filter(|step| counts(step)).map(value).filter(|x| there(*x));
        let (mut extremes, mut sums) = (Extremes::EMPTY, Sums::default());
        elements().for_each(|x| extremes.push(x));
        let grid = Grid::new(bits, extremes.absmax);
        elements().for_each(|x| exact::sums_wide(&grid, &[x], None, &extremes, &mut sums));
        let standard = Standard::new(stream, bits, &extremes, &sums, Beside::default());
        let mut lost = 0;
        for step in set {
            let x = value(step);
            let s = if there(x) {
                // Leaving out a whole rollout is refused with these sets.
                let apply = standard.resolve(counts(step), Sums::default, &mut lost);
                standard.one(apply, x, &mut lost)
            } else {
                0.0
            };
            // SAFETY: an element of this group.
            unsafe { job.stepped(p, slot(step), 1)[0] = s };
        }
        self.report.lost_deviations += lost;
    }
}
