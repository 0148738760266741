//! The shipped library, loaded as a host would load it, and one call of each kind on a `World`.
use crate::world::{Lent, World};
use passrl::abi::constants::{PASSRL_STEP_SETS_STEP_GROUP, PASSRL_TOKEN_BASELINE_NONE};
use passrl::abi::status::*;
use passrl::abi::types::*;
use std::ffi::{CStr, c_char, c_void};
use std::ptr::{null, null_mut};

pub struct Api {
    library: libloading::Library,
}

/// What a case calls. What comes before must succeed.
#[derive(Clone, Copy, Debug)]
pub enum Act {
    Context,
    Plan,
    Run,
    PartialsInit,
    Add,
    Merge,
    Apply,
    /// A call of its own.
    Direct(fn(&Api, &mut World) -> i32),
}

macro_rules! symbol {
    ($api:expr, $name:ident ( $($arg:ty),* ) -> $ret:ty) => {
        $api.symbol::<unsafe extern "C" fn($($arg),*) -> $ret>(concat!(stringify!($name), "\0"))
    };
}
pub(crate) use symbol;

type Config = passrl_config;
type Batch = passrl_batch;
type Outputs = passrl_outputs;
type Limits = passrl_limits;
type Plan = *mut passrl_plan;
type Mem = *mut c_void;

/// A struct and the bytes behind it.
#[repr(C)]
pub struct Tailed<T>(T, [u8; 64]);

impl Api {
    pub fn load() -> Api {
        // SAFETY: the library has no initialisers that matter here.
        Api { library: unsafe { libloading::Library::new(crate::common::library()).expect("libpassrl.so loads") } }
    }

    pub fn of(library: libloading::Library) -> Api {
        Api { library }
    }

    /// A function by its zero-terminated name. `F` is its type in the header.
    pub fn symbol<F>(&self, name: &str) -> libloading::Symbol<'_, F> {
        // SAFETY: the type is that of the header.
        unsafe { self.library.get(name.as_bytes()) }.unwrap_or_else(|e| panic!("{name}: {e}"))
    }

    pub fn last_error(&self) -> String {
        let last = symbol!(self, passrl_last_error() -> *const c_char);
        // SAFETY: a zero-terminated string, never NULL.
        unsafe { CStr::from_ptr(last()) }.to_string_lossy().into_owned()
    }

    pub fn init(&self, w: &mut World) {
        macro_rules! init {
            ($function:ident, $T:ty, $field:ident) => {{
                let f = symbol!(self, $function(*mut $T, u32) -> i32);
                // SAFETY: a struct of that size.
                assert_eq!(unsafe { f(&mut w.$field, size_of::<$T>() as u32) }, PASSRL_OK);
            }};
        }
        init!(passrl_context_options_init, passrl_context_options, options);
        init!(passrl_config_init, Config, config);
        init!(passrl_limits_init, Limits, limits);
        init!(passrl_batch_init, Batch, batch);
        init!(passrl_outputs_init, Outputs, outputs);
        init!(passrl_report_init, passrl_report, report);
        (w.report.tokens, w.report.findings) = (-77, -77);
    }

    pub fn context(&self, w: &mut World, context: &mut *mut passrl_context) -> i32 {
        let create = symbol!(self, passrl_context_create(*const passrl_context_options, *mut *mut passrl_context) -> i32);
        let to = if w.null == "context" { null_mut() } else { context as *mut _ };
        // SAFETY: as the header says, or what the case damages.
        unsafe { create(&w.options, to) }
    }

    pub fn plan(&self, w: &mut World, context: *mut passrl_context, plan: &mut Plan) -> i32 {
        let create = symbol!(
            self,
            passrl_plan_create(*const passrl_context, *const Config, *const Limits, *const passrl_collective, *mut Plan) -> i32
        );
        let (config, limits) = (Tailed(w.config, w.config_tail), Tailed(w.limits, w.limits_tail));
        // SAFETY: zero is valid.
        let collective: passrl_collective = unsafe { std::mem::zeroed() };
        let pick = |name: &str| w.null == name;
        // SAFETY: as the header says, or what the case damages.
        unsafe {
            create(
                if pick("plan_create.context") { null() } else { context },
                if pick("config") { null() } else { (&raw const config).cast() },
                if pick("limits") { null() } else { (&raw const limits).cast() },
                if w.collective { &collective } else { null() },
                if pick("plan_create.plan") { null_mut() } else { plan },
            )
        }
    }

    fn fill(w: &mut World) {
        macro_rules! place {
            ($($name:literal => $to:expr;)*) => {
                $(if let Some(slot) = w.slots.get($name) { $to = &slot.view; })*
            };
        }
        place! {
            "batch.cu_seqlens" => w.batch.cu_seqlens; "batch.lengths" => w.batch.lengths; "batch.mask" => w.batch.mask;
            "batch.group_index" => w.batch.group_index; "batch.group_offsets" => w.batch.group_offsets;
            "batch.outcome" => w.batch.outcome; "batch.format" => w.batch.format; "batch.format_ok" => w.batch.format_ok;
            "batch.extra[0]" => w.batch.extra[0]; "batch.extra[1]" => w.batch.extra[1];
            "batch.in_stats" => w.batch.in_stats; "batch.absent" => w.batch.absent; "batch.baselines" => w.batch.baselines;
            "batch.bootstrap" => w.batch.bootstrap; "batch.signal[0]" => w.batch.signal[0]; "batch.signal[1]" => w.batch.signal[1];
            "batch.signal[2]" => w.batch.signal[2]; "batch.logp_policy" => w.batch.logp_policy; "batch.logp_teacher" => w.batch.logp_teacher;
            "batch.logp_base" => w.batch.logp_base; "batch.logp_reference" => w.batch.logp_reference; "batch.values" => w.batch.values; "batch.logp_behavior" => w.batch.logp_behavior; "batch.rollout_lam" => w.batch.rollout_lam;
            "batch.token_rewards" => w.batch.token_rewards; "batch.chunk_ends" => w.batch.chunk_ends;
            "batch.step_offsets" => w.batch.step_offsets; "batch.step_ends" => w.batch.step_ends; "batch.step_begins" => w.batch.step_begins;
            "batch.step_scores" => w.batch.step_scores; "batch.step_marks" => w.batch.step_marks; "batch.step_group" => w.batch.step_group;
            "batch.stats_mean" => w.batch.stats_mean; "batch.stats_std" => w.batch.stats_std;
            "batch.sum_pi_squared" => w.batch.sum_pi_squared; "batch.token_ratio" => w.batch.token_ratio;
            "batch.piece_rollout" => w.batch.piece_rollout; "batch.piece_begin" => w.batch.piece_begin;
            "batch.piece_index" => w.batch.piece_index; "batch.rollout_index" => w.batch.rollout_index;
            "advantages" => w.outputs.advantages; "returns" => w.outputs.returns; "path_scores" => w.outputs.path_scores;
            "num_chunks" => w.outputs.num_chunks; "chunk_ends" => w.outputs.chunk_ends; "chunk_values" => w.outputs.chunk_values;
            "stats_count" => w.outputs.stats_count; "stats_mean" => w.outputs.stats_mean; "stats_std" => w.outputs.stats_std;
            "stats_absmax" => w.outputs.stats_absmax; "group_flags" => w.outputs.group_flags; "rollout_flags" => w.outputs.rollout_flags;
        }
        w.outputs.report = &mut w.report;
        if let Some(size) = w.report_size {
            w.report.struct_size = size;
        }
    }

    /// Makes context and plan, calls what is asked; the status of that call. Outputs and report are the world's.
    pub fn call(&self, w: &mut World, act: Act) -> i32 {
        if let Act::Direct(f) = act {
            return f(self, w);
        }
        let mut context = null_mut();
        let status = self.context(w, &mut context);
        if matches!(act, Act::Context) {
            assert!((status == PASSRL_OK) == !context.is_null(), "a context is made, or none is given out");
            w.sentence = self.last_error();
            // SAFETY: made above, or NULL.
            unsafe { symbol!(self, passrl_context_destroy(*mut passrl_context) -> ())(context) };
            return status;
        }
        assert_eq!(status, PASSRL_OK, "{}", self.last_error());
        let mut plan = null_mut();
        let mut status = self.plan(w, context, &mut plan);
        if matches!(act, Act::Plan) {
            assert!(status == PASSRL_OK || plan.is_null(), "a plan was given out with status {status}");
        } else {
            assert_eq!(status, PASSRL_OK, "{}", self.last_error());
            status = self.with_plan(w, act, context, plan);
        }
        let said = self.last_error();
        let (plan_destroy, context_destroy) =
            (symbol!(self, passrl_plan_destroy(Plan) -> ()), symbol!(self, passrl_context_destroy(*mut passrl_context) -> ()));
        // SAFETY: handles made above, given back once.
        unsafe {
            plan_destroy(plan);
            context_destroy(context);
        }
        w.sentence = said;
        status
    }

    fn with_plan(&self, w: &mut World, act: Act, context: *mut passrl_context, plan: Plan) -> i32 {
        let size = |name: &str| {
            let mut bytes = 0usize;
            let f = self.symbol::<unsafe extern "C" fn(Plan, *mut usize) -> i32>(name);
            // SAFETY: a live plan.
            assert_eq!(unsafe { f(plan, &mut bytes) }, PASSRL_OK);
            bytes
        };
        // Sets of steps of equal state and baselines a token have no partials: any memory will do.
        let pieces = w.config.step_sets != PASSRL_STEP_SETS_STEP_GROUP && w.config.token_baseline == PASSRL_TOKEN_BASELINE_NONE;
        let (work, part) = (size("passrl_plan_workspace_size\0"), if pieces { size("passrl_partials_size\0") } else { 1024 });
        let partials_init = symbol!(self, passrl_partials_init(Plan, Mem, usize) -> i32);
        let mut memory: [Vec<u64>; 3] = [vec![0; work / 8 + 32], vec![0; part / 8 + 32], vec![0; part / 8 + 32]];
        let base: [usize; 3] = std::array::from_fn(|i| memory[i].as_mut_ptr().addr().next_multiple_of(64));
        let buffer = |i: usize| memory[i].as_ptr().with_addr(base[i]).cast_mut().cast::<c_void>();
        // SAFETY: live plans, buffers of the size needed.
        unsafe {
            match w.other_plan {
                None if !pieces => (),
                None => assert_eq!(partials_init(plan, buffer(1), part), PASSRL_OK),
                Some(edit) => {
                    let mut other = World::new(self);
                    edit(&mut other);
                    let mut maker = null_mut();
                    assert_eq!(self.plan(&mut other, context, &mut maker), PASSRL_OK, "{}", self.last_error());
                    let mut bytes = 0usize;
                    assert_eq!(symbol!(self, passrl_partials_size(Plan, *mut usize) -> i32)(maker, &mut bytes), PASSRL_OK);
                    let mut room = vec![0u64; bytes / 8 + 1];
                    assert_eq!(partials_init(maker, room.as_mut_ptr().cast(), bytes), PASSRL_OK);
                    std::ptr::copy_nonoverlapping(room.as_ptr().cast::<u8>(), buffer(1).cast(), bytes.min(part));
                    symbol!(self, passrl_plan_destroy(Plan) -> ())(maker);
                }
            }
            assert!(!pieces || partials_init(plan, buffer(2), part) == PASSRL_OK);
            (w.damage)(std::slice::from_raw_parts_mut(buffer(1).cast(), part));
        }
        Api::fill(w);
        if let Some((lent, bytes)) = w.report_in {
            let at = buffer(["workspace", "buffer", "from"].iter().position(|name| *name == lent).expect("memory lent")).wrapping_byte_add(bytes);
            // SAFETY: 256 bytes more than are needed lie there.
            unsafe { at.cast::<passrl_report>().write_unaligned(w.report) };
            w.outputs.report = at.cast();
        }
        let place = |lent: &Lent, i: usize, bytes: usize| -> (Mem, usize) {
            let pointer = match lent.over {
                Some("workspace") => buffer(0),
                Some("buffer") => buffer(1),
                Some(name) => w.slots[name].view.data,
                None => buffer(i),
            };
            ((if lent.null { null_mut() } else { pointer }).wrapping_byte_add(lent.offset), bytes - lent.less)
        };
        let ((workspace, work), (into, into_bytes), (from, from_bytes)) =
            (place(&w.workspace, 0, work), place(&w.buffer, 1, part), place(&w.from, 2, part));
        let from = if w.from_is_into { into } else { from };
        let (batch, outputs) = (Tailed(w.batch, w.batch_tail), Tailed(w.outputs, w.outputs_tail));
        let pick = |name: &str| w.null == name;
        let plan = if pick("plan") { null_mut() } else { plan };
        let batch: *const Batch = if pick("batch") { null() } else { (&raw const batch).cast() };
        let outputs: *const Outputs = if pick("outputs") { null() } else { (&raw const outputs).cast() };
        let stream = w.stream as Mem;
        let run = symbol!(self, passrl_plan_run(Plan, *const Batch, *const Outputs, Mem, usize, Mem) -> i32);
        let add = symbol!(self, passrl_partials_add(Plan, i32, *const Batch, Mem, usize, Mem, usize, Mem) -> i32);
        let merge = symbol!(self, passrl_partials_merge(Plan, Mem, usize, Mem, usize) -> i32);
        let apply = symbol!(self, passrl_plan_apply(Plan, *const Batch, Mem, usize, *const Outputs, Mem, usize, Mem) -> i32);
        // SAFETY: as the header says, or what the case damages, which must be refused before it is used.
        unsafe {
            match act {
                Act::Run => run(plan, batch, outputs, workspace, work, stream),
                Act::PartialsInit => partials_init(plan, into, into_bytes),
                Act::Add => add(plan, w.phase, batch, into, into_bytes, workspace, work, stream),
                Act::Merge => merge(plan, into, into_bytes, from, from_bytes),
                Act::Apply => {
                    // (Pieces are given to no phase: that is a case. Of a report that lies in the buffer an add would make another.) What is wrong is refused here as well.
                    let mut phases = 0;
                    symbol!(self, passrl_plan_phases(Plan, *mut i32) -> i32)(plan, &mut phases);
                    for phase in (0..phases).filter(|_| w.limits.pieces == 0 && w.report_in.is_none()) {
                        add(plan, phase, batch, into, into_bytes, workspace, work, stream);
                    }
                    apply(plan, batch, into, into_bytes, outputs, workspace, work, stream)
                }
                Act::Context | Act::Plan | Act::Direct(_) => unreachable!(),
            }
        }
    }
}

impl World {
    pub fn said(&mut self) -> &mut String {
        &mut self.sentence
    }
}
