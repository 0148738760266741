//! Plans with a collective on a CUDA context: every rank's share has the bits of one CPU call on the whole batch, whatever the split, and what one rank does wrong every
//! rank is told. On the simulated driver (tests/cudasim), over an all-reduce of device memory in the order of the stream (tests/cuda_ranks/engine.rs).
#[path = "cuda_ranks/engine.rs"]
mod engine;
#[path = "cuda_ranks/over.rs"]
mod over;
#[path = "ranks/presets.rs"]
mod presets;
#[path = "cuda_ranks/standing.rs"]
mod standing;
#[path = "ranks/wire.rs"]
mod wire;
#[path = "cuda/world.rs"]
mod world;

use cases::Case;
use engine::{Engine, Seat};
use harness::{Got, How, Outputs, device, library, serve};
use oracle::Batch;
use over::*;
use passrl::abi::constants::*;
use passrl::abi::status::*;
use passrl::abi::types::*;
use std::sync::Arc;
use testkit::{cases, harness, oracle};
use world::*;

#[test]
fn any_split_has_the_bits_of_one_process() {
    let Some(_lock) = simulated() else { return };
    let small = |b: &Batch| b.rollouts.iter().map(|r| r.len).sum::<usize>() < 3_000;
    let table = cases::all().into_iter().filter(|c| small(&c.batch));
    let random = (0..40).map(cases::random).chain((0..40).map(cases::random_estimators));
    let sample: Vec<Case> = serve(table.chain(random).filter(|c| !c.batch.rollouts.is_empty() && in_pieces(&c.cfg) && !c.cfg.strict).collect());
    let every = every(7);
    let (mut failures, mut ran, mut left) = (Vec::new(), 0, 0);
    for (n, case) in sample.iter().enumerate().filter(|(n, _)| n % every == 0) {
        let how = How { padded: n % 4 == 0, ..How::default() };
        let Ok(whole) = harness::try_run(&case.cfg, &case.batch, &how) else { continue };
        let (config, limits) = (harness::config(library(), &case.cfg), harness::limits(&case.batch, &how));
        let size = 1 + n % 4;
        let Some(member) = draw(&case.batch, size, (n * 31 + size) as u64) else {
            left += 1;
            continue;
        };
        ran += 1;
        let world = World { cfg: &case.cfg, config: &config, limits: &limits, batch: &case.batch, member: &member };
        failures.extend(check(case.name, &world, size, &how, &whole));
        if n % 4 == 0 {
            // One rank with everything, between ranks without data.
            let member = vec![1; case.batch.rollouts.len()];
            failures.extend(check(case.name, &World { member: &member, ..world }, 3, &how, &whole));
        }
    }
    println!("{ran} splits; {left} not run: a rank would not give all inputs");
    assert!(failures.is_empty(), "{} of {ran}:\n{}", failures.len(), failures[..failures.len().min(12)].join("\n"));
    assert_eq!(cudasim::report(), "");
    assert!(ran > 50, "{ran}");
}

#[test]
fn every_preset_has_the_bits_of_one_process() {
    let Some(_lock) = simulated() else { return };
    let (mut failures, mut ran, every) = (Vec::new(), 0, every(4));
    for (n, preset) in presets::all().into_iter().enumerate() {
        if presets::of_whole_groups(&preset.config) || n % every != 0 {
            continue;
        }
        let how = How { padded: n % 3 == 0, ..How::default() };
        let limits = harness::limits(&preset.batch, &how);
        let plan = library().plan(&preset.config, &limits, &how).unwrap_or_else(|(_, said)| panic!("{}: {said}", preset.name));
        let mut placed = harness::place(&preset.cfg, &preset.batch, &how);
        let mut outputs = Outputs::new(&placed, &how);
        let (status, said) = plan.run(&mut placed, &mut outputs, &how);
        assert!(status >= 0, "{}: {said}", preset.name);
        let whole = outputs.collect(&placed, status, said);
        assert!(whole.advantages.iter().flatten().any(|a| *a != 0.0), "{}: nothing to compare", preset.name);
        let size = 2 + n % 2;
        // The rollouts of a group one after the other over all ranks.
        let member: Vec<usize> = (0..preset.batch.rollouts.len()).map(|i| i % size).collect();
        let world = World { cfg: &preset.cfg, config: &preset.config, limits: &limits, batch: &preset.batch, member: &member };
        failures.extend(check(&preset.name, &world, size, &how, &whole));
        ran += 1;
    }
    assert!(failures.is_empty(), "{} of {ran}:\n{}", failures.len(), failures[..failures.len().min(12)].join("\n"));
    assert_eq!(cudasim::report(), "");
    assert!(ran > 15, "{ran}");
}

/// Steps of equal state and baselines a token: a group's rollouts on one rank, whichever, have the bits of one process; a group on two is told on every rank, and nothing
/// is written.
#[test]
fn whole_groups_on_each_rank_serve_what_needs_them() {
    let Some(_lock) = simulated() else { return };
    let small = |b: &Batch| b.rollouts.iter().map(|r| r.len).sum::<usize>() < 3_000;
    let random = (0..120).map(cases::random_estimators).map(|mut case| {
        // Whitening takes the sets and baselines a second time.
        case.cfg.whiten = if case.batch.rollouts.len() % 2 == 0 { oracle::Whiten::Tokens } else { case.cfg.whiten };
        case
    });
    let sample = serve(cases::all().into_iter().chain(random).filter(|c| !in_pieces(&c.cfg) && !c.cfg.strict && small(&c.batch) && !c.batch.rollouts.is_empty()).collect());
    let presets = presets::all().into_iter().filter(|p| presets::of_whole_groups(&p.config));
    let (mut failures, mut ran, mut told, every) = (Vec::new(), 0, 0, every(3));
    let splits = |batch: &Batch, member: &[usize]| {
        let rank_of = |g: usize| batch.rollouts.iter().zip(member).filter(move |(r, _)| r.group == g).map(|(_, m)| *m);
        (0..batch.num_groups).find(|g| rank_of(*g).any(|m| Some(m) != rank_of(*g).next()))
    };
    for (n, case) in sample.iter().enumerate().filter(|(n, _)| n % every == 0) {
        let how = How { padded: n % 2 == 0, ..How::default() };
        let Ok(whole) = harness::try_run(&case.cfg, &case.batch, &how) else { continue };
        let (config, limits) = (harness::config(library(), &case.cfg), harness::limits(&case.batch, &how));
        let size = 1 + n % 3;
        let member: Vec<usize> = case.batch.rollouts.iter().map(|r| (r.group * 5 + n) % size).collect();
        let of = |rank| case.batch.rollouts.iter().zip(&member).filter(|(_, m)| **m == rank).map(|(r, _)| r.clone()).collect::<Vec<_>>();
        let world = World { cfg: &case.cfg, config: &config, limits: &limits, batch: &case.batch, member: &member };
        if (0..size).map(of).all(|part| part.is_empty() || harness::forms(&part) == harness::forms(&case.batch.rollouts)) {
            ran += 1;
            failures.extend(check(case.name, &world, size, &how, &whole));
        }
        let Some(member) = draw(&case.batch, 2, n as u64) else { continue };
        let Some(group) = splits(&case.batch, &member) else { continue };
        told += 1;
        for share in (World { member: &member, ..world }).plainly(2, &cuda(how)) {
            let words = format!("group {group} (batch.group_index) has rollouts on several ranks");
            assert!(share.status == PASSRL_ERR_CONFLICT && share.said.contains(&words) && share.untouched, "{}: {} {}", case.name, share.status, share.said);
        }
    }
    for preset in presets {
        let how = How::default();
        let limits = harness::limits(&preset.batch, &how);
        let whole = {
            let plan = library().plan(&preset.config, &limits, &how).unwrap_or_else(|(_, said)| panic!("{}: {said}", preset.name));
            let mut placed = harness::place(&preset.cfg, &preset.batch, &how);
            let mut outputs = Outputs::new(&placed, &how);
            let (status, said) = plan.run(&mut placed, &mut outputs, &how);
            outputs.collect(&placed, status, said)
        };
        let member: Vec<usize> = preset.batch.rollouts.iter().map(|r| r.group % 2).collect();
        let world = World { cfg: &preset.cfg, config: &preset.config, limits: &limits, batch: &preset.batch, member: &member };
        failures.extend(check(&preset.name, &world, 2, &how, &whole));
        ran += 1;
    }
    println!("{ran} splits of whole groups, {told} of others");
    assert!(failures.is_empty(), "{} of {ran}:\n{}", failures.len(), failures[..failures.len().min(12)].join("\n"));
    assert_eq!(cudasim::report(), "");
    assert!(ran > 20 && told > 8, "{ran} {told}");
}

/// A case of `csr`, over `size` ranks; `then` is given the world and the number.
fn with_csr<R>(size: usize, then: impl FnOnce(&World) -> R) -> R {
    let case = named("csr");
    let (config, limits) = (harness::config(library(), &case.cfg), harness::limits(&case.batch, &How::default()));
    let member: Vec<usize> = (0..case.batch.rollouts.len()).map(|i| i % size).collect();
    then(&World { cfg: &case.cfg, config: &config, limits: &limits, batch: &case.batch, member: &member })
}

/// What every rank says: the one at fault its own refusal, the others by their reports.
fn all_are_told(shares: &[Share], at_fault: Option<(usize, i32)>, sentence: &str) {
    for (rank, share) in shares.iter().enumerate() {
        let own = at_fault.filter(|(fault, _)| *fault == rank).map(|(_, status)| status);
        assert_eq!(share.status, own.unwrap_or(PASSRL_ERR_COLLECTIVE), "rank {rank}: {}", share.said);
        assert!(own.is_some() || share.said.contains(sentence), "rank {rank}: {}", share.said);
        assert!(share.untouched, "rank {rank} wrote");
    }
    assert_eq!(cudasim::report(), "");
}

#[test]
fn refused_arguments_are_told_to_every_rank() {
    let Some(_lock) = simulated() else { return };
    let edit: &Edit = &|rank, b| b.layout = if rank == 2 { 9 } else { b.layout };
    with_csr(3, |w| all_are_told(&w.run(Engine::new(3), &cuda(How::default()), edit, &|_, _, _| ()), Some((2, PASSRL_ERR_VALUE)), "arguments of rank 2 are refused"));
    // With whitening more messages follow, which the refused rank sends too.
    let edit: &Edit = &|rank, b| {
        if rank == 0 {
            (b.group_index, b.num_groups, b.group_size) = (std::ptr::null(), 0, 1)
        }
    };
    let tune: &Tune = &|_, c, _| c.whiten = PASSRL_WHITEN_TOKENS;
    with_csr(3, |w| all_are_told(&w.run(Engine::new(3), &cuda(How::default()), edit, tune), Some((0, PASSRL_ERR_CONFLICT)), "arguments of rank 0 are refused"));
}

#[test]
fn offsets_that_only_the_device_sees_are_told_to_every_rank() {
    let Some(_lock) = simulated() else { return };
    let edit: &Edit = &|rank, b| {
        if rank == 1 {
            // SAFETY: the arena's i32 view of that many elements, still host memory.
            unsafe { (*b.cu_seqlens).data.cast::<i32>().add(1).write(1 << 20) }
        }
    };
    for whiten in [PASSRL_WHITEN_NONE, PASSRL_WHITEN_TOKENS] {
        let tune = move |_: usize, c: &mut passrl_config, _: &mut passrl_limits| c.whiten = whiten;
        with_csr(2, |w| all_are_told(&w.run(Engine::new(2), &cuda(How::default()), edit, &tune), None, "group offsets of rank 1 do not fit"));
    }
}

#[test]
fn batches_that_give_different_inputs_are_refused() {
    let Some(_lock) = simulated() else { return };
    let plain = |c: &Case| c.batch.rollouts.len() >= 4 && c.batch.rollouts.iter().all(|r| r.outcome.is_some() && r.format.is_none() && r.format_ok.is_none());
    let case = serve(cases::all()).into_iter().find(|c| in_pieces(&c.cfg) && !c.cfg.strict && plain(c)).expect("a case");
    let (config, limits) = (harness::config(library(), &case.cfg), harness::limits(&case.batch, &How::default()));
    let member: Vec<usize> = (0..case.batch.rollouts.len()).map(|i| i % 2).collect();
    let world = World { cfg: &case.cfg, config: &config, limits: &limits, batch: &case.batch, member: &member };
    let edit: &Edit = &|rank, b| {
        if rank == 1 {
            b.format = b.outcome
        }
    };
    all_are_told(&world.run(Engine::new(2), &cuda(How::default()), edit, &|_, _, _| ()), None, "different inputs");
}

#[test]
fn a_failing_engine_fails_the_run() {
    let Some(_lock) = simulated() else { return };
    for call in 0..4 {
        let mut engine = Engine::new(2);
        engine.fails = Some(call);
        let tune: &Tune = &|_, c, _| c.whiten = PASSRL_WHITEN_ROLLOUTS;
        with_csr(2, |w| all_are_told(&w.run(engine, &cuda(How::default()), &|_, _| (), tune), None, "all_reduce returned 5"));
    }
}

#[test]
fn plans_that_differ_are_refused_by_name() {
    let Some(_lock) = simulated() else { return };
    let table: [(&str, &Tune); 4] = [
        ("config.k differs: 0.5 on some rank and 0.75 on another", &|rank, c, _| c.k = 0.5 + 0.25 * rank as f64),
        ("config.outcome.center differs: group on some rank and leave_one_out on another", &|rank, c, _| {
            c.streams[PASSRL_STREAM_OUTCOME].center = if rank == 0 { PASSRL_CENTER_LEAVE_ONE_OUT } else { PASSRL_CENTER_GROUP }
        }),
        ("limits.tokens is", &|rank, _, l| l.tokens += rank as i64),
        ("limits.groups is", &|rank, _, l| l.groups += rank as i64),
    ];
    for (sentence, tune) in table {
        let before = cudasim::live().allocations;
        with_csr(2, |w| all_are_told(&w.run(Engine::new(2), &cuda(How::default()), &|_, _| (), tune), None, sentence));
        assert_eq!(cudasim::live().allocations, before, "device memory is left over");
    }
    let tune: &Tune = &|rank, c, _| c.kind = if rank == 1 { 77 } else { c.kind };
    with_csr(2, |w| all_are_told(&w.run(Engine::new(2), &cuda(How::default()), &|_, _| (), tune), Some((1, PASSRL_ERR_VALUE)), "arguments of rank 1 are refused"));
}

/// Leave-one-out by rollout, where one rollout alone is refused: alone on its rank is not alone in its group.
#[test]
fn one_rollout_of_a_group_is_one_over_all_ranks() {
    let Some(_lock) = simulated() else { return };
    let mut case = named("op_loo_rollout");
    case.cfg.set_singleton_all(oracle::Singleton::Refuse);
    // Of group 0 one rollout is left, of every other all.
    let mut seen = false;
    case.batch.rollouts.retain(|r| r.group != 0 || !std::mem::replace(&mut seen, true));
    let how = How::default();
    let whole = harness::run(&case.cfg, &case.batch, &how);
    assert_eq!((whole.status, whole.report.bad_groups), (PASSRL_FINDING_SINGLETON, 1), "{}", whole.message);
    let (config, limits) = (harness::config(library(), &case.cfg), harness::limits(&case.batch, &how));
    let size = case.batch.rollouts.len();
    // Every rollout on a rank of its own.
    let member: Vec<usize> = (0..size).collect();
    let world = World { cfg: &case.cfg, config: &config, limits: &limits, batch: &case.batch, member: &member };
    let failures = check(case.name, &world, size, &how, &whole);
    assert!(failures.is_empty() && cudasim::report().is_empty(), "{}", failures.join("\n"));
}

#[test]
fn a_collective_of_other_memory_is_refused() {
    let Some(_lock) = simulated() else { return };
    let engine = Arc::new(Engine::new(1));
    let (host, on_device) = (Seat::new(&engine, 0, false), Seat::new(&engine, 0, true));
    with_csr(1, |w| {
        let refusal = |how: &How, c: &passrl_collective| library().plan_over(w.config, w.limits, how, c).err().expect("refused");
        let (status, said) = refusal(&cuda(How::default()), &host.collective());
        assert!(status == PASSRL_ERR_CONFLICT && said.contains("collective takes host memory"), "{status} {said}");
        let (status, said) = refusal(&How::default(), &on_device.collective());
        assert!(status == PASSRL_ERR_CONFLICT && said.contains("collective takes device memory"), "{status} {said}");
        let mut bad = on_device.collective();
        bad.device_type = 7;
        let (status, said) = refusal(&cuda(How::default()), &bad);
        assert!(status == PASSRL_ERR_VALUE && said.contains("collective.device_type is 7"), "{status} {said}");
    });
    assert_eq!((host.calls.load(std::sync::atomic::Ordering::SeqCst), on_device.calls.load(std::sync::atomic::Ordering::SeqCst)), (0, 0));
}

/// `passrl_nccl_collective` on a CUDA context, over the stand-in for NCCL (tests/nccl/standin.c) on the simulated driver's memory.
#[test]
fn nccl_on_a_cuda_context_has_the_bits_of_one_process() {
    let Some(_lock) = simulated() else { return };
    let folder = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("nccl-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder below target/tmp");
    let path = folder.join("libnccl.so.2");
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/nccl/standin.c");
    let mut cc = std::process::Command::new("cc");
    cc.args(["-std=gnu11", "-O1", "-shared", "-fPIC", "-Wall", "-Wextra", "-Werror", "-Wl,-soname,libnccl.so.2", "-o"]).arg(&path).arg(source).args(["-lpthread", "-ldl"]);
    assert!(cc.status().is_ok_and(|status| status.success()), "cc does not compile {source}");
    // SAFETY: the test's own library; loaded before the shipped one looks for that name.
    let standin = unsafe { libloading::Library::new(&path) }.expect("the stand-in");
    const SIZE: usize = 3;
    let mut comms = [0usize; SIZE];
    // SAFETY: functions of the stand-in, by the types of its source.
    unsafe {
        let device: libloading::Symbol<unsafe extern "C" fn(*const std::ffi::c_char) -> i32> = standin.get(b"standin_device").expect("standin_device");
        let world: libloading::Symbol<unsafe extern "C" fn(i32, *mut usize)> = standin.get(b"standin_world").expect("standin_world");
        assert_eq!(device(c"libcuda.so".as_ptr()), 0);
        world(SIZE as i32, comms.as_mut_ptr());
    }
    for name in ["csr", "whiten_tokens", "kl_quantised"] {
        let case = named(name);
        let whole = harness::run(&case.cfg, &case.batch, &How::default());
        let (config, limits) = (harness::config(library(), &case.cfg), harness::limits(&case.batch, &How::default()));
        // Everything made before the first run, everything freed after the last: `meet`.
        let engine = Arc::new(Engine::new(SIZE));
        let one = |rank: usize| {
            let how = cuda(How::default());
            let mut collective: passrl_collective = library().initial();
            let fill: unsafe extern "C" fn(*mut passrl_collective, u32, usize) -> i32 = library().get("passrl_nccl_collective");
            // SAFETY: a struct of that size, a communicator of the stand-in's.
            ok(unsafe { fill(&mut collective, size_of::<passrl_collective>() as u32, comms[rank]) });
            assert_eq!((collective.device_type, collective.rank, collective.size), (PASSRL_CUDA, rank as i32, SIZE as i32));
            device::driver().expect("a driver").use_device();
            let plan = library().plan_over(&config, &limits, &how, &collective).unwrap_or_else(|(_, said)| panic!("{said}"));
            let part = Batch { rollouts: case.batch.rollouts.iter().skip(rank).step_by(SIZE).cloned().collect(), ..case.batch.clone() };
            let mut placed = harness::place(&case.cfg, &part, &how);
            let mut outputs = Outputs::new(&placed, &how);
            let run: Run = library().get("passrl_plan_run");
            let (status, said) = device::call(&plan, &mut placed, &mut outputs, &how, |batch, outputs, workspace, bytes, stream| {
                engine.meet();
                // SAFETY: a live plan, views of live device memory.
                let status = unsafe { run(plan.plan, batch, outputs, workspace, bytes, stream) };
                engine.meet();
                status
            });
            assert!(status >= 0, "{name}: {status} {said}");
            outputs.collect(&placed, status, said)
        };
        let shares: Vec<Got> = std::thread::scope(|scope| {
            let ranks: Vec<_> = (0..SIZE).map(|rank| scope.spawn({ let one = &one; move || one(rank) })).collect();
            ranks.into_iter().map(|rank| rank.join().expect("a rank")).collect()
        });
        let mut all = harness::empty(&case.batch);
        for (rank, share) in shares.iter().enumerate() {
            let rows: Vec<usize> = (rank..case.batch.rollouts.len()).step_by(SIZE).collect();
            harness::gather(&mut all, &rows, share);
        }
        assert_eq!(all.bits(), whole.bits(), "{name}");
    }
    assert_eq!(cudasim::report(), "");
}
