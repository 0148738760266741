//! One group: prepare its rollouts, know its statistics, decide, shape.
use super::chunk::{KlEdges, Live};
use super::members::Members;
use super::rollout_streams;
use super::shape::{Group, Sink};
use super::standard::{Beside, Set, Standard, Standards, Whole};
use super::terms;
use super::token_baseline::Tail;
use super::worker::Worker;
use crate::model::array::Array;
use crate::model::flags;
use crate::model::config::*;
use crate::model::context::Memory;
use crate::model::report;
use crate::numerics::exact::{self, Extremes, ROLLOUT_BITS, Sums};
use crate::plan::partials::{GroupState, Stage};
use crate::plan::workspace::Rollout;

/// Elements that exact sums allow on a grid.
fn most(bits: i32) -> i64 {
    if bits == ROLLOUT_BITS { 1 << 17 } else { 1 << 33 }
}

/// A statistic of the caller's; 0 where none is given.
fn given(statistics: &Option<Array>, g: usize, row: usize) -> f64 {
    statistics.as_ref().map_or(0.0, |a| a.line(g, 0, MAX_STREAMS, false).f64(row))
}

impl Worker<'_> {
    fn prepare_all(&mut self, g: usize, members: Members) {
        self.missing = 0;
        self.read_masks(g, members);
        (self.found, self.together) = (false, false);
        (self.group, self.members, self.credit_most) = (g, members.len(), 0);
        for i in members.iter() {
            if !self.job.alike || !self.prepare_alike(i, g) {
                self.prepare(i, g);
            }
        }
        // Tokens without a value, and those between steps, have left the scope.
        self.masks = None;
    }

    /// A group that is wholly in this call.
    pub fn group_alone(&mut self, g: usize, members: Members, sink: Sink) {
        let before = self.report;
        (self.late, self.unclean) = (self.job.by_token.late, false);
        self.group_once(g, members, sink);
        if self.unclean {
            // What was written is written again.
            (self.late, self.unclean, self.report) = (false, false, before);
            self.group_once(g, members, sink);
        }
    }

    fn group_once(&mut self, g: usize, members: Members, sink: Sink) {
        self.prepare_all(g, members);
        let mut state = GroupState::EMPTY;
        self.together = self.streams_together(members, &mut state);
        let known = self.token_columns(members, &mut state);
        let positions = if self.settled(members, known, &mut state) {
            known.unwrap_or(0)
        } else {
            self.extremes(members, g, known.is_some(), &mut state);
            let of = state;
            self.sums(members, &of, known, &mut state)
        };
        // The table leaves the worker, which its edges are read beside.
        let (columns, live) = (std::mem::take(&mut self.columns), std::mem::take(&mut self.live));
        let runs = self.runs;
        let counts = if runs.count > 0 { Live::Runs(&runs.list[..runs.count]) } else { Live::Each(&live[..positions]) };
        self.group_shape(g, members, &state, &columns[..positions], counts, sink);
        (self.columns, self.live) = (columns, live);
    }

    /// Prepares the rollouts and looks for findings, which mark them.
    pub fn look_at(&mut self, g: usize, members: Members) {
        self.prepare_all(g, members);
        self.extremes(members, g, false, &mut GroupState::EMPTY.clone());
    }

    /// Findings only.
    pub fn group_look(&mut self, g: usize, members: Members) {
        self.prepare_all(g, members);
        let mut state = GroupState::EMPTY;
        self.extremes(members, g, false, &mut state);
        let of = state;
        self.sums(members, &of, None, &mut state);
        self.decide(g, members, &state, &mut Standards::new());
    }

    /// Findings only, of a slice of a group whose statistics are complete.
    pub fn slice_look(&mut self, g: usize, members: Members, partials: Memory) {
        self.look_at(g, members);
        // SAFETY: groups are handed to one thread each; the buffer is read only here.
        let state = unsafe { self.job.plan.partials.load(partials, g) };
        self.decide(g, members, &state, &mut Standards::new());
    }

    /// This call's share of a phase.
    pub fn group_share(&mut self, stage: Stage, g: usize, members: Members, partials: Memory) {
        let layout = &self.job.plan.partials;
        self.prepare_all(g, members);
        match stage {
            Stage::Edges => self.tell_edges(members, g),
            Stage::Own => members.iter().for_each(|i| self.tell_sums(i)),
            Stage::Maxima => {
                let mut share = GroupState::EMPTY;
                self.extremes(members, g, false, &mut share);
                // SAFETY: groups are handed to one thread each; likewise below.
                unsafe { layout.add_extremes(partials, g, &share) };
            }
            Stage::Sums => {
                self.count_chunks(members);
                // SAFETY: as above.
                let of = unsafe { layout.load(partials, g) };
                let mut share = GroupState::EMPTY;
                let positions = self.sums(members, &of, None, &mut share);
                // SAFETY: as above.
                unsafe {
                    layout.claim(partials, g, members.len());
                    layout.add_sums(partials, g, &share);
                    if positions > 0 {
                        let (columns, live) = layout.table(partials, g).split_at_mut(layout.positions);
                        columns.iter_mut().zip(&self.columns[..positions]).for_each(|(a, b)| *a = a.wrapping_add(*b));
                        live.iter_mut().zip(&self.live[..positions]).for_each(|(a, b)| *a = a.wrapping_add(*b));
                    }
                }
            }
            Stage::Chunks => self.group_kept(g, members, partials, Sink::Chunks),
            Stage::Scan => self.group_kept(g, members, partials, Sink::Scan),
            Stage::WhitenMaxima | Stage::WhitenSums => self.group_kept(g, members, partials, Sink::Keep),
        }
    }

    /// A slice of a group whose statistics are complete.
    pub fn group_slice(&mut self, g: usize, members: Members, partials: Memory, sink: Sink) {
        self.prepare_all(g, members);
        // The slice's own maxima are not wanted, but what it finds is counted here.
        let mut own = GroupState::EMPTY;
        self.extremes(members, g, false, &mut own);
        self.group_kept(g, members, partials, sink);
    }

    fn group_kept(&mut self, g: usize, members: Members, partials: Memory, sink: Sink) {
        let layout = &self.job.plan.partials;
        // SAFETY: groups are handed to one thread each; the buffer is read only here.
        let state = unsafe { layout.load(partials, g) };
        // SAFETY: as above.
        let table: &[i64] = unsafe { layout.table(partials, g) };
        let (columns, live) = table.split_at(layout.positions);
        let positions = self.positions(members).min(layout.positions);
        self.group_shape(g, members, &state, &columns[..positions], Live::Each(&live[..positions]), sink);
    }

    /// Positions that the rollouts reach (kl).
    pub fn positions(&self, members: Members) -> usize {
        if self.job.problem.pieces.is_none() {
            let span = |kept: Rollout| (kept.end - kept.first) as usize;
            return members.iter().fold(0, |most, i| most.max(span(self.job.rollout(i))));
        }
        let reach = |i: usize| {
            let kept = self.job.rollout(i);
            // Of a piece also the next token in scope, which its last is compared with.
            let position = self.job.position(i, &kept);
            position + (kept.end - kept.first) as usize + self.job.way_to_next(i, &kept)
        };
        members.iter().map(reach).max().unwrap_or(0)
    }

    /// What the pieces of the group's rollouts tell of their edges.
    fn tell_edges(&mut self, members: Members, g: usize) {
        self.extremes(members, g, false, &mut GroupState::EMPTY.clone());
        members.iter().for_each(|i| self.tell_flags(i));
    }

    /// Counts the chunks of the group's pieces, where they do not follow from the group's sums.
    fn count_chunks(&mut self, members: Members) {
        let c = self.job.config();
        if self.job.joint.is_none() || (c.kind == Kind::Kl && c.chunk == Chunk::ByValue) {
            return;
        }
        for i in members.iter() {
            let mut kept = self.job.rollout(i);
            if c.kind == Kind::Kl {
                let at = self.job.problem.extent(i);
                let scope = self.job.kept_scope(i, &kept, &at);
                self.kl_chunks(i, &at, &scope, None, &mut kept);
            }
            self.tell_chunks(i, &kept);
        }
    }

    fn group_shape(&mut self, g: usize, members: Members, state: &GroupState, columns: &[i64], live: Live, sink: Sink) {
        let job = self.job;
        let (config, plan) = (job.config(), job.plan);
        let mut standards = Standards::new();
        let (bad, flags) = self.decide(g, members, state, &mut standards);
        let given = std::array::from_fn(|s| job.has_stream(s));
        let mut edges = None;
        if config.kind == Kind::Kl && config.chunk == Chunk::ByValue {
            let s = &standards[0];
            let centred = config.streams[0].center != Center::None;
            let group = (config.average_over == AverageOver::Group)
                .then(|| (state.members, if centred { s.sums.n } else { 0 }, s.sums.q));
            let scale = s.edge_scale().filter(|_| !bad);
            let found =
                KlEdges { columns, live, down: s.grid.down, inv: scale.unwrap_or(0.0), eta: config.eta, group, none: scale.is_none() };
            if config.boundary_rule == BoundaryRule::Adjacent {
                let positions = columns.len();
                found.adjacent(job.simd(), positions, state.members, self.edges);
            }
            edges = Some(found);
        }
        if job.problem.step_group.is_some() && !bad {
            self.step_sets(g, members);
        }
        let weight = terms::total_weight(config, job.problem.num_process, &given);
        let mut group = Group { state, standards: &standards, bad, weight, edges, tail: Tail::NONE, applies: [None; rollout_streams::COUNT] };
        for s in rollout_streams::places(job.sets) {
            let (slot, row) = (plan.slots.of_rollout_stream(s), &config.streams[OUTCOME + s]);
            if !row.leaves_out() && !matches!(row.center, Center::Given | Center::RunnerUp) {
                group.applies[s] = Some(standards[slot].resolve(true, Sums::default, &mut 0));
            }
        }
        if job.problem.baseline_inputs.is_some() && !bad {
            group.tail = self.baselines(members, &group);
        }
        if bad && self.late {
            self.unclean = true;
            return;
        }
        if !self.shape_alike(members, &group, sink) {
            for (ordinal, i) in members.iter().enumerate() {
                self.ordinal = ordinal;
                self.shape(i, &group, sink);
                if self.unclean {
                    return;
                }
            }
        }
        if self.unclean {
            return;
        }
        // Phases of whitening see the groups again; they report nothing.
        job.group_outputs(g, |slot| &standards[slot], &flags);
    }

    /// Standardisations of the group's streams, into `standards`, by slot; is it bad; its flags.
    fn decide(&mut self, g: usize, members: Members, state: &GroupState, standards: &mut Standards) -> (bool, [i32; MAX_STREAMS]) {
        let job = self.job;
        let (config, plan) = (job.config(), job.plan);
        let slots = &plan.slots;
        let mut found = [0i32; MAX_STREAMS];
        let mut bad = false;
        for slot in 0..slots.count {
            if state.extremes[slot] == Extremes::EMPTY && state.sums[slot].n == 0 && !self.has_slot(slot) {
                standards.push(Standard::NONE);
                continue;
            }
            let (row, bits) = (slots.row(slot), plan.bits(slot));
            let whole = job.batch.map(|b| Whole { extremes: &b.extremes[slot], sums: &b.sums[slot], nonzero: b.nonzero[slot] });
            let given = (given(&job.problem.stats_mean, g, row), given(&job.problem.stats_std, g, row));
            let beside = Beside { second: Some(state.second[slot]), whole, given };
            standards.push(Standard::new(&config.streams[row], bits, &state.extremes[slot], &state.sums[slot], beside));
        }
        for slot in 0..slots.count {
            let (s, row) = (&standards[slot], slots.row(slot));
            let stream = &config.streams[row];
            let key = s.extremes.absmax;
            let there = self.has_slot(slot);
            let mut finding = None;
            if key >= exact::INFINITE {
                (finding, found[row]) = if key == exact::BAD_STEPS {
                    (Some(report::BAD_STEPS), found[row] | flags::GROUP_BAD_STEPS)
                } else {
                    (Some(if key == exact::NAN { report::MISSING } else { report::NONFINITE }), found[row] | flags::GROUP_NONFINITE)
                };
            }
            let bad_given = if there { self.bad_given(g, row) } else { 0 };
            self.report.nonfinite_values += if job.counting && !members.is_empty() { bad_given } else { 0 };
            if finding.is_none() && bad_given > 0 {
                (finding, found[row]) = (Some(report::NONFINITE), found[row] | flags::GROUP_NONFINITE);
            }
            if self.missing >> slot & 1 == 1 {
                found[row] |= flags::GROUP_MISSING;
            }
            if there && finding.is_none() {
                let reported = slots.reported(slot).is_some();
                if s.sums.n <= 0 {
                    found[row] |= if reported { flags::GROUP_EMPTY } else { 0 };
                } else if s.sums.n == 1 {
                    found[row] |= if reported { flags::GROUP_SINGLE } else { 0 };
                } else if s.extremes.all_equal() {
                    found[row] |= if reported { flags::GROUP_ZERO_VARIANCE } else { 0 };
                }
                let degenerate = s.sums.n <= 1 || s.extremes.all_equal();
                self.report.degenerate_groups += i64::from(job.counting && reported && degenerate && !members.is_empty());
                if s.sums.n >= most(s.grid.bits) {
                    (finding, found[row]) = (Some(report::TOO_LARGE), found[row] | flags::GROUP_TOO_LARGE);
                } else if reported && stream.singleton == Singleton::Refuse && (matches!(s.set, Set::Single | Set::EmptyBesideOne) || self.one_rollout(members, state, slot, s)) {
                    finding = Some(report::SINGLETON);
                }
            }
            if let Some(finding) = finding {
                bad = true;
                if job.counting && !self.found && !members.is_empty() {
                    self.report.find(finding, g, None, row);
                }
            }
        }
        if job.problem.baseline_inputs.is_some() && !bad && members.len() as i64 >= most(ROLLOUT_BITS) {
            (bad, found[OUTCOME]) = (true, found[OUTCOME] | flags::GROUP_TOO_LARGE);
            if job.counting {
                self.report.find(report::TOO_LARGE, g, None, OUTCOME);
            }
        }
        if state.format == 1 {
            found[FORMAT] |= flags::GROUP_ALL_VIOLATING;
        }
        if job.counting && !members.is_empty() {
            self.report.bad_groups += i64::from(bad);
            self.report.violating_groups += i64::from(state.format == 1);
        }
        if bad {
            found.iter_mut().for_each(|f| *f |= flags::GROUP_BAD);
        }
        (bad, found)
    }

    /// Has the call values of a slot?
    fn has_slot(&self, slot: usize) -> bool {
        let (job, slots) = (self.job, &self.job.plan.slots);
        if slot < slots.sets { slots.joint && slot == 1 || slot < job.problem.num_process } else { job.has_stream(slot - slots.sets) }
    }

    /// How many of the caller's statistics that row `row` takes for group g are no number, beyond f32, or a negative deviation.
    fn bad_given(&self, g: usize, row: usize) -> i64 {
        let (problem, stream) = (self.job.problem, &self.job.config().streams[row]);
        let by_baselines = row == OUTCOME && problem.baselines.is_some();
        let bad = |x: f64, low: f64| !(low..=f32::MAX as f64).contains(&x);
        let mean = stream.center == Center::Given && !by_baselines && bad(given(&problem.stats_mean, g, row), f32::MIN as f64);
        let std = stream.scale == Scale::Given && bad(given(&problem.stats_std, g, row), 0.0);
        i64::from(mean) + i64::from(std)
    }

    /// Leave-one-out by rollout: do all elements come from one rollout, so that nothing is left?
    fn one_rollout(&mut self, members: Members, state: &GroupState, slot: usize, standard: &Standard) -> bool {
        let stream = &self.job.config().streams[self.job.plan.slots.row(slot)];
        let by_rollout = stream.leaves_out() && stream.loo_unit == LooUnit::Rollout && slot < self.job.plan.slots.sets;
        by_rollout
            && matches!(standard.set, Set::Flat | Set::Proper)
            && members.iter().any(|i| {
                let kept = self.job.rollout(i);
                kept.flags & flags::ROLLOUT_ABSENT == 0 && self.own_sums(i, &kept, slot, state).n == standard.sums.n
            })
    }
}
