//! Rules 58 to 63 as plain loops in f64, from the chunks and chunk values that the run reports.
use crate::harness::Got;
use crate::world::World;
use passrl::abi::constants::*;

pub struct Expected {
    pub advantages: Vec<f64>,
    pub returns: Vec<f64>,
    pub path: f64,
}

/// The divergence of one token, by the C library's functions.
pub fn kl(w: &World, i: usize, t: usize) -> f64 {
    let c = &w.config;
    let d = (w.extra[i].policy[t] - w.extra[i].reference[t]).max(-c.kl_log_ratio_clamp);
    let kl = match c.kl_in_reward {
        PASSRL_KL_K1 => d,
        PASSRL_KL_K2 => d * d / 2.0,
        // expm1 has no cancellation of 1; where d is small enough for the rest to matter, two terms of the series do.
        PASSRL_KL_K3 if d.abs() < 1e-4 => d * d / 2.0 - d * d * d / 6.0,
        PASSRL_KL_K3 => (-d).exp_m1() + d,
        PASSRL_KL_ABS => d.abs(),
        _ => 0.0,
    };
    (kl.clamp(-c.kl_clamp, c.kl_clamp) as f32) as f64
}

/// Sum over the tokens in scope, rounded to f32.
pub fn kl_sum(w: &World, i: usize) -> f32 {
    (0..w.batch.rollouts[i].len).filter(|t| w.scope(i, *t)).map(|t| kl(w, i, t)).sum::<f64>() as f32
}

/// What rollout i gets, before whitening and clip (temperature 1).
pub fn expected(w: &World, got: &Got, i: usize) -> Expected {
    let (c, r) = (&w.config, &w.batch.rollouts[i]);
    let scope: Vec<usize> = (0..r.len).filter(|t| w.scope(i, *t)).collect();
    let mut e = Expected { advantages: vec![0.0; r.len], returns: vec![0.0; r.len], path: 0.0 };
    let Some(&first) = scope.first() else { return e };
    let critic = matches!(c.credit, PASSRL_CREDIT_GAE | PASSRL_CREDIT_VTRACE);
    let by_tokens = c.credit == PASSRL_CREDIT_VTRACE || (c.credit == PASSRL_CREDIT_GAE && c.gae_over == PASSRL_GAE_TOKENS);
    let (ends, a) = (&got.chunk_ends[i], &got.chunk_values[i]);
    let chunk_of = |t: usize| ends.iter().position(|end| (t as i64) < *end).expect("a chunk");
    let gated = r.format_ok == Some(false);
    let coef = |place: i32| if w.gives_reference && c.kl_in_reward != PASSRL_KL_NONE && c.kl_place == place { c.kl_coef } else { 0.0 };
    let less = |place: i32, t: usize| if coef(place) == 0.0 { 0.0 } else { coef(place) * kl(w, i, t) };
    // Rewards and values of tokens; those out of scope as `scan_mask` says.
    let token_reward = |t: usize| r.token_rewards.as_ref().map(|x| x[t] as f64);
    let none = c.scan_mask == PASSRL_SCAN_MASK_NONE;
    let reward = |t: usize| {
        let inside = w.scope(i, t);
        if !inside && !none {
            return 0.0;
        }
        let own = match (inside, by_tokens, c.chunk == PASSRL_CHUNK_TOKEN) {
            (_, true, _) if token_reward(t).is_some() => 0.0,
            (true, true, _) => if ends[chunk_of(t)] == t as i64 + 1 { a[chunk_of(t)] } else { 0.0 },
            (true, false, _) => a[chunk_of(t)],
            (false, _, true) if c.kind == PASSRL_KIND_KL && !gated => c.streams[0].weight * (r.signal[0][t] as f64 - got.stats[r.group][0].1),
            _ => 0.0,
        };
        own + token_reward(t).unwrap_or(0.0) - less(PASSRL_KL_PLACE_REWARD, t)
    };
    let value = |t: usize| if w.scope(i, t) || none { r.values.as_ref().expect("values")[t] as f64 } else { 0.0 };
    let tokens: Vec<usize> = if c.scan_mask == PASSRL_SCAN_MASK_CARRY { scope.clone() } else { (first..r.len).collect() };
    let bootstrap = r.bootstrap.map_or(0.0, |b| b as f64);
    let lam = if w.gives_lam {
        w.extra[i].lam as f64
    } else if c.lam_length_alpha > 0.0 {
        (1.0 - 1.0 / (c.lam_length_alpha * scope.len() as f64)).max(0.0)
    } else {
        c.lam
    };
    let lam_returns = if c.lam_returns == -1.0 { lam } else { c.lam_returns };
    // (advantages, returns) of a sequence of rewards and values.
    let gae = |rewards: &[f64], values: &[f64]| {
        let mut rows = vec![(0.0, 0.0); rewards.len()];
        let (mut next, mut adv, mut ret) = (bootstrap, 0.0, 0.0);
        for n in (0..rewards.len()).rev() {
            let delta = rewards[n] + c.gamma * next - values[n];
            adv = delta + c.gamma * lam * adv;
            ret = delta + c.gamma * lam_returns * ret;
            rows[n] = (adv, ret + values[n]);
            next = values[n];
        }
        rows
    };
    if c.credit == PASSRL_CREDIT_VTRACE {
        let (mut v_next, mut vs_next, mut acc) = (bootstrap, bootstrap, 0.0);
        for &t in scope.iter().rev() {
            let ratio = (w.extra[i].policy[t] - w.extra[i].behavior[t]).exp();
            let (rho, cut) = (ratio.min(c.rho_clip), c.lam * ratio.min(c.c_clip));
            acc = rho * (reward(t) + c.gamma * v_next - value(t)) + c.gamma * cut * acc;
            e.advantages[t] = rho * (reward(t) + c.gamma * vs_next - value(t));
            e.returns[t] = value(t) + acc;
            (v_next, vs_next) = (value(t), e.returns[t]);
        }
    } else if by_tokens {
        let (rewards, values): (Vec<f64>, Vec<f64>) = tokens.iter().map(|t| (reward(*t), value(*t))).unzip();
        for (t, (adv, ret)) in tokens.iter().zip(gae(&rewards, &values)).filter(|(t, _)| w.scope(i, **t)) {
            (e.advantages[*t], e.returns[*t]) = (adv, ret);
        }
    } else if critic {
        let values: Vec<f64> = (0..a.len()).map(|j| value(*scope.iter().find(|t| chunk_of(**t) == j).expect("a token"))).collect();
        let rows = gae(a, &values);
        scope.iter().for_each(|t| (e.advantages[*t], e.returns[*t]) = rows[chunk_of(*t)]);
    } else if c.chunk == PASSRL_CHUNK_TOKEN {
        let mut g = 0.0;
        for (n, t) in tokens.iter().enumerate().rev() {
            g = reward(*t) + if c.credit == PASSRL_CREDIT_RETURN_TO_GO { c.gamma * g } else { 0.0 };
            if w.scope(i, *t) {
                (e.advantages[*t], e.returns[*t]) = (g / divisor(w, tokens.len() - n), g);
            }
        }
    } else {
        for t in &scope {
            let j = chunk_of(*t);
            let g = (j..a.len()).map(|m| c.gamma.powi((m - j) as i32) * a[m]).sum::<f64>();
            (e.advantages[*t], e.returns[*t]) = (g / divisor(w, a.len() - j), g);
        }
    }
    e.path = e.advantages[first];
    scope.iter().for_each(|t| e.advantages[*t] -= less(PASSRL_KL_PLACE_ADVANTAGE, *t));
    e
}

fn divisor(w: &World, n: usize) -> f64 {
    let c = &w.config;
    if c.divide_by == PASSRL_DIVIDE_BY_DISCOUNTED_COUNT {
        (0..n).map(|m| c.gamma.powi(m as i32)).sum()
    } else {
        (n as f64).powf(c.k)
    }
}
