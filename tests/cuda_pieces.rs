//! Rollouts in pieces on a CUDA context, all of them in one call: cut in any way they have the bits of whole rollouts on the CPU. On the simulated driver (tests/cudasim).
mod cases;
#[path = "pieces/cut.rs"]
mod cut;
mod harness;
#[path = "pieces/on_device.rs"]
mod on_device;
mod oracle;
#[path = "cuda/world.rs"]
mod world;

use cases::{Case, Rng};
use cut::{Call, Piece, Stage};
use harness::{Got, How, device, library};
use oracle::Batch;
use passrl::abi::constants::*;
use passrl::abi::status::*;
use passrl::abi::types::*;
use world::*;

fn cuda() -> How {
    How { cuda: true, ..How::default() }
}

fn sample() -> Vec<Case> {
    let small = |b: &Batch| b.rollouts.iter().map(|r| r.len).sum::<usize>() < 3_000;
    let random = (0..60).map(cases::random).chain((0..60).map(cases::random_estimators));
    harness::serve(cases::all().into_iter().chain(random).filter(|c| small(&c.batch) && !c.batch.rollouts.is_empty() && !c.cfg.strict).collect())
}

/// All pieces of a batch in one call on the device, in any order.
fn in_one_call(case: &Case, pieces: &[Piece], rng: &mut Rng, edit: &dyn Fn(&passrl_batch)) -> Result<Got, (i32, String)> {
    let how = cuda();
    let plan = library().plan(&harness::config(library(), &case.cfg), &cut::limits(&case.batch, pieces, &how), &how)?;
    let mut pieces = pieces.to_vec();
    cut::shuffle(&mut pieces, rng);
    let call = Call::new(pieces, &case.batch, true, rng);
    let of = cut::parts(&case.batch, &call);
    let mut placed = cut::place(&case.cfg, &of, &How::default());
    let mut stage = Stage::new(&mut placed, &case.batch, &call);
    let (status, said) = on_device::run(&plan, &mut stage, edit);
    if status < 0 {
        return Err((status, said));
    }
    let mut all = harness::empty(&case.batch);
    all.status = status;
    stage.gather(&mut all);
    Ok(all)
}

#[test]
fn any_cut_in_one_call_has_the_bits_of_whole_rollouts() {
    let Some(_lock) = simulated() else { return };
    let (mut failures, mut ran, mut left) = (Vec::new(), 0, 0);
    let mut rng = Rng(5);
    let every = if std::env::var("PASSRL_RANKS").is_ok_and(|v| v == "all") { 1 } else { 3 };
    for (n, case) in sample().iter().enumerate().filter(|(n, _)| n % every == 0) {
        let Ok(whole) = harness::try_run(&case.cfg, &case.batch, &How::default()) else { continue };
        let pieces = match n % 4 {
            3 => cut::zigzag(&case.batch, 2).concat(),
            most => cut::random(&case.batch, 1 + 3 * most, &mut rng),
        };
        cudasim::seed(n as u64 % 3);
        match in_one_call(case, &pieces, &mut rng, &|_| ()) {
            Ok(got) => {
                ran += 1;
                failures.extend(cut::difference(&whole, &got).map(|d| format!("{}: {d}", case.name)));
            }
            Err((PASSRL_ERR_CONFLICT, said)) if said.contains("rollouts in pieces") || said.contains("whole groups") => left += 1,
            Err((status, said)) => failures.push(format!("{}: {status} {said}", case.name)),
        }
    }
    cudasim::seed(0);
    println!("{ran} cuts; {left} refused as on the CPU");
    assert!(failures.is_empty(), "{} of {ran} differ:\n{}", failures.len(), failures[..failures.len().min(12)].join("\n"));
    assert_eq!(cudasim::report(), "");
    assert!(ran > 60, "{ran}");
}

/// A run is a push, a memset and launches, a pop; the plan says how many.
#[test]
fn a_run_allocates_copies_and_waits_for_nothing() {
    let Some(_lock) = simulated() else { return };
    let case = named("csr");
    let pieces = cut::zigzag(&case.batch, 2).concat();
    let plan = library().plan(&harness::config(library(), &case.cfg), &cut::limits(&case.batch, &pieces, &cuda()), &cuda()).unwrap_or_else(|(_, said)| panic!("{said}"));
    let mut text = vec![0u8; 1 << 14];
    type Describe = unsafe extern "C" fn(*const std::ffi::c_void, *mut std::ffi::c_char, usize, *mut usize) -> i32;
    let describe: Describe = library().get("passrl_plan_describe");
    // SAFETY: a live plan and a buffer of that size.
    ok(unsafe { describe(plan.plan, text.as_mut_ptr().cast(), text.len(), std::ptr::null_mut()) });
    let text = String::from_utf8_lossy(&text).into_owned();
    in_one_call(&case, &pieces, &mut Rng(3), &|_| cudasim::reset()).unwrap_or_else(|(status, said)| panic!("{status} {said}"));
    let trace = cudasim::trace();
    let end = trace.iter().position(|call| call == "cuCtxPopCurrent_v2").expect("a pop");
    let count = |name: &str| trace[..end].iter().filter(|call| call.starts_with(name)).count();
    assert_eq!((trace[0].as_str(), end), ("cuCtxPushCurrent_v2", 1 + count("cuMemsetD") + count("cuLaunchKernel")), "{trace:?}");
    let (memsets, launches) = (count("cuMemsetD"), count("cuLaunchKernel"));
    let said = text.lines().find(|line| line.starts_with("launches of a run")).expect("a line");
    assert!(said.contains(&format!("{memsets} memset, ")) && [format!(" {launches} kernels"), format!(" {launches} to ")].iter().any(|n| said.contains(n)), "{said}: {memsets} and {launches}");
}

/// What the host cannot see: pieces that do not make whole rollouts give zeros and a finding, and nothing is read or written beyond.
#[test]
fn pieces_that_do_not_fit_are_told() {
    let Some(_lock) = simulated() else { return };
    let case = named("csr");
    let mut rng = Rng(3);
    let pieces = cut::zigzag(&case.batch, 2).concat();
    let driver = device::driver().expect("a driver");
    let change = |view: *const passrl_view, at: usize, number: i64| {
        // SAFETY: a view of device memory.
        let view = unsafe { &*view };
        assert_eq!(view.dtype, PASSRL_I64);
        driver.upload(view.data.addr() as u64 + 8 * at as u64, &number.to_ne_bytes());
    };
    let wrong: [(&str, &dyn Fn(&passrl_batch)); 7] = [
        ("no such rollout", &|b| change(b.piece_rollout, 0, 1 << 40)),
        ("a piece twice", &|b| change(b.piece_index, 1, driver_number(b.piece_index, 0) + 1)),
        ("no such piece", &|b| change(b.piece_index, 0, -1)),
        ("tokens left out", &|b| change(b.piece_begin, 0, driver_number(b.piece_begin, 0) + 1)),
        ("longer than its pieces", &|b| change(b.lengths, 0, driver_number(b.lengths, 0) + 9)),
        ("negative length", &|b| change(b.lengths, 1, -5)),
        ("beyond every limit", &|b| change(b.lengths, 0, 1 << 40)),
    ];
    for (what, edit) in wrong {
        let got = in_one_call(&case, &pieces, &mut rng, edit).unwrap_or_else(|(status, said)| panic!("{what}: {status} {said}"));
        assert_eq!((got.status, got.report.findings & PASSRL_FOUND_BAD_OFFSETS), (PASSRL_FINDING_BAD_OFFSETS, PASSRL_FOUND_BAD_OFFSETS), "{what}");
        assert!(got.advantages.iter().flatten().all(|a| *a == 0.0), "{what}");
    }
    assert_eq!(cudasim::report(), "");
}

/// An i64 in device memory.
fn driver_number(view: *const passrl_view, at: usize) -> i64 {
    // SAFETY: a view of device memory.
    let data = unsafe { (*view).data.addr() } as u64;
    i64::from_ne_bytes(device::driver().expect("a driver").download(data + 8 * at as u64, 8).try_into().expect("eight"))
}

#[test]
fn partials_and_collectives_of_pieces_are_refused() {
    let Some(_lock) = simulated() else { return };
    let case = named("csr");
    let pieces = cut::zigzag(&case.batch, 2).concat();
    let plan = library().plan(&harness::config(library(), &case.cfg), &cut::limits(&case.batch, &pieces, &cuda()), &cuda()).unwrap_or_else(|(_, said)| panic!("{said}"));
    let mut phases = 0;
    let ask: unsafe extern "C" fn(*const std::ffi::c_void, *mut i32) -> i32 = library().get("passrl_plan_phases");
    // SAFETY: a live plan.
    let status = unsafe { ask(plan.plan, &mut phases) };
    assert!(status == PASSRL_ERR_NOT_YET && library().last_error().contains("all pieces come in one passrl_plan_run"), "{status} {}", library().last_error());
}
