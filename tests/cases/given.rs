//! Statistics that the caller gives (rule 50): `center = given` without baselines, `scale = given`.
use super::build::*;
use super::sets::{absent, aside, equal, equal_groups, hidden, nan_in_some, no_stats, outcomes, rewards, UNEVEN};
use super::{case, Case};
use crate::oracle::*;
use Center as C;
use Input::*;
use Scale as S;

/// Statistics of the rows that ask for them, different in each group; NaN in all other places, which nothing may read.
pub(super) fn give(cfg: &Config, b: &mut Batch) {
    let line = |g: usize, asked: &dyn Fn(&StreamCfg) -> bool, of: &dyn Fn(usize, usize) -> f64| {
        let mut line = [f64::NAN; 16];
        let p = cfg.process.len();
        for (s, _) in cfg.streams().into_iter().enumerate().filter(|(_, row)| asked(row)) {
            line[if s < p { s } else { (4 + s - p).min(15) }] = of(g, s);
        }
        line
    };
    let lines = |asked: &dyn Fn(&StreamCfg) -> bool, of: &dyn Fn(usize, usize) -> f64| (0..b.num_groups).map(|g| line(g, asked, of)).collect();
    let means = lines(&|row| row.center == C::Given, &|g, s| (g * 5 % 7) as f64 / 8.0 - 0.25 + s as f64 / 64.0);
    let stds = lines(&|row| row.scale == S::Given, &|g, s| 0.375 + (g * 3 % 5) as f64 / 16.0 + s as f64 / 32.0);
    (b.stats_mean, b.stats_std) = (Some(means), Some(stds));
}

/// One line for all groups, a stride of 0 along them.
fn one_line(b: &mut Batch) {
    [&mut b.stats_mean, &mut b.stats_std].into_iter().flatten().for_each(|lines| lines.truncate(1));
}

fn means(b: &mut Batch) -> &mut Vec<Row16> {
    b.stats_mean.as_mut().expect("given")
}

fn stds(b: &mut Batch) -> &mut Vec<Row16> {
    b.stats_std.as_mut().expect("given")
}

/// Rows as `rows` says, statistics given, then changed.
fn giving(name: &'static str, spec: Spec, rows: impl FnOnce(&mut Config), edit: impl FnOnce(&mut Config, &mut Batch)) -> Case {
    case(name, spec, |c, b| {
        rows(c);
        give(c, b);
        edit(c, b);
    })
}

fn outcome(name: &'static str, center: Center, scale: Scale, edit: impl FnOnce(&mut Config, &mut Batch)) -> Case {
    giving(name, rewards(), |c| (c.outcome.center, c.outcome.scale) = (center, scale), edit)
}

fn whole(c: &mut Config) {
    c.streams_mut().into_iter().for_each(|row| (row.center, row.scale) = (C::Given, S::Given));
}

fn process(center: Center, scale: Scale) -> impl Fn(&mut Config) {
    move |c| c.process.iter_mut().for_each(|row| (row.center, row.scale) = (center, scale))
}

const OUTCOME: usize = 4;

pub fn cases() -> Vec<Case> {
    let mut table = together();
    table.extend(odd());
    table.extend(rows());
    table.extend(kl());
    table
}

/// A given centre with every scale, a given scale with every centre.
fn together() -> Vec<Case> {
    let alone = |name: &'static str, center: Center, scale: Scale| outcome(name, center, scale, |_, _| {});
    let mode = |name: &'static str, mode: EpsilonMode, epsilon: f64| {
        outcome(name, C::Given, S::Given, move |c, _| (c.outcome.epsilon, c.outcome.epsilon_mode) = (epsilon, mode))
    };
    vec![
        alone("given_stats", C::Given, S::Given),
        alone("given_stats_mean", C::Given, S::None),
        alone("given_stats_mean_group_std", C::Given, S::Group),
        alone("given_stats_mean_loo_std", C::Given, S::LeaveOneOut),
        alone("given_stats_mean_batch_std", C::Given, S::Batch),
        alone("given_stats_mean_abs_max", C::Given, S::AbsMax),
        alone("given_stats_mean_nonzero_share", C::Given, S::NonzeroShare),
        alone("given_stats_mean_divided_by_mean", C::Given, S::Mean),
        alone("given_std_alone", C::None, S::Given),
        alone("given_std_group_mean", C::Group, S::Given),
        alone("given_std_loo_mean", C::LeaveOneOut, S::Given),
        alone("given_std_batch_mean", C::Batch, S::Given),
        alone("given_std_runner_up", C::RunnerUp, S::Given),
        outcome("given_std_loo_rollout", C::LeaveOneOut, S::Given, |c, _| c.outcome.loo_unit = LooUnit::Rollout),
        mode("given_stats_add_var", EpsilonMode::AddVar, 0.25),
        mode("given_stats_floor_std", EpsilonMode::FloorStd, 0.5),
        mode("given_stats_floor_var", EpsilonMode::FloorVar, 0.25),
        mode("given_stats_epsilon_0", EpsilonMode::AddStd, 0.0),
        giving("given_std_and_baselines", Spec { baselines: true, ..rewards() }, |c| (c.outcome.center, c.outcome.scale) = (C::Given, S::Given), |_, b| {
            // Baselines stand before the means, which are not read.
            means(b).iter_mut().flatten().for_each(|x| *x = f64::NAN);
        }),
        outcome("given_stats_one_line", C::Given, S::Given, |_, b| one_line(b)),
        outcome("given_std_one_line", C::Group, S::Given, |_, b| one_line(b)),
        outcome("given_stats_in_f64", C::Given, S::Given, |_, b| {
            means(b).iter_mut().flatten().for_each(|x| *x += 1e-11);
            stds(b).iter_mut().flatten().for_each(|x| *x += 1e-11);
        }),
        outcome("given_stats_clips_and_place", C::Given, S::Given, |c, _| {
            (c.outcome.clip_value, c.outcome.clip_standardized, c.outcome.place) = (0.6, 0.8, Place::Last);
        }),
    ]
}

fn odd() -> Vec<Case> {
    let with = |name: &'static str, edit: fn(&mut Config, &mut Batch)| outcome(name, C::Given, S::Given, edit);
    let single = |name: &'static str, center: Center, singleton: Singleton| outcome(name, center, S::Given, move |c, _| c.outcome.singleton = singleton);
    vec![
        with("given_stats_std_0", |_, b| stds(b)[1][OUTCOME] = 0.0),
        with("given_stats_std_minus_0", |_, b| stds(b)[1][OUTCOME] = -0.0),
        with("given_stats_std_0_centered", |c, b| {
            c.outcome.zero_variance = ZeroVariance::Center;
            stds(b)[1][OUTCOME] = 0.0;
        }),
        outcome("given_std_0_group_mean_centered", C::Group, S::Given, |c, b| {
            c.outcome.zero_variance = ZeroVariance::Center;
            stds(b)[1][OUTCOME] = 0.0;
            stds(b)[3][OUTCOME] = 0.0;
        }),
        with("given_stats_std_nan", |_, b| stds(b)[3][OUTCOME] = f64::NAN),
        with("given_stats_std_inf", |_, b| stds(b)[3][OUTCOME] = f64::INFINITY),
        with("given_stats_std_negative", |_, b| stds(b)[1][OUTCOME] = -0.5),
        with("given_stats_std_negative_inf", |_, b| stds(b)[1][OUTCOME] = f64::NEG_INFINITY),
        with("given_stats_mean_nan", |_, b| means(b)[1][OUTCOME] = f64::NAN),
        with("given_stats_mean_inf", |_, b| means(b)[4][OUTCOME] = f64::NEG_INFINITY),
        with("given_stats_both_nan", |_, b| (means(b)[3][OUTCOME], stds(b)[3][OUTCOME]) = (f64::NAN, f64::NAN)),
        with("given_stats_one_line_nan", |_, b| {
            one_line(b);
            stds(b)[0][OUTCOME] = f64::NAN;
        }),
        with("given_stats_nan_whitened", |c, b| {
            c.whiten = Whiten::Tokens;
            stds(b)[3][OUTCOME] = f64::NAN;
        }),
        with("given_stats_nan_of_an_empty_group", |_, b| {
            b.rollouts.retain(|r| r.group != 3);
            stds(b)[3][OUTCOME] = f64::NAN;
        }),
        with("given_stats_nan_of_an_absent_group", |_, b| {
            b.rollouts.iter_mut().filter(|r| r.group == 3).for_each(|r| r.absent = true);
            stds(b)[3][OUTCOME] = f64::NAN;
        }),
        with("given_stats_nan_where_all_are_missing", |c, b| {
            c.outcome.missing = Missing::Exclude;
            b.rollouts.iter_mut().filter(|r| r.group == 3).for_each(|r| r.outcome = Some(f32::NAN));
            stds(b)[3][OUTCOME] = f64::NAN;
        }),
        // A group that a given number spoils, beside a stream of which the whole batch is the set.
        giving("given_stats_nan_beside_the_batch", Spec { others: 1, ..rewards() }, |c| {
            (c.outcome.center, c.outcome.scale) = (C::Given, S::Given);
            (c.others[0].center, c.others[0].scale) = (C::Batch, S::Batch);
        }, |_, b| stds(b)[3][OUTCOME] = f64::NAN),
        giving("given_mean_nan_under_the_batch_std", rewards(), |c| (c.outcome.center, c.outcome.scale) = (C::Given, S::Batch), |_, b| {
            means(b)[3][OUTCOME] = f64::NAN;
        }),
        // A centre and a scale that are given ask no set: no singleton.
        single("given_stats_refuse", C::Given, Singleton::Refuse),
        single("given_stats_passthrough", C::Given, Singleton::Passthrough),
        single("given_std_alone_refuse", C::None, Singleton::Refuse),
        single("given_std_alone_passthrough", C::None, Singleton::Passthrough),
        single("given_std_group_mean_refuse", C::Group, Singleton::Refuse),
        single("given_std_group_mean_passthrough", C::Group, Singleton::Passthrough),
        single("given_std_loo_passthrough", C::LeaveOneOut, Singleton::Passthrough),
        single("given_std_loo_refuse", C::LeaveOneOut, Singleton::Refuse),
        single("given_std_batch_passthrough", C::Batch, Singleton::Passthrough),
        single("given_std_runner_up_passthrough", C::RunnerUp, Singleton::Passthrough),
        outcome("given_std_of_one_batch_passthrough", C::Batch, S::Given, |c, b| {
            c.outcome.singleton = Singleton::Passthrough;
            b.rollouts.iter_mut().enumerate().for_each(|(i, r)| r.in_stats = i == 4);
        }),
        outcome("given_mean_group_std_passthrough", C::Given, S::Group, |c, _| c.outcome.singleton = Singleton::Passthrough),
        with("given_stats_equal", |_, b| equal(b)),
        outcome("given_std_equal_groups", C::Group, S::Given, |_, b| equal_groups(b)),
        outcome("given_mean_equal_groups_centered", C::Given, S::Group, |c, b| {
            c.outcome.zero_variance = ZeroVariance::Center;
            equal_groups(b);
        }),
        with("given_stats_aside", |_, b| aside(b)),
        with("given_stats_without_stats", |_, b| no_stats(b, |_| true)),
        outcome("given_std_group_without_stats", C::Group, S::Given, |_, b| no_stats(b, |g| g == 1)),
        outcome("given_std_alone_without_stats", C::None, S::Given, |_, b| no_stats(b, |g| g == 1)),
        with("given_stats_absent", |_, b| absent(b)),
        with("given_stats_hidden", |_, b| hidden(b, |i| i % 3 == 1)),
        with("given_stats_nan_exclude", |c, b| {
            c.outcome.missing = Missing::Exclude;
            nan_in_some(b);
        }),
        with("given_stats_nan_zero", |c, b| {
            c.outcome.missing = Missing::Zero;
            nan_in_some(b);
        }),
        with("given_stats_nan_error", |_, b| b.rollouts[3].outcome = Some(f32::NAN)),
        with("given_stats_no_rollout", |_, b| b.rollouts.clear()),
        giving("given_stats_of_no_group", rewards().sizes(&[]), |c| (c.outcome.center, c.outcome.scale) = (C::Given, S::Given), |_, _| {}),
        with("given_stats_tiny", |c, b| {
            c.outcome.epsilon = 1e-9;
            outcomes(b, |i| f32::from_bits(i as u32 % 5));
            stds(b).iter_mut().for_each(|line| line[OUTCOME] = 3e-45);
        }),
        with("given_stats_huge", |_, b| {
            outcomes(b, |i| (i as f32 % 7.0 - 3.0) * 1e30);
            stds(b).iter_mut().for_each(|line| line[OUTCOME] = 1e30);
            means(b).iter_mut().for_each(|line| line[OUTCOME] = -1e30);
        }),
        with("given_stats_beyond_f32", |_, b| {
            (stds(b)[1][OUTCOME], means(b)[3][OUTCOME], means(b)[4][OUTCOME]) = (3.5e38, -3.5e38, 3.4e38);
            stds(b)[4][OUTCOME] = 2.0;
        }),
        // The smallest deviation, and one below it, which counts as 0.
        with("given_stats_least", |c, b| {
            c.outcome.epsilon = 1e-9;
            (stds(b)[1][OUTCOME], stds(b)[3][OUTCOME]) = (2f64.powi(-149), 2f64.powi(-150));
        }),
    ]
}

/// Every kind of row.
fn rows() -> Vec<Case> {
    let csr = || Spec { others: 2, interleave: true, empty: 0.1, ..Spec::of(Csr).continuous().sizes(&UNEVEN) };
    let nothing = |_: &mut Config, _: &mut Batch| {};
    vec![
        giving("given_stats_all_rows", csr(), whole, nothing),
        giving("given_stats_all_rows_holes", csr().holes(), whole, nothing),
        giving("given_stats_all_rows_one_line", csr(), whole, |_, b| one_line(b)),
        giving("given_stats_format", csr(), |c| (c.format.center, c.format.scale) = (C::Given, S::Given), nothing),
        giving("given_stats_format_bad", csr(), |c| (c.format.center, c.format.scale) = (C::Given, S::Given), |_, b| stds(b)[1][5] = -1.0),
        giving("given_stats_extra", csr(), |c| (c.others[1].center, c.others[1].scale) = (C::Given, S::Given), nothing),
        giving("given_stats_extra_bad_mean", csr(), |c| (c.others[1].center, c.others[1].scale) = (C::Given, S::Given), |_, b| means(b)[1][7] = f64::INFINITY),
        // A row whose stream the batch does not give asks for nothing.
        giving("given_stats_of_no_outcome", Spec { outcome: false, ..csr() }, whole, |_, b| {
            (means(b)[1][OUTCOME], stds(b)[1][OUTCOME]) = (f64::NAN, f64::NAN);
        }),
        giving("given_stats_of_no_extra", Spec { others: 1, ..csr() }, whole, |c, b| {
            b.rollouts.iter_mut().for_each(|r| r.others.clear());
            c.others[0].weight = 2.0;
            (means(b)[1][6], stds(b)[1][6]) = (f64::NAN, f64::NAN);
        }),
        // Baselines are the outcome's alone.
        giving("given_stats_beside_baselines", Spec { baselines: true, ..csr() }, whole, |_, b| means(b).iter_mut().for_each(|line| line[OUTCOME] = f64::NAN)),
        giving("given_stats_process", csr(), process(C::Given, S::Given), nothing),
        giving("given_mean_process", csr(), process(C::Given, S::None), nothing),
        giving("given_mean_process_group_std", csr(), process(C::Given, S::Group), nothing),
        giving("given_mean_process_loo_std", csr(), process(C::Given, S::LeaveOneOut), nothing),
        giving("given_mean_process_batch_std", csr(), process(C::Given, S::Batch), nothing),
        giving("given_mean_process_abs_max", csr(), process(C::Given, S::AbsMax), nothing),
        giving("given_std_process", csr(), process(C::Group, S::Given), nothing),
        giving("given_std_process_loo", csr(), process(C::LeaveOneOut, S::Given), nothing),
        giving("given_std_process_alone", csr(), process(C::None, S::Given), nothing),
        giving("given_std_process_batch", csr(), process(C::Batch, S::Given), nothing),
        giving("given_stats_process_bad", csr(), process(C::Given, S::Given), |_, b| stds(b)[4][0] = f64::NAN),
        giving("given_stats_process_std_0", csr(), process(C::Given, S::Given), |c, b| {
            c.process[0].zero_variance = ZeroVariance::Center;
            stds(b)[1][0] = 0.0;
        }),
        giving("given_stats_second_process_stream", csr().streams(3), |c| (c.process[1].center, c.process[1].scale) = (C::Given, S::Given), nothing),
        giving("given_stats_process_passthrough", csr(), process(C::Group, S::Given), |c, _| c.set_singleton_all(Singleton::Passthrough)),
        giving("given_stats_process_tokens", csr().holes(), whole, |c, _| c.pool = Pool::Tokens),
        giving("given_stats_process_pool_rollouts", csr().holes(), whole, |c, _| c.pool = Pool::Rollouts),
        giving("given_std_process_pool_rollouts", csr().holes(), process(C::Group, S::Given), |c, _| c.pool = Pool::Rollouts),
        giving("given_stats_chunk_mean", Spec { others: 2, ..Spec::of(DenseEnds).continuous() }, whole, |c, _| {
            (c.chunk, c.chunk_value) = (Chunk::Step, ChunkValue::Mean);
        }),
        giving("given_stats_dense", Spec::of(Dense).holes(), whole, nothing),
        giving("given_stats_sparse", Spec::of(Sparse).holes(), whole, nothing),
        giving("given_stats_opd_steps", Spec::of(OpdSteps).holes(), whole, nothing),
        giving("given_stats_reward_sum", csr(), |c| {
            whole(c);
            c.fusion = Fusion::RewardSum;
        }, |_, b| {
            // The sum's row alone is read.
            stds(b).iter_mut().for_each(|line| line[5] = -1.0);
            means(b).iter_mut().for_each(|line| line[6] = f64::NAN);
        }),
        giving("given_stats_reward_sum_without_outcome", Spec { outcome: false, ..csr() }, |c| {
            whole(c);
            c.fusion = Fusion::RewardSum;
        }, nothing),
        giving("given_stats_reward_sum_bad", csr(), |c| {
            whole(c);
            c.fusion = Fusion::RewardSum;
        }, |_, b| stds(b)[3][OUTCOME] = f64::NAN),
        giving("given_stats_count_by_step", csr(), |c| {
            (c.outcome.center, c.outcome.scale, c.outcome.count_by) = (C::Group, S::Given, CountBy::Step);
            (c.others[0].center, c.others[0].scale, c.others[0].count_by) = (C::RunnerUp, S::Given, CountBy::Step);
            (c.others[1].center, c.others[1].scale, c.others[1].count_by) = (C::Given, S::Group, CountBy::Step);
        }, nothing),
        giving("given_stats_divide_scope_process", csr(), whole, |c, _| c.divide_scope = DivideScope::Process),
        giving("given_stats_gae", Spec { values: true, ..csr() }, whole, |c, _| (c.credit, c.k) = (Credit::Gae, 0.0)),
        giving("given_stats_scan_mask_none", Spec::of(Dense).gaps(), whole, |c, _| {
            (c.chunk, c.k, c.scan_mask) = (Chunk::Token, 0.0, ScanMask::None);
        }),
        giving("given_stats_whitened", csr(), whole, |c, _| c.whiten = Whiten::Rollouts),
        giving("given_stats_missing_steps", csr(), whole, |c, b| {
            c.process[0].missing = Missing::Exclude;
            b.rollouts.iter_mut().for_each(|r| r.step_scores[0].iter_mut().step_by(3).for_each(|s| *s = f32::NAN));
        }),
    ]
}

/// The detector of kl compares averages of the standardised signal.
fn kl() -> Vec<Case> {
    let spec = || Spec::of(KlSignal).holes().sizes(&UNEVEN);
    let loose = |center: Center, scale: Scale| {
        move |c: &mut Config| {
            process(center, scale)(c);
            c.eta = 0.6;
        }
    };
    let nothing = |_: &mut Config, _: &mut Batch| {};
    vec![
        giving("given_stats_kl", spec(), process(C::Given, S::Given), nothing),
        giving("given_stats_kl_continuous", Spec::of(KlSignal).continuous(), loose(C::Given, S::Given), nothing),
        giving("given_std_kl_continuous", Spec::of(KlSignal).continuous(), loose(C::Group, S::Given), nothing),
        giving("given_std_kl_alone", Spec::of(KlOpd).continuous(), loose(C::None, S::Given), nothing),
        giving("given_std_kl_loo", Spec::of(KlSignal).continuous(), loose(C::LeaveOneOut, S::Given), nothing),
        giving("given_std_kl_batch", Spec::of(KlSignal).continuous(), loose(C::Batch, S::Given), nothing),
        giving("given_mean_kl", Spec::of(KlSignal).continuous(), loose(C::Given, S::None), nothing),
        giving("given_mean_kl_group_std", Spec::of(KlSignal).continuous(), loose(C::Given, S::Group), nothing),
        giving("given_mean_kl_batch_std", Spec::of(KlSignal).continuous(), loose(C::Given, S::Batch), nothing),
        giving("given_mean_kl_abs_max", Spec::of(KlSignal).continuous(), loose(C::Given, S::AbsMax), nothing),
        giving("given_stats_kl_std_0", spec(), process(C::Given, S::Given), |_, b| stds(b)[1][0] = 0.0),
        giving("given_stats_kl_std_0_centered", spec(), process(C::Given, S::Given), |c, b| {
            c.process[0].zero_variance = ZeroVariance::Center;
            stds(b)[1][0] = 0.0;
        }),
        giving("given_stats_kl_bad", spec(), process(C::Given, S::Given), |_, b| stds(b)[1][0] = f64::NAN),
        giving("given_stats_kl_negative", spec(), process(C::Group, S::Given), |_, b| stds(b)[1][0] = -1.0),
        giving("given_std_kl_average_over_group", Spec::of(KlSignal).continuous(), loose(C::Group, S::Given), |c, _| c.average_over = AverageOver::Group),
        giving("given_std_kl_alone_average_over_group", Spec::of(KlSignal).continuous(), loose(C::None, S::Given), |c, _| c.average_over = AverageOver::Group),
        giving("given_stats_kl_anchored", Spec::of(KlSignal).continuous(), loose(C::Given, S::Given), |c, _| c.boundary_rule = BoundaryRule::Anchored),
        giving("given_stats_kl_token", Spec::of(KlOpd).holes(), whole, |c, _| c.chunk = Chunk::Token),
        giving("given_stats_kl_all_rows", Spec { others: 1, ..Spec::of(KlGOpd).holes() }, whole, nothing),
        giving("given_stats_kl_aside", spec(), process(C::Given, S::Given), |_, b| b.rollouts.iter_mut().step_by(3).for_each(|r| r.in_stats = false)),
        giving("given_stats_kl_without_stats", spec(), process(C::Given, S::Given), |_, b| no_stats(b, |g| g == 1)),
    ]
}
