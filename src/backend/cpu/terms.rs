//! Terms of the per-rollout streams in the fusion (eq. 4): standardised, weighted, placed; and the format gate.
use super::group_stats::weighs;
use super::rollout_streams;
use super::scope::Scope;
use super::shape::Group;
use super::standard::plain;
use super::worker::Worker;
use crate::model::batch::Extent;
use crate::model::config::*;
use crate::model::flags;
use crate::numerics::exact::{self, Sums};
use crate::plan::workspace::{Rollout, state};

/// F of a rollout of wrong format: of its last chunk, and of the others.
#[derive(Clone, Copy, Debug)]
pub struct Gated {
    pub every: f64,
    pub last: f64,
}

/// Terms w * N(r) of a rollout, in the stream table's order.
#[derive(Clone, Copy, Debug, Default)]
pub struct Terms {
    /// Of every chunk.
    every: ([f64; rollout_streams::COUNT], usize),
    /// Of the last chunk, where it differs from the others: those of every chunk, and those placed there.
    last: ([f64; rollout_streams::COUNT], usize),
    /// Of the extent's last token where it is out of scope (`place = end`).
    pub beyond: Option<f64>,
    /// Does the last chunk differ from the others?
    pub placed: bool,
    /// The format is wrong: F is this, whatever the other streams say.
    pub gated: Option<Gated>,
}

impl Terms {
    fn push(&mut self, term: f64, place: Place, at_end: bool) {
        let add = |list: &mut ([f64; rollout_streams::COUNT], usize)| {
            list.0[list.1] = term;
            list.1 += 1;
        };
        if place != Place::Every && !self.placed {
            // Until now they were the same.
            (self.last, self.placed) = (self.every, true);
        }
        if place == Place::Every {
            add(&mut self.every);
        }
        if self.placed && (place != Place::End || at_end) {
            add(&mut self.last);
        } else if place == Place::End && !at_end {
            self.beyond = Some(self.beyond.map_or(term, |b| b + term));
        }
    }
    pub fn every(&self) -> &[f64] {
        &self.every.0[..self.every.1]
    }
    pub fn at_last(&self) -> &[f64] {
        let last = if self.placed { &self.last } else { &self.every };
        &last.0[..last.1]
    }
    /// ((t0 + t1) + t2) + ... of the terms of every chunk.
    pub fn sum(&self) -> f64 {
        self.every().iter().copied().reduce(|a, b| a + b).unwrap_or(0.0)
    }
}

impl Worker<'_> {
    /// Per-rollout terms, and the format gate.
    pub fn terms(&mut self, i: usize, at: &Extent, scope: &Scope, kept: &Rollout, group: &Group) -> Terms {
        let job = self.job;
        let (c, slots) = (job.config(), &job.plan.slots);
        let counts = kept.state & state::OUT_OF_STATS == 0;
        let mut terms = Terms::default();
        if slots.joint {
            return terms;
        }
        let gate = c.fusion == Fusion::Advantage && kept.flags & flags::ROLLOUT_FORMAT_VIOLATING != 0;
        let at_end = if self.place.joint { self.place.at_end } else { scope.end == at.len };
        let mut violation = None;
        for s in rollout_streams::places(job.sets) {
            let (slot, row) = (slots.of_rollout_stream(s), &c.streams[OUTCOME + s]);
            let r = match (job.rollout_value(s, i), group.applies[s]) {
                (None, _) => 0.0,
                (Some(x), Some(apply)) => plain(apply, x as f64).clamp(-row.clip_standardized, row.clip_standardized),
                (Some(x), None) => {
                    let counts = counts && weighs(row, kept);
                    let own;
                    let standard = match (row.center, job.baseline(i)) {
                        (Center::Given, Some(b)) if s == 0 => {
                            own = group.standards[slot].around(b as f64);
                            &own
                        }
                        _ => &group.standards[slot],
                    };
                    let mut lost = 0;
                    let apply = standard.resolve(counts, || Self::own_share(x, slot, group), &mut lost);
                    let r = standard.one(apply, x, &mut lost);
                    self.report.lost_deviations += lost;
                    r.clamp(-row.clip_standardized, row.clip_standardized)
                }
            };
            terms.push(job.stream_weight(s) * r, row.place, at_end);
            if gate && s == 1 {
                let f = group.weight * r;
                let outside = row.place == Place::End && !at_end;
                violation = Some((outside, f));
                terms.gated = Some(Gated { every: if row.place == Place::Every { f } else { 0.0 }, last: if outside { 0.0 } else { f } });
            }
        }
        if let Some((outside, f)) = violation {
            terms.beyond = outside.then_some(f);
        }
        terms
    }

    /// A per-rollout stream's own share of its set.
    fn own_share(x: f32, slot: usize, group: &Group) -> Sums {
        let mut own = Sums::default();
        exact::sums_wide(&group.standards[slot].grid, &[x], None, &group.state.extremes[slot], &mut own);
        own
    }
}

/// W: the sum of the weights of the streams given, in the stream table's order.
pub fn total_weight(c: &Config, process: usize, given: &[bool; rollout_streams::COUNT]) -> f64 {
    let rollout = given.iter().enumerate().filter(|(_, g)| **g).map(|(s, _)| c.streams[OUTCOME + s].weight);
    c.streams[..process].iter().map(|s| s.weight).chain(rollout).fold(0.0, |sum, w| sum + w)
}
