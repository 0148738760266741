//! The oracle: docs/formulas.md and docs/semantics.md as slow, plain f64 loops, written from the rules and not from the library. "eq." and
//! "Algorithm" are the paper's numbers, "rule" is a number of docs/semantics.md, "§" a section of docs/formulas.md.

mod baselines;
mod chunks;
mod config;
mod credit;
mod fuse;
mod load;
mod post;
mod rewards;
mod sets;
mod shape;

pub use config::*;
pub use shape::shape;

/// Log-probabilities of one rollout's tokens; a missing `base` is OPD, a given one G-OPD.
#[derive(Clone, Debug)]
pub struct LogProbs {
    pub policy: Vec<f64>,
    pub teacher: Vec<f64>,
    pub base: Option<Vec<f64>>,
}

/// One rollout, free of any layout. What is `Some` (or not empty) must be so in all rollouts of a batch, masks excepted.
#[derive(Clone, Debug, Default)]
pub struct Rollout {
    pub len: usize,
    /// `None`: every token is in scope.
    pub mask: Option<Vec<bool>>,
    pub group: usize,
    pub outcome: Option<f32>,
    pub format: Option<f32>,
    pub format_ok: Option<bool>,
    /// One value for each row of `Config::others`.
    pub others: Vec<f32>,
    pub in_stats: bool,
    pub absent: bool,
    /// P x len: a value a token (dense, sparse, kl); empty where the batch has none.
    pub signal: Vec<Vec<f32>>,
    pub logp: Option<LogProbs>,
    pub step_ends: Option<Vec<i64>>,
    pub step_begins: Option<Vec<i64>>,
    /// P x steps: a value a step (CSR); empty where the batch has none.
    pub step_scores: Vec<Vec<f32>>,
    /// len: the tokens that end a step (sparse).
    pub step_marks: Option<Vec<bool>>,
    /// len: the tokens that end a chunk (`chunk = given`).
    pub chunk_ends: Option<Vec<bool>>,
    pub values: Option<Vec<f32>>,
    pub token_rewards: Option<Vec<f32>>,
    pub bootstrap: Option<f32>,
    /// `center = given`.
    pub baseline: Option<f32>,
    /// gae: lambda of this rollout.
    pub lam: Option<f32>,
    /// The policy's log-probabilities where `logp` does not hold them; the reference's (KL in the reward); the sampling policy's (V-trace).
    pub logp_policy: Option<Vec<f64>>,
    pub logp_reference: Option<Vec<f64>>,
    pub logp_behavior: Option<Vec<f64>>,
    /// steps: `step_sets = step_group`.
    pub step_group: Option<Vec<i64>>,
    /// `token_baseline`: the sum of the policy's squared probabilities at each token, and importance ratios.
    pub sum_pi_squared: Option<Vec<f64>>,
    pub token_ratio: Option<Vec<f64>>,
}

impl Rollout {
    pub fn policy(&self) -> &[f64] {
        match (&self.logp, &self.logp_policy) {
            (Some(logp), _) => &logp.policy,
            (None, Some(policy)) => policy,
            (None, None) => panic!("the policy's log-probabilities are asked for"),
        }
    }
}

#[derive(Clone, Debug, Default)]
pub struct Batch {
    pub num_groups: usize,
    pub rollouts: Vec<Rollout>,
    /// `center = given` and `scale = given`: a line of the table's 16 rows for each group, or one line for all.
    pub stats_mean: Option<Vec<Row16>>,
    pub stats_std: Option<Vec<Row16>>,
}

/// A number for each row of the library's table: process streams from 0, outcome 4, format 5, others from 6.
pub type Row16 = [f64; 16];

impl Batch {
    /// The same batch with other rollouts.
    pub fn with(&self, rollouts: Vec<Rollout>) -> Batch {
        Batch { num_groups: self.num_groups, rollouts, stats_mean: self.stats_mean.clone(), stats_std: self.stats_std.clone() }
    }

    /// What the caller gives for a group and a row of the configuration.
    pub fn statistic(cfg: &Config, given: &Option<Vec<Row16>>, group: usize, row: usize) -> f64 {
        let lines = given.as_ref().expect("center = given and scale = given need statistics");
        let p = cfg.process.len();
        lines[if lines.len() == 1 { 0 } else { group }][if row < p { row } else { 4 + row - p }]
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct StreamStats {
    pub count: u64,
    pub mean: f64,
    pub std: f64,
    pub absmax: f64,
}

#[derive(Clone, Debug, Default)]
pub struct RolloutOutput {
    /// Before the rounding to the output type; 0 out of scope.
    pub advantages: Vec<f64>,
    pub returns: Vec<f64>,
    pub path_score: f64,
    pub num_chunks: usize,
    /// Offset in the rollout of each chunk's last in-scope token, plus 1.
    pub chunk_ends: Vec<i64>,
    pub chunk_values: Vec<f64>,
    pub scope: Vec<bool>,
    /// Advantage forced to 0: a bad group, an absent rollout, or no stream left (rule 22).
    pub forced_zero: bool,
}

/// Counts only, as in the library's report.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Report {
    /// NaN under `missing = zero | exclude`.
    pub missing: u64,
    /// Inf anywhere, NaN under `missing = error`.
    pub nonfinite: u64,
    /// Log-probabilities below -1e4 on tokens in scope.
    pub low_logp: u64,
    pub tokens_in_scope: u64,
    pub sum_chunks: u64,
    pub clipped: u64,
}

#[derive(Clone, Debug, Default)]
pub struct Output {
    pub rollouts: Vec<RolloutOutput>,
    /// [group][stream], streams in the order of `Config::streams`.
    pub stats: Vec<Vec<StreamStats>>,
    pub bad_groups: Vec<bool>,
    /// Rollouts whose steps do not fit (a finding).
    pub bad_steps: Vec<bool>,
    pub report: Report,
}
