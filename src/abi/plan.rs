//! Plans: validated once, run many times.
use super::guard;
use super::status::*;
use super::ranks::Comm;
use super::structs;
use super::types::*;
use super::{context, util};
use crate::error::Result;
use crate::model::batch::Problem;
use crate::model::context::{Memory, Where};
use crate::model::names::StreamNames;
use crate::model::outputs::Outputs;
use crate::model::report::Report;
use crate::plan::Plan;
use crate::backend::OnDevice;
use crate::{backend, check, refuse};
use std::ffi::{c_char, c_void};
use std::sync::Arc;

/// The plan behind a handle.
///
/// # Safety
/// NULL or a live handle.
pub unsafe fn borrow<'a>(plan: *const passrl_plan) -> Result<&'a passrl_plan> {
    // SAFETY: a live handle by the contract.
    match unsafe { plan.as_ref() } {
        Some(plan) => Ok(plan),
        None => refuse!(PASSRL_ERR_NULL, "plan is NULL; make one with passrl_plan_create"),
    }
}

/// Writes the report, if one is wanted, and turns it into the run's status. `names`: of the streams, for its sentence.
///
/// # Safety
/// `target` is NULL or a report of `struct_size` bytes (its size field set).
pub unsafe fn finish(target: *mut passrl_report, report: &Report, names: &StreamNames) -> Result<i32> {
    let report = &check::report::from_model(report);
    if !target.is_null() {
        // SAFETY: by the contract; `structs::read` has accepted the size before the run.
        unsafe {
            let size = target.cast::<u32>().read_unaligned();
            structs::write(target, size, *report, "outputs.report")?;
        }
    }
    Ok(check::report::status_of(report, names))
}

/// Dimensions and shape of the advantages, from which a batch without token-shaped inputs has its N or T.
///
/// # Safety
/// The view is NULL or a `passrl_view`.
pub unsafe fn advantages_shape(outputs: &passrl_outputs) -> Option<(i32, [i64; 2])> {
    // SAFETY: by the contract.
    unsafe { outputs.advantages.as_ref() }.map(|view| (view.ndim, view.shape))
}

/// A plan on its own, its context's threads started, its part in device memory made. `rank`: this rank and the number of ranks.
///
/// # Safety
/// As `passrl_plan_create`.
unsafe fn make(
    context: *const passrl_context,
    config: *const passrl_config,
    limits: *const passrl_limits,
    rank: Option<(i32, i32)>,
) -> Result<(Plan, Option<OnDevice>)> {
    // SAFETY: live handle and caller's structs by the contract.
    let (context, config, limits) = unsafe { (context::borrow(context)?, structs::read(config, "config")?, structs::read(limits, "limits")?) };
    let names = check::config::names(&config)?;
    let config = check::config::config(&config)?;
    let limits = check::config::limits(&limits, &config)?;
    check::served(context.place(), &config)?;
    let mut plan = Plan::create(config, limits, context.threads(), context.simd(), context.tables())?;
    plan.names = names;
    match rank {
        Some((rank, size)) => plan.spread(rank, size),
        // One call takes the phases one after the other, as the only rank.
        None if plan.partials.pieces.is_some() && !context.is_cuda() => plan.spread(0, 0),
        None => (),
    }
    if let (Some(ranks), true) = (&mut plan.ranks, context.is_cuda()) {
        ranks.send_all();
    }
    context.start_threads()?;
    let device = context.load(&plan)?;
    Ok((plan, device))
}

impl passrl_plan {
    pub fn place(&self) -> Where {
        self.context.place()
    }

    /// Bytes of workspace of a call, in the context's memory.
    pub fn workspace_bytes(&self) -> usize {
        self.device.as_ref().map_or(self.inner.workspace.bytes, |device| device.workspace_bytes())
    }
}

/// Makes a plan: validates the configuration against the limits, decides everything, allocates what it will ever need on the host (tables; the
/// context's threads start with its first plan that may use them). On success `*plan` is a new handle for `passrl_plan_destroy`. `context`, `config`,
/// `limits` and `collective` are read during the call; the plan keeps what it needs of them. Any thread.
///
/// `collective`: NULL, or the all-reduce of the ranks over which groups are spread; the plan is then for them and `passrl_plan_run` is called by all. Every rank must call
/// this function, with the same configuration and limits (each of them at least any rank's share): one all-reduce compares them. Where they differ, or a
/// rank's arguments are refused, no rank gets a plan: `PASSRL_ERR_COLLECTIVE`, on the rank at fault its own refusal. Where configurations differ a second all-reduce finds out in
/// which field, and the sentence names it. With `step_sets = step_group` or `token_baseline` all rollouts of a group must be on one rank: a run in which they are not is refused on
/// every rank (`PASSRL_ERR_CONFLICT`; on CUDA, where the host does not see it, by the report). On CUDA the words to compare are copied to device memory and back, and waited for; the plan
/// keeps device memory of its largest message.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn passrl_plan_create(
    context: *const passrl_context,
    config: *const passrl_config,
    limits: *const passrl_limits,
    collective: *const passrl_collective,
    plan: *mut *mut passrl_plan,
) -> passrl_status {
    guard("passrl_plan_create", || {
        let comm = match collective.is_null() {
            true => None,
            // SAFETY: a caller's struct by the contract.
            false => Some(unsafe { Comm::read(collective)? }),
        };
        if let Some(comm) = &comm {
            // SAFETY: NULL or a live handle by the contract; NULL is refused below, where the others are told.
            comm.suits(unsafe { context.as_ref() }.is_some_and(|c| c.inner.is_cuda()))?;
        }
        // A refusal of any of them is told to the other ranks.
        let made = match plan.is_null() {
            true => refuse!(PASSRL_ERR_NULL, "plan is NULL; it must point to a passrl_plan *"),
            // SAFETY: live handle and caller's structs by the contract.
            false => unsafe { make(context, config, limits, comm.as_ref().map(Comm::place)) },
        };
        let (inner, device, comm) = match comm {
            None => made.map(|(plan, device)| (plan, device, None))?,
            Some(comm) => {
                // SAFETY: NULL or a live handle, as above.
                let context = unsafe { context.as_ref() }.map(|c| &*c.inner);
                comm.agree(context, made).map(|(plan, device, comm)| (plan, device, Some(comm)))?
            }
        };
        // SAFETY: a live handle, as above.
        let context = Arc::clone(unsafe { context::borrow(context)? });
        // SAFETY: not NULL, writable by the contract.
        unsafe { plan.write(Box::into_raw(Box::new(passrl_plan { inner, device, comm, context }))) };
        Ok(PASSRL_OK)
    })
}

/// Destroys a plan. NULL is a no-op. No run of it may be under way.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn passrl_plan_destroy(plan: *mut passrl_plan) {
    guard("passrl_plan_destroy", || {
        if !plan.is_null() {
            // SAFETY: a handle of passrl_plan_create, given back once, by the contract.
            drop(unsafe { Box::from_raw(plan) });
        }
        Ok(PASSRL_OK)
    });
}

/// Bytes of workspace that a run within the limits needs (0 is possible), on CUDA of device memory. The workspace is the caller's, 64-byte aligned, of any content, and
/// serves one call at a time (on CUDA: until the stream's work is done). Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn passrl_plan_workspace_size(plan: *const passrl_plan, bytes: *mut usize) -> passrl_status {
    guard("passrl_plan_workspace_size", || {
        // SAFETY: a live handle by the contract.
        let plan = unsafe { borrow(plan)? };
        if bytes.is_null() {
            return refuse!(PASSRL_ERR_NULL, "bytes is NULL; it must point to a size_t");
        }
        // SAFETY: not NULL, writable by the contract.
        unsafe { bytes.write_unaligned(plan.workspace_bytes()) };
        Ok(PASSRL_OK)
    })
}

/// Describes a plan in text: stages, reductions, bytes of workspace and partials. Arguments as `passrl_context_describe`. Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn passrl_plan_describe(
    plan: *const passrl_plan,
    buffer: *mut c_char,
    capacity: usize,
    needed: *mut usize,
) -> passrl_status {
    guard("passrl_plan_describe", || {
        // SAFETY: a live handle and the caller's buffer by the contract.
        unsafe {
            let plan = borrow(plan)?;
            let text = plan.device.as_ref().map_or_else(|| plan.inner.describe(), |device| device.describe(&plan.inner));
            util::put_text(&text, buffer, capacity, needed)
        }
    })
}

/// Shapes one batch: reads it, writes the outputs, returns when done. No allocation, no file, no output, no lock beside those of the context's
/// threads; the caller's floating-point mode is kept and not trusted. `stream` must be NULL on the CPU.
///
/// On CUDA it puts the work on `stream` (a `CUstream` of the context's; NULL: the legacy default stream) and returns: kernels and memsets alone, no allocation, no
/// synchronisation, no copy, the caller's current context as it was; it may be captured into a graph and replayed with new data in the same memory, as the
/// launches follow from limits and shapes alone. All memory, the workspace's and the report's too, lies on the context's device and stays untouched until the work is
/// done. The host does not see what offsets, lengths and indices say: the kernels look, never read or write beyond the views, and tell
/// (`PASSRL_FOUND_BAD_OFFSETS`) in the report alone, with all other findings: the status is 0 where the work was enqueued. `strict` is refused.
///
/// Returns 0; a positive status where the data has findings (bad groups get advantage 0, the report says which); a negative one where an argument
/// is refused: nothing was written. May run beside other calls on the same plan and batch, each with its own workspace and outputs.
///
/// Of a plan with a collective every rank calls this, each with its share of the rollouts (none is legal; one call at a time), groups numbered as in the whole batch
/// (`group_index`, or `group_offsets` over all groups): outputs are to the bit those of one call on the whole batch, statistics those of all ranks, the report that
/// of the share. `PASSRL_ERR_COLLECTIVE`, nothing written: the all-reduce failed, another rank's arguments are refused (it still takes part in the first
/// message), or the ranks run different plans, different calls or batches that give different inputs.
///
/// On CUDA the reductions are in the order of `stream`, between the kernels, so that a run with them can be captured; runs of one plan come one after the other, their
/// streams too. A rank whose arguments are refused takes part in every message, in memory of the plan's own. What the host cannot see the report says on every rank
/// (`PASSRL_FOUND_COLLECTIVE`, whose status is `PASSRL_ERR_COLLECTIVE`): a refused rank, one whose offsets do not fit, ranks that run different plans, calls or inputs.
/// Then nothing else is written, as where the all-reduce returns nonzero, which the call itself returns (the report is then left alone).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn passrl_plan_run(
    plan: *const passrl_plan,
    batch: *const passrl_batch,
    outputs: *const passrl_outputs,
    workspace: *mut c_void,
    workspace_bytes: usize,
    stream: *mut c_void,
) -> passrl_status {
    guard("passrl_plan_run", || {
        // SAFETY: live handle, structs and views by the contract; the views' memory is what they say it is.
        unsafe {
            let plan = borrow(plan)?;
            if let Some(comm) = &plan.comm {
                return comm.run(plan, batch, outputs, workspace, workspace_bytes, stream);
            }
            prepare(plan, batch, outputs, workspace, workspace_bytes, stream, |problem, sinks, memory, report| {
                if plan.inner.partials.pieces.is_some() && plan.device.is_none() {
                    return finish(report, &super::ranks::alone(plan, problem, sinks, memory)?, &plan.inner.names);
                }
                if plan.inner.config.strict {
                    check::report::strict(&backend::look(&plan.context, &plan.inner, problem, memory))?;
                }
                match &plan.device {
                    Some(device) => device.run(&plan.inner, problem, sinks, memory, stream).map(|()| PASSRL_OK),
                    None => finish(report, &backend::run(&plan.context, &plan.inner, problem, sinks, memory), &plan.inner.names),
                }
            })
        }
    })
}

/// A run's arguments, checked, handed to `run` where they lie: they are thousands of bytes, and a call may be short.
///
/// # Safety
/// As `passrl_plan_run`.
pub unsafe fn prepare<T>(
    plan: &passrl_plan,
    batch: *const passrl_batch,
    outputs: *const passrl_outputs,
    workspace: *mut c_void,
    workspace_bytes: usize,
    stream: *mut c_void,
    run: impl FnOnce(&Problem, &Outputs, Memory, *mut passrl_report) -> Result<T>,
) -> Result<T> {
    // SAFETY: structs and views by the contract.
    unsafe {
        let place = plan.place();
        let read = &(structs::read(batch, "batch"), structs::read(outputs, "outputs"));
        let (batch, outputs) = (read.0.as_ref().map_err(|e| *e)?, read.1.as_ref().map_err(|e| *e)?);
        check::stream(place, stream)?;
        let problem = &mut Problem::nothing();
        check::batch::fill(problem, place, batch, &plan.inner.config, &plan.inner.limits, advantages_shape(outputs))?;
        let problem = &*problem;
        let sinks = &check::outputs::outputs(place, outputs, problem);
        let sinks = sinks.as_ref().map_err(|e| *e)?;
        let report = check::outputs::report_memory(place, outputs.report);
        let memory = check::memory(workspace, workspace_bytes, plan.workspace_bytes(), 64, "workspace");
        let memory = check::outputs::apart(sinks, report.as_ref(), memory, problem)?;
        run(problem, sinks, memory, outputs.report)
    }
}
