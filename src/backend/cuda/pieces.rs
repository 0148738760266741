//! Rollouts in pieces, all of them in one call (kernels/pieces.cuh): their tokens are put side by side in the workspace, the run goes over whole rollouts there, and its
//! results are put where the pieces lie. Each token-shaped input and output is read and written once more than of whole rollouts.
use super::args::{self, Array, MOST_GATHERED, Pieces};
use super::device::Device;
use super::fill;
use super::launch::Kernel;
use crate::error::Result;
use crate::model::batch::{Extents, Problem};
use crate::model::config::{Chunk, Config, Credit, Kind};
use crate::plan::Plan;
use cudarc::driver::sys;

/// Kernels of a run beside those on the whole rollouts.
pub const KERNELS: usize = 5;

/// Threads of a block: a piece's tokens, or as many pieces or rollouts.
const THREADS: u32 = 256;

/// Offsets (or addresses) of the parts of the workspace.
#[derive(Clone, Copy, Debug, Default)]
pub struct Places {
    pub table: u64,
    pub offsets: u64,
    pub absent: u64,
    /// Of each input in the order of `inputs`, and of advantages and returns.
    pub gathered: [u64; MOST_GATHERED],
    pub results: [u64; 2],
}

/// Bytes a token of each input that a configuration may read.
pub fn bytes_of_inputs(c: &Config) -> [usize; MOST_GATHERED] {
    let (kl, process) = (c.kind == Kind::Kl, if c.kind == Kind::None { 0 } else { c.num_process });
    let (values, rewards) = (c.credit == Credit::Gae, c.credit == Credit::Gae || c.chunk == Chunk::Token);
    let wide = |read: bool| if read { 8 } else { 0 };
    let signal = |p: usize| if p < process { 4 } else { 0 };
    [
        8, signal(0), signal(1), signal(2), signal(3), wide(kl || c.asks_kl()), wide(kl), wide(kl), wide(c.asks_kl()), wide(c.kind == Kind::Prm), wide(c.chunk == Chunk::Given),
        wide(values), wide(rewards),
    ]
}

/// The token-shaped inputs that pieces may have.
fn inputs(b: &mut args::Batch) -> [&mut Array; MOST_GATHERED] {
    let [s0, s1, s2, s3] = &mut b.signal;
    [
        &mut b.mask, s0, s1, s2, s3, &mut b.logp_policy, &mut b.logp_teacher, &mut b.logp_base, &mut b.logp_reference, &mut b.step_marks, &mut b.chunk_marks, &mut b.values,
        &mut b.token_rewards,
    ]
}

fn element_bytes(a: &Array) -> usize {
    match a.dtype {
        1 | 5 => 8,
        2 | 6 => 4,
        3 | 4 => 2,
        _ => 1,
    }
}

/// The pieces of a call; `args` is changed into what the kernels see: whole rollouts. `None`: they come whole.
pub fn gathering(plan: &Plan, problem: &Problem, places: &Places, args: &mut args::Args) -> Option<Pieces> {
    let (Some(p), Extents::Packed { cu_seqlens }) = (&problem.pieces, &problem.extents) else { return None };
    let array = |a| fill::optional(Some(a));
    let mut to = Pieces {
        pieces: p.count as i64,
        rollouts: problem.rollouts as i64,
        slots: problem.slots as i64,
        each: plan.limits.rollout_pieces as i64,
        max_tokens: plan.limits.tokens as i64,
        max_rollout_tokens: plan.limits.rollout_tokens as i64,
        extents: array(*cu_seqlens),
        rollout: array(p.rollout),
        begin: array(p.begin),
        index: array(p.index),
        lengths: array(p.lengths),
        absent: args.batch.absent,
        offsets: places.offsets,
        table: places.table,
        absent_to: places.absent,
        counts: args.work.counts,
        outputs: [args.outputs.advantages, args.outputs.returns],
        results: places.results,
        fill_padding: plan.config.fill_padding.into(),
        ..Pieces::NOTHING
    };
    let line = |data: u64, count: usize, dtype: i32| Array { data, shape: [count as i64, 1], stride: [1, 1], dtype, reserved: 0 };
    let tokens = plan.limits.tokens;
    let room = bytes_of_inputs(&plan.config);
    for (i, input) in inputs(&mut args.batch).into_iter().enumerate().filter(|(_, input)| input.data != 0) {
        assert!(element_bytes(input) <= room[i], "input {i} of pieces has no room");
        let n = to.count as usize;
        (to.inputs[n], to.gathered[n], to.count) = (*input, places.gathered[i], to.count + 1);
        *input = line(places.gathered[i], tokens, input.dtype);
    }
    for (output, at) in [&mut args.outputs.advantages, &mut args.outputs.returns].into_iter().zip(places.results).filter(|(output, _)| output.data != 0) {
        *output = line(at, tokens, output.dtype);
    }
    // Numbers of `PASSRL_DTYPE_*`: i64 and u8.
    args.batch.extents = line(places.offsets, problem.rollouts + 1, 5);
    args.batch.absent = line(places.absent, problem.rollouts, 7);
    args.batch.slots = tokens as i64;
    Some(to)
}

/// Before the run; counts are zeros.
pub fn gather(device: &Device, p: &Pieces, stream: sys::CUstream) -> Result<()> {
    let (kernels, blocks) = (device.kernels(), |n: i64| (n as usize).div_ceil(THREADS as usize));
    kernels.launch(Kernel::PiecesPlace, blocks(p.pieces), THREADS, p, stream)?;
    kernels.launch(Kernel::PiecesLengths, blocks(p.rollouts), THREADS, p, stream)?;
    kernels.launch(Kernel::PiecesOffsets, 1, THREADS, p, stream)?;
    kernels.launch(Kernel::PiecesGather, p.pieces as usize, THREADS, p, stream)
}

/// After it.
pub fn scatter(device: &Device, p: &Pieces, stream: sys::CUstream) -> Result<()> {
    device.kernels().launch(Kernel::PiecesScatter, (p.pieces as usize).max(1), THREADS, p, stream)
}
