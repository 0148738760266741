//! Group statistics of every stream (numerics contract 5.3) and the standardisation that they give (docs/formulas.md 2.2).
use super::members::Members;
use super::rollout_streams;
use super::scope::Scope;
use super::{signal, steps};
use super::worker::Worker;
use crate::model::flags;
use crate::model::batch::{Extent, Process};
use crate::model::config::*;
use crate::model::report;
use crate::numerics::exact::{self, Extremes, Grid, STEP_BITS, Sums};
use crate::plan::partials::GroupState;
use crate::plan::workspace::{Rollout, state};

/// Is a rollout's value of a per-rollout stream in the stream's set, if the rollout counts? One that weighs nothing is not.
pub fn weighs(row: &Stream, kept: &Rollout) -> bool {
    (row.center != Center::LengthWeighted || kept.total > 0) && (row.count_by == CountBy::Rollout || kept.elements > 0)
}

impl Worker<'_> {
    /// Maxima of the group's members in this batch. `known`: those of the process set are in `to` already.
    pub fn extremes(&mut self, members: Members, group: usize, known: bool, to: &mut GroupState) {
        let job = self.job;
        let (problem, slots) = (job.problem, &job.plan.slots);
        for i in members.iter() {
            let mut kept = job.rollout(i);
            if kept.flags & flags::ROLLOUT_ABSENT != 0 {
                continue;
            }
            let counts = kept.state & state::OUT_OF_STATS == 0;
            to.format = to.format.max(if kept.flags & flags::ROLLOUT_FORMAT_VIOLATING != 0 { 1 } else { 2 });
            if kept.flags & flags::ROLLOUT_MISSING != 0 {
                self.missing |= 1;
            }
            if kept.flags & flags::ROLLOUT_BAD_STEPS != 0 {
                self.found = true;
                to.extremes[0].absmax = exact::BAD_STEPS;
            }
            if kept.state & (state::INFINITE | state::NAN) != 0 {
                self.poison(0, if kept.state & state::NAN != 0 { exact::NAN } else { exact::INFINITE }, i, group, to);
            }
            if kept.state & state::HAS_PROCESS != 0 && !(known && counts) {
                for list in 0..if slots.shaped { 2 } else { problem.num_process } {
                    let found = self.list_extremes(i, &kept, list);
                    if found.is_bad() {
                        kept.flags |= flags::ROLLOUT_NONFINITE;
                        self.count_process(i, &kept, list);
                        self.poison(list, found.absmax, i, group, to);
                    } else if counts {
                        to.extremes[list].add(&found);
                        if list == 0 && slots.joint && !slots.shaped {
                            to.extremes[1].add(&found);
                        }
                    }
                }
            }
            let at = problem.extent(i);
            if job.takes_part(i, &kept, &at) {
                let mut bad = 0;
                self.gap_extremes(i, &kept, |worker, list, key| {
                    bad |= flags::ROLLOUT_NONFINITE;
                    worker.poison(list, key, i, group, to);
                });
                kept.flags |= bad;
                let found = self.credit_extremes(i, &kept, &at, self.late && kept.state & state::ZEROED == 0);
                if found.is_bad() {
                    kept.flags |= flags::ROLLOUT_NONFINITE;
                    self.poison(0, found.absmax, i, group, to);
                }
            }
            if self.together {
                // Finite, and in their sets.
            } else if job.is_head(i) && !job.sums_pending() {
                self.rollout_extremes(i, group, counts, &mut kept, to);
            } else if job.joint.is_some() && !job.sums_pending() {
                kept.flags |= job.flags_of_values(i);
            }
            // SAFETY: the rollout is this thread's.
            unsafe { job.keep(i, kept) };
        }
    }

    /// Those of the per-rollout streams of one rollout.
    fn rollout_extremes(&mut self, i: usize, group: usize, counts: bool, kept: &mut Rollout, to: &mut GroupState) {
        let job = self.job;
        let (problem, c, slots) = (job.problem, job.config(), &job.plan.slots);
        let key_of = |x: f32| {
            let mut one = Extremes::EMPTY;
            one.push(x);
            one
        };
        for s in rollout_streams::places(job.given) {
            let Some(stream) = &problem.rollout_streams[s] else { continue };
            if stream.f32(problem.row(i)).is_nan() && c.streams[OUTCOME + s].missing != Missing::Error {
                kept.flags |= flags::ROLLOUT_MISSING;
                self.missing |= 1 << slots.of_rollout_stream(s);
                self.report.missing_values += i64::from(job.counting);
            }
            let Some(x) = job.own_value(s, i) else { continue };
            let one = key_of(x);
            if one.is_bad() {
                kept.flags |= flags::ROLLOUT_NONFINITE;
                self.report.nonfinite_values += i64::from(job.counting);
                self.poison(slots.of_rollout_stream(s), one.absmax, i, group, to);
            }
        }
        if let Some(b) = job.baseline(i) {
            let one = key_of(b);
            if one.is_bad() {
                kept.flags |= flags::ROLLOUT_NONFINITE;
                self.report.nonfinite_values += i64::from(job.counting);
                // No `missing` rule speaks of baselines: a NaN is told as what it is.
                self.poison(slots.of_rollout_stream(0), exact::INFINITE, i, group, to);
            }
        }
        for s in rollout_streams::places(job.sets) {
            let Some(x) = job.rollout_value(s, i) else { continue };
            let slot = slots.of_rollout_stream(s);
            let one = key_of(x);
            if one.is_bad() {
                // Of a sum: one of its terms was found before, or it is beyond f32.
                if kept.flags & flags::ROLLOUT_NONFINITE == 0 {
                    kept.flags |= flags::ROLLOUT_NONFINITE;
                    self.report.nonfinite_values += i64::from(job.counting);
                    self.poison(slot, one.absmax, i, group, to);
                }
                continue;
            }
            let row = &c.streams[OUTCOME + s];
            if counts && weighs(row, kept) {
                to.extremes[slot].add(&one);
                if slots.joint && !slots.shaped {
                    to.extremes[1].add(&one);
                }
            }
        }
    }

    /// Marks the group bad in a slot and reports the finding.
    fn poison(&mut self, slot: usize, key: i32, rollout: usize, group: usize, to: &mut GroupState) {
        to.extremes[slot].absmax = to.extremes[slot].absmax.max(key);
        let slots = &self.job.plan.slots;
        if slots.joint && !slots.shaped {
            // The pooled set holds the value too.
            to.extremes[1].absmax = to.extremes[1].absmax.max(key);
        }
        if self.job.counting {
            let finding = if key >= exact::NAN { report::MISSING } else { report::NONFINITE };
            self.report.find(finding, group, Some(self.job.problem.row(rollout)), self.job.plan.slots.row(slot));
            self.found = true;
        }
    }

    /// Counts the bad values of a process list, token by token where the signal has a value a token.
    fn count_process(&mut self, i: usize, kept: &Rollout, list: usize) {
        let job = self.job;
        if !job.counting || list >= job.problem.num_process {
            return;
        }
        let at = job.problem.extent(i);
        let by_token = match job.problem.process {
            Process::Signal(_) => job.problem.step_marks.is_none(),
            Process::LogProbs { .. } => true,
            _ => false,
        };
        let error = job.config().streams[list].missing == Missing::Error;
        let (nan, infinite) = if by_token {
            let dense = matches!(job.problem.process, Process::Signal(_)) && job.config().kind == Kind::Prm;
            if dense && (job.problem.steps.is_some() || list > 0) {
                return; // counted when it was prepared
            }
            let scope = job.kept_scope(i, kept, &at);
            signal::count_bad(self.load(&at, list), &scope)
        } else {
            // A step that goes on in a later piece is counted there.
            let n = (kept.elements - u32::from(kept.state & state::OPEN_STEP != 0)) as usize;
            // SAFETY: the rollout's own list.
            let elements = unsafe { &job.elements(list, &at)[..n] };
            elements.iter().fold((0, 0), |(n, i), x| (n + i64::from(x.is_nan()), i + i64::from(x.is_infinite())))
        };
        self.report.nonfinite_values += infinite + if error { nan } else { 0 };
    }

    /// Does a NaN of this list mean "not there"? (Of the first stream such steps are out of scope already.)
    pub fn skips_nan(&self, list: usize) -> bool {
        list > 0 && !self.job.plan.slots.shaped && self.job.config().streams[list].missing == Missing::Exclude
    }

    fn list_extremes(&mut self, i: usize, kept: &Rollout, list: usize) -> Extremes {
        let simd = self.job.simd();
        let skip = self.skips_nan(list);
        let mut found = Extremes::EMPTY;
        if self.job.joint.is_some() && self.job.config().pool == Pool::Rollouts {
            // A bad value is found in its piece, the mean counts once.
            found = self.own_extremes(i, kept, list);
            if found.is_bad() || !self.job.is_head(i) {
                return if found.is_bad() { found } else { Extremes::EMPTY };
            }
            found = Extremes::EMPTY;
        }
        self.each_run(i, kept, list, |run, _, _| {
            if skip {
                run.iter().filter(|x| !x.is_nan()).for_each(|x| found.push(*x));
            } else {
                found.add(&exact::extremes(simd, run));
            }
        });
        found
    }

    /// Calls `each(values, weights, first token)` for the runs of a rollout's elements.
    pub fn each_run(&mut self, i: usize, kept: &Rollout, list: usize, mut each: impl FnMut(&[f32], Option<&[u32]>, usize)) {
        if self.job.config().pool != Pool::Rollouts {
            return self.each_value_run(i, kept, list, each);
        }
        if let Some(mean) = self.rollout_mean(i, kept, list) {
            each(&[mean], None, kept.first as usize);
        }
    }

    /// `pool = rollouts`: the mean of a rollout's values of a list, by an exact sum on a grid of its own. `None`: it has none.
    fn rollout_mean(&mut self, i: usize, kept: &Rollout, list: usize) -> Option<f32> {
        let (rollout, joint) = (self.job.piece(i).0, self.job.joint);
        let most = self.list_most(i, kept, list)?;
        if most >= exact::INFINITE {
            return Some(if most >= exact::NAN { f32::NAN } else { f32::INFINITY });
        }
        let (q, n) = match joint {
            // SAFETY: complete, and read only from then on.
            Some(joint) => unsafe { joint.layout.own_list(joint.buffer, rollout, list) }.first_chunk().map(|[q, n]| (*q, *n))?,
            None => self.own_list_sum(i, kept, list)?,
        };
        (n > 0).then(|| ((q as f64 / n as f64) * self.list_grid(kept, most).down) as f32)
    }

    /// Extremes of a rollout's values of a list; of a piece its own.
    pub fn own_extremes(&mut self, i: usize, kept: &Rollout, list: usize) -> Extremes {
        let skip = self.skips_nan(list);
        let mut own = Extremes::EMPTY;
        self.each_value_run(i, kept, list, |run, _, _| run.iter().filter(|x| !skip || !x.is_nan()).for_each(|x| own.push(*x)));
        own
    }

    /// Key of the rollout's largest value of a list, all pieces' together; `None`: not known yet.
    fn list_most(&mut self, i: usize, kept: &Rollout, list: usize) -> Option<i32> {
        match self.job.joint {
            Some(_) => self.job.rows(self.job.piece(i).0).map(|rows| rows.most(1 + list)),
            None => Some(self.own_extremes(i, kept, list).absmax),
        }
    }

    /// The grid on which a rollout's values are summed for their mean. No piece knows how many steps the rollout has: where they could be too many for 46 bits, `check` has refused.
    fn list_grid(&self, kept: &Rollout, most: i32) -> Grid {
        let count = match self.job.joint {
            None => kept.elements,
            Some(_) if self.job.config().kind == Kind::Kl => kept.total,
            Some(_) => 0,
        };
        Grid::new(steps::sum_bits(count as usize), most)
    }

    /// Sum on the rollout's grid, and count, of the values of a list; of a piece its own. `None`: a value is bad.
    pub fn own_list_sum(&mut self, i: usize, kept: &Rollout, list: usize) -> Option<(i64, i64)> {
        let skip = self.skips_nan(list);
        let most = self.list_most(i, kept, list).filter(|most| *most < exact::INFINITE)?;
        let grid = self.list_grid(kept, most);
        let (mut q, mut n) = (0i64, 0i64);
        self.each_value_run(i, kept, list, |run, _, _| {
            for x in run.iter().filter(|x| !skip || !x.is_nan()) {
                q += grid.quantize(*x);
                n += 1;
            }
        });
        Some((q, n))
    }

    /// As `each_run`, of the values that steps and tokens have, whatever the elements are.
    fn each_value_run(&mut self, i: usize, kept: &Rollout, list: usize, mut each: impl FnMut(&[f32], Option<&[u32]>, usize)) {
        let job = self.job;
        let at = job.problem.extent(i);
        if job.config().kind != Kind::Kl {
            let n = kept.elements as usize;
            // SAFETY: the rollout's own lists.
            let (values, weights) = unsafe { (&job.elements(list, &at)[..n], (job.config().pool == Pool::Tokens).then(|| &job.weights(&at)[..n])) };
            return each(values, weights, 0);
        }
        let scope = job.kept_scope(i, kept, &at);
        if job.plan.slots.shaped && list == 1 {
            let shape = job.shaped_reward(i);
            let stride = job.plan.limits.rollout_tokens + 16;
            self.load_shaped(&at, shape);
            let line = &self.signal[stride..stride + at.len];
            return scope.runs(0, at.len, |a, b| each(&line[a..b], None, a));
        }
        let line = self.load(&at, list);
        scope.runs(0, at.len, |a, b| each(&line[a..b], None, a));
    }

    /// kl: the shaped reward of every token, in the scratch of list 1.
    pub fn load_shaped(&mut self, at: &crate::model::batch::Extent, shape: impl Fn(f32) -> f32) {
        let stride = self.job.plan.limits.rollout_tokens + 16;
        let values: *const [f32] = self.load(at, 0);
        let to = &mut self.signal[stride..stride + at.len];
        // SAFETY: `values` is list 0's scratch or the caller's memory; `to` is list 1's scratch.
        let values = unsafe { &*values };
        to.iter_mut().zip(values).for_each(|(r, s)| *r = shape(*s));
    }

    /// Values, token rewards, bootstrap, the log-probabilities of V-trace and lambdas are read as they are; a bad one is a finding. `late`: values and rewards are
    /// judged by what comes of them.
    pub fn credit_extremes(&mut self, i: usize, kept: &Rollout, at: &Extent, late: bool) -> Extremes {
        let job = self.job;
        let problem = job.problem;
        let mut scope = job.kept_scope(i, kept, at);
        if job.config().spreads() && job.config().scan_mask == ScanMask::None {
            // Tokens out of scope take part.
            scope = Scope::span(job.line(i, kept, at), at.len);
        }
        let mut found = Extremes::EMPTY;
        for array in [&problem.values, &problem.token_rewards].into_iter().flatten().filter(|_| !late) {
            let line = &mut self.compressed[..at.len];
            at.of(array).read_f32(line);
            let mut own = Extremes::EMPTY;
            scope.runs(0, at.len, |a, b| own.add(&exact::extremes(job.simd(), &line[a..b])));
            if own.is_bad() && job.counting {
                let (nan, infinite) = signal::count_bad(line, &scope);
                self.report.nonfinite_values += nan + infinite;
            }
            found.add(&own);
        }
        self.credit_most = self.credit_most.max(found.absmax);
        if let Some(logps) = &problem.behavior {
            let bad = self.bad_logps(at, &scope, logps);
            self.report.nonfinite_values += if job.counting { bad } else { 0 };
            found.absmax = found.absmax.max(if bad > 0 { exact::INFINITE } else { 0 });
        }
        // What is the rollout's is read with its first token in scope.
        let first = !self.job.has_scope_before(i);
        let row = problem.row(i);
        if first && problem.rollout_lam.is_some_and(|lam| !(0.0..=1.0).contains(&lam.f32(row))) {
            self.report.nonfinite_values += i64::from(job.counting);
            found.absmax = found.absmax.max(exact::INFINITE);
        }
        if let Some(bootstrap) = problem.bootstrap.filter(|_| first) {
            let mut own = Extremes::EMPTY;
            own.push(bootstrap.f32(row));
            self.report.nonfinite_values += i64::from(own.is_bad() && job.counting);
            found.add(&own);
        }
        // No `missing` rule speaks of these values: a NaN is told as what it is.
        found.absmax = found.absmax.min(exact::INFINITE);
        found
    }

    /// Sums of the group's members in this batch, on the grids that `of` (the whole group's maxima) sets; for kl by value also the sums of each position
    /// in `columns` and the live counts in `live`. Returns the positions used. `known`: those, where the process set's are done.
    pub fn sums(&mut self, members: Members, of: &GroupState, known: Option<usize>, to: &mut GroupState) -> usize {
        let job = self.job;
        let (problem, c, plan) = (job.problem, job.config(), job.plan);
        let slots = &plan.slots;
        let tabled = c.kind == Kind::Kl && c.chunk == Chunk::ByValue && problem.has_process() && known.is_none();
        let mut positions = known.unwrap_or(0);
        if tabled {
            positions = self.positions(members);
            self.columns[..positions].fill(0);
            self.live[..positions + 1].fill(0);
        }
        for i in members.iter() {
            let kept = job.rollout(i);
            if kept.state & state::OUT_OF_STATS != 0 {
                continue;
            }
            to.members += i64::from(job.is_head(i));
            if kept.state & state::HAS_PROCESS != 0 && known.is_none() {
                // A mean of all pieces' values counts once.
                let once = c.pool == Pool::Rollouts && !job.is_head(i);
                for list in 0..if once { 0 } else if slots.shaped { 2 } else { problem.num_process } {
                    let table = tabled && list == 0;
                    self.list_sums(i, &kept, list, list, of, &mut to.sums[list], table);
                    if list == 0 && slots.joint && !slots.shaped {
                        self.list_sums(i, &kept, 0, 1, of, &mut to.sums[1], false);
                    }
                }
            }
            for s in rollout_streams::places(if !self.together && job.is_head(i) { job.sets } else { 0 }) {
                let Some(x) = job.rollout_value(s, i) else { continue };
                let slot = slots.of_rollout_stream(s);
                let row = &c.streams[OUTCOME + s];
                if row.center == Center::LengthWeighted {
                    self.length_weighted_sum(x, slot, kept.total, of, &mut to.sums[slot]);
                } else if row.count_by == CountBy::Step {
                    self.counted_sum(x, slot, kept.elements, of, &mut to.sums[slot]);
                } else {
                    self.one_sum(x, slot, of, &mut to.sums[slot]);
                }
                if slots.runner_up >> slot & 1 == 1 && weighs(row, &kept) && exact::key(x) < of.extremes[slot].max {
                    to.second[slot] = to.second[slot].max(exact::key(x));
                }
                if slots.joint && !slots.shaped {
                    self.one_sum(x, 1, of, &mut to.sums[1]);
                }
            }
        }
        if tabled {
            let mut live = 0;
            for n in &mut self.live[..positions] {
                live += *n;
                *n = live;
            }
        }
        positions
    }

    fn one_sum(&self, x: f32, slot: usize, of: &GroupState, to: &mut Sums) {
        let extremes = &of.extremes[slot];
        // A set with findings has no grid, and its group no use for sums; of a sum of rewards the finding is in the set of a term.
        if extremes.is_bad() || !x.is_finite() {
            return;
        }
        exact::sums_wide(&Grid::new(self.job.plan.bits(slot), extremes.absmax), &[x], None, extremes, to);
    }

    /// A rollout's value as often as it has steps.
    fn counted_sum(&self, x: f32, slot: usize, count: u32, of: &GroupState, to: &mut Sums) {
        let extremes = &of.extremes[slot];
        if !extremes.is_bad() && x.is_finite() && count > 0 {
            exact::sums_wide(&Grid::new(self.job.plan.bits(slot), extremes.absmax), &[x], Some(&[count]), extremes, to);
        }
    }

    /// A rollout's value as often as it has tokens in scope; the counts at the extremes are of rollouts.
    fn length_weighted_sum(&self, x: f32, slot: usize, tokens: u32, of: &GroupState, to: &mut Sums) {
        let extremes = &of.extremes[slot];
        if extremes.is_bad() || !x.is_finite() || tokens == 0 {
            return;
        }
        let grid = Grid::new(self.job.plan.bits(slot), extremes.absmax);
        to.push(&grid, grid.quantize(x), tokens as i64);
        to.at_max += i64::from(x == extremes.max_value());
        to.at_min += i64::from(x == extremes.min_value());
    }

    /// Sums of one rollout's elements of a list on the grid of a slot.
    #[allow(clippy::too_many_arguments)]
    fn list_sums(&mut self, i: usize, kept: &Rollout, list: usize, slot: usize, of: &GroupState, to: &mut Sums, table: bool) {
        let plan = self.job.plan;
        let (simd, bits, extremes) = (self.job.simd(), plan.bits(slot), of.extremes[slot]);
        if extremes.is_bad() {
            return; // as `one_sum`
        }
        let grid = Grid::new(bits, extremes.absmax);
        let skip = self.skips_nan(list);
        let exact_counts = bits != STEP_BITS;
        let (first, position) = (kept.first as usize, if table { self.job.position(i, kept) } else { 0 });
        // The table leaves the worker while the elements are read through it.
        let (columns, live) = (std::mem::take(&mut self.columns), std::mem::take(&mut self.live));
        self.each_run(i, kept, list, |run, weights, begin| {
            if skip || weights.is_some() || exact_counts {
                let weight = |j: usize| weights.map(|w| std::slice::from_ref(&w[j]));
                for (j, x) in run.iter().enumerate().filter(|(_, x)| !skip || !x.is_nan()) {
                    exact::sums_wide(&grid, std::slice::from_ref(x), weight(j), &extremes, to);
                }
            } else if table {
                exact::sums_narrow(simd, &grid, run, &mut columns[position + begin - first..], to);
            } else {
                exact::sums_narrow(simd, &grid, run, &mut [], to);
            }
            if table {
                live[position + begin - first] += 1;
                live[position + begin - first + run.len()] -= 1;
            }
        });
        (self.columns, self.live) = (columns, live);
    }

    /// Sums of one rollout's own elements, for leave-one-out by rollout.
    pub fn own_sums(&mut self, i: usize, kept: &Rollout, slot: usize, of: &GroupState) -> Sums {
        let slots = self.job.plan.slots;
        let mut own = Sums::default();
        if kept.state & state::OUT_OF_STATS != 0 {
            return own;
        }
        let process = slot < slots.sets;
        if process && kept.state & state::HAS_PROCESS != 0 {
            let list = if slot == 1 && slots.joint && !slots.shaped { 0 } else { slot };
            self.list_sums(i, kept, list, slot, of, &mut own, false);
        }
        if slot == 1 && slots.joint && !slots.shaped {
            for s in 0..2 {
                if let Some(x) = self.job.rollout_value(s, i) {
                    self.one_sum(x, slot, of, &mut own);
                }
            }
        }
        own
    }
}
