//! Sets of rewards beyond the paper's (rules 48 to 51): each setting alone, combinations, and the sets that break them.
use super::build::*;
use super::{case, Case};
use crate::oracle::*;
use Input::*;

pub(super) const UNEVEN: [usize; 5] = [1, 7, 2, 5, 3];

pub(super) fn rewards() -> Spec {
    Spec { format: false, ok: false, ..Spec::of(Nothing).continuous().sizes(&UNEVEN) }
}

/// Outcome alone, standardised as said.
fn alone(name: &'static str, center: Center, scale: Scale) -> Case {
    edited(name, center, scale, |_, _| {})
}

pub(super) fn edited(name: &'static str, center: Center, scale: Scale, edit: impl FnOnce(&mut Config, &mut Batch)) -> Case {
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

pub(super) fn outcomes(b: &mut Batch, of: impl Fn(usize) -> f32) {
    b.rollouts.iter_mut().enumerate().for_each(|(i, r)| r.outcome = Some(of(i)));
}

pub(super) fn equal(b: &mut Batch) {
    outcomes(b, |_| 0.98);
}

pub(super) fn equal_groups(b: &mut Batch) {
    b.rollouts.iter_mut().for_each(|r| r.outcome = Some([0.98, -0.25, 0.5, 0.5, 0.1][r.group]));
}

pub(super) fn no_stats(b: &mut Batch, group: impl Fn(usize) -> bool) {
    b.rollouts.iter_mut().for_each(|r| r.in_stats = !group(r.group));
}

/// Rollouts in no set, with values beyond all others.
pub(super) fn aside(b: &mut Batch) {
    b.rollouts.iter_mut().step_by(3).for_each(|r| (r.in_stats, r.outcome) = (false, r.outcome.map(|x| 4.0 * x)));
}

pub(super) fn absent(b: &mut Batch) {
    b.rollouts.iter_mut().step_by(4).for_each(|r| (r.absent, r.outcome, r.baseline) = (true, Some(f32::NAN), r.baseline.map(|_| f32::NAN)));
}

pub(super) fn nan_in_some(b: &mut Batch) {
    b.rollouts.iter_mut().skip(2).step_by(3).for_each(|r| r.outcome = Some(f32::NAN));
}

pub(super) fn hidden(b: &mut Batch, which: impl Fn(usize) -> bool) {
    b.rollouts.iter_mut().enumerate().filter(|(i, _)| which(*i)).for_each(|(_, r)| r.mask = Some(vec![false; r.len]));
}

pub fn cases() -> Vec<Case> {
    let mut table = whole_batch();
    table.extend(whole_batch_odd());
    table.extend(length_weighted());
    table.extend(given());
    table.extend(runner_up());
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
        edited("batch_mean_loo_std_of_one", C::Batch, S::LeaveOneOut, |c, b| {
            c.outcome.zero_variance = ZeroVariance::Center;
            aside(b);
        }),
        edited("batch_mean_loo_std_of_one_passthrough", C::Batch, S::LeaveOneOut, |c, b| {
            c.outcome.singleton = Singleton::Passthrough;
            aside(b);
        }),
        edited("batch_mean_loo_std_of_one_refuse", C::Batch, S::LeaveOneOut, |c, _| c.outcome.singleton = Singleton::Refuse),
        edited("batch_mean_loo_std_of_one_rollout", C::Batch, S::LeaveOneOut, |c, b| {
            (c.outcome.zero_variance, c.outcome.loo_unit) = (ZeroVariance::Center, LooUnit::Rollout);
            aside(b);
        }),
        case("batch_mean_loo_std_process", csr(), |c, _| {
            all_rows(c, C::Batch, S::LeaveOneOut);
            c.streams_mut().into_iter().for_each(|row| (row.singleton, row.zero_variance) = (Singleton::Passthrough, ZeroVariance::Center));
        }),
        case("batch_mean_loo_std_process_rollout_refuse", csr(), |c, _| {
            all_rows(c, C::Batch, S::LeaveOneOut);
            c.set_singleton_all(Singleton::Refuse);
            c.streams_mut().into_iter().for_each(|row| row.loo_unit = LooUnit::Rollout);
        }),
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
        // Groups whose own set is empty, too.
        edited("batch_mean_of_one_group_std_refuse", C::Batch, S::Group, |c, b| {
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
