//! What is taken from or added to rewards before they are standardised or scanned: clips, sums of streams, KL, token rewards (rules 47,
//! 50, 55, 58 to 60, 63).
use super::load::{admit, exact_sum, opd, Form, Loaded};
use super::*;

fn limited(x: f32, most: f64) -> f32 {
    let most = most as f32;
    x.clamp(-most, most)
}

/// Rule 47. Under `reward_sum` the outcome's limit is the sum's.
pub fn clip_values(cfg: &Config, rows: &mut [Option<f32>]) {
    let limits = [&cfg.outcome, &cfg.format].into_iter().chain(&cfg.others).map(|row| row.clip_value);
    for (s, (value, most)) in rows.iter_mut().zip(limits).enumerate() {
        if !(s == 0 && cfg.fusion == Fusion::RewardSum) {
            *value = value.map(|x| limited(x, most));
        }
    }
}

/// Everything that needs the tokens in scope.
pub fn load(cfg: &Config, form: Form, r: &Rollout, l: &mut Loaded, bad: &mut bool, report: &mut Report) {
    read_scanned(cfg, form, r, l, bad, report);
    if cfg.takes_kl() {
        let reference = r.logp_reference.as_ref().expect("KL in the reward needs a reference");
        let policy = r.policy();
        let spread = cfg.scan_mask == ScanMask::None && matches!(cfg.credit, Credit::ReturnToGo | Credit::Gae) && cfg.kl_place == KlPlace::Reward;
        if let (true, Some(&first)) = (spread, l.toks.first()) {
            let outside = (first..r.len).filter(|t| !l.toks.contains(t));
            l.kl_beyond = outside.map(|t| (t, admit(divergence(cfg, policy[t], reference[t]), Missing::Error, bad, report).unwrap())).collect();
        }
        l.kl = l.toks.iter().map(|&t| admit(divergence(cfg, policy[t], reference[t]), Missing::Error, bad, report).unwrap()).collect();
    }
    if cfg.token_baseline != TokenBaseline::None {
        let squared = r.sum_pi_squared.as_ref().expect("token_baseline needs sums of squared probabilities");
        let bad_at = |t: usize| ![r.policy()[t], squared[t], r.token_ratio.as_ref().map_or(1.0, |ratio| ratio[t])].iter().all(|x| x.is_finite());
        let found = l.toks.iter().filter(|&&t| bad_at(t)).count();
        (0..found).for_each(|_| _ = admit(f32::INFINITY, Missing::Error, bad, report));
    }
    let taken = if cfg.kl_place == KlPlace::Outcome && !l.kl.is_empty() { cfg.kl_coef * exact_sum(&l.kl) as f32 as f64 } else { 0.0 };
    let reward = match cfg.fusion {
        Fusion::RewardSum => sum_of_rows(cfg, l),
        _ => l.rows[0].map(|x| x as f64),
    };
    // A value that does not fit f32 is a finding as an infinite one is; NaN cannot come up.
    l.rows[0] = reward.map(|x| admit((x - taken) as f32, Missing::Error, bad, report).unwrap());
    if cfg.fusion == Fusion::RewardSum {
        l.rows[1..].fill(None);
    }
}

/// Rule 55: the sum of the weighted values that are there.
fn sum_of_rows(cfg: &Config, l: &Loaded) -> Option<f64> {
    let weights = [&cfg.outcome, &cfg.format].into_iter().chain(&cfg.others).map(|row| row.weight);
    let mut sum = None;
    for (value, weight) in l.rows.iter().zip(weights) {
        if let Some(x) = value {
            sum = Some(sum.unwrap_or(0.0) + weight * *x as f64);
        }
    }
    let most = cfg.outcome.clip_value as f32 as f64;
    sum.map(|sum| sum.clamp(-most, most))
}

/// Rule 58, before the coefficient. What is not finite comes back infinite.
fn divergence(cfg: &Config, policy: f64, reference: f64) -> f32 {
    if !policy.is_finite() || !reference.is_finite() {
        return f32::INFINITY;
    }
    let d = (policy - reference).max(-cfg.kl_log_ratio_clamp);
    let kl = match cfg.kl_in_reward {
        KlInReward::None => 0.0,
        KlInReward::K1 => d,
        KlInReward::K2 => d * d / 2.0,
        KlInReward::K3 => (-d).exp() - 1.0 + d,
        KlInReward::Abs => d.abs(),
    };
    kl.clamp(-cfg.kl_clamp, cfg.kl_clamp) as f32
}

/// Reads what a scan will read: a bad value is a finding. A rollout without a token in scope is not scanned.
fn read_scanned(cfg: &Config, form: Form, r: &Rollout, l: &mut Loaded, bad: &mut bool, report: &mut Report) {
    if l.toks.is_empty() {
        return;
    }
    let mut read = |v: f32| admit(v, Missing::Error, bad, report).unwrap();
    let all = cfg.scan_mask == ScanMask::None && cfg.credit != Credit::Broadcast;
    // What comes before the first token in scope reaches nothing: it is not read.
    let slots: Vec<usize> = if all { (l.toks[0]..r.len).collect() } else { l.toks.clone() };
    if cfg.has_values() {
        let values = r.values.as_ref().expect("gae and vtrace need values");
        slots.iter().for_each(|&t| _ = read(values[t]));
        r.bootstrap.into_iter().for_each(|b| _ = read(b));
    }
    if let (true, Some(rewards)) = (cfg.takes_token_rewards(), &r.token_rewards) {
        slots.iter().for_each(|&t| _ = read(rewards[t]));
    }
    if cfg.credit == Credit::Vtrace {
        let behavior = r.logp_behavior.as_ref().expect("vtrace needs the behaviour's log-probabilities");
        for &t in &l.toks {
            let d = r.policy()[t] - behavior[t];
            read(if d.is_finite() { 0.0 } else { f32::INFINITY });
        }
    }
    l.lam = cfg.lam;
    if cfg.lam_length_alpha != 0.0 {
        l.lam = (1.0 - 1.0 / (cfg.lam_length_alpha * l.toks.len() as f64)).max(0.0);
    }
    if let (Credit::Gae, Some(lam)) = (cfg.credit, r.lam) {
        // Outside 0 to 1 it is a finding, as a NaN is.
        l.lam = read(if (0.0..=1.0).contains(&lam) { lam } else { f32::NAN }) as f64;
    }
    // Rule 59: a value a token, in chunks of a token, scanned: tokens out of scope have their own process rewards.
    let a_token = matches!(form, Form::PerToken | Form::Dense | Form::DenseWithEnds);
    let replaced = cfg.has_values() && r.token_rewards.is_some();
    if all && a_token && !l.stepless && cfg.chunk == Chunk::Token && !replaced {
        let mut value = |p: usize, t: usize| {
            if t < l.toks[0] || l.toks.contains(&t) {
                return None;
            }
            let raw = match &r.logp {
                Some(logp) => opd(cfg, logp, t),
                None => r.signal[p][t],
            };
            // The report counts missing values in scope alone.
            if raw.is_nan() && cfg.process[p].missing != Missing::Error {
                return (cfg.process[p].missing == Missing::Zero).then_some(0.0);
            }
            admit(raw, Missing::Error, bad, report)
        };
        l.beyond = (0..cfg.process.len()).map(|p| (0..r.len).map(|t| value(p, t)).collect()).collect();
    }
}
