//! Baselines a token (rule 66): what the advantages of a group's tokens at one place lose.
use super::load::Loaded;
use super::*;
use std::collections::BTreeMap;

/// W of each in-scope token.
fn weights(r: &Rollout, l: &Loaded) -> Vec<f64> {
    let squared = r.sum_pi_squared.as_ref().expect("token_baseline needs sums of squared probabilities");
    let mut sum = 0.0;
    l.toks
        .iter()
        .map(|&t| {
            let rho = r.token_ratio.as_ref().map_or(1.0, |ratio| ratio[t]);
            sum += (1.0 - 2.0 * r.policy()[t].exp() + squared[t]) * rho * rho;
            sum
        })
        .collect()
}

pub fn subtract(cfg: &Config, batch: &Batch, loaded: &[Loaded], out: &mut Output) {
    if cfg.token_baseline == TokenBaseline::None {
        return;
    }
    let place = |i: usize, j: usize| match cfg.token_baseline {
        TokenBaseline::Token => j,
        _ => loaded[i].toks[j],
    };
    for g in 0..batch.num_groups {
        let of_group = |i: &usize| batch.rollouts[*i].group == g && !out.rollouts[*i].forced_zero && !loaded[*i].toks.is_empty();
        let all: Vec<usize> = (0..loaded.len()).filter(of_group).collect();
        let counted: Vec<usize> = all.iter().copied().filter(|&i| batch.rollouts[i].in_stats).collect();
        if counted.len() < 2 {
            continue;
        }
        let mut sums: BTreeMap<usize, (f64, f64)> = BTreeMap::new();
        for &i in &counted {
            for (j, w) in weights(&batch.rollouts[i], &loaded[i]).into_iter().enumerate() {
                let at = sums.entry(place(i, j)).or_default();
                at.0 += out.rollouts[i].returns[loaded[i].toks[j]] * w;
                at.1 += w;
            }
        }
        let mut lengths: Vec<usize> = counted.iter().map(|&i| loaded[i].toks.len()).collect();
        lengths.sort();
        let (second, most) = (lengths[lengths.len() - 2], lengths[lengths.len() - 1]);
        for &i in &all {
            let lone = batch.rollouts[i].in_stats && second < most && loaded[i].toks.len() == most;
            for (j, &t) in loaded[i].toks.iter().enumerate() {
                let (gains, weights) = sums.get(&place(i, j)).copied().unwrap_or_default();
                if !(lone && place(i, j) >= second) {
                    out.rollouts[i].advantages[t] -= gains / (weights + 1e-8);
                }
            }
        }
    }
}
