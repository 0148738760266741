//! One call of the library through its C ABI: owns the views, the plan and the outputs.
use super::reference::Input;
use super::workload::Workload;
use passrl::abi::{config::*, constants::*, context::*, plan::*, status::passrl_status, structs::*, types::*, util::passrl_last_error};
use std::ffi::{CStr, c_void};

pub struct Call {
    context: *mut passrl_context,
    plan: *mut passrl_plan,
    /// The views that `batch` and `outputs` point to.
    _views: Vec<Box<passrl_view>>,
    /// The padded signal, where there is one.
    _signal: Vec<f32>,
    batch: passrl_batch,
    outputs: passrl_outputs,
    advantages: Vec<f32>,
    workspace: Vec<Line>,
    /// Input bytes read (valid tokens) and output bytes written (every slot of the shape).
    pub bytes: usize,
}

/// Workspaces are 64-byte aligned.
#[repr(C, align(64))]
#[derive(Clone, Copy)]
struct Line([u8; 64]);

impl Call {
    pub fn new(work: &Workload, input: Input, padded: bool, threads: usize) -> Call {
        let mut views = Vec::new();
        let rollouts = work.size.rollouts;
        let slots = if padded { rollouts * work.size.longest } else { work.tokens() };
        let token_shape = if padded { [rollouts, work.size.longest] } else { [work.tokens(), 0] };
        let (mut batch, mut outputs) = (zeroed::<passrl_batch>(), zeroed::<passrl_outputs>());
        let (mut config, mut limits) = (zeroed::<passrl_config>(), zeroed::<passrl_limits>());
        let mut options = zeroed::<passrl_context_options>();
        let (mut context, mut plan) = (std::ptr::null_mut(), std::ptr::null_mut());
        // SAFETY: each target is a struct of the size given.
        unsafe {
            done(passrl_batch_init(&mut batch, size_of::<passrl_batch>() as u32));
            done(passrl_outputs_init(&mut outputs, size_of::<passrl_outputs>() as u32));
            done(passrl_config_init(&mut config, size_of::<passrl_config>() as u32));
            done(passrl_limits_init(&mut limits, size_of::<passrl_limits>() as u32));
            done(passrl_context_options_init(&mut options, size_of::<passrl_context_options>() as u32));
        }

        let signal = match input {
            Input::Dense if padded => work.padded(&work.dense),
            Input::Kl if padded => work.padded(&work.kl),
            _ => Vec::new(),
        };
        let packed = if input == Input::Kl { &work.kl } else { &work.dense };
        let mut advantages = vec![f32::NAN; slots];
        let mut view = |data: *const c_void, shape: [usize; 2], dtype: i32| -> *const passrl_view {
            let dimensions = if shape[1] == 0 { 1 } else { 2 };
            views.push(Box::new(passrl_view {
                data: data.cast_mut(),
                shape: shape.map(|n| n as i64),
                stride: if dimensions == 2 { [shape[1] as i64, 1] } else { [1, 1] },
                ndim: dimensions,
                dtype,
                device_type: PASSRL_CPU,
                device_id: 0,
            }));
            &**views.last().expect("just pushed")
        };
        batch.num_rollouts = rollouts as i64;
        batch.group_size = work.group_size() as i64;
        let mut bytes = rollouts * (4 + 4 + 1 + 4) + 4 * slots;
        if padded {
            batch.layout = PASSRL_PADDED;
            batch.lengths = view(work.lengths.as_ptr().cast(), [rollouts, 0], PASSRL_I32);
        } else {
            batch.cu_seqlens = view(work.cu_seqlens.as_ptr().cast(), [rollouts + 1, 0], PASSRL_I32);
        }
        batch.outcome = view(work.outcome.as_ptr().cast(), [rollouts, 0], PASSRL_F32);
        batch.format = view(work.format.as_ptr().cast(), [rollouts, 0], PASSRL_F32);
        batch.format_ok = view(work.format_ok.as_ptr().cast(), [rollouts, 0], PASSRL_U8);
        if input == Input::Steps {
            let steps = work.step_ends.len();
            batch.step_offsets = view(work.step_offsets.as_ptr().cast(), [rollouts + 1, 0], PASSRL_I32);
            batch.step_ends = view(work.step_ends.as_ptr().cast(), [steps, 0], PASSRL_I32);
            batch.step_scores = view(work.step_scores.as_ptr().cast(), [steps, 0], PASSRL_F32);
            limits.steps = steps as i64;
            bytes += 4 * (rollouts + 2 * steps);
        } else {
            let data = if padded { signal.as_ptr() } else { packed.as_ptr() };
            batch.signal[0] = view(data.cast(), token_shape, PASSRL_F32);
            bytes += 4 * work.tokens();
        }
        outputs.advantages = view(advantages.as_mut_ptr().cast(), token_shape, PASSRL_F32);

        options.threads = threads as i32;
        config.kind = if input == Input::Kl { PASSRL_KIND_KL } else { PASSRL_KIND_PRM };
        limits.rollouts = rollouts as i64;
        limits.groups = work.size.groups as i64;
        limits.tokens = slots as i64;
        limits.rollout_tokens = work.size.longest as i64;
        limits.group_rollouts = work.group_size() as i64;
        let mut workspace = 0usize;
        // SAFETY: filled structs; the handles are destroyed in `drop`.
        unsafe {
            done(passrl_context_create(&options, &mut context));
            done(passrl_plan_create(context, &config, &limits, std::ptr::null(), &mut plan));
            done(passrl_plan_workspace_size(plan, &mut workspace));
        }
        let workspace = vec![Line([0; 64]); workspace.div_ceil(64)];
        Call { context, plan, _views: views, _signal: signal, batch, outputs, advantages, workspace, bytes }
    }

    pub fn run(&mut self) {
        let workspace = self.workspace.as_mut_ptr().cast::<c_void>();
        // SAFETY: the views' memory is owned by `self` and by the workload, which outlives it.
        done(unsafe { passrl_plan_run(self.plan, &self.batch, &self.outputs, workspace, self.workspace.len() * 64, std::ptr::null_mut()) });
    }

    /// The advantages of the valid tokens, in the packed order. A padded slot that is not 0 stops the bench.
    pub fn packed(&self, work: &Workload, padded: bool) -> Vec<f32> {
        if !padded {
            return self.advantages.clone();
        }
        let mut packed = Vec::with_capacity(work.tokens());
        for (row, &length) in self.advantages.chunks(work.size.longest).zip(&work.lengths) {
            let (valid, padding) = row.split_at(length as usize);
            assert!(padding.iter().all(|v| v.to_bits() == 0), "padding is not 0");
            packed.extend_from_slice(valid);
        }
        packed
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        // SAFETY: made in `new`, given back once.
        unsafe {
            passrl_plan_destroy(self.plan);
            passrl_context_destroy(self.context);
        }
    }
}

fn zeroed<T>() -> T {
    // SAFETY: used with the ABI's plain structs only, of which all zeros is a value.
    unsafe { std::mem::zeroed() }
}

fn done(status: passrl_status) {
    // SAFETY: never NULL, zero-terminated.
    assert!(status == 0, "{}", unsafe { CStr::from_ptr(passrl_last_error()) }.to_string_lossy());
}
