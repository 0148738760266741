//! Calls on pieces of rollouts that are captured into graphs and replayed.
use super::*;

/// All phases and the results of a batch captured into one graph: its replay has the bits of whole rollouts.
#[test]
fn phases_are_captured_and_replayed() {
    let Some(_lock) = simulated() else { return };
    let (cfg, batch) = with_every_message();
    let (pieces, _) = thirds(&batch);
    let one = Call::new(pieces.clone(), &batch, true, &mut Rng(4));
    let plan = library().plan(&harness::config(library(), &cfg), &cut::limits(&batch, &pieces, &cuda()), &cuda()).unwrap_or_else(|(_, said)| panic!("{said}"));
    let bytes = plan.size("passrl_partials_size");
    let buffer = device::Block::dirty(bytes, 3);
    let (init, add, apply): (on_device::Init, on_device::Add, on_device::Apply) =
        (library().get("passrl_partials_init"), library().get("passrl_partials_add"), library().get("passrl_plan_apply"));
    // SAFETY: a live plan and a buffer of its size; likewise below.
    ok(unsafe { init(plan.plan, buffer.pointer(), bytes) });
    let of = cut::parts(&batch, &one);
    let mut placed = cut::place(&cfg, &of, &How::default());
    let mut stage = Stage::new(&mut placed, &batch, &one);
    let (status, said) = on_device::call(&plan, &mut stage, |b, o, workspace, room, _| {
        let graph = Graph::capture(|stream| {
            for phase in 0..plan.phases() {
                // SAFETY: as above.
                ok(unsafe { add(plan.plan, phase, b, buffer.pointer(), bytes, workspace, room, stream) });
            }
            // SAFETY: as above.
            ok(unsafe { apply(plan.plan, b, buffer.pointer(), bytes, o, workspace, room, stream) });
        });
        graph.replay();
        0
    });
    assert!(status >= 0, "{status} {said}");
    let mut all = harness::empty(&batch);
    stage.gather(&mut all);
    assert_eq!(cut::difference(&harness::run(&cfg, &batch, &How::default()), &all), None);
    assert_eq!(cudasim::report(), "");
}

/// The run of two ranks, reductions of their partials with it, captured into a graph each: the replays have the bits of whole rollouts.
#[test]
fn runs_over_ranks_are_captured_and_replayed() {
    let Some(_lock) = simulated() else { return };
    let (cfg, batch) = with_every_message();
    let (config, (pieces, calls)) = (harness::config(library(), &cfg), thirds(&batch));
    let (size, engine) = (calls.len(), std::sync::Arc::new(Engine::new(calls.len())));
    let all = std::sync::Mutex::new(harness::empty(&batch));
    let one = |rank: usize| {
        let seat = engine::Seat::new(&engine, rank, true);
        device::driver().expect("a driver").use_device();
        let plan = library().plan_over(&config, &cut::limits(&batch, &pieces, &cuda()), &cuda(), &seat.collective()).unwrap_or_else(|(_, said)| panic!("{said}"));
        seat.expect(wire::messages(&plan, true));
        let of = cut::parts(&batch, &calls[rank]);
        let mut placed = cut::place(&cfg, &of, &How::default());
        let mut stage = Stage::new(&mut placed, &batch, &calls[rank]);
        let run: Run = library().get("passrl_plan_run");
        let (status, said) = on_device::call(&plan, &mut stage, |b, o, workspace, room, _| {
            let mut graph = None;
            for turn in 0..size {
                // Other ranks' calls of the driver would break a capture.
                engine.meet();
                if turn == rank {
                    // SAFETY: a live plan, views of live device memory.
                    graph = Some(Graph::capture(|stream| ok(unsafe { run(plan.plan, b, o, workspace, room, stream) })));
                }
            }
            let graph = graph.expect("captured");
            for _ in 0..2 {
                engine.meet();
                graph.launch();
                engine.meet();
                graph.wait();
            }
            engine.meet();
            0
        });
        assert!(status >= 0, "{status} {said}");
        stage.gather(&mut all.lock().unwrap());
        engine.meet();
    };
    std::thread::scope(|scope| (0..size).map(|rank| scope.spawn({ let one = &one; move || one(rank) })).for_each(drop));
    assert!(engine.wrong.lock().unwrap().is_empty(), "{:?}", engine.wrong.lock().unwrap());
    assert_eq!(cut::difference(&harness::run(&cfg, &batch, &How::default()), &all.into_inner().unwrap()), None);
    assert_eq!(cudasim::report(), "");
}
