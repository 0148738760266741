//! One case's batch and outputs, and a plan for them, through the C ABI.
use super::array::{Array, Dtype, Views};
use super::cases::{Answer, Carries, Case, Layout};
use super::reference;
use super::workload::Workload;
use passrl::abi::{config::*, constants::*, context::*, plan::*, status::passrl_status, structs::*, types::*, util::passrl_last_error};
use std::ffi::{CStr, c_void};

/// Views of the workload and of arrays of its own; outlived by the workload.
pub struct Batch<'a> {
    work: &'a Workload,
    case: &'a Case,
    dtype: Dtype,
    _views: Views,
    _inputs: Vec<Array>,
    batch: passrl_batch,
    outputs: passrl_outputs,
    advantages: Array,
    returns: Option<Array>,
    /// Input bytes that must be read (of token-sized inputs the valid tokens; of a mask every slot) and output bytes that must be written (every slot).
    pub bytes: usize,
    /// No token-sized input: the floor only writes.
    pub only_writes: bool,
}

impl<'a> Batch<'a> {
    pub fn new(work: &'a Workload, case: &'a Case, dtype: Dtype) -> Batch<'a> {
        let (rollouts, longest, tokens) = (work.size.rollouts, work.size.longest, work.tokens());
        let padded = case.layout != Layout::Packed;
        let slots = if padded { rollouts * longest } else { tokens };
        let shape = if padded { [rollouts, longest] } else { [tokens, 0] };
        let (mut views, mut inputs) = (Views::default(), Vec::new());
        let (mut batch, mut outputs) = (init(passrl_batch_init), init(passrl_outputs_init));
        batch.num_rollouts = rollouts as i64;
        batch.group_size = work.group_size() as i64;

        let mut bytes = 4 * rollouts;
        batch.layout = if padded { PASSRL_PADDED } else { PASSRL_PACKED };
        match case.layout {
            Layout::Packed => batch.cu_seqlens = views.add(work.cu_seqlens.as_ptr().cast(), [rollouts + 1, 0], PASSRL_I32),
            Layout::Lengths => batch.lengths = views.add(work.lengths.as_ptr().cast(), [rollouts, 0], PASSRL_I32),
            Layout::Mask => {
                batch.mask = views.add(work.mask().as_ptr().cast(), shape, PASSRL_I64);
                bytes += 8 * slots - 4 * rollouts;
            }
        }
        let mut row = |values: &[f32], views: &mut Views| {
            bytes += 4 * rollouts;
            views.add(values.as_ptr().cast(), [rollouts, 0], PASSRL_F32)
        };
        match case.carries {
            Carries::Dense | Carries::Steps | Carries::Kl => {
                batch.outcome = row(&work.outcome, &mut views);
                batch.format = row(&work.format, &mut views);
                bytes += rollouts;
                batch.format_ok = views.add(work.format_ok.as_ptr().cast(), [rollouts, 0], PASSRL_U8);
            }
            Carries::Outcome => batch.outcome = row(&work.outcome, &mut views),
            Carries::Rewards => {
                for (view, rewards) in batch.extra.iter_mut().zip(&work.extra) {
                    *view = row(rewards, &mut views);
                }
            }
            Carries::Values => (),
        }
        let mut token = |packed: &[f32], views: &mut Views| {
            bytes += dtype.bytes() * tokens;
            // What lies in the padding is read into no result.
            inputs.push(if padded { Array::of(&work.padded(packed, f32::NAN), dtype) } else { Array::of(packed, dtype) });
            views.of(inputs.last().expect("just pushed"), shape)
        };
        match case.carries {
            Carries::Dense => batch.signal[0] = token(&work.dense, &mut views),
            Carries::Kl => batch.signal[0] = token(work.kl(), &mut views),
            Carries::Values => {
                batch.token_rewards = token(work.token_rewards(), &mut views);
                batch.values = token(work.values(), &mut views);
            }
            Carries::Steps => {
                let steps = work.step_ends.len();
                batch.step_offsets = views.add(work.step_offsets.as_ptr().cast(), [rollouts + 1, 0], PASSRL_I32);
                batch.step_ends = views.add(work.step_ends.as_ptr().cast(), [steps, 0], PASSRL_I32);
                batch.step_scores = views.add(work.step_scores.as_ptr().cast(), [steps, 0], PASSRL_F32);
                bytes += 4 * (rollouts + 2 * steps);
            }
            Carries::Outcome | Carries::Rewards => (),
        }
        let only_writes = inputs.is_empty() && case.layout != Layout::Mask;

        let advantages = Array::unwritten(slots, dtype);
        outputs.advantages = views.of(&advantages, shape);
        bytes += dtype.bytes() * slots;
        let returns = (case.carries == Carries::Values).then(|| Array::unwritten(slots, dtype));
        if let Some(returns) = &returns {
            outputs.returns = views.of(returns, shape);
            bytes += dtype.bytes() * slots;
        }
        Batch { work, case, dtype, _views: views, _inputs: inputs, batch, outputs, advantages, returns, bytes, only_writes }
    }

    /// The largest error against the answer, of a group's largest value. A wrong answer or a padded slot that is not 0 stops the bench.
    pub fn check(&self, answer: &Answer) -> f64 {
        let mut worst = self.error(&self.advantages, &answer.advantages);
        if let Some(returns) = &self.returns {
            worst = worst.max(self.error(returns, &answer.returns));
        }
        let (size, name, dtype) = (self.work.size.name, self.case.name, self.dtype.name());
        assert!(worst < self.dtype.tolerance(), "{size} {name} {dtype}: error {worst:e} against the f64 loop; not timed");
        worst
    }

    fn error(&self, got: &Array, want: &[f64]) -> f64 {
        let (work, row) = (self.work, self.work.size.longest);
        if self.case.layout == Layout::Packed {
            return reference::error(work, |at| got.at(at), want);
        }
        let mut slots = Vec::with_capacity(want.len());
        for (rollout, &length) in work.lengths.iter().enumerate() {
            slots.extend((0..length as usize).map(|t| rollout * row + t));
            assert!((length as usize..row).all(|t| got.at(rollout * row + t).to_bits() == 0), "padding is not 0");
        }
        reference::error(work, |at| got.at(slots[at]), want)
    }
}

/// A context and a plan for one batch's case and extents, with its workspace.
pub struct Ready {
    context: *mut passrl_context,
    plan: *mut passrl_plan,
    workspace: Vec<Line>,
}

/// Workspaces are 64-byte aligned.
#[repr(C, align(64))]
#[derive(Clone, Copy)]
struct Line([u8; 64]);

impl Ready {
    pub fn new(of: &Batch, threads: usize) -> Ready {
        let context = context(threads);
        let plan = plan(context, of);
        let mut workspace = 0usize;
        // SAFETY: a plan just made.
        done(unsafe { passrl_plan_workspace_size(plan, &mut workspace) });
        Ready { context, plan, workspace: vec![Line([0; 64]); workspace.div_ceil(64)] }
    }

    pub fn run(&mut self, on: &mut Batch) {
        let workspace = self.workspace.as_mut_ptr().cast::<c_void>();
        // SAFETY: the views' memory is owned by the batch and by the workload, which outlives it.
        done(unsafe { passrl_plan_run(self.plan, &on.batch, &on.outputs, workspace, self.workspace.len() * 64, std::ptr::null_mut()) });
    }

    /// Seconds of making another plan of the same context, and taking it down.
    pub fn plan_again(&mut self, of: &Batch) -> f64 {
        let begin = std::time::Instant::now();
        let plan = plan(self.context, of);
        let taken = begin.elapsed().as_secs_f64();
        // SAFETY: made above, given back once.
        unsafe { passrl_plan_destroy(plan) };
        taken
    }
}

impl Drop for Ready {
    fn drop(&mut self) {
        // SAFETY: made in `new`, given back once.
        unsafe {
            passrl_plan_destroy(self.plan);
            passrl_context_destroy(self.context);
        }
    }
}

fn context(threads: usize) -> *mut passrl_context {
    let mut context = std::ptr::null_mut();
    let mut options = init(passrl_context_options_init);
    options.threads = threads as i32;
    // SAFETY: a filled struct; the handle is destroyed with `Ready`.
    done(unsafe { passrl_context_create(&options, &mut context) });
    context
}

fn plan(context: *mut passrl_context, of: &Batch) -> *mut passrl_plan {
    let (work, case) = (of.work, of.case);
    let mut plan = std::ptr::null_mut();
    let mut config = init(passrl_config_init);
    let mut limits = init(passrl_limits_init);
    limits.rollouts = work.size.rollouts as i64;
    limits.groups = work.size.groups as i64;
    limits.tokens = if case.layout == Layout::Packed { work.tokens() } else { work.size.rollouts * work.size.longest } as i64;
    limits.rollout_tokens = work.size.longest as i64;
    limits.group_rollouts = work.group_size() as i64;
    limits.steps = work.step_ends.len() as i64;
    // SAFETY: filled structs and zero-terminated strings; the context lives; the plan is destroyed by its owner.
    unsafe {
        done(passrl_config_init_preset(&mut config, size_of::<passrl_config>() as u32, case.preset.as_ptr()));
        for (field, value) in case.set {
            done(passrl_config_set(&mut config, field.as_ptr(), value.as_ptr()));
        }
        done(passrl_plan_create(context, &config, &limits, std::ptr::null(), &mut plan));
    }
    plan
}

/// A struct with the library's defaults.
fn init<T>(fill: unsafe extern "C" fn(*mut T, u32) -> passrl_status) -> T {
    let mut value = std::mem::MaybeUninit::<T>::zeroed();
    // SAFETY: the target is a struct of the size given, of which all zeros is a value.
    unsafe {
        done(fill(value.as_mut_ptr(), size_of::<T>() as u32));
        value.assume_init()
    }
}

fn done(status: passrl_status) {
    // SAFETY: never NULL, zero-terminated.
    assert!(status == 0, "{}", unsafe { CStr::from_ptr(passrl_last_error()) }.to_string_lossy());
}
