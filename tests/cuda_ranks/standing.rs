//! Ranks whose batches stay on the device and are run more than once: graphs, calls that the others have not seen, the driver's calls.
use crate::engine::{Engine, Seat};
use crate::harness::{self, Got, How, Outputs, device, library};
use crate::oracle::{Batch, Config};
use crate::over::cuda;
use crate::world::*;
use crate::wire;
use passrl::abi::status::*;
use passrl::abi::types::*;
use std::sync::Arc;

/// A rank's plan with its batch and outputs on the device, run more than once.
struct Standing {
    plan: harness::Plan,
    mirror: Option<device::Mirror>,
    placed: harness::Placed<'static>,
    outputs: Outputs,
    raw: passrl_outputs,
    workspace: device::Block,
    report: device::Block,
}

impl Standing {
    fn new(seat: &Seat, cfg: &Config, config: &passrl_config, limits: &passrl_limits, part: &'static Batch) -> Standing {
        let how = cuda(How::default());
        device::driver().expect("a driver").use_device();
        let plan = library().plan_over(config, limits, &how, &seat.collective()).unwrap_or_else(|(_, said)| panic!("{said}"));
        seat.expect(wire::messages(&plan, true));
        let mut placed = harness::place(cfg, part, &how);
        let mut outputs = Outputs::new(&placed, &how);
        let mut raw = outputs.raw();
        let mirror = Some(device::Mirror::of(&mut [&mut placed.arena, outputs.arena_mut()]));
        let (workspace, report) = (device::Block::dirty(plan.size("passrl_plan_workspace_size"), 7), device::Block::dirty(size_of::<passrl_report>(), 7));
        raw.report = report.pointer().cast();
        Standing { plan, mirror, placed, outputs, raw, workspace, report }
    }

    fn run(&self, stream: *mut std::ffi::c_void) -> i32 {
        // SAFETY: a live plan and live device memory.
        unsafe { library().get::<Run>("passrl_plan_run")(self.plan.plan, &self.placed.batch, &self.raw, self.workspace.pointer(), self.workspace.bytes, stream) }
    }

    /// Status and sentence of the report.
    fn judged(&self) -> (i32, String) {
        device::judged(&self.report, &mut library().initial())
    }

    fn collect(mut self) -> Got {
        let (status, said) = self.judged();
        self.mirror.take().expect("once").back(&mut [&mut self.placed.arena, self.outputs.arena_mut()]);
        self.outputs.collect(&self.placed, status, said)
    }
}

/// Signals, scores and outcomes of other values, in the same shapes.
fn other_data(batch: &Batch) -> Batch {
    let mut other = batch.clone();
    for r in &mut other.rollouts {
        r.signal.iter_mut().for_each(|line| line.reverse());
        r.step_scores.iter_mut().for_each(|line| line.iter_mut().for_each(|x| *x = 1.5 - *x));
        r.outcome = r.outcome.map(|x| 0.25 - x);
    }
    other
}

#[test]
fn captured_runs_replay_with_new_data_in_the_same_memory() {
    let Some(_lock) = simulated() else { return };
    for name in ["csr", "whiten_tokens", "kl_quantised", "op_loo_rollout"] {
        let case = named(name);
        let other = other_data(&case.batch);
        let (config, limits) = (harness::config(library(), &case.cfg), harness::limits(&case.batch, &How::default()));
        let size = 2;
        let engine = Arc::new(Engine::new(size));
        let one = |rank: usize| {
            let part = |batch: &Batch| -> &'static Batch {
                Box::leak(Box::new(Batch { rollouts: batch.rollouts.iter().skip(rank).step_by(size).cloned().collect(), ..batch.clone() }))
            };
            let seat = Seat::new(&engine, rank, true);
            let standing = Standing::new(&seat, &case.cfg, &config, &limits, part(&case.batch));
            let new = harness::place(&case.cfg, part(&other), &How::default());
            let mut graph = None;
            for turn in 0..size {
                engine.meet();
                if turn == rank {
                    graph = Some(Graph::capture(|stream| assert_eq!(standing.run(stream), 0, "{name}: {}", library().last_error())));
                }
            }
            let graph = graph.expect("captured");
            for replay in 0..3 {
                if replay == 2 {
                    // The new data where the old was.
                    for (block, host) in standing.mirror.as_ref().expect("standing").device_blocks().zip(&new.arena.memory) {
                        assert_eq!(block.bytes, host.bytes());
                        // SAFETY: the arena's own bytes.
                        block.fill(unsafe { std::slice::from_raw_parts(host.at, host.bytes()) });
                    }
                }
                engine.meet();
                graph.launch();
                engine.meet();
                graph.wait();
                assert_eq!(standing.judged().0, 0, "{name}, replay {replay}, rank {rank}: {}", standing.judged().1);
            }
            engine.meet();
            drop(graph);
            standing.collect()
        };
        let shares: Vec<Got> = std::thread::scope(|scope| {
            let ranks: Vec<_> = (0..size).map(|rank| scope.spawn({ let one = &one; move || one(rank) })).collect();
            ranks.into_iter().map(|rank| rank.join().expect("a rank")).collect()
        });
        assert!(engine.wrong.lock().unwrap().is_empty(), "{:?}", engine.wrong.lock().unwrap());
        let mut all = harness::empty(&case.batch);
        for (rank, share) in shares.iter().enumerate() {
            let rows: Vec<usize> = (rank..case.batch.rollouts.len()).step_by(size).collect();
            harness::gather(&mut all, &rows, share);
        }
        let of = |batch: &Batch| harness::run(&case.cfg, batch, &How::default()).bits();
        assert!(of(&other) != of(&case.batch), "{name}: the data is not other data");
        assert_eq!(all.bits(), of(&other), "{name}: replayed");
    }
    assert_eq!(cudasim::report(), "");
}

/// A run is a push, memsets and launches with the collective between, a pop; the plan says how many.
#[test]
fn a_run_allocates_copies_and_waits_for_nothing() {
    let Some(_lock) = simulated() else { return };
    let case = named("whiten_tokens");
    let (config, limits) = (harness::config(library(), &case.cfg), harness::limits(&case.batch, &How::default()));
    let engine = Arc::new(Engine::new(1));
    let seat = Seat::new(&engine, 0, true);
    let standing = Standing::new(&seat, &case.cfg, &config, &limits, Box::leak(Box::new(case.batch.clone())));
    let (driver, text) = (device::driver().expect("a driver"), wire::describe(&standing.plan));
    let stream = driver.stream();
    cudasim::reset();
    ok(standing.run(stream));
    let trace = cudasim::trace();
    let count = |name: &str| trace.iter().filter(|call| call.starts_with(name)).count();
    let own = trace.iter().filter(|call| *call != "cuLaunchHostFunc").count();
    assert_eq!((trace.first().map(String::as_str), trace.last().map(String::as_str)), (Some("cuCtxPushCurrent_v2"), Some("cuCtxPopCurrent_v2")), "{trace:?}");
    assert_eq!(own, 2 + count("cuMemsetD") + count("cuLaunchKernel"), "{trace:?}");
    assert!(text.contains(&format!("launches of a run: {} memsets, {} kernels", count("cuMemsetD"), count("cuLaunchKernel"))), "{text}\n{trace:?}");
    assert!(text.contains("4 reductions a run"), "{text}");
    driver.wait(stream);
    driver.destroy_stream(stream);
}

/// Calls are counted where they run: one that the others have not seen is told.
#[test]
fn ranks_at_different_calls_are_refused() {
    let Some(_lock) = simulated() else { return };
    let case = named("csr");
    let (config, limits) = (harness::config(library(), &case.cfg), harness::limits(&case.batch, &How::default()));
    let engine = Arc::new(Engine::new(2));
    let one = |rank: usize| {
        let seat = Seat::new(&engine, rank, true);
        let part = Batch { rollouts: case.batch.rollouts.iter().skip(rank).step_by(2).cloned().collect(), ..case.batch.clone() };
        let standing = Standing::new(&seat, &case.cfg, &config, &limits, Box::leak(Box::new(part)));
        let (driver, stream) = (device::driver().expect("a driver"), device::driver().expect("a driver").stream());
        engine.meet();
        if rank == 1 {
            // A run that its engine refuses at once.
            seat.fails_once();
            assert_eq!(standing.run(stream), PASSRL_ERR_COLLECTIVE, "{}", library().last_error());
            driver.wait(stream);
        }
        seat.expect(wire::messages(&standing.plan, true));
        engine.meet();
        ok(standing.run(stream));
        engine.meet();
        driver.wait(stream);
        let (status, said) = standing.judged();
        assert!(status == PASSRL_ERR_COLLECTIVE && said.contains("different calls"), "rank {rank}: {status} {said}");
        engine.meet();
        driver.destroy_stream(stream);
    };
    std::thread::scope(|scope| {
        for rank in 0..2 {
            let one = &one;
            scope.spawn(move || one(rank));
        }
    });
    assert_eq!(cudasim::report(), "");
}
