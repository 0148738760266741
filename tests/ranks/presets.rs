//! A batch for every preset: what its configuration asks for, and nothing else.
use crate::cases::{Input, Spec, build};
use crate::harness::library;
use crate::oracle::{Batch, Config};
use passrl::abi::constants::*;
use passrl::abi::types::passrl_config;
use std::ffi::{CStr, c_char};

pub struct Preset {
    pub name: String,
    pub config: passrl_config,
    /// What the harness reads of it to place a batch.
    pub cfg: Config,
    pub batch: Batch,
    seed: u64,
}

impl Preset {
    /// The same with rollouts of several tiles of the scan, gaps in all of them, to be cut.
    pub fn longer(&self) -> Preset {
        preset(self.name.clone(), self.seed, Some(80))
    }
}

/// Rows of the stream table that the configuration has.
fn rows(c: &passrl_config) -> impl Iterator<Item = usize> {
    let process = if c.kind == PASSRL_KIND_NONE { 0 } else { c.num_process as usize };
    let (process, extra) = (0..process, PASSRL_STREAM_EXTRA..PASSRL_STREAM_EXTRA + c.num_extra as usize);
    process.chain([PASSRL_STREAM_OUTCOME, PASSRL_STREAM_FORMAT]).chain(extra)
}

#[allow(dead_code)]
/// Do advantages depend on statistics of a group or of the batch?
pub fn has_statistics(c: &passrl_config) -> bool {
    let of_set = |row: &usize| c.streams[*row].center != PASSRL_CENTER_NONE || c.streams[*row].scale != PASSRL_SCALE_NONE;
    c.whiten != PASSRL_WHITEN_NONE || of_whole_groups(c) || rows(c).any(|row| of_set(&row))
}

/// Must a group be whole in one call?
pub fn of_whole_groups(c: &passrl_config) -> bool {
    c.step_sets == PASSRL_STEP_SETS_STEP_GROUP || c.token_baseline != PASSRL_TOKEN_BASELINE_NONE
}

/// Every preset of the library, with a batch of its own.
pub fn all() -> Vec<Preset> {
    let count = library().get::<unsafe extern "C" fn() -> i32>("passrl_preset_count");
    let name = library().get::<unsafe extern "C" fn(i32) -> *const c_char>("passrl_preset_name");
    // SAFETY: numbers below the count; names are zero-terminated and static.
    let names = (0..unsafe { count() }).map(|i| unsafe { CStr::from_ptr(name(i)) }.to_str().expect("text").to_string());
    names.enumerate().map(|(i, name)| preset(name, i as u64, None)).collect()
}

fn preset(name: String, seed: u64, longer: Option<usize>) -> Preset {
    let mut config = library().config(&name);
    let joint = matches!(config.fusion, PASSRL_FUSION_REWARD_SHAPING | PASSRL_FUSION_POOLED);
    config.num_extra = if joint { 0 } else { 1 };
    // A preset names the divergence; the coefficient is the run's.
    let kl = config.kl_in_reward != PASSRL_KL_NONE;
    config.kl_coef = if kl { 0.05 } else { 0.0 };
    let valued = matches!(config.credit, PASSRL_CREDIT_GAE | PASSRL_CREDIT_VTRACE);
    let center_given = rows(&config).any(|row| config.streams[row].center == PASSRL_CENTER_GIVEN);
    let spec = Spec {
        seed: 0x9a55 + seed,
        input: match config.kind {
            PASSRL_KIND_PRM => Input::Csr,
            PASSRL_KIND_KL if seed % 2 == 0 || kl => Input::KlSignal,
            PASSRL_KIND_KL => Input::KlOpd,
            _ if config.chunk == PASSRL_CHUNK_STEP => Input::NothingSteps,
            _ => Input::Nothing,
        },
        sizes: if longer.is_some() { vec![4, 3, 1, 5] } else { vec![4, 3, 8, 1, 5, 2, 6] },
        interleave: true,
        max_len: longer.unwrap_or(24),
        others: config.num_extra as usize,
        ok: config.streams[PASSRL_STREAM_FORMAT].weight != 0.0,
        format: config.streams[PASSRL_STREAM_FORMAT].weight != 0.0,
        holes: if longer.is_none() && config.scan_mask == PASSRL_SCAN_MASK_NONE { 0.0 } else { 0.1 },
        quantised: seed % 3 == 0,
        values: valued,
        bootstrap: config.credit == PASSRL_CREDIT_GAE,
        baselines: center_given,
        reference: kl,
        step_group: config.step_sets == PASSRL_STEP_SETS_STEP_GROUP,
        unscored: config.step_value == PASSRL_STEP_VALUE_RETURN_TO_GO,
        sum_pi_squared: config.token_baseline != PASSRL_TOKEN_BASELINE_NONE,
        behavior: config.credit == PASSRL_CREDIT_VTRACE,
        ..Spec::default()
    };
    let (cfg, mut batch) = build(&spec);
    let given = |asked: bool, x: f64| asked.then(|| (0..batch.num_groups).map(|g| [x + 0.125 * g as f64; 16]).collect::<Vec<_>>());
    let others_given = rows(&config).any(|row| row != PASSRL_STREAM_OUTCOME && config.streams[row].center == PASSRL_CENTER_GIVEN);
    let scale_given = rows(&config).any(|row| config.streams[row].scale == PASSRL_SCALE_GIVEN);
    (batch.stats_mean, batch.stats_std) = (given(others_given, 0.25), given(scale_given, 1.5));
    Preset { name, config, cfg, batch, seed }
}
