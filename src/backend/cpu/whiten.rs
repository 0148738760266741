//! Whitening over the batch (docs/formulas.md 2.6): exact statistics of the advantages rounded to f32, then one shift and scale for all.
use super::expand::{Chunks, FEW};
use super::members::Members;
use super::scope::Scope;
use super::standard::inverse;
use super::worker::Worker;
use crate::model::array::Array;
use crate::model::batch::Extent;
use crate::model::flags;
use crate::model::config::*;
use crate::numerics::exact::{self, Extremes, Grid, STEP_BITS, Sums};
use crate::plan::workspace::{Rollout, state};

/// Shift and scale of a batch.
#[derive(Clone, Copy, Debug)]
pub struct Whitening {
    by: Affine,
    /// One element, or all equal: the deviation from the mean is 0.
    flat: bool,
    empty: bool,
}

/// What becomes of a value a: (a - mean) inv + back.
#[derive(Clone, Copy, Debug)]
pub struct Affine {
    pub mean: f64,
    pub inv: f64,
    pub back: f64,
}

impl Whitening {
    pub fn new(c: &Config, extremes: &Extremes, sums: &Sums) -> Whitening {
        let grid = Grid::new(STEP_BITS, extremes.absmax);
        let empty = sums.n <= 0;
        let flat = empty || sums.n == 1 || extremes.all_equal();
        let mean = if empty { 0.0 } else { sums.mean(&grid) };
        let inv = if flat { 0.0 } else { inverse(sums.variance_units(&grid, c.whiten_ddof), grid.down, c.whiten_epsilon, c.whiten_epsilon_mode) };
        Whitening { by: Affine { mean, inv, back: if c.whiten_shift { 0.0 } else { mean } }, flat, empty }
    }

    /// Where there is something to whiten by.
    fn affine(&self) -> Option<&Affine> {
        (!self.flat).then_some(&self.by)
    }

    /// Values are read rounded to f32, as the statistics did.
    pub fn apply(&self, values: &mut [f64]) {
        let Affine { mean, inv, back } = self.by;
        for x in values {
            let a = (*x as f32).clamp(-f32::MAX, f32::MAX) as f64;
            // Rounded where there is nothing to whiten by, too: a call that keeps its values and one that makes them anew say the same.
            *x = if self.empty { a } else if self.flat { back } else { (a - mean) * inv + back };
        }
    }
}

impl Worker<'_> {
    fn whitens(kept: &Rollout) -> bool {
        kept.state & (state::ZEROED | state::OUT_OF_STATS) == 0 && kept.flags & flags::ROLLOUT_ABSENT == 0
    }

    /// Values that a rollout kept, one a chunk (gae over tokens: a token).
    fn kept_lines(&self, kept: &Rollout) -> usize {
        if self.job.config().credits_tokens() || kept.state & state::EVERY_TOKEN != 0 { kept.count as usize } else { kept.chunks as usize }
    }

    /// The value of all tokens in scope of a rollout that has one such.
    fn one_value(&self, i: usize, kept: &Rollout) -> Option<f32> {
        // SAFETY: the rollout is this thread's.
        (kept.state & state::ONE_VALUE != 0 && kept.count > 0).then(|| unsafe { *self.job.path(i) })
    }

    /// Of all members of a group.
    pub fn group_whiten_extremes(&self, members: Members) -> Extremes {
        let mut all = Extremes::EMPTY;
        members.iter().for_each(|i| all.add(&self.whiten_extremes(i)));
        all
    }

    fn whiten_extremes(&self, i: usize) -> Extremes {
        let job = self.job;
        let kept = job.rollout(i);
        if !Self::whitens(&kept) {
            return Extremes::EMPTY;
        }
        if job.config().whiten == Whiten::Rollouts {
            if !job.is_head(i) {
                return Extremes::EMPTY;
            }
            let mut one = Extremes::EMPTY;
            // SAFETY: the rollout is this thread's; likewise below.
            one.push(unsafe { *job.path(i) });
            return one;
        }
        if let Some(value) = self.one_value(i, &kept) {
            let mut one = Extremes::EMPTY;
            one.push(value);
            return one;
        }
        let at = job.problem.extent(i);
        let n = self.kept_lines(&kept);
        // SAFETY: as above.
        exact::extremes(job.simd(), unsafe { &job.whitened(&at)[..n] })
    }

    /// Adds those of a rollout's values to the thread's.
    pub fn whiten_sums(&mut self, i: usize, grid: &Grid) {
        let mut to = self.whiten_sums;
        self.add_whiten_sums(i, grid, &mut to);
        self.whiten_sums = to;
    }

    fn add_whiten_sums(&self, i: usize, grid: &Grid, to: &mut Sums) {
        let job = self.job;
        let kept = job.rollout(i);
        if !Self::whitens(&kept) {
            return;
        }
        if job.config().whiten == Whiten::Rollouts {
            if !job.is_head(i) {
                return;
            }
            // SAFETY: as above.
            return to.push(grid, grid.quantize(unsafe { *job.path(i) }), 1);
        }
        if let Some(value) = self.one_value(i, &kept) {
            return to.push(grid, grid.quantize(value), kept.count as i64);
        }
        let at = job.problem.extent(i);
        let n = self.kept_lines(&kept);
        // SAFETY: as above.
        let values = unsafe { &job.whitened(&at)[..n] };
        if n == kept.count as usize && (job.config().credits_tokens() || kept.state & state::EVERY_TOKEN != 0) {
            return exact::sums_narrow(job.simd(), grid, values, &mut [], to);
        }
        let scope = job.kept_scope(i, &kept, &at);
        // SAFETY: as above.
        let last: &[u32] = unsafe { job.last(&at) };
        Chunks::Last(&last[..n]).counts(&scope, |j, tokens| to.push(grid, grid.quantize(values[j]), tokens as i64));
    }

    /// Last pass of a whitened run: from the kept advantages to the output.
    pub fn write_whitened(&mut self, i: usize, whitening: &Whitening) {
        let job = self.job;
        let Some(outputs) = job.outputs else { return };
        let kept = job.rollout(i);
        let at = job.problem.extent(i);
        let scope = job.kept_scope(i, &kept, &at);
        let n = self.kept_lines(&kept);
        let one = self.one_value(i, &kept).map(|value| ([value], [kept.end - 1]));
        let whitening = (kept.state & state::ZEROED == 0).then_some(whitening);
        if let Some(([value], _)) = one
            && at.len <= FEW
            && !scope.has_holes()
        {
            return self.write_one(&at, &scope, value, whitening, &outputs.advantages);
        }
        let (values, last): (&[f32], &[u32]) = match &one {
            Some((value, last)) => (value, last),
            // SAFETY: the rollout's own lists.
            None => unsafe { (job.whitened(&at), job.last(&at)) },
        };
        let every = job.config().credits_tokens() || kept.state & state::EVERY_TOKEN != 0;
        if every
            && one.is_none()
            && let Some(by) = whitening.and_then(Whitening::affine)
            && self.whitened_tokens(&at, &scope, &values[..n], by, &outputs.advantages)
        {
            return;
        }
        self.d.iter_mut().zip(&values[..n]).for_each(|(d, x)| *d = *x as f64);
        let lines = if every { Chunks::EveryToken } else { Chunks::Last(&last[..n]) };
        self.finish(&at, &scope, lines, n, whitening, &outputs.advantages);
    }

    /// `finish` of a rollout of few tokens that has one value.
    fn write_one(&mut self, at: &Extent, scope: &Scope, value: f32, whitening: Option<&Whitening>, to: &Array) {
        let (c, n) = (self.job.config(), scope.count as i64);
        let mut d = [value as f64];
        if let Some(whitening) = whitening {
            whitening.apply(&mut d);
        }
        let [mut d] = d;
        if d.abs() > c.clip {
            d = d.clamp(-c.clip, c.clip);
            self.report.clipped_tokens += n;
        }
        self.report.sum_advantages += n as f64 * d;
        self.report.sum_squares += n as f64 * d * d;
        // SAFETY: the rollout's slots are this thread's; what lies under them has been used.
        self.report.overflowed_tokens += unsafe { self.row(to, at, scope, Chunks::Last(&[scope.end as u32 - 1]), &[d]) } as i64;
    }
}
