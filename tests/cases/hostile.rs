//! Shapes and values that break careless code.
use super::build::*;
use super::{case, Case};
use crate::oracle::*;
use Input::*;

fn spec(input: Input) -> Spec {
    Spec::of(input)
}

pub fn cases() -> Vec<Case> {
    let mut table = shapes();
    table.extend(values());
    table.extend(missing());
    table.extend(findings());
    table
}

/// A rollout of `steps` steps of `width` tokens each.
fn long(group: usize, steps: usize, width: usize, rng: &mut Rng) -> Rollout {
    Rollout {
        len: steps * width,
        group,
        in_stats: true,
        outcome: Some(rng.below(2) as f32),
        step_ends: Some((1..=steps).map(|j| (j * width) as i64).collect()),
        step_scores: vec![(0..steps).map(|_| rng.normal() as f32).collect()],
        ..Rollout::default()
    }
}

fn shapes() -> Vec<Case> {
    let mut rng = Rng(77);
    let mut many_chunks = vec![long(0, 100_000, 1, &mut rng)];
    many_chunks.extend((0..3).map(|_| long(0, 5, 4, &mut rng)));
    let mut longest: Vec<Rollout> = (0..7).map(|i| long(i % 2, 3, 5, &mut rng)).collect();
    longest.insert(3, long(1, 512, 256, &mut rng));
    let kl_longest = |i: usize, len: usize| Rollout {
        len,
        group: i % 2,
        in_stats: true,
        outcome: Some(i as f32),
        signal: vec![(0..len).map(|t| ((t / 100 + i) % 7) as f32 * 0.125).collect()],
        ..Rollout::default()
    };
    let kl_batch = (0..6).map(|i| kl_longest(i, if i == 4 { 131_072 } else { 300 + 50 * i })).collect();
    let tile = |len: usize| Spec { max_len: len, ..spec(Csr).continuous() };
    vec![
        Case { name: "k_100000", cfg: Config::default(), batch: Batch { num_groups: 1, rollouts: many_chunks, ..Batch::default() } },
        Case { name: "longest_rollout", cfg: Config::default(), batch: Batch { num_groups: 2, rollouts: longest, ..Batch::default() } },
        Case { name: "kl_longest_rollout", cfg: Config { kind: Kind::Kl, ..Config::default() }, batch: Batch { num_groups: 2, rollouts: kl_batch, ..Batch::default() } },
        case("no_rollout", spec(Csr).sizes(&[]), |_, _| {}),
        case("groups_without_rollouts", spec(Csr).sizes(&[0, 3, 0, 0, 2, 0]), |_, _| {}),
        case("group_of_one", spec(Csr).sizes(&[1, 1, 1]), |_, _| {}),
        case("group_of_one_one_step", spec(Csr).sizes(&[1]), |_, b| {
            let r = &mut b.rollouts[0];
            (r.step_ends, r.step_scores) = (Some(vec![r.len as i64]), vec![vec![0.5]]);
        }),
        case("empty_rollouts", Spec { empty: 0.5, ..spec(Csr) }, |_, _| {}),
        case("all_rollouts_empty", Spec { empty: 1.0, ..spec(Csr) }, |c, _| c.whiten = Whiten::Tokens),
        case("kl_empty_rollouts", Spec { empty: 0.4, ..spec(KlSignal) }, |_, _| {}),
        case("sparse_without_marks", Spec { empty: 0.5, ..spec(Sparse) }, |_, _| {}),
        case("one_token_rollouts", Spec { max_len: 1, ..spec(Csr) }, |_, _| {}),
        case("kl_one_token_rollouts", Spec { max_len: 1, ..spec(KlSignal) }, |_, _| {}),
        case("mask_all_zero", spec(Csr), |_, b| b.rollouts.iter_mut().step_by(2).for_each(|r| r.mask = Some(vec![false; r.len]))),
        case("mask_mostly_holes", Spec { holes: 0.9, poison: true, ..spec(Csr) }, |_, _| {}),
        case("kl_mask_starts_late", spec(KlSignal), |_, b| {
            b.rollouts.iter_mut().enumerate().for_each(|(i, r)| r.mask = Some((0..r.len).map(|t| t >= i).collect()));
        }),
        case("step_without_scope", spec(Csr), |_, b| {
            for r in &mut b.rollouts {
                let end = r.step_ends.as_ref().unwrap().first().copied().unwrap_or(0);
                r.mask = Some((0..r.len).map(|t| t as i64 >= end).collect());
                // No token of the first step is in scope: its score is not read.
                r.step_scores[0].first_mut().into_iter().for_each(|s| *s = f32::NAN);
            }
        }),
        case("one_chunk_each", spec(Csr), |_, b| {
            for r in &mut b.rollouts {
                (r.step_ends, r.step_scores) = (Some(vec![r.len as i64]), vec![vec![r.outcome.unwrap() - 0.5]]);
            }
        }),
        case("many_small_groups", Spec { interleave: true, max_len: 12, ..spec(Csr).sizes(&[2; 64]) }, |_, _| {}),
        case("one_large_group", Spec { max_len: 9, ..spec(Csr).sizes(&[200]) }, |_, _| {}),
        case("around_a_tile", tile(70), |c, _| (c.chunk, c.gamma) = (Chunk::Token, 0.9)),
        case("several_tiles", tile(400), |c, _| (c.chunk, c.gamma) = (Chunk::Token, 0.999)),
        case("gae_several_tiles", Spec { values: true, bootstrap: true, ..tile(400) }, |c, _| {
            (c.credit, c.k, c.gamma, c.lam) = (Credit::Gae, 0.0, 0.999, 0.97);
        }),
        case("absent_rollouts", spec(Csr), |_, b| {
            for r in b.rollouts.iter_mut().step_by(3) {
                // Nothing of a placeholder is read.
                (r.absent, r.outcome) = (true, Some(f32::NAN));
            }
        }),
        case("kl_absent_rollouts", spec(KlSignal), |c, b| {
            c.average_over = AverageOver::Group;
            b.rollouts.iter_mut().step_by(3).for_each(|r| r.absent = true);
        }),
        case("all_absent", spec(Csr), |c, b| {
            c.whiten = Whiten::Rollouts;
            b.rollouts.iter_mut().for_each(|r| r.absent = true);
        }),
        case("in_stats_0", spec(Csr), |_, b| b.rollouts.iter_mut().step_by(3).for_each(|r| r.in_stats = false)),
        case("in_stats_0_leave_one_out", spec(Csr).continuous(), |c, b| {
            c.set_standardize_all(Standardize::LeaveOneOut);
            b.rollouts.iter_mut().step_by(3).for_each(|r| r.in_stats = false);
        }),
        case("in_stats_0_everywhere", spec(Csr), |_, b| b.rollouts.iter_mut().for_each(|r| r.in_stats = false)),
    ]
}

fn constant(outcome: f32) -> impl FnOnce(&mut Config, &mut Batch) {
    move |_, b| {
        for r in &mut b.rollouts {
            r.outcome = Some(outcome);
            r.step_scores.iter_mut().flatten().for_each(|s| *s = outcome);
        }
    }
}

/// Replaces the scores of every rollout by `f(rollout, step)`.
fn scores(f: impl Fn(usize, usize) -> f32) -> impl FnOnce(&mut Config, &mut Batch) {
    move |_, b| {
        for (i, r) in b.rollouts.iter_mut().enumerate() {
            r.step_scores.iter_mut().flatten().enumerate().for_each(|(j, s)| *s = f(i, j));
        }
    }
}

fn outlier(name: &'static str, size: f32) -> Case {
    case(name, spec(Csr).continuous(), move |_, b| {
        for r in b.rollouts.iter_mut().step_by(4) {
            r.step_scores[0].iter_mut().take(1).for_each(|s| *s = size);
            r.outcome = Some(-size);
        }
    })
}

fn values() -> Vec<Case> {
    vec![
        case("zero_variance_098", spec(Csr).sizes(&[16]), constant(0.98)),
        case("zero_variance_098_loo", spec(Csr).sizes(&[16]), |c, b| {
            c.set_standardize_all(Standardize::LeaveOneOut);
            constant(0.98)(c, b);
        }),
        case("zero_variance_but_one", spec(Csr).sizes(&[16]), |c, b| {
            for row in c.streams_mut() {
                (row.center, row.scale) = (Center::LeaveOneOut, Scale::LeaveOneOut);
            }
            b.rollouts.iter_mut().enumerate().for_each(|(i, r)| r.outcome = Some(if i == 5 { 0.5 } else { 0.98 }));
        }),
        case("two_rollouts_loo_std", spec(Csr).sizes(&[2, 2]), |c, _| {
            for row in c.streams_mut() {
                (row.center, row.scale) = (Center::LeaveOneOut, Scale::LeaveOneOut);
            }
        }),
        case("all_zero", spec(Csr), constant(0.0)),
        case("all_zero_abs_max", spec(Csr), |c, b| {
            c.set_standardize_all(Standardize::AbsMax);
            constant(0.0)(c, b);
        }),
        case("kl_constant_signal", spec(KlSignal).holes(), |_, b| b.rollouts.iter_mut().for_each(|r| r.signal[0].fill(0.98))),
        case("minus_zero", spec(Csr), |c, b| {
            scores(|i, j| if (i + j) % 2 == 0 { -0.0 } else { 0.0 })(c, b);
            b.rollouts.iter_mut().for_each(|r| r.outcome = Some(-0.0));
        }),
        case("last_bits_differ", spec(Csr), scores(|i, j| 0.98 + (i + j) as f32 % 3.0 * f32::EPSILON)),
        outlier("outlier_1e4", 1e4),
        outlier("outlier_1e6", 1e6),
        outlier("outlier_1e9", 1e9),
        case("kl_outlier_1e6", spec(KlSignal).continuous(), |_, b| {
            b.rollouts.iter_mut().step_by(4).for_each(|r| r.signal[0].iter_mut().take(1).for_each(|s| *s = 1e6));
        }),
        case("offset_1e4", spec(Csr), scores(|i, j| 1e4 + (i * 3 + j) as f32 % 5.0 * 0.5)),
        case("denormals", spec(Csr), scores(|i, j| f32::from_bits(((i * 7 + j * 3) % 11) as u32))),
        case("denormals_abs_max", spec(Csr), |c, b| {
            c.set_standardize_process(Standardize::AbsMax);
            scores(|i, j| f32::from_bits(((i * 7 + j * 3) % 11) as u32 + 1))(c, b);
        }),
        case("tiny_1e_30", spec(Csr).continuous(), |c, b| {
            c.streams_mut().into_iter().for_each(|row| row.epsilon = 0.0);
            scores(|i, j| ((i * 5 + j) % 7) as f32 * 1e-30)(c, b);
        }),
        case("huge_1e30", spec(Csr), scores(|i, j| (((i * 5 + j) % 7) as f32 - 3.0) * 1e30)),
        case("huge_1e30_leave_one_out", spec(Csr), |c, b| {
            c.set_standardize_all(Standardize::LeaveOneOut);
            scores(|i, j| (((i * 5 + j) % 7) as f32 - 3.0) * 1e30)(c, b);
        }),
        case("kl_denormals", spec(KlSignal), |_, b| {
            b.rollouts.iter_mut().for_each(|r| r.signal[0].iter_mut().enumerate().for_each(|(t, s)| *s = f32::from_bits(t as u32 / 4 % 5)));
        }),
        case("sentinel_logp", spec(KlOpd).holes(), |_, b| {
            b.rollouts.iter_mut().step_by(3).for_each(|r| r.logp.as_mut().unwrap().teacher.iter_mut().step_by(9).for_each(|p| *p = -1e9));
        }),
        case("sentinel_logp_steps", spec(GOpdSteps), |_, b| {
            b.rollouts.iter_mut().step_by(5).for_each(|r| r.logp.as_mut().unwrap().policy.iter_mut().step_by(9).for_each(|p| *p = -1e9));
        }),
        case("sentinel_scores", spec(Csr), |c, b| {
            c.clip = 5.0;
            b.rollouts.iter_mut().step_by(5).for_each(|r| r.step_scores[0].iter_mut().take(1).for_each(|s| *s = -1e9));
        }),
    ]
}

/// A missing value here and there in every stream, among them all values of one rollout.
fn holes_in_all(b: &mut Batch) {
    for (i, r) in b.rollouts.iter_mut().enumerate() {
        let all = i == 1;
        let set = |v: &mut f32, hit: bool| {
            if hit || all {
                *v = f32::NAN
            }
        };
        r.outcome.iter_mut().for_each(|v| set(v, i % 4 == 2));
        r.format.iter_mut().for_each(|v| set(v, i % 5 == 3));
        r.others.iter_mut().enumerate().for_each(|(x, v)| set(v, (i + x) % 4 == 0));
        r.step_scores.iter_mut().enumerate().for_each(|(p, s)| s.iter_mut().enumerate().for_each(|(j, v)| set(v, (i + j + p) % 6 == 0)));
        r.signal.iter_mut().enumerate().for_each(|(p, s)| s.iter_mut().enumerate().for_each(|(t, v)| set(v, (i + t + p) % 9 == 0)));
    }
}

fn missing() -> Vec<Case> {
    let with = |missing: Missing| {
        move |c: &mut Config, b: &mut Batch| {
            c.set_missing_all(missing);
            holes_in_all(b);
        }
    };
    let full = |input: Input| Spec { streams: 2, others: 2, ..spec(input) };
    let outcome = |missing: Missing| {
        move |c: &mut Config, b: &mut Batch| {
            c.outcome.missing = missing;
            b.rollouts.iter_mut().step_by(3).for_each(|r| r.outcome = Some(f32::NAN));
        }
    };
    vec![
        case("missing_outcome_error", spec(Csr), |_, b| b.rollouts[5].outcome = Some(f32::NAN)),
        case("missing_outcome_zero", spec(Csr), outcome(Missing::Zero)),
        case("missing_outcome_exclude", spec(Csr), outcome(Missing::Exclude)),
        case("missing_format_exclude", spec(Csr), |c, b| {
            c.format.missing = Missing::Exclude;
            b.rollouts.iter_mut().step_by(3).for_each(|r| (r.format, r.format_ok) = (Some(f32::NAN), Some(false)));
        }),
        case("missing_other_exclude", Spec { others: 3, ..spec(Csr) }, |c, b| {
            c.others[1].missing = Missing::Exclude;
            b.rollouts.iter_mut().step_by(2).for_each(|r| r.others[1] = f32::NAN);
        }),
        case("missing_csr_error", full(Csr), |_, b| b.rollouts[6].step_scores[1].fill(f32::NAN)),
        case("missing_csr_zero", full(Csr), with(Missing::Zero)),
        case("missing_csr_exclude", full(Csr), with(Missing::Exclude)),
        case("missing_dense_ends_exclude", full(DenseEnds), with(Missing::Exclude)),
        case("missing_dense_exclude", full(Dense).holes(), with(Missing::Exclude)),
        case("missing_dense_zero", full(Dense), with(Missing::Zero)),
        case("missing_sparse_exclude", full(Sparse), with(Missing::Exclude)),
        case("missing_kl_zero", full(KlSignal), with(Missing::Zero)),
        case("missing_kl_exclude", full(KlSignal), with(Missing::Exclude)),
        case("missing_kl_exclude_bridge", spec(KlSignal), |c, b| {
            c.bridge_scope_gaps = true;
            with(Missing::Exclude)(c, b);
        }),
        case("missing_everything_kind_none_whitened", Spec { others: 1, ..spec(Nothing) }, |c, b| {
            c.whiten = Whiten::Tokens;
            with(Missing::Exclude)(c, b);
        }),
        case("missing_opd_zero", spec(KlOpd), |c, b| {
            c.process[0].missing = Missing::Zero;
            b.rollouts.iter_mut().for_each(|r| r.logp.as_mut().unwrap().teacher.iter_mut().step_by(5).for_each(|p| *p = f64::NAN));
        }),
        case("missing_reward_shaping_exclude", spec(Csr), |c, b| {
            c.fusion = Fusion::RewardShaping;
            with(Missing::Exclude)(c, b);
        }),
        case("missing_pooled_exclude", spec(Csr), |c, b| {
            c.fusion = Fusion::Pooled;
            with(Missing::Exclude)(c, b);
        }),
        case("nan_behind_the_mask", Spec { poison: true, values: true, holes: 0.3, ..spec(DenseEnds) }, |c, _| {
            (c.credit, c.k) = (Credit::Gae, 0.0);
        }),
        case("nan_behind_the_mask_opd", Spec { poison: true, holes: 0.3, ..spec(GOpdSteps) }, |_, _| {}),
    ]
}

fn findings() -> Vec<Case> {
    vec![
        case("inf_outcome", spec(Csr), |c, b| {
            c.set_missing_all(Missing::Exclude);
            b.rollouts[4].outcome = Some(f32::INFINITY);
        }),
        case("inf_outcome_reward_shaping", spec(Csr), |c, b| {
            c.set_missing_all(Missing::Zero);
            (c.fusion, c.outcome.weight) = (Fusion::RewardShaping, 0.0);
            (b.rollouts[4].outcome, b.rollouts[4].format) = (Some(f32::INFINITY), Some(f32::NEG_INFINITY));
        }),
        case("nan_outcome_reward_shaping_kl", Spec { holes: 0.3, ..spec(KlSignal) }, |c, b| {
            (c.fusion, c.chunk, c.scan_mask, c.k) = (Fusion::RewardShaping, Chunk::Token, ScanMask::None, 0.0);
            b.rollouts[4].outcome = Some(f32::NAN);
        }),
        case("inf_signal_reward_shaping_of_weight_0", Spec { holes: 0.3, ..spec(KlSignal) }, |c, b| {
            c.set_missing_all(Missing::Exclude);
            (c.fusion, c.chunk, c.scan_mask, c.k, c.process[0].weight) = (Fusion::RewardShaping, Chunk::Token, ScanMask::None, 0.0, 0.0);
            b.rollouts[4].signal[0].fill(f32::NEG_INFINITY);
        }),
        case("inf_score", spec(Csr), |_, b| b.rollouts[0].step_scores[0].fill(f32::NEG_INFINITY)),
        case("inf_signal_kl", spec(KlSignal), |_, b| b.rollouts[0].signal[0][0] = f32::INFINITY),
        case("inf_logp", spec(KlOpd), |_, b| b.rollouts[3].logp.as_mut().unwrap().teacher[0] = f64::NEG_INFINITY),
        case("inf_outside_the_sets", spec(Csr), |_, b| {
            (b.rollouts[0].in_stats, b.rollouts[0].outcome) = (false, Some(f32::INFINITY));
        }),
        case("nan_weight_0_stream", Spec { others: 1, ..spec(Csr) }, |c, b| {
            c.others[0].weight = 0.0;
            b.rollouts[2].others[0] = f32::NAN;
        }),
        case("nan_value_gae", Spec { values: true, ..spec(Csr) }, |c, b| {
            (c.credit, c.k) = (Credit::Gae, 0.0);
            b.rollouts[2].values.as_mut().unwrap()[0] = f32::NAN;
        }),
        case("steps_past_the_end", spec(Csr), |_, b| {
            let r = &mut b.rollouts[1];
            *r.step_ends.as_mut().unwrap().last_mut().unwrap() = r.len as i64 + 1;
        }),
        case("steps_decreasing", spec(Csr).sizes(&[3, 3]), |_, b| {
            let r = &mut b.rollouts[4];
            (r.len, r.step_ends, r.step_scores) = (9, Some(vec![5, 3, 9]), vec![vec![0.5, 0.25, 1.0]]);
        }),
        case("steps_negative", spec(Csr).sizes(&[3, 3]), |_, b| {
            let r = &mut b.rollouts[0];
            (r.len, r.step_ends, r.step_scores) = (4, Some(vec![-1, 4]), vec![vec![0.5, 0.25]]);
        }),
        case("kl_steps_past_the_end", spec(KlSteps), |c, b| {
            c.chunk = Chunk::Step;
            let r = &mut b.rollouts[1];
            *r.step_ends.as_mut().unwrap().last_mut().unwrap() = r.len as i64 + 7;
        }),
        case("begins_overlap", Spec { begins: true, ..spec(Csr).sizes(&[3, 3]) }, |_, b| {
            let r = &mut b.rollouts[2];
            (r.len, r.step_ends, r.step_begins) = (9, Some(vec![5, 9]), Some(vec![1, 4]));
            r.step_scores = vec![vec![0.5, 0.25]];
        }),
        case("singleton_passthrough", spec(Csr).sizes(&[1, 1, 3]), |c, _| c.set_singleton_all(Singleton::Passthrough)),
        case("singleton_refuse", spec(Csr).sizes(&[1, 4, 1]), |c, _| c.set_singleton_all(Singleton::Refuse)),
        case("singleton_refuse_abs_max", spec(Csr).sizes(&[1, 4]), |c, _| {
            c.set_standardize_all(Standardize::AbsMax);
            c.set_singleton_all(Singleton::Refuse);
        }),
        case("singleton_loo_rollout_passthrough", spec(Csr).sizes(&[1, 2, 4]), |c, _| {
            for row in c.streams_mut() {
                (row.center, row.scale, row.loo_unit) = (Center::LeaveOneOut, Scale::None, LooUnit::Rollout);
            }
            c.set_singleton_all(Singleton::Passthrough);
        }),
        case("all_groups_bad", spec(Csr).sizes(&[2, 2]), |c, b| {
            c.whiten = Whiten::Rollouts;
            b.rollouts.iter_mut().for_each(|r| r.outcome = Some(f32::NAN));
        }),
    ]
}
