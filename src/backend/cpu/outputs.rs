//! What a run writes beside the advantages: returns, path scores, chunks, statistics, flags.
use super::expand::Chunks;
use super::scope::Scope;
use super::standard::Standard;
use super::worker::{Job, Worker};
use crate::model::flags;
use crate::model::array::{Array, DType, Row};
use crate::model::batch::Extent;
use crate::model::config::MAX_STREAMS;
use crate::model::outputs::Outputs;
use crate::numerics::convert::OutElem;
use crate::plan::workspace::Rollout;

/// Writes an integer as i32 or i64.
pub unsafe fn put_int(row: &Row, i: usize, value: i64) {
    // SAFETY: the slot is this thread's.
    unsafe {
        match row.dtype() {
            DType::I32 => row.put(i, value as i32),
            _ => row.put(i, value),
        }
    }
}

/// Writes a number as f32 or f64.
pub unsafe fn put_float(row: &Row, i: usize, value: f64) {
    let mut over = 0;
    // SAFETY: the slot is this thread's.
    unsafe {
        match row.dtype() {
            DType::F32 => row.put(i, f32::from_f64(value, &mut over)),
            _ => row.put(i, f64::from_f64(value, &mut over)),
        }
    }
}

impl Worker<'_> {
    /// Returns (in v) of a rollout.
    pub fn write_returns(&mut self, at: &Extent, scope: &Scope, lines: Chunks, n: usize, o: &Outputs) {
        let Some(returns) = &o.returns else { return };
        let v = std::mem::take(&mut self.v);
        // SAFETY: the rollout's slots are this thread's; returns lie over no input.
        unsafe { self.row(returns, at, scope, lines, &v[..n]) };
        self.v = v;
    }

    /// Path score, chunk count, ends and values (in f) of rollout i.
    #[allow(clippy::too_many_arguments)]
    pub fn side_outputs(&mut self, i: usize, at: &Extent, scope: &Scope, kept: &Rollout, chunks: Chunks, path: f64, o: &Outputs) {
        let job = self.job;
        let (k, row, place) = (kept.chunks as usize, job.problem.row(i), self.place);
        // SAFETY: slots of rollout i; likewise below.
        unsafe {
            if let Some(paths) = &o.path_scores {
                put_float(&paths.whole(), row, path);
            }
            if let Some(counts) = &o.num_chunks {
                put_int(&counts.whole(), row, if place.joint { place.chunks } else { k } as i64);
            }
            if let Some(flags) = &o.rollout_flags {
                flags.whole().put(row, (kept.flags | place.flags) as i32);
            }
            if let Some(ends) = &o.chunk_ends {
                let row = slots(ends, at);
                chunks.each(scope, |j, _, b| put_int(&row, j, b as i64));
            }
            if let Some(values) = &o.chunk_values {
                let row = slots(values, at);
                self.f[..k].iter().enumerate().for_each(|(j, a)| put_float(&row, j, *a));
            }
        }
        if kept.flags & flags::ROLLOUT_ABSENT == 0 && place.head {
            self.report.rollouts += 1;
        }
        self.report.tokens += kept.count as i64;
        self.report.chunks += kept.own_chunks() as i64;
    }

}

impl Job<'_> {
    /// Statistics and flags of a group; `standard`: that of a slot.
    pub fn group_outputs<'s>(&self, g: usize, standard: impl Fn(usize) -> &'s Standard, flags: &[i32; MAX_STREAMS]) {
        let job = self;
        let Some(o) = job.outputs.filter(|o| o.ask_statistics()) else { return };
        let mut rows: [(i64, f64, f64, f64); MAX_STREAMS] = [(0, 0.0, 0.0, 0.0); MAX_STREAMS];
        for slot in 0..job.plan.slots.count {
            let Some(row) = job.plan.slots.reported(slot) else { continue };
            let standard = standard(slot);
            if !standard.extremes.is_bad() && standard.sums.n > 0 {
                let (mean, std) = standard.reported();
                rows[row] = (standard.sums.n, mean, std, standard.extremes.absmax_value() as f64);
            }
        }
        let line = |a: &Array| a.line(g, 0, MAX_STREAMS, false);
        // SAFETY: the group's slots are this thread's.
        unsafe {
            for (s, (count, mean, std, absmax)) in rows.iter().enumerate() {
                if let Some(a) = &o.stats_count {
                    put_int(&line(a), s, *count);
                }
                for (a, x) in [(&o.stats_mean, mean), (&o.stats_std, std), (&o.stats_absmax, absmax)] {
                    if let Some(a) = a {
                        put_float(&line(a), s, *x);
                    }
                }
                if let Some(a) = &o.group_flags {
                    put_int(&line(a), s, flags[s] as i64);
                }
            }
        }
    }
}

/// Slots of a chunk list: those of the rollout's tokens, from token_offset(i) (padded: i T, whatever the side of the padding).
pub fn slots(array: &Array, at: &Extent) -> Row {
    if at.flat { at.of(array) } else { array.line(at.row, 0, at.len, false) }
}
