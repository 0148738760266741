//! Statistics of rewards beyond the paper's (rules 47 to 55): each setting alone, combinations, and the sets that break them.
use super::build::*;
use super::{case, Case};
use crate::oracle::*;
use Input::*;

const UNEVEN: [usize; 5] = [1, 7, 2, 5, 3];

fn rewards() -> Spec {
    Spec { format: false, ok: false, ..Spec::of(Nothing).continuous().sizes(&UNEVEN) }
}

/// Outcome alone, standardised as said.
fn alone(name: &'static str, center: Center, scale: Scale) -> Case {
    edited(name, center, scale, |_, _| {})
}

fn edited(name: &'static str, center: Center, scale: Scale, edit: impl FnOnce(&mut Config, &mut Batch)) -> Case {
    case(name, Spec { baselines: center == Center::Given, ..rewards() }, |c, b| {
        (c.outcome.center, c.outcome.scale) = (center, scale);
        edit(c, b);
    })
}

fn all_rows(c: &mut Config, center: Center, scale: Scale) {
    for row in c.streams_mut() {
        (row.center, row.scale) = (center, scale);
    }
}

fn outcomes(b: &mut Batch, of: impl Fn(usize) -> f32) {
    b.rollouts.iter_mut().enumerate().for_each(|(i, r)| r.outcome = Some(of(i)));
}

fn equal(b: &mut Batch) {
    outcomes(b, |_| 0.98);
}

fn equal_groups(b: &mut Batch) {
    b.rollouts.iter_mut().for_each(|r| r.outcome = Some([0.98, -0.25, 0.5, 0.5, 0.1][r.group]));
}

fn no_stats(b: &mut Batch, group: impl Fn(usize) -> bool) {
    b.rollouts.iter_mut().for_each(|r| r.in_stats = !group(r.group));
}

/// Rollouts in no set, with values beyond all others.
fn aside(b: &mut Batch) {
    b.rollouts.iter_mut().step_by(3).for_each(|r| (r.in_stats, r.outcome) = (false, r.outcome.map(|x| 4.0 * x)));
}

fn absent(b: &mut Batch) {
    b.rollouts.iter_mut().step_by(4).for_each(|r| (r.absent, r.outcome, r.baseline) = (true, Some(f32::NAN), r.baseline.map(|_| f32::NAN)));
}

fn nan_in_some(b: &mut Batch) {
    b.rollouts.iter_mut().skip(2).step_by(3).for_each(|r| r.outcome = Some(f32::NAN));
}

fn hidden(b: &mut Batch, which: impl Fn(usize) -> bool) {
    b.rollouts.iter_mut().enumerate().filter(|(i, _)| which(*i)).for_each(|(_, r)| r.mask = Some(vec![false; r.len]));
}

pub fn cases() -> Vec<Case> {
    let mut table = whole_batch();
    table.extend(whole_batch_odd());
    table.extend(length_weighted());
    table.extend(given());
    table.extend(runner_up());
    table.extend(shares_and_means());
    table.extend(zero_variance());
    table.extend(clips());
    table.extend(places());
    table.extend(sums());
    table
}

fn whole_batch() -> Vec<Case> {
    use Center as C;
    use Scale as S;
    let process = |center: C, scale: S| move |c: &mut Config, _: &mut Batch| all_rows(c, center, scale);
    let csr = || Spec { others: 1, interleave: true, ..Spec::of(Csr).continuous().sizes(&UNEVEN) };
    vec![
        alone("batch_mean", C::Batch, S::None),
        alone("batch_mean_std", C::Batch, S::Batch),
        alone("batch_std_of_group_mean", C::Group, S::Batch),
        alone("batch_std_alone", C::None, S::Batch),
        alone("batch_mean_group_std", C::Batch, S::Group),
        alone("batch_mean_loo_std", C::Batch, S::LeaveOneOut),
        alone("batch_mean_abs_max", C::Batch, S::AbsMax),
        alone("batch_mean_divided_by_mean", C::Batch, S::Mean),
        alone("batch_std_loo", C::LeaveOneOut, S::Batch),
        edited("batch_std_loo_rollout", C::LeaveOneOut, S::Batch, |c, _| c.outcome.loo_unit = LooUnit::Rollout),
        edited("batch_mean_std_ddof_0_floor", C::Batch, S::Batch, |c, _| {
            (c.outcome.ddof, c.outcome.epsilon, c.outcome.epsilon_mode) = (0, 0.9, EpsilonMode::FloorStd);
        }),
        case("batch_all_streams", csr(), process(C::Batch, S::Batch)),
        case("batch_std_all_streams_holes", csr().holes(), process(C::Group, S::Batch)),
        case("batch_all_streams_tokens", csr(), |c, _| {
            all_rows(c, C::Batch, S::Batch);
            c.pool = Pool::Tokens;
        }),
        case("batch_two_process_streams", csr().streams(2), |c, _| (c.process[1].center, c.process[1].scale) = (C::Batch, S::Batch)),
        case("batch_dense", Spec::of(Dense).holes().sizes(&UNEVEN), process(C::Batch, S::Batch)),
        case("batch_chunk_mean", Spec::of(DenseEnds).continuous().sizes(&UNEVEN), |c, _| {
            all_rows(c, C::Batch, S::Batch);
            (c.chunk, c.chunk_value) = (Chunk::Step, ChunkValue::Mean);
        }),
        case("batch_kl_live", Spec::of(KlSignal).holes().sizes(&UNEVEN), process(C::Batch, S::Batch)),
        case("batch_kl_live_continuous", Spec::of(KlSignal).continuous(), |c, _| {
            all_rows(c, C::Batch, S::Batch);
            c.eta = 0.6;
        }),
        case("batch_kl_average_over_group", Spec::of(KlSignal).sizes(&UNEVEN), |c, _| {
            all_rows(c, C::Group, S::Batch);
            c.average_over = AverageOver::Group;
        }),
        case("batch_kl_token", Spec::of(KlOpd).holes(), |c, _| {
            all_rows(c, C::Batch, S::Batch);
            c.chunk = Chunk::Token;
        }),
        case("batch_whitened", csr(), |c, _| {
            all_rows(c, C::Batch, S::Batch);
            c.whiten = Whiten::Tokens;
        }),
        case("batch_gae", Spec { values: true, bootstrap: true, ..csr() }, |c, _| {
            all_rows(c, C::Batch, S::Batch);
            (c.credit, c.k, c.gamma, c.lam) = (Credit::Gae, 0.0, 0.99, 0.95);
        }),
    ]
}

fn whole_batch_odd() -> Vec<Case> {
    use Center as C;
    use Scale as S;
    let one = |name: &'static str, singleton: Singleton| {
        case(name, rewards().sizes(&[1]), move |c, _| (c.outcome.center, c.outcome.scale, c.outcome.singleton) = (C::Batch, S::Batch, singleton))
    };
    let both = |name: &'static str, edit: fn(&mut Config, &mut Batch)| edited(name, C::Batch, S::Batch, edit);
    vec![
        one("batch_of_one", Singleton::Zero),
        one("batch_of_one_passthrough", Singleton::Passthrough),
        one("batch_of_one_refuse", Singleton::Refuse),
        edited("batch_of_one_in_the_sets_refuse", C::Batch, S::None, |c, b| {
            c.outcome.singleton = Singleton::Refuse;
            b.rollouts.iter_mut().enumerate().for_each(|(i, r)| r.in_stats = i == 4);
        }),
        edited("batch_std_groups_of_one_passthrough", C::Group, S::Batch, |c, b| {
            c.outcome.singleton = Singleton::Passthrough;
            no_stats(b, |g| g == 1);
        }),
        edited("batch_std_groups_of_one_refuse", C::Group, S::Batch, |c, _| c.outcome.singleton = Singleton::Refuse),
        edited("batch_mean_groups_of_one_are_none", C::Batch, S::Group, |c, _| c.outcome.singleton = Singleton::Refuse),
        edited("batch_mean_group_std_centered", C::Batch, S::Group, |c, b| {
            c.outcome.zero_variance = ZeroVariance::Center;
            equal_groups(b);
        }),
        both("batch_equal", |_, b| equal(b)),
        both("batch_equal_within_groups", |_, b| equal_groups(b)),
        both("batch_equal_centered_aside", |c, b| {
            c.outcome.zero_variance = ZeroVariance::Center;
            equal(b);
            aside(b);
        }),
        both("batch_group_without_stats", |_, b| no_stats(b, |g| g == 1)),
        edited("batch_std_group_without_stats", C::Group, S::Batch, |_, b| no_stats(b, |g| g == 1)),
        edited("batch_std_loo_aside", C::LeaveOneOut, S::Batch, |_, b| aside(b)),
        both("batch_without_stats", |_, b| no_stats(b, |_| true)),
        both("batch_aside", |_, b| aside(b)),
        both("batch_absent", |_, b| absent(b)),
        both("batch_all_absent", |_, b| b.rollouts.iter_mut().for_each(|r| r.absent = true)),
        both("batch_empty_groups", |_, b| b.rollouts.retain(|r| r.group != 1 && r.group != 4)),
        both("batch_no_rollout", |_, b| b.rollouts.clear()),
        both("batch_nan_is_a_bad_group", |_, b| b.rollouts[4].outcome = Some(f32::NAN)),
        both("batch_inf_is_a_bad_group", |_, b| b.rollouts[9].outcome = Some(f32::NEG_INFINITY)),
        both("batch_nan_zero", |c, b| {
            c.outcome.missing = Missing::Zero;
            nan_in_some(b);
        }),
        both("batch_nan_exclude", |c, b| {
            c.outcome.missing = Missing::Exclude;
            nan_in_some(b);
        }),
        both("batch_all_nan_exclude", |c, b| {
            c.outcome.missing = Missing::Exclude;
            outcomes(b, |_| f32::NAN);
        }),
        case("batch_steps_do_not_fit", Spec::of(Csr).sizes(&[4, 4, 4]), |c, b| {
            all_rows(c, C::Batch, S::Batch);
            *b.rollouts[1].step_ends.as_mut().unwrap().last_mut().unwrap() += 9;
        }),
        case("batch_refused_group_is_in_the_sets", Spec { others: 1, ..rewards() }, |c, _| {
            (c.outcome.center, c.outcome.scale) = (C::Batch, S::Batch);
            c.others[0].singleton = Singleton::Refuse;
        }),
        both("batch_outlier_1e4", |_, b| b.rollouts[0].outcome = Some(1e4)),
        both("batch_denormals", |_, b| outcomes(b, |i| f32::from_bits(i as u32 % 5))),
        both("batch_huge", |_, b| outcomes(b, |i| (i as f32 % 7.0 - 3.0) * 1e30)),
    ]
}

fn length_weighted() -> Vec<Case> {
    let with = |name: &'static str, edit: fn(&mut Config, &mut Batch)| edited(name, Center::LengthWeighted, Scale::None, edit);
    vec![
        with("length_weighted", |_, _| {}),
        with("length_weighted_some_hidden", |_, b| hidden(b, |i| i % 3 == 1)),
        with("length_weighted_one_has_scope", |_, b| hidden(b, |i| i != 2)),
        with("length_weighted_one_has_scope_passthrough", |c, b| {
            c.outcome.singleton = Singleton::Passthrough;
            hidden(b, |i| i != 2 && i != 9 && i != 10);
        }),
        with("length_weighted_refuse", |c, b| {
            c.outcome.singleton = Singleton::Refuse;
            hidden(b, |i| i == 8);
        }),
        with("length_weighted_no_scope", |c, b| {
            c.outcome.singleton = Singleton::Passthrough;
            hidden(b, |_| true);
        }),
        with("length_weighted_equal", |_, b| equal(b)),
        with("length_weighted_aside", |_, b| aside(b)),
        with("length_weighted_without_stats", |_, b| no_stats(b, |g| g == 1)),
        with("length_weighted_absent", |_, b| absent(b)),
        with("length_weighted_nan_exclude", |c, b| {
            c.outcome.missing = Missing::Exclude;
            nan_in_some(b);
        }),
        with("length_weighted_nan_zero", |c, b| {
            c.outcome.missing = Missing::Zero;
            nan_in_some(b);
        }),
        with("length_weighted_nan_error", |_, b| b.rollouts[3].outcome = Some(f32::NAN)),
        // Tokens in scope alone count: those of steps, not hidden.
        case("length_weighted_scope", Spec { begins: true, others: 2, ..Spec::of(Csr).holes().continuous() }, |c, _| {
            for row in [&mut c.outcome, &mut c.format].into_iter().chain(&mut c.others) {
                (row.center, row.scale) = (Center::LengthWeighted, Scale::None);
            }
        }),
    ]
}

fn given() -> Vec<Case> {
    use Center::Given;
    let with = |name: &'static str, edit: fn(&mut Config, &mut Batch)| edited(name, Given, Scale::None, edit);
    vec![
        with("given", |_, _| {}),
        with("given_without_stats", |_, b| no_stats(b, |_| true)),
        with("given_singleton_is_none", |c, _| c.outcome.singleton = Singleton::Refuse),
        with("given_absent", |_, b| absent(b)),
        with("given_nan", |_, b| b.rollouts[5].baseline = Some(f32::NAN)),
        with("given_inf", |_, b| b.rollouts[0].baseline = Some(f32::INFINITY)),
        with("given_nan_of_a_missing_outcome", |c, b| {
            c.outcome.missing = Missing::Exclude;
            (b.rollouts[5].outcome, b.rollouts[5].baseline) = (Some(f32::NAN), Some(f32::NAN));
        }),
        with("given_missing_outcomes", |c, b| {
            c.outcome.missing = Missing::Exclude;
            nan_in_some(b);
        }),
        with("given_missing_outcomes_zero", |c, b| {
            c.outcome.missing = Missing::Zero;
            nan_in_some(b);
        }),
        alone("given_group_std", Given, Scale::Group),
        edited("given_group_std_refuse", Given, Scale::Group, |c, _| c.outcome.singleton = Singleton::Refuse),
        edited("given_group_std_passthrough_centered", Given, Scale::Group, |c, b| {
            (c.outcome.singleton, c.outcome.zero_variance) = (Singleton::Passthrough, ZeroVariance::Center);
            equal_groups(b);
        }),
        alone("given_batch_std", Given, Scale::Batch),
        alone("given_loo_std", Given, Scale::LeaveOneOut),
        alone("given_abs_max", Given, Scale::AbsMax),
        alone("given_nonzero_share", Given, Scale::NonzeroShare),
        alone("given_mean", Given, Scale::Mean),
        case("given_beside_steps", Spec { baselines: true, ..Spec::of(Csr).holes() }, |c, _| {
            (c.outcome.center, c.outcome.scale) = (Given, Scale::None);
        }),
    ]
}

fn runner_up() -> Vec<Case> {
    use Center::RunnerUp;
    let with = |name: &'static str, edit: fn(&mut Config, &mut Batch)| edited(name, RunnerUp, Scale::None, edit);
    vec![
        with("runner_up", |_, _| {}),
        with("runner_up_ties", |_, b| outcomes(b, |i| (i % 3) as f32)),
        with("runner_up_tie_of_seconds", |_, b| outcomes(b, |i| if i % 4 == 0 { 1.0 } else { 0.25 })),
        with("runner_up_equal", |_, b| equal(b)),
        with("runner_up_minus_zero", |_, b| outcomes(b, |i| if i % 2 == 0 { -0.0 } else { 0.0 })),
        with("runner_up_passthrough", |c, _| c.outcome.singleton = Singleton::Passthrough),
        with("runner_up_refuse", |c, _| c.outcome.singleton = Singleton::Refuse),
        with("runner_up_aside", |_, b| {
            outcomes(b, |i| i as f32 * 0.25);
            b.rollouts.iter_mut().step_by(2).for_each(|r| (r.in_stats, r.outcome) = (false, Some(99.0)));
        }),
        with("runner_up_aside_as_large", |_, b| {
            outcomes(b, |i| if i % 3 == 0 { 2.0 } else { i as f32 * 0.01 });
            b.rollouts.iter_mut().step_by(6).for_each(|r| r.in_stats = false);
        }),
        with("runner_up_without_stats", |_, b| no_stats(b, |g| g == 1)),
        with("runner_up_absent", |_, b| absent(b)),
        with("runner_up_negative", |_, b| outcomes(b, |i| -1.0 - i as f32)),
        with("runner_up_nan_exclude", |c, b| {
            c.outcome.missing = Missing::Exclude;
            nan_in_some(b);
        }),
        with("runner_up_nan_zero", |c, b| {
            c.outcome.missing = Missing::Zero;
            outcomes(b, |i| -0.5 - i as f32);
            nan_in_some(b);
        }),
        with("runner_up_nan_error", |_, b| b.rollouts[2].outcome = Some(f32::NAN)),
        alone("runner_up_group_std", RunnerUp, Scale::Group),
        alone("runner_up_batch_std", RunnerUp, Scale::Batch),
        alone("runner_up_abs_max", RunnerUp, Scale::AbsMax),
        alone("runner_up_nonzero_share", RunnerUp, Scale::NonzeroShare),
        case("runner_up_in_all", Spec { others: 3, ..Spec::of(Csr) }, |c, _| {
            c.others.iter_mut().for_each(|row| row.center = RunnerUp);
        }),
    ]
}

fn shares_and_means() -> Vec<Case> {
    use Center as C;
    use Scale as S;
    let some_zero = |b: &mut Batch| outcomes(b, |i| if i % 3 == 0 { 0.5 + i as f32 } else { 0.0 });
    vec![
        edited("nonzero_share", C::Group, S::NonzeroShare, move |_, b| some_zero(b)),
        edited("nonzero_share_alone", C::None, S::NonzeroShare, move |c, b| {
            c.outcome.singleton = Singleton::Refuse;
            some_zero(b);
        }),
        edited("nonzero_share_batch_mean", C::Batch, S::NonzeroShare, move |_, b| some_zero(b)),
        edited("nonzero_share_loo", C::LeaveOneOut, S::NonzeroShare, move |c, b| {
            c.outcome.singleton = Singleton::Passthrough;
            some_zero(b);
        }),
        edited("nonzero_share_all_zero", C::None, S::NonzeroShare, |_, b| outcomes(b, |i| if i % 2 == 0 { -0.0 } else { 0.0 })),
        edited("nonzero_share_minus_zero_is_zero", C::Group, S::NonzeroShare, |_, b| outcomes(b, |i| [-0.0, 0.0, 1.0, f32::from_bits(1)][i % 4])),
        edited("nonzero_share_equal", C::Group, S::NonzeroShare, |_, b| equal(b)),
        edited("nonzero_share_aside", C::Group, S::NonzeroShare, |_, b| aside(b)),
        edited("nonzero_share_group_without_stats", C::None, S::NonzeroShare, move |_, b| {
            some_zero(b);
            no_stats(b, |g| g == 1);
        }),
        edited("nonzero_share_absent_and_missing", C::Group, S::NonzeroShare, move |c, b| {
            c.outcome.missing = Missing::Exclude;
            some_zero(b);
            nan_in_some(b);
            absent(b);
        }),
        edited("nonzero_share_missing_is_zero", C::Group, S::NonzeroShare, |c, b| {
            c.outcome.missing = Missing::Zero;
            nan_in_some(b);
        }),
        edited("nonzero_share_beside_a_bad_group", C::Group, S::NonzeroShare, move |_, b| {
            some_zero(b);
            b.rollouts[4].outcome = Some(f32::INFINITY);
        }),
        edited("mean_scale", C::Group, S::Mean, |_, b| outcomes(b, |i| (i % 3) as f32)),
        edited("mean_scale_alone", C::None, S::Mean, |c, b| {
            c.outcome.singleton = Singleton::Refuse;
            outcomes(b, |i| (i % 5) as f32);
        }),
        edited("mean_scale_passthrough", C::Group, S::Mean, |c, b| {
            c.outcome.singleton = Singleton::Passthrough;
            outcomes(b, |i| 2.0 + (i % 3) as f32);
        }),
        edited("mean_scale_negative", C::Group, S::Mean, |_, b| outcomes(b, |i| -0.5 - (i % 3) as f32)),
        edited("mean_scale_mean_0", C::Group, S::Mean, |c, b| {
            c.outcome.epsilon = 0.0;
            b.rollouts.iter_mut().enumerate().for_each(|(i, r)| r.outcome = Some(if r.group % 2 == 0 { [1.0, -1.0][i % 2] } else { i as f32 }));
            b.rollouts.retain(|r| r.group == 2 || r.group == 1);
        }),
        edited("mean_scale_all_zero", C::Group, S::Mean, |c, b| {
            c.outcome.epsilon = 0.0;
            outcomes(b, |_| 0.0);
        }),
        edited("mean_scale_equal_aside", C::Group, S::Mean, |c, b| {
            c.outcome.zero_variance = ZeroVariance::Center;
            equal(b);
            aside(b);
        }),
        edited("mean_scale_equal_alone", C::None, S::Mean, |_, b| equal(b)),
        edited("mean_scale_missing", C::Group, S::Mean, |c, b| {
            c.outcome.missing = Missing::Exclude;
            outcomes(b, |i| (i % 4) as f32);
            nan_in_some(b);
            absent(b);
        }),
        edited("mean_scale_epsilon", C::LeaveOneOut, S::Mean, |c, b| {
            (c.outcome.epsilon, c.outcome.epsilon_mode) = (0.5, EpsilonMode::FloorVar);
            outcomes(b, |i| (i % 3) as f32);
        }),
    ]
}

fn zero_variance() -> Vec<Case> {
    use Center as C;
    use Scale as S;
    let with = |name: &'static str, center: C, scale: S, edit: fn(&mut Batch)| {
        edited(name, center, scale, move |c, b| {
            c.streams_mut().into_iter().for_each(|row| row.zero_variance = ZeroVariance::Center);
            edit(b);
        })
    };
    vec![
        with("zero_variance_center", C::Group, S::Group, equal_groups),
        with("zero_variance_center_aside", C::Group, S::Group, |b| {
            equal(b);
            aside(b);
        }),
        with("zero_variance_center_none", C::None, S::Group, equal_groups),
        with("zero_variance_center_mixed", C::Group, S::Group, |b| b.rollouts.iter_mut().filter(|r| r.group == 1).for_each(|r| r.outcome = Some(0.98))),
        with("zero_variance_center_loo", C::LeaveOneOut, S::LeaveOneOut, |b| outcomes(b, |i| if i == 3 { 0.5 } else { 0.98 })),
        with("zero_variance_center_loo_group_std", C::LeaveOneOut, S::Group, equal_groups),
        with("zero_variance_center_none_loo_std", C::None, S::LeaveOneOut, |b| outcomes(b, |i| if i == 3 { 0.5 } else { 0.98 })),
        with("zero_variance_center_batch", C::Group, S::Batch, equal),
        with("zero_variance_center_none_batch", C::None, S::Batch, equal),
        with("zero_variance_center_group_in_a_batch", C::Group, S::Batch, equal_groups),
        with("zero_variance_center_abs_max", C::None, S::AbsMax, |b| {
            outcomes(b, |_| 0.0);
            b.rollouts.iter_mut().step_by(3).for_each(|r| (r.in_stats, r.outcome) = (false, Some(0.5)));
        }),
        with("zero_variance_center_runner_up", C::RunnerUp, S::Group, equal_groups),
        with("zero_variance_center_ddof_on_one_counts", C::Batch, S::Group, |b| no_stats(b, |g| g == 3)),
        case("zero_variance_center_process", Spec::of(Csr).sizes(&UNEVEN), |c, b| {
            c.process[0].zero_variance = ZeroVariance::Center;
            c.process[0].center = C::None;
            b.rollouts.iter_mut().filter(|r| r.group > 1).for_each(|r| r.step_scores[0].fill(0.75));
        }),
        case("zero_variance_center_kl", Spec::of(KlSignal).holes(), |c, b| {
            (c.process[0].zero_variance, c.process[0].center) = (ZeroVariance::Center, C::None);
            b.rollouts.iter_mut().for_each(|r| r.signal[0].iter_mut().for_each(|s| *s = if s.is_nan() { *s } else { 0.98 }));
        }),
    ]
}

fn clips() -> Vec<Case> {
    let rows = |c: &mut Config, value: f64, standardized: f64| {
        for row in [&mut c.outcome, &mut c.format].into_iter().chain(&mut c.others) {
            (row.clip_value, row.clip_standardized) = (value, standardized);
        }
    };
    let spec = |input: Input| Spec { others: 2, ..Spec::of(input).continuous() };
    vec![
        case("clip_value", spec(Nothing), move |c, _| rows(c, 0.7, f64::INFINITY)),
        case("clip_value_is_f32", spec(Nothing), move |c, _| rows(c, 0.3 + 1e-12, f64::INFINITY)),
        case("clip_value_makes_equal", spec(Nothing), move |c, b| {
            rows(c, 0.1, f64::INFINITY);
            outcomes(b, |i| 1.0 + i as f32);
        }),
        case("clip_value_finding", spec(Nothing), move |c, b| {
            rows(c, 0.7, f64::INFINITY);
            b.rollouts[1].outcome = Some(f32::INFINITY);
            b.rollouts[5].others[0] = f32::NAN;
        }),
        case("clip_value_missing", spec(Nothing), move |c, b| {
            rows(c, 0.7, f64::INFINITY);
            c.set_missing_all(Missing::Exclude);
            c.others[0].missing = Missing::Zero;
            nan_in_some(b);
            b.rollouts[1].others[0] = f32::NAN;
        }),
        case("clip_value_pooled", Spec::of(Csr).continuous(), |c, _| {
            (c.fusion, c.outcome.clip_value, c.format.clip_value) = (Fusion::Pooled, 0.5, 0.75);
        }),
        case("clip_value_reward_shaping", Spec::of(Csr).continuous(), |c, _| {
            (c.fusion, c.outcome.clip_value) = (Fusion::RewardShaping, 0.5);
        }),
        case("clip_standardized", spec(Nothing), move |c, _| rows(c, f64::INFINITY, 0.5)),
        case("clip_standardized_passthrough", spec(Nothing).sizes(&[1, 3]), move |c, _| {
            rows(c, f64::INFINITY, 0.25);
            c.set_singleton_all(Singleton::Passthrough);
        }),
        case("clip_both_beside_steps", spec(Csr).holes(), move |c, _| rows(c, 1.2, 0.9)),
        case("clip_standardized_wrong_format", Spec { others: 1, ..Spec::of(Csr) }, move |c, b| {
            rows(c, f64::INFINITY, 0.5);
            b.rollouts.iter_mut().step_by(2).for_each(|r| (r.format, r.format_ok) = (Some(-3.0), Some(false)));
        }),
        case("clip_given_batch", Spec { baselines: true, ..spec(Nothing) }, move |c, _| {
            rows(c, 0.9, 1.1);
            (c.outcome.center, c.outcome.scale) = (Center::Given, Scale::Batch);
        }),
    ]
}

fn places() -> Vec<Case> {
    let put = |c: &mut Config, place: Place| {
        for row in [&mut c.outcome, &mut c.format].into_iter().chain(&mut c.others) {
            row.place = place;
        }
    };
    let spec = || Spec { others: 1, ..Spec::of(Csr).gaps() };
    // The last token of every other rollout is out of scope.
    let open_ends = |b: &mut Batch| {
        for (i, r) in b.rollouts.iter_mut().enumerate() {
            let len = r.len;
            if let (Some(last), true) = (r.mask.as_mut().and_then(|m| m.last_mut()), len > 1) {
                *last = i % 2 == 0;
            }
        }
    };
    vec![
        case("place_last", spec(), move |c, _| put(c, Place::Last)),
        case("place_end", spec(), move |c, b| {
            put(c, Place::End);
            open_ends(b);
        }),
        case("place_each_its_own", Spec { others: 3, ..spec() }, move |c, b| {
            (c.outcome.place, c.others[0].place, c.others[1].place) = (Place::Last, Place::End, Place::Last);
            open_ends(b);
        }),
        case("place_last_token_chunks", spec(), move |c, _| {
            put(c, Place::Last);
            (c.chunk, c.gamma) = (Chunk::Token, 0.9);
        }),
        case("place_end_token_chunks", spec(), move |c, b| {
            put(c, Place::End);
            open_ends(b);
            (c.chunk, c.gamma, c.k) = (Chunk::Token, 0.9, 0.0);
        }),
        case("place_last_broadcast", spec(), move |c, _| {
            put(c, Place::Last);
            c.credit = Credit::Broadcast;
        }),
        case("place_last_gae", Spec { values: true, ..spec() }, move |c, _| {
            put(c, Place::Last);
            (c.credit, c.k, c.gamma, c.lam) = (Credit::Gae, 0.0, 0.99, 0.95);
        }),
        case("place_end_gae", Spec { values: true, bootstrap: true, ..spec() }, move |c, b| {
            put(c, Place::End);
            open_ends(b);
            (c.credit, c.k, c.gamma, c.lam) = (Credit::Gae, 0.0, 0.99, 0.95);
        }),
        case("place_last_one_chunk", Spec { others: 1, ..rewards() }, move |c, _| put(c, Place::Last)),
        case("place_end_no_scope", Spec { others: 1, ..rewards() }, move |c, b| {
            put(c, Place::End);
            hidden(b, |i| i % 3 == 0);
        }),
        case("place_wrong_format_goes_with_the_format", spec(), move |c, b| {
            (c.outcome.place, c.format.place) = (Place::Every, Place::Last);
            b.rollouts.iter_mut().step_by(2).for_each(|r| (r.format, r.format_ok) = (Some(0.0), Some(false)));
        }),
        case("place_wrong_format_at_the_end", spec(), move |c, b| {
            c.format.place = Place::End;
            open_ends(b);
            b.rollouts.iter_mut().step_by(2).for_each(|r| (r.format, r.format_ok) = (Some(0.0), Some(false)));
        }),
        case("place_wrong_format_every", spec(), move |c, b| {
            c.outcome.place = Place::Last;
            b.rollouts.iter_mut().step_by(2).for_each(|r| (r.format, r.format_ok) = (Some(0.0), Some(false)));
        }),
        case("place_end_missing_step_values", spec(), move |c, b| {
            put(c, Place::End);
            c.set_missing_all(Missing::Exclude);
            b.rollouts.iter_mut().for_each(|r| r.step_scores[0].last_mut().into_iter().for_each(|s| *s = f32::NAN));
        }),
        case("place_last_whitened_rollouts", spec(), move |c, _| {
            put(c, Place::Last);
            c.whiten = Whiten::Rollouts;
        }),
    ]
}

fn sums() -> Vec<Case> {
    let spec = |input: Input| Spec { others: 2, ok: false, ..Spec::of(input).continuous().sizes(&UNEVEN) };
    let sum = |c: &mut Config| {
        c.fusion = Fusion::RewardSum;
        (c.outcome.weight, c.format.weight, c.others[0].weight, c.others[1].weight) = (0.7, -1.3, 0.2, 2.0);
    };
    let missing = |missing: Missing| {
        move |c: &mut Config, b: &mut Batch| {
            sum(c);
            c.set_missing_all(missing);
            for (i, r) in b.rollouts.iter_mut().enumerate() {
                if i % 3 == 0 {
                    r.outcome = Some(f32::NAN);
                }
                if i % 4 == 0 {
                    r.format = Some(f32::NAN);
                }
                r.others.iter_mut().enumerate().filter(|(x, _)| (i + x) % 5 == 0 || i == 12).for_each(|(_, v)| *v = f32::NAN);
            }
            (b.rollouts[12].outcome, b.rollouts[12].format) = (Some(f32::NAN), Some(f32::NAN));
        }
    };
    vec![
        case("reward_sum", spec(Nothing), move |c, _| sum(c)),
        case("reward_sum_beside_steps", spec(Csr).holes(), move |c, _| sum(c)),
        case("reward_sum_beside_two_streams", spec(Csr).streams(2), move |c, _| sum(c)),
        case("reward_sum_kl", spec(KlSignal), move |c, _| sum(c)),
        case("reward_sum_has_no_gate", Spec { ok: true, ..spec(Csr) }, move |c, _| sum(c)),
        case("reward_sum_of_one", Spec { others: 0, format: false, ..spec(Nothing) }, |c, _| (c.fusion, c.outcome.weight) = (Fusion::RewardSum, 2.5)),
        case("reward_sum_without_outcome", Spec { outcome: false, ..spec(Nothing) }, move |c, _| sum(c)),
        case("reward_sum_without_rewards", Spec { outcome: false, format: false, others: 0, ..spec(Csr) }, |c, _| c.fusion = Fusion::RewardSum),
        case("reward_sum_missing_exclude", spec(Nothing), missing(Missing::Exclude)),
        case("reward_sum_missing_exclude_beside_steps", spec(Csr), missing(Missing::Exclude)),
        case("reward_sum_missing_zero", spec(Nothing), missing(Missing::Zero)),
        case("reward_sum_missing_error", spec(Nothing), move |c, b| {
            sum(c);
            b.rollouts[4].others[1] = f32::NAN;
        }),
        case("reward_sum_missing_whitened", spec(Nothing), move |c, b| {
            missing(Missing::Exclude)(c, b);
            c.whiten = Whiten::Rollouts;
        }),
        case("reward_sum_row_is_the_outcomes", spec(Nothing), move |c, _| {
            sum(c);
            // None of this is the sum's.
            (c.format.center, c.format.scale, c.others[0].singleton) = (Center::Batch, Scale::Batch, Singleton::Refuse);
            (c.others[1].place, c.others[1].clip_standardized) = (Place::Last, 0.1);
            (c.outcome.center, c.outcome.scale, c.outcome.singleton) = (Center::LeaveOneOut, Scale::None, Singleton::Passthrough);
        }),
        case("reward_sum_clipped", spec(Nothing), move |c, _| {
            sum(c);
            (c.outcome.clip_value, c.outcome.clip_standardized) = (1.1, 0.8);
        }),
        case("reward_sum_streams_clipped", spec(Nothing), move |c, _| {
            sum(c);
            (c.format.clip_value, c.others[0].clip_value) = (0.5, 0.25);
        }),
        case("reward_sum_given", Spec { baselines: true, ..spec(Nothing) }, move |c, _| {
            sum(c);
            (c.outcome.center, c.outcome.scale) = (Center::Given, Scale::None);
        }),
        case("reward_sum_batch", spec(Csr), move |c, _| {
            sum(c);
            (c.outcome.center, c.outcome.scale) = (Center::Batch, Scale::Batch);
        }),
        case("reward_sum_place_last", spec(Csr).gaps(), move |c, _| {
            sum(c);
            c.outcome.place = Place::Last;
        }),
        case("reward_sum_refuse", spec(Nothing), move |c, _| {
            sum(c);
            c.outcome.singleton = Singleton::Refuse;
        }),
        case("reward_sum_equal", spec(Nothing), move |c, b| {
            sum(c);
            b.rollouts.iter_mut().for_each(|r| (r.outcome, r.format, r.others) = (Some(0.98), Some(0.1), vec![0.3, 0.7]));
        }),
        case("reward_sum_aside_and_absent", spec(Nothing), move |c, b| {
            sum(c);
            aside(b);
            absent(b);
        }),
        case("reward_sum_beyond_f32", spec(Nothing), move |c, b| {
            sum(c);
            c.outcome.weight = 1e10;
            b.rollouts[4].outcome = Some(1e30);
        }),
        case("reward_sum_gae", Spec { values: true, ..spec(Csr) }, move |c, _| {
            sum(c);
            (c.credit, c.k, c.lam) = (Credit::Gae, 0.0, 0.95);
        }),
    ]
}
