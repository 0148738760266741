//! Rollouts in pieces over calls or ranks (kernels/pieces_units.cuh): every piece is a unit of its call, to which what is its rollout's is gathered, and a share of each phase is
//! added to a buffer of partials, which the other calls' shares are added to likewise. Twin of src/backend/cpu/pieces.rs.
use super::args::{Args, Array, Joint, ROW_INPUTS, Unit, UnitsStart, mode};
use super::fill;
use super::launch::Kernel;
use super::plan::{Call, OnDevice};
use super::workspace;
use crate::error::Result;
use crate::model::batch::{Problem, Process};
use crate::plan::Plan;
use crate::plan::partials::Stage;

/// As kernels/args.cuh has it: where the units begin behind `Joint`.
const UNITS_AT: usize = 256;
const _: () = assert!(size_of::<Joint>() <= UNITS_AT);

/// `JOINT_APPLY`: all phases are taken.
const APPLY: i32 = 7;

/// Threads of a block of the kernels that place the units.
const THREADS: u32 = 128;

/// Bytes of `Joint` and so many units.
pub fn bytes(units: usize) -> usize {
    if units == 0 { 0 } else { UNITS_AT + units * size_of::<Unit>() }
}

/// Offsets (or addresses) of the parts of the workspace.
#[derive(Clone, Copy, Debug)]
pub struct Places {
    pub joint: u64,
    pub speakers: u64,
    pub gathered: [u64; ROW_INPUTS],
    pub groups: u64,
    pub ends: u64,
    pub begins: u64,
    pub numbers: u64,
    pub scores: u64,
    /// Steps that the last four have room for.
    pub room: usize,
}

impl Places {
    pub fn at(mut self, base: u64) -> Places {
        let Places { joint, speakers, gathered, groups, ends, begins, numbers, scores, room: _ } = &mut self;
        [joint, speakers, groups, ends, begins, numbers, scores].into_iter().chain(gathered).for_each(|part| *part += base);
        self
    }
}

/// Numbers of `JointStage`.
fn number(stage: Stage) -> i32 {
    match stage {
        Stage::Edges => 0,
        Stage::Own => 1,
        Stage::Maxima => 2,
        Stage::Sums => 3,
        Stage::Chunks => 4,
        Stage::Scan => 5,
        Stage::WhitenMaxima | Stage::WhitenSums => 6,
    }
}

/// Kernels of all phases and of the results.
pub fn kernels(plan: &Plan) -> usize {
    let of = |phase: usize| match plan.partials.stage(phase) {
        Stage::Edges => 2,
        Stage::Own | Stage::Maxima => 3,
        Stage::Sums | Stage::Chunks | Stage::Scan | Stage::WhitenMaxima => 4,
        Stage::WhitenSums => 5,
    };
    (0..plan.partials.phases).map(of).sum::<usize>() + 4
}

fn line(data: u64, dtype: i32) -> Array {
    Array { data, stride: [1, 1], dtype, reserved: 0 }
}

/// Numbers of `PASSRL_DTYPE_*`.
const F32: i32 = 2;
const I64: i32 = 5;
const I32: i32 = 6;

/// What the units are made of; `args` is changed into what the kernels see: units where rollouts were.
fn open(plan: &Plan, problem: &Problem, places: &Places, state: u64, args: &mut Args) -> UnitsStart {
    let array = |a| fill::optional(Some(a));
    let (count, b) = (problem.units(), &mut args.batch);
    let sizes = plan.partials.pieces.map(|p| (p, p.sizes()));
    let mut joint = Joint { step_numbers: places.numbers, ..Joint::NOTHING };
    if let Some((layout, s)) = sizes {
        (joint.edges, joint.own, joint.chunks, joint.scan) = (layout.edges.offset as i64, layout.own.offset as i64, layout.chunks.offset as i64, layout.scan.offset as i64);
        (joint.rollouts, joint.each, joint.tiles) = (s.rollouts as i64, s.each as i64, s.tiles as i64);
        (joint.scans, joint.own_words, joint.own_lists, joint.chunk_words) = (s.scans as i32, s.own_words as i32, s.own_lists as i32, s.chunk_words as i32);
    }
    let mut start = UnitsStart {
        pieces: count as i64,
        rollouts: problem.rollouts as i64,
        groups: problem.groups as i64,
        group_size: b.group_size,
        slots: problem.slots as i64,
        max_tokens: plan.limits.tokens as i64,
        max_rollout_tokens: plan.limits.rollout_tokens as i64,
        steps: b.steps,
        scores_room: places.room as i64,
        grouping: b.grouping,
        num_process: b.num_process,
        scores_flat: b.scores_flat,
        hashes_scores: matches!(problem.process, Process::Scores(_)).into(),
        extents: b.extents,
        group_view: b.group_view,
        step_offsets: b.step_offsets,
        step_ends: b.step_ends,
        step_begins: b.step_begins,
        scores: b.scores,
        groups_to: places.groups,
        ends_to: places.ends,
        begins_to: places.begins,
        scores_to: places.scores,
        speakers: places.speakers,
        state,
        counts: args.work.counts,
        joint_to: places.joint,
        joint,
        gathered: places.gathered,
        ..UnitsStart::NOTHING
    };
    if let Some(p) = &problem.pieces {
        (start.rollout, start.begin, start.index, start.lengths) = (array(p.rollout), array(p.begin), array(p.index), array(p.lengths));
        start.numbers = fill::optional(p.numbers);
    }
    let [streams @ .., baselines, bootstrap, lam, format_ok, in_stats, absent] = &mut start.inputs;
    streams.copy_from_slice(&b.rollout_streams);
    (*baselines, *bootstrap, *lam) = (b.baselines, b.bootstrap, b.rollout_lam);
    (*format_ok, *in_stats, *absent) = (b.format_ok, b.in_stats, b.absent);
    let own = [&mut b.baselines, &mut b.bootstrap, &mut b.rollout_lam, &mut b.format_ok, &mut b.in_stats, &mut b.absent];
    for (input, at) in b.rollout_streams.iter_mut().chain(own).zip(places.gathered).filter(|(input, _)| input.data != 0) {
        *input = line(at, input.dtype);
    }
    (b.rollouts, b.grouping, b.group_view) = (count as i64, 0, line(places.groups, I64));
    if b.step_offsets.data != 0 {
        // (The offsets are the units' own; they are given all the same.)
        (b.step_ends, b.step_begins, b.steps) = (line(places.ends, I32), line(places.begins, I32), places.room as i64);
        if b.scores.data != 0 {
            b.scores = Array { stride: [places.room as i64, 1], ..line(places.scores, F32) };
            b.scores_flat = 0;
        }
    }
    args.work.joint = places.joint;
    start
}

/// Blocks of a kernel that has duties for units and for groups; one at least, which writes the report.
fn blocks(problem: &Problem) -> usize {
    problem.units().max(problem.groups).max(1)
}

impl OnDevice {
    /// Puts the units of a call in place and prepares them.
    fn open_pieces(&self, plan: &Plan, problem: &Problem, partials: u64, stage: i32, call: &mut Call, mode: u32) -> Result<()> {
        call.on_partials(partials, workspace::partials(plan))?;
        // (The batch's own arrays are to be had once: a call over ranks comes here for each phase.)
        let mut start = match call.units.take() {
            Some(start) => start,
            None => open(plan, problem, &self.units(call.base), partials, &mut call.args),
        };
        start.joint.stage = stage;
        call.kernels().launch(Kernel::PiecesUnits, problem.units().max(1), THREADS, &start, call.stream)?;
        if stage > 0 {
            call.kernels().launch(Kernel::PiecesTable, (start.joint.rollouts as usize).div_ceil(THREADS as usize), THREADS, &start, call.stream)?;
        }
        call.units = Some(start);
        call.launch(Kernel::PiecesPrepare, problem.units(), mode)
    }

    /// A call's share of a phase. `ranks`: `mode::RANKS` once the header's words are those of all.
    pub(super) fn add_pieces(&self, plan: &Plan, phase: usize, problem: &Problem, partials: u64, call: &mut Call, ranks: u32) -> Result<()> {
        let stage = plan.partials.stage(phase);
        let (known, shapes) = (mode::KNOWN | ranks, blocks(problem));
        let first = if stage == Stage::Maxima { ranks } else { known };
        self.open_pieces(plan, problem, partials, number(stage), call, first)?;
        match stage {
            Stage::Edges | Stage::Own | Stage::Maxima => Ok(()),
            Stage::Sums => call.launch(Kernel::PiecesSums, problem.units(), known),
            Stage::Chunks => call.launch(Kernel::PiecesShape, shapes, known | mode::CHUNKS),
            Stage::Scan => call.launch(Kernel::PiecesShape, shapes, known | mode::SCAN),
            Stage::WhitenMaxima => call.launch(Kernel::PiecesShape, shapes, ranks | mode::KEEP | mode::DRY),
            Stage::WhitenSums => {
                call.launch(Kernel::PiecesShape, shapes, known | mode::KEEP | mode::DRY)?;
                call.launch(Kernel::WhitenSums, problem.units(), known | mode::KEEP | mode::DRY)
            }
        }
    }

    /// The call's outputs, from complete statistics.
    pub(super) fn shape_pieces(&self, plan: &Plan, problem: &Problem, partials: u64, call: &mut Call, ranks: u32) -> Result<()> {
        let known = mode::COUNTING | mode::KNOWN | ranks;
        self.open_pieces(plan, problem, partials, APPLY, call, known)?;
        if ranks == 0 {
            call.note_phase(plan.partials.phases, problem, partials)?;
        }
        call.launch(Kernel::PiecesShape, blocks(problem), known)
    }
}
