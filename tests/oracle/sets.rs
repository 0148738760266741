//! Group standardisation N(x; S), §2.2.
use super::*;

/// An element of a set: whose it is, and its value.
#[derive(Clone, Copy, Debug)]
pub struct Element {
    pub rollout: usize,
    pub x: f32,
}

#[derive(Clone, Copy, Debug, Default)]
pub struct Stats {
    pub n: usize,
    pub sum: f64,
    pub mean: f64,
    pub var: f64,
    pub max: f64,
    pub min: f64,
    pub absmax: f64,
}

/// Mean first, then the squared deviations.
pub fn stats(values: &[f64], ddof: u32) -> Stats {
    if values.is_empty() {
        return Stats::default();
    }
    let n = values.len();
    let mut sum = 0.0;
    for x in values {
        sum += x;
    }
    let mean = sum / n as f64;
    let mut squares = 0.0;
    let (mut max, mut min, mut absmax) = (f64::NEG_INFINITY, f64::INFINITY, 0.0f64);
    for &x in values {
        squares += (x - mean) * (x - mean);
        max = max.max(x);
        min = min.min(x);
        absmax = absmax.max(x.abs());
    }
    // Exact equality, not a small variance, is zero variance; the sum of squares of equal values may be a rounding away from 0.
    let var = if max == min || n as f64 <= ddof as f64 { 0.0 } else { squares / (n as f64 - ddof as f64) };
    let mean = if max == min { max } else { mean };
    Stats { n, sum, mean, var, max, min, absmax }
}

/// 1/(std + eps) and its kin (§5.5).
pub fn inverse(var: f64, epsilon: f64, mode: EpsilonMode) -> f64 {
    match mode {
        EpsilonMode::AddStd => 1.0 / (var.sqrt() + epsilon),
        EpsilonMode::AddVar => 1.0 / (var + epsilon).sqrt(),
        EpsilonMode::FloorStd => 1.0 / var.sqrt().max(epsilon),
        EpsilonMode::FloorVar => 1.0 / var.max(epsilon).sqrt(),
    }
}

pub fn is_loo(cfg: &StreamCfg) -> bool {
    cfg.center == Center::LeaveOneOut || cfg.scale == Scale::LeaveOneOut
}

/// Does the operator have a rule for a set of one? All do but `none` and `abs_max`.
pub fn has_singleton_rule(cfg: &StreamCfg) -> bool {
    cfg.center != Center::None || cfg.scale == Scale::Group || cfg.scale == Scale::LeaveOneOut
}

/// Is the singleton rule met somewhere in this set? (rule 26, for `singleton = refuse`)
pub fn meets_singleton(cfg: &StreamCfg, set: &[Element]) -> bool {
    if !has_singleton_rule(cfg) || set.is_empty() {
        return false;
    }
    let one_rollout = set.iter().all(|el| el.rollout == set[0].rollout);
    set.len() == 1 || (is_loo(cfg) && cfg.loo_unit == LooUnit::Rollout && one_rollout)
}

/// N(.; S) for the values of one rollout.
pub struct Operator<'a> {
    cfg: &'a StreamCfg,
    set: &'a [Element],
    all: Stats,
    rollout: usize,
    /// The rollout is in the sets; one that is not leaves nothing out (rule 21).
    counted: bool,
    /// The others where they do not depend on x: another rollout's elements, or everything.
    fixed: Option<Stats>,
}

impl<'a> Operator<'a> {
    pub fn new(cfg: &'a StreamCfg, set: &'a [Element], rollout: usize, counted: bool) -> Operator<'a> {
        let values: Vec<f64> = set.iter().map(|el| el.x as f64).collect();
        let all = stats(&values, cfg.ddof);
        let fixed = if !counted {
            Some(all)
        } else if cfg.loo_unit == LooUnit::Rollout {
            let others: Vec<f64> = set.iter().filter(|el| el.rollout != rollout).map(|el| el.x as f64).collect();
            Some(stats(&others, cfg.ddof))
        } else {
            None
        };
        Operator { cfg, set, all, rollout, counted, fixed }
    }

    /// The elements without one equal to x, preferably the rollout's own.
    fn others_of(&self, x: f64) -> Stats {
        let own = self.set.iter().position(|el| el.rollout == self.rollout && el.x as f64 == x);
        let mut values: Vec<f64> = self.set.iter().map(|el| el.x as f64).collect();
        match own.or_else(|| values.iter().position(|&v| v == x)) {
            Some(at) => {
                values.remove(at);
                stats(&values, self.cfg.ddof)
            }
            None => {
                // x is no element (a token's own value inside a step that is scored otherwise): leave out x all the same, as the
                // sums less its own do.
                let mut squares = 0.0;
                for v in &values {
                    squares += (v - self.all.mean) * (v - self.all.mean);
                }
                let m = (values.len() - 1) as f64;
                let mean = (self.all.sum - x) / m;
                let less = squares - (x - self.all.mean) * (x - self.all.mean) - m * (mean - self.all.mean) * (mean - self.all.mean);
                let var = if m > self.cfg.ddof as f64 { less.max(0.0) / (m - self.cfg.ddof as f64) } else { 0.0 };
                Stats { n: values.len() - 1, sum: self.all.sum - x, mean, var, ..self.all }
            }
        }
    }

    pub fn apply(&self, x: f64) -> f64 {
        let (cfg, all) = (self.cfg, &self.all);
        if all.n == 0 {
            return 0.0;
        }
        let left = match self.fixed {
            Some(others) => others.n,
            None => all.n - 1,
        };
        if has_singleton_rule(cfg) && (all.n == 1 || (is_loo(cfg) && left == 0)) {
            return if cfg.singleton == Singleton::Passthrough { x } else { 0.0 };
        }
        let others_std = if cfg.scale == Scale::LeaveOneOut { Some(self.fixed.unwrap_or_else(|| self.others_of(x))) } else { None };
        match cfg.scale {
            Scale::Group if all.max == all.min => return 0.0,
            Scale::LeaveOneOut if others_std.unwrap().max == others_std.unwrap().min => return 0.0,
            Scale::AbsMax if all.absmax == 0.0 => return 0.0,
            _ => {}
        }
        let mean = match cfg.center {
            Center::None => 0.0,
            Center::Group => all.mean,
            Center::LeaveOneOut => match self.fixed {
                Some(others) => others.mean,
                None => (all.sum - x) / (all.n - 1) as f64,
            },
        };
        match cfg.scale {
            Scale::None => x - mean,
            Scale::AbsMax => (x - mean) / all.absmax,
            Scale::Group => (x - mean) * inverse(all.var, cfg.epsilon, cfg.epsilon_mode),
            Scale::LeaveOneOut => (x - mean) * inverse(others_std.unwrap().var, cfg.epsilon, cfg.epsilon_mode),
        }
    }
}
