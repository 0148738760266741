//! The usual case, short: prm (a value a token, or CSR steps) or outcome alone, return-to-go or broadcast, nothing missing. A group is read once, into lists
//! of its chunks in the thread's scratch, and written once, without a second look at its input. What is usual is said in `Lane::new` for a call and seen while
//! reading for a group; a group that is not is left to the general path before anything of it is written, so findings come from there alone. Expressions and
//! their order are those of the general path, and so are the bits.
#[cfg(target_arch = "x86_64")]
mod avx2;
mod read;
pub mod sets;
mod shape;
#[cfg(target_arch = "x86_64")]
mod short;
#[cfg(target_arch = "x86_64")]
mod short_avx2;
mod terms;
#[cfg(test)]
mod tests;

use super::members::Members;
use super::pieces;
use super::rollout_streams;
use super::worker::{Job, Worker};
use crate::model::array::{Array, DType};
use crate::model::batch::{Extent, Extents, Problem, Process};
use crate::model::config::*;
use crate::plan::workspace::Rollout;

/// Where the chunks of a call come from.
#[derive(Clone, Copy)]
enum Source<'a> {
    /// No process signal: a rollout is one chunk.
    Whole,
    /// A value a token; runs of equal values are chunks and steps in one.
    Dense(Array),
    /// CSR steps with scores.
    Steps(Steps<'a>),
}

#[derive(Clone, Copy)]
struct Steps<'a> {
    offsets: Ints<'a>,
    ends: Ints<'a>,
    scores: &'a [f32],
}

#[derive(Clone, Copy)]
enum Ints<'a> {
    I32(&'a [i32]),
    I64(&'a [i64]),
}

impl<'a> Ints<'a> {
    fn new(array: &Array) -> Option<Ints<'a>> {
        Some(if array.dtype == DType::I32 { Ints::I32(slice(array)?) } else { Ints::I64(slice(array)?) })
    }

    #[inline(always)]
    fn at(&self, i: usize) -> usize {
        match self {
            Ints::I32(all) => all[i] as usize,
            Ints::I64(all) => all[i] as usize,
        }
    }
}

/// What a call whose case is usual has found out once.
pub struct Lane<'a> {
    problem: &'a Problem,
    /// Packed: where the rollouts begin. Padded: their lengths.
    extents: Option<Ints<'a>>,
    source: Source<'a>,
    /// Values of a per-rollout stream, where they lie side by side in f32.
    rewards: [Option<&'a [f32]>; rollout_streams::COUNT],
    /// Of a sum of rewards that has one term: its values, likewise, and its weight.
    single: Option<(&'a [f32], f64)>,
    /// W of the batch.
    weight: f64,
    /// Each token in scope is a chunk and all of a rollout's have one value, which is then credited once (`constant`).
    tokens: bool,
    /// Groups whose rollouts lie in one line, or are short, go the way of `short`.
    #[cfg_attr(not(target_arch = "x86_64"), allow(dead_code))]
    short: bool,
}

/// What has been read of a group.
struct Group {
    /// Elements listed in the thread's scratch.
    elements: usize,
    /// Every rollout counts in the sets.
    all_count: bool,
    /// As `GroupState::format`.
    format: i32,
    /// The elements are the chunks' values.
    in_values: bool,
}

/// The caller's array as a slice that outlives the call.
pub fn slice<'a, T: Copy>(array: &Array) -> Option<&'a [T]> {
    let row = array.whole();
    let slice = row.slice::<T>()?;
    // SAFETY: inputs outlive the run and are not written during it, but for the signal, which no slice is made of here.
    Some(unsafe { std::slice::from_raw_parts(slice.as_ptr(), slice.len()) })
}

impl Stream {
    /// Does the lane know how this stream is standardised?
    fn usual(&self, process: bool) -> bool {
        matches!(self.center, Center::None | Center::Group | Center::LeaveOneOut)
            && matches!(self.scale, Scale::None | Scale::Group | Scale::LeaveOneOut | Scale::AbsMax)
            && self.singleton != Singleton::Refuse
            && self.count_by == CountBy::Rollout
            && !(process && self.leaves_out() && self.loo_unit == LooUnit::Rollout)
    }
}

/// A chunk a token and the outcome alone: is the advantage one value a rollout? It is where the return-to-go of what is placed on the last token is summed
/// without a discount (what is added to it is 0), and where every token has the same value that is not summed.
fn constant(job: &Job) -> bool {
    let c = job.config();
    if c.chunk != Chunk::Token || c.k != 0.0 {
        return false;
    }
    let placed = |place: Place| rollout_streams::places(job.sets).all(|s| c.streams[OUTCOME + s].place == place);
    let listed = job.outputs.is_some_and(|o| o.chunk_ends.is_some() || o.chunk_values.is_some());
    let one = match c.credit {
        Credit::ReturnToGo => c.gamma == 1.0 && placed(Place::Last),
        Credit::Broadcast => placed(Place::Every),
        _ => false,
    };
    one && !listed
}

impl<'a> Lane<'a> {
    /// `None`: this call goes the general way.
    pub fn new(job: &Job<'a>) -> Option<Lane<'a>> {
        let (problem, c, plan) = (job.problem, job.config(), job.plan);
        job.outputs?;
        let tokens = constant(job);
        let plain = matches!(c.kind, Kind::Prm | Kind::None)
            && c.pool == Pool::Steps
            && matches!(c.fusion, Fusion::Advantage | Fusion::RewardSum)
            && c.boundary_rule == BoundaryRule::Adjacent
            && !c.merge_equal_steps
            && !c.bridge_scope_gaps
            && c.chunk_value == ChunkValue::Last
            && matches!(c.credit, Credit::ReturnToGo | Credit::Broadcast)
            && (tokens || !c.spreads())
            && !c.asks_kl()
            && c.step_sets == StepSets::Group
            && c.step_value == StepValue::Score
            && c.token_baseline == TokenBaseline::None;
        let given = plain
            && plan.slots.batch == 0
            && job.joint.is_none()
            && problem.pieces.is_none()
            && problem.step_marks.is_none()
            && problem.token_rewards.is_none()
            && problem.baselines.is_none()
            && problem.reference.is_none()
            && problem.num_process <= 1;
        if !given {
            return None;
        }
        let source = match (&problem.process, &problem.steps) {
            (Process::None, None) if tokens || matches!(c.chunk, Chunk::ByValue | Chunk::None) => Source::Whole,
            (Process::Signal([Some(signal), ..]), None) if matches!(c.chunk, Chunk::ByValue | Chunk::Step) => {
                let rows = signal.stride[if problem.packed() { 0 } else { 1 }];
                if !matches!(signal.dtype, DType::F32 | DType::Bf16 | DType::F16) || rows != 1 {
                    return None;
                }
                Source::Dense(*signal)
            }
            (Process::Scores(scores), Some(steps)) if matches!(c.chunk, Chunk::ByValue | Chunk::Step) => {
                let flat = if problem.scores_flat { scores.shape[1] == 1 } else { scores.shape[0] == 1 };
                if steps.begins.is_some() || !flat || scores.dtype != DType::F32 {
                    return None;
                }
                let scores = if problem.scores_flat { *scores } else { Array { shape: [scores.shape[1], 1], stride: [scores.stride[1], 1], ..*scores } };
                Source::Steps(Steps { offsets: Ints::new(&steps.offsets)?, ends: Ints::new(&steps.ends)?, scores: slice(&scores)? })
            }
            _ => return None,
        };
        let rows = c.streams[..problem.num_process].iter().map(|s| (s, true));
        let sets = rollout_streams::places(job.sets).map(|s| (&c.streams[OUTCOME + s], false));
        if !rows.chain(sets).all(|(s, process)| s.usual(process) && (tokens || s.place == Place::Every)) {
            return None;
        }
        let mut rewards = [None; rollout_streams::COUNT];
        for s in rollout_streams::places(job.given).filter(|s| c.fusion == Fusion::Advantage && c.streams[OUTCOME + s].clip_value == f64::INFINITY) {
            rewards[s] = problem.rollout_streams[s].as_ref().filter(|stream| stream.dtype == DType::F32).and_then(slice);
        }
        let unlimited = |s: usize| c.streams[OUTCOME + s].clip_value == f64::INFINITY;
        let single = match (job.given.trailing_zeros() as usize, &problem.rollout_streams) {
            (s @ 0..rollout_streams::COUNT, streams) if c.fusion == Fusion::RewardSum && job.given.count_ones() == 1 && unlimited(0) && unlimited(s) => {
                streams[s].filter(|stream| stream.dtype == DType::F32).and_then(|stream| slice(&stream)).map(|rewards| (rewards, c.streams[OUTCOME + s].weight))
            }
            _ => None,
        };
        let given = std::array::from_fn(|s| job.has_stream(s));
        let weight = super::terms::total_weight(c, problem.num_process, &given);
        let extents = match &problem.extents {
            Extents::Packed { cu_seqlens } => Ints::new(cu_seqlens),
            Extents::Padded { lengths, .. } => lengths.as_ref().and_then(Ints::new),
        };
        #[cfg(target_arch = "x86_64")]
        let short = short::fits(job, &source);
        #[cfg(not(target_arch = "x86_64"))]
        let short = false;
        Some(Lane { problem, extents, source, rewards, single, weight, tokens, short })
    }
}

impl Lane<'_> {
    /// `Problem::extent`.
    #[inline]
    fn extent(&self, i: usize) -> Extent {
        match (&self.extents, &self.problem.extents) {
            (Some(begins), Extents::Packed { .. }) => {
                let (from, len) = (begins.at(i), begins.at(i + 1) - begins.at(i));
                Extent { row: i, column: from, len, flat: true, slot: from - begins.at(0), tail: 0, begin: 0, whole: len }
            }
            (lengths, Extents::Padded { lengths: given, pad_left }) if lengths.is_some() || given.is_none() => {
                let slots = self.problem.slots;
                let len = lengths.as_ref().map_or(slots, |lengths| lengths.at(i));
                let column = if *pad_left { slots - len } else { 0 };
                Extent { row: i, column, len, flat: false, slot: i * slots + column, tail: 0, begin: 0, whole: len }
            }
            _ => self.problem.extent(i),
        }
    }

    /// One past the last column of rollout i.
    #[inline]
    fn end(&self, i: usize) -> usize {
        match (&self.extents, &self.problem.extents) {
            (Some(begins), Extents::Packed { .. }) => begins.at(i + 1),
            _ => {
                let at = self.extent(i);
                at.column + at.len
            }
        }
    }

    /// Addresses of the token-shaped values that will be read of rollout i.
    fn input(&self, i: usize) -> std::ops::Range<usize> {
        match &self.source {
            Source::Dense(signal) => {
                let row = self.extent(i).of(signal);
                let begin = row.address().addr();
                begin..begin + row.len() * signal.dtype.bytes()
            }
            _ => 0..0,
        }
    }

    /// Likewise of rollouts a .. b, where they lie side by side.
    fn inputs(&self, members: Members) -> Option<std::ops::Range<usize>> {
        match members {
            Members::Range(a, b) if self.problem.packed() && a < b => Some(self.input(a).start..self.input(b - 1).end),
            _ => None,
        }
    }
}

impl Worker<'_> {
    /// Reads, decides and writes a group. `false`: it is not usual, nothing has been written.
    pub fn usual_group(&mut self, lane: &Lane, g: usize, members: Members) -> bool {
        self.read_masks(g, members);
        #[cfg(target_arch = "x86_64")]
        if lane.short {
            let upcoming = self.upcoming.filter(|_| self.job.streams).map(|g| super::members::members(self.job, self.job.problem, g));
            self.ahead = upcoming.and_then(|members| lane.inputs(members)).unwrap_or(0..0);
            let group = self.short_group(lane, members);
            self.ahead = 0..0;
            if let Some(group) = group {
                self.report.short_groups += 1;
                self.usual_done(g, &group);
                return true;
            }
        }
        let Some(group) = self.usual_read(lane, members) else { return false };
        if self.usual_decide(lane, members, &group).is_none() {
            return false;
        }
        self.place = pieces::Place::WHOLE;
        let upcoming = self.upcoming.filter(|_| self.job.streams).map(|g| super::members::members(&self.job, self.job.problem, g));
        self.ahead = upcoming.and_then(|members| lane.inputs(members)).unwrap_or(0..0);
        // Else one after the other, each when the one before has been asked for.
        let one_by_one = self.ahead.is_empty();
        let mut next = upcoming.iter().filter(|_| one_by_one).flat_map(|members| members.iter());
        let mut begin = 0;
        for i in members.iter() {
            let kept: Rollout = self.job.rollout(i);
            if self.ahead.is_empty() {
                self.ahead = next.next().map_or(0..0, |i| lane.input(i));
            }
            self.usual_shape(lane, i, &kept, begin);
            begin += kept.chunks as usize;
        }
        self.ahead = 0..0;
        self.usual_done(g, &group);
        true
    }

    /// What is told of a group that was written.
    fn usual_done(&mut self, g: usize, group: &Group) {
        self.report.violating_groups += i64::from(group.format == 1);
        self.job.group_outputs(g, |slot| self.usual_sets.standard(slot), &self.usual_sets.flags);
        self.report.usual_groups += 1;
    }
}
