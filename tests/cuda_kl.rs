//! Long rollouts of kind kl in parts (kernels/kl_parts.cuh, shape_parts.cuh), on device memory of the simulated driver, against the CPU backend: every bit of every
//! output, every count of the report, under several schedules of blocks and threads.
#![allow(dead_code)]

use harness::{Floats, Got, GroupsAs, How, Placed, device};
use oracle::{AverageOver, Batch, BoundaryRule, Center, Chunk, ChunkValue, Config, Credit, Kind, LogProbs, Rollout, Scale};
use passrl::abi::constants::PASSRL_FOUND_BAD_OFFSETS;
use std::sync::atomic::{AtomicU64, Ordering};
use testkit::{harness, oracle};

/// SplitMix64.
fn noise(seed: u64) -> u64 {
    let mut z = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(0x1234_5678);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// What signals are like: which positions of a group's average differ from the one before.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Signal {
    /// All of them: every token is a chunk.
    Noise,
    /// Most of them.
    Coarse,
    /// One in a part, at its border (256 and 1,024 tokens).
    Borders,
    /// One in some 700, so that a part of chunks has the tokens of many parts, and most parts no chunk.
    Seldom,
    /// None but where a rollout ends.
    Flat,
}

impl Signal {
    fn at(self, i: usize, t: usize) -> f32 {
        let level = |of: usize| (noise((of as u64) << 20 | i as u64) % 64) as f32 / 16.0 - 2.0;
        match self {
            Signal::Noise => (noise((i as u64) << 32 | t as u64) >> 40) as f32 / (1u64 << 22) as f32 - 2.0,
            Signal::Coarse => level(t * 5 / 7),
            Signal::Borders => level(t / if i % 2 == 0 { 256 } else { 1024 }),
            Signal::Seldom => level(t / 700),
            Signal::Flat => level(0),
        }
    }
}

fn batch(lengths: &[usize], signal: Signal) -> Batch {
    let rollout = |(i, len): (usize, &usize)| Rollout {
        len: *len,
        group: i / 3,
        in_stats: true,
        outcome: Some((noise(i as u64) % 5) as f32 * 0.25),
        format: Some((i % 4 != 1) as u8 as f32),
        format_ok: Some(i % 4 != 1),
        signal: vec![(0..*len).map(|t| signal.at(i, t)).collect()],
        ..Rollout::default()
    };
    Batch { num_groups: lengths.len() / 3, rollouts: lengths.iter().enumerate().map(rollout).collect(), ..Batch::default() }
}

/// Parts of 256 tokens: nearly all rollouts are short. One in more parts than a warp has lanes; a group of three long ones, of which one ends where a part does and one
/// has a token more than is one block's.
fn most_parts() -> Vec<usize> {
    let mut lengths: Vec<usize> = (0..1800).map(|i| i % 2).collect();
    (lengths[4], lengths[30], lengths[31], lengths[32], lengths[601]) = (9001, 1280, 1100, 1025, 500);
    lengths
}

/// Parts of 256 tokens, five or six a rollout.
fn few_parts() -> Vec<usize> {
    let mut lengths: Vec<usize> = (0..540).map(|i| i % 2).collect();
    (lengths[4], lengths[5], lengths[31]) = (1537, 1280, 1025);
    lengths
}

/// Parts of 1,024 tokens, blocks of four warps; one token more than four parts, a multiple of a part, a token less.
fn large_parts() -> Vec<usize> {
    let mut lengths: Vec<usize> = (0..480).map(|i| i * 7 % 33).collect();
    (lengths[4], lengths[5], lengths[61], lengths[88]) = (5001, 6144, 4097, 5119);
    lengths
}

fn config() -> Config {
    Config { kind: Kind::Kl, ..Config::default() }
}

fn counts(got: &Got) -> [i64; 18] {
    let r = &got.report;
    [
        r.findings, r.first_finding, r.first_rollout, r.first_group, r.first_stream, r.rollouts, r.tokens, r.chunks, r.degenerate_groups, r.bad_groups,
        r.violating_groups, r.missing_values, r.nonfinite_values, r.low_logps, r.clipped_tokens, r.overflowed_tokens, r.bad_steps, r.lost_deviations,
    ]
}

fn statistics(got: &Got) -> Vec<(i64, u64, u64, u64)> {
    got.stats.iter().flatten().map(|(n, mean, std, absmax)| (*n, mean.to_bits(), std.to_bits(), absmax.to_bits())).collect()
}

/// Has each kernel more blocks than rollouts?
fn in_parts(batch: &Batch) -> bool {
    let more = |kernel: &str, items: usize| cudasim::stats(Some(kernel)).blocks > items as u64;
    ["passrl_prepare", "passrl_sums", "passrl_shape_one_pass"].iter().all(|kernel| more(kernel, batch.rollouts.len()))
}

fn launched(kernel: &str) -> bool {
    cudasim::launched().iter().any(|name| name == kernel)
}

/// Schedules that a batch runs under; each run has one of its own.
fn schedules() -> Vec<u64> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let runs = std::env::var("PASSRL_SEEDS").ok().and_then(|n| n.parse().ok()).unwrap_or(1);
    (0..runs).map(|_| NEXT.fetch_add(1, Ordering::Relaxed)).collect()
}

/// Both backends; `parts`: are the long rollouts to be in parts? What the CPU left.
fn check(name: &str, cfg: &Config, batch: &Batch, how: &How, parts: bool) -> Got {
    let cpu = harness::try_run(cfg, batch, how).unwrap_or_else(|said| panic!("{name}: refused on the CPU: {said}"));
    for seed in schedules() {
        cudasim::reset();
        cudasim::seed(seed);
        let cuda = harness::try_run(cfg, batch, &How { cuda: true, ..*how }).unwrap_or_else(|said| panic!("{name}: refused on CUDA: {said}"));
        assert_eq!(cudasim::report(), "", "{name}, schedule {seed}");
        assert_eq!(in_parts(batch), parts, "{name}: are long rollouts in parts?");
        for (i, (a, b)) in cpu.advantages.iter().zip(&cuda.advantages).enumerate() {
            let at = a.iter().zip(b).position(|(a, b)| a.to_bits() != b.to_bits());
            assert!(at.is_none(), "{name}, schedule {seed}: advantages of rollout {i} differ at {at:?}: {:?} on the CPU, {:?} on CUDA", a[at.unwrap()], b[at.unwrap()]);
        }
        assert_eq!(cpu.num_chunks, cuda.num_chunks, "{name}, schedule {seed}");
        if !how.lean {
            assert!(cpu.bits() == cuda.bits(), "{name}, schedule {seed}: outputs beside the advantages differ");
            assert_eq!(counts(&cpu), counts(&cuda), "{name}, schedule {seed}: the report");
            let (a, b) = (&cpu.report, &cuda.report);
            let scale = (a.sum_squares * a.tokens as f64).sqrt().max(1.0);
            assert!((a.sum_advantages - b.sum_advantages).abs() <= 1e-12 * scale && (a.sum_squares - b.sum_squares).abs() <= 1e-12 * a.sum_squares.max(1.0), "{name}");
        }
        assert_eq!(statistics(&cpu), statistics(&cuda), "{name}, schedule {seed}: statistics of the groups");
        assert_eq!((&cpu.group_flags, &cpu.rollout_flags, cpu.padding_is_zero), (&cuda.group_flags, &cuda.rollout_flags, cuda.padding_is_zero), "{name}");
    }
    cudasim::seed(0);
    cpu
}

fn skipped() -> bool {
    match device::driver() {
        Ok(_) => false,
        Err(why) => {
            println!("SKIPPED: long rollouts of kl on CUDA: {why}");
            true
        }
    }
}

#[test]
fn edges_wherever_they_lie_have_the_bits_of_the_cpu() {
    if skipped() {
        return;
    }
    let _lock = cudasim::lock();
    let how = How { output: Floats::F32, ..How::default() };
    for signal in [Signal::Noise, Signal::Coarse, Signal::Borders, Signal::Seldom, Signal::Flat] {
        for (lengths, groups_as) in [(most_parts(), GroupsAs::Offsets), (large_parts(), GroupsAs::Index), (few_parts(), GroupsAs::Offsets)] {
            let batch = batch(&lengths, signal);
            let got = check(&format!("{signal:?}, {groups_as:?}"), &config(), &batch, &How { groups_as, ..how }, true);
            // Of groups that stand together the edges are kept where the sums are added, else by a kernel of their own.
            assert_eq!(launched("passrl_edges"), groups_as == GroupsAs::Index);
            let chunks = got.num_chunks[4];
            let many = match signal {
                Signal::Noise => chunks == lengths[4],
                Signal::Coarse => chunks > lengths[4] / 2 && chunks < lengths[4],
                Signal::Borders => chunks < 40,
                Signal::Seldom | Signal::Flat => chunks < 20,
            };
            assert!(many && got.report.sum_squares > 0.0, "{signal:?}: {chunks} chunks");
        }
    }
}

#[test]
fn layouts_types_and_places_have_the_bits_of_the_cpu() {
    if skipped() {
        return;
    }
    let _lock = cudasim::lock();
    let how = How { output: Floats::F32, ..How::default() };
    let hows = [
        ("in place", How { in_place: true, ..how }),
        ("f64, wide offsets", How { output: Floats::F64, wide_offsets: true, groups_as: GroupsAs::Offsets, ..how }),
        ("bf16, strided", How { output: Floats::Bf16, stride: 3, ..how }),
        ("f16, lean", How { output: Floats::F16, lean: true, ..how }),
    ];
    for (name, how) in &hows {
        for signal in [Signal::Noise, Signal::Coarse] {
            check(&format!("{signal:?}, {name}"), &config(), &batch(&few_parts(), signal), how, true);
        }
        check(&format!("seldom, {name}"), &config(), &batch(&large_parts(), Signal::Seldom), how, true);
    }
    // Rows are as long as the longest rollout: parts of 4,096 tokens.
    let rows = [
        ("right", Signal::Noise, how),
        ("left", Signal::Coarse, How { pad_left: true, output: Floats::Bf16, ..how }),
        ("in place", Signal::Coarse, How { in_place: true, ..how }),
        ("in place", Signal::Noise, How { in_place: true, pad_left: true, ..how }),
        ("right, seldom", Signal::Seldom, how),
    ];
    for (name, signal, how) in rows {
        check(&format!("{signal:?}, padded, {name}"), &config(), &batch(&[3, 16_385, 20_480], signal), &How { padded: true, spare: 3, ..how }, true);
    }
}

#[test]
fn settings_have_the_bits_of_the_cpu() {
    if skipped() {
        return;
    }
    let _lock = cudasim::lock();
    let how = How { output: Floats::F32, groups_as: GroupsAs::Offsets, ..How::default() };
    type Edit = fn(&mut Config);
    let settings: [(&str, bool, Edit); 14] = [
        ("gamma", true, |c| c.gamma = 0.97),
        ("k 0", true, |c| c.k = 0.0),
        ("k 1, gamma", true, |c| (c.k, c.gamma) = (1.0, 0.999)),
        ("broadcast", true, |c| (c.credit, c.gamma) = (Credit::Broadcast, 0.5)),
        ("temperature, clip", true, |c| (c.temperature, c.clip) = (0.7, 0.5)),
        ("over the group", true, |c| c.average_over = AverageOver::Group),
        ("abs_max", true, |c| (c.process[0].center, c.process[0].scale) = (Center::None, Scale::AbsMax)),
        ("mean", true, |c| c.process[0].scale = Scale::None),
        ("leave_one_out", true, |c| (c.process[0].center, c.process[0].scale) = (Center::LeaveOneOut, Scale::None)),
        ("eta", true, |c| c.eta = 0.3),
        ("padding left alone", true, |c| c.fill_padding = false),
        // Ways of whole rollouts.
        ("a mean a chunk", false, |c| c.chunk_value = ChunkValue::Mean),
        ("anchored", false, |c| (c.boundary_rule, c.eta) = (BoundaryRule::Anchored, 0.4)),
        ("a chunk a token", false, |c| c.chunk = Chunk::Token),
    ];
    for (name, parts, edit) in settings {
        let mut cfg = config();
        edit(&mut cfg);
        for signal in if parts { [Signal::Noise, Signal::Coarse].iter() } else { [Signal::Coarse].iter() } {
            let got = check(&format!("{name}, {signal:?}"), &cfg, &batch(&few_parts(), *signal), &how, parts);
            assert_eq!(got.report.clipped_tokens > 0, cfg.clip < 1.0, "{name}");
        }
    }
}

#[test]
fn rollouts_out_of_the_sets_have_the_bits_of_the_cpu() {
    if skipped() {
        return;
    }
    let _lock = cudasim::lock();
    type Edit = fn(&mut Rollout);
    let edits: [(&str, bool, Edit); 5] = [
        ("not in the statistics", true, |r| r.in_stats = false),
        ("absent", true, |r| (r.absent, r.in_stats) = (true, false)),
        ("a wrong format", true, |r| r.format_ok = Some(false)),
        // Scopes with holes and with ends that are masked take the way of whole rollouts.
        ("a masked tail", false, |r| r.mask = Some((0..r.len).map(|t| t + 300 < r.len).collect())),
        ("holes, a part without scope", false, |r| r.mask = Some((0..r.len).map(|t| t % 9 != 4 && !(1024..2048).contains(&t)).collect())),
    ];
    for (name, parts, edit) in edits {
        for (lengths, which, groups_as) in [(few_parts(), [4, 31], GroupsAs::Offsets), (large_parts(), [5, 61], GroupsAs::Index)] {
            for signal in [Signal::Noise, Signal::Coarse] {
                let mut batch = batch(&lengths, signal);
                which.into_iter().for_each(|i| edit(&mut batch.rollouts[i]));
                check(&format!("{name}, {signal:?}"), &config(), &batch, &How { output: Floats::F32, groups_as, ..How::default() }, parts);
            }
        }
    }
}

#[test]
fn what_is_not_finite_in_one_part_makes_its_group_zero() {
    if skipped() {
        return;
    }
    let _lock = cudasim::lock();
    let how = How { output: Floats::F32, groups_as: GroupsAs::Offsets, ..How::default() };
    // In the first part, in one between, in the last; in several.
    let places: [(&[usize], f32); 4] = [(&[3], f32::NAN), (&[2600], f32::INFINITY), (&[9000], f32::NEG_INFINITY), (&[0, 255, 256, 8999], f32::NAN)];
    for (at, x) in places {
        for (signal, groups_as) in [(Signal::Noise, GroupsAs::Offsets), (Signal::Coarse, GroupsAs::Index)] {
            let mut batch = batch(&most_parts(), signal);
            at.iter().for_each(|t| batch.rollouts[4].signal[0][*t] = x);
            let got = check(&format!("{x} at {at:?}"), &config(), &batch, &How { groups_as, ..how }, true);
            let r = got.report;
            assert_eq!((r.bad_groups, r.nonfinite_values, r.first_group, r.first_rollout), (1, at.len() as i64, 1, 4));
        }
    }
}

#[test]
fn log_probabilities_have_the_bits_of_the_cpu() {
    if skipped() {
        return;
    }
    let _lock = cudasim::lock();
    for base in [false, true] {
        for (lengths, groups_as) in [(few_parts(), GroupsAs::Offsets), (large_parts(), GroupsAs::Index)] {
            let mut batch = batch(&lengths, Signal::Noise);
            for (i, r) in batch.rollouts.iter_mut().enumerate() {
                let line = |salt: usize| (0..r.len).map(|t| if t % 500 == 499 { -2e4 } else { -f64::from(Signal::Noise.at(i * 8 + salt, t).abs()) }).collect();
                r.logp = Some(LogProbs { policy: line(1), teacher: line(2), base: base.then(|| line(3)) });
                r.signal.clear();
            }
            let got = check(&format!("log-probabilities, base {base}"), &config(), &batch, &How { output: Floats::F32, groups_as, ..How::default() }, true);
            assert!(got.report.low_logps > 0);
        }
    }
}

/// The host of the CPU backend refuses such a batch; on CUDA the kernels find it, and no block waits for what never comes.
#[test]
fn offsets_that_do_not_fit_make_the_whole_batch_zero() {
    if skipped() {
        return;
    }
    let _lock = cudasim::lock();
    for groups_as in [GroupsAs::Offsets, GroupsAs::Index] {
        for (at, offset) in [(5, -7), (40, 0), (502, 1 << 30)] {
            let how = How { output: Floats::F32, cuda: true, groups_as, ..How::default() };
            let batch = batch(&few_parts(), Signal::Coarse);
            let spoil = |placed: &mut Placed| {
                // SAFETY: i32 of the placed batch, more than the rollouts.
                unsafe { (*placed.batch.cu_seqlens).data.cast::<i32>().add(at).write(offset) };
            };
            for seed in schedules() {
                cudasim::reset();
                cudasim::seed(seed);
                let got = harness::run_with(&config(), &batch, &how, &|_| (), &spoil);
                assert_eq!(cudasim::report(), "");
                assert!(in_parts(&batch));
                assert!(got.advantages.iter().flatten().all(|a| a.to_bits() == 0), "{at}");
                assert_eq!(got.report.findings & PASSRL_FOUND_BAD_OFFSETS, PASSRL_FOUND_BAD_OFFSETS);
            }
        }
    }
    cudasim::seed(0);
}
