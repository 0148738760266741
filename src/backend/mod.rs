//! Backends: they execute a plan on a checked problem. No refusals here but those of a device or of resources.
pub mod cpu;
pub mod cuda;

use crate::error::Result;
use crate::model::batch::Problem;
use crate::model::config::{Credit, Kind};
use crate::model::context::{ContextOptions, Memory, Where};
use crate::model::outputs::Outputs;
use crate::model::report::Report;
use crate::numerics::simd::Simd;
use crate::plan::Plan;
use crate::plan::divisors::Tables;
use cpu::pool::Pool;
use std::ffi::c_void;
use std::sync::Arc;

/// The stages on their own.
pub use cpu::primitives;

/// A plan's part in device memory.
pub use cuda::OnDevice;

/// What a context handle stands for: the CPU with its threads, or a CUDA device.
pub struct Context {
    options: ContextOptions,
    pool: Pool,
    tables: Tables,
    device: Option<Arc<cuda::Device>>,
}

impl Context {
    pub fn create(options: ContextOptions) -> Result<Context> {
        let device = options.cuda.as_ref().map(cuda::Device::open).transpose()?.map(Arc::new);
        // The calling thread's affinity and the cgroup's quota.
        let available = || std::thread::available_parallelism().map_or(1, |n| n.get()).min(8);
        let threads = match options.threads {
            _ if device.is_some() => 1,
            0 => available(),
            threads => threads,
        };
        Ok(Context { options, pool: Pool::new(threads), tables: Tables::default(), device })
    }

    pub fn threads(&self) -> usize {
        self.pool.threads()
    }

    /// Tables that its plans share.
    pub fn tables(&self) -> &Tables {
        &self.tables
    }

    /// Do its plans work on device memory?
    pub fn is_cuda(&self) -> bool {
        self.device.is_some()
    }

    /// Its device, where it has one.
    pub fn device(&self) -> Option<&cuda::Device> {
        self.device.as_deref()
    }

    pub fn simd(&self) -> Simd {
        self.options.simd
    }

    /// Where the arrays of its plans' calls lie.
    pub fn place(&self) -> Where {
        self.device.as_ref().map_or(Where::Host, |device| Where::Cuda(device.ordinal()))
    }

    /// What a new plan keeps on the device (`None`: on the CPU).
    pub fn load(&self, plan: &Plan) -> Result<Option<OnDevice>> {
        self.device.as_ref().map(|device| OnDevice::new(Arc::clone(device), plan)).transpose()
    }

    /// Words of the host through the all-reduce of a collective for plans of this context, whose status comes back; waited for.
    pub fn exchange(&self, words: &mut [i64], reduce: &dyn Fn(*mut c_void) -> i32) -> Result<i32> {
        match &self.device {
            Some(device) => cuda::staged(device, words, reduce),
            None => Ok(reduce(words.as_mut_ptr().cast())),
        }
    }

    /// Called by each plan.
    pub fn start_threads(&self) -> Result<()> {
        self.pool.start()
    }

    pub fn describe(&self) -> String {
        if let Some(device) = &self.device {
            return device.describe();
        }
        format!(
            "passrl {} (numerics {}), cpu backend, {} thread(s), {}, calls below {} bytes stay on the caller",
            env!("CARGO_PKG_VERSION"),
            crate::NUMERICS_VERSION,
            self.threads(),
            self.simd().name(),
            self.options.small_call_bytes.unwrap_or(SMALL_CALL)
        )
    }

    /// Threads for a call.
    fn threads_for(&self, plan: &Plan, problem: &Problem) -> usize {
        let c = &plan.config;
        // A token that has its chunk's credit takes a small part of what one takes that is scanned itself.
        let by_chunk = c.kind != Kind::Kl && matches!(c.credit, Credit::ReturnToGo | Credit::Broadcast);
        let small = self.options.small_call_bytes.unwrap_or(if by_chunk { 2 * SMALL_CALL } else { SMALL_CALL });
        if problem.bytes() < small { 1 } else { self.pool.usable() }
    }
}

/// Bytes that a call moves for which threads pay, where the caller has not said.
const SMALL_CALL: usize = 1 << 20;

/// One call on one batch.
pub fn run(context: &Context, plan: &Plan, problem: &Problem, outputs: &Outputs, memory: Memory) -> Report {
    cpu::run(&context.pool, context.threads_for(plan, problem), plan, problem, outputs, memory)
}

/// What `run` would find in the data; nothing is written.
pub fn look(context: &Context, plan: &Plan, problem: &Problem, memory: Memory) -> Report {
    cpu::look(&context.pool, context.threads_for(plan, problem), plan, problem, memory)
}

/// A micro-batch's share of a phase, added to the partials.
pub fn partials_add(context: &Context, plan: &Plan, phase: usize, problem: &Problem, partials: Memory, memory: Memory) {
    cpu::partials_add(&context.pool, context.threads_for(plan, problem), plan, phase, problem, partials, memory)
}

/// The first group of a call that is not whole in it, where it must be.
pub fn split_group(context: &Context, plan: &Plan, problem: &Problem, partials: Memory, memory: Memory) -> Option<cpu::members::Split> {
    cpu::split_group(&context.pool, plan, problem, partials, memory)
}

/// What `apply` would find in the data; nothing is written.
pub fn look_at_slice(context: &Context, plan: &Plan, problem: &Problem, partials: Memory, memory: Memory) -> Report {
    cpu::ranks::look_at_slice(&context.pool, context.threads_for(plan, problem), plan, problem, partials, memory)
}

/// A slice of the batch, shaped from complete partials.
pub fn apply(context: &Context, plan: &Plan, problem: &Problem, partials: Memory, outputs: &Outputs, memory: Memory) -> Report {
    cpu::apply(&context.pool, context.threads_for(plan, problem), plan, problem, partials, outputs, memory)
}

/// A rank's share of a batch: `reduce` exchanges the statistics of a phase. Nothing is written before the last exchange.
pub fn run_ranks(context: &Context, plan: &Plan, problem: &Problem, outputs: &Outputs, memory: Memory, exchange: &cpu::ranks::Exchange) -> Result<Report> {
    cpu::ranks::run(&context.pool, context.threads_for(plan, problem), plan, problem, outputs, memory, exchange)
}
