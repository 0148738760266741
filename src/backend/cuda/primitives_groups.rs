//! Primitives on values a rollout in device memory (kernels/primitives_groups.cuh): rollouts without a token go through the kernels of a run, and one of their own writes.
use super::args::{Args, Counts, GroupMarks, MAX_STREAMS, Outputs, PlanConstants, PrimitiveStart, ROLLOUT_STREAMS, Rollout, StateLayout, Stream, Workspace, mode};
use super::device::Device;
use super::driver::done;
use super::fill;
use super::launch::Kernel;
use crate::error::Result;
use crate::model::array::Array;
use crate::model::batch::Problem;
use crate::model::config::{self, Choice, Config, Kind, OUTCOME};
use crate::model::context::Memory;
use crate::numerics::exact::ROLLOUT_BITS;
use cudarc::driver::sys;
use std::ffi::c_void;

/// What is to be done. The arrays are those that a batch of a run would give.
#[derive(Clone, Copy, Debug)]
pub enum Groups<'a> {
    /// The outcome by this row: N(x; S) a rollout; count, mean, std, absmax a group.
    Standardize { row: &'a config::Stream, outputs: [Option<Array>; 5] },
    /// Flags of groups and rollouts; a report at an address, or 0.
    Flags { config: &'a Config, outputs: [Option<Array>; 2], report: u64 },
}

/// Where the parts of the workspace begin.
struct Parts {
    constants: usize,
    rollouts: usize,
    /// What begins at zero: counts, marks, keys and sums, one after the other.
    counts: usize,
    marks: usize,
    keys: usize,
    sums: usize,
    zeros_end: usize,
    /// What the first kernel sets and no one reads here.
    unread: usize,
    bytes: usize,
}

fn parts(rollouts: usize, groups: usize, slots: usize) -> Parts {
    let mut at = 0usize;
    let mut take = |bytes: usize| {
        let begin = at;
        at = begin.saturating_add(bytes).div_ceil(256).saturating_mul(256);
        begin
    };
    let of_groups = |each: usize| groups.saturating_mul(each);
    let (constants, rollouts) = (take(size_of::<PlanConstants>()), take(rollouts.saturating_mul(size_of::<Rollout>())));
    let (counts, marks) = (take(size_of::<Counts>()), take(of_groups(size_of::<GroupMarks>())));
    let (keys, sums) = (take(of_groups(4 * (3 * slots + 1))), take(of_groups(8 * 6 * slots)));
    let unread = take(128);
    Parts { constants, rollouts, counts, marks, keys, sums, zeros_end: unread, unread, bytes: at }
}

fn slots(which: &Groups) -> usize {
    match which {
        Groups::Standardize { .. } => 1,
        Groups::Flags { config, .. } => 2 + config.num_extra,
    }
}

impl Groups<'_> {
    /// Bytes of workspace.
    pub fn bytes(&self, problem: &Problem) -> usize {
        parts(problem.rollouts, problem.groups, slots(self)).bytes
    }
}

/// Bytes that are enough for any of them.
pub fn bytes(rollouts: usize, groups: usize) -> usize {
    parts(rollouts, groups, ROLLOUT_STREAMS).bytes
}

fn constants(which: &Groups) -> PlanConstants {
    let mut streams = [Stream::NOTHING; MAX_STREAMS];
    let num_extra = match which {
        Groups::Standardize { row, .. } => {
            streams[OUTCOME] = fill::stream(row);
            0
        }
        Groups::Flags { config, .. } => {
            streams = std::array::from_fn(|row| fill::stream(&config.streams[row]));
            config.num_extra
        }
    };
    let slots = slots(which);
    let of_slot = |of: &dyn Fn(usize) -> i32| std::array::from_fn(|slot| if slot < slots { of(slot) } else { -1 });
    let row = |slot: usize| (OUTCOME + slot) as i32;
    PlanConstants {
        streams,
        max_rollout_tokens: i32::MAX.into(),
        num_extra: num_extra as i32,
        kind: Kind::None.number(),
        slots: slots as i32,
        slot_row: of_slot(&row),
        slot_reported: of_slot(&row),
        slot_bits: of_slot(&|_| ROLLOUT_BITS),
        lam_returns: -1.0,
        ..PlanConstants::NOTHING
    }
}

/// Numbers of `Primitive` in kernels/args.cuh.
fn number(which: &Groups) -> u32 {
    match which {
        Groups::Standardize { .. } => 8,
        Groups::Flags { config, .. } if config.kind == Kind::None => 9,
        Groups::Flags { .. } => 10,
    }
}

/// Puts a primitive on the stream.
pub fn groups(device: &Device, which: &Groups, problem: &Problem, memory: Memory, stream: *mut c_void) -> Result<()> {
    let (p, base) = (parts(problem.rollouts, problem.groups, slots(which)), memory.data.addr() as u64);
    let at = |offset: usize| base + offset as u64;
    let start = PrimitiveStart { plan: constants(which), constants: at(p.constants), counts: at(p.counts), keys: at(p.unread), words: at(p.unread + 64) };
    let outputs = match which {
        Groups::Standardize { outputs, .. } => {
            let [out, count, mean, std, absmax] = outputs.map(fill::optional);
            Outputs { advantages: out, stats_count: count, stats_mean: mean, stats_std: std, stats_absmax: absmax, ..Outputs::NOTHING }
        }
        Groups::Flags { outputs, report, .. } => {
            let [group_flags, rollout_flags] = outputs.map(fill::optional);
            Outputs { group_flags, rollout_flags, report: *report, ..Outputs::NOTHING }
        }
    };
    let args = Args {
        plan: at(p.constants),
        mode: mode::COUNTING,
        primitive: number(which),
        batch: fill::batch(problem),
        outputs,
        layout: StateLayout { extremes: p.keys as i64, sums: p.sums as i64, keys_from_zero: 1, ..StateLayout::NOTHING },
        work: Workspace { state: base, counts: at(p.counts), marks: at(p.marks), rollouts: at(p.rollouts), ..Workspace::NOTHING },
    };
    let (rollouts, kernels, stream): (usize, _, sys::CUstream) = (problem.rollouts, device.kernels(), stream.cast());
    let _current = device.enter()?;
    let bytes = p.zeros_end - p.counts;
    // SAFETY: within the workspace.
    done(unsafe { sys::cuMemsetD8Async(at(p.counts), 0, bytes, stream) }, format_args!("cuMemsetD8Async of {bytes} bytes"))?;
    kernels.launch(Kernel::PrimitiveStart, 1, 256, &start, stream)?;
    // One thread a stream, and the rows of flags.
    const THREADS: u32 = 32;
    kernels.launch(Kernel::Prepare, rollouts, THREADS, &args, stream)?;
    kernels.launch(Kernel::Sums, rollouts, THREADS, &args, stream)?;
    kernels.launch(Kernel::PrimitiveGroups, rollouts.max(problem.groups).max(1), THREADS, &args, stream)
}
