//! The primitives' arguments: a batch's layout, explicit views, and that they lie apart.
use super::batch::{self, Tokens};
use super::config;
use super::view::{self, Want};
use super::{offsets, outputs};
use crate::abi::constants::*;
use crate::abi::status::*;
use crate::abi::types::{passrl_batch, passrl_config, passrl_limits, passrl_stream, passrl_view};
use crate::error::{self, Result};
use crate::model::array::{Array, DType};
use crate::model::batch::{Extents, Problem, Process};
use crate::model::config::{Config, Fusion, KlInReward, Limits, Stream};
use crate::model::context::{Memory, Where};
use crate::model::primitives::{Call, Found, What};
use crate::model::report::{Report, SINGLETON};
use crate::refuse;
use std::ffi::c_void;

/// Numbers of rollouts, groups and tokens of a rollout are kept in 31 bits.
const MOST: usize = (1 << 31) - 1;

const NO_LIMITS: Limits = Limits {
    rollouts: MOST,
    groups: MOST,
    tokens: 1 << 40,
    rollout_tokens: MOST,
    steps: 1 << 40,
    group_rollouts: MOST,
    group_elements: MOST,
    pieces: 0,
    rollout_pieces: 0,
    batch_rollouts: 0,
};

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    Tokens,
    Rollouts,
    Groups,
    /// `[G, PASSRL_MAX_STREAMS]`.
    GroupStreams,
}

/// An argument as the caller gave it.
#[derive(Clone, Copy)]
pub struct Given {
    name: &'static str,
    view: *const passrl_view,
    types: &'static [DType],
    shape: Shape,
    needed: bool,
}

impl Given {
    pub fn new(name: &'static str, view: *const passrl_view, shape: Shape, types: &'static [DType]) -> Given {
        Given { name, view, types, shape, needed: true }
    }
    /// Floats, token-shaped.
    pub fn tokens(name: &'static str, view: *const passrl_view) -> Given {
        Given::new(name, view, Shape::Tokens, view::FLOATS)
    }
    /// Floats, one a rollout.
    pub fn rollouts(name: &'static str, view: *const passrl_view) -> Given {
        Given::new(name, view, Shape::Rollouts, view::FLOATS)
    }
    pub fn optional(self) -> Given {
        Given { needed: false, ..self }
    }

    /// # Safety
    /// The view is NULL or a `passrl_view`.
    unsafe fn array(&self, place: Where, problem: &Problem, writes: bool) -> Result<Option<Array>> {
        let want = match self.shape {
            Shape::Tokens => Tokens { place, packed: problem.packed(), rollouts: problem.rollouts, slots: problem.slots }.want(),
            Shape::Rollouts => Want::Line(problem.rollouts),
            Shape::Groups => Want::Line(problem.groups),
            Shape::GroupStreams => Want::Grid(problem.groups, PASSRL_MAX_STREAMS),
        };
        if self.view.is_null() && self.needed {
            return refuse!(PASSRL_ERR_NULL, "{} is NULL; it must point to a passrl_view", self.name);
        }
        // SAFETY: by the contract.
        unsafe {
            if writes {
                view::output(place, self.view, self.name, self.types, want)
            } else {
                view::optional(place, self.view, self.name, self.types, want)
            }
        }
    }
}

/// What a primitive reads of the batch beside `num_rollouts` and `absent`.
#[derive(Clone, Copy, Default)]
pub struct Reads {
    /// Layout, extents, mask.
    pub tokens: bool,
    pub groups: bool,
    pub in_stats: bool,
    /// `signal[0]` or `step_scores`, and steps.
    pub detector: bool,
    /// Per-rollout streams and the format indicator, for so many further streams.
    pub streams: Option<usize>,
}

/// Checks everything that a primitive is given but its numbers and its workspace.
///
/// # Safety
/// The batch's and the arguments' views are NULL or `passrl_view`s of the caller's memory, of the context's place.
pub unsafe fn call<const I: usize, const O: usize>(
    place: Where,
    b: &passrl_batch,
    reads: Reads,
    inputs: [Given; I],
    outs: [Given; O],
) -> Result<Call<I, O>> {
    if b.reserved0 != 0 {
        return refuse!(PASSRL_ERR_VALUE, "batch.reserved0 is {}; it must be 0", b.reserved0);
    }
    let Some(rollouts) = usize::try_from(b.num_rollouts).ok().filter(|r| *r <= MOST) else {
        return refuse!(PASSRL_ERR_LIMIT, "batch.num_rollouts is {}; it must be from 0 to {MOST}", b.num_rollouts);
    };
    let mut problem = Problem { rollouts, ..Problem::nothing() };
    // SAFETY: the views are the caller's by the contract; likewise below.
    unsafe {
        if reads.tokens {
            tokens(place, b, inputs.iter().chain(&outs), &mut problem)?;
        }
        if reads.groups {
            if !b.group_index.is_null() && b.num_groups == 0 {
                return refuse!(
                    PASSRL_ERR_SHAPE,
                    "batch.num_groups is 0 with batch.group_index; a primitive has no limits to take it from: set it to G"
                );
            }
            (problem.grouping, problem.groups) = batch::grouping(place, b, rollouts, &NO_LIMITS, true)?;
        }
        let line = |view, name| view::optional(place, view, name, view::MASKS, Want::Line(rollouts));
        problem.absent = line(b.absent, "batch.absent")?;
        if reads.in_stats {
            problem.in_stats = line(b.in_stats, "batch.in_stats")?;
        }
        if reads.detector {
            detector(place, b, &mut problem)?;
        }
        if let Some(extra) = reads.streams {
            streams(place, b, extra, &mut problem)?;
        }
    }
    let (mut read, mut written) = ([None; I], [None; O]);
    for (to, given) in read.iter_mut().zip(&inputs) {
        // SAFETY: as above.
        *to = unsafe { given.array(place, &problem, false)? };
    }
    for (to, given) in written.iter_mut().zip(&outs) {
        // SAFETY: as above.
        *to = unsafe { given.array(place, &problem, true)? };
    }
    // What device memory says of lengths the kernels see.
    let longest = if reads.tokens && place == Where::Host { (0..rollouts).map(|i| problem.extent(i).len).max().unwrap_or(0) } else { 0 };
    let call = Call { problem, longest, inputs: read, outputs: written };
    apart(&call, &inputs, &outs)?;
    Ok(call)
}

/// Layout, extents and mask.
///
/// # Safety
/// As `call`.
unsafe fn tokens<'g>(place: Where, b: &passrl_batch, given: impl Iterator<Item = &'g Given>, problem: &mut Problem) -> Result<()> {
    let rollouts = problem.rollouts;
    let packed = match b.layout {
        PASSRL_PACKED => true,
        PASSRL_PADDED => false,
        other => return refuse!(PASSRL_ERR_VALUE, "batch.layout is {other}; it is PASSRL_PACKED (0) or PASSRL_PADDED (1)"),
    };
    let pad_left = match b.pad_side {
        PASSRL_PAD_RIGHT => false,
        PASSRL_PAD_LEFT => true,
        other => return refuse!(PASSRL_ERR_VALUE, "batch.pad_side is {other}; it is PASSRL_PAD_RIGHT (0) or PASSRL_PAD_LEFT (1)"),
    };
    // SAFETY: by the contract.
    unsafe {
        let cu_seqlens = view::optional(place, b.cu_seqlens, "batch.cu_seqlens", view::INTS, Want::Line(rollouts + 1))?;
        let lengths = view::optional(place, b.lengths, "batch.lengths", view::INTS, Want::Line(rollouts))?;
        problem.extents = match (packed, cu_seqlens, lengths) {
            (true, Some(cu_seqlens), None) => Extents::Packed { cu_seqlens },
            (true, None, _) => return refuse!(PASSRL_ERR_NULL, "batch.cu_seqlens is NULL; the packed layout needs it, [{}]", rollouts + 1),
            (true, _, Some(_)) => {
                return refuse!(PASSRL_ERR_CONFLICT, "batch.lengths is given in the packed layout; cu_seqlens says the lengths");
            }
            (false, None, lengths) => Extents::Padded { lengths, pad_left },
            (false, Some(_), _) => return refuse!(PASSRL_ERR_CONFLICT, "batch.cu_seqlens is given in the padded layout; use lengths"),
        };
        // N or T is that of the first token-shaped argument, and the others are held to it.
        let shaped = given
            .filter(|g| g.shape == Shape::Tokens)
            .map(|g| (g.name, g.view))
            .chain([("batch.signal[0]", b.signal[0]), ("batch.mask", b.mask)]);
        let mut found = if !packed && b.row_tokens > 0 { Some(("batch.row_tokens", b.row_tokens)) } else { None };
        for (name, view) in shaped {
            if let (None, Some(view)) = (found, view.as_ref()) {
                found = Some((
                    name,
                    if packed {
                        view.shape[0]
                    } else if view.ndim == 2 {
                        view.shape[1]
                    } else {
                        0
                    },
                ));
            }
        }
        // Each has a token-shaped output; the detector may do without, where the host sees the offsets.
        if found.is_none() && place != Where::Host {
            return refuse!(
                PASSRL_ERR_NULL,
                "chunk_ends, batch.signal[0] and batch.mask are NULL (and batch.row_tokens 0); on CUDA, where the host does not read offsets and lengths, one of them must say how many token slots there are"
            );
        }
        let last = match &problem.extents {
            Extents::Packed { cu_seqlens } if place == Where::Host => cu_seqlens.int(rollouts),
            _ => 0,
        };
        let (name, slots) = found.unwrap_or(("batch.cu_seqlens", last));
        let Ok(slots) = usize::try_from(slots) else {
            return refuse!(PASSRL_ERR_SHAPE, "{name} has {slots} token slots; it must be 0 or more");
        };
        problem.slots = slots;
        offsets::extents(place, &problem.extents, rollouts, slots, &NO_LIMITS, false)?;
        let want = Tokens { place, packed, rollouts, slots }.want();
        problem.mask = view::optional(place, b.mask, "batch.mask", view::MASKS, want)?;
    }
    Ok(())
}

/// What the detector reads: `signal[0]`, or scores; steps.
///
/// # Safety
/// As `call`.
unsafe fn detector(place: Where, b: &passrl_batch, problem: &mut Problem) -> Result<()> {
    if !b.step_marks.is_null() {
        return refuse!(
            PASSRL_ERR_NOT_YET,
            "batch.step_marks is given; this primitive knows dense signals and step_offsets with step_ends: pass NULL"
        );
    }
    let want = Tokens { place, packed: problem.packed(), rollouts: problem.rollouts, slots: problem.slots }.want();
    // SAFETY: by the contract.
    unsafe {
        problem.steps = batch::steps(place, b, problem.rollouts, &NO_LIMITS)?;
        let signal = view::optional(place, b.signal[0], "batch.signal[0]", view::SIGNALS, want)?;
        problem.process = match (signal, b.step_scores.as_ref(), problem.steps) {
            (Some(signal), None, _) => Process::Signal([Some(signal), None, None, None]),
            (None, Some(scores), Some(steps)) => {
                let total = steps.ends.shape[0];
                let streams = if scores.ndim == 2 { usize::try_from(scores.shape[0]).unwrap_or(0).max(1) } else { 1 };
                problem.scores_flat = scores.ndim == 1;
                let want = if scores.ndim == 2 { Want::Grid(streams, total) } else { Want::Line(total) };
                Process::Scores(view::array(place, scores, "batch.step_scores", view::FLOATS, want)?)
            }
            (Some(_), Some(_), _) => {
                return refuse!(PASSRL_ERR_CONFLICT, "batch.signal[0] and batch.step_scores are both given; the detector reads one");
            }
            _ => return refuse!(PASSRL_ERR_NULL, "batch.signal[0] and batch.step_scores are NULL; the detector reads one of them"),
        };
    }
    problem.num_process = 1;
    Ok(())
}

/// Per-rollout streams and the format indicator.
///
/// # Safety
/// As `call`.
unsafe fn streams(place: Where, b: &passrl_batch, extra: usize, problem: &mut Problem) -> Result<()> {
    let line = Want::Line(problem.rollouts);
    // SAFETY: by the contract.
    unsafe {
        problem.rollout_streams[0] = view::optional(place, b.outcome, "batch.outcome", view::FLOATS, line)?;
        problem.rollout_streams[1] = view::optional(place, b.format, "batch.format", view::FLOATS, line)?;
        for (x, view) in b.extra.iter().enumerate() {
            problem.rollout_streams[2 + x] = view::optional(place, *view, "batch.extra", view::FLOATS, line)?;
            if !view.is_null() && x >= extra {
                return refuse!(PASSRL_ERR_CONFLICT, "batch.extra[{x}] is given; config.num_extra is {extra}, set it to {} or more", x + 1);
            }
        }
        problem.format_ok = view::optional(place, b.format_ok, "batch.format_ok", view::MASKS, line)?;
    }
    if problem.format_ok.is_some() && problem.rollout_streams[1].is_none() {
        return refuse!(
            PASSRL_ERR_CONFLICT,
            "batch.format_ok is given without batch.format; a violating rollout's advantage is made of its format reward"
        );
    }
    if problem.rollout_streams.iter().all(Option::is_none) {
        return refuse!(PASSRL_ERR_NULL, "batch has no outcome, format or extra stream; there is nothing to flag");
    }
    Ok(())
}

/// Outputs share no memory with one another nor with an input, but an input of the same type, shape and strides (in place).
fn apart<const I: usize, const O: usize>(call: &Call<I, O>, inputs: &[Given; I], outs: &[Given; O]) -> Result<()> {
    for (o, (out, given)) in call.outputs.iter().zip(outs).enumerate() {
        let Some(out) = out else { continue };
        let name = given.name;
        for (other, g) in call.outputs.iter().zip(outs).skip(o + 1) {
            if other.is_some_and(|a| outputs::touch(out, &a)) {
                return refuse!(PASSRL_ERR_OVERLAP, "{name} and {} share memory; give each its own", g.name);
            }
        }
        for (input, g) in call.inputs.iter().zip(inputs) {
            if input.is_some_and(|a| outputs::touch(out, &a) && !(g.shape == given.shape && outputs::same(out, &a))) {
                return refuse!(PASSRL_ERR_OVERLAP, "{name} and {} share memory; in place means the same type, shape and strides", g.name);
            }
        }
        let mut met = None;
        outputs::inputs(&call.problem, &mut |other, a, _| met = met.or(outputs::touch(out, a).then_some(other)));
        if let Some(other) = met {
            return refuse!(PASSRL_ERR_OVERLAP, "{name} and batch.{other} share memory; give the output its own");
        }
    }
    Ok(())
}

/// The report shares no memory with an output or what a batch gives.
pub fn report_apart<const I: usize, const O: usize>(call: &Call<I, O>, report: Option<&Memory>, outs: &[Given; O]) -> Result<()> {
    let Some(block) = report.map(outputs::block) else { return Ok(()) };
    let written = call.outputs.iter().zip(outs).find(|(out, _)| out.is_some_and(|a| outputs::touch(&a, &block)));
    let mut met = written.map(|(_, given)| ("", given.name));
    outputs::inputs(&call.problem, &mut |other, a, _| met = met.or(outputs::touch(a, &block).then_some(("batch.", other))));
    match met {
        Some((of, other)) => refuse!(PASSRL_ERR_OVERLAP, "report and {of}{other} share memory; give each its own"),
        None => Ok(()),
    }
}

/// The workspace: large enough, aligned, apart from everything else.
pub fn workspace<const I: usize, const O: usize>(call: &Call<I, O>, pointer: *mut c_void, bytes: usize, needed: usize) -> Result<Memory> {
    if bytes < needed {
        return refuse!(PASSRL_ERR_WORKSPACE, "workspace has {bytes} bytes, this call needs {needed}; see passrl_primitive_workspace_size");
    }
    if pointer.is_null() {
        return refuse!(PASSRL_ERR_NULL, "workspace is NULL, this call needs {needed} bytes; see passrl_primitive_workspace_size");
    }
    if !pointer.addr().is_multiple_of(64) {
        return refuse!(PASSRL_ERR_WORKSPACE, "workspace is at {pointer:p}; it must be aligned to 64 bytes");
    }
    let memory = Memory { data: pointer.cast(), bytes: needed };
    let block = outputs::block(&memory);
    let mut met = None;
    let mut see = |array: &Array| met = met.or(outputs::touch(array, &block).then_some(array.data));
    call.outputs.iter().chain(&call.inputs).flatten().for_each(&mut see);
    outputs::inputs(&call.problem, &mut |_, array, _| see(array));
    if let Some(data) = met {
        return refuse!(
            PASSRL_ERR_OVERLAP,
            "workspace of {needed} bytes at {pointer:p} and an array at {data:p} share memory; the workspace is scratch, give it its own"
        );
    }
    Ok(memory)
}

/// Limits of `passrl_primitive_workspace_size`: rollouts, groups, tokens of the longest rollout.
pub fn limits(l: &passrl_limits) -> Result<(usize, usize, usize)> {
    let one = |field: &str, value: i64, most: usize| match usize::try_from(value) {
        Ok(value) if value <= most => Ok(value),
        _ => refuse!(PASSRL_ERR_LIMIT, "limits.{field} is {value}; it must be from 0 to {most}"),
    };
    let or = |value: usize, default: usize| if value == 0 { default } else { value };
    let rollouts = one("rollouts", l.rollouts, MOST)?;
    let groups = or(one("groups", l.groups, MOST)?, rollouts);
    let tokens = one("tokens", l.tokens, 1 << 40)?;
    // A rollout longer than 31 bits is refused by each primitive.
    let longest = or(one("rollout_tokens", l.rollout_tokens, MOST)?, tokens.min(MOST));
    Ok((rollouts, groups, longest))
}

/// A number in [0, 1]: gamma, lam.
pub fn fraction(name: &str, value: f64) -> Result<f64> {
    config::within(name, value, 0.0, 1.0)
}

pub fn exponent(k: f64) -> Result<f64> {
    config::within("k", k, 0.0, 8.0)
}

pub fn lambda(value: f64) -> Result<f64> {
    config::within("opd_lambda", value, -1e6, 1e6)
}

/// The row that says how a stream is standardised.
///
/// # Safety
/// NULL or a `passrl_stream`.
pub unsafe fn stream_row(row: *const passrl_stream) -> Result<Stream> {
    if row.is_null() {
        return refuse!(PASSRL_ERR_NULL, "stream_row is NULL; it must point to a passrl_stream, as a row of passrl_config.streams is");
    }
    // SAFETY: by the contract; natural alignment is not presumed.
    let row = config::stream(format_args!("stream_row"), &unsafe { row.read_unaligned() })?;
    super::estimators::own_set(&row)?;
    Ok(row)
}

/// A configuration that says which divergence.
pub fn divergence(c: &passrl_config) -> Result<Config> {
    let config = config::config(c)?;
    if config.kl_in_reward == KlInReward::None {
        return refuse!(PASSRL_ERR_VALUE, "config.kl_in_reward is none; the divergence is one of k1, k2, k3, abs");
    }
    Ok(config)
}

/// Statistics of streams apart: what `passrl_group_flags` can tell.
pub fn apart_fusion(c: &Config) -> Result<()> {
    if c.fusion != Fusion::Advantage {
        let name = crate::model::config::Choice::name(c.fusion);
        let summed = c.fusion == Fusion::RewardSum;
        let sets = if summed { "whose set is of the sum of the per-rollout streams" } else { "which has one set for process, outcome and format" };
        return refuse!(PASSRL_ERR_CONFLICT, "config.fusion is {name}, {sets}; flags of each stream alone need fusion = advantage");
    }
    super::estimators::early_flags(c)
}

/// Whitening's sums are exact below 2^33 tokens.
pub fn whiten_tokens(problem: &Problem) -> Result<()> {
    let tokens = if problem.packed() { problem.slots } else { problem.slots.saturating_mul(problem.rollouts) };
    if tokens >= 1 << 33 {
        return refuse!(PASSRL_ERR_LIMIT, "batch has {tokens} token slots; exact sums allow fewer than {} in a set", 1u64 << 33);
    }
    Ok(())
}

/// Status and sentence of what was found.
pub fn status(found: &Found) -> i32 {
    let Some(first) = found.first else { return PASSRL_OK };
    let (status, words) = match first.what {
        What::NonFinite => (PASSRL_FINDING_NONFINITE, "is not finite"),
        What::Missing => (PASSRL_FINDING_MISSING, "is NaN where missing = error (set missing = zero or exclude to allow it)"),
        What::BadSteps => (PASSRL_FINDING_BAD_STEPS, "do not fit (they decrease, or lie outside the rollout)"),
    };
    let (argument, rollout, count) = (first.argument, first.rollout, found.count);
    match first.token {
        Some(token) => error::set(format_args!(
            "done, with findings: {argument} {words} at token {token} of rollout {rollout}; {count} rollout(s) have findings"
        )),
        None => error::set(format_args!("done, with findings: {argument} of rollout {rollout} {words}; {count} rollout(s) have findings")),
    }
    status
}

/// Status and sentence of a report on groups whose stream is the caller's `x`.
pub fn group_status(r: &Report) -> i32 {
    let Some(first) = r.first else { return PASSRL_OK };
    let (status, words) = super::report::kind(first.finding);
    if first.rollout >= 0 && first.finding != SINGLETON {
        error::set(format_args!(
            "done, with findings: x of rollout {}, group {}, {words}; {} group(s) are 0",
            first.rollout, first.group, r.bad_groups
        ));
    } else {
        error::set(format_args!("done, with findings: x of group {} {words}; {} group(s) are 0", first.group, r.bad_groups));
    }
    status
}
