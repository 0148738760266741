//! Group standardisation N(x; S), §2.2, and the statistics of rules 48 to 53.
use super::*;

/// An element of a set: whose it is, its value, how many tokens its rollout has in scope, and the set of equal state it belongs to.
#[derive(Clone, Copy, Debug)]
pub struct Element {
    pub rollout: usize,
    pub x: f32,
    pub tokens: usize,
    pub key: i64,
}

pub fn values_of(set: &[Element]) -> Vec<f64> {
    set.iter().map(|el| el.x as f64).collect()
}

/// A stream's set over the whole batch.
#[derive(Clone, Copy, Debug, Default)]
pub struct Whole {
    pub stats: Stats,
    pub nonzero: usize,
}

pub fn whole(values: &[f64], ddof: u32) -> Whole {
    Whole { stats: stats(values, ddof), nonzero: values.iter().filter(|x| **x != 0.0).count() }
}

/// What the caller gives of a row's statistics (rule 50).
#[derive(Clone, Copy, Debug, Default)]
pub struct Given {
    pub mean: f64,
    pub std: f64,
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

/// The same of a standard deviation.
pub fn inverse_of_std(std: f64, epsilon: f64, mode: EpsilonMode) -> f64 {
    match mode {
        EpsilonMode::AddStd => 1.0 / (std + epsilon),
        EpsilonMode::FloorStd => 1.0 / std.max(epsilon),
        EpsilonMode::AddVar | EpsilonMode::FloorVar => inverse(std * std, epsilon, mode),
    }
}

pub fn is_loo(cfg: &StreamCfg) -> bool {
    cfg.center == Center::LeaveOneOut || cfg.scale == Scale::LeaveOneOut
}

/// Elements of the set that the singleton rule looks at: the centre's, else that of the standard deviation; `None`: there is no such rule.
fn singleton_count(cfg: &StreamCfg, set: &[Element], batch: &Whole) -> Option<usize> {
    match cfg.center {
        Center::Group | Center::LeaveOneOut | Center::RunnerUp => Some(set.len()),
        // The others of one element are none.
        Center::Batch if cfg.scale == Scale::LeaveOneOut && set.len() == 1 => Some(1),
        Center::Batch => Some(batch.stats.n),
        Center::LengthWeighted => Some(set.iter().filter(|el| el.tokens > 0).count()),
        Center::None | Center::Given => match cfg.scale {
            Scale::Group | Scale::LeaveOneOut => Some(set.len()),
            Scale::Batch => Some(batch.stats.n),
            _ => None,
        },
    }
}

/// Is the singleton rule met somewhere in this set? (rule 26, for `singleton = refuse`)
pub fn meets_singleton(cfg: &StreamCfg, set: &[Element], batch: &Whole) -> bool {
    let Some(count) = singleton_count(cfg, set, batch) else { return false };
    let one_rollout = !set.is_empty() && set.iter().all(|el| el.rollout == set[0].rollout);
    count == 1 || (is_loo(cfg) && cfg.loo_unit == LooUnit::Rollout && one_rollout)
}

/// Rule 49: sum(len x) / sum(len); `None` where no rollout has a token in scope.
fn length_weighted(set: &[Element]) -> Option<f64> {
    let (mut sum, mut tokens) = (0.0, 0.0);
    for el in set {
        sum += el.tokens as f64 * el.x as f64;
        tokens += el.tokens as f64;
    }
    (tokens > 0.0).then(|| sum / tokens)
}

/// The second largest of a set of two or more, counted with multiplicity.
fn runner_up(set: &[Element]) -> f64 {
    let mut values = values_of(set);
    values.sort_by(f64::total_cmp);
    values[values.len() - 2]
}

/// N(.; S) for the values of one rollout.
pub struct Operator<'a> {
    cfg: &'a StreamCfg,
    set: &'a [Element],
    all: Stats,
    batch: Whole,
    given: Given,
    rollout: usize,
    /// The rollout is in the set; one that is not leaves nothing out (rule 21).
    counted: bool,
    /// The others where they do not depend on x: another rollout's elements, or everything.
    fixed: Option<Stats>,
}

impl<'a> Operator<'a> {
    pub fn new(cfg: &'a StreamCfg, set: &'a [Element], batch: Whole, given: Given, rollout: usize, counted: bool) -> Operator<'a> {
        let all = stats(&values_of(set), cfg.ddof);
        let fixed = if !counted {
            Some(all)
        } else if cfg.loo_unit == LooUnit::Rollout {
            let others: Vec<f64> = set.iter().filter(|el| el.rollout != rollout).map(|el| el.x as f64).collect();
            Some(stats(&others, cfg.ddof))
        } else {
            None
        };
        Operator { cfg, set, all, batch, given, rollout, counted, fixed }
    }

    /// The elements without one equal to x, preferably the rollout's own.
    fn others_of(&self, x: f64) -> Stats {
        let own = self.set.iter().position(|el| el.rollout == self.rollout && el.x as f64 == x);
        let mut values = values_of(self.set);
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

    /// Rule 39: a set that is asked for and empty gives 0. `none` with `none` asks for the group's; `given` asks for none of its own.
    fn asks_an_empty_set(&self) -> bool {
        let (cfg, group, batch) = (self.cfg, self.all.n == 0, self.batch.stats.n == 0);
        let center = match cfg.center {
            Center::None => cfg.scale == Scale::None && group,
            Center::Given => false,
            Center::Batch => batch,
            Center::LengthWeighted => length_weighted(self.set).is_none(),
            Center::Group | Center::LeaveOneOut | Center::RunnerUp => group,
        };
        let scale = match cfg.scale {
            Scale::None | Scale::Given => false,
            Scale::Batch | Scale::NonzeroShare => batch,
            Scale::Group | Scale::LeaveOneOut | Scale::AbsMax | Scale::Mean => group,
        };
        center || scale
    }

    /// Rule 52.
    fn share(&self) -> f64 {
        self.batch.stats.n as f64 / self.batch.nonzero.max(1) as f64
    }

    pub fn apply(&self, x: f64) -> f64 {
        self.standardized(x).clamp(-self.cfg.clip_standardized, self.cfg.clip_standardized)
    }

    fn standardized(&self, x: f64) -> f64 {
        let (cfg, all) = (self.cfg, &self.all);
        if self.asks_an_empty_set() {
            return 0.0;
        }
        let left = match self.fixed {
            Some(others) => others.n,
            None => all.n.saturating_sub(1),
        };
        if singleton_count(cfg, self.set, &self.batch) == Some(1) || (is_loo(cfg) && left == 0) {
            return match (cfg.singleton, cfg.scale) {
                (Singleton::Passthrough, Scale::Batch) if self.batch.stats.max != self.batch.stats.min => {
                    x * inverse(self.batch.stats.var, cfg.epsilon, cfg.epsilon_mode)
                }
                (Singleton::Passthrough, Scale::NonzeroShare) => x * self.share(),
                (Singleton::Passthrough, _) => x,
                _ => 0.0,
            };
        }
        let others = if is_loo(cfg) { self.fixed.unwrap_or_else(|| self.others_of(x)) } else { Stats::default() };
        let from_center = match cfg.center {
            Center::None => x,
            Center::Given => x - self.given.mean,
            Center::Group => x - all.mean,
            Center::Batch => x - self.batch.stats.mean,
            Center::LengthWeighted => x - length_weighted(self.set).unwrap(),
            Center::RunnerUp if self.counted && x == all.max => x - runner_up(self.set),
            Center::RunnerUp => 0.0,
            Center::LeaveOneOut => match self.fixed {
                Some(others) => x - others.mean,
                None => x - (all.sum - x) / (all.n - 1) as f64,
            },
        };
        let divided_by_std = |s: &Stats| {
            if s.max != s.min {
                from_center * inverse(s.var, cfg.epsilon, cfg.epsilon_mode)
            } else if cfg.zero_variance == ZeroVariance::Center {
                from_center
            } else {
                0.0
            }
        };
        match cfg.scale {
            Scale::None => from_center,
            Scale::Group => divided_by_std(all),
            Scale::LeaveOneOut => divided_by_std(&others),
            Scale::Batch => divided_by_std(&self.batch.stats),
            Scale::Given if self.given.std != 0.0 => from_center * inverse_of_std(self.given.std, cfg.epsilon, cfg.epsilon_mode),
            Scale::Given if cfg.zero_variance == ZeroVariance::Center => from_center,
            Scale::Given => 0.0,
            Scale::AbsMax if all.absmax == 0.0 => 0.0,
            Scale::AbsMax => from_center / all.absmax,
            Scale::NonzeroShare => from_center * self.share(),
            Scale::Mean if all.max == all.min || all.mean + cfg.epsilon == 0.0 => 0.0,
            Scale::Mean => from_center / (all.mean + cfg.epsilon),
        }
    }
}
