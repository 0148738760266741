//! The CUDA backend of the shipped library on device memory (of the simulated driver, tests/cudasim) against its CPU backend: every bit of every output.

use harness::{Got, How, device, serve};
use oracle::{Batch, Config};
use passrl::abi::constants::PASSRL_I64;
use passrl::abi::types::passrl_report;
use testkit::{cases, harness, oracle};

/// Says why the tests here cannot run, where they cannot.
fn skipped() -> bool {
    match device::driver() {
        Ok(_) => false,
        Err(why) => {
            println!("SKIPPED: the CUDA backend: {why}");
            true
        }
    }
}

/// On a real device (tests/gpu/check) there is nothing to ask and nothing to shuffle.
fn simulated() -> bool {
    std::env::var_os("PASSRL_GPU").is_none()
}

/// What the simulated driver's checks found.
fn found() -> String {
    if simulated() { cudasim::report() } else { String::new() }
}

/// The order of blocks and threads.
fn schedule(seed: u64) {
    if simulated() {
        cudasim::seed(seed);
    }
}

/// Two reports whose counts are the same; sums of the advantages may differ in their last bits.
fn counts(name: &str, cpu: &passrl_report, cuda: &passrl_report) -> Vec<String> {
    let of = |r: &passrl_report| {
        [
            ("findings", r.findings), ("first_finding", r.first_finding), ("first_rollout", r.first_rollout), ("first_group", r.first_group),
            ("first_stream", r.first_stream), ("rollouts", r.rollouts), ("tokens", r.tokens), ("chunks", r.chunks),
            ("degenerate_groups", r.degenerate_groups), ("bad_groups", r.bad_groups), ("violating_groups", r.violating_groups),
            ("missing_values", r.missing_values), ("nonfinite_values", r.nonfinite_values), ("low_logps", r.low_logps),
            ("clipped_tokens", r.clipped_tokens), ("overflowed_tokens", r.overflowed_tokens), ("bad_steps", r.bad_steps),
            ("lost_deviations", r.lost_deviations), ("struct_size", r.struct_size as i64), ("reserved0", r.reserved0 as i64),
        ]
    };
    let mut found: Vec<String> = of(cpu)
        .into_iter()
        .zip(of(cuda))
        .filter(|(a, b)| a != b)
        .map(|((field, a), (_, b))| format!("{name}: report.{field} is {b} on CUDA, {a} on the CPU"))
        .collect();
    let close = |a: f64, b: f64, scale: f64| (a - b).abs() <= 1e-12 * scale.max(1.0) || (a.is_nan() && b.is_nan());
    let scale = (cpu.sum_squares * cpu.tokens as f64).sqrt();
    if !close(cpu.sum_advantages, cuda.sum_advantages, scale) || !close(cpu.sum_squares, cuda.sum_squares, cpu.sum_squares) {
        found.push(format!("{name}: report sums {} {} on CUDA, {} {} on the CPU", cuda.sum_advantages, cuda.sum_squares, cpu.sum_advantages, cpu.sum_squares));
    }
    found
}

/// Every difference, in words.
fn differences(name: &str, cpu: &Got, cuda: &Got, how: &How) -> Vec<String> {
    let mut found = Vec::new();
    let bits = |x: f64| x.to_bits();
    let mut rows = |what: &str, a: &[Vec<f64>], b: &[Vec<f64>]| {
        for (i, (a, b)) in a.iter().zip(b).enumerate() {
            if let Some(t) = (0..a.len().max(b.len())).find(|t| a.get(*t).copied().map(bits) != b.get(*t).copied().map(bits)) {
                found.push(format!("{name}: {what} of rollout {i} at {t}: {:?} on CUDA, {:?} on the CPU", b.get(t), a.get(t)));
            }
        }
    };
    rows("advantages", &cpu.advantages, &cuda.advantages);
    if !how.lean {
        rows("returns", &cpu.returns, &cuda.returns);
        rows("chunk_values", &cpu.chunk_values, &cuda.chunk_values);
    }
    rows("path_scores", &[cpu.path_scores.clone()], &[cuda.path_scores.clone()]);
    if cpu.num_chunks != cuda.num_chunks || (!how.lean && cpu.chunk_ends != cuda.chunk_ends) {
        found.push(format!("{name}: chunks {:?} {:?} on CUDA, {:?} {:?} on the CPU", cuda.num_chunks, cuda.chunk_ends, cpu.num_chunks, cpu.chunk_ends));
    }
    for (g, (a, b)) in cpu.stats.iter().zip(&cuda.stats).enumerate() {
        for (s, (a, b)) in a.iter().zip(b).enumerate() {
            if (a.0, bits(a.1), bits(a.2), bits(a.3)) != (b.0, bits(b.1), bits(b.2), bits(b.3)) {
                found.push(format!("{name}: statistics of group {g}, stream {s}: {b:?} on CUDA, {a:?} on the CPU"));
            }
        }
    }
    if cpu.group_flags != cuda.group_flags {
        found.push(format!("{name}: group_flags {:?} on CUDA, {:?} on the CPU", cuda.group_flags, cpu.group_flags));
    }
    if cpu.rollout_flags != cuda.rollout_flags {
        found.push(format!("{name}: rollout_flags {:?} on CUDA, {:?} on the CPU", cuda.rollout_flags, cpu.rollout_flags));
    }
    if cpu.padding_is_zero != cuda.padding_is_zero {
        found.push(format!("{name}: padding is zero: {} on CUDA, {} on the CPU", cuda.padding_is_zero, cpu.padding_is_zero));
    }
    if !how.lean {
        if (cpu.status, &cpu.message) != (cuda.status, &cuda.message) && cuda.status >= 0 {
            let tail = |said: &str| said.split_once(": ").map_or(String::new(), |(_, rest)| rest.to_string());
            if cpu.status != cuda.status || tail(&cpu.message) != tail(&cuda.message) {
                found.push(format!("{name}: {} {} on CUDA, {} {} on the CPU", cuda.status, cuda.message, cpu.status, cpu.message));
            }
        }
    }
    if !how.lean || how.reports {
        found.extend(counts(name, &cpu.report, &cuda.report));
    }
    found
}

fn check(name: &str, cfg: &Config, batch: &Batch, how: &How) -> Vec<String> {
    let cpu = harness::try_run(cfg, batch, how);
    let cuda = harness::try_run(cfg, batch, &How { cuda: true, ..*how });
    let mut found = match (cpu, cuda) {
        (Ok(cpu), Ok(cuda)) => differences(name, &cpu, &cuda, how),
        (Err(cpu), Ok(_)) => vec![format!("{name}: refused on the CPU alone: {cpu}")],
        (Ok(_), Err(cuda)) => vec![format!("{name}: refused on CUDA: {cuda}")],
        (Err(_), Err(_)) => Vec::new(),
    };
    found.truncate(4);
    found
}

/// The cases that `PASSRL_CASES` names (parts of names, by commas); all where it is not set.
fn wanted(name: &str) -> bool {
    std::env::var("PASSRL_CASES").map_or(true, |parts| parts.split(',').any(|part| name.contains(part)))
}

fn table(hows: &[(&str, How)]) {
    if skipped() {
        return;
    }
    let _lock = cudasim::lock();
    table_of(hows, |_| true);
}

/// The cases whose batches are wanted; under the caller's lock.
fn table_of(hows: &[(&str, How)], which: fn(&Batch) -> bool) {
    let (mut failures, mut failed, mut ran) = (Vec::new(), 0, 0);
    for case in serve(cases::all()).iter().filter(|case| wanted(case.name) && !case.cfg.strict && which(&case.batch)) {
        for (label, how) in hows {
            ran += 1;
            let found = check(&format!("{}{label}", case.name), &case.cfg, &case.batch, how);
            failed += usize::from(!found.is_empty());
            failures.extend(found);
        }
    }
    let report = found();
    assert!(report.is_empty(), "the simulated driver reports:\n{report}\n{}", failures.join("\n"));
    assert!(failures.is_empty(), "{failed} of {ran} runs differ:\n{}", failures.join("\n"));
}

#[test]
fn every_case_has_the_bits_of_the_cpu_packed() {
    table(&[("", How::default())]);
}

#[test]
fn every_case_has_the_bits_of_the_cpu_padded() {
    let groups_as = harness::GroupsAs::Offsets;
    table(&[(" padded", How { padded: true, spare: 3, mask: PASSRL_I64, wide_offsets: true, output: harness::Floats::F32, groups_as, ..How::default() })]);
}

#[test]
fn every_layout_type_and_form_has_the_bits_of_the_cpu() {
    use harness::{Floats, GroupsAs};
    use passrl::abi::constants::{PASSRL_BF16, PASSRL_BOOL, PASSRL_F32, PASSRL_I32};
    let how = How::default();
    let hows = [
        (" in place", How { in_place: true, ..how }),
        (" bf16, left", How { padded: true, pad_left: true, spare: 2, output: Floats::Bf16, mask: PASSRL_BF16, ..how }),
        (" f16, offsets", How { output: Floats::F16, groups_as: GroupsAs::Offsets, wide_offsets: true, mask: PASSRL_BOOL, ..how }),
        (" strided, lean", How { stride: 3, lean: true, mask: PASSRL_F32, ..how }),
        (" other floats, strided rows", How { padded: true, other_floats: true, groups_as: GroupsAs::Constant, stride: 4, mask: PASSRL_I32, dirt: 0xff, ..how }),
    ];
    if skipped() {
        return;
    }
    let _lock = cudasim::lock();
    let mut failures = Vec::new();
    for (n, case) in serve(cases::all()).iter().filter(|case| wanted(case.name) && !case.cfg.strict).enumerate() {
        // Each case in one of them, so that all cases together see each form often.
        let (label, how) = &hows[n % hows.len()];
        failures.extend(check(&format!("{}{label}", case.name), &case.cfg, &case.batch, how));
    }
    assert!(failures.is_empty() && found().is_empty(), "{}", failures.join("\n"));
}

/// Rollouts of these lengths, each of a value a token or a step: runs go over the edges of parts (kernels/parts.cuh), end at them, fill one.
fn long_rollouts(lengths: &[usize], name: &str) -> Batch {
    let rollout = |(i, len): (usize, &usize)| {
        let value = |t: usize| match i % 8 {
            0 => (t / 2300) as f32 * 0.5,
            1 | 4 => (t / 8 % 5) as f32 * 0.25,
            _ => ((t + i) / 7 % 9) as f32 * 0.375 - 1.0,
        };
        let ends: Vec<usize> = (1..=*len).filter(|t| *t == *len || value(*t) != value(*t - 1)).collect();
        let steps = name == "steps";
        oracle::Rollout {
            len: *len,
            group: i / 3,
            in_stats: true,
            outcome: Some((i % 2) as f32),
            signal: if name == "dense" { vec![(0..*len).map(value).collect()] } else { Vec::new() },
            step_ends: steps.then(|| ends.iter().map(|end| *end as i64).collect()),
            step_scores: if steps { vec![ends.iter().map(|end| value(end - 1)).collect()] } else { Vec::new() },
            ..oracle::Rollout::default()
        }
    };
    Batch { num_groups: lengths.len() / 3, rollouts: lengths.iter().enumerate().map(rollout).collect(), ..Batch::default() }
}

#[test]
fn long_rollouts_in_parts_have_the_bits_of_the_cpu() {
    use harness::{Floats, GroupsAs};
    if skipped() {
        return;
    }
    let _lock = cudasim::lock();
    let mut failures = Vec::new();
    // Blocks are of 1,024 tokens packed, where most rollouts are short, and of 4,096 padded; four such blocks are not split.
    let mut many: Vec<usize> = (0..330).map(|i| i * 7 % 33).collect();
    (many[4], many[61], many[88]) = (5001, 6144, 4097);
    let how = How { output: Floats::F32, ..How::default() };
    // Of 256 tokens where nearly all are: more parts than a warp has lanes.
    let mut most: Vec<usize> = (0..1500).map(|i| i % 2).collect();
    most[4] = 9001;
    let hows = [
        ("packed, most parts", how, most),
        // (Where groups stand together, one block adds the sums of a group: long rollouts by all of its warps, short ones by one each.)
        ("packed", How { groups_as: GroupsAs::Constant, ..how }, many.clone()),
        ("in place", How { in_place: true, groups_as: GroupsAs::Offsets, ..how }, many),
        ("padded, bf16", How { padded: true, spare: 3, output: Floats::Bf16, groups_as: GroupsAs::Constant, ..how }, vec![3, 16_385, 17_000]),
    ];
    for name in ["dense", "steps", "outcome"] {
        let kind = if name == "outcome" { oracle::Kind::None } else { oracle::Kind::Prm };
        let cfg = Config { kind, ..Config::default() };
        for (label, how, lengths) in &hows {
            let (good, rollouts) = (long_rollouts(lengths, name), lengths.len() as u64);
            for seed in 0..3 {
                assert_eq!(found(), "");
                if simulated() {
                    cudasim::reset();
                    // (Of so many that no batch has groups enough for passrl_steps, whose blocks have whole groups.)
                    cudasim::attribute(steps::MULTIPROCESSORS, 100_000);
                }
                schedule(seed);
                failures.extend(check(&format!("{name}, {label}, schedule {seed}"), &cfg, &good, how));
                if simulated() {
                    let blocks = |kernel: &str| cudasim::stats(Some(kernel)).blocks;
                    assert!(blocks("passrl_shape_one_pass") > rollouts, "long rollouts are written by several blocks");
                    assert_eq!(blocks("passrl_prepare") > rollouts, name == "dense", "{name}: they are looked at by several");
                }
            }
            let (mut bad, at) = (good, if how.padded { 2 } else { 4 });
            match name {
                "dense" => bad.rollouts[at].signal[0][1500] = f32::INFINITY,
                "steps" => bad.rollouts[at].step_scores[0][1] = f32::NAN,
                _ => bad.rollouts[at].outcome = Some(f32::NAN),
            }
            failures.extend(check(&format!("{name}, {label}, a bad group"), &cfg, &bad, how));
        }
    }
    if simulated() {
        cudasim::attribute(steps::MULTIPROCESSORS, 132);
    }
    schedule(0);
    let report = found();
    assert!(report.is_empty(), "the simulated driver reports:\n{report}");
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

/// Dense signals that differ from token to token, of every fill of what a block gathers before it puts runs into the lists: packed, where a part's tiles are of 256
/// tokens, and padded; every token in scope, and a scope with holes.
#[test]
fn runs_of_one_token_have_the_bits_of_the_cpu() {
    if skipped() {
        return;
    }
    let _lock = cudasim::lock();
    let mut failures = Vec::new();
    let value = |i: usize, t: usize| (((i * 4099 + t) as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40) as f32 / (1u64 << 23) as f32 - 1.0;
    for holes in [false, true] {
        for lengths in [vec![255, 256, 257, 300], vec![511, 512, 513, 600], vec![767, 768, 769, 1025], vec![1300, 1535, 1793, 3001]] {
            let rollout = |(i, len): (usize, &usize)| oracle::Rollout {
                len: *len,
                in_stats: true,
                outcome: Some((i % 2) as f32),
                signal: vec![(0..*len).map(|t| value(i, t)).collect()],
                mask: holes.then(|| (0..*len).map(|t| t % 97 != 13).collect()),
                ..oracle::Rollout::default()
            };
            let batch = Batch { num_groups: 1, rollouts: lengths.iter().enumerate().map(rollout).collect(), ..Batch::default() };
            for padded in [false, true] {
                let name = format!("a value a token, {lengths:?}, holes {holes}, padded {padded}");
                failures.extend(check(&name, &Config::default(), &batch, &How { padded, ..How::default() }));
            }
        }
    }
    // A round of a scan is a line a thread, and a line more: each way from values to a scan.
    use oracle::{Center, Credit, Kind};
    let plain = Config::default();
    let mut left_out = plain.clone();
    left_out.process[0].center = Center::LeaveOneOut;
    let settings = [
        ("discounted", Config { gamma: 0.875, ..plain.clone() }),
        ("leave one out", left_out),
        ("broadcast", Config { credit: Credit::Broadcast, ..plain.clone() }),
        ("kl", Config { kind: Kind::Kl, ..plain.clone() }),
        ("gae", Config { kind: Kind::None, credit: Credit::Gae, gamma: 0.99, lam: 0.95, k: 0.0, ..plain }),
    ];
    for (label, cfg) in &settings {
        for lengths in [vec![63, 64, 65, 33], vec![127, 128, 129, 193], vec![255, 256, 257, 511], vec![512, 513, 514, 1025], vec![1535, 1536, 1537, 2561]] {
            let rollout = |(i, len): (usize, &usize)| oracle::Rollout {
                len: *len,
                in_stats: true,
                outcome: Some((i % 2) as f32),
                signal: if cfg.kind == Kind::None { Vec::new() } else { vec![(0..*len).map(|t| value(i, t)).collect()] },
                values: (cfg.credit == Credit::Gae).then(|| (0..*len).map(|t| value(i + 9, t)).collect()),
                ..oracle::Rollout::default()
            };
            let batch = Batch { num_groups: 1, rollouts: lengths.iter().enumerate().map(rollout).collect(), ..Batch::default() };
            failures.extend(check(&format!("{label}, {lengths:?}"), cfg, &batch, &How::default()));
        }
    }
    let report = found();
    assert!(report.is_empty(), "the simulated driver reports:\n{report}");
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

/// CSR steps that each have a token are read where the caller has them, others from a list: both in one batch and in one group, as many as a block keeps at hand and more,
/// as many as the table of n^-k that comes with a launch has and more; sets of equal scores, settings that ask for a rollout's own sums, and bad values.
#[test]
fn steps_where_the_caller_has_them_have_the_bits_of_the_cpu() {
    use harness::GroupsAs;
    use oracle::{Center, Credit, Kind, LooUnit, Pool};
    if skipped() {
        return;
    }
    let _lock = cudasim::lock();
    // Steps of a rollout, how many tokens each has, tokens after the last; every n-th step (0: none) is empty.
    let shapes = [(1, 1, 0, 0), (47, 3, 0, 0), (48, 2, 1, 0), (49, 2, 0, 0), (96, 1, 5, 0), (20, 4, 0, 3), (512, 1, 0, 0), (513, 2, 1, 0), (7, 1, 0, 7), (0, 0, 4, 0), (0, 0, 0, 0), (300, 3, 2, 0)];
    let batch = |equal: bool| {
        let rollout = |(i, (steps, each, after, empty)): (usize, &(usize, usize, usize, usize))| {
            let has_token = |j: usize| *empty == 0 || j % empty != empty - 1;
            let ends: Vec<i64> = (0..*steps).scan(0, |end, j| { *end += if has_token(j) { *each as i64 } else { 0 }; Some(*end) }).collect();
            oracle::Rollout {
                len: ends.last().map_or(0, |end| *end as usize) + after,
                group: i / 3,
                in_stats: i != 4,
                outcome: Some((i % 2) as f32),
                format: Some((i % 3) as f32),
                format_ok: Some(i != 2),
                step_scores: vec![(0..*steps).map(|j| if equal && i < 6 { 0.5 } else { (j * 7 % 23) as f32 * 0.125 - i as f32 }).collect()],
                step_ends: Some(ends),
                ..oracle::Rollout::default()
            }
        };
        Batch { num_groups: 4, rollouts: shapes.iter().enumerate().map(rollout).collect(), ..Batch::default() }
    };
    let plain = Config { kind: Kind::Prm, ..Config::default() };
    let mut left_out = plain.clone();
    (left_out.process[0].center, left_out.process[0].loo_unit) = (Center::LeaveOneOut, LooUnit::Rollout);
    let settings = [
        ("plain", plain.clone()),
        ("discounted", Config { gamma: 0.875, ..plain.clone() }),
        ("broadcast, k = 0", Config { credit: Credit::Broadcast, k: 0.0, ..plain.clone() }),
        ("means of rollouts", Config { pool: Pool::Rollouts, ..plain }),
        ("leave one out", left_out),
    ];
    let mut failures = Vec::new();
    for (n, (label, cfg)) in settings.iter().enumerate() {
        for (padded, groups_as) in [(false, GroupsAs::Constant), (false, GroupsAs::Offsets), (true, GroupsAs::Constant)] {
            let how = How { padded, groups_as, ..How::default() };
            for equal in [false, true] {
                let good = batch(equal);
                schedule(n as u64 + u64::from(equal));
                failures.extend(check(&format!("{label}, padded {padded}, {groups_as:?}, equal scores {equal}"), cfg, &good, &how));
                let mut bad = good;
                bad.rollouts[1].step_scores[0][5] = f32::NAN;
                bad.rollouts[3].step_scores[0][48] = f32::INFINITY;
                bad.rollouts[11].step_ends.as_mut().expect("steps")[9] = 1;
                failures.extend(check(&format!("{label}, padded {padded}, {groups_as:?}, bad groups"), cfg, &bad, &how));
            }
        }
    }
    schedule(0);
    let report = found();
    assert!(report.is_empty(), "the simulated driver reports:\n{report}");
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[path = "cuda/steps.rs"]
mod steps;

/// Settings and batches that nobody thought of, under shuffled schedules of blocks and threads.
#[test]
fn random_cases_have_the_bits_of_the_cpu() {
    if skipped() {
        return;
    }
    let _lock = cudasim::lock();
    let seeds: u64 = std::env::var("PASSRL_SEEDS").ok().and_then(|n| n.parse().ok()).unwrap_or(100);
    let (mut failures, mut ran) = (Vec::new(), 0);
    for seed in 0..seeds {
        for of in [cases::random as fn(u64) -> cases::Case, cases::random_estimators] {
            let case = of(seed);
            if !harness::served(&case.cfg) || case.cfg.strict {
                continue;
            }
            ran += 1;
            schedule(seed);
            let how = How { padded: seed % 2 == 1, spare: (seed % 3) as usize, ..How::default() };
            failures.extend(check(&format!("{} seed {seed}", case.name), &case.cfg, &case.batch, &how));
        }
    }
    schedule(0);
    let report = found();
    assert!(report.is_empty(), "the simulated driver reports:\n{report}");
    assert!(failures.is_empty(), "of {ran} runs:\n{}", failures.join("\n"));
    assert!(ran > seeds, "{ran} cases of {seeds} seeds are served");
}
