//! A rollout from its chunks to its outputs: the expressions of `terms`, `fuse` and `credit`, in their order.
use super::Lane;
use super::terms::{Terms, usual_apply};
use crate::backend::cpu::expand::Chunks;
use crate::backend::cpu::worker::Worker;
use crate::backend::cpu::{fuse, returns};
use crate::model::config::*;
use crate::model::flags;
use crate::numerics::convert::OutElem;
use crate::numerics::simd::dispatch;
use crate::plan::workspace::{Rollout, state};

dispatch! {
    /// D_j = G_j (K - j + 1)^-k in place; `divisors` as in `returns::divide`.
    pub fn multiply(d: &mut [f64], divisors: &[f64]) {
        d.iter_mut().zip(divisors).for_each(|(d, t)| *d *= t);
    }
}

impl Worker<'_> {
    /// Rollout i, whose chunks are listed from `begin` on.
    pub(super) fn usual_shape(&mut self, lane: &Lane, i: usize, kept: &Rollout, begin: usize) {
        let job = self.job;
        let (c, plan) = (job.config(), job.plan);
        let Some(outputs) = job.outputs else { return };
        let (at, simd, sets) = (lane.extent(i), job.simd(), &self.usual_sets);
        let scope = job.kept_scope(i, kept, &at);
        let k = kept.chunks as usize;
        let counts = kept.state & state::OUT_OF_STATS == 0;
        let mut lost = 0;
        // Per-rollout terms, and the format gate.
        let terms = Terms::new(job, sets, lane, i, counts, kept.flags & flags::ROLLOUT_FORMAT_VIOLATING != 0, &mut lost);
        let (gated, terms) = (terms.gated, terms.all());
        // Fusion, in d: the values that are credited; in f, where it is asked for, what the chunks are told to have.
        let apart = c.divide_scope == DivideScope::Process && c.fusion == Fusion::Advantage;
        let d = &mut self.d[..k];
        match (gated, kept.state & state::HAS_PROCESS != 0) {
            (Some(every), _) => d.fill(if apart { 0.0 } else { every }),
            (None, false) => d.fill(0.0),
            (None, true) => {
                let apply = usual_apply(sets, 0, counts, 0.0, &mut lost);
                let values = &self.usual_values[begin..begin + k];
                fuse::add_stream(simd, sets.standard(0), apply, c.streams[0].weight, values, false, true, d, &mut lost);
            }
        }
        if outputs.chunk_values.is_some() {
            let f = &mut self.f[..k];
            match gated {
                Some(every) => f.fill(every),
                None => {
                    f.copy_from_slice(d);
                    fuse::add_terms(simd, terms, f);
                }
            }
        }
        if gated.is_none() && !apart {
            fuse::add_terms(simd, terms, d);
        }
        self.report.lost_deviations += lost;
        // Credit.
        if c.credit == Credit::ReturnToGo {
            returns::scan(simd, d, &plan.decay);
        }
        let later = if apart { gated.or_else(|| terms.iter().copied().reduce(|a, b| a + b)).unwrap_or(0.0) } else { 0.0 };
        if outputs.returns.is_some() {
            let v = &mut self.v[..k];
            v.copy_from_slice(d);
            if apart {
                v.iter_mut().for_each(|g| *g += later);
            }
        }
        if c.k != 0.0 {
            multiply(simd, d, &plan.divisors[plan.limits.rollout_tokens - k..]);
        }
        if apart {
            d.iter_mut().for_each(|d| *d += later);
        }
        let path = d.first().copied().unwrap_or(0.0);
        // Post.
        if c.temperature != 1.0 {
            d.iter_mut().for_each(|d| *d /= c.temperature);
        }
        // The list leaves the worker, which the outputs are written through.
        let list = std::mem::take(&mut self.usual_ends);
        let ends: &[u32] = &list[begin..begin + k];
        self.write_returns(&at, &scope, Chunks::Last(ends), k, outputs);
        let told = if lane.tokens { Rollout { chunks: kept.count, ..*kept } } else { *kept };
        self.side_outputs(i, &at, &scope, &told, Chunks::Last(ends), path, outputs);
        if c.whiten != Whiten::None {
            // Kept for the statistics, and for the pass that writes.
            let mut over = 0;
            // SAFETY: the rollout's own lists.
            unsafe {
                if kept.state & state::ONE_VALUE == 0 {
                    job.last(&at)[..k].copy_from_slice(ends);
                    job.whitened(&at).iter_mut().zip(&self.d[..k]).for_each(|(to, d)| *to = f32::from_f64(*d, &mut over));
                }
                *job.path(i) = f32::from_f64(path / c.temperature, &mut over);
            }
            self.usual_ends = list;
            return;
        }
        let clips = c.clip < f64::INFINITY;
        if clips || outputs.report {
            let d = &mut self.d[..k];
            Chunks::Last(ends).counts(&scope, |j, n| {
                if clips && d[j].abs() > c.clip {
                    self.report.clipped_tokens += n as i64;
                    d[j] = d[j].clamp(-c.clip, c.clip);
                }
                self.report.sum_advantages += n as f64 * d[j];
                self.report.sum_squares += n as f64 * d[j] * d[j];
            });
        }
        let d = std::mem::take(&mut self.d);
        // SAFETY: the rollout's slots are this thread's; the group's input has been read.
        self.report.overflowed_tokens += unsafe { self.row(&outputs.advantages, &at, &scope, Chunks::Last(ends), &d[..k]) } as i64;
        (self.d, self.usual_ends) = (d, list);
    }
}
