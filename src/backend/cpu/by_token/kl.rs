//! kl by value: statistics and position sums of a group in one pass; the advantages of a rollout in one more, or, where neighbours are equal, by way of the
//! list of its chunks' values.
use super::columns::{self, TOGETHER, Tokens};
use super::lanes::Line;
use super::fused::{self, Fused};
use super::{Way, bits, went, wide};
use crate::backend::cpu::expand::Chunks;
use crate::backend::cpu::members::Members;
use crate::backend::cpu::scope::Scope;
use crate::backend::cpu::shape::{Group, Sink};
use crate::backend::cpu::standard::Apply;
use crate::backend::cpu::terms::Terms;
use crate::backend::cpu::worker::Worker;
use crate::model::array::Array;
use crate::model::batch::{Extent, Process};
use crate::model::config::*;
use crate::numerics::simd::Simd;
use crate::numerics::exact::{Extremes, Grid, INFINITE, STEP_BITS, Sums, exponent, key};
use crate::plan::partials::GroupState;
use crate::plan::workspace::{Rollout, state};

/// Tokens of a call's first group that its exponent is guessed from.
const FIRST: usize = 512;

/// Are n values of at most `most` with their terms far from the end of f32, so that nothing need be saturated or counted?
#[inline(always)]
pub(super) fn within(most: f64, terms: &[f64], n: usize) -> bool {
    (most + terms.iter().map(|t| t.abs()).sum::<f64>()) * n as f64 <= 1e38
}

/// Is the rollout one of the set?
fn counts(kept: &Rollout) -> bool {
    kept.state & (state::OUT_OF_STATS | state::HAS_PROCESS) == state::HAS_PROCESS
}

/// Has the rollout tokens out of scope between those in scope?
fn holes(kept: &Rollout) -> bool {
    kept.count != kept.end - kept.first
}

impl<'a> Worker<'a> {
    /// Arrays that the signal is read from, those of them whose lines can be asked for ahead.
    pub(super) fn kl_arrays(&self) -> [Option<&'a Array>; 2] {
        let problem = self.job.problem;
        let fits = |array: &'a Array| Line::fits(array, problem.packed()).then_some(array);
        match &problem.process {
            Process::Signal([Some(signal), ..]) => [fits(signal), None],
            Process::LogProbs { policy, teacher, .. } => [fits(policy), fits(teacher)],
            _ => [None; 2],
        }
    }

    /// The signal of rollout i. `None`: there is no room for it beside those that were formed since these were forgotten.
    #[inline(always)]
    fn kl_line(&mut self, i: usize, at: &Extent) -> Option<Line> {
        match &self.job.problem.process {
            Process::Signal([Some(signal), ..]) if !self.job.by_token.formed => Some(Self::line(signal, at)),
            _ => Some(Line { at: self.formed(i, at)?.cast(), narrow: false }),
        }
    }

    /// Likewise, its tokens in scope, which has no holes.
    #[inline(always)]
    fn kl_tokens(&mut self, i: usize, kept: &Rollout) -> Option<Tokens> {
        let line = self.kl_line(i, &self.job.problem.extent(i))?.from(kept.first as usize);
        Some(Tokens { line, count: (kept.end - kept.first) as usize })
    }

    /// The same for a rollout that is read alone.
    #[inline(always)]
    pub(super) fn kl_line_alone(&mut self, i: usize, at: &Extent) -> Option<Line> {
        if let Some(line) = self.kl_line(i, at) {
            return Some(line);
        }
        self.formed.clear();
        self.kl_line(i, at)
    }

    /// Maxima, sums, columns and live counts of the prepared members, into `to` and the worker's tables; returns the positions. `None`: they are left to the
    /// general stages (holes, values that are not finite, no spread), and nothing counts.
    pub fn token_columns(&mut self, members: Members, to: &mut GroupState) -> Option<usize> {
        let (job, c) = (self.job, self.job.config());
        self.runs.count = 0;
        if !job.by_token.columns {
            return None;
        }
        self.formed.clear();
        // One pass writes the sums and its rollouts' lengths say the counts, where nothing else is asked of them.
        let alone = members.len() <= TOGETHER;
        let mut by_runs = alone && c.boundary_rule == BoundaryRule::Adjacent && c.average_over == AverageOver::Live;
        let (mut positions, mut some, mut count) = (0, [Tokens::NONE; TOGETHER], 0);
        for i in members.iter() {
            let kept = job.rollout(i);
            positions = positions.max((kept.end - kept.first) as usize);
            by_runs &= !holes(&kept);
            if counts(&kept) {
                if holes(&kept) {
                    return None;
                }
                if alone {
                    (some[count], count) = (self.kl_tokens(i, &kept)?, count + 1);
                }
            }
        }
        // The exponent of the group before, or of the first tokens, is a guess at this one's, which the maximum confirms or corrects.
        let mut guess = match self.exponent {
            Some(exponent) => exponent,
            None => {
                let (mut left, mut most) = (FIRST, 0);
                let mut look = |tokens: &Tokens| {
                    let count = tokens.count.min(left);
                    // SAFETY: AVX2 is there in a usual call; `check` has seen the tokens' memory.
                    most = most.max(unsafe { columns::largest(tokens.line, count) });
                    left -= count;
                    left > 0
                };
                if alone {
                    some[..count].iter().all(&mut look);
                } else {
                    for i in members.iter() {
                        let tokens = self.kl_tokens(i, &job.rollout(i))?;
                        if !look(&tokens) {
                            break;
                        }
                    }
                }
                Some(exponent(most as i32)).filter(|e| columns::in_f32(*e)).unwrap_or(1)
            }
        };
        // The longest first.
        let longest_first = |some: &mut [Tokens]| {
            if !some.is_sorted_by(|a, b| a.count >= b.count) {
                some.sort_unstable_by_key(|r| std::cmp::Reverse(r.count));
            }
        };
        if alone {
            longest_first(&mut some[..count]);
        }
        for _ in 0..2 {
            let written = some[0].count;
            if !alone {
                self.columns[..positions].fill(0);
            }
            if !by_runs {
                self.live[..positions].fill(0);
            }
            let (mut largest, mut sums) = (0u32, Sums::default());
            if alone {
                let together = &some[..count];
                // SAFETY: as above.
                largest = unsafe { columns::add(together, guess, true, self.columns, &mut sums) };
                if by_runs {
                    self.runs.count = columns::runs(together, &mut self.runs.list);
                } else {
                    columns::count(together, self.live);
                }
            } else {
                let (mut left, mut count) = (members.len(), 0);
                for i in members.iter() {
                    left -= 1;
                    let kept = job.rollout(i);
                    if counts(&kept) {
                        if count == 0 {
                            self.formed.clear();
                        }
                        (some[count], count) = (self.kl_tokens(i, &kept)?, count + 1);
                    }
                    if count == TOGETHER || (left == 0 && count > 0) {
                        let together = &mut some[..count];
                        longest_first(together);
                        // SAFETY: as above.
                        largest = largest.max(unsafe { columns::add(together, guess, false, self.columns, &mut sums) });
                        columns::count(together, self.live);
                        count = 0;
                    }
                }
            }
            if alone {
                // Positions that only rollouts outside the set reach.
                self.columns[written..positions].fill(0);
            }
            if largest == 0 || largest >= INFINITE as u32 {
                return None;
            }
            let found = exponent(largest as i32);
            if !columns::in_f32(found) {
                return None;
            }
            self.exponent = Some(found);
            if found == guess {
                let extremes = Extremes { absmax: largest as i32, max: key(f32::from_bits(largest)), min: key(f32::from_bits(largest)) };
                // All equal as integers: whether they are so exactly is for the general stages to see.
                if sums.numerator(&Grid::new(STEP_BITS, extremes.absmax)) == 0 {
                    return None;
                }
                to.extremes[0].add(&extremes);
                to.sums[0].add(&sums);
                went(Way::Columns);
                return Some(positions);
            }
            guess = found;
        }
        None
    }

    #[allow(clippy::too_many_arguments)]
    pub(super) fn usual_kl(&mut self, i: usize, at: &Extent, scope: &Scope, kept: &Rollout, group: &Group, terms: &Terms, chunks: Chunks, sink: Sink) -> Option<f64> {
        let job = self.job;
        let (c, plan) = (job.config(), job.plan);
        let outputs = job.outputs?;
        let every = matches!(chunks, Chunks::EveryToken);
        let by_edges = group.edges.is_some() && c.boundary_rule == BoundaryRule::Adjacent;
        let usual = matches!(sink, Sink::Write(None))
            && job.joint.is_none()
            && counts(kept)
            && !terms.placed
            && !scope.has_holes()
            && (every || by_edges);
        if !usual {
            return None;
        }
        let standard = &group.standards[0];
        let gate;
        let (mean, inv, weight, terms) = match terms.gated {
            // A wrong format says all there is to say: the values are multiplied by 0.
            Some(gated) => {
                gate = [gated.every];
                (0.0, 0.0, 1.0, &gate[..])
            }
            None => {
                let Apply::Affine { mean, inv } = standard.resolve(true, || self.own_sums(i, kept, 0, group.state), &mut 0) else { return None };
                (mean, inv, c.streams[0].weight, terms.every())
            }
        };
        let (n, k) = (scope.count, kept.chunks as usize);
        if !within(weight.abs() * (standard.extremes.absmax_value() as f64 + mean.abs()) * inv.abs(), terms, n) {
            return None;
        }
        let divisors: &[f64] = if c.k == 0.0 { &[] } else { &plan.divisors[plan.limits.rollout_tokens - k..] };
        let line = Fused { mean, inv, weight, terms, powers: &plan.decay, divisors, sums: outputs.report, exact: std::ptr::null_mut() };
        let (from, to) = (self.kl_line_alone(i, at)?.from(scope.first), Self::line(&outputs.advantages, at).from(scope.first));
        let arrays = self.kl_arrays();
        let mut ahead = self.ahead(i, true, arrays);
        self.ends_ahead(i, [Some(&outputs.advantages), None]);
        let stream = job.by_token.stream;
        let tokens = if plan.simd == Simd::Avx512 { wide::tokens } else { fused::tokens };
        let (sum, squares, path);
        if every {
            // SAFETY: AVX2 is there in a usual call, AVX-512 where `tokens` asks for it; n tokens from the first in scope on, in place or apart (`check` has seen which).
            let done = unsafe { tokens(from, to, n, stream, &line, &mut ahead) };
            (sum, squares, path) = (done.sum, done.squares, done.path);
        } else {
            let ends: &[u64] = &self.edges[..];
            let list = &mut self.compressed[..n + 15];
            let exact = if outputs.report { self.v.as_mut_ptr() } else { std::ptr::null_mut() };
            // SAFETY: as above; a value a chunk in this thread's scratch, which has room for eight more.
            unsafe {
                let found = bits::compress(from, n - 1, ends, list);
                debug_assert_eq!(found + 1, k);
                list[found] = from.one(n - 1);
                let results = Line { at: self.d.as_mut_ptr().cast(), narrow: to.narrow };
                let done = tokens(Line::of_f32(list), results, k, false, &Fused { sums: false, exact, ..line }, &mut ahead);
                bits::expand(results, ends, false, to, n, stream);
                path = done.path;
            }
            (sum, squares) = if outputs.report { chunk_totals(chunks, scope, &self.v[..k]) } else { (0.0, 0.0) };
        }
        arrays[0].iter().for_each(|array| self.asked(&ahead, array));
        went(if every { Way::Tokens } else { Way::Chunks });
        self.around(&outputs.advantages, at, scope.first, scope.end);
        self.report.sum_advantages += sum;
        self.report.sum_squares += squares;
        Some(path)
    }
}

/// Sums over the tokens of what their chunks came to.
fn chunk_totals(chunks: Chunks, scope: &Scope, results: &[f64]) -> (f64, f64) {
    let (mut sum, mut squares) = (0.0, 0.0);
    chunks.each(scope, |j, a, b| {
        let n = (b - a) as f64;
        sum += n * results[j];
        squares += n * results[j] * results[j];
    });
    (sum, squares)
}
