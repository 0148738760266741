//! What goes wrong around the CUDA backend: refused arguments, device data that does not fit, driver calls that fail one after the other. Every time a status
//! and a sentence, the caller's context as it was, nothing leaked, and work again afterwards. On the simulated driver, through the shipped library.
#[path = "cuda/world.rs"]
mod world;

use harness::device::{self, Block};
use harness::{How, Outputs, Placed, library};
use passrl::abi::constants::*;
use passrl::abi::status::*;
use passrl::abi::types::*;
use std::ffi::c_void;
use std::ptr::null_mut;
use testkit::{cases, harness};
use world::*;

fn how() -> How {
    How { cuda: true, ..How::default() }
}

/// A run of a case whose placed batch `edit` has changed, on the device: status and sentence.
fn run_edited(name: &str, how: &How, edit: impl FnOnce(&mut Placed)) -> (i32, String, Option<harness::Got>) {
    let case = named(name);
    let plan = plan_of(&case, how);
    let mut placed = harness::place(&case.cfg, &case.batch, how);
    edit(&mut placed);
    let mut outputs = Outputs::new(&placed, how);
    let (status, said) = plan.run(&mut placed, &mut outputs, how);
    let got = (status >= 0).then(|| outputs.collect(&placed, status, said.clone()));
    (status, said, got)
}

#[test]
fn memory_of_another_place_is_refused_by_name() {
    let Some(_lock) = simulated() else { return };
    let case = named("csr");
    // Host views on a CUDA plan.
    let plan = plan_of(&case, &how());
    let mut placed = harness::place(&case.cfg, &case.batch, &how());
    let mut outputs = Outputs::new(&placed, &how());
    let workspace = Block::new(plan.size("passrl_plan_workspace_size"));
    let run: Run = library().get("passrl_plan_run");
    let mut raw = outputs.raw();
    raw.report = null_mut();
    let go = |placed: &Placed, raw: &passrl_outputs, workspace: *mut c_void, bytes: usize| {
        // SAFETY: refused before anything is touched.
        let status = unsafe { run(plan.plan, &placed.batch, raw, workspace, bytes, null_mut()) };
        (status, library().last_error())
    };
    let (status, said) = go(&placed, &raw, workspace.pointer(), workspace.bytes);
    assert!(status == PASSRL_ERR_DEVICE && said.contains("batch.cu_seqlens is in host memory, the context is CUDA device 0"), "{status} {said}");
    // Another device's.
    device::Mirror::of(&mut [&mut placed.arena, outputs.arena_mut()]);
    // SAFETY: the arena's view.
    unsafe { (*placed.batch.outcome.cast_mut()).device_id = 3 };
    let (status, said) = go(&placed, &raw, workspace.pointer(), workspace.bytes);
    assert!(status == PASSRL_ERR_DEVICE && said.contains("batch.outcome is on CUDA device 3, the context on device 0"), "{status} {said}");
    // SAFETY: as above.
    unsafe { (*placed.batch.outcome.cast_mut()).device_id = 0 };
    // Workspace and report.
    let (status, said) = go(&placed, &raw, workspace.pointer(), workspace.bytes - 1);
    assert!(status == PASSRL_ERR_WORKSPACE && said.contains(&format!("has {} bytes", workspace.bytes - 1)), "{status} {said}");
    raw.report = workspace.pointer().wrapping_byte_add(4).cast();
    let (status, said) = go(&placed, &raw, workspace.pointer(), workspace.bytes);
    assert!(status == PASSRL_ERR_WORKSPACE && said.contains("outputs.report"), "{status} {said}");
    // Device views on a CPU plan.
    let cpu = plan_of(&case, &How { cuda: false, ..how() });
    raw.report = null_mut();
    // SAFETY: as above.
    let status = unsafe { run(cpu.plan, &placed.batch, &raw, workspace.pointer(), workspace.bytes, null_mut()) };
    let said = library().last_error();
    assert!(status == PASSRL_ERR_DEVICE && said.contains("batch.cu_seqlens is on CUDA device 0, the context is the CPU"), "{status} {said}");
}

#[test]
fn what_the_device_does_not_serve_is_said() {
    let Some(_lock) = simulated() else { return };
    let case = named("csr");
    let mut config = harness::config(library(), &case.cfg);
    config.strict = 1;
    let (status, said) = library().plan(&config, &harness::limits(&case.batch, &how()), &how()).err().expect("refused");
    assert!(status == PASSRL_ERR_CONFLICT && said.contains("config.strict") && said.contains("passrl_report_status"), "{status} {said}");
    config.strict = 0;
    unsafe extern "C" fn reduce(_: *mut c_void, _: *mut c_void, _: usize, _: i32, _: i32, _: *mut c_void) -> i32 {
        0
    }
    let mut collective: passrl_collective = library().initial();
    collective.all_reduce = Some(reduce);
    collective.size = 1;
    let (status, said) = library().plan_over(&config, &harness::limits(&case.batch, &how()), &how(), &collective).err().expect("refused");
    assert!(status == PASSRL_ERR_CONFLICT && said.contains("collective takes host memory"), "{status} {said}");
    for (device, wanted, words) in [(1, PASSRL_ERR_NO_DEVICE, "options.device is 1; the driver knows 1 device"), (-2, PASSRL_ERR_VALUE, "options.device is -2")] {
        let (status, said) = self::context(|o| o.device = device).expect_err("refused");
        assert!(status == wanted && said.contains(words), "{status} {said}");
    }
    for (edit, words) in [((|o| o.kernels = 3) as fn(&mut passrl_context_options), "options.kernels is 3"), (|o| o.reserved1 = 1, "options.reserved1 is 1")] {
        let (status, said) = self::context(edit).expect_err("refused");
        assert!(status == PASSRL_ERR_VALUE && said.contains(words), "{status} {said}");
    }
}

/// Changes integers of a placed view.
fn poke(view: *const passrl_view, at: usize, to: i32) {
    // SAFETY: an i32 view of the arena with that many elements.
    unsafe { (*view).data.cast::<i32>().add(at).write(to) }
}

#[test]
fn offsets_that_the_host_cannot_see_are_found_and_nothing_is_read_beyond() {
    let Some(_lock) = simulated() else { return };
    type Edit = fn(&mut Placed);
    let whole_batch: [(&str, bool, Edit); 6] = [
        ("cu_seqlens decrease", false, |p| poke(p.batch.cu_seqlens, 2, 0)),
        ("cu_seqlens begin below 0", false, |p| poke(p.batch.cu_seqlens, 0, -5)),
        ("cu_seqlens reach beyond N", false, |p| poke(p.batch.cu_seqlens, p.batch.num_rollouts as usize, 1 << 30)),
        ("cu_seqlens reach far below 0", false, |p| poke(p.batch.cu_seqlens, 3, i32::MIN)),
        ("a length beyond T", true, |p| poke(p.batch.lengths, 1, 1 << 20)),
        ("a length below 0", true, |p| poke(p.batch.lengths, 0, -1)),
    ];
    for (name, padded, edit) in whole_batch {
        for case in ["csr", "dense", "kl_quantised", "whiten_add_std"] {
            let (status, said, got) = run_edited(case, &How { padded, ..how() }, edit);
            assert_eq!(status, PASSRL_FINDING_BAD_OFFSETS, "{case}, {name}: {status} {said}");
            assert!(said.contains("do not fit"), "{said}");
            let got = got.expect("done");
            assert!(got.report.findings & PASSRL_FOUND_BAD_OFFSETS != 0, "{case}, {name}");
            assert!(got.advantages.iter().flatten().all(|a| *a == 0.0), "{case}, {name}: an advantage is not 0");
            assert_eq!(cudasim::report(), "", "{case}, {name}");
        }
    }
    // A group that is none: its rollout alone has advantage 0.
    for number in [-1, 1 << 20] {
        let (status, said, got) = run_edited("csr", &how(), |p| poke(p.batch.group_index, 0, number));
        assert!(status > 0 && got.as_ref().is_some_and(|g| g.report.findings & PASSRL_FOUND_BAD_OFFSETS != 0), "group {number}: {status} {said}");
        let got = got.expect("done");
        assert!(got.advantages[0].iter().all(|a| *a == 0.0) && got.advantages.iter().flatten().any(|a| *a != 0.0), "group {number}");
        assert_eq!(cudasim::report(), "", "group {number}");
    }
    // Steps: a finding of the rollout, as on the CPU; offsets of steps that lie outside likewise.
    let steps: [(&str, Edit); 4] = [
        ("step offsets decrease", |p| poke(p.batch.step_offsets, 2, 0)),
        ("step offsets beyond S", |p| poke(p.batch.step_offsets, 1, 1 << 28)),
        ("step offsets below 0", |p| poke(p.batch.step_offsets, 1, -7)),
        ("a step's end beyond its rollout", |p| poke(p.batch.step_ends, 0, 1 << 28)),
    ];
    for (name, edit) in steps {
        let (status, said, got) = run_edited("csr", &how(), edit);
        assert!(status > 0, "{name}: {status} {said}");
        assert!(got.is_some_and(|g| g.report.findings & (PASSRL_FOUND_BAD_STEPS | PASSRL_FOUND_BAD_OFFSETS) != 0), "{name}");
        assert_eq!(cudasim::report(), "", "{name}");
    }
}

/// What a child inherits is refused to it without a driver call, may be destroyed, and its parent goes on.
#[test]
fn a_forked_child_is_refused_and_may_use_the_cpu() {
    let Some(_lock) = simulated() else { return };
    let case = named("csr");
    let plan = plan_of(&case, &how());
    let own = context(|_| ()).expect("a context");
    let mut placed = harness::place(&case.cfg, &case.batch, &how());
    let mut outputs = Outputs::new(&placed, &how());
    let raw = outputs.raw();
    device::Mirror::of(&mut [&mut placed.arena, outputs.arena_mut()]);
    let workspace = Block::new(plan.size("passrl_plan_workspace_size"));
    let run: Run = library().get("passrl_plan_run");
    let destroy: unsafe extern "C" fn(*mut c_void) = library().get("passrl_plan_destroy");
    let make: unsafe extern "C" fn(*const passrl_context_options, *mut *mut c_void) -> i32 = library().get("passrl_context_create");
    let options: passrl_context_options = library().initial();
    let raw = passrl_outputs { report: null_mut(), ..raw };
    let status_of: unsafe extern "C" fn() -> *const std::ffi::c_char = library().get("passrl_last_error");
    cudasim::reset();
    // SAFETY: the child calls the library alone and ends at once.
    let child = unsafe { libc::fork() };
    if child == 0 {
        let mut cpu = null_mut();
        // SAFETY: inherited handles, refused before anything is touched; views of live memory.
        let failed = unsafe {
            let refused = run(plan.plan, &placed.batch, &raw, workspace.pointer(), workspace.bytes, null_mut()) == PASSRL_ERR_FORK;
            let said = std::ffi::CStr::from_ptr(status_of()).to_bytes().windows(4).any(|w| w == b"fork");
            destroy(plan.plan);
            destroy_context(own);
            let calls = cudasim::calls("cuCtxPushCurrent_v2") + cudasim::calls("cuModuleUnload") + cudasim::calls("cuMemFree_v2");
            i32::from(!refused) | i32::from(!said) << 1 | i32::from(calls != 0) << 2 | i32::from(make(&options, &mut cpu) != 0) << 3
        };
        // SAFETY: ends the child without the test harness.
        unsafe { libc::_exit(failed) };
    }
    let mut status = 0;
    // SAFETY: the child above.
    unsafe { libc::waitpid(child, &mut status, 0) };
    assert_eq!(status, 0, "bits 8..: run not refused 1, no word of a fork 2, a driver call 4, no CPU context 8");
    destroy_context(own);
    let got = harness::run(&case.cfg, &case.batch, &how());
    assert_eq!(got.bits(), harness::run(&case.cfg, &case.batch, &How { cuda: false, ..how() }).bits(), "the parent goes on");
}

/// Every call of the driver that a context, a plan and a run make, by name, in order.
fn calls_of(work: impl FnOnce()) -> Vec<String> {
    cudasim::reset();
    work();
    cudasim::trace()
}

const OUT_OF_MEMORY: i32 = 2;
const INVALID_IMAGE: i32 = 200;
const ILLEGAL_ADDRESS: i32 = 700;
const NOT_FOUND: i32 = 500;
const INVALIDATED: i32 = 901;

#[test]
fn every_driver_call_may_fail() {
    let Some(_lock) = simulated() else { return };
    let case = named("whiten_add_std");
    let config = harness::config(library(), &case.cfg);
    let limits = harness::limits(&case.batch, &how());
    let driver = device::driver().expect("a driver");
    type CreatePlan = unsafe extern "C" fn(*const c_void, *const passrl_config, *const passrl_limits, *const passrl_collective, *mut *mut c_void) -> i32;
    let create: CreatePlan = library().get("passrl_plan_create");
    let destroy: unsafe extern "C" fn(*mut c_void) = library().get("passrl_plan_destroy");
    let run: Run = library().get("passrl_plan_run");
    // A batch on the device, outside of what is counted.
    let mut placed = harness::place(&case.cfg, &case.batch, &how());
    let mut outputs = Outputs::new(&placed, &how());
    let mut raw = outputs.raw();
    let mirror = device::Mirror::of(&mut [&mut placed.arena, outputs.arena_mut()]);
    let (workspace, report) = (Block::new(1 << 20), Block::new(size_of::<passrl_report>()));
    raw.report = report.pointer().cast();
    let stream = driver.stream();
    // The first refusal, or 0.
    let work = || -> (i32, String) {
        let context = match context(|_| ()) {
            Ok(context) => context,
            Err(refusal) => return refusal,
        };
        let mut plan = null_mut();
        // SAFETY: live handles and device memory.
        unsafe {
            let mut status = create(context, &config, &limits, std::ptr::null(), &mut plan);
            let mut said = library().last_error();
            if status == 0 {
                status = run(plan, &placed.batch, &raw, workspace.pointer(), workspace.bytes, stream);
                said = library().last_error();
                destroy(plan);
            }
            destroy_context(context);
            (status, said)
        }
    };
    let wait: unsafe extern "C" fn(*mut c_void) -> i32 = driver.get("cuStreamSynchronize");
    let current: unsafe extern "C" fn(*mut *mut c_void) -> i32 = driver.get("cuCtxGetCurrent");
    let now = || {
        let mut context = null_mut();
        // SAFETY: writes one handle.
        unsafe { current(&mut context) };
        context
    };
    let calls = calls_of(|| assert_eq!(work(), (0, String::new())));
    driver.wait(stream);
    let before = (cudasim::live(), now());
    // What undoes things has no one to tell.
    let undoing = ["cuModuleUnload", "cuMemFree_v2", "cuDevicePrimaryCtxRelease_v2", "cuCtxPopCurrent_v2", "cuGetErrorName", "cuGetErrorString"];
    let mut tried = 0;
    for (at, name) in calls.iter().enumerate().filter(|(_, name)| !undoing.contains(&name.as_str())) {
        let nth = calls[..at].iter().filter(|other| *other == name).count() as i32;
        // Each of the sorts of failure that there are, in turn.
        let code = [OUT_OF_MEMORY, ILLEGAL_ADDRESS, NOT_FOUND, INVALIDATED][at % 4];
        cudasim::reset();
        cudasim::fault(name, nth, code);
        let (status, said) = work();
        // SAFETY: a live stream.
        unsafe { wait(stream) };
        if name == "cuCtxPushCurrent_v2" && status == 0 {
            // Pushed to undo something.
            cudasim::reset();
            continue;
        }
        tried += 1;
        assert!(status < 0 && said.contains(name.trim_end_matches("_v2")) && said.contains(&format!("({code})")), "{name} {nth} failing with {code}: {status} {said}");
        let wanted = if code == OUT_OF_MEMORY { [PASSRL_ERR_RESOURCE, PASSRL_ERR_NO_DEVICE] } else { [PASSRL_ERR_DRIVER, PASSRL_ERR_NO_DEVICE] };
        assert!(wanted.contains(&status), "{name} failing with {code}: {status} {said}");
        assert_eq!(cudasim::faults_left(), 0, "{name} {nth}");
        cudasim::reset();
        assert_eq!((cudasim::live(), now()), before, "{name} {nth} failing with {code}: something leaked, or the caller's context is another");
        assert_eq!(work().0, 0, "after {name} {nth} failed with {code}: {}", library().last_error());
        driver.wait(stream);
        assert_eq!((cudasim::live(), now()), before, "after {name} failed");
    }
    assert!(tried > 25, "{tried} of {calls:?}");
    // Failing undoings: silent, and the next context works.
    for name in &undoing[..3] {
        cudasim::fault(name, 0, ILLEGAL_ADDRESS);
        assert_eq!(work().0, 0, "{name}");
        cudasim::reset();
        assert_eq!(work().0, 0, "after {name} failed");
    }
    // An image that is refused: another is looked for, and here there is none.
    cudasim::fault("cuModuleLoadDataEx", 0, INVALID_IMAGE);
    let (status, said) = work();
    assert!(status == PASSRL_ERR_DRIVER && said.contains("refuses what NVRTC 12.99 made"), "{status} {said}");
    cudasim::reset();
    driver.destroy_stream(stream);
    mirror.back(&mut [&mut placed.arena, outputs.arena_mut()]);
}
