//! KL in the reward: each form at each place, clamped and not (rule 58).
use super::build::*;
use super::credit::{as_gae, valued};
use super::{case, Case};
use crate::oracle::*;
use Input::*;

pub fn cases() -> Vec<Case> {
    let mut table = kl_types();
    table.extend(kl_places());
    table
}

pub(super) fn with_kl(input: Input) -> Spec {
    Spec { reference: true, ..Spec::of(input).continuous() }
}

fn kl(c: &mut Config, form: KlInReward, place: KlPlace) {
    (c.kl_in_reward, c.kl_place, c.kl_coef) = (form, place, 0.05);
    if place != KlPlace::Outcome {
        c.chunk = Chunk::Token;
    }
}

fn kl_types() -> Vec<Case> {
    use KlInReward::*;
    let at = |form: KlInReward, place: KlPlace| move |c: &mut Config, _: &mut Batch| kl(c, form, place);
    let far = |b: &mut Batch| {
        for r in &mut b.rollouts {
            r.logp_reference.iter_mut().for_each(|p| p.iter_mut().step_by(3).for_each(|p| *p -= 30.0));
            r.logp_reference.iter_mut().for_each(|p| p.iter_mut().skip(1).step_by(3).for_each(|p| *p += 25.0));
        }
    };
    let clamped = |form: KlInReward, place: KlPlace| {
        move |c: &mut Config, b: &mut Batch| {
            kl(c, form, place);
            (c.kl_log_ratio_clamp, c.kl_clamp) = (10.0, 7.5);
            far(b);
        }
    };
    vec![
        case("kl_k1_outcome", with_kl(Nothing), at(K1, KlPlace::Outcome)),
        case("kl_k2_outcome", with_kl(Nothing), at(K2, KlPlace::Outcome)),
        case("kl_k3_outcome", with_kl(Nothing), at(K3, KlPlace::Outcome)),
        case("kl_abs_outcome", with_kl(Nothing), at(Abs, KlPlace::Outcome)),
        case("kl_k1_reward", with_kl(Csr).holes(), at(K1, KlPlace::Reward)),
        case("kl_k2_reward", with_kl(Csr), at(K2, KlPlace::Reward)),
        case("kl_k3_reward", with_kl(KlSignal).holes(), at(K3, KlPlace::Reward)),
        case("kl_abs_reward", with_kl(Nothing), at(Abs, KlPlace::Reward)),
        case("kl_k1_advantage", with_kl(Nothing), at(K1, KlPlace::Advantage)),
        case("kl_k2_advantage", with_kl(Csr), at(K2, KlPlace::Advantage)),
        case("kl_k3_advantage", with_kl(Csr).holes(), at(K3, KlPlace::Advantage)),
        case("kl_abs_advantage", with_kl(KlSignal), at(Abs, KlPlace::Advantage)),
        case("kl_k1_outcome_clamped", with_kl(Nothing), clamped(K1, KlPlace::Outcome)),
        case("kl_k2_outcome_clamped", with_kl(Nothing), clamped(K2, KlPlace::Outcome)),
        case("kl_k3_outcome_clamped", with_kl(Nothing), clamped(K3, KlPlace::Outcome)),
        case("kl_abs_reward_clamped", with_kl(Nothing), clamped(Abs, KlPlace::Reward)),
        case("kl_k3_reward_clamped", with_kl(Nothing), clamped(K3, KlPlace::Reward)),
        case("kl_k3_advantage_clamped", with_kl(Nothing), clamped(K3, KlPlace::Advantage)),
        case("kl_k3_ratio_clamp_alone", with_kl(Nothing), move |c, b| {
            kl(c, K3, KlPlace::Reward);
            c.kl_log_ratio_clamp = 4.0;
            far(b);
        }),
        case("kl_k1_clamp_alone", with_kl(Nothing), move |c, b| {
            kl(c, K1, KlPlace::Outcome);
            c.kl_clamp = 0.5;
            far(b);
        }),
        case("kl_clamps_0", with_kl(Nothing), |c, _| {
            kl(c, K2, KlPlace::Outcome);
            (c.kl_log_ratio_clamp, c.kl_clamp) = (0.0, 0.0);
        }),
    ]
}

fn kl_places() -> Vec<Case> {
    use KlInReward::*;
    vec![
        case("kl_outcome_beside_steps", with_kl(Csr).holes(), |c, _| kl(c, K3, KlPlace::Outcome)),
        case("kl_outcome_scope_of_steps", Spec { begins: true, ..with_kl(Csr).gaps() }, |c, _| kl(c, K1, KlPlace::Outcome)),
        case("kl_outcome_shared_policy", with_kl(KlOpd).holes(), |c, _| kl(c, K1, KlPlace::Outcome)),
        case("kl_reward_shared_policy_gopd", with_kl(KlGOpd).holes(), |c, _| kl(c, K3, KlPlace::Reward)),
        case("kl_outcome_opd_steps", with_kl(OpdSteps), |c, _| kl(c, K2, KlPlace::Outcome)),
        case("kl_outcome_pooled", with_kl(Csr), |c, _| {
            kl(c, K1, KlPlace::Outcome);
            c.fusion = Fusion::Pooled;
        }),
        case("kl_outcome_reward_shaping", with_kl(Csr), |c, _| {
            kl(c, K1, KlPlace::Outcome);
            c.fusion = Fusion::RewardShaping;
        }),
        case("kl_outcome_clip_value_first", with_kl(Nothing), |c, _| {
            kl(c, K3, KlPlace::Outcome);
            c.outcome.clip_value = 0.5;
        }),
        case("kl_outcome_batch", with_kl(Nothing).sizes(&[1, 5, 3]), |c, _| {
            kl(c, K1, KlPlace::Outcome);
            (c.outcome.center, c.outcome.scale) = (Center::Batch, Scale::Batch);
        }),
        case("kl_outcome_missing_exclude", with_kl(Nothing), |c, b| {
            kl(c, K1, KlPlace::Outcome);
            c.set_missing_all(Missing::Exclude);
            b.rollouts.iter_mut().step_by(3).for_each(|r| r.outcome = Some(f32::NAN));
        }),
        case("kl_outcome_missing_zero", with_kl(Nothing), |c, b| {
            kl(c, K1, KlPlace::Outcome);
            c.set_missing_all(Missing::Zero);
            b.rollouts.iter_mut().step_by(3).for_each(|r| r.outcome = Some(f32::NAN));
        }),
        case("kl_outcome_no_scope", with_kl(Nothing), |c, b| {
            kl(c, K1, KlPlace::Outcome);
            b.rollouts.iter_mut().step_by(2).for_each(|r| r.mask = Some(vec![false; r.len]));
        }),
        case("kl_outcome_reward_sum", Spec { others: 2, ok: false, ..with_kl(Nothing) }, |c, _| {
            kl(c, K3, KlPlace::Outcome);
            (c.fusion, c.outcome.clip_value, c.others[0].weight) = (Fusion::RewardSum, 1.0, -0.5);
        }),
        case("kl_reward_sum_without_outcome", Spec { outcome: false, others: 1, ok: false, ..with_kl(Csr) }, |c, _| {
            kl(c, K1, KlPlace::Outcome);
            c.fusion = Fusion::RewardSum;
        }),
        case("kl_outcome_equal_rewards", with_kl(Nothing), |c, b| {
            kl(c, K1, KlPlace::Outcome);
            b.rollouts.iter_mut().for_each(|r| (r.outcome, r.logp_reference) = (Some(0.98), r.logp_policy.clone()));
        }),
        case("kl_outcome_long", Spec { max_len: 600, ..with_kl(Nothing) }, |c, _| kl(c, K3, KlPlace::Outcome)),
        case("kl_reward_gamma_divided", with_kl(Csr), |c, _| {
            kl(c, K1, KlPlace::Reward);
            (c.gamma, c.k, c.temperature) = (0.95, 1.3, 0.7);
        }),
        case("kl_reward_divide_scope_process", with_kl(Csr), |c, _| {
            kl(c, K1, KlPlace::Reward);
            c.divide_scope = DivideScope::Process;
        }),
        case("kl_reward_broadcast", with_kl(Csr).holes(), |c, _| {
            kl(c, K1, KlPlace::Reward);
            c.credit = Credit::Broadcast;
        }),
        case("kl_reward_gae", Spec { reference: true, ..valued(Csr).holes() }, |c, _| {
            as_gae(c);
            (c.kl_in_reward, c.kl_place, c.kl_coef) = (K1, KlPlace::Reward, 0.1);
        }),
        case("kl_reward_gae_place_last", Spec { reference: true, bootstrap: true, format: false, ok: false, ..valued(Nothing).holes() }, |c, _| {
            as_gae(c);
            (c.kl_in_reward, c.kl_place, c.kl_coef, c.outcome.place) = (K3, KlPlace::Reward, 0.1, Place::Last);
        }),
        case("kl_reward_gae_token_rewards", Spec { reference: true, token_rewards: true, ..valued(Nothing) }, |c, _| {
            as_gae(c);
            (c.kl_in_reward, c.kl_place, c.kl_coef) = (K2, KlPlace::Reward, 0.1);
        }),
        case("kl_advantage_gae_whitened", Spec { reference: true, ..valued(Csr) }, |c, _| {
            as_gae(c);
            (c.kl_in_reward, c.kl_place, c.kl_coef, c.whiten) = (K1, KlPlace::Advantage, 0.1, Whiten::Tokens);
        }),
        case("kl_advantage_temperature_path_scores", with_kl(Csr).holes(), |c, _| {
            kl(c, K1, KlPlace::Advantage);
            (c.temperature, c.whiten) = (0.5, Whiten::Rollouts);
        }),
        case("kl_reward_wrong_format", with_kl(Csr), |c, b| {
            kl(c, K1, KlPlace::Reward);
            b.rollouts.iter_mut().step_by(2).for_each(|r| (r.format, r.format_ok) = (Some(0.0), Some(false)));
        }),
        case("kl_nan", with_kl(Nothing), |c, b| {
            kl(c, K1, KlPlace::Reward);
            b.rollouts[1].logp_reference.as_mut().unwrap()[0] = f64::NAN;
        }),
        case("kl_inf_of_the_policy", with_kl(Nothing), |c, b| {
            kl(c, K2, KlPlace::Outcome);
            b.rollouts[5].logp_policy.as_mut().unwrap()[0] = f64::NEG_INFINITY;
        }),
        case("kl_both_inf", with_kl(Nothing), |c, b| {
            kl(c, K3, KlPlace::Advantage);
            b.rollouts[5].logp_policy.as_mut().unwrap()[0] = f64::NEG_INFINITY;
            b.rollouts[5].logp_reference.as_mut().unwrap()[0] = f64::NEG_INFINITY;
        }),
        case("kl_absent", with_kl(Nothing), |c, b| {
            kl(c, K1, KlPlace::Outcome);
            b.rollouts.iter_mut().step_by(3).for_each(|r| {
                r.absent = true;
                r.logp_reference.as_mut().unwrap().fill(f64::NAN);
            });
        }),
    ]
}
