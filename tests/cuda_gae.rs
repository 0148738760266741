//! GAE in one kernel (passrl_gae): runs that ask for advantages, returns and a report alone, on device memory of the simulated driver, against the CPU
//! backend: every byte of both outputs, every count of the report. (Runs that ask for more take the stages of all estimators: tests/cuda.rs.)
#![allow(dead_code)]

use harness::{Floats, GroupsAs, How, Outputs, Placed, device, library};
use oracle::{Batch, Chunk, Config, Credit, Kind, Rollout, ScanMask};
use passrl::abi::constants::PASSRL_FOUND_BAD_OFFSETS;
use passrl::abi::types::*;
use std::ffi::c_void;
use std::ptr::{null, null_mut};
use std::sync::atomic::{AtomicU64, Ordering};
use testkit::{harness, oracle};

/// SplitMix64: a value in -2 .. 2.
fn value(seed: u64) -> f32 {
    let mut z = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(0x1234_5678);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((z >> 40) as f32 / (1u64 << 22) as f32) - 2.0
}

fn batch(lengths: &[usize], group: usize) -> Batch {
    let line = |i: usize, n: usize, salt: u64| Some((0..n).map(|t| value(salt << 50 | (i as u64) << 32 | t as u64)).collect());
    let rollout = |(i, n): (usize, &usize)| Rollout {
        len: *n,
        group: i / group,
        in_stats: true,
        values: line(i, *n, 1),
        token_rewards: line(i, *n, 2),
        bootstrap: Some(value(77 + i as u64)),
        ..Rollout::default()
    };
    Batch { num_groups: lengths.len() / group, rollouts: lengths.iter().enumerate().map(rollout).collect(), ..Batch::default() }
}

fn config() -> Config {
    Config { kind: Kind::None, chunk: Chunk::None, credit: Credit::Gae, k: 0.0, gamma: 0.97, lam: 0.9, ..Config::default() }
}

/// Where the advantages go.
#[derive(Clone, Copy, PartialEq, Debug)]
enum To {
    Own,
    Values,
    Rewards,
}

/// What a run has left: the memory of the outputs and of the inputs, and the report.
struct Left {
    status: i32,
    memory: Vec<Vec<u8>>,
    report: passrl_report,
}

type Run = unsafe extern "C" fn(*const c_void, *const passrl_batch, *const passrl_outputs, *mut c_void, usize, *mut c_void) -> i32;

fn run(cfg: &Config, batch: &Batch, how: &How, to: To, edit: &dyn Fn(&mut Placed)) -> Left {
    let config = harness::config(library(), cfg);
    let plan = library().plan(&config, &harness::limits(batch, how), how).unwrap_or_else(|(_, said)| panic!("{said}"));
    let mut placed = harness::place(cfg, batch, how);
    edit(&mut placed);
    let mut outputs = Outputs::new(&placed, how);
    let run: Run = library().get("passrl_plan_run");
    let asked = |batch: &passrl_batch, outputs: &passrl_outputs| {
        let mut o = *outputs;
        (o.path_scores, o.num_chunks, o.chunk_ends, o.chunk_values, o.stats_count) = (null(), null(), null(), null(), null());
        (o.stats_mean, o.stats_std, o.stats_absmax, o.group_flags, o.rollout_flags) = (null(), null(), null(), null(), null());
        match to {
            To::Own => (),
            To::Values => o.advantages = batch.values,
            To::Rewards => o.advantages = batch.token_rewards,
        }
        o
    };
    let status = if how.cuda {
        cudasim::reset();
        cudasim::seed(SEED.load(Ordering::Relaxed));
        // SAFETY: a live plan, and device memory that outlives the call.
        let (status, said) = device::call(&plan, &mut placed, &mut outputs, how, |batch, outputs, workspace, bytes, stream| unsafe {
            run(plan.plan, batch, &asked(&*batch, &*outputs), workspace, bytes, stream)
        });
        assert!(status >= 0, "{said}");
        assert_eq!(cudasim::launched(), ["passrl_gae"], "one kernel");
        assert_eq!(cudasim::calls("cuLaunchKernel"), 1);
        assert_eq!(cudasim::report(), "");
        status
    } else {
        let workspace = plan.workspace(how);
        // SAFETY: as above, on the host.
        let status = unsafe { run(plan.plan, &placed.batch, &asked(&placed.batch, &outputs.raw()), workspace.at, workspace.bytes, null_mut()) };
        assert!(status >= 0, "{}", library().last_error());
        status
    };
    let outputs_raw = outputs.raw();
    // SAFETY: the report that the run has filled, in the memory of `outputs`.
    let report = unsafe { *outputs_raw.report };
    let blocks = outputs.arena_mut().memory.iter().take(2).chain(&placed.arena.memory);
    // SAFETY: the arenas' own bytes.
    let memory = blocks.map(|block| unsafe { std::slice::from_raw_parts(block.at, block.bytes()) }.to_vec()).collect();
    Left { status, memory, report }
}

/// The report's integers, and its sums.
fn counts(r: &passrl_report) -> ([i64; 18], [f64; 2]) {
    let integers = [
        r.findings, r.first_finding, r.first_rollout, r.first_group, r.first_stream, r.rollouts, r.tokens, r.chunks, r.degenerate_groups, r.bad_groups,
        r.violating_groups, r.missing_values, r.nonfinite_values, r.low_logps, r.clipped_tokens, r.overflowed_tokens, r.bad_steps, r.lost_deviations,
    ];
    (integers, [r.sum_advantages, r.sum_squares])
}

/// Runs a batch on both backends, under several schedules; returns what the CPU left.
fn check(name: &str, cfg: &Config, batch: &Batch, how: &How, to: To, edit: &dyn Fn(&mut Placed)) -> Left {
    let cpu = run(cfg, batch, how, to, edit);
    for seed in 0..3 {
        SEED.store(seed, Ordering::Relaxed);
        let cuda = run(cfg, batch, &How { cuda: true, ..*how }, to, edit);
        assert_eq!(cpu.status, cuda.status, "{name}");
        for (n, (a, b)) in cpu.memory.iter().zip(&cuda.memory).enumerate() {
            assert!(a == b, "{name}, schedule {seed}: memory {n} differs at byte {:?} of {}", a.iter().zip(b).position(|(a, b)| a != b), a.len());
        }
        let ((a, sums), (b, other)) = (counts(&cpu.report), counts(&cuda.report));
        assert_eq!(a, b, "{name}, schedule {seed}: the report");
        let close = |a: f64, b: f64, scale: f64| (a - b).abs() <= 1e-12 * scale.max(1.0);
        let scale = (sums[1] * cpu.report.tokens as f64).sqrt();
        assert!(close(sums[0], other[0], scale) && close(sums[1], other[1], sums[1]), "{name}: sums {sums:?} on the CPU, {other:?} on CUDA");
    }
    cpu
}

/// Of the schedule of blocks and threads.
static SEED: AtomicU64 = AtomicU64::new(0);

fn skipped() -> bool {
    match device::driver() {
        Ok(_) => false,
        Err(why) => {
            println!("SKIPPED: GAE on CUDA: {why}");
            true
        }
    }
}

/// Empty rollouts, tiles that are full, one more and one less, several rounds of a block.
const LENGTHS: [usize; 12] = [5, 0, 1, 31, 32, 33, 64, 500, 257, 1300, 2, 96];

/// A constant size in place of the index.
fn constant(size: i64) -> impl Fn(&mut Placed) {
    move |placed: &mut Placed| (placed.batch.group_index, placed.batch.group_offsets, placed.batch.group_size) = (null(), null(), size)
}

#[test]
fn both_layouts_types_and_places_have_the_bits_of_the_cpu() {
    if skipped() {
        return;
    }
    let _lock = cudasim::lock();
    let (cfg, batch) = (config(), batch(&LENGTHS, 3));
    let how = How { output: Floats::F32, ..How::default() };
    let hows = [
        ("packed", how),
        ("packed, offsets", How { groups_as: GroupsAs::Offsets, wide_offsets: true, ..how }),
        ("padded", How { padded: true, spare: 3, ..how }),
        ("padded left, bf16", How { padded: true, pad_left: true, spare: 5, output: Floats::Bf16, ..how }),
        ("strided, f16", How { stride: 3, output: Floats::F16, ..how }),
        ("f64", How { other_floats: true, output: Floats::F64, ..how }),
    ];
    for (name, how) in &hows {
        let edit: &dyn Fn(&mut Placed) = if how.groups_as == GroupsAs::Offsets { &|_| () } else { &constant(3) };
        let left = check(name, &cfg, &batch, how, To::Own, edit);
        assert!(left.report.sum_squares > 0.0 && left.report.findings == 0);
    }
    for to in [To::Values, To::Rewards] {
        for padded in [false, true] {
            check(&format!("in place of {to:?}"), &cfg, &batch, &How { padded, ..how }, to, &constant(3));
        }
    }
}

#[test]
fn settings_of_the_scan_and_of_post_have_the_bits_of_the_cpu() {
    if skipped() {
        return;
    }
    let _lock = cudasim::lock();
    let batch = batch(&LENGTHS, 2);
    let how = How { output: Floats::F32, padded: true, spare: 2, ..How::default() };
    let settings: [(&str, &dyn Fn(&mut Config)); 6] = [
        ("temperature", &|c| c.temperature = 0.7),
        ("clip", &|c| c.clip = 0.5),
        ("gamma 1, lam 1", &|c| (c.gamma, c.lam) = (1.0, 1.0)),
        ("lam 0", &|c| c.lam = 0.0),
        ("a chunk a token", &|c| c.chunk = Chunk::Token),
        ("gaps decay, padding left alone", &|c| (c.scan_mask, c.fill_padding) = (ScanMask::Decay, false)),
    ];
    for (name, edit) in settings {
        let mut cfg = config();
        edit(&mut cfg);
        let left = check(name, &cfg, &batch, &how, To::Own, &constant(2));
        assert_eq!(left.report.clipped_tokens > 0, cfg.clip < 1.0, "{name}");
    }
}

#[test]
fn what_is_not_finite_makes_its_group_zero_and_no_other() {
    if skipped() {
        return;
    }
    let _lock = cudasim::lock();
    let cfg = config();
    for (name, spoil) in [
        ("value", (|r: &mut Rollout| r.values.as_mut().expect("given")[3] = f32::NAN) as fn(&mut Rollout)),
        ("reward", |r| r.token_rewards.as_mut().expect("given")[0] = f32::INFINITY),
        ("bootstrap", |r| r.bootstrap = Some(f32::NEG_INFINITY)),
    ] {
        let mut batch = batch(&LENGTHS, 3);
        for i in [4, 9, 11] {
            spoil(&mut batch.rollouts[i]);
        }
        for padded in [false, true] {
            let how = How { output: Floats::F32, padded, spare: 1, ..How::default() };
            let left = check(name, &cfg, &batch, &how, To::Own, &constant(3));
            assert_eq!((left.report.bad_groups, left.report.nonfinite_values, left.report.first_group, left.report.first_rollout), (2, 3, 1, 4), "{name}");
            let inside = check(name, &cfg, &batch, &How { padded, ..how }, To::Values, &constant(3));
            assert_eq!(inside.report.bad_groups, 2);
        }
    }
}

/// A long rollout among many short ones has a block for each of its parts; what a part needs of the one before it reaches it on every schedule, whatever lies where.
#[test]
fn a_long_rollout_in_many_parts_has_the_bits_of_the_cpu() {
    if skipped() {
        return;
    }
    let _lock = cudasim::lock();
    // Packed blocks are of 256 tokens, padded ones of 2,048.
    let mut lengths: Vec<usize> = (0..90).map(|i| i * 7 % 33).collect();
    (lengths[4], lengths[60], lengths[88]) = (2571, 256, 257);
    let (cfg, good) = (config(), batch(&lengths, 3));
    let mut bad = batch(&lengths, 3);
    bad.rollouts[4].values.as_mut().expect("given")[3] = f32::NAN;
    for padded in [false, true] {
        let how = How { output: Floats::F32, padded, spare: 1, ..How::default() };
        for (name, batch, groups) in [("good", &good, 0), ("bad", &bad, 1)] {
            let left = check(name, &cfg, batch, &how, To::Own, &constant(3));
            assert_eq!((left.report.bad_groups, left.report.nonfinite_values), (groups, groups));
            let blocks = cudasim::stats(Some("passrl_gae")).blocks as usize;
            assert!(blocks >= lengths.len() + if padded { 1 } else { 12 }, "{blocks} blocks");
            for to in [To::Values, To::Rewards] {
                check(name, &cfg, batch, &How { spare: 0, ..how }, to, &constant(3));
            }
        }
    }
}

/// The host of the CPU backend refuses such a batch; on CUDA the kernels find it, after other blocks have written.
#[test]
fn offsets_that_do_not_fit_make_the_whole_batch_zero() {
    if skipped() {
        return;
    }
    let _lock = cudasim::lock();
    let (cfg, batch) = (config(), batch(&LENGTHS, 3));
    for padded in [false, true] {
        let how = How { output: Floats::F32, padded, cuda: true, ..How::default() };
        // (The first and the last offset say where zeros end and begin that are no rollout's.)
        for (seed, (at, value)) in [(5, -7), (0, 1 << 30), (11, 1 << 30), (if padded { 11 } else { 12 }, i32::MAX)].into_iter().enumerate() {
            let spoil = |placed: &mut Placed| {
                constant(3)(placed);
                let view = if padded { placed.batch.lengths } else { placed.batch.cu_seqlens };
                // SAFETY: i32 of the placed batch, more than `at` of them.
                unsafe { (*view).data.cast::<i32>().add(at).write(value) };
            };
            let seed = seed as u64;
            SEED.store(seed, Ordering::Relaxed);
            let left = run(&cfg, &batch, &how, To::Own, &spoil);
            assert!(left.memory[..2].iter().flatten().all(|byte| *byte == 0), "padded: {padded}");
            let r = left.report;
            assert_eq!((r.findings & PASSRL_FOUND_BAD_OFFSETS, r.rollouts, r.tokens, r.chunks), (PASSRL_FOUND_BAD_OFFSETS, 0, 0, 0));
            assert_eq!((r.sum_advantages, r.sum_squares, r.clipped_tokens, r.first_rollout), (0.0, 0.0, 0, -1));
        }
    }
}
