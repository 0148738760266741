//! `count_by = step`: a rollout's value counts once a step in its stream's set.
use super::build::*;
use super::sets::{absent, aside, equal, equal_groups, hidden, nan_in_some, no_stats, outcomes, UNEVEN};
use super::{case, Case};
use crate::oracle::*;
use Center as C;
use Input::*;
use Scale as S;

/// CSR steps beside an outcome; some rollouts have no token or no step.
fn uneven() -> Spec {
    Spec { format: false, ok: false, empty: 0.2, ..Spec::of(Csr).continuous().sizes(&UNEVEN) }
}

fn by_step(name: &'static str, center: Center, scale: Scale, edit: impl FnOnce(&mut Config, &mut Batch)) -> Case {
    case(name, Spec { baselines: center == C::Given, ..uneven() }, |c, b| {
        (c.outcome.center, c.outcome.scale, c.outcome.count_by) = (center, scale, CountBy::Step);
        edit(c, b);
    })
}

/// Every per-rollout stream.
fn all(c: &mut Config, _: &mut Batch) {
    for row in [&mut c.outcome, &mut c.format].into_iter().chain(&mut c.others) {
        row.count_by = CountBy::Step;
    }
}

/// Rollout i of each group of the batch keeps `keep(i)` steps.
fn steps(b: &mut Batch, keep: impl Fn(usize) -> usize) {
    for (i, r) in b.rollouts.iter_mut().enumerate() {
        r.step_ends.iter_mut().for_each(|ends| ends.truncate(keep(i)));
        r.step_scores.iter_mut().for_each(|s| s.truncate(keep(i)));
    }
}

pub fn cases() -> Vec<Case> {
    let mut table = together();
    table.extend(forms());
    table.extend(odd());
    table
}

fn together() -> Vec<Case> {
    vec![
        by_step("count_by_step", C::Group, S::Group, |_, _| {}),
        by_step("count_by_step_mean", C::Group, S::None, |_, _| {}),
        by_step("count_by_step_std_alone", C::None, S::Group, |_, _| {}),
        by_step("count_by_step_none", C::None, S::None, |_, _| {}),
        by_step("count_by_step_abs_max", C::None, S::AbsMax, |_, _| {}),
        by_step("count_by_step_mean_abs_max", C::Group, S::AbsMax, |_, _| {}),
        by_step("count_by_step_divided_by_mean", C::Group, S::Mean, |_, _| {}),
        by_step("count_by_step_mean_alone", C::None, S::Mean, |_, b| outcomes(b, |i| (i % 3) as f32)),
        by_step("count_by_step_runner_up", C::RunnerUp, S::None, |_, _| {}),
        by_step("count_by_step_runner_up_of_one_step", C::RunnerUp, S::Group, |_, b| steps(b, |i| i % 3)),
        by_step("count_by_step_runner_up_without_steps", C::RunnerUp, S::None, |_, b| {
            outcomes(b, |i| if i % 4 == 1 { 2.0 } else { i as f32 * 0.01 });
            steps(b, |i| (i + 1) % 2);
        }),
        by_step("count_by_step_runner_up_abs_max", C::RunnerUp, S::AbsMax, |_, b| steps(b, |i| i % 3)),
        by_step("count_by_step_runner_up_mean", C::RunnerUp, S::Mean, |_, b| steps(b, |i| i % 3)),
        by_step("count_by_step_given", C::Given, S::None, |_, _| {}),
        by_step("count_by_step_given_std", C::Given, S::Group, |_, _| {}),
        by_step("count_by_step_given_abs_max", C::Given, S::AbsMax, |_, _| {}),
        by_step("count_by_step_given_mean", C::Given, S::Mean, |_, _| {}),
        by_step("count_by_step_ddof_0_floor", C::Group, S::Group, |c, _| {
            (c.outcome.ddof, c.outcome.epsilon, c.outcome.epsilon_mode) = (0, 0.9, EpsilonMode::FloorVar);
        }),
        by_step("count_by_step_clips_and_place", C::Group, S::Group, |c, _| {
            (c.outcome.clip_value, c.outcome.clip_standardized, c.outcome.place) = (0.6, 0.8, Place::Last);
        }),
        case("count_by_step_all_streams", Spec { others: 2, interleave: true, ..uneven() }, all),
        case("count_by_step_all_streams_holes", Spec { others: 2, format: true, ok: true, begins: true, ..uneven() }.holes(), all),
        case("count_by_step_extra_alone", Spec { others: 2, ..uneven() }, |c, _| c.others[1].count_by = CountBy::Step),
        case("count_by_step_format_alone", Spec { format: true, ok: true, ..uneven() }, |c, _| c.format.count_by = CountBy::Step),
        case("count_by_step_reward_sum", Spec { format: true, others: 1, ..uneven() }, |c, _| {
            (c.fusion, c.outcome.count_by) = (Fusion::RewardSum, CountBy::Step);
        }),
        case("count_by_step_of_others_in_a_sum", Spec { format: true, others: 1, ..uneven() }, |c, _| {
            (c.fusion, c.format.count_by, c.others[0].count_by) = (Fusion::RewardSum, CountBy::Step, CountBy::Step);
        }),
        case("count_by_step_kl_in_outcome", Spec { reference: true, ..uneven() }, |c, _| {
            (c.kl_in_reward, c.kl_coef, c.outcome.count_by) = (KlInReward::K1, 0.1, CountBy::Step);
        }),
        case("count_by_step_whitened", Spec { others: 1, ..uneven() }, |c, b| {
            all(c, b);
            c.whiten = Whiten::Rollouts;
        }),
        case("count_by_step_gae", Spec { values: true, bootstrap: true, ..uneven() }, |c, b| {
            all(c, b);
            (c.credit, c.k, c.gamma, c.lam) = (Credit::Gae, 0.0, 0.99, 0.95);
        }),
        case("count_by_step_divide_scope_process", Spec { format: true, ok: true, ..uneven() }, |c, b| {
            all(c, b);
            c.divide_scope = DivideScope::Process;
        }),
    ]
}

/// Steps in each form in which they come, and each pool.
fn forms() -> Vec<Case> {
    let of = |input: Input| Spec { others: 1, empty: 0.15, ..Spec::of(input).continuous().sizes(&UNEVEN) };
    let pool = |pool: Pool| {
        move |c: &mut Config, b: &mut Batch| {
            all(c, b);
            c.pool = pool;
        }
    };
    vec![
        case("count_by_step_dense", of(Dense), all),
        case("count_by_step_dense_holes", of(Dense).holes(), all),
        case("count_by_step_dense_bridged", of(Dense).holes(), |c, b| {
            all(c, b);
            (c.bridge_scope_gaps, c.eta) = (true, 0.4);
        }),
        case("count_by_step_dense_ends", of(DenseEnds).holes(), all),
        case("count_by_step_sparse", of(Sparse).holes(), all),
        case("count_by_step_opd_steps", Spec { others: 0, ..of(OpdSteps).holes() }, all),
        case("count_by_step_g_opd_steps", Spec { others: 0, ..of(GOpdSteps) }, all),
        case("count_by_step_unscored", Spec { unscored: true, ..of(Csr) }, |c, b| {
            all(c, b);
            c.step_value = StepValue::ReturnToGo;
        }),
        case("count_by_step_three_streams", of(Csr).streams(3).holes(), all),
        case("count_by_step_chunk_none", of(Csr).holes(), |c, b| {
            all(c, b);
            c.chunk = Chunk::None;
        }),
        case("count_by_step_merged_chunks", Spec { quantised: true, ..of(Csr) }, |c, b| {
            all(c, b);
            c.merge_equal_steps = true;
        }),
        case("count_by_step_pool_tokens", of(Csr).holes(), pool(Pool::Tokens)),
        case("count_by_step_pool_tokens_dense", of(Dense).holes(), pool(Pool::Tokens)),
        case("count_by_step_pool_rollouts", of(Csr).holes(), pool(Pool::Rollouts)),
        case("count_by_step_pool_rollouts_sparse", of(Sparse).holes(), pool(Pool::Rollouts)),
        case("count_by_step_step_sets", Spec { step_group: true, ..of(Csr) }, |c, b| {
            all(c, b);
            c.step_sets = StepSets::StepGroup;
        }),
        case("count_by_step_missing_steps", of(Csr), |c, b| {
            all(c, b);
            c.process[0].missing = Missing::Exclude;
            b.rollouts.iter_mut().for_each(|r| r.step_scores[0].iter_mut().step_by(3).for_each(|s| *s = f32::NAN));
        }),
        case("count_by_step_missing_steps_are_zero", of(Csr), |c, b| {
            all(c, b);
            c.process[0].missing = Missing::Zero;
            b.rollouts.iter_mut().for_each(|r| r.step_scores[0].iter_mut().step_by(3).for_each(|s| *s = f32::NAN));
        }),
        case("count_by_step_missing_in_a_further_stream", of(Csr).streams(2), |c, b| {
            all(c, b);
            c.process[1].missing = Missing::Exclude;
            b.rollouts.iter_mut().for_each(|r| r.step_scores[1].iter_mut().step_by(2).for_each(|s| *s = f32::NAN));
        }),
        case("count_by_step_missing_tokens", of(Dense), |c, b| {
            all(c, b);
            c.process[0].missing = Missing::Exclude;
            b.rollouts.iter_mut().for_each(|r| r.signal[0].iter_mut().step_by(3).for_each(|s| *s = f32::NAN));
        }),
    ]
}

/// Sets of no step, of one, of equal values; rollouts and values that are not there.
fn odd() -> Vec<Case> {
    let with = |name: &'static str, edit: fn(&mut Config, &mut Batch)| by_step(name, C::Group, S::Group, edit);
    let one = |name: &'static str, center: Center, scale: Scale, singleton: Singleton| {
        by_step(name, center, scale, move |c, b| {
            c.outcome.singleton = singleton;
            let firsts: Vec<usize> = (0..5).map(|g| b.rollouts.iter().position(|r| r.group == g && r.step_ends.as_ref().is_some_and(|e| e.iter().any(|e| *e > 0))).unwrap_or(0)).collect();
            steps(b, |i| if firsts.contains(&i) { 64 } else { 0 });
            for i in firsts {
                let r = &mut b.rollouts[i];
                (r.step_ends, r.step_scores) = (Some(vec![r.len as i64]), vec![vec![0.5]]);
            }
        })
    };
    vec![
        with("count_by_step_no_steps", |_, b| steps(b, |_| 0)),
        with("count_by_step_no_steps_passthrough", |c, b| {
            c.outcome.singleton = Singleton::Passthrough;
            steps(b, |_| 0);
        }),
        by_step("count_by_step_no_steps_none", C::None, S::None, |_, b| steps(b, |_| 0)),
        by_step("count_by_step_no_steps_given", C::Given, S::None, |_, b| steps(b, |_| 0)),
        by_step("count_by_step_no_steps_runner_up", C::RunnerUp, S::None, |_, b| steps(b, |_| 0)),
        with("count_by_step_some_without_steps", |_, b| steps(b, |i| i % 4)),
        one("count_by_step_one_step", C::Group, S::Group, Singleton::Zero),
        one("count_by_step_one_step_passthrough", C::Group, S::Group, Singleton::Passthrough),
        one("count_by_step_one_step_refuse", C::Group, S::None, Singleton::Refuse),
        one("count_by_step_one_step_runner_up", C::RunnerUp, S::None, Singleton::Passthrough),
        one("count_by_step_one_step_given_refuse", C::Given, S::None, Singleton::Refuse),
        one("count_by_step_one_step_given_std_refuse", C::Given, S::Group, Singleton::Refuse),
        one("count_by_step_one_step_none", C::None, S::None, Singleton::Zero),
        // One rollout of several steps is no singleton: its values are equal.
        by_step("count_by_step_one_rollout_refuse", C::Group, S::Group, |c, b| {
            c.outcome.singleton = Singleton::Refuse;
            b.rollouts.retain(|r| r.group != 0);
            let with_steps = b.rollouts.iter().position(|r| r.group == 1 && r.step_ends.as_ref().is_some_and(|e| e.len() > 2));
            b.rollouts.iter_mut().enumerate().for_each(|(i, r)| r.in_stats = r.group != 1 || Some(i) == with_steps);
        }),
        with("count_by_step_equal", |_, b| equal(b)),
        with("count_by_step_equal_groups_centered", |c, b| {
            c.outcome.zero_variance = ZeroVariance::Center;
            equal_groups(b);
        }),
        // Those with steps are equal, the others differ.
        with("count_by_step_equal_where_steps_are", |_, b| {
            b.rollouts.iter_mut().filter(|r| r.step_ends.as_ref().is_some_and(|e| !e.is_empty())).for_each(|r| r.outcome = Some(0.98));
        }),
        with("count_by_step_aside", |_, b| aside(b)),
        with("count_by_step_without_stats", |_, b| no_stats(b, |g| g == 1)),
        with("count_by_step_absent", |_, b| absent(b)),
        with("count_by_step_hidden", |_, b| hidden(b, |i| i % 3 == 1)),
        with("count_by_step_all_hidden", |_, b| hidden(b, |_| true)),
        with("count_by_step_nan_exclude", |c, b| {
            c.outcome.missing = Missing::Exclude;
            nan_in_some(b);
        }),
        with("count_by_step_nan_zero", |c, b| {
            c.outcome.missing = Missing::Zero;
            nan_in_some(b);
        }),
        with("count_by_step_nan_error", |_, b| b.rollouts[3].outcome = Some(f32::NAN)),
        with("count_by_step_no_rollout", |_, b| b.rollouts.clear()),
        with("count_by_step_do_not_fit", |_, b| {
            if let Some(end) = b.rollouts[4].step_ends.as_mut().and_then(|ends| ends.last_mut()) {
                *end += 99;
            }
        }),
        case("count_by_step_no_outcome", Spec { outcome: false, others: 1, ..uneven() }, all),
        with("count_by_step_outlier_1e4", |_, b| b.rollouts[2].outcome = Some(1e4)),
        with("count_by_step_huge", |_, b| outcomes(b, |i| (i as f32 % 7.0 - 3.0) * 1e30)),
        with("count_by_step_denormals", |_, b| outcomes(b, |i| f32::from_bits(i as u32 % 5))),
    ]
}
