//! Calls of the CUDA backend other than a plain run: partials, graphs, several streams and threads, what is refused, device data that does not fit, failing driver
//! calls. On the simulated driver (tests/cudasim), through the shipped library.
#[path = "cuda/world.rs"]
mod world;

use cases::Case;
use harness::device::{self, Block, Mirror};
use harness::{Got, How, Outputs, Plan, library, serve};
use oracle::{Batch, StepSets, TokenBaseline, Whiten};
use passrl::abi::status::*;
use passrl::abi::types::*;
use std::ffi::c_void;
use std::ptr::null_mut;
use testkit::{cases, harness, oracle};
use world::*;

/// Cases for the longer tests: every kind of statistics, none of them large.
fn sample(more: impl Fn(&Case) -> bool) -> Vec<Case> {
    let in_pieces = |c: &Case| c.cfg.step_sets == StepSets::Group && c.cfg.token_baseline == TokenBaseline::None;
    let small = |c: &Case| (1..400).contains(&c.batch.rollouts.iter().map(|r| r.len).sum::<usize>());
    serve(cases::all().into_iter().filter(|c| in_pieces(c) && small(c) && !c.cfg.strict && more(c)).collect())
}

type Init = unsafe extern "C" fn(*const c_void, *mut c_void, usize) -> i32;
type Add = unsafe extern "C" fn(*const c_void, i32, *const passrl_batch, *mut c_void, usize, *mut c_void, usize, *mut c_void) -> i32;
type Merge = unsafe extern "C" fn(*const c_void, *mut c_void, usize, *const c_void, usize) -> i32;
type Apply = unsafe extern "C" fn(*const c_void, *const passrl_batch, *const c_void, usize, *const passrl_outputs, *mut c_void, usize, *mut c_void) -> i32;

/// A case in slices of its rollouts.
fn slices(case: &Case, count: usize) -> Vec<(Vec<usize>, Batch)> {
    let rows = |s: usize| (0..case.batch.rollouts.len()).filter(|i| i % count == s).collect::<Vec<_>>();
    let part = |rows: &[usize]| case.batch.with(rows.iter().map(|i| case.batch.rollouts[*i].clone()).collect());
    (0..count).map(rows).filter(|rows| !rows.is_empty()).map(|rows| { let part = part(&rows); (rows, part) }).collect()
}

/// The buffer after every phase over all slices, as bytes; every slice shaped.
fn by_partials(case: &Case, parts: &[(Vec<usize>, Batch)], how: &How) -> (Vec<u8>, Got) {
    try_partials(case, parts, how).unwrap_or_else(|told| panic!("{}", told.said))
}

/// A slice that is refused.
struct Told {
    status: i32,
    said: String,
    untouched: bool,
}

/// The same, or the first refusal.
fn try_partials(case: &Case, parts: &[(Vec<usize>, Batch)], how: &How) -> Result<(Vec<u8>, Got), Told> {
    let phases = plan_of(case, how).phases();
    try_given(case, parts, how, &(0..phases).flat_map(|phase| (0..parts.len()).map(move |part| (phase, part))).collect::<Vec<_>>())
}

/// The same where phases are given slices one after the other as `given` says.
fn try_given(case: &Case, parts: &[(Vec<usize>, Batch)], how: &How, given: &[(i32, usize)]) -> Result<(Vec<u8>, Got), Told> {
    let plan = plan_of(case, how);
    let bytes = plan.size("passrl_partials_size");
    let (host, block) = (vec![0x5au64; bytes.div_ceil(8)], how.cuda.then(|| Block::dirty(bytes, 0x5a)));
    let buffer: *mut c_void = block.as_ref().map_or(host.as_ptr().cast_mut().cast(), Block::pointer);
    // SAFETY: a live plan and a buffer of its size, in the plan's memory; likewise below.
    ok(unsafe { library().get::<Init>("passrl_partials_init")(plan.plan, buffer, bytes) });
    let add: Add = library().get("passrl_partials_add");
    for &(phase, part) in given {
        let mut placed = harness::place(&case.cfg, &parts[part].1, how);
        let mut outputs = Outputs::new(&placed, how);
        // SAFETY: a live plan, its buffer, and what `device::call` or the placed batch lends for the call.
        let put = |batch: *const passrl_batch, workspace, room, stream| unsafe { add(plan.plan, phase, batch, buffer, bytes, workspace, room, stream) };
        let (status, said) = if how.cuda {
            device::call(&plan, &mut placed, &mut outputs, how, |batch, _, workspace, room, stream| put(batch, workspace, room, stream))
        } else {
            let workspace = plan.workspace(how);
            (put(&placed.batch, workspace.at, workspace.bytes, null_mut()), library().last_error())
        };
        if status < 0 {
            return Err(Told { status, said, untouched: true });
        }
    }
    let apply: Apply = library().get("passrl_plan_apply");
    let mut all = harness::empty(&case.batch);
    for (rows, part) in parts {
        let mut placed = harness::place(&case.cfg, part, how);
        let mut outputs = Outputs::new(&placed, how);
        let before = bytes_of_outputs(&mut outputs);
        // SAFETY: as `put`.
        let shape = |batch: *const passrl_batch, to: *const passrl_outputs, workspace, room, stream| unsafe {
            apply(plan.plan, batch, buffer, bytes, to, workspace, room, stream)
        };
        let (status, said) = if how.cuda {
            device::call(&plan, &mut placed, &mut outputs, how, shape)
        } else {
            let workspace = plan.workspace(how);
            (shape(&placed.batch, &outputs.raw(), workspace.at, workspace.bytes, null_mut()), library().last_error())
        };
        if status < 0 {
            return Err(Told { status, said, untouched: bytes_of_outputs(&mut outputs) == before });
        }
        let got = outputs.collect(&placed, status, said);
        harness::gather(&mut all, rows, &got);
        (all.stats, all.group_flags) = (got.stats, got.group_flags);
    }
    // SAFETY: the words as bytes.
    let bytes_of = |words: &[u64]| unsafe { std::slice::from_raw_parts(words.as_ptr().cast::<u8>(), bytes) }.to_vec();
    Ok((block.map_or_else(|| bytes_of(&host), |block| block.read()), all))
}

fn bytes_of_outputs(outputs: &mut Outputs) -> Vec<u8> {
    // SAFETY: the arena's own bytes.
    outputs.arena_mut().memory.iter().flat_map(|m| unsafe { std::slice::from_raw_parts(m.at, m.bytes()) }.to_vec()).collect()
}

#[test]
fn partials_on_the_device_are_those_of_the_cpu() {
    let Some(_lock) = simulated() else { return };
    let mut wrong = Vec::new();
    let whitened = |c: &Case| c.cfg.whiten != Whiten::None;
    let mut table = sample(|c| !whitened(c));
    table.retain(|c| c.name.len() % 3 == 0);
    table.extend(sample(whitened));
    assert!(table.len() > 60, "{} cases", table.len());
    for case in &table {
        let parts = slices(case, 3);
        if parts.iter().any(|(_, part)| harness::forms(&part.rollouts) != harness::forms(&case.batch.rollouts)) {
            continue;
        }
        println!("{}", case.name);
        let how = How::default();
        let (cpu, cuda) = (by_partials(case, &parts, &how), by_partials(case, &parts, &How { cuda: true, ..how }));
        if cpu.0 != cuda.0 {
            let at = cpu.0.iter().zip(&cuda.0).position(|(a, b)| a != b);
            wrong.push(format!("{}: the buffers differ at byte {at:?} of {}", case.name, cpu.0.len()));
        }
        if cpu.1.bits() != cuda.1.bits() || cpu.1.group_flags != cuda.1.group_flags || cpu.1.rollout_flags != cuda.1.rollout_flags {
            wrong.push(format!("{}: the slices differ", case.name));
        }
    }
    assert!(wrong.is_empty() && cudasim::report().is_empty(), "of {} cases:\n{}\n{}", table.len(), wrong.join("\n"), cudasim::report());
}

/// Sets of steps in one state and baselines a token, a group's rollouts in one micro-batch: the CPU's buffer and bits. A group in two is told by every slice that has some of
/// it, which writes nothing.
#[test]
fn whole_groups_in_each_micro_batch_serve_what_needs_them() {
    let Some(_lock) = simulated() else { return };
    let small = |c: &Case| (1..3_000).contains(&c.batch.rollouts.iter().map(|r| r.len).sum::<usize>());
    let random = (0..90).map(cases::random_estimators).map(|mut case| {
        // Whitening takes the sets and baselines once more a phase.
        case.cfg.whiten = if case.batch.rollouts.len() % 2 == 0 { Whiten::Tokens } else { case.cfg.whiten };
        case
    });
    let whole_groups = |c: &Case| c.cfg.step_sets != StepSets::Group || c.cfg.token_baseline != TokenBaseline::None;
    let table = serve(cases::all().into_iter().chain(random).filter(|c| whole_groups(c) && small(c) && !c.cfg.strict).collect());
    let every = if std::env::var("PASSRL_RANKS").is_ok_and(|v| v == "all") { 1 } else { 3 };
    let (mut wrong, mut ran, mut told) = (Vec::new(), 0, 0);
    for (n, case) in table.iter().enumerate().filter(|(n, _)| n % every == 0) {
        let how = How { padded: n % 2 == 0, ..How::default() };
        let Ok(whole) = harness::try_run(&case.cfg, &case.batch, &how) else { continue };
        let dealt = |slice: &dyn Fn(usize) -> usize| -> Option<Vec<(Vec<usize>, Batch)>> {
            let of = |s: usize| (0..case.batch.rollouts.len()).filter(|i| slice(*i) == s).collect::<Vec<_>>();
            let part = |rows: Vec<usize>| { let part = case.batch.with(rows.iter().map(|i| case.batch.rollouts[*i].clone()).collect()); (rows, part) };
            let parts: Vec<_> = (0..3).map(of).filter(|rows| !rows.is_empty()).map(part).collect();
            parts.iter().all(|(_, p)| harness::forms(&p.rollouts) == harness::forms(&case.batch.rollouts)).then_some(parts)
        };
        if let Some(parts) = dealt(&|i| (case.batch.rollouts[i].group * 5 + n) % 3) {
            ran += 1;
            let (cpu, cuda) = (by_partials(case, &parts, &how), by_partials(case, &parts, &How { cuda: true, ..how }));
            if cpu.0 != cuda.0 {
                wrong.push(format!("{}: the buffers differ", case.name));
            }
            if whole.bits() != cuda.1.bits() || cpu.1.group_flags != cuda.1.group_flags || cpu.1.rollout_flags != cuda.1.rollout_flags {
                wrong.push(format!("{}: the slices differ from one call", case.name));
            }
        }
        // The first slice has the first rollout of a group alone.
        let Some(group) = (0..case.batch.num_groups).find(|g| case.batch.rollouts.iter().filter(|r| r.group == *g).count() > 1) else { continue };
        let first = case.batch.rollouts.iter().position(|r| r.group == group);
        let Some(parts) = dealt(&|i| usize::from(Some(i) != first)) else { continue };
        told += 1;
        match try_partials(case, &parts, &How { cuda: true, ..how }) {
            Err(Told { status: PASSRL_ERR_CONFLICT, said, untouched: true }) if said.contains(&format!("group {group} (batch.group_index)")) => (),
            Err(Told { status, said, untouched }) => wrong.push(format!("{}: {status} {said}, untouched {untouched}", case.name)),
            Ok(_) => wrong.push(format!("{}: group {group} in two slices is not told", case.name)),
        }
    }
    println!("{ran} batches of whole groups, {told} of a split one");
    assert!(wrong.is_empty() && cudasim::report().is_empty(), "{}\n{}", wrong.join("\n"), cudasim::report());
    assert!(ran > 20 && told > 15, "{ran} {told}");
}

/// The host refuses what is not in order; a device's buffer is looked at by the kernels, and its slices are refused by their reports.
#[test]
fn phases_that_are_not_in_order_are_told() {
    let Some(_lock) = simulated() else { return };
    let wrong: [(&str, &[(i32, usize)]); 8] = [
        ("nothing", &[]),
        ("no maxima", &[(1, 0), (1, 1)]),
        ("no sums", &[(0, 0), (0, 1)]),
        ("sums first", &[(1, 0), (1, 1), (0, 0), (0, 1)]),
        ("a slice after the other", &[(0, 0), (1, 0), (0, 1), (1, 1)]),
        ("sums of one slice", &[(0, 0), (0, 1), (1, 0)]),
        ("sums twice", &[(0, 0), (0, 1), (1, 0), (1, 1), (1, 0)]),
        ("a second batch", &[(0, 0), (0, 1), (1, 0), (1, 1), (0, 0), (0, 1), (1, 0), (1, 1)]),
    ];
    let whitened: [(&str, &[(i32, usize)]); 2] = [
        ("no sums of the whitening", &[(0, 0), (0, 1), (1, 0), (1, 1), (2, 0), (2, 1)]),
        ("its maxima before all sums", &[(0, 0), (0, 1), (1, 0), (2, 0), (1, 1), (2, 1), (3, 0), (3, 1)]),
    ];
    for name in ["csr", "gae", "whiten_tokens"] {
        let case = named(name);
        let parts = slices(&case, 2);
        let phases = plan_of(&case, &How::default()).phases();
        assert_eq!(phases, if name == "whiten_tokens" { 4 } else { 2 });
        for cuda in [false, true] {
            let how = How { cuda, ..How::default() };
            for (what, given) in wrong.iter().chain(whitened.iter().filter(|_| phases == 4)) {
                match try_given(&case, &parts, &how, given) {
                    Err(Told { status: PASSRL_ERR_CONFLICT, said, untouched: true }) if said.contains("phase") => (),
                    Err(Told { status, said, untouched }) => panic!("{name}, {what}, cuda {cuda}: {status} {said}, untouched {untouched}"),
                    Ok(_) => panic!("{name}, {what}, cuda {cuda}: not refused"),
                }
            }
            try_partials(&case, &parts, &how).unwrap_or_else(|told| panic!("{}", told.said));
        }
    }
    assert_eq!(cudasim::report(), "");
}

#[test]
fn buffers_on_the_device_merge() {
    let Some(_lock) = simulated() else { return };
    let case = named("csr");
    let how = How { cuda: true, ..How::default() };
    let parts = slices(&case, 2);
    let whole = by_partials(&case, &parts, &how).0;
    let plan = plan_of(&case, &how);
    let bytes = plan.size("passrl_partials_size");
    let fresh = || {
        let block = Block::dirty(bytes, 3);
        // SAFETY: as in `by_partials`.
        ok(unsafe { library().get::<Init>("passrl_partials_init")(plan.plan, block.pointer(), bytes) });
        block
    };
    let add = |phase: i32, part: &Batch, buffer: &Block| {
        let mut placed = harness::place(&case.cfg, part, &how);
        let mut outputs = Outputs::new(&placed, &how);
        let add: Add = library().get("passrl_partials_add");
        // SAFETY: as above.
        ok(device::call(&plan, &mut placed, &mut outputs, &how, |batch, _, workspace, room, stream| unsafe { add(plan.plan, phase, batch, buffer.pointer(), bytes, workspace, room, stream) }).0);
    };
    // Maxima of both slices, then the sums of one in each of two buffers, of which the second has nothing else twice.
    let (one, other) = (fresh(), fresh());
    parts.iter().for_each(|(_, part)| add(0, part, &one));
    let maxima = one.read();
    add(1, &parts[0].1, &one);
    other.fill(&maxima);
    add(1, &parts[1].1, &other);
    // SAFETY: as above.
    ok(unsafe { library().get::<Merge>("passrl_partials_merge")(plan.plan, one.pointer(), bytes, other.pointer(), bytes) });
    assert!(one.read() == whole, "merged buffers are not the buffer of both slices");
    // SAFETY: refused.
    let status = unsafe { library().get::<Merge>("passrl_partials_merge")(plan.plan, one.pointer(), bytes, one.pointer(), bytes) };
    assert_eq!(status, PASSRL_ERR_OVERLAP);
}

/// A batch and its outputs on the device, which a graph or several runs use.
struct Standing {
    plan: Plan,
    mirror: Option<Mirror>,
    placed: harness::Placed<'static>,
    outputs: Outputs,
    raw: passrl_outputs,
    workspace: Block,
    report: Block,
}

impl Standing {
    fn new(case: &'static Case, how: &How) -> Standing {
        let plan = plan_of(case, how);
        let mut placed = harness::place(&case.cfg, &case.batch, how);
        let mut outputs = Outputs::new(&placed, how);
        let mut raw = outputs.raw();
        let mirror = Mirror::of(&mut [&mut placed.arena, outputs.arena_mut()]);
        let (workspace, report) = (Block::dirty(plan.size("passrl_plan_workspace_size"), 7), Block::dirty(size_of::<passrl_report>(), 7));
        raw.report = report.pointer().cast();
        Standing { plan, mirror: Some(mirror), placed, outputs, raw, workspace, report }
    }

    fn run(&self, stream: *mut c_void) -> i32 {
        // SAFETY: a live plan and live device memory.
        unsafe { library().get::<Run>("passrl_plan_run")(self.plan.plan, &self.placed.batch, &self.raw, self.workspace.pointer(), self.workspace.bytes, stream) }
    }

    /// What the device holds now.
    fn collect(mut self) -> Got {
        let mut report: passrl_report = library().initial();
        let (status, said) = device::judged(&self.report, &mut report);
        self.mirror.take().expect("once").back(&mut [&mut self.placed.arena, self.outputs.arena_mut()]);
        Got { report, ..self.outputs.collect(&self.placed, status, said) }
    }
}

#[test]
fn a_captured_run_replays_with_new_data_in_the_same_memory() {
    let Some(_lock) = simulated() else { return };
    let how = How { cuda: true, ..How::default() };
    for name in ["csr", "dense_holes_two_streams", "whiten_tokens", "kl_quantised"] {
        let first: &'static Case = Box::leak(Box::new(named(name)));
        // The same shapes with other contents: signals reversed, lengths exchanged where both layouts have room.
        let mut other = first.clone();
        for r in &mut other.batch.rollouts {
            r.signal.iter_mut().for_each(|line| line.reverse());
            r.step_scores.iter_mut().for_each(|line| line.iter_mut().for_each(|x| *x = 1.5 - *x));
            r.outcome = r.outcome.map(|x| 0.25 - x);
        }
        let other: &'static Case = Box::leak(Box::new(other));
        let standing = Standing::new(first, &how);
        let graph = Graph::capture(|stream| assert_eq!(standing.run(stream), 0, "{name}: {}", library().last_error()));
        graph.replay();
        // New data where the old was.
        let new = Standing::new(other, &how);
        new.copy_inputs_to(&standing);
        graph.replay();
        let (wanted, got) = (harness::run(&other.cfg, &other.batch, &How::default()), standing.collect());
        assert_eq!(wanted.bits(), got.bits(), "{name}: replayed");
        assert_eq!(wanted.report.tokens, got.report.tokens);
        assert!(harness::run(&first.cfg, &first.batch, &How::default()).bits() != wanted.bits(), "{name}: the data is not other data");
    }
    assert_eq!(cudasim::report(), "");
}

impl Standing {
    /// Copies the bytes of this batch's inputs into another's memory of the same shapes.
    fn copy_inputs_to(&self, other: &Standing) {
        let (from, to) = (self.mirror.as_ref().expect("standing"), other.mirror.as_ref().expect("standing"));
        for (a, b) in from.device_blocks().zip(to.device_blocks()).take(self.placed.arena.memory.len()) {
            assert_eq!(a.bytes, b.bytes);
            b.fill(&a.read());
        }
    }
}

#[test]
fn a_report_lies_apart_in_device_memory() {
    let Some(_lock) = simulated() else { return };
    let case: &'static Case = Box::leak(Box::new(named("csr")));
    let mut standing = Standing::new(case, &How { cuda: true, ..How::default() });
    let (own, workspace) = (standing.raw.report, standing.workspace.pointer().cast::<passrl_report>());
    // SAFETY: the view of a batch that stands.
    let advantages = unsafe { (*standing.raw.advantages).data };
    for (at, status, says) in [
        (advantages.map_addr(|a| a / 8 * 8).cast(), PASSRL_ERR_OVERLAP, "outputs.report and outputs.advantages share memory"),
        (workspace, PASSRL_ERR_OVERLAP, "workspace and outputs.report share memory"),
        (own.wrapping_byte_add(4), PASSRL_ERR_WORKSPACE, "it must be aligned to 8 bytes"),
    ] {
        standing.raw.report = at;
        assert_eq!(standing.run(null_mut()), status, "{}", library().last_error());
        assert!(library().last_error().contains(says), "{}", library().last_error());
    }
    standing.raw.report = own;
    assert_eq!(standing.run(null_mut()), PASSRL_OK, "{}", library().last_error());
    assert_eq!(cudasim::report(), "");
}

#[test]
fn a_run_is_a_push_a_memset_launches_and_a_pop() {
    let Some(_lock) = simulated() else { return };
    use harness::GroupsAs::{Index, Offsets};
    // Where groups stand together the last of their blocks goes on in place of a further kernel.
    for (name, groups_as, launches) in [("csr", Index, 3), ("csr", Offsets, 2), ("whiten_tokens", Index, 5), ("kl_quantised", Index, 4), ("kl_quantised", Offsets, 3)] {
        let how = How { cuda: true, groups_as, ..How::default() };
        let standing = Standing::new(Box::leak(Box::new(named(name))), &how);
        let stream = device::driver().expect("a driver").stream();
        cudasim::reset();
        ok(standing.run(stream));
        let trace = cudasim::trace();
        let wanted: Vec<&str> = ["cuCtxPushCurrent_v2", "cuMemsetD8Async"].into_iter().chain(vec!["cuLaunchKernel"; launches]).chain(["cuCtxPopCurrent_v2"]).collect();
        assert_eq!(trace, wanted, "{name}");
        device::driver().expect("a driver").wait(stream);
        device::driver().expect("a driver").destroy_stream(stream);
    }
}

#[test]
fn two_threads_two_streams_two_contexts() {
    let Some(_lock) = simulated() else { return };
    let how = How { cuda: true, ..How::default() };
    let cases: Vec<&'static Case> = ["csr", "dense", "whiten_tokens", "kl_quantised"].iter().map(|name| &*Box::leak(Box::new(named(name)))).collect();
    let wanted: Vec<Vec<u64>> = cases.iter().map(|c| harness::run(&c.cfg, &c.batch, &How::default()).bits()).collect();
    std::thread::scope(|scope| {
        for thread in 0..2 {
            let (cases, wanted) = (&cases, &wanted);
            scope.spawn(move || {
                for round in 0..6 {
                    let at = (thread + round) % cases.len();
                    // Each run makes a context, a plan and a stream of its own.
                    let got = harness::run(&cases[at].cfg, &cases[at].batch, &how);
                    assert_eq!(got.bits(), wanted[at], "thread {thread}, {}", cases[at].name);
                }
            });
        }
    });
    // One plan from two threads at once, each with its own memory.
    let standing: Vec<Standing> = (0..2).map(|_| Standing::new(cases[0], &how)).collect();
    let plan = standing[0].plan.plan as usize;
    std::thread::scope(|scope| {
        for own in &standing {
            let own = Shared(own);
            scope.spawn(move || {
                let own = own.get();
                device::driver().expect("a driver").use_device();
                let stream = device::driver().expect("a driver").stream();
                // SAFETY: the first one's plan, this one's memory.
                ok(unsafe { library().get::<Run>("passrl_plan_run")(plan as *const c_void, &own.placed.batch, &own.raw, own.workspace.pointer(), own.workspace.bytes, stream) });
                device::driver().expect("a driver").wait(stream);
                device::driver().expect("a driver").destroy_stream(stream);
            });
        }
    });
    let mut standing = standing;
    let (second, first) = (standing.pop().expect("two"), standing.pop().expect("two"));
    // The second's plan must not go before the first's work is read.
    let (b, a) = (second.collect(), first.collect());
    assert_eq!((a.bits(), b.bits()), (wanted[0].clone(), wanted[0].clone()));
}

#[test]
fn the_callers_context_is_borrowed_and_left_as_it_was() {
    let Some(_lock) = simulated() else { return };
    let driver = device::driver().expect("a driver");
    let create: unsafe extern "C" fn(*mut *mut c_void, u32, i32) -> i32 = driver.get("cuCtxCreate_v2");
    let current: unsafe extern "C" fn(*mut *mut c_void) -> i32 = driver.get("cuCtxGetCurrent");
    let destroy: unsafe extern "C" fn(*mut c_void) -> i32 = driver.get("cuCtxDestroy_v2");
    let now = || {
        let mut context = null_mut();
        // SAFETY: writes one handle.
        assert_eq!(unsafe { current(&mut context) }, 0);
        context
    };
    let mut own = null_mut();
    // SAFETY: a context of the test's, current from here on.
    assert_eq!(unsafe { create(&mut own, 0, 0) }, 0);
    let context = context(|o| o.device = -1).unwrap_or_else(|(status, said)| panic!("{status}: {said}"));
    assert!(describe(context).contains("the caller's context"), "{}", describe(context));
    assert_eq!(now(), own);
    // A context of the device's primary one leaves it too.
    let other = self::context(|o| o.device = 0).unwrap_or_else(|(status, said)| panic!("{status}: {said}"));
    assert!(describe(other).contains("primary context"), "{}", describe(other));
    assert_eq!(now(), own);
    destroy_context(other);
    assert_eq!(now(), own);
    destroy_context(context);
    assert_eq!(now(), own, "destroyed with the library's context");
    // SAFETY: the test's own context.
    assert_eq!(unsafe { destroy(own) }, 0);
    std::thread::spawn(|| {
        let (status, said) = self::context(|o| o.device = -1).expect_err("this thread has no context");
        assert!(status == PASSRL_ERR_NO_DEVICE && said.contains("no current CUDA context"), "{status} {said}");
    })
    .join()
    .expect("the thread's assertions hold");
}
