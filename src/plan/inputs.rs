//! The inputs of a batch that a configuration reads, by the names of `passrl_batch`; src/check/batch.rs leaves the others out.
use crate::model::config::{Center, Chunk, Config, Credit, Kind, OUTCOME, Scale, StepSets, TokenBaseline};

/// In the order of the struct; the layout and the groups, which every batch has, left out. Of a process signal's forms (`signal`, `logp_*`, `step_scores`) a batch gives one.
pub fn read(c: &Config) -> Vec<&'static str> {
    let (gae, process) = (matches!(c.credit, Credit::Gae | Credit::Vtrace), c.kind != Kind::None);
    let rows = &c.streams[..OUTCOME + 2 + c.num_extra];
    let given = rows.iter().any(|row| row.center == Center::Given || row.scale == Scale::Given);
    let baseline = c.token_baseline != TokenBaseline::None;
    [
        ("mask", true),
        ("outcome", true),
        ("format", true),
        ("extra", c.num_extra > 0),
        ("format_ok", true),
        ("in_stats", true),
        ("absent", true),
        ("baselines", c.streams[OUTCOME].center == Center::Given),
        ("bootstrap", gae),
        ("signal", process),
        ("logp_policy", process || c.asks_kl() || baseline || c.credit == Credit::Vtrace),
        ("logp_teacher", process),
        ("logp_base", process),
        ("logp_reference", c.asks_kl()),
        ("values", gae),
        ("token_rewards", gae || c.chunk == Chunk::Token),
        ("chunk_ends", c.chunk == Chunk::Given),
        ("step_offsets", true),
        ("step_ends", true),
        ("step_begins", true),
        ("step_scores", c.kind == Kind::Prm),
        ("step_marks", c.kind == Kind::Prm),
        ("step_group", c.step_sets == StepSets::StepGroup),
        ("rollout_lam", c.credit == Credit::Gae),
        ("logp_behavior", c.credit == Credit::Vtrace),
        ("stats_mean, stats_std", given),
        ("sum_pi_squared, token_ratio", baseline),
    ]
    .into_iter()
    .filter_map(|(name, read)| read.then_some(name))
    .collect()
}
