//! Baselines a token (rule 66).
use super::build::*;
use super::{case, Case};
use crate::oracle::*;
use Input::*;

/// Rewards a token and probabilities; lengths differ, with gaps.
fn rewards(input: Input) -> Spec {
    Spec { token_rewards: true, sum_pi_squared: true, format: false, ok: false, sizes: vec![5, 1, 4, 2], interleave: true, empty: 0.1, ..Spec::of(input).continuous().gaps() }
}

fn position(c: &mut Config) {
    (c.token_baseline, c.chunk, c.k) = (TokenBaseline::Position, Chunk::Token, 0.0);
}

fn token(c: &mut Config) {
    position(c);
    c.token_baseline = TokenBaseline::Token;
}

pub fn cases() -> Vec<Case> {
    let aside = |b: &mut Batch| b.rollouts.iter_mut().step_by(3).for_each(|r| r.in_stats = false);
    vec![
        case("token_baseline_position", rewards(Nothing), |c, _| position(c)),
        case("token_baseline_token", rewards(Nothing), |c, _| token(c)),
        case("token_baseline_ratio", Spec { token_ratio: true, ..rewards(Nothing) }, |c, _| position(c)),
        case("token_baseline_poison", rewards(Nothing).holes(), |c, _| token(c)),
        case("token_baseline_aside", rewards(Nothing), move |c, b| {
            position(c);
            aside(b);
        }),
        case("token_baseline_two_counted", rewards(Nothing).sizes(&[4, 3]), |c, b| {
            token(c);
            // One that counts in the second group: no baseline there.
            b.rollouts.iter_mut().for_each(|r| r.in_stats = r.group == 0);
            b.rollouts.iter_mut().rev().take(1).for_each(|r| r.in_stats = true);
        }),
        case("token_baseline_longest_aside", rewards(Nothing), |c, b| {
            position(c);
            for g in 0..b.num_groups {
                let longest = b.rollouts.iter_mut().filter(|r| r.group == g).max_by_key(|r| r.len);
                longest.into_iter().for_each(|r| r.in_stats = false);
            }
        }),
        case("token_baseline_equal_lengths", rewards(Nothing).sizes(&[3, 3]), |c, b| {
            position(c);
            b.rollouts.iter_mut().for_each(|r| r.mask = Some((0..r.len).map(|t| t % 2 == 0 && t < 8).collect()));
        }),
        case("token_baseline_absent_and_missing", rewards(Nothing), |c, b| {
            token(c);
            c.outcome.missing = Missing::Exclude;
            b.rollouts.iter_mut().for_each(|r| r.token_rewards = None);
            b.rollouts[1].absent = true;
            b.rollouts[2].outcome = Some(f32::NAN);
            b.rollouts[5].outcome = Some(f32::NAN);
        }),
        case("token_baseline_bad_input", rewards(Nothing).sizes(&[3, 3, 3]), |c, b| {
            position(c);
            let bad = |row: &mut Option<Vec<f64>>, x: f64| {
                let row = row.as_mut().unwrap();
                row.iter_mut().take(3).for_each(|y| *y = x);
            };
            bad(&mut b.rollouts[0].sum_pi_squared, f64::NAN);
            bad(&mut b.rollouts[7].logp_policy, f64::NEG_INFINITY);
        }),
        case("token_baseline_discount", rewards(Nothing), |c, _| {
            position(c);
            c.gamma = 0.9;
        }),
        case("token_baseline_decay", rewards(Nothing), |c, _| {
            position(c);
            (c.gamma, c.scan_mask) = (0.9, ScanMask::Decay);
        }),
        case("token_baseline_broadcast", rewards(KlSignal), |c, _| {
            token(c);
            c.credit = Credit::Broadcast;
        }),
        case("token_baseline_kl", rewards(KlSignal).streams(2), |c, _| position(c)),
        case("token_baseline_opd", rewards(KlGOpd), |c, _| token(c)),
        case("token_baseline_steps", Spec { token_rewards: false, ..rewards(Csr) }, |c, _| position(c)),
        case("token_baseline_process_apart", Spec { format: true, ok: true, ..rewards(DenseEnds) }, |c, _| {
            position(c);
            c.divide_scope = DivideScope::Process;
        }),
        case("token_baseline_gae", Spec { values: true, bootstrap: true, ..rewards(Csr) }, |c, _| {
            (c.token_baseline, c.credit, c.k, c.lam) = (TokenBaseline::Position, Credit::Gae, 0.0, 0.9);
        }),
        case("token_baseline_gae_of_kl_chunks", Spec { values: true, token_rewards: false, ..rewards(KlSignal) }, |c, _| {
            (c.token_baseline, c.credit, c.k) = (TokenBaseline::Token, Credit::Gae, 0.0);
        }),
        case("token_baseline_vtrace", Spec { values: true, behavior: true, ..rewards(Nothing) }, |c, _| {
            (c.token_baseline, c.credit, c.k) = (TokenBaseline::Token, Credit::Vtrace, 0.0);
        }),
        case("token_baseline_kl_of_advantages", Spec { reference: true, ..rewards(Nothing) }, |c, _| {
            position(c);
            (c.kl_in_reward, c.kl_place, c.kl_coef) = (KlInReward::K3, KlPlace::Advantage, 0.2);
        }),
        case("token_baseline_whitened", rewards(Nothing), move |c, b| {
            position(c);
            (c.whiten, c.temperature, c.clip) = (Whiten::Tokens, 0.5, 1.5);
            aside(b);
        }),
        case("token_baseline_whitened_by_rollouts", rewards(Nothing), |c, _| {
            token(c);
            c.whiten = Whiten::Rollouts;
        }),
        case("token_baseline_sure_policy", rewards(Nothing), |c, b| {
            position(c);
            // Weights of 0, then of very different sizes.
            for r in &mut b.rollouts {
                let (logp, squared) = (r.logp_policy.as_mut().unwrap(), r.sum_pi_squared.as_mut().unwrap());
                for t in 0..r.len {
                    let p: f64 = [1.0, 1.0, 0.999, 0.5][(t / 4).min(3)];
                    (logp[t], squared[t]) = (p.ln(), p * p + (1.0 - p) * (1.0 - p) * 0.5);
                }
            }
        }),
        case("token_baseline_long", rewards(Nothing).sizes(&[3, 2]), |c, b| {
            token(c);
            for (i, r) in b.rollouts.iter_mut().enumerate() {
                let mut rng = Rng(i as u64);
                (r.len, r.mask) = (1500 + 700 * i, None);
                r.token_rewards = Some((0..r.len).map(|_| rng.normal() as f32).collect());
                r.logp_policy = Some((0..r.len).map(|_| -3.0 * rng.unit()).collect());
                r.sum_pi_squared = Some((0..r.len).map(|_| 0.9 + 0.1 * rng.unit()).collect());
            }
        }),
    ]
}
