//! Fusion: eq. 4, its rivals in the paper's §4, and where each stream's term goes (rules 23, 24, 54, 55).
use super::load::Loaded;
use super::sets::{Element, Operator, Whole};
use super::shape::Group;
use super::*;
use std::ops::Range;

/// Table 3's rival: R = ((w_prc s + w_out r_out) + w_fmt r_fmt), raw, rounded to f32 (rule 24). It takes the place of the signal.
pub fn reward_shaping(cfg: &Config, l: &mut Loaded) {
    let raw = |s: f32| {
        let mut sum = cfg.process[0].weight * s as f64;
        if let Some(v) = l.rows[0] {
            sum += cfg.outcome.weight * v as f64;
        }
        if let Some(v) = l.rows[1] {
            sum += cfg.format.weight * v as f64;
        }
        sum as f32
    };
    let x = l.x[0].iter().map(|v| v.map(raw)).collect();
    let elements = l.elements[0].iter().map(|&(s, key)| (raw(s), key)).collect();
    l.x[0] = x;
    l.elements[0] = elements;
    // Tokens out of scope that a scan takes part with have a shaped reward as well.
    l.beyond.iter_mut().flatten().for_each(|s| *s = s.map(raw));
}

/// A rollout's fused advantages: of each chunk in two parts, what comes from its own place and what the whole rollout has in common.
pub struct Fused {
    pub process: Vec<f64>,
    pub sequence: Vec<f64>,
    /// What belongs on the last token of the extent where that token is out of scope: a scan under `scan_mask = none` alone reads it.
    pub at_end: f64,
    /// len: process terms of tokens out of scope (rule 59); empty where no scan reads them.
    pub beyond: Vec<f64>,
}

pub struct Fuser<'a> {
    pub cfg: &'a Config,
    pub rollout: usize,
    pub r: &'a Rollout,
    pub l: &'a Loaded,
    pub group: &'a Group,
    pub batch: &'a [Whole],
    pub given: &'a [bool],
}

impl Fuser<'_> {
    fn operator<'s>(&'s self, row: &'s StreamCfg, at: usize, set: &'s [Element]) -> Operator<'s> {
        let mut given = self.group.given[at];
        if let (true, Some(baseline)) = (at == self.cfg.process.len(), self.l.baseline) {
            given.mean = baseline;
        }
        // Under `count_by = step` a rollout without steps is not in the set.
        let counted = self.r.in_stats && (row.count_by == CountBy::Rollout || self.l.steps > 0);
        Operator::new(row, set, self.batch[at], given, self.rollout, counted)
    }

    /// w N of a per-rollout stream; 0 where it is not given or missing.
    fn row_term(&self, s: usize) -> f64 {
        let Some(x) = self.l.rows[s] else { return 0.0 };
        let p = self.cfg.process.len();
        let own = self.cfg.streams()[p + s];
        let (row, at) = if self.cfg.fusion == Fusion::Pooled { (&self.cfg.process[0], 0) } else { (own, p + s) };
        // The weights of a sum of rewards are in the sum.
        let weight = if self.cfg.fusion == Fusion::RewardSum { 1.0 } else { own.weight };
        weight * self.operator(row, at, &self.group.sets[at]).apply(x as f64)
    }

    /// The value that stands for the chunk in stream p.
    fn x(&self, p: usize, chunk: &Range<usize>) -> Option<f64> {
        if self.cfg.chunk_value == ChunkValue::Last {
            return self.l.x[p][chunk.end - 1].map(|v| v as f64);
        }
        let values: Vec<f64> = chunk.clone().filter_map(|i| self.l.x[p][i]).map(|v| v as f64).collect();
        if values.is_empty() { None } else { Some(values.iter().sum::<f64>() / values.len() as f64) }
    }

    /// Reward shaping has its weights in R already: F = N(R).
    fn weight(&self, p: usize) -> f64 {
        if self.cfg.fusion == Fusion::RewardShaping { 1.0 } else { self.cfg.process[p].weight }
    }

    /// Eq. 4 without the sum over the per-rollout streams. The sets are the group's, or those of the step of the chunk's last token.
    fn process_terms(&self, chunks: &[Range<usize>]) -> Vec<f64> {
        let mut sums = vec![0.0; chunks.len()];
        for p in 0..self.l.x.len() {
            let whole = self.operator(&self.cfg.process[p], p, &self.group.sets[p]);
            for (sum, chunk) in sums.iter_mut().zip(chunks) {
                let Some(x) = self.x(p, chunk) else { continue };
                let n = if self.cfg.step_sets == StepSets::StepGroup && !self.l.stepless {
                    let key = self.l.keys[chunk.end - 1];
                    let equal: Vec<Element> = self.group.sets[p].iter().filter(|el| el.key == key).copied().collect();
                    self.operator(&self.cfg.process[p], p, &equal).apply(x)
                } else {
                    whole.apply(x)
                };
                *sum += self.weight(p) * n;
            }
        }
        sums
    }

    /// Process rewards of tokens out of scope; a stream whose value is left out has none there.
    fn beyond(&self) -> Vec<f64> {
        let mut sums = vec![0.0; if self.l.beyond.is_empty() { 0 } else { self.r.len }];
        for (p, values) in self.l.beyond.iter().enumerate() {
            let operator = self.operator(&self.cfg.process[p], p, &self.group.sets[p]);
            for (sum, x) in sums.iter_mut().zip(values) {
                *sum += x.map_or(0.0, |x| self.weight(p) * operator.apply(x as f64));
            }
        }
        sums
    }

    /// Rule 54. The part that every chunk gains is the sequence's.
    fn put(&self, place: Place, term: f64, fused: &mut Fused) {
        let last_in_scope = self.l.toks.last().is_some_and(|&t| t + 1 == self.r.len);
        match (place, fused.process.last_mut()) {
            (_, None) => {}
            (Place::Every, _) => fused.sequence.iter_mut().for_each(|s| *s += term),
            (Place::End, _) if !last_in_scope => fused.at_end += term,
            (Place::Last | Place::End, Some(last)) => *last += term,
        }
    }

    pub fn fuse(&self, chunks: &[Range<usize>]) -> Fused {
        let process = self.process_terms(chunks);
        let mut fused = Fused { sequence: vec![0.0; process.len()], process, at_end: 0.0, beyond: self.beyond() };
        let rows = &self.cfg.streams()[self.cfg.process.len()..];
        match self.cfg.fusion {
            Fusion::RewardShaping => {}
            // §4.1 of the paper: outcome and format enter once, at the rollout's last in-scope token.
            Fusion::Pooled => (0..2).for_each(|s| self.put(Place::Last, self.row_term(s), &mut fused)),
            Fusion::RewardSum => self.put(self.cfg.outcome.place, self.row_term(0), &mut fused),
            Fusion::Advantage if self.r.format_ok == Some(false) => {
                let weights = self.cfg.streams().into_iter().zip(self.given).filter(|(_, given)| **given).map(|(row, _)| row.weight);
                let n = self.l.rows[1].map_or(0.0, |x| {
                    let at = self.cfg.process.len() + 1;
                    self.operator(&self.cfg.format, at, &self.group.sets[at]).apply(x as f64)
                });
                fused.process.fill(0.0);
                self.put(self.cfg.format.place, weights.sum::<f64>() * n, &mut fused);
            }
            Fusion::Advantage => (0..rows.len()).for_each(|s| self.put(rows[s].place, self.row_term(s), &mut fused)),
        }
        if self.cfg.fusion == Fusion::Advantage && self.r.format_ok == Some(false) {
            fused.beyond.fill(0.0);
        }
        fused
    }
}
