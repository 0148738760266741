//! From the typed plan, batch and outputs to the kernels' structs: numbers of the choices, addresses of the views.
use super::args::*;
use crate::model::array::{self, DType};
use crate::model::batch::{Extents, Groups, Problem, Process};
use crate::model::config::{self, Choice};
use crate::model::outputs;
use crate::plan::Plan;

/// Numbers of `PASSRL_DTYPE_*`, as in kernels/args.cuh.
fn dtype(of: DType) -> i32 {
    match of {
        DType::F64 => 1,
        DType::F32 => 2,
        DType::F16 => 3,
        DType::Bf16 => 4,
        DType::I64 => 5,
        DType::I32 => 6,
        DType::U8 => 7,
        DType::Bool => 8,
    }
}

fn array(a: &array::Array) -> Array {
    Array {
        data: a.data.addr() as u64,
        stride: a.stride.map(|n| n as i64),
        dtype: dtype(a.dtype),
        reserved: 0,
    }
}

pub fn optional(a: Option<array::Array>) -> Array {
    a.as_ref().map_or(Array::NOTHING, array)
}

/// A row of the stream table.
pub fn stream(s: &config::Stream) -> Stream {
    Stream {
        weight: s.weight,
        epsilon: s.epsilon,
        clip_value: s.clip_value,
        clip_standardized: s.clip_standardized,
        center: s.center.number() as i8,
        scale: s.scale.number() as i8,
        ddof: s.ddof as i8,
        epsilon_mode: s.epsilon_mode.number() as i8,
        loo_unit: s.loo_unit.number() as i8,
        singleton: s.singleton.number() as i8,
        missing: s.missing.number() as i8,
        place: s.place.number() as i8,
        zero_variance: s.zero_variance.number() as i8,
        count_by: s.count_by.number() as i8,
        reserved: [0; 6],
    }
}

/// `divisors`: the table's address in device memory.
pub fn constants(plan: &Plan, divisors: u64) -> PlanConstants {
    let (c, l, s) = (&plan.config, &plan.limits, &plan.slots);
    let of_slot = |of: &dyn Fn(usize) -> i32| std::array::from_fn(|slot| if slot < s.count { of(slot) as i8 } else { -1 });
    PlanConstants {
        streams: std::array::from_fn(|row| stream(&c.streams[row])),
        opd_lambda: c.opd_lambda,
        eta: c.eta,
        gamma: c.gamma,
        lam: c.lam,
        k: c.k,
        temperature: c.temperature,
        whiten_epsilon: c.whiten_epsilon,
        clip: c.clip,
        kl_coef: c.kl_coef,
        kl_log_ratio_clamp: c.kl_log_ratio_clamp,
        kl_clamp: c.kl_clamp,
        lam_returns: c.lam_returns,
        lam_length_alpha: c.lam_length_alpha,
        step_gamma: c.step_gamma,
        rho_clip: c.rho_clip,
        c_clip: c.c_clip,
        decay: plan.decay,
        divisors,
        near_divisors: std::array::from_fn(|n| plan.divisors.iter().rev().nth(n).copied().unwrap_or(0.0)),
        max_rollouts: l.rollouts as i64,
        max_groups: l.groups as i64,
        max_tokens: l.tokens as i64,
        max_rollout_tokens: l.rollout_tokens as i64,
        max_steps: l.steps as i64,
        num_process: c.num_process as i32,
        num_extra: c.num_extra as i32,
        kind: c.kind.number(),
        pool: c.pool.number(),
        fusion: c.fusion.number(),
        chunk: c.chunk.number(),
        boundary_rule: c.boundary_rule.number(),
        merge_equal_steps: c.merge_equal_steps.into(),
        average_over: c.average_over.number(),
        bridge_scope_gaps: c.bridge_scope_gaps.into(),
        chunk_value: c.chunk_value.number(),
        credit: c.credit.number(),
        divide_scope: c.divide_scope.number(),
        whiten: c.whiten.number(),
        whiten_ddof: c.whiten_ddof,
        whiten_epsilon_mode: c.whiten_epsilon_mode.number(),
        whiten_shift: c.whiten_shift.into(),
        fill_padding: c.fill_padding.into(),
        kl_in_reward: c.kl_in_reward.number(),
        kl_place: c.kl_place.number(),
        scan_mask: c.scan_mask.number(),
        gae_over: c.gae_over.number(),
        divide_by: c.divide_by.number(),
        step_sets: c.step_sets.number(),
        step_value: c.step_value.number(),
        token_baseline: c.token_baseline.number(),
        asks_kl: c.asks_kl().into(),
        kl_by_token: c.kl_by_token().into(),
        credits_tokens: c.credits_tokens().into(),
        spreads: c.spreads().into(),
        slots: s.count as i32,
        sets: s.sets as i32,
        joint: s.joint.into(),
        lists: s.lists as i32,
        shaped: s.shaped.into(),
        slots_batch: s.batch,
        slots_runner_up: s.runner_up,
        slot_row: of_slot(&|slot| s.row(slot) as i32),
        slot_reported: of_slot(&|slot| s.reported(slot).map_or(-1, |row| row as i32)),
        slot_bits: of_slot(&|slot| plan.bits(slot)),
        has_values: (plan.workspace.values.count > 0).into(),
        has_token_values: (plan.workspace.token_values.count > 0).into(),
        reserved: 0,
    }
}

pub fn batch(p: &Problem) -> Batch {
    let mut b = Batch {
        rollouts: p.rollouts as i64,
        groups: p.groups as i64,
        slots: p.slots as i64,
        steps: p.steps.map_or(0, |s| s.ends.shape[0] as i64),
        num_process: p.num_process as i32,
        scores_flat: p.scores_flat.into(),
        mask: optional(p.mask),
        rollout_streams: p.rollout_streams.map(optional),
        format_ok: optional(p.format_ok),
        in_stats: optional(p.in_stats),
        absent: optional(p.absent),
        bootstrap: optional(p.bootstrap),
        step_offsets: optional(p.steps.map(|s| s.offsets)),
        step_ends: optional(p.steps.map(|s| s.ends)),
        step_begins: optional(p.steps.and_then(|s| s.begins)),
        step_marks: optional(p.step_marks),
        chunk_marks: optional(p.chunk_marks),
        step_group: optional(p.step_group),
        values: optional(p.values),
        token_rewards: optional(p.token_rewards),
        baselines: optional(p.baselines),
        stats_mean: optional(p.stats_mean),
        stats_std: optional(p.stats_std),
        rollout_lam: optional(p.rollout_lam),
        logp_reference: optional(p.reference.map(|r| r.1)),
        logp_behavior: optional(p.behavior.map(|r| r.1)),
        sum_pi_squared: optional(p.baseline_inputs.map(|b| b.sum_pi_squared)),
        token_ratio: optional(p.baseline_inputs.and_then(|b| b.ratio)),
        ..Batch::NOTHING
    };
    (b.layout, b.extents) = match p.extents {
        Extents::Packed { cu_seqlens } => (0, array(&cu_seqlens)),
        Extents::Padded { lengths, pad_left } => (if pad_left { 2 } else { 1 }, optional(lengths)),
    };
    match p.grouping {
        Groups::Index(index) => (b.grouping, b.group_view) = (0, array(&index)),
        Groups::Offsets(offsets) => (b.grouping, b.group_view) = (1, array(&offsets)),
        Groups::Constant(size) => (b.grouping, b.group_size) = (2, size as i64),
    }
    // The policy's log-probabilities are one array of the batch, whatever reads them.
    let policy = p.reference.or(p.behavior).map(|pair| pair.0).or(p.baseline_inputs.map(|inputs| inputs.policy));
    b.logp_policy = optional(policy);
    match p.process {
        Process::None => b.process = 0,
        Process::Signal(arrays) => (b.process, b.signal) = (1, arrays.map(optional)),
        Process::LogProbs { policy, teacher, base } => {
            b.process = 2;
            (b.logp_policy, b.logp_teacher, b.logp_base) = (array(&policy), array(&teacher), optional(base));
        }
        Process::Scores(scores) => (b.process, b.scores) = (3, array(&scores)),
        Process::Returns => b.process = 4,
    }
    b
}

pub fn outputs(o: &outputs::Outputs) -> Outputs {
    Outputs {
        advantages: array(&o.advantages),
        returns: optional(o.returns),
        path_scores: optional(o.path_scores),
        num_chunks: optional(o.num_chunks),
        chunk_ends: optional(o.chunk_ends),
        chunk_values: optional(o.chunk_values),
        stats_count: optional(o.stats_count),
        stats_mean: optional(o.stats_mean),
        stats_std: optional(o.stats_std),
        stats_absmax: optional(o.stats_absmax),
        group_flags: optional(o.group_flags),
        rollout_flags: optional(o.rollout_flags),
        report: o.report_at,
    }
}
