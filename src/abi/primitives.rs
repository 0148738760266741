//! The primitives: the stages of a run on their own, on explicit views.
use super::plan::finish;
use super::status::*;
use super::structs;
use super::types::*;
use super::primitives_on_device::{groups_on_device, on_device};
use super::{context, guard};
use crate::backend::cuda::primitives::{self as device, Tokens};
use crate::backend::cuda::primitives_groups::{self as device_groups, Groups};
use crate::backend::primitives as work;
use crate::check::primitives::{self as checked, Given, Reads, Shape};
use crate::check::{self, view};
use crate::error::Result;
use crate::model::array::Array;
use crate::model::batch::{Problem, Process};
use crate::model::context::Memory;
use crate::model::primitives::Call;
use crate::plan::primitives::Workspace;
use crate::refuse;
use std::ffi::c_void;

/// Reads of the primitives on token-shaped arrays.
const TOKENS: Reads = Reads { tokens: true, groups: false, in_stats: false, detector: false, streams: None };
/// Reads of the primitives on groups of rollouts.
const GROUPS: Reads = Reads { tokens: false, groups: true, in_stats: true, detector: false, streams: None };

/// The call's workspace: what it needs, checked.
fn memory<const I: usize, const O: usize>(call: &Call<I, O>, workspace: *mut c_void, bytes: usize) -> Result<(Workspace, Memory)> {
    let rollouts = if call.problem.groups > 0 { call.problem.rollouts } else { 0 };
    let w = Workspace::new(rollouts, call.problem.groups, call.longest);
    Ok((w, checked::workspace(call, workspace, bytes, w.bytes)?))
}

/// Policy, teacher, base as a batch's process.
fn log_probs([policy, teacher, base]: [Option<Array>; 3]) -> Process {
    match (policy, teacher) {
        (Some(policy), Some(teacher)) => Process::LogProbs { policy, teacher, base },
        _ => Process::None,
    }
}

/// Bytes of workspace that are enough for any primitive within these limits (on CUDA see below): `limits.rollouts`, `groups` (0: as rollouts) and `rollout_tokens` (0: as
/// `tokens`) are read. The bytes grow with the longest rollout (52 a token), the rollouts and the groups (4 each), not with the tokens of the batch; a
/// primitive asks for no more than its own batch needs.
///
/// Of every primitive below: the workspace is the caller's, 64-byte aligned, of any content, serves one call at a time and shares memory with
/// no argument. A call runs on the calling thread, allocates nothing, prints nothing, keeps the caller's floating-point mode and does not trust it.
/// `batch` (fill it with `passrl_batch_init`) gives the layout; the fields that a primitive reads are named, every other one is ignored. All of them read
/// `num_rollouts` and `absent`; "the layout" is `layout`, `cu_seqlens` or `lengths` with `pad_side`, `row_tokens`, and `mask`, the scope. N or T is that
/// of the first token-shaped argument. Token-shaped outputs are written whole: 0 out of scope, in the padding and in absent rollouts. Views are borrowed for the
/// call. Inputs f32, bf16, f16 or f64 (rounded to f32 on load), outputs f32, bf16, f16 or f64 (rounded once; a finite value beyond the
/// type's range becomes its largest), unless said otherwise. `stream` must be NULL on the CPU. Bits are those of `passrl_plan_run` for the same stage.
///
/// On CUDA all of them are served, on device memory and in the order of `stream`, capturable, with the bits of the CPU. The workspace then grows with `limits.tokens`, the
/// token slots in all (padded: R * T; 16 bytes each and an eighth), the rollouts and the groups (800 bytes each). The status is 0 where the work was enqueued: what is
/// found in the data is in the outputs alone (such a rollout or group is 0, and where offsets or lengths do not fit all are).
///
/// Any thread; any number of calls at once on one context and batch, each with its own outputs and workspace.
/// Errors: `PASSRL_ERR_NULL`; `PASSRL_ERR_LIMIT` where a limit is negative or above 2^31 - 1 (tokens: 2^40).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn passrl_primitive_workspace_size(
    context: *const passrl_context,
    limits: *const passrl_limits,
    bytes: *mut usize,
) -> passrl_status {
    guard("passrl_primitive_workspace_size", || {
        // SAFETY: live handle and caller's struct by the contract; likewise throughout.
        let (context, limits) = unsafe { (context::borrow(context)?, structs::read(limits, "limits")?) };
        if bytes.is_null() {
            return refuse!(PASSRL_ERR_NULL, "bytes is NULL; it must point to a size_t");
        }
        let (rollouts, groups, longest) = checked::limits(&limits)?;
        let needed = match context.device() {
            Some(_) => device::bytes(rollouts, limits.tokens as usize).max(device_groups::bytes(rollouts, groups)),
            None => Workspace::new(rollouts, groups, longest).bytes,
        };
        // SAFETY: not NULL, writable by the contract.
        unsafe { bytes.write_unaligned(needed) };
        Ok(PASSRL_OK)
    })
}

/// Group statistics and standardisation of a per-rollout value: out = N(x; S), S the x of the rollout's group (arXiv 2606.29296, section 3; docs/formulas.md
/// 2.2). `stream_row` says how, as a row of `passrl_config.streams` does (every center and scale that a plan serves, `ddof`, `epsilon`, `singleton`,
/// `missing`); its `weight` is not applied. Sums are exact integers: the order of rollouts and of groups cannot be seen in the result.
///
/// Reads the groups of `batch` (`group_index` with `num_groups`, `group_offsets` or `group_size`) and `in_stats`: a rollout with 0 is in no set and has a
/// result; an absent one is in no set and has 0. `x` `[R]`, `out` `[R]` (may be `x`: in place; NULL: statistics alone). Each of `count` `[G]` i64 (elements of S),
/// `mean`, `std`, `absmax` `[G]` f64 may be NULL; they are those of the whole set whatever the operator, 0 for an empty or bad one.
///
/// Findings (positive status, the whole group is 0): `PASSRL_FINDING_NONFINITE`, `PASSRL_FINDING_MISSING` (NaN under `missing = error`),
/// `PASSRL_FINDING_SINGLETON` (one element under `singleton = refuse`), `PASSRL_FINDING_TOO_LARGE` (2^17 rollouts or more). Workspace, threads: see
/// `passrl_primitive_workspace_size`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn passrl_group_standardize(
    context: *const passrl_context,
    batch: *const passrl_batch,
    stream_row: *const passrl_stream,
    x: *const passrl_view,
    out: *const passrl_view,
    count: *const passrl_view,
    mean: *const passrl_view,
    std: *const passrl_view,
    absmax: *const passrl_view,
    workspace: *mut c_void,
    workspace_bytes: usize,
    stream: *mut c_void,
) -> passrl_status {
    // SAFETY: live handle, structs and views by the contract; the views' memory is what they say it is.
    guard("passrl_group_standardize", || unsafe {
        let context = context::borrow(context)?;
        let place = context.place();
        let batch = structs::read(batch, "batch")?;
        check::stream(place, stream)?;
        let row = checked::stream_row(stream_row)?;
        if [out, count, mean, std, absmax].iter().all(|view| view.is_null()) {
            return refuse!(PASSRL_ERR_NULL, "out, count, mean, std and absmax are NULL; at least one is wanted");
        }
        let group = |name, view, types| Given::new(name, view, Shape::Groups, types).optional();
        let outputs = [
            Given::rollouts("out", out).optional(),
            group("count", count, view::I64),
            group("mean", mean, view::F64),
            group("std", std, view::F64),
            group("absmax", absmax, view::F64),
        ];
        let call = checked::call(place, &batch, GROUPS, [Given::rollouts("x", x)], outputs)?;
        if let Some(on) = context.device() {
            let mut problem = call.problem;
            problem.rollout_streams[0] = call.inputs[0];
            let which = Groups::Standardize { row: &row, outputs: call.outputs };
            return groups_on_device(on, &which, &call, &problem, std::ptr::null_mut(), workspace, workspace_bytes, stream);
        }
        let (w, memory) = memory(&call, workspace, workspace_bytes)?;
        Ok(checked::group_status(&work::group_standardize(&call, &row, &w, memory)))
    })
}

/// Chunk-by-Value: where the chunks of a process signal end (arXiv 2606.29296, eq. 6, Algorithm 2, the PRM case). A new chunk begins at token t where |u_t - u_(t-1)| >
/// `config.eta`, where a given step ends (`merge_equal_steps` 0) and after an out-of-scope span (`bridge_scope_gaps` 0); `boundary_rule` as in the
/// configuration. Of `config` these fields, and `missing` of row 0 (`zero`, `exclude`), are used; `kind` and `chunk` are not looked at.
///
/// Reads the layout of `batch` and either `signal[0]`, token-shaped f32, bf16 or f16, alone or with `step_offsets`, `step_ends` and `step_begins`, or
/// `step_scores` (the first row) with them. `num_chunks` `[R]` i32 or i64: K. `chunk_ends` token-shaped i32 or i64: chunk j (from 0) of rollout i at token_offset(i) + j
/// (padded: column j): its exclusive end in tokens of the rollout; slots beyond K are left alone. Either may be NULL, not both.
///
/// Findings: `PASSRL_FINDING_NONFINITE`, `PASSRL_FINDING_MISSING` (NaN under `missing = error`): K is what the detector finds, NaN being unequal to everything;
/// `PASSRL_FINDING_BAD_STEPS`: K = 0. `step_marks` is refused (`PASSRL_ERR_NOT_YET`). On CUDA one of `chunk_ends`, `signal[0]`, `mask` (padded: `row_tokens`) must say N or
/// T. Workspace, threads: see `passrl_primitive_workspace_size`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn passrl_chunk_boundaries(
    context: *const passrl_context,
    batch: *const passrl_batch,
    config: *const passrl_config,
    num_chunks: *const passrl_view,
    chunk_ends: *const passrl_view,
    workspace: *mut c_void,
    workspace_bytes: usize,
    stream: *mut c_void,
) -> passrl_status {
    // SAFETY: live handle, structs and views by the contract; the views' memory is what they say it is.
    guard("passrl_chunk_boundaries", || unsafe {
        let context = context::borrow(context)?;
        let (place, simd) = (context.place(), context.simd());
        let (batch, config) = (structs::read(batch, "batch")?, structs::read(config, "config")?);
        check::stream(place, stream)?;
        let config = check::config::config(&config)?;
        if num_chunks.is_null() && chunk_ends.is_null() {
            return refuse!(PASSRL_ERR_NULL, "num_chunks and chunk_ends are NULL; at least one is wanted");
        }
        let outputs = [
            Given::new("num_chunks", num_chunks, Shape::Rollouts, view::INTS).optional(),
            Given::new("chunk_ends", chunk_ends, Shape::Tokens, view::INTS).optional(),
        ];
        let call = checked::call(place, &batch, Reads { detector: true, ..TOKENS }, [], outputs)?;
        if let Some(on) = context.device() {
            return on_device(on, &Tokens::Chunks(&config), &call, &call.problem, call.outputs, workspace, workspace_bytes, stream);
        }
        let (w, memory) = memory(&call, workspace, workspace_bytes)?;
        Ok(checked::status(&work::chunk_boundaries(simd, &call, &config, &w, memory)))
    })
}

/// Discounted return-to-go over the in-scope tokens of each rollout: G_t = r_t + gamma G_(t+1) (arXiv 2606.29296, eqs. 3 and 7 before the division, a chunk
/// a token). Tokens out of scope are skipped: they take no discount. Summed in tiles of 32 positions from the rollout's end (docs/formulas.md 5.5).
///
/// Reads the layout of `batch`. `rewards`, `returns` token-shaped; `returns` may be `rewards` (in place). `gamma` 0 to 1.
///
/// Findings: `PASSRL_FINDING_NONFINITE`: a rollout with a NaN or infinity in scope is 0 everywhere. Workspace, threads: see `passrl_primitive_workspace_size`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn passrl_discounted_returns(
    context: *const passrl_context,
    batch: *const passrl_batch,
    gamma: f64,
    rewards: *const passrl_view,
    returns: *const passrl_view,
    workspace: *mut c_void,
    workspace_bytes: usize,
    stream: *mut c_void,
) -> passrl_status {
    // SAFETY: live handle, structs and views by the contract; the views' memory is what they say it is.
    guard("passrl_discounted_returns", || unsafe {
        let context = context::borrow(context)?;
        let (place, simd) = (context.place(), context.simd());
        let batch = structs::read(batch, "batch")?;
        check::stream(place, stream)?;
        let gamma = checked::fraction("gamma", gamma)?;
        let call = checked::call(place, &batch, TOKENS, [Given::tokens("rewards", rewards)], [Given::tokens("returns", returns)])?;
        if let Some(on) = context.device() {
            let problem = Problem { token_rewards: call.inputs[0], ..call.problem };
            return on_device(on, &Tokens::Returns { gamma }, &call, &problem, [call.outputs[0], None], workspace, workspace_bytes, stream);
        }
        let (w, memory) = memory(&call, workspace, workspace_bytes)?;
        Ok(checked::status(&work::discounted_returns(simd, &call, gamma, &w, memory)))
    })
}

/// Generalised advantage estimation over the in-scope tokens of each rollout (Schulman et al., arXiv 1506.02438; docs/formulas.md 2.5): delta_t = r_t + gamma V_(t+1) - V_t,
/// A_t = delta_t + gamma lam A_(t+1), returns = A + V. Tokens out of scope are skipped; V after the last is `bootstrap` of the rollout, or 0.
///
/// Reads the layout of `batch`. `rewards`, `values` token-shaped; `bootstrap` `[R]` or NULL; `advantages` token-shaped; `returns` token-shaped or NULL. `gamma` and
/// `lam` 0 to 1. An output may be `rewards` or `values` (in place). Summed in tiles, as `passrl_discounted_returns`.
///
/// Findings: `PASSRL_FINDING_NONFINITE`: a rollout with a NaN or infinity in scope, or as bootstrap, is 0 everywhere. Workspace, threads: see
/// `passrl_primitive_workspace_size`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn passrl_gae(
    context: *const passrl_context,
    batch: *const passrl_batch,
    gamma: f64,
    lam: f64,
    rewards: *const passrl_view,
    values: *const passrl_view,
    bootstrap: *const passrl_view,
    advantages: *const passrl_view,
    returns: *const passrl_view,
    workspace: *mut c_void,
    workspace_bytes: usize,
    stream: *mut c_void,
) -> passrl_status {
    // SAFETY: live handle, structs and views by the contract; the views' memory is what they say it is.
    guard("passrl_gae", || unsafe {
        let context = context::borrow(context)?;
        let (place, simd) = (context.place(), context.simd());
        let batch = structs::read(batch, "batch")?;
        check::stream(place, stream)?;
        let (gamma, lam) = (checked::fraction("gamma", gamma)?, checked::fraction("lam", lam)?);
        let inputs =
            [Given::tokens("rewards", rewards), Given::tokens("values", values), Given::rollouts("bootstrap", bootstrap).optional()];
        let outputs = [Given::tokens("advantages", advantages), Given::tokens("returns", returns).optional()];
        let call = checked::call(place, &batch, TOKENS, inputs, outputs)?;
        if let Some(on) = context.device() {
            let problem = Problem { token_rewards: call.inputs[0], values: call.inputs[1], bootstrap: call.inputs[2], ..call.problem };
            return on_device(on, &Tokens::Gae { gamma, lam }, &call, &problem, call.outputs, workspace, workspace_bytes, stream);
        }
        let (w, memory) = memory(&call, workspace, workspace_bytes)?;
        Ok(checked::status(&work::gae(simd, &call, gamma, lam, &w, memory)))
    })
}

/// Divide-Length (arXiv 2606.29296, eq. 7, Algorithm 3): out_j = x_j (K - j + 1)^-k for the j-th of the K in-scope values of each rollout, j from 1: one value
/// a chunk, so x is a chunk list (or, with a mask, one value on a token of each chunk).
///
/// Reads the layout of `batch`. `x`, `out` token-shaped; `out` may be `x` (in place). x in f64 is not rounded on load: returns kept in f64 and then divided have the bits of
/// one run. `k` 0 (off) to 8; the paper takes 0.7 (and 1).
///
/// Findings: `PASSRL_FINDING_NONFINITE`: a rollout with a NaN or infinity in scope is 0 everywhere. Workspace, threads: see `passrl_primitive_workspace_size`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn passrl_divide_length(
    context: *const passrl_context,
    batch: *const passrl_batch,
    k: f64,
    x: *const passrl_view,
    out: *const passrl_view,
    workspace: *mut c_void,
    workspace_bytes: usize,
    stream: *mut c_void,
) -> passrl_status {
    // SAFETY: live handle, structs and views by the contract; the views' memory is what they say it is.
    guard("passrl_divide_length", || unsafe {
        let context = context::borrow(context)?;
        let (place, simd) = (context.place(), context.simd());
        let batch = structs::read(batch, "batch")?;
        check::stream(place, stream)?;
        let k = checked::exponent(k)?;
        let call = checked::call(place, &batch, TOKENS, [Given::tokens("x", x)], [Given::tokens("out", out)])?;
        if let Some(on) = context.device() {
            let problem = Problem { token_rewards: call.inputs[0], ..call.problem };
            return on_device(on, &Tokens::Divide { k }, &call, &problem, [call.outputs[0], None], workspace, workspace_bytes, stream);
        }
        let (w, memory) = memory(&call, workspace, workspace_bytes)?;
        Ok(checked::status(&work::divide_length(simd, &call, k, &w, memory)))
    })
}

/// Signal of on-policy distillation (arXiv 2606.29296, section 4; docs/formulas.md 2.1): OPD, s = logp_teacher - logp_policy; with `logp_base` G-OPD, s = opd_lambda
/// (logp_teacher - logp_base) - (logp_policy - logp_base) (1.25 in the paper; at 1 it is OPD). Formed in f64 from unrounded inputs, rounded to f32, then to
/// the output's type.
///
/// Reads the layout of `batch`; its own `logp_*` fields are not looked at. `logp_policy`, `logp_teacher`, `logp_base` (NULL: OPD) and `out` token-shaped; `out` may be one of
/// the inputs (in place). `opd_lambda` -1e6 to 1e6, checked even where no base is given.
///
/// Findings: `PASSRL_FINDING_NONFINITE`: a rollout whose signal is NaN or infinite in scope is 0 everywhere. Workspace, threads: see
/// `passrl_primitive_workspace_size`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn passrl_opd_signal(
    context: *const passrl_context,
    batch: *const passrl_batch,
    opd_lambda: f64,
    logp_policy: *const passrl_view,
    logp_teacher: *const passrl_view,
    logp_base: *const passrl_view,
    out: *const passrl_view,
    workspace: *mut c_void,
    workspace_bytes: usize,
    stream: *mut c_void,
) -> passrl_status {
    // SAFETY: live handle, structs and views by the contract; the views' memory is what they say it is.
    guard("passrl_opd_signal", || unsafe {
        let context = context::borrow(context)?;
        let (place, simd) = (context.place(), context.simd());
        let batch = structs::read(batch, "batch")?;
        check::stream(place, stream)?;
        let lambda = checked::lambda(opd_lambda)?;
        let inputs = [
            Given::tokens("logp_policy", logp_policy),
            Given::tokens("logp_teacher", logp_teacher),
            Given::tokens("logp_base", logp_base).optional(),
        ];
        let call = checked::call(place, &batch, TOKENS, inputs, [Given::tokens("out", out)])?;
        if let Some(on) = context.device() {
            let problem = Problem { process: log_probs(call.inputs), num_process: 1, ..call.problem };
            return on_device(on, &Tokens::Opd { lambda }, &call, &problem, [call.outputs[0], None], workspace, workspace_bytes, stream);
        }
        let (w, memory) = memory(&call, workspace, workspace_bytes)?;
        Ok(checked::status(&work::opd_signal(simd, &call, lambda, &w, memory)))
    })
}

/// Masked whitening over the in-scope tokens of the batch (docs/formulas.md 2.6): out = (x - mean) inv, from exact sums of x rounded to f32. Of `config` the fields
/// `whiten_ddof`, `whiten_epsilon`, `whiten_epsilon_mode`, `whiten_shift` (0: the mean is added back) and `fill_padding` are used; `whiten` is taken as
/// `tokens` whatever it says. All values equal, or one alone: the deviation counts as 0.
///
/// Reads the layout of `batch` and `in_stats`: a rollout with 0 is whitened and counts for nothing. `x`, `out` token-shaped; `out` may be `x` (in place). Fewer than
/// 2^33 token slots.
///
/// Findings: `PASSRL_FINDING_NONFINITE`: a rollout with a NaN or infinity in scope is 0 everywhere and counts for nothing. Workspace, threads: see
/// `passrl_primitive_workspace_size`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn passrl_whiten(
    context: *const passrl_context,
    batch: *const passrl_batch,
    config: *const passrl_config,
    x: *const passrl_view,
    out: *const passrl_view,
    workspace: *mut c_void,
    workspace_bytes: usize,
    stream: *mut c_void,
) -> passrl_status {
    // SAFETY: live handle, structs and views by the contract; the views' memory is what they say it is.
    guard("passrl_whiten", || unsafe {
        let context = context::borrow(context)?;
        let (place, simd) = (context.place(), context.simd());
        let (batch, config) = (structs::read(batch, "batch")?, structs::read(config, "config")?);
        check::stream(place, stream)?;
        let config = check::config::config(&config)?;
        let reads = Reads { in_stats: true, ..TOKENS };
        let call = checked::call(place, &batch, reads, [Given::tokens("x", x)], [Given::tokens("out", out)])?;
        checked::whiten_tokens(&call.problem)?;
        if let Some(on) = context.device() {
            let problem = Problem { token_rewards: call.inputs[0], ..call.problem };
            return on_device(on, &Tokens::Whiten(&config), &call, &problem, [call.outputs[0], None], workspace, workspace_bytes, stream);
        }
        let (w, memory) = memory(&call, workspace, workspace_bytes)?;
        Ok(checked::status(&work::whiten(simd, &call, &config, &w, memory)))
    })
}

/// Flags of the groups from the per-rollout streams alone, so that dead groups (every reward equal, all violating) are dropped before a teacher or a PRM is
/// run: no process signal and no token is looked at, whatever `config.kind` is. Flags and report are those of `passrl_plan_run` with `kind = none`, but that
/// scope is not known (`PASSRL_ROLLOUT_NO_SCOPE` for absent rollouts only) and that `PASSRL_ROLLOUT_NO_STREAM` is set for `kind = none` only.
///
/// Of `config` the rows of `outcome`, `format` and the `num_extra` further streams are used. Settings whose flags need more than a stream's values as they are, are refused
/// (`PASSRL_ERR_CONFLICT`): a `fusion` other than `advantage`; `kl_in_reward` with a `kl_coef` and `kl_place = outcome`; of those rows `center = length_weighted`,
/// `count_by = step` and a finite `clip_value`. Reads the groups of `batch`, `outcome`,
/// `format`, `extra`, `format_ok` and `in_stats`. `group_flags` `[G, PASSRL_MAX_STREAMS]` i32 (columns as `streams`), `rollout_flags` `[R]` i32 or NULL. `report` NULL, or
/// a report (`passrl_report_init`) that is overwritten: counts that need tokens are 0. On CUDA it is device memory, as in `passrl_outputs.report`.
///
/// Findings: as `passrl_group_standardize`, named by stream. Workspace, threads: see `passrl_primitive_workspace_size`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn passrl_group_flags(
    context: *const passrl_context,
    batch: *const passrl_batch,
    config: *const passrl_config,
    group_flags: *const passrl_view,
    rollout_flags: *const passrl_view,
    report: *mut passrl_report,
    workspace: *mut c_void,
    workspace_bytes: usize,
    stream: *mut c_void,
) -> passrl_status {
    // SAFETY: live handle, structs and views by the contract; the views' memory is what they say it is.
    guard("passrl_group_flags", || unsafe {
        let context = context::borrow(context)?;
        let place = context.place();
        let (batch, config) = (structs::read(batch, "batch")?, structs::read(config, "config")?);
        check::stream(place, stream)?;
        let names = check::config::names(&config)?;
        let config = check::config::config(&config)?;
        checked::apart_fusion(&config)?;
        let report_memory = check::outputs::report(place, report, "report")?;
        let outputs = [
            Given::new("group_flags", group_flags, Shape::GroupStreams, view::I32),
            Given::new("rollout_flags", rollout_flags, Shape::Rollouts, view::I32).optional(),
        ];
        let call = checked::call(place, &batch, Reads { streams: Some(config.num_extra), ..GROUPS }, [], outputs)?;
        checked::report_apart(&call, report_memory.as_ref(), &outputs)?;
        if let Some(on) = context.device() {
            let which = Groups::Flags { config: &config, outputs: call.outputs, report: report.addr() as u64 };
            return groups_on_device(on, &which, &call, &call.problem, report, workspace, workspace_bytes, stream);
        }
        let (w, memory) = memory(&call, workspace, workspace_bytes)?;
        if let Some(report) = &report_memory {
            check::apart(&memory, "workspace", report, "report")?;
        }
        finish(report, &work::group_flags(&call, &config, &w, memory), &names)
    })
}

/// KL in the reward: out = rewards - kl_coef KL(policy, reference), token by token, as a run takes it with `kl_place = reward`. Of `config` the fields
/// `kl_in_reward` (not none), `kl_coef`, `kl_log_ratio_clamp` and `kl_clamp` are used. The divergence is formed in f64 and rounded to f32.
///
/// Reads the layout of `batch`; its own `logp_*` fields are not looked at. `logp_policy`, `logp_reference`, `rewards` (NULL: 0) and `out` token-shaped; `out` may be
/// one of the inputs (in place).
///
/// Findings: `PASSRL_FINDING_NONFINITE`: a rollout with a value in scope that is NaN or infinite is 0 everywhere. Workspace, threads: see
/// `passrl_primitive_workspace_size`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn passrl_kl_in_reward(
    context: *const passrl_context,
    batch: *const passrl_batch,
    config: *const passrl_config,
    logp_policy: *const passrl_view,
    logp_reference: *const passrl_view,
    rewards: *const passrl_view,
    out: *const passrl_view,
    workspace: *mut c_void,
    workspace_bytes: usize,
    stream: *mut c_void,
) -> passrl_status {
    // SAFETY: live handle, structs and views by the contract; the views' memory is what they say it is.
    guard("passrl_kl_in_reward", || unsafe {
        let context = context::borrow(context)?;
        let (place, simd) = (context.place(), context.simd());
        let batch = structs::read(batch, "batch")?;
        check::stream(place, stream)?;
        let config = checked::divergence(&structs::read(config, "config")?)?;
        let inputs = [
            Given::tokens("logp_policy", logp_policy),
            Given::tokens("logp_reference", logp_reference),
            Given::tokens("rewards", rewards).optional(),
        ];
        let call = checked::call(place, &batch, TOKENS, inputs, [Given::tokens("out", out)])?;
        if let Some(on) = context.device() {
            let problem = Problem { reference: call.inputs[0].zip(call.inputs[1]), token_rewards: call.inputs[2], ..call.problem };
            return on_device(on, &Tokens::Kl(&config), &call, &problem, [call.outputs[0], None], workspace, workspace_bytes, stream);
        }
        let (w, memory) = memory(&call, workspace, workspace_bytes)?;
        Ok(checked::status(&work::kl_in_reward(simd, &call, &config, &w, memory)))
    })
}
