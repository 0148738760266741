//! The accuracy that the contract promises, that a float32 pipeline does not have it, and the bits that this numerics version has.

use harness::{Floats, How, run, serve};
use oracle::{Batch, Config, Output};
use passrl::numerics::convert::OutElem;
use testkit::{cases, harness, oracle};

/// Largest error of a result, in units of the contract's bound: 1 ulp of f32, or 1e-7 of the group's largest |A|. At most 1 is kept.
fn error(batch: &Batch, got: &[Vec<f64>], wanted: &Output) -> f64 {
    let mut worst = 0.0f64;
    for (i, r) in batch.rollouts.iter().enumerate() {
        let group = (0..batch.rollouts.len()).filter(|j| batch.rollouts[*j].group == r.group);
        let largest = group.flat_map(|j| &wanted.rollouts[j].advantages).fold(0.0f64, |m, a| m.max(a.abs()));
        for (a, w) in got[i].iter().zip(&wanted.rollouts[i].advantages) {
            let bound = (1e-7 * largest).max(2f64.powi(-23) * w.abs()).max(1e-12);
            worst = worst.max((a - w).abs() / bound);
        }
    }
    worst
}

/// PASS as frameworks write it: everything in float32, statistics in two passes, the return-to-go a running sum. CSR steps, no holes, all formats right.
fn float32(cfg: &Config, batch: &Batch) -> Vec<Vec<f64>> {
    let standard = |values: &[f32]| {
        let n = values.len() as f32;
        let mean = values.iter().sum::<f32>() / n;
        let var = values.iter().map(|x| (x - mean) * (x - mean)).sum::<f32>() / (n - 1.0);
        (mean, var.sqrt() + 1e-6)
    };
    let of = |g: usize, value: &dyn Fn(&oracle::Rollout) -> Vec<f32>| {
        standard(&batch.rollouts.iter().filter(|r| r.group == g).flat_map(value).collect::<Vec<_>>())
    };
    batch
        .rollouts
        .iter()
        .map(|r| {
            let (pm, ps) = of(r.group, &|r| r.step_scores[0].clone());
            let (om, os) = of(r.group, &|r| vec![r.outcome.unwrap_or(0.0)]);
            let (fm, fs) = of(r.group, &|r| vec![r.format.unwrap_or(0.0)]);
            let term = (r.outcome.unwrap_or(0.0) - om) / os + (r.format.unwrap_or(0.0) - fm) / fs;
            let ends = r.step_ends.clone().unwrap_or_default();
            let (mut g, mut out) = (0.0f32, vec![0.0; r.len]);
            for j in (0..ends.len()).rev() {
                g += (r.step_scores[0][j] - pm) / ps + term;
                let d = g / ((ends.len() - j) as f32).powf(cfg.k as f32);
                let begin = if j == 0 { 0 } else { ends[j - 1] as usize };
                out[begin..ends[j] as usize].fill(d as f64);
            }
            out
        })
        .collect()
}

/// Groups of 16 rollouts with hundreds of steps of continuous scores, as a process reward model gives them.
fn long_batch(seed: u64) -> Batch {
    let mut rng = cases::Rng(seed);
    let rollouts = (0..32)
        .map(|i| {
            let steps = 200 + rng.below(600);
            let scores = (0..steps).map(|_| (0.7 + 0.2 * rng.normal()) as f32).collect();
            oracle::Rollout {
                len: steps,
                group: i / 16,
                in_stats: true,
                outcome: Some(rng.below(2) as f32),
                format: Some(if rng.below(4) == 0 { 0.25 } else { 1.0 }),
                step_ends: Some((1..=steps as i64).collect()),
                step_scores: vec![scores],
                ..Default::default()
            }
        })
        .collect();
    Batch { num_groups: 2, rollouts, ..Batch::default() }
}

#[test]
fn the_library_keeps_the_bound_and_float32_does_not() {
    let cfg = Config::default();
    let (mut ours, mut theirs) = (0.0f64, 0.0f64);
    for seed in 1..6 {
        let batch = long_batch(seed);
        let wanted = oracle::shape(&cfg, &batch);
        let got = run(&cfg, &batch, &How { output: Floats::F32, ..How::default() });
        ours = ours.max(error(&batch, &got.advantages, &wanted));
        theirs = theirs.max(error(&batch, &float32(&cfg, &batch), &wanted));
    }
    println!("largest error in units of the bound: library {ours:.3}, float32 pipeline {theirs:.1}");
    assert!(ours <= 1.0, "library {ours}");
    assert!(theirs > 2.0, "a float32 pipeline passes the check ({theirs}), so the check is worth nothing");
}

/// bf16, f16 and f64 outputs are the nearest values of what f64 says.
#[test]
fn output_types_are_rounded_once() {
    for case in serve(cases::all()).into_iter().filter(|c| c.batch.rollouts.iter().map(|r| r.len).sum::<usize>() < 5000) {
        let wide = run(&case.cfg, &case.batch, &How::default());
        for output in [Floats::F32, Floats::Bf16, Floats::F16] {
            let narrow = run(&case.cfg, &case.batch, &How { output, ..How::default() });
            for (i, row) in wide.advantages.iter().enumerate() {
                for (t, x) in row.iter().enumerate() {
                    let mut over = 0;
                    let nearest = match output {
                        Floats::Bf16 => <half::bf16 as OutElem>::from_f64(*x, &mut over).to_f64(),
                        Floats::F16 => <half::f16 as OutElem>::from_f64(*x, &mut over).to_f64(),
                        _ => f32::from_f64(*x, &mut over) as f64,
                    };
                    assert_eq!(narrow.advantages[i][t], nearest, "{} rollout {i} token {t}, {output:?} of {x:e}", case.name);
                }
            }
        }
    }
}

/// Every output bit of every case, as one number a case, held in a file: a change of any raises `passrl_numerics_version`. BLESS=1 rewrites.
#[test]
fn bits_are_those_of_this_numerics_version() {
    let mut lines = vec![format!("# numerics version {}: FNV-1a over the outputs of each case of the table", passrl::NUMERICS_VERSION)];
    for case in serve(cases::all()) {
        let got = run(&case.cfg, &case.batch, &How { threads: 2, ..How::default() });
        let bytes = got.bits().into_iter().flat_map(u64::to_le_bytes);
        let hash = bytes.fold(0xcbf2_9ce4_8422_2325u64, |h, b| (h ^ b as u64).wrapping_mul(0x0100_0000_01b3));
        lines.push(format!("{hash:016x} {}", case.name));
    }
    let new = lines.join("\n") + "\n";
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/cases/hashes.txt");
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(path, &new).expect("hashes.txt is written");
    }
    let old = std::fs::read_to_string(path).unwrap_or_default();
    let changed: Vec<&str> = new.lines().filter(|line| !old.contains(line)).collect();
    assert!(changed.is_empty() && old == new, "bits differ from tests/cases/hashes.txt (raise PASSRL_NUMERICS_VERSION, then BLESS=1):\n{}", changed.join("\n"));
}
