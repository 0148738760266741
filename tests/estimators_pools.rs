//! Process sets of a mean a rollout (rule 57) and chunks that are turns (rule 56), through the C ABI, against plain f64 loops.
mod estimators;

use cases::{Input, Rng, Spec, build};
use estimators::{ROWS, Row, close, hows, tokens_of_steps};
use harness::{How, run_with};
use oracle::{Batch, Config, Rollout};
use passrl::abi::constants::*;
use passrl::abi::types::passrl_config;
use testkit::{cases, harness, oracle};

/// In-scope values of a rollout's stream: those of its steps (kl: tokens), and for each in-scope token the value standardised there.
fn values(input: Input, r: &Rollout, p: usize) -> (Vec<f64>, Vec<(usize, f64)>) {
    let steps = tokens_of_steps(r);
    let scoped = |t: &usize| r.mask.as_ref().is_none_or(|m| m[*t]);
    match input {
        Input::Csr => {
            let live: Vec<usize> = (0..steps.len()).filter(|j| !steps[*j].is_empty()).collect();
            let at = |j: &usize| r.step_scores[p][*j] as f64;
            (live.iter().map(at).collect(), live.iter().flat_map(|j| steps[*j].iter().map(move |t| (*t, at(j)))).collect())
        }
        Input::DenseEnds => {
            let last = steps.iter().filter_map(|ts| ts.last()).map(|t| r.signal[p][*t] as f64).collect();
            (last, steps.iter().flatten().map(|t| (*t, r.signal[p][*t] as f64)).collect())
        }
        _ => {
            let tokens: Vec<usize> = (0..r.len).filter(scoped).collect();
            (tokens.iter().map(|t| r.signal[p][*t] as f64).collect(), tokens.iter().map(|t| (*t, r.signal[p][*t] as f64)).collect())
        }
    }
}

/// A(t) under `chunk = token`, broadcast: the standardised value of the token's step, or of the token, and the outcome by mean and deviation.
fn expected(row: &Row, by_rollout: bool, input: Input, streams: usize, batch: &Batch) -> Vec<Vec<f64>> {
    let rollouts = &batch.rollouts;
    let outcome_row = Row { center: PASSRL_CENTER_GROUP, scale: PASSRL_SCALE_GROUP, passthrough: false };
    let mean = |i: usize, p: usize| {
        let there: Vec<f64> = values(input, &rollouts[i], p).0.into_iter().filter(|x| !x.is_nan()).collect();
        (!there.is_empty()).then(|| (there.iter().sum::<f64>() / there.len() as f64) as f32 as f64)
    };
    (0..rollouts.len())
        .map(|i| {
            let r = &rollouts[i];
            let members: Vec<usize> = (0..rollouts.len()).filter(|m| rollouts[*m].group == r.group && rollouts[*m].in_stats).collect();
            let outcomes: Vec<f64> = members.iter().filter_map(|m| rollouts[*m].outcome).map(f64::from).collect();
            let term = r.outcome.map_or(0.0, |x| outcome_row.normal(x as f64, &outcomes, None));
            let mut advantages = vec![0.0; r.len];
            (0..r.len).filter(|t| r.mask.as_ref().is_none_or(|m| m[*t])).for_each(|t| advantages[t] = term);
            // A token of a step that is missing is out of scope.
            if input == Input::Csr && !tokens_of_steps(r).is_empty() {
                advantages = vec![0.0; r.len];
                tokens_of_steps(r).iter().flatten().for_each(|t| advantages[*t] = term);
            }
            for p in 0..streams {
                let set: Vec<(usize, f64)> = members.iter().filter_map(|m| mean(*m, p).map(|x| (*m, x))).collect();
                let plain: Vec<f64> = set.iter().map(|(_, x)| *x).collect();
                let own = set.iter().position(|(m, _)| *m == i);
                for (t, x) in values(input, r, p).1.into_iter().filter(|(_, x)| !x.is_nan()) {
                    advantages[t] += if row.center != PASSRL_CENTER_LEAVE_ONE_OUT && row.scale != PASSRL_SCALE_LEAVE_ONE_OUT || !r.in_stats || plain.len() < 2 {
                        row.normal(x, &plain, None)
                    } else if by_rollout {
                        row.normal(x, &plain, own)
                    } else {
                        // Rule 38: a value that is no element is left out all the same.
                        x - (plain.iter().sum::<f64>() - x) / (plain.len() as f64 - 1.0)
                    };
                }
            }
            advantages
        })
        .collect()
}

fn pooled(input: Input, seed: u64, streams: usize) -> (Config, Batch) {
    let spec = Spec { seed, streams, sizes: vec![5, 1, 4, 2], interleave: true, format: false, quantised: seed % 2 == 0, ..Spec::of(input) };
    let (mut cfg, mut batch) = build(&Spec { seed, ..spec.holes() });
    cfg.chunk = oracle::Chunk::Token;
    let mut rng = Rng(seed);
    for r in &mut batch.rollouts {
        r.in_stats = !rng.chance(0.2);
        for p in 0..streams {
            // Missing values: of steps, or of tokens of a further stream.
            let line = if input == Input::Csr { &mut r.step_scores[p] } else if p > 0 && input != Input::DenseEnds { &mut r.signal[p] } else { continue };
            line.iter_mut().filter(|_| rng.chance(0.1)).for_each(|x| *x = f32::NAN);
        }
    }
    (cfg, batch)
}

#[test]
fn a_set_of_rollout_means_under_every_operator() {
    for input in [Input::Csr, Input::DenseEnds, Input::KlSignal] {
        for (n, (center, scale)) in ROWS.into_iter().enumerate() {
            for by_rollout in [true, false] {
                if scale == PASSRL_SCALE_LEAVE_ONE_OUT && !by_rollout {
                    continue; // refused: tests/hostile
                }
                let streams = 1 + n % 2;
                let (cfg, batch) = pooled(input, 40 + n as u64, streams);
                let row = Row { center, scale, passthrough: n % 3 == 0 };
                let wanted = expected(&row, by_rollout, input, streams, &batch);
                let mut bits = None;
                for how in hows() {
                    let got = run_with(&cfg, &batch, &how, &|config: &mut passrl_config| {
                        for p in 0..streams {
                            row.set(config, p);
                            config.streams[p].loo_unit = if by_rollout { PASSRL_LOO_ROLLOUT } else { PASSRL_LOO_ELEMENT };
                        }
                        (config.pool, config.credit, config.k) = (PASSRL_POOL_ROLLOUTS, PASSRL_CREDIT_BROADCAST, 0.0);
                    }, &|_| ());
                    close(&format!("{input:?} {row:?} {by_rollout} {how:?}"), &got, &wanted);
                    assert!(*bits.get_or_insert_with(|| got.bits()) == got.bits(), "{input:?} {row:?}: other bits under {how:?}");
                    // An element a rollout of the sets that has a value.
                    for g in 0..batch.num_groups {
                        let members = batch.rollouts.iter().filter(|r| r.group == g && r.in_stats);
                        let elements = members.filter(|r| values(input, r, 0).0.iter().any(|x| !x.is_nan())).count();
                        assert_eq!(got.stats[g][0].0, elements as i64, "{input:?}: elements of group {g}");
                    }
                }
            }
        }
    }
}

/// The one pass of kl rollouts serves these sets too: values far beyond the set's own maximum saturate and are counted.
#[test]
fn values_beyond_the_set_of_means_overflow_as_elsewhere() {
    let (mut cfg, mut batch) = build(&Spec { sizes: vec![3], ..Spec::of(Input::KlSignal) });
    cfg.chunk = oracle::Chunk::Token;
    for r in &mut batch.rollouts {
        (r.len, r.outcome, r.format, r.format_ok) = (4, None, None, None);
        r.signal = vec![vec![3e38, -3e38, 3e38, -3e38]];
    }
    batch.rollouts[0].signal[0][0] = 2.99e38;
    let how = How { output: harness::Floats::F32, lean: true, ..How::default() };
    let got = run_with(&cfg, &batch, &how, &|config: &mut passrl_config| {
        Row { center: PASSRL_CENTER_GROUP, scale: PASSRL_SCALE_NONE, passthrough: false }.set(config, 0);
        config.streams[0].weight = 16.0;
        (config.pool, config.k) = (PASSRL_POOL_ROLLOUTS, 0.0);
    }, &|_| ());
    assert!(got.advantages.iter().flatten().all(|a| a.is_finite()), "{:?}", got.advantages);
    assert_eq!(got.advantages[1][3], -f32::MAX as f64);
}

/// Runs of consecutive tokens in scope, from the first principles of a mask.
fn turns(scope: &[bool]) -> Vec<usize> {
    (0..scope.len()).filter(|t| scope[*t] && !scope.get(t + 1).copied().unwrap_or(false)).map(|t| t + 1).collect()
}

#[test]
fn a_segment_is_a_turn() {
    for input in [Input::Csr, Input::Dense, Input::DenseEnds, Input::Sparse, Input::KlSignal, Input::Nothing, Input::NothingSteps] {
        for seed in 0..8 {
            let spec = Spec { seed, input, begins: seed % 2 == 1 && input == Input::Csr, empty: 0.1, ..Spec::default() };
            let (cfg, batch) = build(&spec.holes());
            let mut bits = None;
            for how in hows() {
                let got = run_with(&cfg, &batch, &how, &|config: &mut passrl_config| config.chunk = PASSRL_CHUNK_SEGMENT, &|_| ());
                for (i, r) in batch.rollouts.iter().enumerate() {
                    let begins = r.step_begins.as_ref().filter(|b| !b.is_empty());
                    let inside = |t: usize| begins.is_none_or(|b| b.iter().zip(r.step_ends.as_ref().expect("ends")).any(|(b, e)| *b as usize <= t && t < *e as usize));
                    let scope: Vec<bool> = (0..r.len).map(|t| r.mask.as_ref().is_none_or(|m| m[t]) && inside(t)).collect();
                    let ends = turns(&scope);
                    let got_ends: Vec<usize> = got.chunk_ends[i].iter().map(|e| *e as usize).collect();
                    assert_eq!((got.num_chunks[i], &got_ends), (ends.len(), &ends), "{input:?} seed {seed} rollout {i} {how:?}");
                    let mut begin = 0;
                    for end in ends {
                        let turn: Vec<f64> = (begin..end).filter(|t| scope[*t]).map(|t| got.advantages[i][t]).collect();
                        assert!(turn.iter().all(|a| *a == turn[0]), "{input:?} seed {seed} rollout {i}: one advantage a turn, {turn:?}");
                        begin = end;
                    }
                }
                assert!(*bits.get_or_insert_with(|| got.bits()) == got.bits(), "{input:?}: other bits under {how:?}");
            }
        }
    }
}
