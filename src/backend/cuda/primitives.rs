//! Primitives on token-shaped arrays in device memory (kernels/primitives.cuh, primitives_chunks.cuh): a launch that puts the constants into the workspace, one that looks
//! at the extents, one a pass. Nothing is allocated, copied or waited for.
use super::args::{Args, Counts, Outputs, PlanConstants, PrimitiveStart, Rollout, StateLayout, Stream, Workspace};
use super::device::Device;
use super::fill;
use super::launch::Kernel;
use crate::error::Result;
use crate::model::array::Array;
use crate::model::batch::Problem;
use crate::model::config::{Choice, Chunk, Config, Kind, Pool};
use crate::model::context::Memory;
use crate::numerics::table::decay_powers;
use std::ffi::c_void;

/// What is to be done, with its numbers. The arrays are those that a batch of a run would give: rewards, values, bootstrap, log-probabilities.
#[derive(Clone, Copy, Debug)]
pub enum Tokens<'a> {
    Returns { gamma: f64 },
    Gae { gamma: f64, lam: f64 },
    Opd { lambda: f64 },
    Kl(&'a Config),
    /// Of the rewards.
    Whiten(&'a Config),
    /// Of the rewards.
    Divide { k: f64 },
    /// Ends of the chunks of a signal or of scores.
    Chunks(&'a Config),
}

/// Where the parts of the workspace begin.
struct Parts {
    constants: usize,
    counts: usize,
    keys: usize,
    words: usize,
    rollouts: usize,
    scope: usize,
    /// Two lists of 8 bytes a token; of chunks four of 4 bytes.
    d: usize,
    v: usize,
    bytes: usize,
}

fn parts(rollouts: usize, tokens: usize) -> Parts {
    let mut at = 0usize;
    let mut take = |bytes: usize| {
        let begin = at;
        at = begin.saturating_add(bytes).div_ceil(256).saturating_mul(256);
        begin
    };
    let (constants, counts) = (take(size_of::<PlanConstants>()), take(size_of::<Counts>()));
    let (keys, words) = (take(16), take(48));
    let rollout = take(rollouts.saturating_mul(size_of::<Rollout>()));
    let scope = take((tokens / 64 + 2 * rollouts + 2) * 8);
    let (d, v) = (take(tokens.saturating_mul(8)), take(tokens.saturating_mul(8)));
    Parts { constants, counts, keys, words, rollouts: rollout, scope, d, v, bytes: at }
}

/// Bytes of workspace for so many rollouts and token slots in all (padded: R * T).
pub fn bytes(rollouts: usize, tokens: usize) -> usize {
    parts(rollouts, tokens).bytes
}

/// Token slots of a batch in all.
pub fn slots(problem: &Problem) -> usize {
    if problem.packed() { problem.slots } else { problem.slots.saturating_mul(problem.rollouts) }
}

fn constants(which: &Tokens, slots: usize) -> PlanConstants {
    let none = PlanConstants { max_rollout_tokens: i32::MAX.into(), max_tokens: slots as i64, fill_padding: 1, lam_returns: -1.0, ..PlanConstants::NOTHING };
    // `missing = error`: a NaN stays one.
    let none = PlanConstants { streams: [Stream { missing: crate::model::config::Missing::Error.number(), ..Stream::NOTHING }; super::args::MAX_STREAMS], ..none };
    match *which {
        Tokens::Returns { gamma } => PlanConstants { gamma, decay: decay_powers(gamma), ..none },
        Tokens::Gae { gamma, lam } => PlanConstants { gamma, lam, decay: decay_powers(gamma * lam), ..none },
        Tokens::Opd { lambda } => PlanConstants { opd_lambda: lambda, ..none },
        Tokens::Kl(c) => PlanConstants {
            kl_in_reward: c.kl_in_reward.number(),
            kl_coef: c.kl_coef,
            kl_log_ratio_clamp: c.kl_log_ratio_clamp,
            kl_clamp: c.kl_clamp,
            ..none
        },
        Tokens::Divide { k } => PlanConstants { k, ..none },
        Tokens::Chunks(c) => PlanConstants {
            streams: std::array::from_fn(|row| fill::stream(&c.streams[row])),
            num_process: 1,
            lists: 1,
            eta: c.eta,
            boundary_rule: c.boundary_rule.number(),
            merge_equal_steps: c.merge_equal_steps.into(),
            bridge_scope_gaps: c.bridge_scope_gaps.into(),
            // What else a run may ask of its steps is not asked.
            kind: Kind::Prm.number(),
            pool: Pool::Steps.number(),
            chunk: Chunk::ByValue.number(),
            ..none
        },
        Tokens::Whiten(c) => PlanConstants {
            whiten_ddof: c.whiten_ddof,
            whiten_epsilon: c.whiten_epsilon,
            whiten_epsilon_mode: c.whiten_epsilon_mode.number(),
            whiten_shift: c.whiten_shift.into(),
            fill_padding: c.fill_padding.into(),
            ..none
        },
    }
}

/// Numbers of `Primitive` in kernels/args.cuh.
fn number(which: &Tokens) -> u32 {
    match which {
        Tokens::Returns { .. } => 1,
        Tokens::Gae { .. } => 2,
        Tokens::Opd { .. } => 3,
        Tokens::Kl(_) => 4,
        Tokens::Whiten(_) => 5,
        Tokens::Divide { .. } => 6,
        Tokens::Chunks(_) => 7,
    }
}

/// Puts a primitive on the stream. `outputs` in the order of its arguments.
pub fn tokens(device: &Device, which: &Tokens, problem: &Problem, outputs: [Option<Array>; 2], memory: Memory, stream: *mut c_void) -> Result<()> {
    let slots = slots(problem);
    let (p, base) = (parts(problem.rollouts, slots), memory.data.addr() as u64);
    let at = |offset: usize| base + offset as u64;
    let start =
        PrimitiveStart { plan: constants(which, slots), constants: at(p.constants), counts: at(p.counts), keys: at(p.keys), words: at(p.words) };
    let work = Workspace {
        state: base,
        counts: at(p.counts),
        rollouts: at(p.rollouts),
        scope: at(p.scope),
        d: at(p.d),
        v: at(p.v),
        elements: at(p.d),
        last: at(p.d + 4 * slots),
        step_begin: at(p.v),
        step_end: at(p.v + 4 * slots),
        ..Workspace::NOTHING
    };
    let [first, second] = outputs.map(fill::optional);
    let chunks = matches!(which, Tokens::Chunks(_));
    let outputs = match chunks {
        true => Outputs { num_chunks: first, chunk_ends: second, ..Outputs::NOTHING },
        false => Outputs { advantages: first, returns: second, ..Outputs::NOTHING },
    };
    let args = Args {
        plan: at(p.constants),
        mode: 0,
        primitive: number(which),
        batch: fill::batch(problem),
        outputs,
        layout: StateLayout { whiten_extremes: p.keys as i64, whiten_sums: p.words as i64, ..StateLayout::NOTHING },
        work,
    };
    let (blocks, threads, kernels, stream) = (problem.rollouts.max(1), super::plan::threads(problem.slots.min(4096)), device.kernels(), stream.cast());
    let _current = device.enter()?;
    kernels.launch(Kernel::PrimitiveStart, 1, 256, &start, stream)?;
    kernels.launch(Kernel::PrimitiveExtents, problem.rollouts.div_ceil(256), 256, &args, stream)?;
    kernels.launch(if chunks { Kernel::PrimitiveChunks } else { Kernel::PrimitiveTokens }, blocks, threads, &args, stream)?;
    if matches!(which, Tokens::Whiten(_)) {
        kernels.launch(Kernel::PrimitiveWhitenSums, blocks, threads, &args, stream)?;
        kernels.launch(Kernel::PrimitiveWhitenWrite, blocks, threads, &args, stream)?;
    }
    Ok(())
}
