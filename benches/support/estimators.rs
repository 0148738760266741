//! The frameworks' estimators by plain f64 loops, as the formulas are written. Slow and obvious.
use super::cases::{Answer, GAMMA, LAM};
use super::reference::Standard;
use super::workload::Workload;
use std::ops::Range;

/// The group's rewards, standardised, on every token.
pub fn grpo(work: &Workload) -> Answer {
    broadcast(work, &standardised(work, &work.outcome))
}

/// The reward less the mean of the others'.
pub fn rloo(work: &Workload) -> Answer {
    let reward = |r: usize| f64::from(work.outcome[r]);
    let others = |r: usize, group: Range<usize>| {
        let n = group.len() as f64 - 1.0;
        reward(r) - group.filter(|&other| other != r).map(reward).sum::<f64>() / n
    };
    let each: Vec<f64> = (0..work.size.groups).flat_map(|g| work.group(g).map(move |r| others(r, work.group(g)))).collect();
    broadcast(work, &each)
}

/// The outcome on the last token, undiscounted, so the same return on every token; whitened over the batch's tokens.
pub fn reinforce(work: &Workload) -> Answer {
    let rewards: Vec<f64> = work.outcome.iter().map(|&r| f64::from(r)).collect();
    broadcast(work, &whitened(work, &rewards))
}

/// Three rewards, each standardised in its group; the sum is whitened over the batch's tokens.
pub fn gdpo(work: &Workload) -> Answer {
    let parts = work.extra.each_ref().map(|rewards| standardised(work, rewards));
    let sums: Vec<f64> = (0..work.size.rollouts).map(|r| parts.iter().map(|part| part[r]).sum()).collect();
    broadcast(work, &whitened(work, &sums))
}

/// Generalised advantage estimation over tokens; returns are advantages + values.
pub fn gae(work: &Workload) -> Answer {
    let (rewards, values) = (work.token_rewards(), work.values());
    let (mut advantages, mut returns) = (vec![0.0; work.tokens()], vec![0.0; work.tokens()]);
    for rollout in 0..work.size.rollouts {
        let (mut next, mut carried) = (0.0, 0.0);
        for t in work.range(rollout).rev() {
            let value = f64::from(values[t]);
            carried = f64::from(rewards[t]) + GAMMA * next - value + GAMMA * LAM * carried;
            (advantages[t], returns[t]) = (carried, carried + value);
            next = value;
        }
    }
    Answer { advantages, returns }
}

fn standardised(work: &Workload, rewards: &[f32]) -> Vec<f64> {
    (0..work.size.groups)
        .flat_map(|g| {
            let standard = Standard::of(work.group(g).map(|r| f64::from(rewards[r])));
            work.group(g).map(move |r| standard.apply(f64::from(rewards[r])))
        })
        .collect()
}

/// (x - mean) / sqrt(variance + 1e-8), each rollout counting once a token.
fn whitened(work: &Workload, each: &[f64]) -> Vec<f64> {
    let n = work.tokens() as f64;
    let weighted = |value: &dyn Fn(f64) -> f64| each.iter().zip(&work.lengths).map(|(&x, &length)| value(x) * f64::from(length)).sum::<f64>();
    let mean = weighted(&|x| x) / n;
    let variance = weighted(&|x| (x - mean) * (x - mean)) / (n - 1.0);
    each.iter().map(|x| (x - mean) / (variance + 1e-8).sqrt()).collect()
}

fn broadcast(work: &Workload, each: &[f64]) -> Answer {
    let advantages = (0..work.size.rollouts).flat_map(|r| work.range(r).map(move |_| each[r])).collect();
    Answer { advantages, returns: Vec::new() }
}
