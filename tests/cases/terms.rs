//! Terms of rewards (rules 47, 52 to 55): shares and means, zero variance, clips, places, sums.
use super::build::*;
use super::sets::*;
use super::{case, Case};
use crate::oracle::*;
use Input::*;

pub fn cases() -> Vec<Case> {
    let mut table = shares_and_means();
    table.extend(zero_variance());
    table.extend(clips());
    table.extend(places());
    table.extend(sums());
    table
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
        case("reward_sum_inf", spec(Nothing), move |c, b| {
            sum(c);
            (b.rollouts[4].others[1], b.rollouts[9].format, b.rollouts[12].outcome) = (f32::INFINITY, Some(f32::NEG_INFINITY), Some(f32::INFINITY));
        }),
        case("reward_sum_inf_batch", spec(Nothing), move |c, b| {
            sum(c);
            (c.outcome.center, c.outcome.scale) = (Center::Batch, Scale::Batch);
            b.rollouts[4].others[1] = f32::INFINITY;
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
