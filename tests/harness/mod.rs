//! Runs cases of the table through the shipped shared library, by its C ABI alone: any layout, types, threads, micro-batches.

mod arrays;
pub mod device;
pub mod fence;
mod library;
mod slices;

pub use arrays::Floats;
pub use library::{Library, Plan, library};
pub use slices::{Outputs, Sliced, empty, gather, in_given_slices, in_slices};

use crate::cases::Case;
use crate::oracle::{self, Batch, Config, LogProbs, Rollout};
use arrays::{Arena, Layout};
use half::{bf16, f16};
use passrl::abi::constants::*;
use passrl::abi::types::*;
use std::ptr::null;

/// How a case is put before the library.
#[derive(Clone, Copy, Debug)]
pub struct How {
    pub padded: bool,
    pub pad_left: bool,
    /// Slots of a padded row beyond the longest rollout.
    pub spare: usize,
    /// Elements between neighbouring tokens of token-shaped inputs (packed) or rows (padded): 1 = dense.
    pub stride: usize,
    /// Type of masks, of the signal and per-rollout streams (f32 unless the case's values fit), of the advantages.
    pub mask: i32,
    pub output: Floats,
    pub wide_offsets: bool,
    pub groups_as: GroupsAs,
    pub threads: i32,
    pub simd: i32,
    pub small_call_bytes: i64,
    /// Byte that outputs and workspace are filled with before the run.
    pub dirt: u8,
    pub in_place: bool,
    /// Advantages, path scores and chunk counts alone are asked for.
    pub lean: bool,
    /// With `lean`: and the report.
    pub reports: bool,
    /// No count, mean, deviation or flag of a group is asked for.
    pub without_counts: bool,
    /// Float inputs in the other type: f64 for f32, and f32 for log-probabilities that it holds exactly.
    pub other_floats: bool,
    /// On device memory, by the CUDA backend (`harness::device`).
    pub cuda: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GroupsAs {
    Index,
    /// Where the rollouts come sorted by group; else an index all the same.
    Offsets,
    /// Where they come sorted and all groups are of one size; else as `Offsets`.
    Constant,
}

impl Default for How {
    fn default() -> How {
        How {
            padded: false,
            pad_left: false,
            spare: 0,
            stride: 1,
            mask: PASSRL_U8,
            output: Floats::F64,
            wide_offsets: false,
            groups_as: GroupsAs::Index,
            threads: 1,
            simd: PASSRL_SIMD_BEST,
            small_call_bytes: 0,
            dirt: 0xa5,
            in_place: false,
            lean: false,
            reports: false,
            without_counts: false,
            other_floats: false,
            cuda: false,
        }
    }
}

/// What came back, by rollout and group of the case.
#[derive(Clone, Debug)]
pub struct Got {
    pub status: i32,
    pub message: String,
    pub advantages: Vec<Vec<f64>>,
    pub returns: Vec<Vec<f64>>,
    pub path_scores: Vec<f64>,
    pub num_chunks: Vec<usize>,
    pub chunk_ends: Vec<Vec<i64>>,
    pub chunk_values: Vec<Vec<f64>>,
    /// `[group][stream table row]`: count, mean, std, absmax.
    pub stats: Vec<Vec<(i64, f64, f64, f64)>>,
    pub group_flags: Vec<Vec<i32>>,
    pub rollout_flags: Vec<i32>,
    pub report: passrl_report,
    /// Are the slots that no rollout has 0?
    pub padding_is_zero: bool,
}

impl Got {
    /// All that must be equal to the bit between two ways of running a case (sums of the report and flags of the call aside).
    pub fn bits(&self) -> Vec<u64> {
        let floats = |rows: &[Vec<f64>]| rows.iter().flatten().map(|x| x.to_bits()).collect::<Vec<_>>();
        let mut all = floats(&self.advantages);
        all.extend(floats(&self.returns));
        all.extend(self.path_scores.iter().map(|x| x.to_bits()));
        all.extend(self.num_chunks.iter().map(|k| *k as u64));
        all.extend(self.chunk_ends.iter().flatten().map(|e| *e as u64));
        all.extend(floats(&self.chunk_values));
        all
    }
}

/// The library's configuration of a case.
pub fn config(library: &Library, cfg: &Config) -> passrl_config {
    let mut c = library.config("pass");
    c.num_process = cfg.process.len() as i32;
    c.num_extra = cfg.others.len() as i32;
    c.kind = cfg.kind as i32;
    c.pool = cfg.pool as i32;
    c.fusion = cfg.fusion as i32;
    c.chunk = cfg.chunk as i32;
    c.boundary_rule = cfg.boundary_rule as i32;
    c.merge_equal_steps = cfg.merge_equal_steps as i32;
    c.average_over = cfg.average_over as i32;
    c.bridge_scope_gaps = cfg.bridge_scope_gaps as i32;
    c.chunk_value = cfg.chunk_value as i32;
    c.credit = cfg.credit as i32;
    c.divide_scope = cfg.divide_scope as i32;
    c.whiten = cfg.whiten as i32;
    c.whiten_ddof = cfg.whiten_ddof as i32;
    c.whiten_epsilon_mode = cfg.whiten_epsilon_mode as i32;
    c.whiten_shift = cfg.whiten_shift as i32;
    c.fill_padding = cfg.fill_padding as i32;
    c.strict = cfg.strict as i32;
    (c.opd_lambda, c.eta, c.gamma, c.lam, c.k) = (cfg.opd_lambda, cfg.eta, cfg.gamma, cfg.lam, cfg.k);
    (c.temperature, c.whiten_epsilon, c.clip) = (cfg.temperature, cfg.whiten_epsilon, cfg.clip);
    let rows = cfg.process.iter().enumerate().chain([(PASSRL_STREAM_OUTCOME, &cfg.outcome), (PASSRL_STREAM_FORMAT, &cfg.format)]);
    for (row, s) in rows.chain(cfg.others.iter().enumerate().map(|(x, s)| (PASSRL_STREAM_EXTRA + x, s))) {
        let to = &mut c.streams[row];
        (to.weight, to.epsilon, to.center, to.ddof) = (s.weight, s.epsilon, s.center as i32, s.ddof as i32);
        to.scale = if s.scale == oracle::Scale::AbsMax { PASSRL_SCALE_ABS_MAX } else { s.scale as i32 };
        (to.epsilon_mode, to.loo_unit) = (s.epsilon_mode as i32, s.loo_unit as i32);
        (to.singleton, to.missing) = (s.singleton as i32, s.missing as i32);
        (to.place, to.zero_variance, to.count_by) = (s.place as i32, s.zero_variance as i32, s.count_by as i32);
        (to.clip_value, to.clip_standardized) = (s.clip_value, s.clip_standardized);
    }
    (c.kl_in_reward, c.kl_place, c.scan_mask) = (cfg.kl_in_reward as i32, cfg.kl_place as i32, cfg.scan_mask as i32);
    (c.kl_coef, c.kl_log_ratio_clamp, c.kl_clamp) = (cfg.kl_coef, cfg.kl_log_ratio_clamp, cfg.kl_clamp);
    (c.gae_over, c.divide_by) = (cfg.gae_over as i32, cfg.divide_by as i32);
    (c.lam_returns, c.lam_length_alpha) = (cfg.lam_returns, cfg.lam_length_alpha);
    (c.step_sets, c.step_value, c.step_gamma) = (cfg.step_sets as i32, cfg.step_value as i32, cfg.step_gamma);
    (c.rho_clip, c.c_clip) = (cfg.rho_clip, cfg.c_clip);
    c.token_baseline = cfg.token_baseline as i32;
    c
}

/// Does the library take the configuration's groups in pieces? Sets of steps of equal state and baselines a token need whole groups in one call.
pub fn in_pieces(cfg: &Config) -> bool {
    cfg.step_sets == oracle::StepSets::Group && cfg.token_baseline == oracle::TokenBaseline::None
}

/// Limits that just hold a batch in one layout.
pub fn limits(batch: &Batch, how: &How) -> passrl_limits {
    let layout = Layout::of(batch, how);
    let steps: usize = batch.rollouts.iter().map(|r| r.step_ends.as_ref().map_or(0, Vec::len)).sum();
    let mut limits: passrl_limits = library().initial();
    limits.rollouts = batch.rollouts.len() as i64;
    limits.groups = batch.num_groups as i64;
    limits.tokens = layout.slots_in_all() as i64;
    limits.rollout_tokens = layout.longest.max(1) as i64;
    limits.steps = steps.max(1) as i64;
    limits.group_elements = limits.tokens.clamp(1, (1 << 17) - 1);
    limits
}

/// A batch in memory, as the library will see it.
pub struct Placed<'b> {
    pub batch: passrl_batch,
    pub arena: Arena,
    pub layout: Layout,
    of: &'b Batch,
    signal: Option<usize>,
}

impl Placed<'_> {
    /// From here on a write to an input ends the test, where its memory is fenced.
    pub fn seal(&self) {
        self.arena.memory.iter().for_each(|block| fence::seal(block.at, block.bytes()));
    }
}

fn any<T>(batch: &Batch, of: impl Fn(&Rollout) -> Option<T>) -> bool {
    batch.rollouts.iter().any(|r| of(r).is_some())
}

/// Does the library serve the configuration? (The oracle has no limit of streams, and ignores a `divide_scope` that the library refuses.)
pub fn served(cfg: &Config) -> bool {
    fits(cfg) && !not_yet(cfg)
}

fn fits(cfg: &Config) -> bool {
    let apart = cfg.divide_scope == oracle::DivideScope::Process;
    let nothing_to_part = cfg.fusion != oracle::Fusion::Advantage || cfg.has_values();
    cfg.others.len() <= PASSRL_MAX_EXTRA && !(apart && nothing_to_part)
}

/// Does the library say of a setting that a later version will serve it?
pub fn not_yet(cfg: &Config) -> bool {
    let (library, how) = (library(), How::default());
    if !fits(cfg) {
        return false;
    }
    let plan = library.plan(&config(library, cfg), &limits(&Batch::default(), &how), &how);
    plan.is_err_and(|(status, _)| status == passrl::abi::status::PASSRL_ERR_NOT_YET)
}

/// The cases that the library serves; names on one line those that it will serve later, so that no test passes over them in silence.
pub fn serve(cases: Vec<Case>) -> Vec<Case> {
    let (later, now): (Vec<Case>, Vec<Case>) = cases.into_iter().filter(|c| fits(&c.cfg)).partition(|c| not_yet(&c.cfg));
    if !later.is_empty() {
        let names: Vec<&str> = later.iter().map(|c| c.name).collect();
        println!("SKIPPED: settings not served yet, {} cases: {}", names.len(), names.join(" "));
    }
    now
}

/// Which inputs some rollout has: which the batch gives.
pub fn forms(rollouts: &[Rollout]) -> Vec<bool> {
    type Given = fn(&Rollout) -> bool;
    let forms: [Given; 21] = [
        |r| r.outcome.is_some(),
        |r| r.format.is_some(),
        |r| r.format_ok.is_some(),
        |r| !r.signal.is_empty(),
        |r| r.logp.is_some(),
        |r| r.logp.as_ref().is_some_and(|l| l.base.is_some()),
        |r| r.step_ends.is_some(),
        |r| r.step_begins.is_some(),
        |r| !r.step_scores.is_empty(),
        |r| r.step_marks.is_some(),
        |r| r.values.is_some(),
        |r| r.chunk_ends.is_some(),
        |r| r.token_rewards.is_some(),
        |r| r.baseline.is_some(),
        |r| r.lam.is_some(),
        |r| r.logp_policy.is_some(),
        |r| r.logp_reference.is_some(),
        |r| r.logp_behavior.is_some(),
        |r| r.step_group.is_some(),
        |r| r.sum_pi_squared.is_some(),
        |r| r.token_ratio.is_some(),
    ];
    forms.iter().map(|given| rollouts.iter().any(given)).collect()
}

/// Puts a batch into memory. Slots that no rollout has, and values that a case leaves out, are NaN or -1: nothing may read them.
pub fn place<'b>(cfg: &Config, batch: &'b Batch, how: &How) -> Placed<'b> {
    let layout = Layout::of(batch, how);
    let mut arena = Arena::default();
    arena.other_floats = how.other_floats;
    let mut b: passrl_batch = library().initial();
    let rollouts = &batch.rollouts;
    b.num_rollouts = rollouts.len() as i64;
    b.num_groups = batch.num_groups as i64;
    b.layout = if how.padded { PASSRL_PADDED } else { PASSRL_PACKED };
    b.pad_side = if how.pad_left { PASSRL_PAD_LEFT } else { PASSRL_PAD_RIGHT };
    let ints = |values: &[i64]| if how.wide_offsets { Ints::Wide(values.to_vec()) } else { Ints::Narrow(values.iter().map(|x| *x as i32).collect()) };
    if how.padded {
        b.row_tokens = layout.row as i64;
        b.lengths = arena.ints(&ints(&rollouts.iter().map(|r| r.len as i64).collect::<Vec<_>>()));
    } else {
        b.cu_seqlens = arena.ints(&ints(&layout.offsets.iter().map(|o| *o as i64).collect::<Vec<_>>()));
    }
    let groups: Vec<i64> = rollouts.iter().map(|r| r.group as i64).collect();
    let each = groups.len() / batch.num_groups.max(1);
    if how.groups_as == GroupsAs::Constant && each > 0 && groups.len() == each * batch.num_groups && (0..groups.len()).all(|i| groups[i] == (i / each) as i64) {
        (b.num_groups, b.group_size) = (0, each as i64);
    } else if how.groups_as != GroupsAs::Index && groups.is_sorted() {
        let offsets: Vec<i64> = (0..=batch.num_groups).map(|g| groups.partition_point(|x| *x < g as i64) as i64).collect();
        b.group_offsets = arena.ints(&ints(&offsets));
    } else {
        b.group_index = arena.ints(&ints(&groups));
    }
    let f32s = |of: &dyn Fn(&Rollout) -> Option<f32>| rollouts.iter().map(|r| of(r).unwrap_or(f32::NAN)).collect::<Vec<_>>();
    let flags = |of: &dyn Fn(&Rollout) -> bool| rollouts.iter().map(|r| of(r)).collect::<Vec<_>>();
    if any(batch, |r| r.outcome) {
        b.outcome = arena.line(&f32s(&|r| r.outcome));
    }
    if any(batch, |r| r.format) {
        b.format = arena.line(&f32s(&|r| r.format));
    }
    for x in 0..rollouts.iter().map(|r| r.others.len()).max().unwrap_or(0) {
        b.extra[x] = arena.line(&f32s(&|r| r.others.get(x).copied()));
    }
    if any(batch, |r| r.format_ok) {
        b.format_ok = arena.flags(&flags(&|r| r.format_ok.unwrap_or(true)), how.mask);
    }
    if rollouts.iter().any(|r| !r.in_stats) {
        b.in_stats = arena.flags(&flags(&|r| r.in_stats), how.mask);
    }
    if rollouts.iter().any(|r| r.absent) {
        b.absent = arena.flags(&flags(&|r| r.absent), how.mask);
    }
    if any(batch, |r| r.bootstrap) {
        b.bootstrap = arena.line(&f32s(&|r| Some(r.bootstrap.unwrap_or(0.0))));
    }
    if any(batch, |r| r.baseline) {
        b.baselines = arena.line(&f32s(&|r| r.baseline));
    }
    if any(batch, |r| r.lam) {
        b.rollout_lam = arena.line(&f32s(&|r| r.lam));
    }
    for (view, lines) in [(&mut b.stats_mean, &batch.stats_mean), (&mut b.stats_std, &batch.stats_std)] {
        if let Some(lines) = lines {
            *view = arena.statistics(lines, batch.num_groups, how);
        }
    }
    let mask = |r: &Rollout| r.mask.clone();
    if any(batch, mask) {
        b.mask = arena.token_flags(&layout, how, |i, t| rollouts[i].mask.as_ref().is_none_or(|m| m[t]));
    }
    if any(batch, |r| r.chunk_ends.clone()) {
        b.chunk_ends = arena.token_flags(&layout, how, |i, t| rollouts[i].chunk_ends.as_ref().is_some_and(|m| m[t]));
    }
    let mut signal = None;
    let logps = any(batch, |r| r.logp.clone());
    let marks = any(batch, |r| r.step_marks.clone());
    let streams = rollouts.iter().map(|r| r.signal.len()).max().unwrap_or(0);
    let ends = any(batch, |r| r.step_ends.clone());
    if logps {
        let mut wide = |of: &dyn Fn(&LogProbs) -> Option<&Vec<f64>>| {
            let there = rollouts.iter().filter_map(|r| r.logp.as_ref()).any(|l| of(l).is_some());
            if there { arena.token_f64(&layout, how, |i, t| rollouts[i].logp.as_ref().and_then(|l| of(l).map(|v| v[t]))) } else { null() }
        };
        b.logp_policy = wide(&|l| Some(&l.policy));
        b.logp_teacher = wide(&|l| Some(&l.teacher));
        b.logp_base = wide(&|l| l.base.as_ref());
    } else if streams > 0 {
        for p in 0..streams {
            let view = arena.token_signal(&layout, how, |i, t| rollouts[i].signal.get(p).map(|s| s[t]));
            b.signal[p] = view;
            if p == 0 {
                signal = Some(arena.last());
            }
        }
    }
    if marks {
        b.step_marks = arena.token_flags(&layout, how, |i, t| rollouts[i].step_marks.as_ref().is_some_and(|m| m[t]));
    } else if ends {
        let counts = |r: &Rollout| r.step_ends.as_ref().map_or(0, Vec::len) as i64;
        let mut offsets = vec![0i64];
        rollouts.iter().for_each(|r| offsets.push(offsets[offsets.len() - 1] + counts(r)));
        b.step_offsets = arena.ints(&ints(&offsets));
        let all = |of: &dyn Fn(&Rollout) -> Vec<i64>| rollouts.iter().flat_map(of).collect::<Vec<_>>();
        b.step_ends = arena.ints(&ints(&all(&|r| r.step_ends.clone().unwrap_or_default())));
        if any(batch, |r| r.step_begins.clone()) {
            b.step_begins = arena.ints(&ints(&all(&|r| r.step_begins.clone().unwrap_or_default())));
        }
        if any(batch, |r| r.step_group.clone()) {
            let numbers = all(&|r| r.step_group.clone().unwrap_or_default());
            let narrow = numbers.iter().all(|n| i32::try_from(*n).is_ok());
            b.step_group = arena.ints(&if narrow { ints(&numbers) } else { Ints::Wide(numbers) });
        }
        let scored = rollouts.iter().any(|r| !r.step_scores.is_empty()) || cfg.step_value == oracle::StepValue::Score;
        if !logps && streams == 0 && cfg.kind == oracle::Kind::Prm && scored {
            let p = rollouts.iter().map(|r| r.step_scores.len()).max().unwrap_or(1).max(1);
            let scores: Vec<f32> = (0..p).flat_map(|p| rollouts.iter().flat_map(move |r| r.step_scores.get(p).cloned().unwrap_or_default())).collect();
            b.step_scores = if p == 1 { arena.line(&scores) } else { arena.grid(&scores, p) };
        }
    }
    if any(batch, |r| r.values.clone()) {
        b.values = arena.token_f32(&layout, how, |i, t| rollouts[i].values.as_ref().map(|v| v[t]));
    }
    if any(batch, |r| r.token_rewards.clone()) {
        b.token_rewards = arena.token_f32(&layout, how, |i, t| rollouts[i].token_rewards.as_ref().map(|v| v[t]));
    }
    let mut logp = |of: fn(&Rollout) -> Option<&Vec<f64>>| {
        if rollouts.iter().any(|r| of(r).is_some()) { arena.token_f64(&layout, how, |i, t| of(&rollouts[i]).map(|v| v[t])) } else { null() }
    };
    if !logps {
        b.logp_policy = logp(|r| r.logp_policy.as_ref());
    }
    b.logp_reference = logp(|r| r.logp_reference.as_ref());
    b.logp_behavior = logp(|r| r.logp_behavior.as_ref());
    b.sum_pi_squared = logp(|r| r.sum_pi_squared.as_ref());
    b.token_ratio = logp(|r| r.token_ratio.as_ref());
    Placed { batch: b, arena, layout, of: batch, signal }
}

/// Offsets in either width.
pub enum Ints {
    Narrow(Vec<i32>),
    Wide(Vec<i64>),
}

/// Runs a case whole; the sentence of a refusal where the library refuses it.
pub fn try_run(cfg: &Config, batch: &Batch, how: &How) -> Result<Got, String> {
    let library = library();
    let plan = library.plan(&config(library, cfg), &limits(batch, how), how).map_err(|(_, message)| message)?;
    let mut placed = place(cfg, batch, how);
    if !how.in_place {
        placed.seal();
    }
    let mut sinks = slices::Outputs::new(&placed, how);
    let (status, message) = plan.run(&mut placed, &mut sinks, how);
    if status < 0 {
        return Err(message);
    }
    Ok(sinks.collect(&placed, status, message))
}

/// Runs a case whole.
pub fn run(cfg: &Config, batch: &Batch, how: &How) -> Got {
    try_run(cfg, batch, how).unwrap_or_else(|refusal| panic!("refused: {refusal}"))
}

/// Runs a case whole, with what the oracle's configuration and batch do not know: `edit` sets fields, `add` gives arrays.
pub fn run_with(cfg: &Config, batch: &Batch, how: &How, edit: &dyn Fn(&mut passrl_config), add: &dyn Fn(&mut Placed)) -> Got {
    let library = library();
    let mut config = config(library, cfg);
    edit(&mut config);
    let plan = library.plan(&config, &limits(batch, how), how).unwrap_or_else(|(status, said)| panic!("plan refused: {status} {said}"));
    let mut placed = place(cfg, batch, how);
    add(&mut placed);
    let mut outputs = Outputs::new(&placed, how);
    let (status, said) = plan.run(&mut placed, &mut outputs, how);
    assert!(status >= 0, "run refused: {status} {said}");
    outputs.collect(&placed, status, said)
}

/// Nearest value of an output type, as f64.
pub fn rounded(x: f64, to: Floats) -> f64 {
    match to {
        Floats::F64 => x,
        Floats::F32 => x as f32 as f64,
        Floats::Bf16 => bf16::from_f32(x as f32).to_f64(),
        Floats::F16 => f16::from_f32(x as f32).to_f64(),
    }
}
