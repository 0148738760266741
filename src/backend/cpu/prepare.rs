//! First pass over a rollout: its scope, its steps (the elements of the process sets) and, for prm and outcome-only input, its chunks.
use super::chunk::{self, ChunkList, Detector, StepCursor};
use super::members::Members;
use super::scope::{self, Scope};
use super::pieces::Edge;
use super::worker::Worker;
use super::{rollout_streams, signal, step_lists, steps};
use crate::model::batch::{Extent, Process};
use crate::model::config::*;
use crate::model::flags;
use crate::model::report;
use crate::plan::workspace::{Rollout, state};

/// What kind of steps a rollout has.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// No step: one chunk, process term 0.
    Stepless,
    /// CSR scores, OPD sums, sparse marks: a value a step.
    Scored,
    /// A value a token, steps given.
    DenseWithEnds,
    /// A value a token, steps found.
    Dense,
    /// kind kl: tokens are the elements.
    Tokens,
}

impl Worker<'_> {
    /// Reads the masks of a group's rollouts to their words, where it has not been done.
    pub fn read_masks(&mut self, g: usize, members: Members) {
        let (job, problem) = (self.job, self.job.problem);
        let Some(mask) = problem.mask.as_ref().filter(|_| self.masks != Some(g)) else { return };
        self.masks = Some(g);
        let (mut some, mut count) = ([0; scope::ROWS], 0);
        let read = |some: &[usize]| {
            // SAFETY: the rollouts' own words, which no other thread uses.
            let words = |i: &usize| (problem.extent(*i).of(mask), unsafe { job.scope_bits(*i, &problem.extent(*i)) });
            scope::read_masks(job.simd(), some.iter().map(words));
        };
        for i in members.iter() {
            (some[count], count) = (i, count + 1);
            if count == scope::ROWS {
                read(&some);
                count = 0;
            }
        }
        read(&some[..count]);
    }

    /// Prepares rollout i of group `group`, whose masks have been read, and keeps it in the workspace.
    pub fn prepare(&mut self, i: usize, group: usize) {
        let job = self.job;
        let (problem, c) = (job.problem, job.config());
        let (at, row) = (problem.extent(i), problem.row(i));
        let mut kept = Rollout { group: group as u32, ..Rollout::default() };
        if problem.absent.is_some_and(|a| a.flag(row)) {
            kept.flags |= flags::ROLLOUT_ABSENT | flags::ROLLOUT_NO_SCOPE;
            kept.state |= state::ZEROED | state::OUT_OF_STATS;
            self.keep_kl(i, &at, &Scope::span(0, 0), &mut kept);
            self.join(i, &at, &Scope::span(0, 0), &Edge::default(), false, false, false, &mut kept);
            // SAFETY: the rollout is this thread's; likewise below.
            return unsafe { job.keep(i, kept) };
        }
        if problem.in_stats.is_some_and(|a| !a.flag(row)) {
            kept.state |= state::OUT_OF_STATS;
        }
        if problem.format_ok.is_some_and(|a| !a.flag(row)) {
            kept.flags |= flags::ROLLOUT_FORMAT_VIOLATING;
        }
        // SAFETY: the rollout's own words.
        let bits = unsafe { job.scope_bits(i, &at) };
        let mut in_bits = false;
        if problem.mask.is_some() {
            debug_assert_eq!(self.masks, Some(group));
            in_bits = true;
        }
        let mut count_steps = 0;
        let mut fits = true;
        if let Some(csr) = &problem.steps {
            let (from, to) = steps::numbers(csr, row);
            count_steps = to - from;
            fits = steps::fit(csr, row, at.whole);
            if let (true, Some(begins), true) = (fits, csr.begins, count_steps > 0) {
                if !in_bits {
                    scope::fill_span(bits, 0, at.len);
                    in_bits = true;
                }
                // Tokens between steps are out of scope.
                let mut before = 0;
                for j in from..to {
                    let (a, b) = steps::clipped((begins.int(j) as usize, csr.ends.int(j) as usize), &at);
                    scope::clear(bits, before, a);
                    before = b;
                }
                scope::clear(bits, before, at.len);
            }
        }
        let form = if !fits { Form::Stepless } else { self.form(count_steps) };
        let reads_tokens = matches!(form, Form::Dense | Form::DenseWithEnds | Form::Tokens)
            || (form == Form::Scored && matches!(problem.process, Process::LogProbs { .. }));
        let counting = job.counting;
        let mut edge = Edge::default();
        if reads_tokens {
            self.missing_tokens(&at, bits, &mut in_bits, counting, &mut kept);
        }
        if !fits {
            kept.flags |= flags::ROLLOUT_BAD_STEPS;
            kept.state |= state::ZEROED;
            if counting && job.is_head(i) {
                self.report.bad_steps += 1;
                self.report.find(report::BAD_STEPS, group, Some(row), 0);
            }
        } else if c.kind != Kind::Kl {
            edge = self.elements_and_chunks(i, &at, form, bits, &mut in_bits, &mut kept);
        }
        let scope = if in_bits { Scope::from_bits(bits) } else { Scope::span(0, at.len) };
        (kept.first, kept.end, kept.count) = (scope.first as u32, scope.end as u32, scope.count as u32);
        if form == Form::Tokens {
            kept.elements = kept.count;
            kept.state |= if kept.count > 0 { state::HAS_PROCESS } else { 0 };
        }
        if scope.is_empty() {
            kept.flags |= flags::ROLLOUT_NO_SCOPE;
        }
        let stepped = if problem.step_marks.is_some() { form == Form::Scored } else { fits && count_steps > 0 };
        self.join(i, &at, &scope, &edge, form == Form::Dense, stepped, form == Form::Scored, &mut kept);
        self.keep_kl(i, &at, &scope, &mut kept);
        self.keep_baseline_weights(&at, &scope, &mut kept);
        self.shape_lists(i, &at, &kept);
        self.without_stream(i, &mut kept);
        // SAFETY: the rollout is this thread's.
        unsafe { job.keep(i, kept) }
    }

    fn form(&self, count_steps: usize) -> Form {
        let problem = self.job.problem;
        match (self.job.config().kind, &problem.process) {
            (Kind::None, _) | (_, Process::None) => Form::Stepless,
            (Kind::Kl, _) => Form::Tokens,
            (Kind::Prm, Process::Signal(_)) if problem.step_marks.is_some() => Form::Scored,
            (Kind::Prm, Process::Signal(_)) if problem.steps.is_none() => Form::Dense,
            (Kind::Prm, Process::Signal(_)) if count_steps > 0 => Form::DenseWithEnds,
            (Kind::Prm, Process::LogProbs { .. }) if problem.step_marks.is_some() => Form::Scored,
            (Kind::Prm, _) => if count_steps > 0 { Form::Scored } else { Form::Stepless },
        }
    }

    /// Missing token values: those of the first stream leave the scope under `exclude`; all are counted.
    fn missing_tokens(&mut self, at: &Extent, bits: &mut [u64], in_bits: &mut bool, counting: bool, kept: &mut Rollout) {
        let job = self.job;
        let c = job.config();
        for p in 0..job.problem.num_process {
            let missing = c.streams[p].missing;
            if missing == Missing::Error && !(counting && matches!(job.problem.process, Process::LogProbs { .. })) {
                continue;
            }
            if !*in_bits {
                scope::fill_span(bits, 0, at.len);
            }
            let scope = Scope::from_bits(bits);
            if counting {
                self.report.low_logps += signal::count_low(job.simd(), job.problem, at, &scope);
            }
            let found = if missing == Missing::Error { 0 } else { signal::count_missing(job.problem, at, p, &scope) };
            if found > 0 {
                kept.flags |= flags::ROLLOUT_MISSING;
                self.report.missing_values += if counting { found } else { 0 };
            }
            if p == 0 && missing == Missing::Exclude && found > 0 {
                let (first, end) = (scope.first, scope.end);
                // Bits out of scope are clear already.
                for (t, x) in self.load(at, 0).iter().enumerate().take(end).skip(first) {
                    if x.is_nan() {
                        scope::clear(bits, t, t + 1);
                    }
                }
                *in_bits = true;
            }
        }
    }

    /// Lists the steps that have a token in scope, with their values, and the chunks. prm and outcome-only input.
    fn elements_and_chunks(&mut self, i: usize, at: &Extent, form: Form, bits: &mut [u64], in_bits: &mut bool, kept: &mut Rollout) -> Edge {
        let job = self.job;
        let (problem, c, plan) = (job.problem, job.config(), job.plan);
        let streams = problem.num_process;
        let mut edge = Edge::default();
        let stride = plan.limits.rollout_tokens + 16;
        // Signals of every stream into this thread's scratch; `lines` are where they lie.
        let mut lines: [&[f32]; MAX_PROCESS] = [&[]; MAX_PROCESS];
        if form != Form::Stepless && !matches!(problem.process, Process::Scores(_) | Process::Returns | Process::None) {
            let mut rest = &mut *self.signal;
            for (p, line) in lines.iter_mut().enumerate().take(streams) {
                let (to, others) = rest.split_at_mut(stride);
                rest = others;
                let mut wide = [&mut *self.f, &mut *self.d, &mut *self.v];
                *line = signal::load(job.simd(), problem, at, p, c.streams[p].missing, c.opd_lambda, to, &mut wide);
            }
        }
        // Values that no list may come to hold: a NaN of the first stream makes a run of its own, others may lie inside a step.
        let unlisted = match form {
            Form::DenseWithEnds => 0,
            Form::Dense => 1,
            _ => streams,
        };
        if unlisted < streams {
            let scope = if *in_bits { Scope::from_bits(bits) } else { Scope::span(0, at.len) };
            for (p, line) in lines.iter().enumerate().take(streams).skip(unlisted) {
                let (nan, infinite) = signal::count_bad(line, &scope);
                if infinite > 0 || (nan > 0 && c.streams[p].missing == Missing::Error) {
                    kept.flags |= flags::ROLLOUT_NONFINITE;
                    kept.state |= if infinite > 0 { state::INFINITE } else { state::NAN };
                    self.report.nonfinite_values += if job.counting { infinite + if c.streams[p].missing == Missing::Error { nan } else { 0 } } else { 0 };
                }
            }
        }
        // SAFETY: the rollout's own lists.
        let last = unsafe { job.last(at) };
        let mut list = Worker::step_list(self.step_begin, self.step_end, self.step_value);
        let fast = form == Form::Dense && c.boundary_rule == BoundaryRule::Adjacent && !*in_bits;
        if fast {
            // No holes, no steps: the runs are found at memory speed.
            let count = chunk::detect(job.simd(), lines[0], c.eta, last);
            let mut begin = 0;
            for l in &last[..count] {
                list.push(begin, *l as usize + 1);
                begin = *l as usize + 1;
            }
            for (p, line) in lines.iter().enumerate().take(streams) {
                for j in 0..count {
                    list.set(p, j, line[list.end[j] as usize - 1]);
                }
            }
        } else if form == Form::Dense {
            let scope = if *in_bits { Scope::from_bits(bits) } else { Scope::span(0, at.len) };
            let detector = Detector { config: c, steps_cut: false };
            let mut rows = list.value.chunks_mut(list.stride);
            let values = std::array::from_fn(|p| if p < streams { rows.next().unwrap_or(&mut []) } else { &mut [] });
            let mut runs = ChunkList { last: &mut *last, values, lists: streams, count: 0 };
            detector.run(&scope, &[(0, at.len)], false, &|_, t| lines[0][t], &|p, _, t| lines[p][t], &mut runs);
            let count = runs.count;
            let mut begin = 0;
            for j in 0..count {
                let end = last[j] as usize + 1;
                list.push(begin, end);
                begin = end;
            }
        } else if form == Form::Scored && problem.step_marks.is_some() {
            self.report.missing_values += step_lists::sparse(i, at, &lines, bits, in_bits, &mut list, job, kept, &mut edge);
        } else if form != Form::Stepless || problem.steps.is_some() {
            if job.joint.is_some() {
                let scope = if *in_bits { Scope::from_bits(bits) } else { Scope::span(0, at.len) };
                edge.raw = job.span_steps(i, at, &scope);
            }
            self.report.missing_values += step_lists::csr(i, at, form, &lines, bits, in_bits, &mut list, job, kept);
            if c.step_value == StepValue::ReturnToGo {
                let count = list.count;
                if let (Process::Returns, Some(last)) = (&problem.process, count.checked_sub(1)) {
                    list.set(0, last, job.returned_outcome(i));
                }
                for p in 0..streams {
                    let from = p * list.stride;
                    steps::returns_to_go(&mut list.value[from..from + count], c.step_gamma);
                }
            }
        }
        let scope = if *in_bits { Scope::from_bits(bits) } else { Scope::span(0, at.len) };
        let scored = form != Form::Stepless && list.count > 0;
        // Elements.
        if scored {
            kept.state |= state::HAS_PROCESS;
            kept.elements = list.count as u32;
            for p in 0..streams {
                // SAFETY: the rollout's own lists.
                unsafe { job.elements(p, at)[..list.count].copy_from_slice(list.values(p)) };
            }
            if c.pool == Pool::Tokens {
                // SAFETY: as above.
                let weights = unsafe { job.weights(at) };
                for j in 0..list.count {
                    let (a, b) = list.range(j);
                    weights[j] = scope.count_in(a, b) as u32;
                }
            }
        }
        // Chunks. Lists that nothing reads (kind none) have no place in the workspace.
        let lists = if plan.workspace.values.count > 0 && scored { streams } else { 0 };
        // SAFETY: the rollout's own lists.
        let values = std::array::from_fn(|p| if p < lists { unsafe { job.values(p, at) } } else { &mut [] });
        let mut chunks = ChunkList { last, values, lists, count: 0 };
        let cursor = StepCursor::new(&list);
        let dense = matches!(form, Form::Dense | Form::DenseWithEnds);
        let at_token = |p: usize, t: usize| if dense { lines[p][t] } else { list.value[p * list.stride + cursor.step(t)] };
        if job.joint.is_some() && scored && !scope.is_empty() {
            edge.detected = [at_token(0, scope.first), at_token(0, scope.end - 1)];
        }
        let at_step = |p: usize, j: usize, t: usize| if dense { lines[p][t] } else { list.value[p * list.stride + j] };
        match c.chunk {
            Chunk::ByValue | Chunk::Step if form == Form::Dense => {
                // The detector's runs are steps and chunks in one.
                kept.state |= state::ONE_LIST;
                chunks.count = list.count;
            }
            Chunk::ByValue if scored => {
                let detector = Detector { config: c, steps_cut: true };
                let uniform = form != Form::DenseWithEnds;
                let u = |j: usize, t: usize| at_step(0, j, t);
                detector.run_list(&scope, &list, uniform, &u, &at_step, &mut chunks);
            }
            Chunk::Step if list.count > 0 => chunk::by_step(&scope, &list, at_step, &mut chunks),
            Chunk::Segment => chunk::segments(&scope, at_token, &mut chunks),
            // The scope says where they end, and none has a value to be listed.
            Chunk::Token if !scored && job.joint.is_none() => chunks.count = scope.count,
            Chunk::Token => chunk::every_token(&scope, at_token, &mut chunks),
            Chunk::Given => {
                if let Some(marks) = &problem.chunk_marks {
                    let row = at.of(marks);
                    chunk::given(&scope, at.len, |t| row.flag(t), at_token, &mut chunks);
                }
            }
            _ if job.by_token.unlisted => chunks.count = usize::from(scope.count > 0),
            _ => chunk::whole(&scope, at_token, &mut chunks),
        }
        kept.chunks = chunks.count as u32;
        if job.joint.is_none() && chunks.count > 0 && chunks.count == scope.count {
            // A value a chunk is a value a token: nothing need be spread.
            kept.state |= state::EVERY_TOKEN;
        }
        if problem.step_group.is_some() && scored {
            // SAFETY: the rollout's own lists.
            let to = unsafe { job.chunk_steps(at) };
            to.iter_mut().zip(&chunks.last[..chunks.count]).for_each(|(step, last)| *step = cursor.step(*last as usize) as u32);
        }
        if plan.workspace.token_values.count > 0 && scored {
            for p in 0..streams {
                // SAFETY: the rollout's own list.
                let to = unsafe { job.token_values(p, at) };
                let mut k = 0;
                scope.runs(0, at.len, |a, b| {
                    for t in a..b {
                        to[k] = at_token(p, t);
                        k += 1;
                    }
                });
            }
        }
        edge
    }

    /// The shaped reward of every element, chunk and token (fusion `reward_shaping`): once the rollout's KL is known.
    fn shape_lists(&mut self, i: usize, at: &Extent, kept: &Rollout) {
        let (job, plan) = (self.job, self.job.plan);
        if !plan.slots.shaped || job.config().kind == Kind::Kl || kept.state & state::HAS_PROCESS == 0 {
            return;
        }
        let shape = job.shaped_reward(i);
        // SAFETY: the rollout's own lists.
        unsafe {
            let map = |from: &[f32], to: &mut [f32], n: u32| to[..n as usize].iter_mut().zip(from).for_each(|(r, s)| *r = shape(*s));
            map(job.elements(0, at), job.elements(1, at), kept.elements);
            if kept.state & state::ONE_LIST == 0 {
                map(job.values(0, at), job.values(1, at), kept.chunks);
            }
            if plan.workspace.token_values.count > 0 {
                map(job.token_values(0, at), job.token_values(1, at), kept.count);
            }
        }
    }

    /// A rollout whose every given stream is missing and excluded gets advantage 0.
    fn without_stream(&mut self, i: usize, kept: &mut Rollout) {
        let job = self.job;
        if kept.state & state::HAS_PROCESS != 0 || job.problem.token_rewards.is_some() {
            return;
        }
        if job.given != 0 && !rollout_streams::places(job.given).any(|s| job.own_value(s, i).is_some()) {
            kept.flags |= flags::ROLLOUT_NO_STREAM;
            kept.state |= state::ZEROED;
        }
    }
}
