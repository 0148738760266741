//! Chunk-by-Value (§2.4, Algorithm 2) and the KL edges on integers (§5.4). Chunks are ranges over a rollout's in-scope tokens.
use super::load::{frexp_exponent, Loaded};
use super::sets::{inverse, inverse_of_std, stats, values_of, Element, Given, Whole};
use super::*;
use std::ops::Range;

/// The sums behind the group's mean of the standardised signal at each position.
#[derive(Clone, Debug, Default)]
pub struct KlTable {
    /// C[t] = sum of q over the rollouts that have position t in scope.
    c: Vec<i128>,
    /// n[t], how many they are.
    n: Vec<i128>,
    degenerate: bool,
    centered: bool,
    inv: f64,
    unit: f64,
    sum: i128,
    count: i128,
    group_size: i128,
}

/// The position of a token is its index less that of the rollout's first in-scope token (rule 3).
fn position(l: &Loaded, i: usize) -> usize {
    l.toks[i] - l.toks[0]
}

/// Only rollouts with `in_stats` take part, as in the sets (rule 15).
pub fn kl_table(cfg: &Config, set: &[Element], batch: &Whole, given: Given, members: &[(&Rollout, &Loaded)]) -> KlTable {
    let row = &cfg.process[0];
    let s = stats(&values_of(set), row.ddof);
    let flat = match row.scale {
        Scale::Group => s.max == s.min,
        Scale::Batch => batch.stats.max == batch.stats.min,
        Scale::Given => given.std == 0.0,
        _ => false,
    };
    let mut table = KlTable { degenerate: s.n < 2 || flat || (row.scale == Scale::AbsMax && s.absmax == 0.0), ..KlTable::default() };
    if table.degenerate || s.absmax == 0.0 {
        table.degenerate = true;
        return table;
    }
    table.centered = row.center != Center::None;
    table.inv = match row.scale {
        Scale::Group => inverse(s.var, row.epsilon, row.epsilon_mode),
        Scale::Batch => inverse(batch.stats.var, row.epsilon, row.epsilon_mode),
        Scale::Given => inverse_of_std(given.std, row.epsilon, row.epsilon_mode),
        Scale::AbsMax => 1.0 / s.absmax,
        _ => 1.0,
    };
    if row.center == Center::LeaveOneOut {
        // x - (sum - x)/(n-1) = (n x - sum)/(n-1)
        table.inv *= s.n as f64 / (s.n - 1) as f64;
    }
    let shift = 30 - frexp_exponent(s.absmax);
    table.unit = 2f64.powi(-shift);
    table.count = s.n as i128;
    for (r, l) in members {
        if r.absent || !r.in_stats {
            continue;
        }
        table.group_size += 1;
        for i in 0..l.toks.len() {
            let t = position(l, i);
            if table.c.len() <= t {
                table.c.resize(t + 1, 0);
                table.n.resize(t + 1, 0);
            }
            let q = (l.u[i] as f64 * 2f64.powi(shift)).round_ties_even() as i128;
            table.c[t] += q;
            table.n[t] += 1;
            table.sum += q;
        }
    }
    table
}

impl KlTable {
    /// Does the average over the group differ between positions a and b?
    fn edge(&self, cfg: &Config, a: usize, b: usize) -> bool {
        if self.degenerate || a >= self.n.len() || b >= self.n.len() || self.n[a] == 0 || self.n[b] == 0 {
            return false;
        }
        let (left, right) = match cfg.average_over {
            AverageOver::Live => (self.c[b] * self.n[a] - self.c[a] * self.n[b], self.n[b] * self.n[a]),
            AverageOver::Group if self.centered => {
                ((self.c[b] - self.c[a]) * self.count - (self.n[b] - self.n[a]) * self.sum, self.group_size * self.count)
            }
            AverageOver::Group => (self.c[b] - self.c[a], self.group_size),
        };
        left.abs() as f64 * self.unit * self.inv > cfg.eta * right as f64
    }
}

/// Cuts between neighbours; `cut(first token of the chunk, token before, token)`.
fn cut_where(len: usize, cut: impl Fn(usize, usize, usize) -> bool) -> Vec<Range<usize>> {
    let mut chunks = Vec::new();
    if len == 0 {
        return chunks;
    }
    let mut first = 0;
    for i in 1..len {
        if cut(first, i - 1, i) {
            chunks.push(first..i);
            first = i;
        }
    }
    chunks.push(first..len);
    chunks
}

/// The runs that the detector finds in a step-scored or dense signal (Algorithm 2, rule 14).
pub fn by_value_runs(cfg: &Config, l: &Loaded) -> Vec<Range<usize>> {
    cut_where(l.toks.len(), |first, before, i| {
        let gap = l.toks[i] - l.toks[before] > 1 && !cfg.bridge_scope_gaps;
        let with = if cfg.boundary_rule == BoundaryRule::Anchored { first } else { before };
        let moved = (l.u[i] as f64 - l.u[with] as f64).abs() > cfg.eta;
        let stepped = l.caller_steps && !cfg.merge_equal_steps && l.step_of[i] != l.step_of[before];
        gap || moved || stepped
    })
}

fn by_kl(cfg: &Config, l: &Loaded, table: &KlTable) -> Vec<Range<usize>> {
    cut_where(l.toks.len(), |first, before, i| {
        let gap = l.toks[i] - l.toks[before] > 1 && !cfg.bridge_scope_gaps;
        let with = if cfg.boundary_rule == BoundaryRule::Anchored { first } else { before };
        gap || table.edge(cfg, position(l, with), position(l, i))
    })
}

pub fn chunks_of(cfg: &Config, r: &Rollout, l: &Loaded, table: Option<&KlTable>) -> Vec<Range<usize>> {
    let len = l.toks.len();
    if !l.steps_fit {
        return Vec::new();
    }
    match cfg.chunk {
        Chunk::Token => cut_where(len, |_, _, _| true),
        Chunk::None => cut_where(len, |_, _, _| false),
        Chunk::Segment => cut_where(len, |_, before, i| l.toks[i] - l.toks[before] > 1),
        Chunk::Given => {
            let marks = r.chunk_ends.as_ref().expect("chunk = given needs chunk ends");
            // A mark between two in-scope tokens, or on the first of them, ends the chunk; marks out of scope count as well (rule 17).
            cut_where(len, |_, before, i| (l.toks[before]..l.toks[i]).any(|t| marks[t]))
        }
        Chunk::Step if l.stepless => cut_where(len, |_, _, _| false),
        Chunk::Step if cfg.kind == Kind::Kl && r.step_ends.is_none() => cut_where(len, |_, _, _| true),
        Chunk::Step => cut_where(len, |_, before, i| l.step_of[i] != l.step_of[before]),
        Chunk::ByValue => match cfg.kind {
            Kind::None => cut_where(len, |_, _, _| false),
            Kind::Kl => by_kl(cfg, l, table.expect("kl chunks need the group's table")),
            Kind::Prm if l.stepless => cut_where(len, |_, _, _| false),
            Kind::Prm => by_value_runs(cfg, l),
        },
    }
}
