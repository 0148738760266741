//! Rollouts in pieces on a CUDA context, all of them in one call, over micro-batches, over ranks: cut in any way they have the bits of whole rollouts on the CPU. On the simulated driver (tests/cudasim).
#[path = "pieces/captured.rs"]
mod captured;
#[path = "pieces/cut.rs"]
mod cut;
// What fails once is of the tests of ranks.
#[allow(dead_code)]
#[path = "cuda_ranks/engine.rs"]
mod engine;
#[path = "pieces/on_device.rs"]
mod on_device;
#[path = "pieces/spread.rs"]
mod spread;
#[path = "ranks/wire.rs"]
mod wire;
#[path = "cuda/world.rs"]
mod world;

use cases::{Case, Input, Rng, Spec};
use cut::{Call, Piece, Stage};
use engine::Engine;
use harness::{Floats, Got, How, device, library};
use oracle::{Batch, Chunk, Credit};
use passrl::abi::constants::*;
use passrl::abi::status::*;
use passrl::abi::types::*;
use testkit::{cases, harness, oracle};
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

/// Scans of many tiles, whose carries go from piece to piece.
fn long() -> Vec<Case> {
    let mut list = Vec::new();
    let mut add = |name: &'static str, spec: Spec, edit: &dyn Fn(&mut oracle::Config)| {
        let (mut cfg, batch) = cases::build(&Spec { max_len: 330, sizes: vec![2, 3], ..spec });
        edit(&mut cfg);
        list.push(Case { name, cfg, batch, ..cases::all().swap_remove(0) });
    };
    let (of, gae) = (Spec::of, |c: &mut oracle::Config| (c.credit, c.k, c.gamma, c.lam) = (Credit::Gae, 0.0, 0.99, 0.95));
    add("long kl", of(Input::KlSignal).continuous(), &|c| c.gamma = 0.97);
    add("long kl gaps bridged", of(Input::KlSignal).gaps(), &|c| (c.gamma, c.bridge_scope_gaps) = (0.9, true));
    add("long token", of(Input::Csr), &|c| (c.chunk, c.gamma) = (Chunk::Token, 0.95));
    add("long broadcast", of(Input::Csr), &|c| c.credit = Credit::Broadcast);
    add("long dense", of(Input::Dense).gaps(), &|c| c.gamma = 0.9);
    add("long sparse", of(Input::Sparse).holes(), &|c| c.gamma = 0.9);
    add("long gae", Spec { values: true, bootstrap: true, ..of(Input::Csr).gaps() }, &|c| {
        gae(c);
        c.lam_returns = 0.9;
    });
    add("long gae over chunks", Spec { values: true, bootstrap: true, ..of(Input::KlSteps).gaps() }, &|c| {
        gae(c);
        (c.chunk, c.gae_over) = (Chunk::Segment, oracle::GaeOver::Chunks);
    });
    add("long decay", Spec { values: true, token_rewards: true, lams: true, ..of(Input::Dense).gaps() }, &|c| {
        gae(c);
        (c.scan_mask, c.whiten) = (oracle::ScanMask::Decay, oracle::Whiten::Tokens);
    });
    list
}

/// Cases, and a batch's cuts dealt out to calls: a piece here and there, whole rollouts, calls with nothing.
fn splits(n: usize, case: &Case, rng: &mut Rng) -> Vec<(&'static str, Vec<Piece>, Vec<Call>)> {
    let ranks = cut::zigzag(&case.batch, 2 + n % 2);
    let zigzag: Vec<Piece> = ranks.iter().flatten().copied().collect();
    let random = cut::random(&case.batch, 5, rng);
    let ways = [
        ("zigzag", zigzag, spread::in_calls(&case.batch, ranks, rng)),
        ("random", random.clone(), spread::deal(&case.batch, &random, 1 + n % 4, rng)),
    ];
    ways.into_iter().filter_map(|(name, pieces, calls)| calls.map(|calls| (name, pieces, calls))).collect()
}

/// A refusal that is the CPU's too.
fn is_refusal(status: i32, said: &str) -> bool {
    status == PASSRL_ERR_CONFLICT && (said.contains("rollouts in pieces") || said.contains("whole groups"))
}

fn every(sample: usize) -> usize {
    if std::env::var("PASSRL_RANKS").is_ok_and(|v| v == "all") { 1 } else { sample }
}

/// Over micro-batches: after every phase the CPU's buffer byte by byte, then the bits of whole rollouts.
#[test]
fn pieces_over_micro_batches_have_the_buffers_and_bits_of_the_cpu() {
    let Some(_lock) = simulated() else { return };
    let (mut failures, mut ran, mut left) = (Vec::new(), 0, 0);
    let mut rng = Rng(11);
    let only = std::env::var("PASSRL_CASES").unwrap_or_default();
    let every = if only.is_empty() { every(16) } else { 1 };
    let table: Vec<Case> = sample().into_iter().enumerate().filter(|(n, _)| n % every == 1 % every).map(|(_, case)| case).chain(long()).collect();
    for (n, case) in table.iter().enumerate().filter(|(_, case)| case.name.contains(&only)) {
        let how = How { other_floats: n % 2 == 0, output: [Floats::F64, Floats::F32, Floats::Bf16][n % 3], ..How::default() };
        let Ok(whole) = harness::try_run(&case.cfg, &case.batch, &how) else { continue };
        cudasim::seed(n as u64 % 3);
        for (way, pieces, calls) in splits(n, case, &mut rng) {
            match on_device::over_time(&case.cfg, &case.batch, &how, &pieces, &calls, &mut rng, &|_, _| ()) {
                Ok(mut got) => {
                    ran += 1;
                    // Numbers of a group count in each call that sees the group.
                    if case.batch.stats_mean.is_some() || case.batch.stats_std.is_some() {
                        got.report.nonfinite_values = whole.report.nonfinite_values;
                    }
                    failures.extend(cut::difference(&whole, &got).map(|d| format!("{} {way}: {d}", case.name)));
                }
                Err((status, said)) if is_refusal(status, &said) => left += 1,
                Err((status, said)) => failures.push(format!("{} {way}: {status} {said}", case.name)),
            }
        }
    }
    cudasim::seed(0);
    println!("{ran} splits; {left} refused");
    assert!(failures.is_empty(), "{} of {ran} differ:\n{}", failures.len(), failures[..failures.len().min(40)].join("\n"));
    assert_eq!(cudasim::report(), "");
    assert!(ran > 60 || !only.is_empty(), "{ran}");
}

/// Over ranks, pieces here and there, whole rollouts beside cut ones, ranks with nothing: each share has the bits of whole rollouts.
#[test]
fn pieces_over_ranks_have_the_bits_of_whole_rollouts() {
    let Some(_lock) = simulated() else { return };
    let (mut failures, mut ran, mut left) = (Vec::new(), 0, 0);
    let mut rng = Rng(17);
    let only = std::env::var("PASSRL_CASES").unwrap_or_default();
    let every = if only.is_empty() { every(24) } else { 1 };
    let table: Vec<Case> = sample().into_iter().enumerate().filter(|(n, _)| n % every == 2 % every).map(|(_, case)| case).chain(long().into_iter().skip(3).step_by(2)).collect();
    for (n, case) in table.iter().enumerate().filter(|(_, case)| case.name.contains(&only)) {
        let how = How { other_floats: n % 2 == 1, output: [Floats::Bf16, Floats::F64, Floats::F32][n % 3], ..How::default() };
        let Ok(whole) = harness::try_run(&case.cfg, &case.batch, &how) else { continue };
        let config = harness::config(library(), &case.cfg);
        let mut ways = splits(n, case, &mut rng);
        // One rollout whole on a rank, the next in three pieces on as many, a rank with none.
        let mut hands = vec![Vec::new(); 4];
        for (rollout, r) in case.batch.rollouts.iter().enumerate() {
            let third = r.len.div_ceil(3);
            match rollout % 2 {
                0 => hands[rollout / 2 % 3].push(Piece { rollout, begin: 0, slots: r.len, index: 0 }),
                _ => (0..3).for_each(|index| hands[(index + rollout) % 3].push(Piece { rollout, begin: (index * third).min(r.len), slots: third.min(r.len - (index * third).min(r.len)), index })),
            }
        }
        let pieces: Vec<Piece> = hands.iter().flatten().copied().collect();
        ways.extend(spread::in_calls(&case.batch, hands, &mut rng).map(|calls| ("whole beside cut", pieces, calls)));
        for (way, pieces, calls) in ways {
            let (told, mut got) = on_device::over_ranks(Engine::new(calls.len()), &config, &case.cfg, &case.batch, &how, &calls, &pieces, &|_, _| (), &|_, _| ());
            if let Some(refused) = told.iter().find(|t| t.status < 0 && t.status != PASSRL_ERR_COLLECTIVE) {
                match is_refusal(refused.status, &refused.said) {
                    true => left += 1,
                    false => failures.push(format!("{} {way}: {} {}", case.name, refused.status, refused.said)),
                }
                continue;
            }
            ran += 1;
            failures.extend(told.iter().filter(|t| t.status < 0).map(|t| format!("{} {way}: {} {}", case.name, t.status, t.said)));
            if case.batch.stats_mean.is_some() || case.batch.stats_std.is_some() {
                got.report.nonfinite_values = whole.report.nonfinite_values;
            }
            failures.extend(cut::difference(&whole, &got).map(|d| format!("{} {way} on {} ranks: {d}", case.name, calls.len())));
        }
    }
    println!("{ran} splits; {left} refused");
    assert!(failures.is_empty(), "{} of {ran} differ:\n{}", failures.len(), failures[..failures.len().min(40)].join("\n"));
    assert_eq!(cudasim::report(), "");
    assert!(ran > 40 || !only.is_empty(), "{ran}");
}

/// Whitened KL by value, its KL in the outcome: as many messages as a run can have.
fn with_every_message() -> (oracle::Config, Batch) {
    let spec = Spec { sizes: vec![3, 2], reference: true, ..Spec::of(Input::KlSignal).continuous() };
    let (mut cfg, batch) = cases::build(&spec);
    cfg.whiten = oracle::Whiten::Tokens;
    (cfg.kl_in_reward, cfg.kl_place, cfg.kl_coef) = (oracle::KlInReward::K1, oracle::KlPlace::Outcome, 0.1);
    (cfg, batch)
}

fn thirds(batch: &Batch) -> (Vec<Piece>, Vec<Call>) {
    let ranks = cut::zigzag(batch, 3);
    let pieces = ranks.iter().flatten().copied().collect();
    (pieces, ranks.into_iter().map(|p| Call::new(p, batch, true, &mut Rng(1))).collect())
}

/// What one rank does wrong every rank is told: its arguments, what the host cannot see, an engine that fails. Nothing but reports is written.
#[test]
fn faults_of_one_rank_are_told_to_every_rank() {
    let Some(_lock) = simulated() else { return };
    let (cfg, batch) = with_every_message();
    let (config, (pieces, calls)) = (harness::config(library(), &cfg), thirds(&batch));
    let run = |engine: Engine, edit: &(dyn Fn(usize, &mut Stage) + Sync), late: &(dyn Fn(usize, &passrl_batch) + Sync)| {
        on_device::over_ranks(engine, &config, &cfg, &batch, &How::default(), &calls, &pieces, edit, late).0
    };
    let all = |told: &[on_device::Told], at_fault: Option<(usize, i32)>, sentence: &str| {
        for (rank, t) in told.iter().enumerate() {
            let own = at_fault.filter(|(fault, _)| *fault == rank).map(|(_, status)| status);
            assert!(t.untouched, "rank {rank} wrote: {}", t.said);
            assert!(t.status == own.unwrap_or(PASSRL_ERR_COLLECTIVE) && (own.is_some() || t.said.contains(sentence)), "rank {rank}: {} {}", t.status, t.said);
        }
    };
    type Damage = fn(&mut Stage);
    let refused: [(i32, Damage); 2] = [(PASSRL_ERR_VALUE, |s| s.batch.layout = 9), (PASSRL_ERR_NULL, |s| s.batch.piece_begin = std::ptr::null())];
    for (n, (status, damage)) in refused.into_iter().enumerate() {
        let told = run(Engine::new(3), &|rank, s| if rank == n { damage(s) }, &|_, _| ());
        all(&told, Some((n, status)), &format!("arguments of rank {n} are refused"));
    }
    let driver = device::driver().expect("a driver");
    // SAFETY: a view of device memory; likewise below.
    let put = |view: *const passrl_view, number: i64| driver.upload(unsafe { (*view).data.addr() } as u64, &number.to_ne_bytes());
    all(&run(Engine::new(3), &|_, _| (), &|rank, b| if rank == 1 { put(b.piece_index, -1) }), None, "offsets of rank 1 do not fit");
    for message in [0, 1, 4] {
        let mut engine = Engine::new(3);
        engine.fails = Some(message);
        all(&run(engine, &|_, _| (), &|_, _| ()), None, "all_reduce returned 5");
    }
    assert_eq!(cudasim::report(), "");
}

/// Pieces of all ranks, or of all calls, that make no whole rollouts, or were given other rewards: zeros and a finding on every rank, in every call.
#[test]
fn pieces_that_make_no_whole_rollouts_give_zeros_everywhere() {
    let Some(_lock) = simulated() else { return };
    let (cfg, batch) = with_every_message();
    let (config, (pieces, _)) = (harness::config(library(), &cfg), thirds(&batch));
    type Damage = fn(&mut Vec<Piece>);
    let table: [(&str, Damage); 4] = [
        ("one does not come", |p| p.truncate(p.len() - 1)),
        ("one comes twice", |p| p[0].index = 0),
        ("they overlap", |p| p[1].begin -= 1),
        ("they leave tokens out", |p| p[0].begin += 3),
    ];
    let zero = |what: &str, got: &Got| assert!(got.advantages.iter().flatten().all(|a| *a == 0.0 || a.is_nan()), "{what}");
    for (what, damage) in table {
        let mut ranks = cut::zigzag(&batch, 3);
        damage(&mut ranks[1]);
        let calls: Vec<Call> = ranks.into_iter().map(|p| Call::new(p, &batch, true, &mut Rng(1))).collect();
        let limits = [pieces.clone(), pieces.clone()].concat();
        let (told, got) = on_device::over_ranks(Engine::new(3), &config, &cfg, &batch, &How::default(), &calls, &limits, &|_, _| (), &|_, _| ());
        for (rank, t) in told.iter().enumerate() {
            assert!(t.status == PASSRL_FINDING_BAD_OFFSETS && t.findings & PASSRL_FOUND_BAD_OFFSETS != 0, "{what}, rank {rank}: {} {}", t.status, t.said);
        }
        zero(what, &got);
        let got = on_device::over_time(&cfg, &batch, &How::default(), &limits, &calls, &mut Rng(2), &|_, _| ()).unwrap_or_else(|(status, said)| panic!("{what}: {status} {said}"));
        assert_eq!(got.status, PASSRL_FINDING_BAD_OFFSETS, "{what}");
        zero(what, &got);
    }
    // Other rewards on one rank than on the others.
    let (_, calls) = thirds(&batch);
    let edit = |rank: usize, s: &mut Stage| if rank == 1 { s.batch.outcome = s.batch.format };
    let (told, got) = on_device::over_ranks(Engine::new(3), &config, &cfg, &batch, &How::default(), &calls, &pieces, &edit, &|_, _| ());
    assert!(told.iter().all(|t| t.status == PASSRL_FINDING_BAD_OFFSETS), "{}", told[0].said);
    zero("other rewards", &got);
    // A piece that was another in phase 0.
    let driver = device::driver().expect("a driver");
    let edit = |phase: i32, b: &passrl_batch| {
        if phase == 3 {
            // SAFETY: a view of device memory.
            let at = unsafe { (*b.piece_begin).data.addr() } as u64;
            driver.upload(at, &(i64::from_ne_bytes(driver.download(at, 8).try_into().expect("eight")) + 1).to_ne_bytes());
        }
    };
    let Err((1, said)) = on_device::over_time(&cfg, &batch, &How::default(), &pieces, &calls, &mut Rng(2), &edit) else { panic!("the share of another piece is added") };
    assert!(said.contains("the buffer after phase 3 differs"), "{said}");
    assert_eq!(cudasim::report(), "");
}

/// A run over ranks is a push, memsets, launches and the collective's calls, a pop; the plan says how many.
#[test]
fn a_run_over_ranks_allocates_copies_and_waits_for_nothing() {
    let Some(_lock) = simulated() else { return };
    let (cfg, batch) = with_every_message();
    let (config, (pieces, _)) = (harness::config(library(), &cfg), thirds(&batch));
    let calls = vec![Call::new(pieces.clone(), &batch, true, &mut Rng(1))];
    let engine = std::sync::Arc::new(Engine::new(1));
    let seat = engine::Seat::new(&engine, 0, true);
    let plan = library().plan_over(&config, &cut::limits(&batch, &pieces, &cuda()), &cuda(), &seat.collective()).unwrap_or_else(|(_, said)| panic!("{said}"));
    seat.expect(wire::messages(&plan, true));
    let of = cut::parts(&batch, &calls[0]);
    let mut placed = cut::place(&cfg, &of, &How::default());
    let mut stage = Stage::new(&mut placed, &batch, &calls[0]);
    let (status, said) = on_device::run(&plan, &mut stage, &|_| cudasim::reset());
    assert!(status >= 0, "{status} {said}");
    let trace = cudasim::trace();
    let end = trace.iter().position(|call| call == "cuCtxPopCurrent_v2").expect("a pop");
    let count = |name: &str| trace[..end].iter().filter(|call| call.starts_with(name)).count();
    assert_eq!((trace[0].as_str(), end), ("cuCtxPushCurrent_v2", 1 + count("cuMemsetD") + count("cuLaunchKernel") + count("cuLaunchHostFunc")), "{trace:?}");
    let text = wire::describe(&plan);
    assert!(text.contains(&format!("launches of a run: {} memsets, {} kernels", count("cuMemsetD"), count("cuLaunchKernel"))), "{text}\n{trace:?}");
    assert!(text.contains("9 reductions a run"), "{text}");
}

/// A launch that fails in any phase: the call says so, nothing is left over, and the next batch has its bits.
#[test]
fn a_launch_that_fails_leaves_everything_right() {
    let Some(_lock) = simulated() else { return };
    let (cfg, batch) = with_every_message();
    let (pieces, calls) = thirds(&batch);
    let whole = harness::run(&cfg, &batch, &How::default());
    let run = || on_device::over_time(&cfg, &batch, &How::default(), &pieces, &calls, &mut Rng(2), &|_, _| ());
    assert!(run().is_ok());
    let before = cudasim::live();
    for nth in [0, 7, 16, 25, 40, 55, 70, 80] {
        cudasim::reset();
        // 2: out of memory.
        cudasim::fault("cuLaunchKernel", nth, 2);
        let Err((status, said)) = run() else { panic!("launch {nth} does not fail") };
        assert!(status == PASSRL_ERR_RESOURCE && said.contains("cuLaunchKernel(passrl_"), "launch {nth}: {status} {said}");
        assert_eq!((cudasim::faults_left(), cudasim::live()), (0, before), "launch {nth}");
    }
    cudasim::reset();
    let got = run().unwrap_or_else(|(status, said)| panic!("{status} {said}"));
    assert_eq!(cut::difference(&whole, &got), None);
}
