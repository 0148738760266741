//! Statistics of a group's streams, and what they are turned into.
use super::{Group, Lane, Source};
use crate::backend::cpu::members::Members;
use crate::backend::cpu::rollout_streams;
use crate::backend::cpu::standard::{self, Apply, Beside, Standard};
use crate::backend::cpu::worker::{Job, Worker};
use crate::model::config::*;
use crate::model::flags;
use crate::model::outputs::Outputs;
use crate::numerics::exact::{self, Extremes, Grid, STEP_BITS, Sums};
use crate::plan::workspace::state;
use std::mem::MaybeUninit;

/// Elements that exact sums on the finer grid allow.
const MOST: usize = 1 << 17;

/// What is decided once a group, by slot; of slots that no stream of the call has, nothing.
pub struct Sets {
    /// By slot, those that a group has asked for, a bit each; `None`: none has. (All would be thousands of bytes.)
    standards: Option<[MaybeUninit<Standard>; 16]>,
    asked: u32,
    /// How the values of a stream are standardised, where it is the same for all rollouts.
    pub applies: [Option<Apply>; 16],
    pub flags: [i32; MAX_STREAMS],
}

impl Sets {
    /// (No constant: a copy of one would copy what it does not say, too.)
    #[inline(always)]
    pub fn none() -> Sets {
        Sets { standards: None, asked: 0, applies: [None; 16], flags: [0; MAX_STREAMS] }
    }

    /// That of a slot, of the last group that has asked for it.
    #[inline]
    pub fn standard(&self, slot: usize) -> &Standard {
        const NONE: &Standard = &Standard::NONE;
        match &self.standards {
            // SAFETY: a standard whose bit is set has been written.
            Some(all) if self.asked >> slot & 1 == 1 => unsafe { all[slot].assume_init_ref() },
            _ => NONE,
        }
    }

    fn set_standard(&mut self, slot: usize, standard: Standard) {
        self.standards.get_or_insert([const { MaybeUninit::uninit() }; 16])[slot].write(standard);
        self.asked |= 1 << slot;
    }
}

/// Hands the list of the group's elements to `each`: as a whole, or by rollout where not all count in the set.
fn group_parts(job: &Job, members: Members, group: &Group, list: &[f32], mut each: impl FnMut(&[f32], bool)) {
    if group.all_count {
        return each(list, true);
    }
    let mut begin = 0;
    for i in members.iter() {
        let kept = job.rollout(i);
        let end = begin + kept.elements as usize;
        each(&list[begin..end], kept.state & state::OUT_OF_STATS == 0);
        begin = end;
    }
}

impl Worker<'_> {
    /// Decides on the group's sets, in `usual_sets`. `None`: a value is not finite, or there are more than exact sums allow.
    pub(super) fn usual_decide(&mut self, lane: &Lane, members: Members, group: &Group) -> Option<()> {
        let job = self.job;
        let (c, plan) = (job.config(), job.plan);
        let slots = &plan.slots;
        if members.len() >= MOST || group.elements >= MOST {
            return None;
        }
        let sets = &mut self.usual_sets;
        sets.flags = [0; MAX_STREAMS];
        let mut degenerate = 0;
        // What is told of a set stands in its standard, as does what leaving an element out asks for.
        let told = job.outputs.is_none_or(Outputs::ask_statistics);
        let mut set = |slot: usize, extremes: &Extremes, sums: &Sums| {
            let row = slots.row(slot);
            let stream = &c.streams[row];
            degenerate += i64::from(sums.n <= 1 || extremes.all_equal());
            if let Some(apply) = standard::usual(stream, plan.bits(slot), extremes, sums).filter(|_| !told) {
                sets.applies[slot] = Some(apply);
                return;
            }
            let standard = Standard::new(stream, plan.bits(slot), extremes, sums, Beside::default());
            sets.flags[row] |= match sums.n {
                n if n <= 0 => flags::GROUP_EMPTY,
                1 => flags::GROUP_SINGLE,
                _ if extremes.all_equal() => flags::GROUP_ZERO_VARIANCE,
                _ => 0,
            };
            sets.applies[slot] = (!stream.leaves_out()).then(|| standard.resolve(true, Sums::default, &mut 0));
            sets.set_standard(slot, standard);
        };
        if !matches!(lane.source, Source::Whole) {
            let (mut extremes, mut sums) = (Extremes::EMPTY, Sums::default());
            let list: &[f32] = if group.in_values { &self.usual_values[..group.elements] } else { &self.usual_elements[..group.elements] };
            let bits = plan.bits(0);
            let mut finite = true;
            group_parts(&job, members, group, list, |part, counts| {
                let found = exact::few_extremes(job.simd(), part);
                finite &= !found.is_bad();
                if counts {
                    extremes.add(&found);
                }
            });
            if !finite {
                return None;
            }
            let grid = Grid::new(bits, extremes.absmax);
            group_parts(&job, members, group, list, |part, counts| match (counts, bits) {
                (false, _) => (),
                (true, STEP_BITS) => exact::sums_narrow(job.simd(), &grid, part, &mut [], &mut sums),
                (true, _) => exact::sums_wide(&grid, part, None, &extremes, &mut sums),
            });
            set(0, &extremes, &sums);
        }
        let raw = |s: usize, i: usize| job.problem.rollout_streams[s].as_ref().map_or(0.0, |stream| stream.f32(i));
        let sums_rewards = c.fusion == Fusion::RewardSum;
        let single = match (members, lane.single) {
            (Members::Range(a, b), Some((rewards, weight))) if a <= b => Some((&rewards[a..b], weight)),
            _ => None,
        };
        if sums_rewards && single.is_none() {
            // Seen before `missing` has its say: what is missing is counted on the general path.
            let finite = |i: usize| rollout_streams::places(job.given).all(|s| raw(s, i).is_finite() && job.own_value(s, i).is_some_and(f32::is_finite));
            members.iter().all(finite).then_some(())?;
        }
        // Sums of rewards are formed once, in a list that is free where there is no process signal.
        let mut summed = None;
        if sums_rewards && matches!(lane.source, Source::Whole) {
            let to = self.usual_elements.get_mut(..members.len())?;
            match single {
                // Finite where the reward is.
                Some((rewards, weight)) => to.iter_mut().zip(rewards).for_each(|(to, x)| *to = (weight * *x as f64) as f32),
                None => {
                    for (to, i) in to.iter_mut().zip(members.iter()) {
                        *to = job.rollout_value(0, i)?;
                    }
                }
            }
            summed = Some(&*to);
        }
        let counts = |i: usize| group.all_count || job.rollout(i).state & state::OUT_OF_STATS == 0;
        for s in rollout_streams::places(job.sets) {
            let (mut extremes, mut sums) = (Extremes::EMPTY, Sums::default());
            let slot = slots.of_rollout_stream(s);
            let side_by_side = match (members, lane.rewards[s]) {
                _ if group.all_count && summed.is_some() => summed,
                (Members::Range(a, b), Some(rewards)) if group.all_count && a <= b => Some(&rewards[a..b]),
                _ => None,
            };
            if let Some(values) = side_by_side {
                extremes = exact::few_extremes(job.simd(), values);
                if extremes.is_bad() {
                    return None;
                }
                exact::sums_wide_of(job.simd(), &Grid::new(plan.bits(slot), extremes.absmax), values, &extremes, &mut sums);
            } else {
                for i in members.iter() {
                    let x = job.rollout_value(s, i).filter(|x| x.is_finite() && raw(s, i).is_finite())?;
                    if counts(i) {
                        extremes.push(x);
                    }
                }
                let grid = Grid::new(plan.bits(slot), extremes.absmax);
                for i in members.iter().filter(|i| counts(*i)) {
                    exact::sums_wide(&grid, &[job.rollout_value(s, i)?], None, &extremes, &mut sums);
                }
            }
            set(slot, &extremes, &sums);
        }
        if group.format == 1 {
            sets.flags[FORMAT] |= flags::GROUP_ALL_VIOLATING;
        }
        if !members.is_empty() {
            self.report.degenerate_groups += degenerate;
        }
        Some(())
    }
}
