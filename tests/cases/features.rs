//! Each feature alone, on a ragged batch of ordinary values.
use super::build::*;
use super::{case, Case};
use crate::oracle::*;
use Input::*;

fn spec(input: Input) -> Spec {
    Spec::of(input)
}

fn loo(cfg: &mut Config, scale: Scale, unit: LooUnit) {
    for row in cfg.streams_mut() {
        (row.center, row.scale, row.loo_unit) = (Center::LeaveOneOut, scale, unit);
    }
}

pub fn cases() -> Vec<Case> {
    let mut table = inputs();
    table.extend(operators());
    table.extend(chunking());
    table.extend(kl());
    table.extend(fusion());
    table.extend(credit());
    table.extend(post());
    table
}

fn inputs() -> Vec<Case> {
    vec![
        case("eta_is_a_difference_dense", spec(Dense), |c, _| c.eta = 0.25),
        case("eta_is_a_difference_csr", spec(Csr).holes(), |c, _| (c.eta, c.merge_equal_steps, c.bridge_scope_gaps) = (0.25, true, true)),
        case("eta_0_csr", spec(Csr), |c, _| (c.eta, c.merge_equal_steps) = (0.0, true)),
        case("csr", spec(Csr), |_, _| {}),
        case("csr_holes", spec(Csr).holes(), |_, _| {}),
        case("csr_begins", Spec { begins: true, ..spec(Csr).holes() }, |_, _| {}),
        case("csr_interleaved_uneven", Spec { interleave: true, ..spec(Csr).sizes(&[1, 7, 2, 5, 3]) }, |_, _| {}),
        case("csr_two_streams", spec(Csr).streams(2), |c, _| c.process[1].weight = 0.5),
        case("csr_four_streams_continuous", spec(Csr).streams(4).continuous(), |c, _| {
            c.process[1].weight = -0.5;
            c.process[2].standardize(Standardize::AbsMax);
            c.process[3].standardize(Standardize::LeaveOneOut);
        }),
        case("dense_ends", spec(DenseEnds).holes(), |_, _| {}),
        case("dense_ends_begins", Spec { begins: true, ..spec(DenseEnds) }, |_, _| {}),
        case("dense", spec(Dense), |_, _| {}),
        case("dense_holes_two_streams", spec(Dense).holes().streams(2), |_, _| {}),
        case("dense_bridge", spec(Dense).holes(), |c, _| c.bridge_scope_gaps = true),
        case("dense_anchored_eta", spec(Dense).continuous(), |c, _| {
            (c.eta, c.boundary_rule) = (0.8, BoundaryRule::Anchored);
        }),
        case("sparse", spec(Sparse), |_, _| {}),
        case("sparse_holes", spec(Sparse).holes(), |_, _| {}),
        case("sparse_score_zero_is_a_score", spec(Sparse), |_, b| {
            b.rollouts.iter_mut().for_each(|r| r.signal[0].iter_mut().step_by(2).for_each(|v| *v = 0.0));
        }),
        case("opd_steps", spec(OpdSteps).holes(), |_, _| {}),
        case("opd_steps_continuous", spec(OpdSteps).continuous(), |_, _| {}),
        case("gopd_steps", spec(GOpdSteps), |_, _| {}),
        case("gopd_steps_lambda_1", Spec { begins: true, ..spec(GOpdSteps).continuous() }, |c, _| c.opd_lambda = 1.0),
        case("pool_tokens_csr", spec(Csr).holes(), |c, _| c.pool = Pool::Tokens),
        case("pool_tokens_dense_ends", spec(DenseEnds), |c, _| c.pool = Pool::Tokens),
        case("pool_tokens_dense", spec(Dense), |c, _| c.pool = Pool::Tokens),
        case("kind_none", spec(Nothing), |_, _| {}),
        case("kind_none_steps", spec(NothingSteps), |c, _| c.chunk = Chunk::Step),
        case("kind_none_no_format", Spec { format: false, ok: false, ..spec(Nothing) }, |_, _| {}),
        case("process_alone", Spec { outcome: false, format: false, ok: false, ..spec(Csr) }, |_, _| {}),
    ]
}

fn operators() -> Vec<Case> {
    let all = |op: Standardize| move |c: &mut Config, _: &mut Batch| c.set_standardize_all(op);
    let continuous = || spec(Csr).continuous();
    let modes = |mode: EpsilonMode, epsilon: f64| {
        move |c: &mut Config, _: &mut Batch| {
            for row in c.streams_mut() {
                (row.epsilon_mode, row.epsilon) = (mode, epsilon);
            }
        }
    };
    vec![
        case("op_mean_std_continuous", continuous(), |_, _| {}),
        case("op_abs_max", continuous(), all(Standardize::AbsMax)),
        case("op_mean", continuous(), all(Standardize::Mean)),
        case("op_leave_one_out", continuous(), all(Standardize::LeaveOneOut)),
        case("op_none", continuous(), all(Standardize::None)),
        case("op_none_center_group_scale", continuous(), |c, _| c.streams_mut().into_iter().for_each(|r| r.center = Center::None)),
        case("op_loo_rollout", continuous(), |c, _| loo(c, Scale::None, LooUnit::Rollout)),
        case("op_loo_group_std", continuous(), |c, _| loo(c, Scale::Group, LooUnit::Element)),
        case("op_loo_std_of_others", continuous(), |c, _| loo(c, Scale::LeaveOneOut, LooUnit::Element)),
        case("op_loo_std_of_other_rollouts", continuous(), |c, _| loo(c, Scale::LeaveOneOut, LooUnit::Rollout)),
        case("op_loo_ties", spec(Csr), |c, _| loo(c, Scale::LeaveOneOut, LooUnit::Element)),
        case("op_process_alone_abs_max", continuous(), |c, _| c.set_standardize_process(Standardize::AbsMax)),
        case("op_ddof_0", continuous(), |c, _| c.streams_mut().into_iter().for_each(|r| r.ddof = 0)),
        case("op_add_var", continuous(), modes(EpsilonMode::AddVar, 1e-3)),
        case("op_floor_std", continuous(), modes(EpsilonMode::FloorStd, 0.9)),
        case("op_floor_var", continuous(), modes(EpsilonMode::FloorVar, 0.9)),
        case("op_epsilon_0", continuous(), modes(EpsilonMode::AddStd, 0.0)),
        case("op_weights", continuous(), |c, _| {
            (c.process[0].weight, c.outcome.weight, c.format.weight) = (0.3, 1.7, 0.0);
        }),
    ]
}

fn chunking() -> Vec<Case> {
    let mode = |chunk: Chunk| move |c: &mut Config, _: &mut Batch| c.chunk = chunk;
    vec![
        case("chunk_step_holes", spec(Csr).holes(), mode(Chunk::Step)),
        case("chunk_token_holes", spec(Csr).holes(), mode(Chunk::Token)),
        case("chunk_none_holes", spec(Csr).holes(), mode(Chunk::None)),
        case("chunk_given_holes", Spec { chunk_marks: true, ..spec(Csr).holes() }, mode(Chunk::Given)),
        case("chunk_given_without_marks", spec(Csr), |c, b| {
            c.chunk = Chunk::Given;
            b.rollouts.iter_mut().for_each(|r| r.chunk_ends = Some(vec![false; r.len]));
        }),
        case("chunk_step_dense", spec(Dense).holes(), mode(Chunk::Step)),
        case("chunk_step_sparse", spec(Sparse).holes(), mode(Chunk::Step)),
        case("chunk_token_no_steps", Spec { empty: 0.6, ..spec(Csr) }, mode(Chunk::Token)),
        case("chunk_given_no_steps", Spec { empty: 0.6, chunk_marks: true, ..spec(Csr) }, mode(Chunk::Given)),
        case("merge_equal_steps", spec(Csr), |c, _| c.merge_equal_steps = true),
        case("merge_and_bridge", spec(Csr).holes(), |c, _| (c.merge_equal_steps, c.bridge_scope_gaps) = (true, true)),
        case("merge_anchored_eta", spec(Csr), |c, _| {
            (c.merge_equal_steps, c.boundary_rule, c.eta) = (true, BoundaryRule::Anchored, 0.3);
        }),
        case("bridge_scope_gaps", spec(Csr).holes(), |c, _| c.bridge_scope_gaps = true),
        case("chunk_mean_none", spec(Csr).holes(), |c, _| (c.chunk, c.chunk_value) = (Chunk::None, ChunkValue::Mean)),
        case("chunk_mean_dense_given", Spec { chunk_marks: true, ..spec(Dense).holes().continuous() }, |c, _| {
            (c.chunk, c.chunk_value) = (Chunk::Given, ChunkValue::Mean);
        }),
        case("chunk_mean_dense_ends", spec(DenseEnds).streams(2), |c, _| (c.chunk, c.chunk_value) = (Chunk::Step, ChunkValue::Mean)),
        case("chunk_mean_leave_one_out", spec(Dense).continuous(), |c, _| {
            (c.chunk, c.chunk_value, c.pool) = (Chunk::None, ChunkValue::Mean, Pool::Tokens);
            c.set_standardize_all(Standardize::LeaveOneOut);
        }),
    ]
}

fn kl() -> Vec<Case> {
    let operator = |op: Standardize| move |c: &mut Config, _: &mut Batch| c.set_standardize_all(op);
    vec![
        case("kl_quantised", spec(KlSignal), |_, _| {}),
        case("kl_quantised_holes", spec(KlSignal).holes(), |_, _| {}),
        case("kl_continuous", spec(KlSignal).continuous(), |_, _| {}),
        case("kl_bridge", spec(KlSignal).holes(), |c, _| c.bridge_scope_gaps = true),
        case("kl_anchored_eta", spec(KlSignal).continuous(), |c, _| {
            (c.eta, c.boundary_rule) = (0.7, BoundaryRule::Anchored);
        }),
        case("kl_average_over_group", spec(KlSignal), |c, _| c.average_over = AverageOver::Group),
        case("kl_average_over_group_none", spec(KlSignal).holes(), |c, _| {
            c.average_over = AverageOver::Group;
            c.set_standardize_all(Standardize::None);
        }),
        case("kl_average_over_group_loo", spec(KlSignal), |c, _| {
            c.average_over = AverageOver::Group;
            c.set_standardize_all(Standardize::LeaveOneOut);
        }),
        case("kl_abs_max", spec(KlSignal), operator(Standardize::AbsMax)),
        case("kl_mean", spec(KlSignal), operator(Standardize::Mean)),
        case("kl_leave_one_out", spec(KlSignal), operator(Standardize::LeaveOneOut)),
        case("kl_loo_group_std", spec(KlSignal).continuous(), |c, _| loo(c, Scale::Group, LooUnit::Element)),
        case("kl_loo_std_by_step", spec(KlSignal).continuous(), |c, _| {
            c.chunk = Chunk::Step;
            loo(c, Scale::LeaveOneOut, LooUnit::Element);
        }),
        case("kl_loo_rollout_by_none", spec(KlSignal), |c, _| {
            c.chunk = Chunk::None;
            loo(c, Scale::None, LooUnit::Rollout);
        }),
        case("kl_none", spec(KlSignal), operator(Standardize::None)),
        case("kl_opd", spec(KlOpd).holes(), |_, _| {}),
        case("kl_gopd", spec(KlGOpd).holes(), |_, _| {}),
        case("kl_gopd_continuous", spec(KlGOpd).continuous(), |_, _| {}),
        case("kl_steps_by_step", spec(KlSteps).holes(), |c, _| c.chunk = Chunk::Step),
        case("kl_steps_do_not_cut", spec(KlSteps), |_, _| {}),
        case("kl_begins_limit_scope", Spec { begins: true, ..spec(KlSteps) }, |_, _| {}),
        case("kl_chunk_mean", spec(KlSignal).continuous(), |c, _| (c.chunk_value, c.eta) = (ChunkValue::Mean, 0.5)),
        case("kl_token_holes", spec(KlSignal).holes(), |c, _| c.chunk = Chunk::Token),
        case("kl_given_holes", Spec { chunk_marks: true, ..spec(KlSignal).holes() }, |c, _| c.chunk = Chunk::Given),
        case("kl_none_holes_chunk_mean", spec(KlSignal).holes(), |c, _| (c.chunk, c.chunk_value) = (Chunk::None, ChunkValue::Mean)),
        case("kl_interleaved_uneven", Spec { interleave: true, ..spec(KlSignal).holes().sizes(&[1, 6, 2, 3]) }, |_, _| {}),
        case("kl_two_rollouts", spec(KlSignal).sizes(&[2, 2, 2]), |_, _| {}),
        case("kl_three_streams", spec(KlSignal).streams(3), |c, _| c.process[2].weight = 0.25),
        case("kl_not_all_in_stats", spec(KlSignal), |_, b| b.rollouts.iter_mut().step_by(3).for_each(|r| r.in_stats = false)),
        case("kl_none_in_stats", spec(KlSignal), |_, b| b.rollouts.iter_mut().for_each(|r| r.in_stats = r.group != 1)),
    ]
}

fn fusion() -> Vec<Case> {
    let fused = |fusion: Fusion| move |c: &mut Config, _: &mut Batch| c.fusion = fusion;
    vec![
        case("pooled", spec(Csr), fused(Fusion::Pooled)),
        case("pooled_holes_k_0", spec(Csr).holes(), |c, _| (c.fusion, c.chunk, c.k) = (Fusion::Pooled, Chunk::Step, 0.0)),
        case("pooled_loo_rollout", spec(Csr).continuous(), |c, _| {
            c.fusion = Fusion::Pooled;
            loo(c, Scale::None, LooUnit::Rollout);
        }),
        case("pooled_kl", spec(KlSignal), fused(Fusion::Pooled)),
        case("pooled_no_steps", Spec { empty: 0.5, ..spec(Csr) }, fused(Fusion::Pooled)),
        case("pooled_chunk_mean", spec(Dense).continuous(), |c, _| {
            (c.fusion, c.chunk, c.chunk_value) = (Fusion::Pooled, Chunk::None, ChunkValue::Mean);
        }),
        case("reward_shaping", spec(Csr), fused(Fusion::RewardShaping)),
        case("reward_shaping_weights_tokens", spec(DenseEnds).continuous(), |c, _| {
            (c.fusion, c.pool) = (Fusion::RewardShaping, Pool::Tokens);
            (c.process[0].weight, c.outcome.weight, c.format.weight) = (0.7, 1.3, -0.1);
        }),
        case("reward_shaping_kl", spec(KlSignal).holes(), fused(Fusion::RewardShaping)),
        case("reward_shaping_no_steps", Spec { empty: 0.5, ..spec(Csr) }, fused(Fusion::RewardShaping)),
        case("format_without_ok", Spec { ok: false, ..spec(Csr) }, |_, _| {}),
        case("format_all_wrong", spec(Csr), |_, b| {
            b.rollouts.iter_mut().for_each(|r| (r.format, r.format_ok) = (Some(0.0), Some(false)));
        }),
        case("format_wrong_graded", Spec { others: 2, ..spec(Csr) }, |_, b| {
            b.rollouts.iter_mut().enumerate().for_each(|(i, r)| (r.format, r.format_ok) = (Some(i as f32 * 0.1), Some(i % 2 == 0)));
        }),
        case("others_one", Spec { others: 1, ..spec(Csr) }, |_, _| {}),
        case("others_nine", Spec { others: 9, ..spec(Csr).continuous() }, |c, _| {
            for (x, row) in c.others.iter_mut().enumerate() {
                row.weight = 0.1 * (x as f64 + 1.0);
                row.standardize([Standardize::MeanStd, Standardize::Mean, Standardize::LeaveOneOut][x % 3]);
            }
        }),
        case("others_twenty_weight_0", Spec { others: 20, ..spec(Csr) }, |c, _| c.others.iter_mut().for_each(|r| r.weight = 0.0)),
    ]
}

fn credit() -> Vec<Case> {
    let gae = |input: Input| Spec { values: true, ..spec(input).continuous() };
    let as_gae = |c: &mut Config| (c.credit, c.k, c.gamma, c.lam) = (Credit::Gae, 0.0, 0.99, 0.95);
    vec![
        case("k_0_gamma_1", spec(Csr), |c, _| c.k = 0.0),
        case("k_1", spec(Csr), |c, _| c.k = 1.0),
        case("k_8", spec(Csr), |c, _| (c.k, c.chunk) = (8.0, Chunk::Token)),
        case("gamma_0", spec(Csr), |c, _| c.gamma = 0.0),
        case("gamma_095", spec(Csr).continuous(), |c, _| (c.gamma, c.chunk) = (0.95, Chunk::Token)),
        case("broadcast", spec(Csr), |c, _| c.credit = Credit::Broadcast),
        case("broadcast_k_0", spec(Csr), |c, _| (c.credit, c.k) = (Credit::Broadcast, 0.0)),
        case("grpo_process", Spec { outcome: false, format: false, ok: false, ..spec(Csr) }, |c, _| (c.chunk, c.k) = (Chunk::Step, 0.0)),
        case("divide_scope_process", spec(Csr), |c, _| c.divide_scope = DivideScope::Process),
        case("divide_scope_process_gamma_kl", spec(KlSignal).holes(), |c, _| (c.divide_scope, c.gamma) = (DivideScope::Process, 0.9)),
        case("divide_scope_process_broadcast", Spec { others: 2, ..spec(Csr) }, |c, _| {
            (c.divide_scope, c.credit) = (DivideScope::Process, Credit::Broadcast);
        }),
        case("gae", gae(Csr), |c, _| as_gae(c)),
        case("gae_holes_bootstrap", Spec { bootstrap: true, holes: 0.3, poison: true, max_len: 150, ..gae(Csr) }, |c, _| as_gae(c)),
        case("gae_token_rewards_alone", Spec { token_rewards: true, bootstrap: true, outcome: false, format: false, ok: false, ..gae(Nothing) }, |c, _| as_gae(c)),
        case("gae_kl", gae(KlSignal), |c, _| as_gae(c)),
        case("gae_lam_0", gae(Csr), |c, _| {
            as_gae(c);
            c.lam = 0.0;
        }),
        case("gae_whitened", gae(Csr), |c, _| {
            as_gae(c);
            c.whiten = Whiten::Tokens;
        }),
    ]
}

fn post() -> Vec<Case> {
    let whiten = |form: Whiten| move |c: &mut Config, _: &mut Batch| c.whiten = form;
    vec![
        case("temperature", spec(Csr), |c, _| c.temperature = 0.3),
        case("clip", spec(Csr).continuous(), |c, _| c.clip = 0.4),
        case("whiten_tokens", spec(Csr).holes(), whiten(Whiten::Tokens)),
        case("whiten_rollouts", spec(Csr).holes(), whiten(Whiten::Rollouts)),
        case("whiten_tokens_no_shift", spec(Csr).continuous(), |c, _| (c.whiten, c.whiten_shift) = (Whiten::Tokens, false)),
        case("whiten_rollouts_no_shift_ddof_0", spec(Csr), |c, _| {
            (c.whiten, c.whiten_shift, c.whiten_ddof) = (Whiten::Rollouts, false, 0);
        }),
        case("whiten_floor_var", spec(KlSignal), |c, _| {
            (c.whiten, c.whiten_epsilon_mode, c.whiten_epsilon) = (Whiten::Tokens, EpsilonMode::FloorVar, 5.0);
        }),
        case("whiten_add_std", spec(Csr), |c, _| (c.whiten, c.whiten_epsilon_mode) = (Whiten::Tokens, EpsilonMode::AddStd)),
        case("whiten_floor_std", spec(Csr), |c, _| {
            (c.whiten, c.whiten_epsilon_mode, c.whiten_epsilon) = (Whiten::Tokens, EpsilonMode::FloorStd, 3.0);
        }),
        case("whiten_in_stats_0", Spec { empty: 0.2, ..spec(Csr).sizes(&[5, 5]) }, |c, b| {
            c.whiten = Whiten::Rollouts;
            b.rollouts.iter_mut().step_by(4).for_each(|r| r.in_stats = false);
        }),
        case("whiten_beside_a_bad_group", spec(Csr), |c, b| {
            c.whiten = Whiten::Tokens;
            b.rollouts[1].outcome = Some(f32::NAN);
        }),
        case("whiten_one_token", spec(Csr).sizes(&[1]), |c, b| {
            (c.whiten, c.whiten_shift) = (Whiten::Tokens, false);
            c.set_standardize_all(Standardize::None);
            b.rollouts[0].mask = Some((0..b.rollouts[0].len).map(|t| t == 0).collect());
        }),
        case("whiten_all_equal", spec(Nothing), |c, b| {
            c.whiten = Whiten::Tokens;
            c.set_standardize_all(Standardize::None);
            b.rollouts.iter_mut().for_each(|r| (r.outcome, r.format, r.format_ok) = (Some(0.98), Some(0.0), Some(true)));
        }),
        case("temperature_whiten_clip", spec(KlOpd).holes(), |c, _| {
            (c.temperature, c.whiten, c.clip) = (2.0, Whiten::Tokens, 1.0);
        }),
    ]
}
