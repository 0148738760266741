//! Steps of many groups in one kernel (passrl_steps), with offsets that no host would let through: on device memory of the simulated driver the kernels alone look at them.
//! What is left must be what the ways with a block a rollout leave. (Batches that are in order: tests/cuda.rs.)
#![allow(dead_code)]

use harness::{Floats, Got, GroupsAs, How, Outputs, Placed, device, library};
use oracle::{Batch, Config, Kind, Rollout};
use passrl::abi::constants::{PASSRL_FOUND_BAD_OFFSETS, PASSRL_FOUND_BAD_STEPS, PASSRL_I32};
use passrl::abi::types::{passrl_report, passrl_view};
use testkit::{harness, oracle};

const MULTIPROCESSORS: i32 = 16;

/// Six groups of three rollouts of 5 to 70 steps.
fn batch() -> Batch {
    let rollout = |n: usize| {
        let ends: Vec<i64> = (0..[5, 33, 70][n % 3]).map(|j| 2 + 2 * j).collect();
        Rollout {
            len: ends[ends.len() - 1] as usize,
            group: n / 3,
            in_stats: true,
            outcome: Some((n % 2) as f32),
            step_scores: vec![(0..ends.len()).map(|j| (j * 5 % 11) as f32 - n as f32).collect()],
            step_ends: Some(ends),
            ..Rollout::default()
        }
    };
    Batch { num_groups: 6, rollouts: (0..18).map(rollout).collect(), ..Batch::default() }
}

/// Writes element `at` of a view of the placed batch.
fn poke(view: *const passrl_view, at: usize, value: i32) {
    // SAFETY: a view of the placed batch, of 32-bit integers, more than `at` of them.
    unsafe {
        assert!((*view).dtype == PASSRL_I32 && (*view).shape[0] > at as i64);
        (*view).data.cast::<i32>().add(at).write(value);
    }
}

/// A run on a device of so many multiprocessors.
fn run(how: &How, processors: i32, seed: u64, spoil: &dyn Fn(&mut Placed)) -> Got {
    let (cfg, batch) = (Config { kind: Kind::Prm, ..Config::default() }, batch());
    cudasim::reset();
    cudasim::attribute(MULTIPROCESSORS, processors);
    cudasim::seed(seed);
    let mut limits = harness::limits(&batch, how);
    limits.group_rollouts = 3;
    let plan = library().plan(&harness::config(library(), &cfg), &limits, how).unwrap_or_else(|(_, said)| panic!("{said}"));
    let mut placed = harness::place(&cfg, &batch, how);
    spoil(&mut placed);
    let mut outputs = Outputs::new(&placed, how);
    let (status, said) = plan.run(&mut placed, &mut outputs, how);
    let launched = if processors == 0 { vec!["passrl_steps"] } else { vec!["passrl_prepare", "passrl_shape_one_pass"] };
    assert_eq!(cudasim::launched(), launched);
    assert_eq!(cudasim::report(), "");
    cudasim::attribute(MULTIPROCESSORS, 132);
    outputs.collect(&placed, status, said)
}

/// Whole numbers of the report.
fn counts(r: &passrl_report) -> [i64; 17] {
    [
        r.findings, r.first_finding, r.first_rollout, r.first_group, r.first_stream, r.rollouts, r.tokens, r.chunks, r.degenerate_groups, r.bad_groups, r.violating_groups,
        r.missing_values, r.nonfinite_values, r.clipped_tokens, r.overflowed_tokens, r.bad_steps, r.lost_deviations,
    ]
}

type Spoil = fn(&mut Placed);

#[test]
fn offsets_that_do_not_fit_leave_what_a_block_a_rollout_leaves() {
    if let Err(why) = device::driver() {
        return println!("SKIPPED: steps on CUDA: {why}");
    }
    let _lock = cudasim::lock();
    let whole: [(&str, bool, Spoil); 4] = [
        ("an offset below the one before", false, |p| poke(p.batch.cu_seqlens, 5, -7)),
        ("the first offset beyond the tokens", false, |p| poke(p.batch.cu_seqlens, 0, 1 << 30)),
        ("the last offset beyond the tokens", false, |p| poke(p.batch.cu_seqlens, 18, 1 << 30)),
        ("a length beyond the row", true, |p| poke(p.batch.lengths, 7, 1 << 20)),
    ];
    let steps: [(&str, bool, Spoil); 4] = [
        ("a first step before all", false, |p| poke(p.batch.step_offsets, 4, -3)),
        ("a last step beyond all", true, |p| poke(p.batch.step_offsets, 4, i32::MAX)),
        ("a range that turns back", false, |p| poke(p.batch.step_offsets, 7, 2)),
        ("the last offset beyond the steps", true, |p| poke(p.batch.step_offsets, 18, 1 << 30)),
    ];
    let how = How { cuda: true, lean: true, reports: true, output: Floats::F32, groups_as: GroupsAs::Offsets, ..How::default() };
    for (zeroes, (name, padded, spoil)) in whole.iter().map(|case| (true, case)).chain(steps.iter().map(|case| (false, case))) {
        for (seed, lean) in [(0, true), (1, true), (2, false)] {
            let how = How { padded: *padded, lean, ..how };
            let (one, two) = (run(&how, 0, seed, spoil), run(&how, 132, seed, spoil));
            assert_eq!(counts(&one.report), counts(&two.report), "{name}, schedule {seed}");
            assert_eq!((&one.advantages, &one.returns, &one.path_scores, &one.num_chunks), (&two.advantages, &two.returns, &two.path_scores, &two.num_chunks), "{name}");
            assert_eq!((&one.stats, &one.group_flags, &one.rollout_flags), (&two.stats, &two.group_flags, &two.rollout_flags), "{name}, schedule {seed}");
            let found = if zeroes { PASSRL_FOUND_BAD_OFFSETS } else { PASSRL_FOUND_BAD_STEPS };
            assert!(one.report.findings & found != 0, "{name}: {}", one.report.findings);
            let zeros = one.advantages.iter().flatten().all(|a| a.to_bits() == 0);
            assert_eq!((zeros, one.padding_is_zero), (zeroes, two.padding_is_zero), "{name}, schedule {seed}");
        }
    }
}

/// Groups that are none: what belongs to whom is not to be known, and nothing is written but zeros.
#[test]
fn group_offsets_that_do_not_fit_make_the_whole_batch_zero() {
    if let Err(why) = device::driver() {
        return println!("SKIPPED: steps on CUDA: {why}");
    }
    let _lock = cudasim::lock();
    let how = How { cuda: true, lean: true, reports: true, output: Floats::F32, groups_as: GroupsAs::Offsets, ..How::default() };
    for (at, value) in [(0, 2), (2, -5), (2, 1 << 30), (3, 1), (6, 17), (6, i32::MAX)] {
        for (seed, padded) in [(0, false), (1, true), (2, false)] {
            let got = run(&How { padded, lean: seed == 0, ..how }, 0, seed, &|p| poke(p.batch.group_offsets, at, value));
            let zeros = got.advantages.iter().flatten().all(|a| a.to_bits() == 0);
            assert_eq!((zeros, seed == 0 || got.padding_is_zero), (true, true), "group_offsets[{at}] = {value}, schedule {seed}");
            let r = got.report;
            assert_eq!((r.findings & PASSRL_FOUND_BAD_OFFSETS, r.rollouts, r.tokens, r.chunks, r.first_rollout), (PASSRL_FOUND_BAD_OFFSETS, 0, 0, 0, -1));
            assert_eq!((r.sum_advantages, r.sum_squares), (0.0, 0.0));
        }
    }
}
