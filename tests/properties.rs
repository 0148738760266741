//! Same batch, same bits: whatever the layout, the order of rollouts, the threads, the instruction set, the slicing, what lay in memory before.

use cases::Case;
use harness::{Floats, Got, GroupsAs, How, Sliced, in_pieces, in_slices, run, serve};
use oracle::Batch;
use passrl::abi::constants::*;
use testkit::{cases, harness, oracle};

/// Cases that the library serves: the table's small ones and random ones.
fn sample() -> Vec<Case> {
    let tokens = |b: &Batch| b.rollouts.iter().map(|r| r.len).sum::<usize>();
    let table = cases::all().into_iter().filter(|c| tokens(&c.batch) < 20_000);
    let random = (0..300).map(cases::random).chain((0..200).map(cases::random_estimators));
    serve(table.chain(random).filter(|c| !c.batch.rollouts.is_empty()).collect())
}

fn same(name: &str, what: &str, a: &Got, b: &Got) -> Option<String> {
    (a.bits() != b.bits()).then(|| {
        let first = (0..a.advantages.len()).find(|i| a.advantages[*i] != b.advantages[*i]);
        let lines = first.map(|i| format!("rollout {i}: {:?} against {:?}", a.advantages[i], b.advantages[i])).unwrap_or_else(|| "side outputs".into());
        format!("{name}, {what}: {}", lines.chars().take(300).collect::<String>())
    })
}

fn hold(what: &str, failures: Vec<String>) {
    assert!(failures.is_empty(), "{what}: {} differ:\n{}", failures.len(), failures[..failures.len().min(12)].join("\n"));
}

fn compare(what: &str, how: &How) {
    let failures = sample().iter().filter_map(|c| same(c.name, what, &run(&c.cfg, &c.batch, &How::default()), &run(&c.cfg, &c.batch, how))).collect();
    hold(what, failures);
}

#[test]
fn padded_right() {
    compare("padded right", &How { padded: true, spare: 5, ..How::default() });
}

#[test]
fn padded_left() {
    compare("padded left", &How { padded: true, pad_left: true, spare: 2, mask: PASSRL_I64, ..How::default() });
}

#[test]
fn mask_types() {
    for mask in [PASSRL_BOOL, PASSRL_I32, PASSRL_I64, PASSRL_F32, PASSRL_BF16] {
        compare("mask type", &How { mask, ..How::default() });
    }
}

#[test]
fn strides() {
    compare("strides", &How { stride: 3, ..How::default() });
    compare("row strides", &How { padded: true, stride: 7, ..How::default() });
}

#[test]
fn types_of_float_inputs() {
    compare("other floats", &How { other_floats: true, ..How::default() });
    compare("other floats padded", &How { other_floats: true, padded: true, pad_left: true, stride: 2, ..How::default() });
}

#[test]
fn wide_offsets_and_group_forms() {
    compare("i64 offsets", &How { wide_offsets: true, ..How::default() });
    compare("group offsets", &How { groups_as: GroupsAs::Offsets, ..How::default() });
}

#[test]
fn threads() {
    for threads in 2..=8 {
        compare("threads", &How { threads, ..How::default() });
    }
}

#[test]
fn instruction_sets() {
    compare("baseline", &How { simd: PASSRL_SIMD_BASELINE, ..How::default() });
    // The others compare the best that the processor has.
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("avx512vl") {
        compare("avx2", &How { simd: PASSRL_SIMD_AVX2, ..How::default() });
    }
}

#[test]
fn dirt() {
    compare("zeros before", &How { dirt: 0, ..How::default() });
    compare("ones before", &How { dirt: 0xff, ..How::default() });
}

#[test]
fn in_place() {
    let mut failures = Vec::new();
    for c in sample() {
        let out = How { output: Floats::F32, ..How::default() };
        failures.extend(same(c.name, "in place", &run(&c.cfg, &c.batch, &out), &run(&c.cfg, &c.batch, &How { in_place: true, ..out })));
    }
    hold("in place", failures);
}

/// Asking for less changes nothing: advantages alone take shorter ways.
#[test]
fn advantages_alone() {
    let mut failures = Vec::new();
    for c in sample() {
        let whole = run(&c.cfg, &c.batch, &How { output: Floats::F32, ..How::default() });
        for (simd, in_place, padded) in [(PASSRL_SIMD_BEST, false, false), (PASSRL_SIMD_BEST, true, true), (PASSRL_SIMD_BASELINE, false, true)] {
            let lean = run(&c.cfg, &c.batch, &How { output: Floats::F32, lean: true, simd, in_place, padded, ..How::default() });
            let bits = |got: &Got| got.advantages.iter().flatten().chain(&got.path_scores).map(|x| x.to_bits()).collect::<Vec<_>>();
            if bits(&whole) != bits(&lean) {
                failures.push(format!("{} simd {simd} in place {in_place} padded {padded}", c.name));
            }
        }
    }
    hold("advantages alone", failures);
}

/// Rollouts in another order: each keeps its bits.
#[test]
fn order_of_rollouts() {
    let mut failures = Vec::new();
    for (n, c) in sample().into_iter().enumerate() {
        let mut order: Vec<usize> = (0..c.batch.rollouts.len()).collect();
        let mut rng = cases::Rng(n as u64 + 1);
        (1..order.len()).rev().for_each(|i| order.swap(i, rng.below(i + 1)));
        let shuffled = c.batch.with(order.iter().map(|i| c.batch.rollouts[*i].clone()).collect());
        let (a, b) = (run(&c.cfg, &c.batch, &How::default()), run(&c.cfg, &shuffled, &How::default()));
        let moved = order.iter().enumerate().find(|(at, i)| {
            let bits = |got: &Got, r: usize| got.advantages[r].iter().map(|x| x.to_bits()).collect::<Vec<_>>();
            bits(&a, **i) != bits(&b, *at) || a.path_scores[**i].to_bits() != b.path_scores[*at].to_bits() || a.num_chunks[**i] != b.num_chunks[*at]
        });
        failures.extend(moved.map(|(at, i)| format!("{}: rollout {i} moved to {at}", c.name)));
    }
    hold("order", failures);
}

/// Other groups in the batch change nothing (but by whitening and statistics of the whole batch).
#[test]
fn other_groups() {
    let mut failures = Vec::new();
    for c in sample() {
        if c.cfg.is_of_the_batch() || c.batch.num_groups < 2 {
            continue;
        }
        let whole = run(&c.cfg, &c.batch, &How::default());
        let kept: Vec<usize> = (0..c.batch.rollouts.len()).filter(|i| c.batch.rollouts[*i].group == 0).collect();
        let mut alone = c.batch.with(kept.iter().map(|i| c.batch.rollouts[*i].clone()).collect());
        alone.num_groups = 1;
        [&mut alone.stats_mean, &mut alone.stats_std].into_iter().flatten().for_each(|lines| lines.truncate(1));
        if harness::forms(&alone.rollouts) != harness::forms(&c.batch.rollouts) {
            continue;
        }
        let alone = run(&c.cfg, &alone, &How::default());
        for (at, i) in kept.iter().enumerate() {
            if whole.advantages[*i].iter().zip(&alone.advantages[at]).any(|(a, b)| a.to_bits() != b.to_bits()) {
                failures.push(format!("{}: rollout {i}", c.name));
                break;
            }
        }
    }
    hold("other groups", failures);
}

#[test]
fn micro_batches_in_any_order() {
    let mut failures = Vec::new();
    let mut ran = 0;
    for (n, c) in sample().into_iter().filter(|c| in_pieces(&c.cfg)).enumerate() {
        let whole = run(&c.cfg, &c.batch, &How::default());
        for slices in [1, 2, 5, 17] {
            let sliced = Sliced { slices, seed: n as u64 * 31 + slices as u64, merged: n % 3 == 0 };
            let Some(got) = in_slices(&c.cfg, &c.batch, &How { padded: n % 2 == 0, ..How::default() }, sliced) else { continue };
            ran += 1;
            failures.extend(same(c.name, &format!("{slices} slices"), &whole, &got));
            if got.stats != whole.stats && got.stats.len() == whole.stats.len() {
                failures.push(format!("{}, {slices} slices: statistics", c.name));
            }
        }
    }
    println!("{ran} slicings, {} differ", failures.len());
    assert!(ran > 1000);
    hold("micro-batches", failures);
}

/// Micro-batches of whole groups serve what needs whole groups; any others are refused before anything is written.
#[test]
fn what_needs_whole_groups_takes_micro_batches_of_whole_groups() {
    let (mut failures, mut ran, mut refused) = (Vec::new(), 0, 0);
    for (n, c) in sample().into_iter().filter(|c| !in_pieces(&c.cfg)).enumerate() {
        let whole = run(&c.cfg, &c.batch, &How::default());
        for slices in [1, 2, 5] {
            let how = How { padded: n % 2 == 0, ..How::default() };
            let sliced = Sliced { slices, seed: n as u64, merged: n % 3 == 0 };
            // Whole groups, a slice each.
            let by_group: Vec<usize> = c.batch.rollouts.iter().map(|r| (r.group * 7 + n) % slices).collect();
            if let Some(got) = harness::in_given_slices(&c.cfg, &c.batch, &how, sliced, cases::Rng(n as u64), &by_group) {
                ran += 1;
                failures.extend(same(c.name, &format!("{slices} slices of whole groups"), &whole, &got.unwrap_or_else(|(_, said)| panic!("{}: {said}", c.name))));
            }
            let scattered: Vec<usize> = (0..c.batch.rollouts.len()).map(|i| i % slices).collect();
            let is_split = |g: usize| c.batch.rollouts.iter().zip(&scattered).filter(|(r, _)| r.group == g).any(|(_, s)| Some(*s) != c.batch.rollouts.iter().zip(&scattered).find(|(r, _)| r.group == g).map(|(_, s)| *s));
            if let (true, Some(got)) = ((0..c.batch.num_groups).any(is_split), harness::in_given_slices(&c.cfg, &c.batch, &how, sliced, cases::Rng(n as u64), &scattered)) {
                refused += 1;
                match got {
                    Err((status, said)) => assert!(status == passrl::abi::status::PASSRL_ERR_CONFLICT && said.contains("all rollouts of a group in one micro-batch"), "{}: {said}", c.name),
                    Ok(_) => failures.push(format!("{}: a split group is shaped", c.name)),
                }
            }
        }
    }
    println!("{ran} slicings of whole groups, {refused} of others");
    assert!(ran > 20 && refused > 10, "{ran} {refused}");
    hold("whole groups", failures);
}

/// Flush-to-zero and round-up, as a host may run: same bits, and the mode is the caller's afterwards.
#[cfg(target_arch = "x86_64")]
#[test]
fn floating_point_mode_of_the_caller() {
    fn mode() -> u32 {
        let mut mode = 0u32;
        // SAFETY: stores the control register to memory.
        unsafe { std::arch::asm!("stmxcsr [{}]", in(reg) &mut mode) };
        mode
    }
    fn set(mode: u32) {
        // SAFETY: loads a valid control word: default exceptions masked, FTZ, DAZ and rounding as asked.
        unsafe { std::arch::asm!("ldmxcsr [{}]", in(reg) &mode) };
    }
    let mut failures = Vec::new();
    for c in sample().into_iter().take(150) {
        let plain = run(&c.cfg, &c.batch, &How::default());
        let before = mode();
        set(0x1f80 | 0x8000 | 0x0040 | 0x4000);
        let (odd, after) = (run(&c.cfg, &c.batch, &How { threads: 2, ..How::default() }), mode());
        set(before);
        assert_eq!(after & 0xffc0, 0x1f80 | 0x8000 | 0x0040 | 0x4000, "the caller's mode");
        failures.extend(same(c.name, "flush to zero, round up", &plain, &odd));
    }
    hold("floating-point mode", failures);
}
