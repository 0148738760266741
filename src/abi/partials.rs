//! Statistics in phases: a batch in micro-batches, in any order, gives the bits of one call on the whole batch.
use super::guard;
use super::plan::{advantages_shape, borrow, finish};
use super::status::*;
use super::structs;
use super::types::*;
use crate::error::Result;
use crate::model::batch::Problem;
use crate::model::context::Memory;
use crate::plan::partials::Stage;
use crate::{backend, check, refuse};
use std::ffi::c_void;

/// The plan behind a handle, if its sets can be taken in pieces.
///
/// # Safety
/// As `borrow`.
unsafe fn in_pieces<'a>(plan: *const passrl_plan) -> Result<&'a passrl_plan> {
    // SAFETY: passed on.
    let plan = unsafe { borrow(plan)? };
    if plan.comm.is_some() {
        return refuse!(PASSRL_ERR_CONFLICT, "plan has a collective, which reduces its statistics within passrl_plan_run; for partials make a plan without one");
    }
    Ok(plan)
}

/// Have all pieces come that phase `phase` needs, those of this call among them?
///
/// # Safety
/// The buffer is this call's.
unsafe fn in_whole(plan: &passrl_plan, phase: usize, problem: &Problem, buffer: Memory) -> Result<()> {
    // (What lies on a device the kernels see.)
    let (Some(layout), true) = (&plan.inner.partials.pieces, phase > 0 && plan.device.is_none()) else { return Ok(()) };
    // SAFETY: by the caller's word.
    let rows = unsafe { layout.table(buffer) };
    check::pieces::table(rows, &plan.inner.limits)?;
    check::pieces::known(rows, problem, &plan.inner.limits)
}

/// Are the groups of this call whole in it, where they must be? Every call has added its sums.
fn whole(plan: &passrl_plan, phase: usize, problem: &Problem, buffer: Memory, memory: Memory) -> Result<()> {
    let p = &plan.inner.partials;
    // (What lies on a device the kernels see.)
    if p.claims.count == 0 || plan.device.is_some() || (0..p.phases.min(phase)).all(|before| p.stage(before) != Stage::Sums) {
        return Ok(());
    }
    match backend::split_group(&plan.context, &plan.inner, problem, buffer, memory) {
        Some(found) => check::ranks::whole_group(&plan.inner.config, found.group, found.calls, found.here, found.all),
        None => Ok(()),
    }
}

/// Are the phases given in their order? `phase`: that of an add; all of them: of `passrl_plan_apply`.
///
/// # Safety
/// The buffer is this call's, or (apply) only read.
unsafe fn in_order(plan: &passrl_plan, phase: usize, problem: &Problem, buffer: Memory) -> Result<()> {
    // (What lies on a device the kernels see.)
    if plan.device.is_some() {
        return Ok(());
    }
    let p = &plan.inner.partials;
    // SAFETY: by the caller's word.
    let given = unsafe { p.given(buffer) };
    if phase == p.phases { check::phases::complete(&given[..phase], problem) } else { check::phases::add(&given[..p.phases], phase, problem) }
}

/// Number of phases of the statistics: 2 (maxima, sums); 2 more where batch whitening follows; where rollouts come in pieces one before (what stands at their edges) and
/// one before the whitening (tiles of the scan), where a rollout's value in a set is a sum over its tokens (`kl_place = outcome`, `pool = rollouts`) one more after the edges, for `kind = kl` with `chunk = by_value` two (chunks, tiles). Phase p may begin once phase p - 1 has seen every micro-batch.
/// Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn passrl_plan_phases(plan: *const passrl_plan, phases: *mut i32) -> passrl_status {
    guard("passrl_plan_phases", || {
        // SAFETY: a live handle by the contract.
        let plan = unsafe { in_pieces(plan)? };
        if phases.is_null() {
            return refuse!(PASSRL_ERR_NULL, "phases is NULL; it must point to an int32_t");
        }
        // SAFETY: not NULL, writable by the contract.
        unsafe { phases.write_unaligned(plan.inner.partials.phases as i32) };
        Ok(PASSRL_OK)
    })
}

/// Bytes of a partials buffer of this plan. Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn passrl_partials_size(plan: *const passrl_plan, bytes: *mut usize) -> passrl_status {
    guard("passrl_partials_size", || {
        // SAFETY: a live handle by the contract.
        let plan = unsafe { in_pieces(plan)? };
        if bytes.is_null() {
            return refuse!(PASSRL_ERR_NULL, "bytes is NULL; it must point to a size_t");
        }
        // SAFETY: not NULL, writable by the contract.
        unsafe { bytes.write_unaligned(plan.inner.partials.bytes) };
        Ok(PASSRL_OK)
    })
}

/// This family refuses a plan that has a collective. With `step_sets = step_group` or `token_baseline` a group's rollouts must be in one micro-batch, the same in every phase (`PASSRL_ERR_CONFLICT`
/// once all have added their sums; on CUDA, where the host does not see it, of the report of passrl_plan_apply: `PASSRL_FOUND_COLLECTIVE` with `PASSRL_RANKS_GROUPS`, and nothing else is written).
///
/// Makes the buffer (8-byte aligned, `bytes` at least `passrl_partials_size`) an empty one of this plan. The buffer is position-independent, begins with the
/// plan's fingerprint and may be copied, saved and reloaded. The caller's memory; one call on it at a time. Of a CUDA plan it is device memory, here and below: its bytes are
/// those of a CPU plan's, so that either may be copied to the other; this function then waits for its copies, and of later calls `passrl_partials_merge` alone looks at the header.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn passrl_partials_init(plan: *const passrl_plan, buffer: *mut c_void, bytes: usize) -> passrl_status {
    guard("passrl_partials_init", || {
        // SAFETY: a live handle; `bytes` writable bytes by the contract.
        unsafe {
            let plan = in_pieces(plan)?;
            let memory = check::memory(buffer, bytes, plan.inner.partials.bytes, 8, "buffer")?;
            match &plan.device {
                Some(device) => device.partials_init(&plan.inner, memory)?,
                None => plan.inner.partials.init(memory),
            }
        }
        Ok(PASSRL_OK)
    })
}

/// Adds a micro-batch's share of phase `phase` to the buffer. Every micro-batch once a phase, in any order; the group numbers of `batch` are those of the whole batch
/// (`group_index`). Workspace and `stream` as in `passrl_plan_run`. Findings are kept in the buffer and told by `passrl_plan_apply`.
///
/// The buffer counts the rollouts (or pieces) that each phase has been given, in a section of the phase: `PASSRL_ERR_CONFLICT` where some come to a phase after a later one
/// has begun, or while the one before has been given none. On CUDA the report of `passrl_plan_apply` says so: `PASSRL_FOUND_COLLECTIVE` with `PASSRL_RANKS_PHASES`, and
/// nothing else is written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn passrl_partials_add(
    plan: *const passrl_plan,
    phase: i32,
    batch: *const passrl_batch,
    buffer: *mut c_void,
    buffer_bytes: usize,
    workspace: *mut c_void,
    workspace_bytes: usize,
    stream: *mut c_void,
) -> passrl_status {
    guard("passrl_partials_add", || {
        // SAFETY: live handle, structs, views and buffers by the contract.
        unsafe {
            let plan = in_pieces(plan)?;
            let batch = structs::read(batch, "batch")?;
            check::stream(plan.place(), stream)?;
            let phase = check::phase(phase, plan.inner.partials.phases)?;
            let problem = check::batch::problem(plan.place(), &batch, &plan.inner.config, &plan.inner.limits, None)?;
            let partials = check::partials(plan.place(), buffer, buffer_bytes, plan.inner.partials.bytes, &plan.inner.partials.header(), "buffer")?;
            let memory = check::memory(workspace, workspace_bytes, plan.workspace_bytes(), 64, "workspace")?;
            check::apart(&memory, "workspace", &partials, "buffer")?;
            check::outputs::lent(&memory, "workspace", None, &problem)?;
            check::outputs::lent(&partials, "buffer", None, &problem)?;
            in_whole(plan, phase, &problem, partials)?;
            in_order(plan, phase, &problem, partials)?;
            whole(plan, phase, &problem, partials, memory)?;
            match &plan.device {
                Some(device) => device.partials_add(&plan.inner, phase, &problem, partials, memory, stream)?,
                None => {
                    backend::partials_add(&plan.context, &plan.inner, phase, &problem, partials, memory);
                    plan.inner.partials.count_given(partials, phase, problem.units());
                }
            }
        }
        Ok(PASSRL_OK)
    })
}

/// Adds the share of the latest phase that `from` has to that of buffer `into` (of the same plan or one of equal configuration and limits). What `from` has of the phases
/// before must be what `into` has, to the byte: merge after each phase, and begin the next one with copies of the sum; else `PASSRL_ERR_CONFLICT`, and nothing is added. An empty `into` becomes what `from` is.
/// One call on `into` at a time. On CUDA it waits, and adds on the host: all work on both must be done.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn passrl_partials_merge(
    plan: *const passrl_plan,
    into: *mut c_void,
    into_bytes: usize,
    from: *const c_void,
    from_bytes: usize,
) -> passrl_status {
    guard("passrl_partials_merge", || {
        // SAFETY: live handle and buffers by the contract.
        unsafe {
            let plan = in_pieces(plan)?;
            let target = check::partials(plan.place(), into, into_bytes, plan.inner.partials.bytes, &plan.inner.partials.header(), "into")?;
            let source = check::partials(plan.place(), from.cast_mut(), from_bytes, plan.inner.partials.bytes, &plan.inner.partials.header(), "from")?;
            if std::ptr::eq(into.cast_const(), from) {
                return refuse!(PASSRL_ERR_OVERLAP, "into and from are the same buffer; a buffer is not added to itself");
            }
            check::apart(&target, "into", &source, "from")?;
            match &plan.device {
                Some(device) => {
                    for (memory, argument) in [(target, "into"), (source, "from")] {
                        check::partials_header(&device.partials_header(memory)?, &plan.inner.partials.header(), argument)?;
                    }
                    check::phases::merged(device.partials_merge(&plan.inner, target, source)?)?;
                }
                None => check::phases::merged(plan.inner.partials.merge(target, source))?,
            }
        }
        Ok(PASSRL_OK)
    })
}

/// Tells the sections of phase `phase` that an all-reduce must combine: at most `capacity` are written to `sections`, `*count` gets their number (`sections` NULL with
/// capacity 0 asks for it). Reduced in place after every rank's `passrl_partials_add` of the phase, each rank's buffer is the whole batch's. Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn passrl_partials_layout(
    plan: *const passrl_plan,
    phase: i32,
    sections: *mut passrl_section,
    capacity: usize,
    count: *mut usize,
) -> passrl_status {
    guard("passrl_partials_layout", || {
        // SAFETY: a live handle by the contract.
        let plan = unsafe { in_pieces(plan)? };
        let phase = check::phase(phase, plan.inner.partials.phases)?;
        let all = plan.inner.partials.sections(phase);
        if count.is_null() {
            return refuse!(PASSRL_ERR_NULL, "count is NULL; it must point to a size_t");
        }
        if capacity != 0 && sections.is_null() {
            return refuse!(PASSRL_ERR_NULL, "sections is NULL with capacity {capacity}; pass capacity 0 to ask for the count");
        }
        for (i, s) in all.iter().take(capacity).enumerate() {
            let section = passrl_section { offset: s.offset as u64, count: s.count as u64, dtype: s.dtype, op: s.op };
            // SAFETY: i < capacity elements are writable by the contract.
            unsafe { sections.add(i).write_unaligned(section) };
        }
        // SAFETY: not NULL, writable by the contract.
        unsafe { count.write_unaligned(all.len()) };
        Ok(PASSRL_OK)
    })
}

/// Shapes a slice of the batch from the complete statistics in `buffer`: outputs, report and status as `passrl_plan_run`, to the bit those of one call on the whole batch.
/// `PASSRL_ERR_CONFLICT` where the buffer's phases have not been given as many rollouts (or pieces) each, or none though the slice has some (on CUDA: see `passrl_partials_add`).
/// With `strict` a slice that has findings, or rollouts of a group that has some elsewhere, is refused (`PASSRL_ERR_DATA`), and nothing of it is written; other slices are calls of their own.
/// `buffer` is read only; several calls on it may run at once, each with its own workspace and outputs.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn passrl_plan_apply(
    plan: *const passrl_plan,
    batch: *const passrl_batch,
    buffer: *const c_void,
    buffer_bytes: usize,
    outputs: *const passrl_outputs,
    workspace: *mut c_void,
    workspace_bytes: usize,
    stream: *mut c_void,
) -> passrl_status {
    guard("passrl_plan_apply", || {
        // SAFETY: live handle, structs, views and buffers by the contract.
        unsafe {
            let plan = in_pieces(plan)?;
            let batch = structs::read(batch, "batch")?;
            let outputs = structs::read(outputs, "outputs")?;
            check::stream(plan.place(), stream)?;
            let problem = check::batch::problem(plan.place(), &batch, &plan.inner.config, &plan.inner.limits, advantages_shape(&outputs))?;
            let sinks = check::outputs::outputs(plan.place(), &outputs, &problem)?;
            let report = check::outputs::report_memory(plan.place(), outputs.report);
            check::outputs::outputs_apart(&sinks, report.as_ref(), &problem)?;
            let partials = check::partials(plan.place(), buffer.cast_mut(), buffer_bytes, plan.inner.partials.bytes, &plan.inner.partials.header(), "buffer")?;
            let memory = check::memory(workspace, workspace_bytes, plan.workspace_bytes(), 64, "workspace")?;
            check::apart(&memory, "workspace", &partials, "buffer")?;
            check::outputs::lent(&memory, "workspace", Some(&sinks), &problem)?;
            check::outputs::lent(&partials, "buffer", Some(&sinks), &problem)?;
            if let Some(report) = report {
                check::apart(&memory, "workspace", &report, "outputs.report")?;
                check::apart(&partials, "buffer", &report, "outputs.report")?;
            }
            in_whole(plan, plan.inner.partials.phases, &problem, partials)?;
            in_order(plan, plan.inner.partials.phases, &problem, partials)?;
            whole(plan, plan.inner.partials.phases, &problem, partials, memory)?;
            if plan.inner.config.strict {
                // (Refused with a device.)
                check::report::strict(&backend::look_at_slice(&plan.context, &plan.inner, &problem, partials, memory))?;
            }
            match &plan.device {
                Some(device) => device.apply(&plan.inner, &problem, partials, &sinks, memory, stream).map(|()| PASSRL_OK),
                None => finish(outputs.report, &backend::apply(&plan.context, &plan.inner, &problem, partials, &sinks, memory), &plan.inner.names),
            }
        }
    })
}
