//! A plan's communicator: the caller's all-reduce, the agreement on a plan, the run of one rank.
use super::status::*;
use super::structs;
use super::types::*;
use super::constants::{PASSRL_CPU, PASSRL_CUDA};
use crate::backend::Context;
use crate::backend::cpu::ranks::Exchange;
use crate::error::{self, Result};
use crate::model::batch::Problem;
use crate::model::context::Memory;
use crate::model::outputs::Outputs;
use crate::model::ranks::{self, Header, WORDS};
use crate::model::report::Report;
use crate::plan::Plan;
use crate::plan::partials::{I32, I64, MAX, Section};
use crate::plan::ranks::Message;
use crate::{backend, check, refuse};
use std::cell::UnsafeCell;
use std::ffi::c_void;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};

/// A run of a plan without a collective whose rollouts come in pieces: the phases, with nobody to exchange with.
pub fn alone(plan: &passrl_plan, problem: &Problem, outputs: &Outputs, memory: Memory) -> Result<Report> {
    let header = Header { plan: plan.inner.partials.fingerprint as i32, call: 0, refused: 0, forms: check::ranks::forms(problem), note: Header::SUMS };
    let exchange = Exchange {
        header: header.words(),
        reduce: &|_: &Message, _: Memory| Ok(()),
        agreed: &check::ranks::header,
        pieces: &|rows: &[i64]| check::pieces::table(rows, &plan.inner.limits),
        groups: &|claims: &[i64]| check::ranks::whole_groups(&plan.inner.config, claims),
        strict: &|found: &Report| check::report::strict(found),
    };
    backend::run_ranks(&plan.context, &plan.inner, problem, outputs, memory, &exchange)
}

pub struct Comm {
    of: passrl_collective,
    calls: AtomicI32,
    running: AtomicBool,
    /// First message of a call whose arguments are refused: its workspace may be what is wrong.
    refusal: UnsafeCell<Vec<i32>>,
}

// SAFETY: the caller's pointer is handed to the caller's function alone; `refusal` is touched by the one call that set `running`.
unsafe impl Send for Comm {}
// SAFETY: as above.
unsafe impl Sync for Comm {}

/// A refusal's sentence, kept while the others are told of it.
struct Said(String);

impl Said {
    fn now() -> Said {
        Said(error::last_text())
    }

    fn again(self) {
        error::say(&self.0);
    }
}

/// One call at a time.
struct Running<'a>(&'a AtomicBool);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

impl Comm {
    /// # Safety
    /// As `structs::read`.
    pub unsafe fn read(collective: *const passrl_collective) -> Result<Comm> {
        // SAFETY: passed on.
        let of = unsafe { structs::read(collective, "collective")? };
        check::ranks::collective(&of)?;
        // A caller of an older header has no field to say it in.
        let device_type = if super::nccl::is_nccl(&of) { PASSRL_CUDA } else { of.device_type };
        let of = passrl_collective { device_type, ..of };
        Ok(Comm { of, calls: AtomicI32::new(0), running: AtomicBool::new(false), refusal: UnsafeCell::new(Vec::new()) })
    }

    /// Does the engine reduce the memory in which plans of this context keep their statistics? Where not, no rank is told: there is no way to.
    pub fn suits(&self, on_device: bool) -> Result<()> {
        if on_device && self.of.device_type == PASSRL_CPU {
            return refuse!(
                PASSRL_ERR_CONFLICT,
                "collective takes host memory (device_type PASSRL_CPU), and the context is CUDA, whose statistics lie in device memory; give one of device memory (NCCL, a function of your own with device_type = PASSRL_CUDA)"
            );
        }
        if super::nccl::is_nccl(&self.of) && !on_device {
            return refuse!(
                PASSRL_ERR_CONFLICT,
                "collective is NCCL's, which reduces device memory, and the context is the CPU's; give a collective of host memory (MPI, gloo, a function of your own)"
            );
        }
        if !on_device && self.of.device_type == PASSRL_CUDA {
            return refuse!(
                PASSRL_ERR_CONFLICT,
                "collective takes device memory (device_type PASSRL_CUDA), and the context is the CPU's; give a collective of host memory (MPI, gloo, a function of your own)"
            );
        }
        Ok(())
    }

    /// The caller's all-reduce, its status as it is. `stream`: NULL on the CPU.
    fn call(&self, buffer: *mut c_void, count: usize, dtype: i32, op: i32, stream: *mut c_void) -> i32 {
        // SAFETY: `count` elements of this call's; the function and `user` are the caller's by the contract.
        self.of.all_reduce.map_or(-1, |reduce| unsafe { reduce(self.of.user, buffer, count, dtype, op, stream) })
    }

    fn reduce(&self, buffer: *mut c_void, message: &Section, what: &str, stream: *mut c_void) -> Result<()> {
        self.judged(self.call(buffer, message.count, message.dtype, message.op, stream), message.count, what)
    }

    /// A status of the caller's all-reduce.
    fn judged(&self, status: i32, count: usize, what: &str) -> Result<()> {
        match status {
            0 => Ok(()),
            failed => refuse!(
                PASSRL_ERR_COLLECTIVE,
                "collective.all_reduce returned {failed} on rank {} of {} for {count} elements ({what}); nothing was written on this rank",
                self.of.rank, self.of.size
            ),
        }
    }

    /// A message of a plan's creation, whose words lie in host memory; its status as it is. `context` NULL: nothing is known of a device.
    fn exchange(&self, context: Option<&Context>, words: &mut [i64]) -> Result<i32> {
        let count = words.len();
        let reduce = |at: *mut c_void| self.call(at, count, I64, MAX, null_mut());
        match context {
            Some(context) => context.exchange(words, &reduce),
            None => Ok(reduce(words.as_mut_ptr().cast())),
        }
    }

    /// This rank and the number of ranks.
    pub fn place(&self) -> (i32, i32) {
        (self.of.rank, self.of.size)
    }

    /// Agrees with the other ranks on the plan that this one has made (already spread), or has been refused.
    pub fn agree<Device>(mut self, context: Option<&Context>, made: Result<(Plan, Device)>) -> Result<(Plan, Device, Comm)> {
        let agreed = made.as_ref().ok().map(|(p, _)| check::ranks::agreed_of(self.of.size, crate::NUMERICS_VERSION, &p.config, &p.limits));
        let mut words = ranks::creation(self.of.rank, agreed);
        let (plan, device) = match made {
            Ok(made) => made,
            Err(refused) => {
                let said = Said::now();
                // A failing callback would not tell more.
                let _ = self.exchange(context, &mut words);
                said.again();
                return Err(refused);
            }
        };
        self.judged(self.exchange(context, &mut words)?, words.len(), "agreement on the plan")?;
        if !check::ranks::creation(&words)? {
            let own = super::config::from_model(&plan.config);
            let mut fields = check::ranks::fields(&own);
            self.judged(self.exchange(context, &mut fields)?, fields.len(), "fields of configurations that differ")?;
            check::ranks::differing(&own, &fields)?;
        }
        let first = plan.ranks.as_ref().map_or(WORDS, |r| r.messages()[0].section.count);
        *self.refusal.get_mut() = vec![0; first];
        Ok((plan, device, self))
    }

    /// One rank's run.
    ///
    /// # Safety
    /// As `passrl_plan_run`.
    #[allow(clippy::too_many_arguments)]
    pub unsafe fn run(
        &self,
        plan: &passrl_plan,
        batch: *const passrl_batch,
        outputs: *const passrl_outputs,
        workspace: *mut c_void,
        workspace_bytes: usize,
        stream: *mut c_void,
    ) -> Result<i32> {
        if self.running.swap(true, Ordering::Acquire) {
            return refuse!(PASSRL_ERR_CONFLICT, "another run of this plan is under way in this process; a plan with a collective is run by one thread at a time");
        }
        let _running = Running(&self.running);
        let mut header = Header {
            plan: plan.inner.partials.fingerprint as i32,
            call: self.calls.fetch_add(1, Ordering::Relaxed) & i32::MAX,
            refused: 0,
            forms: None,
            note: 0,
        };
        // SAFETY: passed on.
        let prepared = unsafe {
            structs::read(batch, "batch")
                .and_then(|b| check::ranks::batch(&b))
                .and_then(|()| super::plan::prepare(plan, batch, outputs, workspace, workspace_bytes, stream, |p, o, memory, report| Ok((*p, *o, memory, report))))
        };
        let (problem, sinks, memory, report) = match prepared {
            Ok(prepared) => prepared,
            Err(refused) => {
                header.refused = self.of.rank + 1;
                if let Some(device) = &plan.device {
                    let said = Said::now();
                    let reduce = |m: &Message, at: *mut c_void| self.call(at, m.section.count, m.section.dtype, m.section.op, stream);
                    let _ = device.run_refused(&plan.inner, header.words(), &reduce, stream);
                    said.again();
                    return Err(refused);
                }
                // SAFETY: `running` makes this call the only one.
                let first = unsafe { &mut *self.refusal.get() };
                first.fill(0);
                first[..WORDS].copy_from_slice(&header.words());
                self.call(first.as_mut_ptr().cast(), first.len(), I32, MAX, null_mut());
                return Err(refused);
            }
        };
        header.forms = check::ranks::forms(&problem);
        header.note = if sinks.ask_sums() { Header::SUMS } else { 0 };
        if let Some(device) = &plan.device {
            let reduce = |m: &Message, at: *mut c_void| self.reduce(at, &m.section, m.what, stream);
            return device.run_ranks(&plan.inner, &problem, &sinks, memory, header.words(), &reduce, stream).map(|()| PASSRL_OK);
        }
        let exchange = Exchange {
            header: header.words(),
            reduce: &|m: &Message, buffer: Memory| {
                let at = buffer.data.wrapping_add(m.section.offset).cast();
                self.reduce(at, &m.section, m.what, null_mut())
            },
            agreed: &check::ranks::header,
            pieces: &|rows: &[i64]| check::pieces::table(rows, &plan.inner.limits),
            groups: &|claims: &[i64]| check::ranks::whole_groups(&plan.inner.config, claims),
            strict: &|found: &Report| check::report::strict(found),
        };
        let found = backend::run_ranks(&plan.context, &plan.inner, &problem, &sinks, memory, &exchange)?;
        // SAFETY: as the run of a plan without a collective.
        unsafe { super::plan::finish(report, &found, &plan.inner.names) }
    }
}
