//! Credit: return-to-go, GAE and V-trace over tokens in scope, over every token of the extent, or over chunks (rules 29, 58 to 63).
use super::fuse::Fused;
use super::load::Loaded;
use super::*;
use std::ops::Range;

/// A value for each in-scope token.
pub struct Credited {
    pub advantages: Vec<f64>,
    pub returns: Vec<f64>,
    pub path_score: f64,
}

/// What a scan walks over, in order.
struct Walk {
    rewards: Vec<f64>,
    values: Vec<f64>,
    /// Where each in-scope token is found.
    at: Vec<usize>,
    bootstrap: f64,
}

impl Walk {
    fn back(&self, step: impl Fn(usize, f64, f64) -> f64) -> Vec<f64> {
        let mut found = vec![0.0; self.rewards.len()];
        let (mut next, mut next_value) = (0.0, self.bootstrap);
        for i in (0..found.len()).rev() {
            found[i] = step(i, next, next_value);
            (next, next_value) = (found[i], self.values[i]);
        }
        found
    }

    fn of_tokens(&self, all: &[f64]) -> Vec<f64> {
        self.at.iter().map(|&i| all[i]).collect()
    }
}

/// Rewards and values a token, in scope or, as `scan_mask` has it, over the whole extent.
fn walk(cfg: &Config, r: &Rollout, l: &Loaded, chunks: &[Range<usize>], a: &[f64], fused: &Fused) -> Walk {
    let mut own = vec![0.0; r.len];
    let (mut rewards, mut values) = (vec![0.0; r.len], vec![0.0; r.len]);
    chunks.iter().zip(a).for_each(|(c, a)| own[l.toks[c.end - 1]] = *a);
    fused.beyond.iter().zip(&mut own).for_each(|(x, own)| *own += x);
    if let (true, Some(last)) = (cfg.scan_mask == ScanMask::None, own.last_mut()) {
        *last += fused.at_end;
    }
    for t in 0..r.len {
        let given = r.token_rewards.as_ref().filter(|_| cfg.takes_token_rewards()).map(|rewards| rewards[t] as f64);
        rewards[t] = match given {
            Some(x) if cfg.has_values() => x,
            Some(x) => own[t] + x,
            None => own[t],
        };
        values[t] = r.values.as_ref().filter(|_| cfg.has_values()).map_or(0.0, |v| v[t] as f64);
    }
    if cfg.takes_kl() && cfg.kl_place == KlPlace::Reward {
        l.toks.iter().zip(&l.kl).for_each(|(&t, kl)| rewards[t] -= cfg.kl_coef * *kl as f64);
        l.kl_beyond.iter().for_each(|(t, kl)| rewards[*t] -= cfg.kl_coef * *kl as f64);
    }
    let carry = cfg.scan_mask == ScanMask::Carry;
    let slots: Vec<usize> = if carry { l.toks.clone() } else { (0..r.len).collect() };
    let mut takes_part = vec![cfg.scan_mask == ScanMask::None; r.len];
    l.toks.iter().for_each(|&t| takes_part[t] = true);
    let of = |row: &[f64]| slots.iter().map(|&t| if takes_part[t] { row[t] } else { 0.0 }).collect();
    Walk {
        rewards: of(&rewards),
        values: of(&values),
        at: if carry { (0..l.toks.len()).collect() } else { l.toks.clone() },
        bootstrap: r.bootstrap.unwrap_or(0.0) as f64,
    }
}

/// GAE of a walk: advantages under one lambda, returns A' + V under another (rule 60).
fn gae(cfg: &Config, l: &Loaded, w: &Walk) -> (Vec<f64>, Vec<f64>) {
    let scan = |lam: f64| {
        let decay = cfg.gamma * lam;
        w.back(|i, next, next_value| w.rewards[i] + cfg.gamma * next_value - w.values[i] + decay * next)
    };
    let other = scan(if cfg.lam_returns < 0.0 { l.lam } else { cfg.lam_returns });
    (scan(l.lam), other.iter().zip(&w.values).map(|(a, v)| a + v).collect())
}

/// Rule 63. The walk is over the tokens in scope.
fn vtrace(cfg: &Config, r: &Rollout, l: &Loaded, w: &Walk) -> (Vec<f64>, Vec<f64>) {
    let behavior = r.logp_behavior.as_ref().unwrap();
    let ratio = |i: usize| (r.policy()[l.toks[i]] - behavior[l.toks[i]]).exp();
    let rho = |i: usize| ratio(i).min(cfg.rho_clip);
    let a = w.back(|i, next, next_value| {
        let delta = rho(i) * (w.rewards[i] + cfg.gamma * next_value - w.values[i]);
        delta + cfg.gamma * cfg.lam * ratio(i).min(cfg.c_clip) * next
    });
    let vs: Vec<f64> = a.iter().zip(&w.values).map(|(a, v)| a + v).collect();
    let next = |i: usize| vs.get(i + 1).copied().unwrap_or(w.bootstrap);
    let advantages = (0..vs.len()).map(|i| rho(i) * (w.rewards[i] + cfg.gamma * next(i) - w.values[i])).collect();
    (advantages, vs)
}

/// Rule 61: chunks are the units; V is the value at a chunk's first token.
fn gae_of_chunks(cfg: &Config, r: &Rollout, l: &Loaded, chunks: &[Range<usize>], a: &[f64]) -> Credited {
    let values = r.values.as_ref().unwrap();
    let w = Walk {
        rewards: a.to_vec(),
        values: chunks.iter().map(|c| values[l.toks[c.start]] as f64).collect(),
        at: (0..chunks.len()).flat_map(|j| chunks[j].clone().map(move |_| j)).collect(),
        bootstrap: r.bootstrap.unwrap_or(0.0) as f64,
    };
    let (advantages, returns) = gae(cfg, l, &w);
    Credited { path_score: advantages.first().copied().unwrap_or(0.0), advantages: w.of_tokens(&advantages), returns: w.of_tokens(&returns) }
}

/// Eq. 7's divisor where `left` chunks are left, this one included (rule 62).
fn divisor(cfg: &Config, left: usize) -> f64 {
    match cfg.divide_by {
        DivideBy::Count => (left as f64).powf(cfg.k),
        DivideBy::DiscountedCount => {
            let (mut sum, mut power) = (0.0, 1.0);
            for _ in 0..left {
                sum += power;
                power *= cfg.gamma;
            }
            sum
        }
    }
}

pub fn credit(cfg: &Config, r: &Rollout, l: &Loaded, chunks: &[Range<usize>], fused: &Fused) -> Credited {
    // `divide_scope = process` keeps what the whole rollout has in common out of the sum and of the division.
    let outside = cfg.divide_scope == DivideScope::Process && cfg.fusion == Fusion::Advantage;
    let both = |j: usize| fused.process[j] + fused.sequence[j];
    let a: Vec<f64> = (0..chunks.len()).map(|j| if outside { fused.process[j] } else { both(j) }).collect();
    let mut out = match cfg.credit {
        Credit::Gae if cfg.gae_over == GaeOver::Chunks => gae_of_chunks(cfg, r, l, chunks, &a),
        Credit::Gae | Credit::Vtrace => {
            let w = walk(cfg, r, l, chunks, &a, fused);
            let (advantages, returns) = if cfg.credit == Credit::Gae { gae(cfg, l, &w) } else { vtrace(cfg, r, l, &w) };
            let advantages = w.of_tokens(&advantages);
            Credited { path_score: advantages.first().copied().unwrap_or(0.0), advantages, returns: w.of_tokens(&returns) }
        }
        Credit::ReturnToGo | Credit::Broadcast => {
            let g = to_go(cfg, r, l, chunks, &a, fused);
            let mut out = Credited { advantages: Vec::new(), returns: Vec::new(), path_score: 0.0 };
            for (j, chunk) in chunks.iter().enumerate() {
                let beside = if outside { fused.sequence[j] } else { 0.0 };
                // j counts from 0 here, so that K - j chunks are left.
                let d = g[j] / divisor(cfg, chunks.len() - j) + beside;
                if j == 0 {
                    out.path_score = d;
                }
                out.advantages.extend(chunk.clone().map(|_| d));
                out.returns.extend(chunk.clone().map(|_| g[j] + beside));
            }
            out
        }
    };
    // A baseline a token (`baselines`) is taken before the KL: the order makes no difference to this sum.
    if cfg.takes_kl() && cfg.kl_place == KlPlace::Advantage {
        out.advantages.iter_mut().zip(&l.kl).for_each(|(a, kl)| *a -= cfg.kl_coef * *kl as f64);
    }
    out
}

/// G[i,j] by the plain recursion, or a_j itself. Where chunks are tokens the recursion is over tokens, with what is theirs.
fn to_go(cfg: &Config, r: &Rollout, l: &Loaded, chunks: &[Range<usize>], a: &[f64], fused: &Fused) -> Vec<f64> {
    let scanned = cfg.credit == Credit::ReturnToGo;
    if cfg.chunk == Chunk::Token {
        let w = walk(cfg, r, l, chunks, a, fused);
        return w.of_tokens(&if scanned { w.back(|i, next, _| w.rewards[i] + cfg.gamma * next) } else { w.rewards.clone() });
    }
    let mut g = a.to_vec();
    for j in (0..a.len().saturating_sub(1)).rev().filter(|_| scanned) {
        g[j] = a[j] + cfg.gamma * g[j + 1];
    }
    g
}
