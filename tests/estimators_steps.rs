//! Values and sets of steps (rules 56, 57, 64 and 65) through the C ABI, against plain f64 loops written here.
mod estimators;

use cases::{Rng, Spec, build};
use estimators::{ROWS, Row, close, hows, tokens_of_steps};
use harness::{Floats, Got, How, Ints, run_with};
use oracle::{Batch, Config};
use passrl::abi::constants::*;
use passrl::abi::types::passrl_config;
use testkit::{cases, harness, oracle};

/// What these tests set beyond the oracle's configuration.
type Edit<'e> = &'e dyn Fn(&mut passrl_config);

/// Runs a batch; `keys` are the `step_group` numbers of each rollout's steps. `scores`: false leaves the steps without.
fn run(cfg: &Config, batch: &Batch, keys: Option<&[Vec<i64>]>, scores: bool, how: &How, edit: Edit) -> Got {
    run_with(cfg, batch, how, edit, &|placed| {
        if let Some(keys) = keys {
            let all = keys.concat();
            let narrow = !how.wide_offsets && all.iter().all(|key| i32::try_from(*key).is_ok());
            let numbers = if narrow { Ints::Narrow(all.iter().map(|key| *key as i32).collect()) } else { Ints::Wide(all) };
            placed.batch.step_group = placed.arena.ints(&numbers);
        }
        if !scores {
            placed.batch.step_scores = std::ptr::null();
        }
    })
}

/// What a case of the step tests is.
#[derive(Clone, Copy, Debug)]
struct Case {
    row: Row,
    /// `step_gamma`, where values are returns.
    returns: Option<f64>,
    scores: bool,
    chunk: i32,
    credit: i32,
    k: f64,
}

/// A(t) of every rollout, by the rules' own words. Outcome: mean_std with weight 1 over the group's rollouts.
fn expected(case: &Case, batch: &Batch, keys: Option<&[Vec<i64>]>) -> Vec<Vec<f64>> {
    let rollouts = &batch.rollouts;
    let streams = if case.scores { rollouts.iter().map(|r| r.step_scores.len()).max().unwrap_or(1) } else { 1 };
    // values[i][p][j]: None without a token in scope; NaN where this stream's is missing.
    let tokens: Vec<Vec<Vec<usize>>> = rollouts.iter().map(tokens_of_steps).collect();
    let values: Vec<Vec<Vec<Option<f64>>>> = (0..rollouts.len())
        .map(|i| {
            (0..streams)
                .map(|p| {
                    let live: Vec<usize> = (0..tokens[i].len()).filter(|j| !tokens[i][*j].is_empty()).collect();
                    let mut of = vec![None; tokens[i].len()];
                    let mut to_go = 0.0;
                    for j in live.iter().rev() {
                        let last = Some(j) == live.last();
                        let own = if case.scores { rollouts[i].step_scores[p][*j] as f64 } else if last { rollouts[i].outcome.unwrap_or(0.0) as f64 } else { 0.0 };
                        to_go = if own.is_nan() { 0.0 } else { own } + case.returns.unwrap_or(0.0) * to_go;
                        of[*j] = Some(if own.is_nan() { f64::NAN } else { to_go as f32 as f64 });
                    }
                    of
                })
                .collect()
        })
        .collect();
    let set = |p: usize, group: usize, key: Option<i64>| -> Vec<((usize, usize), f64)> {
        let mut found = Vec::new();
        for (i, _) in rollouts.iter().enumerate().filter(|(_, r)| r.group == group && r.in_stats) {
            for j in 0..tokens[i].len() {
                match values[i][p][j] {
                    Some(x) if !x.is_nan() && (key.is_none() || keys.map(|k| k[i][j]) == key) => found.push(((i, j), x)),
                    _ => (),
                }
            }
        }
        found
    };
    let outcome_row = Row { center: PASSRL_CENTER_GROUP, scale: PASSRL_SCALE_GROUP, passthrough: false };
    (0..rollouts.len())
        .map(|i| {
            let r = &rollouts[i];
            let outcomes: Vec<f64> = rollouts.iter().filter(|o| o.group == r.group && o.in_stats).filter_map(|o| o.outcome).map(f64::from).collect();
            let term = r.outcome.map_or(0.0, |x| outcome_row.normal(x as f64, &outcomes, None));
            let step = |j: usize| -> f64 {
                (0..streams)
                    .map(|p| {
                        let Some(x) = values[i][p][j].filter(|x| !x.is_nan()) else { return 0.0 };
                        let set = set(p, r.group, keys.map(|k| k[i][j]));
                        let own = set.iter().position(|(at, _)| *at == (i, j));
                        case.row.normal(x, &set.iter().map(|(_, x)| *x).collect::<Vec<_>>(), own)
                    })
                    .sum()
            };
            // Chunks as lists of tokens; each takes the step of its last.
            let owner: Vec<(usize, usize)> = {
                let mut all: Vec<(usize, usize)> = tokens[i].iter().enumerate().flat_map(|(j, ts)| ts.iter().map(move |t| (*t, j))).collect();
                all.sort_unstable();
                all
            };
            let mut chunks: Vec<Vec<(usize, usize)>> = Vec::new();
            for (t, j) in owner {
                let new = match (case.chunk, chunks.last().and_then(|c| c.last())) {
                    (_, None) | (PASSRL_CHUNK_TOKEN, _) => true,
                    (PASSRL_CHUNK_STEP, Some((_, before))) => *before != j,
                    (PASSRL_CHUNK_SEGMENT, Some((before, _))) => t - before > 1,
                    (PASSRL_CHUNK_BY_VALUE, Some((b, before))) => *before != j || t - b > 1,
                    _ => false,
                };
                if new {
                    chunks.push(Vec::new());
                }
                chunks.last_mut().expect("just made").push((t, j));
            }
            let f: Vec<f64> = chunks.iter().map(|c| step(c[c.len() - 1].1) + term).collect();
            if tokens[i].is_empty() {
                // No step at all: one chunk of all in scope, the outcome alone.
                let live: Vec<usize> = (0..r.len).filter(|t| r.mask.as_ref().is_none_or(|m| m[*t])).collect();
                chunks = match case.chunk {
                    PASSRL_CHUNK_TOKEN => live.iter().map(|t| vec![(*t, 0)]).collect(),
                    PASSRL_CHUNK_SEGMENT => live.chunk_by(|a, b| b - a == 1).map(|c| c.iter().map(|t| (*t, 0)).collect()).collect(),
                    _ => vec![live.iter().map(|t| (*t, 0)).collect()],
                };
                return spread(case, &chunks, &vec![term; chunks.len()], vec![0.0; r.len]);
            }
            spread(case, &chunks, &f, vec![0.0; r.len])
        })
        .collect()
}

fn spread(case: &Case, chunks: &[Vec<(usize, usize)>], f: &[f64], mut to: Vec<f64>) -> Vec<f64> {
    for (j, chunk) in chunks.iter().enumerate() {
        let g: f64 = if case.credit == PASSRL_CREDIT_BROADCAST { f[j] } else { f[j..].iter().sum() };
        let a = g / ((chunks.len() - j) as f64).powf(case.k);
        chunk.iter().for_each(|(t, _)| to[*t] = a);
    }
    to
}

const KEYS: [i64; 5] = [0, -7, i64::MIN, i64::MAX, 1 << 33];

/// A batch with CSR scores and keys: few states, one of them seen once, one whose values are all equal; gaps, a rollout outside the sets, missing values.
fn keyed(seed: u64, streams: usize, begins: bool, quantised: bool) -> (Config, Batch, Vec<Vec<i64>>) {
    let spec = Spec { seed, begins, quantised, streams, sizes: vec![5, 1, 4, 6], interleave: true, max_len: 30, format: false, empty: 0.05, ..Spec::default() };
    let (cfg, mut batch) = build(&spec.holes());
    let mut rng = Rng(seed ^ 0xabcd);
    let mut keys = Vec::new();
    for r in &mut batch.rollouts {
        r.in_stats = !rng.chance(0.15);
        let count = r.step_ends.as_ref().map_or(0, Vec::len);
        let own: Vec<i64> = (0..count).map(|_| rng.pick(&KEYS)).collect();
        for j in 0..count {
            if own[j] == i64::MAX {
                r.step_scores.iter_mut().for_each(|s| s[j] = 0.3);
            }
            if rng.chance(0.05) {
                r.step_scores[0][j] = f32::NAN;
            } else if streams > 1 && rng.chance(0.1) {
                r.step_scores[1][j] = f32::NAN;
            }
        }
        keys.push(own);
    }
    // A state seen once in the whole batch.
    if let Some(key) = keys.iter_mut().flatten().next() {
        *key = 12345;
    }
    (cfg, batch, keys)
}

/// Runs in every layout, holds the result to the loop and the bits to each other.
fn check(name: &str, case: &Case, cfg: &Config, batch: &Batch, keys: Option<&[Vec<i64>]>) {
    let edit = |config: &mut passrl_config| {
        (0..config.num_process as usize).for_each(|p| case.row.set(config, p));
        config.step_sets = if keys.is_some() { PASSRL_STEP_SETS_STEP_GROUP } else { PASSRL_STEP_SETS_GROUP };
        if let Some(gamma) = case.returns {
            (config.step_value, config.step_gamma) = (PASSRL_STEP_VALUE_RETURN_TO_GO, gamma);
        }
        (config.chunk, config.credit, config.k) = (case.chunk, case.credit, case.k);
    };
    let wanted = expected(case, batch, keys);
    let mut first = None;
    for how in hows() {
        let got = run(cfg, batch, keys, case.scores, &how, &edit);
        close(&format!("{name} {case:?} {how:?}"), &got, &wanted);
        let bits = got.bits();
        assert!(*first.get_or_insert_with(|| bits.clone()) == bits, "{name}: other bits under {how:?}");
    }
}

const STEP: Case = Case {
    row: Row { center: PASSRL_CENTER_GROUP, scale: PASSRL_SCALE_GROUP, passthrough: false },
    returns: None,
    scores: true,
    chunk: PASSRL_CHUNK_STEP,
    credit: PASSRL_CREDIT_BROADCAST,
    k: 0.0,
};
const CHUNKS: [i32; 5] = [PASSRL_CHUNK_STEP, PASSRL_CHUNK_TOKEN, PASSRL_CHUNK_NONE, PASSRL_CHUNK_SEGMENT, PASSRL_CHUNK_BY_VALUE];

#[test]
fn sets_of_equal_states_under_every_operator_and_chunk() {
    for (n, (center, scale)) in ROWS.into_iter().enumerate() {
        for passthrough in [false, true] {
            let seed = 10 * n as u64 + u64::from(passthrough);
            let (cfg, batch, keys) = keyed(seed, 1 + n % 2, n % 3 == 1, n % 2 == 0);
            let row = Row { center, scale, passthrough };
            for chunk in CHUNKS {
                let case = Case { row, chunk, ..STEP };
                check("sets", &case, &cfg, &batch, Some(&keys));
            }
            check("shaped", &Case { row, chunk: PASSRL_CHUNK_BY_VALUE, credit: PASSRL_CREDIT_RETURN_TO_GO, k: 0.7, ..STEP }, &cfg, &batch, Some(&keys));
        }
    }
}

#[test]
fn values_by_return_to_go_with_and_without_sets_of_states() {
    for (n, gamma) in [0.95, 1.0, 0.0, 0.5].into_iter().enumerate() {
        for scores in [true, false] {
            let (cfg, batch, keys) = keyed(100 + n as u64, if scores { 2 } else { 1 }, n % 2 == 1, n % 2 == 0);
            let mut batch = batch;
            if !scores {
                // Without scores nothing says that a step is missing; an excluded outcome is 0.
                batch.rollouts.iter_mut().for_each(|r| r.step_scores.iter_mut().flatten().for_each(|s| *s = 0.0));
                batch.rollouts[2].outcome = None;
            }
            let mut with_missing = cfg.clone();
            with_missing.outcome.missing = oracle::Missing::Exclude;
            for keys in [None, Some(&keys[..])] {
                for chunk in CHUNKS {
                    let case = Case { returns: Some(gamma), scores, chunk, credit: PASSRL_CREDIT_RETURN_TO_GO, k: 0.7, ..STEP };
                    check("returns", &case, &with_missing, &batch, keys);
                }
            }
        }
    }
}

#[test]
fn an_order_of_rollouts_changes_no_bit() {
    let (cfg, batch, keys) = keyed(7, 2, true, false);
    let edit = |config: &mut passrl_config| {
        (0..2).for_each(|p| Row { center: PASSRL_CENTER_LEAVE_ONE_OUT, scale: PASSRL_SCALE_LEAVE_ONE_OUT, passthrough: true }.set(config, p));
        config.step_sets = PASSRL_STEP_SETS_STEP_GROUP;
        (config.step_value, config.step_gamma) = (PASSRL_STEP_VALUE_RETURN_TO_GO, 0.9);
    };
    let plain = run(&cfg, &batch, Some(&keys), true, &How::default(), &edit);
    assert!(plain.advantages.iter().flatten().any(|a| *a != 0.0));
    let mut rng = Rng(3);
    for threads in [1, 4] {
        let mut order: Vec<usize> = (0..batch.rollouts.len()).collect();
        (1..order.len()).rev().for_each(|i| order.swap(i, rng.below(i + 1)));
        let moved = batch.with(order.iter().map(|i| batch.rollouts[*i].clone()).collect());
        let moved_keys: Vec<Vec<i64>> = order.iter().map(|i| keys[*i].clone()).collect();
        let got = run(&cfg, &moved, Some(&moved_keys), true, &How { threads, ..How::default() }, &edit);
        for (at, i) in order.iter().enumerate() {
            let bits = |rows: &[Vec<f64>], i: usize| rows[i].iter().map(|x| x.to_bits()).collect::<Vec<_>>();
            assert_eq!(bits(&got.advantages, at), bits(&plain.advantages, *i), "rollout {i}");
        }
        assert_eq!(format!("{:?}", got.stats), format!("{:?}", plain.stats));
    }
    // Other numbers for the same states: the same bits.
    let renamed: Vec<Vec<i64>> = keys.iter().map(|own| own.iter().map(|key| key.wrapping_mul(0x9E37_79B9_7F4A_7C15u64 as i64)).collect()).collect();
    assert_eq!(run(&cfg, &batch, Some(&renamed), true, &How::default(), &edit).bits(), plain.bits());
    // One state: the group's own set.
    let one: Vec<Vec<i64>> = keys.iter().map(|own| vec![-1; own.len()]).collect();
    let alone = run(&cfg, &batch, None, true, &How::default(), &|config| {
        edit(config);
        config.step_sets = PASSRL_STEP_SETS_GROUP;
    });
    assert_eq!(run(&cfg, &batch, Some(&one), true, &How::default(), &edit).bits(), alone.bits());
}

#[test]
fn findings_and_statistics_are_those_of_the_whole_group() {
    let (cfg, mut batch, keys) = keyed(9, 1, false, true);
    let edit = |config: &mut passrl_config| config.step_sets = PASSRL_STEP_SETS_STEP_GROUP;
    batch.rollouts.iter_mut().for_each(|r| r.step_scores.iter_mut().flatten().filter(|s| s.is_nan()).for_each(|s| *s = 0.5));
    let whole = run(&cfg, &batch, None, true, &How::default(), &|_| ());
    let sets = run(&cfg, &batch, Some(&keys), true, &How::default(), &edit);
    assert_eq!((format!("{:?}", sets.stats), &sets.group_flags), (format!("{:?}", whole.stats), &whole.group_flags));
    let bad = batch.rollouts.iter().position(|r| r.in_stats && r.len > 0 && r.step_ends.as_ref().is_some_and(|e| e.first().is_some_and(|e| *e > 0)));
    let bad = bad.expect("a rollout with a step");
    batch.rollouts[bad].mask = None;
    for (value, by_returns) in [(f32::NAN, false), (f32::INFINITY, false), (f32::NAN, true), (f32::NEG_INFINITY, true)] {
        batch.rollouts[bad].step_scores[0][0] = value;
        let group = batch.rollouts[bad].group;
        let got = run(&cfg, &batch, Some(&keys), true, &How::default(), &|config| {
            edit(config);
            config.step_value = if by_returns { PASSRL_STEP_VALUE_RETURN_TO_GO } else { PASSRL_STEP_VALUE_SCORE };
        });
        assert!(got.status > 0, "{value} is a finding");
        assert_eq!((got.report.nonfinite_values, got.report.bad_groups), (1, 1), "{value}, returns {by_returns}");
        for (i, r) in batch.rollouts.iter().enumerate() {
            assert!(r.group != group || got.advantages[i].iter().all(|a| *a == 0.0), "rollout {i} of the bad group");
            assert!(r.group == group || by_returns || got.advantages[i] == sets.advantages[i], "rollout {i} of another group");
        }
    }
    // Returns beyond f32 are a finding too, not an infinity in the output.
    let mut huge = batch.clone();
    huge.rollouts.iter_mut().for_each(|r| r.step_scores.iter_mut().flatten().for_each(|s| *s = 3e38));
    let got = run(&cfg, &huge, Some(&keys), true, &How::default(), &|config| {
        edit(config);
        config.step_value = PASSRL_STEP_VALUE_RETURN_TO_GO;
    });
    assert!(got.status > 0 && got.advantages.iter().flatten().all(|a| a.is_finite()));
    // A bad outcome of steps without scores is one finding, of the outcome.
    let mut lost = batch.clone();
    lost.rollouts[bad].step_scores[0][0] = 0.0;
    lost.rollouts[bad].outcome = Some(f32::NAN);
    let got = run(&cfg, &lost, Some(&keys), false, &How::default(), &|config| {
        edit(config);
        config.step_value = PASSRL_STEP_VALUE_RETURN_TO_GO;
    });
    assert_eq!((got.report.nonfinite_values, got.report.bad_groups, got.report.first_stream), (1, 1, PASSRL_STREAM_OUTCOME as i64));
}

#[test]
fn whitening_and_outputs_of_other_types_follow() {
    let (cfg, batch, keys) = keyed(21, 1, false, true);
    let edit = |config: &mut passrl_config| {
        STEP.row.set(config, 0);
        (config.step_sets, config.whiten, config.whiten_shift) = (PASSRL_STEP_SETS_STEP_GROUP, PASSRL_WHITEN_TOKENS, 1);
    };
    let wide = run(&cfg, &batch, Some(&keys), true, &How::default(), &edit);
    let narrow = run(&cfg, &batch, Some(&keys), true, &How { output: Floats::F32, padded: true, ..How::default() }, &edit);
    let all: Vec<f64> = wide.advantages.iter().flatten().copied().filter(|a| *a != 0.0).collect();
    assert!(all.len() > 50);
    for (a, b) in wide.advantages.iter().flatten().zip(narrow.advantages.iter().flatten()) {
        assert_eq!(*a as f32, *b as f32);
    }
}
