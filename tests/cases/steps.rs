//! Segments, sets of rollouts, steps whose value is a return, and steps of equal state (rules 56, 57, 64, 65).
use super::build::*;
use super::{case, Case};
use crate::oracle::*;
use Input::*;

pub fn cases() -> Vec<Case> {
    let mut table = segments();
    table.extend(pool_rollouts());
    table.extend(step_values());
    table.extend(step_sets());
    table
}

fn segments() -> Vec<Case> {
    let by = |c: &mut Config, _: &mut Batch| c.chunk = Chunk::Segment;
    vec![
        case("segments", Spec::of(Csr).holes(), by),
        case("segments_nothing", Spec::of(Nothing).holes(), by),
        case("segments_kl", Spec::of(KlSignal).holes(), by),
        case("segments_begins", Spec { begins: true, ..Spec::of(Csr).holes() }, by),
        case("segments_without_gaps", Spec::of(Csr), by),
        case("segments_do_not_bridge", Spec::of(Dense).holes(), |c, _| (c.chunk, c.bridge_scope_gaps) = (Chunk::Segment, true)),
        case("segments_mean_gamma", Spec::of(Dense).holes().continuous(), |c, _| {
            (c.chunk, c.chunk_value, c.gamma, c.k) = (Chunk::Segment, ChunkValue::Mean, 0.9, 1.0);
        }),
        case("segments_missing_values_cut", Spec::of(KlSignal), |c, b| {
            (c.chunk, c.process[0].missing) = (Chunk::Segment, Missing::Exclude);
            b.rollouts.iter_mut().for_each(|r| r.signal[0].iter_mut().step_by(4).for_each(|s| *s = f32::NAN));
        }),
    ]
}

fn pool_rollouts() -> Vec<Case> {
    let pool = |c: &mut Config, _: &mut Batch| c.pool = Pool::Rollouts;
    let loo = |scale: Scale, unit: LooUnit| {
        move |c: &mut Config, _: &mut Batch| {
            c.pool = Pool::Rollouts;
            for row in &mut c.process {
                (row.center, row.scale, row.loo_unit) = (Center::LeaveOneOut, scale, unit);
            }
        }
    };
    vec![
        case("pool_rollouts", Spec::of(Csr), pool),
        case("pool_rollouts_continuous_holes", Spec::of(Csr).holes().continuous(), pool),
        case("pool_rollouts_uneven", Spec { interleave: true, ..Spec::of(Csr).continuous().sizes(&[1, 7, 2, 5, 3]) }, pool),
        case("pool_rollouts_passthrough", Spec::of(Csr).continuous().sizes(&[1, 7, 2]), |c, _| {
            c.pool = Pool::Rollouts;
            c.set_singleton_all(Singleton::Passthrough);
        }),
        case("pool_rollouts_refuse", Spec::of(Csr).continuous().sizes(&[1, 4]), |c, _| {
            c.pool = Pool::Rollouts;
            c.set_singleton_all(Singleton::Refuse);
        }),
        case("pool_rollouts_dense", Spec::of(Dense).holes(), pool),
        case("pool_rollouts_dense_ends", Spec::of(DenseEnds).continuous(), pool),
        case("pool_rollouts_sparse", Spec::of(Sparse).continuous(), pool),
        case("pool_rollouts_opd_steps", Spec::of(OpdSteps).continuous(), pool),
        case("pool_rollouts_kl_token", Spec::of(KlSignal).holes(), |c, _| (c.pool, c.chunk) = (Pool::Rollouts, Chunk::Token)),
        case("pool_rollouts_kl_opd_none", Spec::of(KlOpd).continuous(), |c, _| (c.pool, c.chunk) = (Pool::Rollouts, Chunk::None)),
        case("pool_rollouts_three_streams", Spec::of(Csr).streams(3).continuous(), pool),
        case("pool_rollouts_loo", Spec::of(Csr).continuous(), loo(Scale::None, LooUnit::Element)),
        case("pool_rollouts_loo_ties", Spec::of(Csr), loo(Scale::None, LooUnit::Element)),
        case("pool_rollouts_loo_group_std", Spec::of(Csr).continuous(), loo(Scale::Group, LooUnit::Element)),
        case("pool_rollouts_loo_rollout", Spec::of(Csr).continuous(), loo(Scale::None, LooUnit::Rollout)),
        case("pool_rollouts_loo_rollout_std", Spec::of(Csr).continuous(), loo(Scale::LeaveOneOut, LooUnit::Rollout)),
        case("pool_rollouts_abs_max", Spec::of(Csr).continuous(), |c, _| {
            c.pool = Pool::Rollouts;
            c.set_standardize_process(Standardize::AbsMax);
        }),
        case("pool_rollouts_batch", Spec::of(Csr).continuous().sizes(&[1, 5, 3]), |c, _| {
            c.pool = Pool::Rollouts;
            (c.process[0].center, c.process[0].scale) = (Center::Batch, Scale::Batch);
        }),
        case("pool_rollouts_equal", Spec::of(Csr), |c, b| {
            (c.pool, c.process[0].zero_variance) = (Pool::Rollouts, ZeroVariance::Center);
            b.rollouts.iter_mut().for_each(|r| r.step_scores[0].fill(0.98));
        }),
        case("pool_rollouts_mean_is_equal", Spec::of(Csr), |c, b| {
            c.pool = Pool::Rollouts;
            for r in &mut b.rollouts {
                (r.len, r.step_ends, r.step_scores) = (4, Some(vec![1, 4]), vec![vec![1.0, -0.5]]);
            }
        }),
        case("pool_rollouts_no_steps", Spec { empty: 0.5, ..Spec::of(Csr) }, pool),
        case("pool_rollouts_aside_and_absent", Spec::of(Csr).continuous(), |c, b| {
            c.pool = Pool::Rollouts;
            b.rollouts.iter_mut().step_by(3).for_each(|r| r.in_stats = false);
            b.rollouts.iter_mut().step_by(4).for_each(|r| r.absent = true);
        }),
        case("pool_rollouts_missing_exclude", Spec::of(Csr).streams(2), |c, b| {
            c.pool = Pool::Rollouts;
            c.set_missing_all(Missing::Exclude);
            for (i, r) in b.rollouts.iter_mut().enumerate() {
                r.step_scores[0].iter_mut().step_by(3).for_each(|s| *s = f32::NAN);
                r.step_scores[1].iter_mut().filter(|_| i % 2 == 0).for_each(|s| *s = f32::NAN);
            }
        }),
        case("pool_rollouts_missing_zero", Spec::of(KlSignal), |c, b| {
            (c.pool, c.chunk, c.process[0].missing) = (Pool::Rollouts, Chunk::Token, Missing::Zero);
            b.rollouts.iter_mut().for_each(|r| r.signal[0].iter_mut().step_by(3).for_each(|s| *s = f32::NAN));
        }),
        case("pool_rollouts_missing_error", Spec::of(Csr), |c, b| {
            c.pool = Pool::Rollouts;
            b.rollouts[2].step_scores[0].fill(f32::NAN);
        }),
        case("pool_rollouts_outlier", Spec::of(Csr).continuous(), |c, b| {
            c.pool = Pool::Rollouts;
            b.rollouts[0].step_scores[0].iter_mut().take(1).for_each(|s| *s = 1e6);
        }),
        case("pool_rollouts_chunk_mean", Spec::of(Dense).continuous(), |c, _| {
            (c.pool, c.chunk, c.chunk_value) = (Pool::Rollouts, Chunk::None, ChunkValue::Mean);
        }),
    ]
}

fn step_values() -> Vec<Case> {
    let to_go = |c: &mut Config, _: &mut Batch| (c.step_value, c.step_gamma) = (StepValue::ReturnToGo, 0.9);
    let unscored = || Spec { unscored: true, ..Spec::of(Csr).continuous() };
    vec![
        case("step_value", Spec::of(Csr).continuous(), to_go),
        case("step_value_gamma_1", Spec::of(Csr), |c, _| c.step_value = StepValue::ReturnToGo),
        case("step_value_gamma_0", Spec::of(Csr), |c, _| (c.step_value, c.step_gamma) = (StepValue::ReturnToGo, 0.0)),
        case("step_value_holes", Spec::of(Csr).holes().continuous(), to_go),
        case("step_value_begins", Spec { begins: true, ..Spec::of(Csr).holes() }, to_go),
        case("step_value_two_streams", Spec::of(Csr).streams(2).continuous(), to_go),
        case("step_value_opd", Spec::of(OpdSteps).holes(), to_go),
        case("step_value_pool_tokens", Spec::of(Csr).continuous(), move |c, b| {
            to_go(c, b);
            c.pool = Pool::Tokens;
        }),
        case("step_value_pool_rollouts", Spec::of(Csr).continuous(), move |c, b| {
            to_go(c, b);
            c.pool = Pool::Rollouts;
        }),
        case("step_value_pooled", Spec::of(Csr).continuous(), move |c, b| {
            to_go(c, b);
            c.fusion = Fusion::Pooled;
        }),
        case("step_value_reward_shaping", Spec::of(Csr).continuous(), move |c, b| {
            to_go(c, b);
            c.fusion = Fusion::RewardShaping;
        }),
        case("step_value_broadcast_step", Spec::of(Csr).continuous(), move |c, b| {
            to_go(c, b);
            (c.credit, c.chunk, c.k) = (Credit::Broadcast, Chunk::Step, 0.0);
        }),
        case("step_value_missing_exclude", Spec::of(Csr).streams(2), move |c, b| {
            to_go(c, b);
            c.set_missing_all(Missing::Exclude);
            for r in &mut b.rollouts {
                r.step_scores[0].iter_mut().step_by(3).for_each(|s| *s = f32::NAN);
                r.step_scores[1].iter_mut().skip(1).step_by(2).for_each(|s| *s = f32::NAN);
            }
        }),
        case("step_value_missing_zero", Spec::of(Csr), move |c, b| {
            to_go(c, b);
            c.set_missing_all(Missing::Zero);
            b.rollouts.iter_mut().for_each(|r| r.step_scores[0].iter_mut().step_by(2).for_each(|s| *s = f32::NAN));
        }),
        case("step_value_missing_error", Spec::of(Csr), move |c, b| {
            to_go(c, b);
            b.rollouts[1].step_scores[0].fill(f32::NAN);
        }),
        case("step_value_no_steps", Spec { empty: 0.5, ..Spec::of(Csr) }, to_go),
        case("step_value_unscored", unscored(), to_go),
        case("step_value_unscored_holes", unscored().holes(), to_go),
        case("step_value_unscored_no_steps", Spec { empty: 0.4, ..unscored() }, to_go),
        case("step_value_unscored_missing_exclude", unscored(), move |c, b| {
            to_go(c, b);
            c.outcome.missing = Missing::Exclude;
            b.rollouts.iter_mut().step_by(3).for_each(|r| r.outcome = Some(f32::NAN));
        }),
        case("step_value_unscored_missing_zero", unscored(), move |c, b| {
            to_go(c, b);
            c.outcome.missing = Missing::Zero;
            b.rollouts.iter_mut().step_by(3).for_each(|r| r.outcome = Some(f32::NAN));
        }),
        case("step_value_unscored_missing_error", unscored(), move |c, b| {
            to_go(c, b);
            b.rollouts[6].outcome = Some(f32::NAN);
        }),
        case("step_value_unscored_clipped", unscored(), move |c, b| {
            to_go(c, b);
            c.outcome.clip_value = 0.5;
        }),
    ]
}

/// GiGPO: returns of steps in sets of equal state.
fn step_sets() -> Vec<Case> {
    let sets = |c: &mut Config, _: &mut Batch| c.step_sets = StepSets::StepGroup;
    let spec = || Spec { step_group: true, ..Spec::of(Csr).continuous() };
    let numbered = |b: &mut Batch, of: fn(usize, usize) -> i64| {
        for (i, r) in b.rollouts.iter_mut().enumerate() {
            r.step_group.iter_mut().flatten().enumerate().for_each(|(j, n)| *n = of(i, j));
        }
    };
    let op = |center: Center, scale: Scale| {
        move |c: &mut Config, b: &mut Batch| {
            sets(c, b);
            (c.process[0].center, c.process[0].scale) = (center, scale);
        }
    };
    vec![
        case("step_sets", spec(), sets),
        case("step_sets_holes", spec().holes(), sets),
        case("step_sets_ties", Spec { quantised: true, ..spec() }, sets),
        case("step_sets_begins_step_chunks", Spec { begins: true, ..spec().holes() }, move |c, b| {
            sets(c, b);
            c.chunk = Chunk::Step;
        }),
        case("step_sets_interleaved_uneven", Spec { interleave: true, ..spec().sizes(&[1, 7, 2, 5, 3]) }, sets),
        case("step_sets_two_streams", spec().streams(2), sets),
        case("step_sets_token_chunks", spec().holes(), move |c, b| {
            sets(c, b);
            c.chunk = Chunk::Token;
        }),
        case("step_sets_one_chunk", spec(), move |c, b| {
            sets(c, b);
            c.chunk = Chunk::None;
        }),
        case("step_sets_merged_steps", Spec { quantised: true, ..spec() }, move |c, b| {
            sets(c, b);
            c.merge_equal_steps = true;
        }),
        case("step_sets_all_one", spec(), move |c, b| {
            sets(c, b);
            numbered(b, |_, _| 7);
        }),
        case("step_sets_all_apart", spec(), move |c, b| {
            sets(c, b);
            numbered(b, |i, j| (i * 1000 + j) as i64);
        }),
        case("step_sets_all_apart_passthrough", spec(), move |c, b| {
            sets(c, b);
            c.process[0].singleton = Singleton::Passthrough;
            numbered(b, |i, j| -((i * 1000 + j) as i64));
        }),
        case("step_sets_some_alone", spec(), move |c, b| {
            sets(c, b);
            c.process[0].singleton = Singleton::Passthrough;
            numbered(b, |i, j| if j == 0 { 0 } else if j == 1 { i as i64 } else { -3 });
        }),
        // Numbers that are equal in their low or high halves, and the ends of the range.
        case("step_sets_64_bit", spec(), move |c, b| {
            sets(c, b);
            numbered(b, |i, j| [1, 1 + (1 << 32), 1 << 32, i64::MAX, i64::MIN, -1, u32::MAX as i64, i64::MAX - (1 << 32)][(i * 3 + j) % 8]);
        }),
        case("step_sets_colliding_strides", spec(), move |c, b| {
            sets(c, b);
            numbered(b, |i, j| (((i + j) % 6) as i64) << 40);
        }),
        case("step_sets_equal_numbers_of_other_groups", spec().sizes(&[3, 3]), move |c, b| {
            sets(c, b);
            numbered(b, |_, j| j as i64);
        }),
        case("step_sets_loo", spec(), op(Center::LeaveOneOut, Scale::None)),
        case("step_sets_loo_ties", Spec { quantised: true, ..spec() }, op(Center::LeaveOneOut, Scale::None)),
        case("step_sets_loo_std", spec(), op(Center::LeaveOneOut, Scale::LeaveOneOut)),
        case("step_sets_loo_group_std", spec(), op(Center::LeaveOneOut, Scale::Group)),
        case("step_sets_abs_max", spec(), op(Center::None, Scale::AbsMax)),
        case("step_sets_mean", spec(), op(Center::Group, Scale::None)),
        case("step_sets_none", spec(), op(Center::None, Scale::None)),
        case("step_sets_ddof_0_add_var", spec(), move |c, b| {
            sets(c, b);
            (c.process[0].ddof, c.process[0].epsilon_mode) = (0, EpsilonMode::AddVar);
        }),
        case("step_sets_zero_variance", spec(), move |c, b| {
            sets(c, b);
            b.rollouts.iter_mut().for_each(|r| {
                let numbers = r.step_group.clone().unwrap();
                r.step_scores[0].iter_mut().zip(numbers).for_each(|(s, n)| *s = if n < 1 { 0.1 * n as f32 } else { *s });
            });
        }),
        case("step_sets_zero_variance_center", spec(), move |c, b| {
            sets(c, b);
            (c.process[0].zero_variance, c.process[0].center) = (ZeroVariance::Center, Center::None);
            b.rollouts.iter_mut().for_each(|r| r.step_scores[0].fill(0.98));
        }),
        case("step_sets_aside", spec(), move |c, b| {
            sets(c, b);
            b.rollouts.iter_mut().step_by(2).for_each(|r| r.in_stats = false);
        }),
        case("step_sets_aside_in_no_set", spec(), move |c, b| {
            sets(c, b);
            c.process[0].singleton = Singleton::Passthrough;
            numbered(b, |i, j| if i % 3 == 0 { -9 } else { (j % 2) as i64 });
            b.rollouts.iter_mut().step_by(3).for_each(|r| r.in_stats = false);
        }),
        case("step_sets_absent", spec(), move |c, b| {
            sets(c, b);
            b.rollouts.iter_mut().step_by(3).for_each(|r| r.absent = true);
        }),
        case("step_sets_missing_exclude", spec().streams(2), move |c, b| {
            sets(c, b);
            c.set_missing_all(Missing::Exclude);
            for r in &mut b.rollouts {
                r.step_scores[0].iter_mut().step_by(3).for_each(|s| *s = f32::NAN);
                r.step_scores[1].iter_mut().skip(1).step_by(2).for_each(|s| *s = f32::NAN);
            }
        }),
        case("step_sets_missing_error", spec(), move |c, b| {
            sets(c, b);
            b.rollouts[1].step_scores[0].fill(f32::NAN);
        }),
        case("step_sets_no_steps", Spec { empty: 0.5, ..spec() }, sets),
        case("step_sets_steps_do_not_fit", spec(), move |c, b| {
            sets(c, b);
            *b.rollouts[1].step_ends.as_mut().unwrap().last_mut().unwrap() += 9;
        }),
        case("step_sets_outlier", spec(), move |c, b| {
            sets(c, b);
            b.rollouts[0].step_scores[0].iter_mut().take(1).for_each(|s| *s = 1e6);
        }),
        case("step_sets_gigpo", Spec { format: false, ok: false, ..spec() }, move |c, b| {
            sets(c, b);
            (c.step_value, c.step_gamma, c.chunk, c.credit, c.k) = (StepValue::ReturnToGo, 0.95, Chunk::Step, Credit::Broadcast, 0.0);
        }),
        case("step_sets_gigpo_outcome_alone", Spec { format: false, ok: false, unscored: true, ..spec().holes() }, move |c, b| {
            sets(c, b);
            (c.step_value, c.step_gamma, c.chunk, c.credit, c.k) = (StepValue::ReturnToGo, 0.95, Chunk::Step, Credit::Broadcast, 0.0);
        }),
        case("step_sets_many", Spec { max_len: 400, ..spec().sizes(&[12]) }, move |c, b| {
            sets(c, b);
            numbered(b, |i, j| ((i * 7 + j * 13) % 97) as i64);
        }),
        case("step_sets_whitened", spec(), move |c, b| {
            sets(c, b);
            c.whiten = Whiten::Tokens;
        }),
        case("step_sets_gae", Spec { values: true, ..spec() }, move |c, b| {
            sets(c, b);
            (c.credit, c.k, c.lam) = (Credit::Gae, 0.0, 0.9);
        }),
    ]
}
