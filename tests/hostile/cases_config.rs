//! Values, numbers and settings of the configuration and the limits.
use crate::Case;
use crate::api::Act::*;
use passrl::abi::constants::*;
use passrl::abi::status::*;

const NAN: f64 = f64::NAN;
const INF: f64 = f64::INFINITY;

#[rustfmt::skip]
pub fn cases() -> Vec<Case> {
    vec![
        // Every enumeration and flag of the configuration.
        ("kind_unknown", Plan, PASSRL_ERR_VALUE, "config.kind is 3; it is one of 0 (prm), 1 (kl), 2 (none)", |w| w.config.kind = 3),
        ("pool_unknown", Plan, PASSRL_ERR_VALUE, "config.pool is -1; it is one of 0 (steps)", |w| w.config.pool = -1),
        ("fusion_unknown", Plan, PASSRL_ERR_VALUE, "config.fusion is 99", |w| w.config.fusion = 99),
        ("chunk_unknown", Plan, PASSRL_ERR_VALUE, "config.chunk is 99", |w| w.config.chunk = 99),
        ("boundary_rule_unknown", Plan, PASSRL_ERR_VALUE, "config.boundary_rule is 2", |w| w.config.boundary_rule = 2),
        ("merge_equal_steps_unknown", Plan, PASSRL_ERR_VALUE, "config.merge_equal_steps is 2; it is 0 or 1", |w| w.config.merge_equal_steps = 2),
        ("average_over_unknown", Plan, PASSRL_ERR_VALUE, "config.average_over is 7", |w| w.config.average_over = 7),
        ("bridge_scope_gaps_unknown", Plan, PASSRL_ERR_VALUE, "config.bridge_scope_gaps is -1", |w| w.config.bridge_scope_gaps = -1),
        ("chunk_value_unknown", Plan, PASSRL_ERR_VALUE, "config.chunk_value is 2", |w| w.config.chunk_value = 2),
        ("credit_unknown", Plan, PASSRL_ERR_VALUE, "config.credit is 99", |w| w.config.credit = 99),
        ("divide_scope_unknown", Plan, PASSRL_ERR_VALUE, "config.divide_scope is 2", |w| w.config.divide_scope = 2),
        ("whiten_unknown", Plan, PASSRL_ERR_VALUE, "config.whiten is 3", |w| w.config.whiten = 3),
        ("whiten_ddof_unknown", Plan, PASSRL_ERR_VALUE, "config.whiten_ddof is 2", |w| w.config.whiten_ddof = 2),
        ("whiten_epsilon_mode_unknown", Plan, PASSRL_ERR_VALUE, "config.whiten_epsilon_mode is 4", |w| w.config.whiten_epsilon_mode = 4),
        ("whiten_shift_unknown", Plan, PASSRL_ERR_VALUE, "config.whiten_shift is 3", |w| w.config.whiten_shift = 3),
        ("fill_padding_unknown", Plan, PASSRL_ERR_VALUE, "config.fill_padding is 2", |w| w.config.fill_padding = 2),
        ("strict_unknown", Plan, PASSRL_ERR_VALUE, "config.strict is 2", |w| w.config.strict = 2),
        ("config_reserved", Plan, PASSRL_ERR_VALUE, "config.reserved0 is 1 and config.reserved1 0; they must be 0", |w| w.config.reserved0 = 1),
        ("num_process_0", Plan, PASSRL_ERR_VALUE, "config.num_process is 0; it must be from 1 to 4", |w| w.config.num_process = 0),
        ("num_process_5", Plan, PASSRL_ERR_VALUE, "config.num_process is 5", |w| w.config.num_process = 5),
        ("num_extra_negative", Plan, PASSRL_ERR_VALUE, "config.num_extra is -1", |w| w.config.num_extra = -1),
        ("num_extra_11", Plan, PASSRL_ERR_VALUE, "config.num_extra is 11; it must be from 0 to 10", |w| w.config.num_extra = 11),
        // Rows of the stream table.
        ("center_unknown", Plan, PASSRL_ERR_VALUE, "config.streams[0] (process_0).center is 99", |w| w.config.streams[0].center = 99),
        ("scale_unknown", Plan, PASSRL_ERR_VALUE, "config.streams[4] (outcome).scale is 99", |w| w.config.streams[4].scale = 99),
        ("ddof_unknown", Plan, PASSRL_ERR_VALUE, "config.streams[5] (format).ddof is 2; it is 0 or 1", |w| w.config.streams[5].ddof = 2),
        ("epsilon_mode_unknown", Plan, PASSRL_ERR_VALUE, "config.streams[6] (extra_0).epsilon_mode is 4", |w| w.config.streams[6].epsilon_mode = 4),
        ("loo_unit_unknown", Plan, PASSRL_ERR_VALUE, "(process_3).loo_unit is 2", |w| w.config.streams[3].loo_unit = 2),
        ("singleton_unknown", Plan, PASSRL_ERR_VALUE, "(extra_9).singleton is -5", |w| w.config.streams[15].singleton = -5),
        ("missing_unknown", Plan, PASSRL_ERR_VALUE, "(process_0).missing is 3", |w| w.config.streams[0].missing = 3),
        ("stream_reserved", Plan, PASSRL_ERR_VALUE, "config.streams[1] (process_1) has a reserved field", |w| w.config.streams[1].reserved[2] = 1),
        ("weight_nan", Plan, PASSRL_ERR_VALUE, "(process_0).weight is NaN; it must be from", |w| w.config.streams[0].weight = NAN),
        ("weight_inf", Plan, PASSRL_ERR_VALUE, "(outcome).weight is inf", |w| w.config.streams[4].weight = INF),
        ("weight_minus_inf", Plan, PASSRL_ERR_VALUE, "(format).weight is -inf", |w| w.config.streams[5].weight = -INF),
        ("epsilon_negative", Plan, PASSRL_ERR_VALUE, "(process_0).epsilon is -1e-6; it must be from 0.0", |w| w.config.streams[0].epsilon = -1e-6),
        ("epsilon_nan", Plan, PASSRL_ERR_VALUE, "(outcome).epsilon is NaN", |w| w.config.streams[4].epsilon = NAN),
        ("scale_given_not_yet", Plan, PASSRL_ERR_NOT_YET, "process_0.scale is given", |w| w.config.streams[0].scale = PASSRL_SCALE_GIVEN),
        ("compat_not_yet", Plan, PASSRL_ERR_NOT_YET, "config.compat is 1", |w| w.config.compat = 1),
        ("collective_not_yet", Plan, PASSRL_ERR_NOT_YET, "collective is given", |w| w.collective = true),
        // Numbers out of range.
        ("k_nan", Plan, PASSRL_ERR_VALUE, "config.k is NaN; it must be from 0.0 to 8.0", |w| w.config.k = NAN),
        ("k_negative", Plan, PASSRL_ERR_VALUE, "config.k is -0.5", |w| w.config.k = -0.5),
        ("k_large", Plan, PASSRL_ERR_VALUE, "config.k is 8.5", |w| w.config.k = 8.5),
        ("gamma_nan", Plan, PASSRL_ERR_VALUE, "config.gamma is NaN", |w| w.config.gamma = NAN),
        ("gamma_large", Plan, PASSRL_ERR_VALUE, "config.gamma is 1.01; it must be from 0.0 to 1.0", |w| w.config.gamma = 1.01),
        ("lam_negative", Plan, PASSRL_ERR_VALUE, "config.lam is -1.0", |w| w.config.lam = -1.0),
        ("temperature_0", Plan, PASSRL_ERR_VALUE, "config.temperature is 0.0; it must be from 1e-30", |w| w.config.temperature = 0.0),
        ("temperature_nan", Plan, PASSRL_ERR_VALUE, "config.temperature is NaN", |w| w.config.temperature = NAN),
        ("clip_nan", Plan, PASSRL_ERR_VALUE, "config.clip is NaN", |w| w.config.clip = NAN),
        ("clip_negative", Plan, PASSRL_ERR_VALUE, "config.clip is -1.0; it must be from 0.0 to inf", |w| w.config.clip = -1.0),
        ("eta_negative", Plan, PASSRL_ERR_VALUE, "config.eta is -1e-8", |w| w.config.eta = -1e-8),
        ("eta_inf", Plan, PASSRL_ERR_VALUE, "config.eta is inf", |w| w.config.eta = INF),
        ("opd_lambda_nan", Plan, PASSRL_ERR_VALUE, "config.opd_lambda is NaN", |w| w.config.opd_lambda = NAN),
        ("whiten_epsilon_inf", Plan, PASSRL_ERR_VALUE, "config.whiten_epsilon is inf", |w| w.config.whiten_epsilon = INF),
        // Settings that exclude each other.
        ("gae_with_k", Plan, PASSRL_ERR_CONFLICT, "config.credit is gae and config.k is 0.7", |w| w.config.credit = PASSRL_CREDIT_GAE),
        ("gae_with_divide_process", Plan, PASSRL_ERR_CONFLICT, "config.divide_scope is process", |w| { w.gae(); w.config.divide_scope = PASSRL_DIVIDE_PROCESS }),
        ("pooled_with_two_process", Plan, PASSRL_ERR_CONFLICT, "config.fusion is pooled with num_process = 2 and num_extra = 0", |w| { w.config.fusion = PASSRL_FUSION_POOLED; w.config.num_process = 2 }),
        ("shaping_with_extra", Plan, PASSRL_ERR_CONFLICT, "reward_shaping with num_process = 1 and num_extra = 1", |w| { w.config.fusion = PASSRL_FUSION_REWARD_SHAPING; w.config.num_extra = 1 }),
        ("pooled_divide_process", Plan, PASSRL_ERR_CONFLICT, "config.fusion is pooled and config.divide_scope is process", |w| { w.config.fusion = PASSRL_FUSION_POOLED; w.config.divide_scope = PASSRL_DIVIDE_PROCESS }),
        ("shaping_without_process", Plan, PASSRL_ERR_CONFLICT, "reward_shaping and config.kind is none", |w| { w.config.fusion = PASSRL_FUSION_REWARD_SHAPING; w.config.kind = PASSRL_KIND_NONE }),
        ("chunk_mean_loo_scale", Plan, PASSRL_ERR_CONFLICT, "process_0.scale is leave_one_out", |w| { w.config.chunk_value = PASSRL_CHUNK_VALUE_MEAN; w.config.streams[0].scale = PASSRL_SCALE_LEAVE_ONE_OUT }),
        ("kl_by_value_loo_rollout", Plan, PASSRL_ERR_CONFLICT, "loo_unit = rollout", |w| { w.kl(); w.config.streams[0].center = PASSRL_CENTER_LEAVE_ONE_OUT; w.config.streams[0].loo_unit = PASSRL_LOO_ROLLOUT }),
        ("kl_by_value_loo_scale", Plan, PASSRL_ERR_CONFLICT, "process_0.scale = leave_one_out", |w| { w.kl(); w.config.streams[0].scale = PASSRL_SCALE_LEAVE_ONE_OUT }),
        // Limits.
        ("limits_reserved", Plan, PASSRL_ERR_VALUE, "limits.reserved0 is 1", |w| w.limits.reserved0 = 1),
        ("limits_rollouts_negative", Plan, PASSRL_ERR_LIMIT, "limits.rollouts is -1; it must be from 0 to 2^40 - 1", |w| w.limits.rollouts = -1),
        ("limits_tokens_huge", Plan, PASSRL_ERR_LIMIT, "limits.tokens is 1099511627776", |w| w.limits.tokens = 1 << 40),
        ("limits_groups_negative", Plan, PASSRL_ERR_LIMIT, "limits.groups is -2", |w| w.limits.groups = -2),
        ("limits_steps_negative", Plan, PASSRL_ERR_LIMIT, "limits.steps is -3", |w| w.limits.steps = -3),
        ("limits_pieces_negative", Plan, PASSRL_ERR_LIMIT, "limits.pieces is -4", |w| w.limits.pieces = -4),
        ("limits_rollout_tokens_huge", Plan, PASSRL_ERR_LIMIT, "limits.rollout_tokens is 2147483648", |w| { w.limits.tokens = 1 << 32; w.limits.rollout_tokens = 1 << 31 }),
        ("limits_group_rollouts_huge", Plan, PASSRL_ERR_LIMIT, "limits.group_rollouts is 131072 (0: as limits.rollouts)", |w| w.limits.rollouts = 1 << 17),
        ("limits_group_elements_huge", Plan, PASSRL_ERR_LIMIT, "limits.group_elements is 8589934592", |w| w.limits.group_elements = 1 << 33),
        ("limits_whiten_tokens_huge", Plan, PASSRL_ERR_LIMIT, "limits.tokens 8589934592", |w| { w.config.whiten = PASSRL_WHITEN_TOKENS; w.limits.tokens = 1 << 33; w.limits.group_elements = 100 }),
        ("limits_loo_scale_elements", Plan, PASSRL_ERR_LIMIT, "limits.group_elements is 131072 (0: as limits.tokens) with a leave-one-out", |w| { w.config.streams[0].scale = PASSRL_SCALE_LEAVE_ONE_OUT; w.limits.tokens = 1 << 17 }),
        ("limits_kl_table_huge", Plan, PASSRL_ERR_LIMIT, "the group average of kl", |w| { w.kl(); w.config.k = 0.0; w.limits.rollouts = (1 << 31) - 1; w.limits.groups = 0; w.limits.group_rollouts = 8; w.limits.tokens = (1 << 31) - 1; w.limits.rollout_tokens = 0 }),
    ]
}
