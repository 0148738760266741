//! A call's pieces in device memory: every view copied there, a run on a stream, what it wrote copied back.
use crate::cases::Rng;
use crate::cut::{self, Call, Piece, Stage};
use crate::engine::{Engine, Seat};
use crate::harness::device::{self, Block};
use crate::harness::{self, Got, How, Plan, library};
use crate::oracle::{Batch, Config};
use crate::wire;
use passrl::abi::constants::*;
use passrl::abi::types::*;
use std::ffi::c_void;
use std::ptr::null_mut;
use std::sync::{Arc, Mutex};

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
            &mut b.stats_mean, &mut b.stats_std, &mut b.rollout_lam, &mut b.sum_pi_squared, &mut b.token_ratio, &mut b.piece_rollout, &mut b.piece_begin, &mut b.piece_index, &mut b.rollout_index,
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
    let run: Run = library().get("passrl_plan_run");
    call(plan, stage, |batch, outputs, workspace, bytes, stream| {
        // SAFETY: views of live device memory.
        edit(unsafe { &*batch });
        // SAFETY: a live plan, views of live device memory.
        unsafe { run(plan.plan, batch, outputs, workspace, bytes, stream) }
    })
}

/// Any function that puts work on a stream, likewise.
pub fn call(
    plan: &Plan,
    stage: &mut Stage,
    function: impl FnOnce(*const passrl_batch, *const passrl_outputs, *mut c_void, usize, *mut c_void) -> i32,
) -> (i32, String) {
    let driver = device::driver().expect("a driver");
    let (mut read, mut written) = (Twins::default(), Twins::default());
    let batch = read.batch(&stage.batch);
    let mut outputs = written.outputs(&stage.outputs);
    let report = Block::dirty(size_of::<passrl_report>(), 7);
    outputs.report = report.pointer().cast();
    let workspace = Block::dirty(plan.size("passrl_plan_workspace_size"), 7);
    let stream = driver.stream();
    let status = function(&batch, &outputs, workspace.pointer(), workspace.bytes, stream);
    let said = library().last_error();
    driver.wait(stream);
    driver.destroy_stream(stream);
    if status < 0 {
        return (status, said);
    }
    written.back();
    if report.read() == vec![7; report.bytes] {
        return (status, said);
    }
    device::judged(&report, stage.report())
}

pub type Init = unsafe extern "C" fn(*const c_void, *mut c_void, usize) -> i32;
pub type Add = unsafe extern "C" fn(*const c_void, i32, *const passrl_batch, *mut c_void, usize, *mut c_void, usize, *mut c_void) -> i32;
pub type Apply = unsafe extern "C" fn(*const c_void, *const passrl_batch, *const c_void, usize, *const passrl_outputs, *mut c_void, usize, *mut c_void) -> i32;

/// Calls one after the other by way of partials, in another order each phase; and on the CPU beside it, whose buffer must be the device's, byte by byte, after every phase. The
/// first refusal, if one is refused; `edit` is given the device's batch of each call of a phase and of the last (the number of phases).
pub fn over_time(cfg: &Config, batch: &Batch, how: &How, pieces: &[Piece], calls: &[Call], rng: &mut Rng, edit: &dyn Fn(i32, &passrl_batch)) -> Result<Got, (i32, String)> {
    let library = library();
    let (config, limits) = (harness::config(library, cfg), cut::limits(batch, pieces, how));
    let (cpu, cuda) = (library.plan(&config, &limits, how)?, library.plan(&config, &limits, &How { cuda: true, ..*how })?);
    let bytes = cuda.size("passrl_partials_size");
    assert_eq!((bytes, cuda.phases()), (cpu.size("passrl_partials_size"), cpu.phases()));
    let (init, add, apply): (Init, Add, Apply) = (library.get("passrl_partials_init"), library.get("passrl_partials_add"), library.get("passrl_plan_apply"));
    let said = |status: i32| if status < 0 { Err((status, library.last_error())) } else { Ok(status) };
    let (host, buffer) = (vec![0u64; bytes.div_ceil(8)], Block::dirty(bytes, 0x5a));
    let host_at: *mut c_void = host.as_ptr().cast_mut().cast();
    // SAFETY: live plans, batches and buffers; likewise below.
    unsafe {
        said(init(cpu.plan, host_at, bytes))?;
        said(init(cuda.plan, buffer.pointer(), bytes))?;
    }
    let workspace = cpu.workspace(how);
    for phase in 0..cuda.phases() {
        let mut order: Vec<usize> = (0..calls.len()).collect();
        cut::shuffle(&mut order, rng);
        let mut both = true;
        for c in order {
            let of = cut::parts(batch, &calls[c]);
            let mut placed = cut::place(cfg, &of, how);
            let mut stage = Stage::new(&mut placed, batch, &calls[c]);
            // SAFETY: as above.
            both &= unsafe { add(cpu.plan, phase, &stage.batch, host_at, bytes, workspace.at, workspace.bytes, null_mut()) } >= 0;
            let (status, told) = call(&cuda, &mut stage, |b, _, workspace, room, stream| {
                // SAFETY: as above.
                unsafe {
                    edit(phase, &*b);
                    add(cuda.plan, phase, b, buffer.pointer(), bytes, workspace, room, stream)
                }
            });
            if status < 0 {
                return Err((status, told));
            }
        }
        // SAFETY: the words as bytes.
        let expected = unsafe { std::slice::from_raw_parts(host.as_ptr().cast::<u8>(), bytes) };
        let found = buffer.read();
        if let (true, Some(at)) = (both, (0..bytes).find(|at| found[*at] != expected[*at])) {
            let word = |of: &[u8]| u64::from_ne_bytes(of[at / 8 * 8..at / 8 * 8 + 8].try_into().expect("eight"));
            return Err((1, format!("the buffer after phase {phase} differs at byte {at} of {bytes}: {:#x}, on the CPU {:#x}", word(&found), word(expected))));
        }
    }
    let mut all = harness::empty(batch);
    for one in calls {
        let of = cut::parts(batch, one);
        let mut placed = cut::place(cfg, &of, how);
        let mut stage = Stage::new(&mut placed, batch, one);
        stage.narrow(how.output);
        let (status, told) = call(&cuda, &mut stage, |b, o, workspace, room, stream| {
            // SAFETY: as above.
            unsafe {
                edit(cuda.phases(), &*b);
                apply(cuda.plan, b, buffer.pointer(), bytes, o, workspace, room, stream)
            }
        });
        if status < 0 {
            return Err((status, told));
        }
        all.status = all.status.max(status);
        stage.widen();
        stage.gather(&mut all);
    }
    Ok(all)
}

/// One rank's end of a run.
pub struct Told {
    pub status: i32,
    pub said: String,
    pub untouched: bool,
    pub findings: i64,
}

/// A run over ranks as threads, over an all-reduce of device memory in the order of their streams: what each says, and all that was written. `edit` changes a rank's batch
/// before it is put on the device, `late` there.
#[allow(clippy::too_many_arguments)]
pub fn over_ranks(
    engine: Engine,
    config: &passrl_config,
    cfg: &Config,
    batch: &Batch,
    how: &How,
    calls: &[Call],
    pieces: &[Piece],
    edit: &(dyn Fn(usize, &mut Stage) + Sync),
    late: &(dyn Fn(usize, &passrl_batch) + Sync),
) -> (Vec<Told>, Got) {
    let engine = Arc::new(engine);
    let all = Mutex::new(harness::empty(batch));
    let one = |rank: usize| {
        let how = How { cuda: true, ..*how };
        let seat = Seat::new(&engine, rank, true);
        device::driver().expect("a driver").use_device();
        let plan = match library().plan_over(config, &cut::limits(batch, pieces, &how), &how, &seat.collective()) {
            Ok(plan) => plan,
            Err((status, said)) => return Told { status, said, untouched: true, findings: 0 },
        };
        seat.expect(wire::messages(&plan, true));
        let of = cut::parts(batch, &calls[rank]);
        let mut placed = cut::place(cfg, &of, &How { cuda: false, ..how });
        let mut stage = Stage::new(&mut placed, batch, &calls[rank]);
        stage.narrow(how.output);
        edit(rank, &mut stage);
        let run: Run = library().get("passrl_plan_run");
        let (status, said) = call(&plan, &mut stage, |b, o, workspace, bytes, stream| {
            // SAFETY: a live plan, views of live device memory.
            unsafe {
                late(rank, &*b);
                // Memory that another rank frees waits for all work of the device: none is under way before all have made theirs.
                engine.meet();
                let status = run(plan.plan, b, o, workspace, bytes, stream);
                engine.meet();
                status
            }
        });
        engine.meet();
        let findings = stage.report().findings;
        let untouched = stage.untouched();
        if status >= 0 {
            let mut all = all.lock().unwrap();
            all.status = all.status.max(status);
            stage.widen();
            stage.gather(&mut all);
        }
        Told { status, said, untouched, findings }
    };
    let told = std::thread::scope(|scope| {
        let ranks: Vec<_> = (0..engine.size).map(|rank| scope.spawn({ let one = &one; move || one(rank) })).collect();
        ranks.into_iter().map(|rank| rank.join().expect("a rank")).collect()
    });
    let wrong = engine.wrong.lock().unwrap();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    (told, all.into_inner().unwrap())
}
