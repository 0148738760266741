//! Baselines a token (rule 66) through the C ABI, against plain f64 matrices written as verl writes them: rows are rollouts, columns slots of the response.
mod estimators;

use cases::{Input, Rng, Spec, build};
use estimators::{close, hows};
use harness::{Floats, Got, How, library, run_with};
use oracle::{Batch, Config};
use passrl::abi::constants::*;
use passrl::abi::types::passrl_config;
use testkit::{cases, harness, oracle};

const PRESETS: [&str; 2] = ["verl.optimal_token_baseline", "verl.tir_optimal_token_baseline"];

fn run(preset: &str, cfg: &Config, batch: &Batch, how: &How, edit: &dyn Fn(&mut passrl_config)) -> Got {
    let of_preset = |config: &mut passrl_config| {
        *config = library().config(preset);
        edit(config);
    };
    run_with(cfg, batch, how, &of_preset, &|_| ())
}

/// Returns and advantages of one group's rollouts, all of them in the statistics. `compress`: columns are tokens in scope (TIR).
fn matrices(batch: &Batch, group: usize, compress: bool) -> Vec<(usize, Vec<f64>, Vec<f64>)> {
    let rows: Vec<usize> = (0..batch.rollouts.len()).filter(|i| batch.rollouts[*i].group == group).collect();
    let width = rows.iter().map(|i| batch.rollouts[*i].len).max().unwrap_or(0);
    // Slot of each column of a row.
    let columns = |i: usize| -> Vec<Option<usize>> {
        let r = &batch.rollouts[i];
        let live = |t: &usize| r.mask.as_ref().is_none_or(|m| m[*t]);
        let mut of: Vec<Option<usize>> = if compress { (0..r.len).filter(live).map(Some).collect() } else { (0..r.len).map(|t| Some(t).filter(live)).collect() };
        of.resize(width, None);
        of
    };
    let (mut slots, mut returns, mut weights) = (Vec::new(), Vec::new(), Vec::new());
    for i in &rows {
        let (r, of) = (&batch.rollouts[*i], columns(*i));
        let last = of.iter().flatten().last().copied();
        let reward = |t: usize| match &r.token_rewards {
            Some(rewards) => rewards[t] as f64,
            None => if Some(t) == last { r.outcome.unwrap_or(0.0) as f64 } else { 0.0 },
        };
        let (mut g, mut w) = (vec![0.0; width], vec![0.0; width]);
        for c in (0..width).rev() {
            g[c] = of[c].map_or(0.0, reward) + if c + 1 < width { g[c + 1] } else { 0.0 };
        }
        for c in 0..width {
            let own = of[c].map_or(0.0, |t| {
                let rho = r.token_ratio.as_ref().map_or(1.0, |ratio| ratio[t]);
                (1.0 - 2.0 * r.policy()[t].exp() + r.sum_pi_squared.as_ref().expect("squares")[t]) * rho * rho
            });
            w[c] = own + if c > 0 { w[c - 1] } else { 0.0 };
        }
        slots.push(of);
        returns.push(g);
        weights.push(w);
    }
    let lengths: Vec<usize> = slots.iter().map(|of| of.iter().flatten().count()).collect();
    let counted: Vec<usize> = (0..rows.len()).filter(|n| lengths[*n] > 0).collect();
    let mut sorted: Vec<usize> = counted.iter().map(|n| lengths[*n]).collect();
    sorted.sort_unstable_by(|a, b| b.cmp(a));
    rows.iter()
        .enumerate()
        .map(|(n, i)| {
            let (mut a, mut g) = (vec![0.0; batch.rollouts[*i].len], vec![0.0; batch.rollouts[*i].len]);
            for c in 0..width {
                let Some(t) = slots[n][c] else { continue };
                let here = || counted.iter().copied().filter(|m| slots[*m][c].is_some());
                let (gains, sum) = (here().map(|m| returns[m][c] * weights[m][c]).sum::<f64>(), here().map(|m| weights[m][c]).sum::<f64>());
                let tail = sorted.len() > 1 && lengths[n] == sorted[0] && sorted[0] > sorted[1] && c >= sorted[1];
                let b = if counted.len() < 2 || tail { 0.0 } else { gains / (sum + 1e-8) };
                (a[t], g[t]) = (returns[n][c] - b, returns[n][c]);
            }
            (*i, a, g)
        })
        .collect()
}

fn expected(batch: &Batch, compress: bool) -> (Vec<Vec<f64>>, Vec<Vec<f64>>) {
    let mut all: Vec<_> = (0..batch.num_groups).flat_map(|g| matrices(batch, g, compress)).collect();
    all.sort_by_key(|row| row.0);
    all.into_iter().map(|(_, a, g)| (a, g)).unzip()
}

fn batch(seed: u64, rewards: bool, ratio: bool) -> (Config, Batch) {
    build(&Spec {
        seed,
        sizes: vec![5, 1, 2, 7, 3],
        interleave: true,
        max_len: 70,
        token_rewards: rewards,
        outcome: !rewards,
        sum_pi_squared: true,
        token_ratio: ratio,
        format: false,
        ok: false,
        empty: 0.1,
        ..Spec::of(Input::Nothing).continuous().holes()
    })
}

#[test]
fn as_verl_writes_it_in_every_layout_and_order() {
    for seed in 0..24 {
        let (cfg, batch) = batch(seed, seed % 3 == 0, seed % 2 == 0);
        for (preset, compress) in [(PRESETS[0], false), (PRESETS[1], true)] {
            let (advantages, returns) = expected(&batch, compress);
            let mut first = None;
            for how in hows() {
                let got = run(preset, &cfg, &batch, &how, &|_| ());
                close(&format!("{preset} seed {seed} {how:?}"), &got, &advantages);
                // Returns and path scores are before the baseline.
                close(&format!("{preset} returns"), &Got { advantages: got.returns.clone(), ..got.clone() }, &returns);
                let bits = got.bits();
                assert!(*first.get_or_insert_with(|| bits.clone()) == bits, "{preset} seed {seed}: other bits under {how:?}");
            }
            let mut order: Vec<usize> = (0..batch.rollouts.len()).collect();
            let mut rng = Rng(seed + 1);
            (1..order.len()).rev().for_each(|i| order.swap(i, rng.below(i + 1)));
            let shuffled = Batch { rollouts: order.iter().map(|i| batch.rollouts[*i].clone()).collect(), ..batch.clone() };
            let (a, b) = (run(preset, &cfg, &batch, &How::default(), &|_| ()), run(preset, &cfg, &shuffled, &How { threads: 4, ..How::default() }, &|_| ()));
            for (at, i) in order.iter().enumerate() {
                let bits = |got: &Got, i: usize| got.advantages[i].iter().map(|x| x.to_bits()).collect::<Vec<_>>();
                assert_eq!(bits(&a, *i), bits(&b, at), "{preset} seed {seed}: rollout {i} moved to {at}");
            }
        }
    }
}

/// The weights at the first places are small beside those at the last: each place has a grid of its own.
#[test]
fn small_weights_keep_their_digits() {
    let (cfg, mut batch) = batch(5, true, false);
    for (i, r) in batch.rollouts.iter_mut().enumerate() {
        let mut rng = Rng(i as u64);
        (r.len, r.mask) = (300, None);
        r.token_rewards = Some((0..300).map(|_| rng.normal() as f32).collect());
        // 1 - p from 1e-3 on: w from 1e-6 to 1 and, with the ratios, W to 1e12.
        let p: Vec<f64> = (0..300).map(|t| if t < 20 { 1.0 - 1e-3 * (1.0 + rng.unit()) } else { rng.unit() }).collect();
        r.logp_policy = Some(p.iter().map(|p| p.ln()).collect());
        r.sum_pi_squared = Some(p.iter().map(|p| p * p + (1.0 - p) * (1.0 - p) * 0.5).collect());
        r.token_ratio = Some((0..300).map(|t| if t < 20 { 1.0 } else { 1e5 }).collect());
    }
    let wanted = expected(&batch, false).0;
    let got = run(PRESETS[0], &cfg, &batch, &How::default(), &|_| ());
    for (got, wanted) in got.advantages.iter().zip(&wanted) {
        for (t, (a, w)) in got.iter().zip(wanted).enumerate() {
            assert!((a - w).abs() <= 1e-8 * w.abs().max(1.0), "token {t}: {a:e}, by the loop {w:e}");
        }
    }
}

#[test]
fn whitening_comes_after() {
    let (cfg, batch) = batch(11, true, true);
    let mut wanted = expected(&batch, true).0;
    let live = |i: usize, t: usize| batch.rollouts[i].mask.as_ref().is_none_or(|m| m[t]);
    let all: Vec<f64> = (0..wanted.len()).flat_map(|i| (0..wanted[i].len()).filter(move |t| live(i, *t)).map(|t| wanted[i][t]).collect::<Vec<_>>()).collect();
    let n = all.len() as f64;
    let mean = all.iter().sum::<f64>() / n;
    let variance = all.iter().map(|a| (a - mean) * (a - mean)).sum::<f64>() / (n - 1.0);
    for i in 0..wanted.len() {
        (0..wanted[i].len()).filter(|t| live(i, *t)).collect::<Vec<_>>().into_iter().for_each(|t| wanted[i][t] = (wanted[i][t] - mean) / (variance + 1e-8).sqrt());
    }
    let whiten = |config: &mut passrl_config| config.whiten = PASSRL_WHITEN_TOKENS;
    for how in hows() {
        close("whitened", &run(PRESETS[1], &cfg, &batch, &how, &whiten), &wanted);
    }
}

/// The advantages may lie where a signal was that all rollouts of the group have been read by then.
#[test]
fn in_place_over_the_signal() {
    let spec = Spec { sum_pi_squared: true, sizes: vec![4, 6], interleave: true, ..Spec::of(Input::KlSignal).continuous().gaps() };
    let (cfg, mut batch) = build(&spec);
    for g in 0..2 {
        // A signal without which the others' deviation is lost: what is counted shows whether credit is counted once.
        let first = batch.rollouts.iter_mut().find(|r| r.group == g && r.mask.as_ref().is_some_and(|m| m[0])).expect("a rollout with its first token in scope");
        first.signal[0][0] = 1e30;
    }
    let plain = |config: &mut passrl_config| {
        (config.chunk, config.k, config.streams[0].scale) = (PASSRL_CHUNK_TOKEN, 0.0, PASSRL_SCALE_LEAVE_ONE_OUT);
    };
    let edit = |config: &mut passrl_config| {
        plain(config);
        config.token_baseline = PASSRL_TOKEN_BASELINE_TOKEN;
    };
    for threads in [1, 3] {
        let how = How { output: Floats::F32, threads, ..How::default() };
        let (apart, over) = (run_with(&cfg, &batch, &how, &edit, &|_| ()), run_with(&cfg, &batch, &How { in_place: true, ..how }, &edit, &|_| ()));
        assert_eq!(apart.bits(), over.bits());
        let none = run_with(&cfg, &batch, &how, &plain, &|placed| placed.batch.logp_policy = std::ptr::null());
        assert_ne!(none.bits(), apart.bits(), "the baseline does nothing");
        assert!(none.report.lost_deviations > 0 && none.report.lost_deviations == apart.report.lost_deviations, "{:?} {:?}", none.report, apart.report);
    }
}

#[test]
fn a_bad_input_costs_its_group() {
    let (cfg, sound) = batch(3, true, true);
    let whole = run(PRESETS[0], &cfg, &sound, &How::default(), &|_| ());
    let victim = (0..sound.rollouts.len()).find(|i| sound.rollouts[*i].mask.as_ref().is_some_and(|m| m.iter().any(|x| *x))).expect("a rollout with scope");
    let t = sound.rollouts[victim].mask.as_ref().and_then(|m| m.iter().position(|x| *x)).expect("a token in scope");
    type Damage = fn(&mut oracle::Rollout, usize);
    let damages: [Damage; 4] = [
        |r, t| r.sum_pi_squared.as_mut().expect("squares")[t] = f64::NAN,
        |r, t| r.token_ratio.as_mut().expect("ratios")[t] = f64::INFINITY,
        |r, t| r.logp_policy.as_mut().expect("policy")[t] = f64::NEG_INFINITY,
        |r, t| {
            // One token, one value.
            r.logp_policy.as_mut().expect("policy")[t] = f64::NAN;
            r.sum_pi_squared.as_mut().expect("squares")[t] = f64::NAN;
        },
    ];
    for (n, damage) in damages.into_iter().enumerate() {
        let mut batch = sound.clone();
        damage(&mut batch.rollouts[victim], t);
        let got = run(PRESETS[0], &cfg, &batch, &How::default(), &|_| ());
        assert_eq!((got.report.nonfinite_values, got.report.bad_groups), (1, 1), "damage {n}: {}", got.message);
        for (i, r) in batch.rollouts.iter().enumerate() {
            let wanted = if r.group == batch.rollouts[victim].group { vec![0.0; r.len] } else { whole.advantages[i].clone() };
            assert_eq!(got.advantages[i], wanted, "damage {n}: rollout {i}");
        }
    }
}
