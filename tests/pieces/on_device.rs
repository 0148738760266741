//! A call's pieces in device memory: every view copied there, a run on a stream, what it wrote copied back.
use crate::cut::Stage;
use crate::harness::device::{self, Block};
use crate::harness::{Plan, library};
use passrl::abi::constants::*;
use passrl::abi::types::*;
use std::ffi::c_void;

type Run = unsafe extern "C" fn(*const c_void, *const passrl_batch, *const passrl_outputs, *mut c_void, usize, *mut c_void) -> i32;

/// Host memory of a view and its twin.
struct Twin {
    host: *mut u8,
    block: Block,
    view: Box<passrl_view>,
}

#[derive(Default)]
pub struct Twins(Vec<Twin>);

impl Twins {
    fn of(&mut self, view: &mut *const passrl_view) {
        // SAFETY: NULL, or a view of the test's own memory.
        let Some(v) = (unsafe { view.as_ref() }) else { return };
        let each = match v.dtype {
            PASSRL_F64 | PASSRL_I64 => 8,
            PASSRL_F32 | PASSRL_I32 => 4,
            PASSRL_F16 | PASSRL_BF16 => 2,
            _ => 1,
        };
        let last: i64 = (0..v.ndim as usize).map(|d| (v.shape[d] - 1).max(0) * v.stride[d]).sum();
        let empty = (0..v.ndim as usize).any(|d| v.shape[d] == 0);
        let bytes = if empty { 0 } else { (last as usize + 1) * each };
        // SAFETY: from the first element to the last.
        let block = Block::of(unsafe { std::slice::from_raw_parts(v.data.cast::<u8>(), bytes) });
        let twin = passrl_view { data: block.pointer(), device_type: PASSRL_CUDA, device_id: 0, ..*v };
        self.0.push(Twin { host: v.data.cast(), block, view: Box::new(twin) });
        *view = &*self.0[self.0.len() - 1].view;
    }

    /// The batch in device memory.
    pub fn batch(&mut self, b: &passrl_batch) -> passrl_batch {
        let mut b = *b;
        for view in [
            &mut b.cu_seqlens, &mut b.lengths, &mut b.mask, &mut b.group_index, &mut b.group_offsets, &mut b.outcome, &mut b.format, &mut b.format_ok, &mut b.in_stats,
            &mut b.absent, &mut b.logp_policy, &mut b.logp_teacher, &mut b.logp_base, &mut b.logp_reference, &mut b.logp_behavior, &mut b.step_offsets, &mut b.step_ends,
            &mut b.step_begins, &mut b.step_scores, &mut b.step_marks, &mut b.chunk_ends, &mut b.values, &mut b.bootstrap, &mut b.token_rewards, &mut b.baselines,
            &mut b.stats_mean, &mut b.stats_std, &mut b.rollout_lam, &mut b.piece_rollout, &mut b.piece_begin, &mut b.piece_index, &mut b.rollout_index,
        ] {
            self.of(view);
        }
        b.signal.iter_mut().chain(&mut b.extra).for_each(|view| self.of(view));
        b
    }

    pub fn outputs(&mut self, o: &passrl_outputs) -> passrl_outputs {
        let mut o = *o;
        for view in [
            &mut o.advantages, &mut o.returns, &mut o.path_scores, &mut o.num_chunks, &mut o.rollout_flags, &mut o.stats_mean, &mut o.stats_std, &mut o.stats_absmax,
            &mut o.stats_count, &mut o.group_flags,
        ] {
            self.of(view);
        }
        o
    }

    /// What the device holds, where the host's was.
    pub fn back(&self) {
        for twin in &self.0 {
            let bytes = twin.block.read();
            // SAFETY: as many bytes of the test's own memory.
            unsafe { twin.host.copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) };
        }
    }
}

/// One `passrl_plan_run` on a stream, right after `edit` of the batch in device memory; the report's status and sentence where the call itself is not refused.
pub fn run(plan: &Plan, stage: &mut Stage, edit: &dyn Fn(&passrl_batch)) -> (i32, String) {
    let driver = device::driver().expect("a driver");
    let (mut read, mut written) = (Twins::default(), Twins::default());
    let batch = read.batch(&stage.batch);
    let mut outputs = written.outputs(&stage.outputs);
    let report = Block::dirty(size_of::<passrl_report>(), 7);
    outputs.report = report.pointer().cast();
    let workspace = Block::dirty(plan.size("passrl_plan_workspace_size"), 7);
    let stream = driver.stream();
    let run: Run = library().get("passrl_plan_run");
    edit(&batch);
    // SAFETY: a live plan, views of live device memory.
    let status = unsafe { run(plan.plan, &batch, &outputs, workspace.pointer(), workspace.bytes, stream) };
    let said = library().last_error();
    driver.wait(stream);
    driver.destroy_stream(stream);
    if status < 0 {
        return (status, said);
    }
    written.back();
    device::judged(&report, stage.report())
}
