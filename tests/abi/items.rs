//! What the header must hold, by name: an item that a tool does not find is an error, never an empty comparison.
use passrl::abi::constants::*;
use passrl::abi::status::*;
use passrl::abi::types::*;
use std::mem::offset_of;

/// A struct of the ABI as Rust lays it out.
pub struct Layout {
    pub name: &'static str,
    pub size: usize,
    pub align: usize,
    pub fields: &'static [(&'static str, usize)],
}

macro_rules! layouts {
    ($($T:ident { $($field:ident)* })*) => {
        &[$(Layout {
            name: stringify!($T),
            size: size_of::<$T>(),
            align: align_of::<$T>(),
            fields: &[$((stringify!($field), offset_of!($T, $field))),*],
        }),*]
    };
}

pub const LAYOUTS: &[Layout] = layouts! {
    passrl_view {
        data shape stride ndim dtype device_type device_id
    }
    passrl_stream {
        weight epsilon center scale ddof epsilon_mode loo_unit singleton missing place zero_variance count_by
        clip_value clip_standardized reserved name
    }
    passrl_config {
        struct_size num_process num_extra kind pool fusion chunk boundary_rule merge_equal_steps average_over bridge_scope_gaps
        chunk_value credit divide_scope whiten whiten_ddof whiten_epsilon_mode whiten_shift fill_padding strict compat reserved0
        opd_lambda eta gamma lam k temperature whiten_epsilon clip streams kl_in_reward kl_place scan_mask gae_over divide_by step_sets
        step_value token_baseline kl_coef kl_log_ratio_clamp kl_clamp lam_returns lam_length_alpha step_gamma rho_clip c_clip
    }
    passrl_limits {
        struct_size reserved0 rollouts groups tokens rollout_tokens steps group_rollouts group_elements pieces rollout_pieces batch_rollouts
    }
    passrl_batch {
        struct_size layout num_rollouts num_groups row_tokens pad_side reserved0 cu_seqlens lengths mask group_index group_offsets
        group_size outcome format extra format_ok in_stats absent baselines bootstrap signal logp_policy logp_teacher logp_base
        logp_reference values token_rewards chunk_ends step_offsets step_ends step_begins step_scores step_marks step_group
        piece_rollout piece_begin stats_in stats_in_bytes rollout_lam logp_behavior
        stats_mean stats_std sum_pi_squared token_ratio piece_index rollout_index
    }
    passrl_outputs {
        struct_size reserved0 advantages returns path_scores num_chunks chunk_ends chunk_values stats_count stats_mean stats_std
        stats_absmax group_flags rollout_flags report
    }
    passrl_report {
        struct_size reserved0 findings first_finding first_rollout first_group first_stream rollouts tokens chunks degenerate_groups
        bad_groups violating_groups missing_values nonfinite_values low_logps clipped_tokens overflowed_tokens bad_steps
        lost_deviations sum_advantages sum_squares
    }
    passrl_context_options {
        struct_size backend device threads simd reserved0 small_call_bytes cache_dir nvrtc kernels reserved1
    }
    passrl_collective {
        struct_size reserved0 user all_reduce rank size device_type reserved1
    }
    passrl_section {
        offset count dtype op
    }
};

macro_rules! numbers {
    ($($name:ident)*) => { &[$((stringify!($name), $name as i64)),*] };
}

pub const CONSTANTS: &[(&str, i64)] = numbers! {
    PASSRL_F64 PASSRL_F32 PASSRL_F16 PASSRL_BF16 PASSRL_I64 PASSRL_I32 PASSRL_U8 PASSRL_BOOL PASSRL_CPU PASSRL_CUDA PASSRL_PACKED
    PASSRL_PADDED PASSRL_PAD_RIGHT PASSRL_PAD_LEFT PASSRL_KIND_PRM PASSRL_KIND_KL PASSRL_KIND_NONE PASSRL_POOL_STEPS PASSRL_POOL_TOKENS
    PASSRL_FUSION_ADVANTAGE PASSRL_FUSION_REWARD_SHAPING PASSRL_FUSION_POOLED PASSRL_CHUNK_BY_VALUE PASSRL_CHUNK_STEP
    PASSRL_CHUNK_TOKEN PASSRL_CHUNK_NONE PASSRL_CHUNK_GIVEN PASSRL_BOUNDARY_ADJACENT PASSRL_BOUNDARY_ANCHORED PASSRL_AVERAGE_LIVE
    PASSRL_AVERAGE_GROUP PASSRL_CHUNK_VALUE_LAST PASSRL_CHUNK_VALUE_MEAN PASSRL_CREDIT_RETURN_TO_GO PASSRL_CREDIT_BROADCAST
    PASSRL_CREDIT_GAE PASSRL_DIVIDE_ALL PASSRL_DIVIDE_PROCESS PASSRL_WHITEN_NONE PASSRL_WHITEN_TOKENS PASSRL_WHITEN_ROLLOUTS
    PASSRL_CENTER_NONE PASSRL_CENTER_GROUP PASSRL_CENTER_LEAVE_ONE_OUT PASSRL_CENTER_BATCH PASSRL_CENTER_LENGTH_WEIGHTED
    PASSRL_CENTER_GIVEN PASSRL_SCALE_NONE PASSRL_SCALE_GROUP PASSRL_SCALE_LEAVE_ONE_OUT PASSRL_SCALE_BATCH PASSRL_SCALE_GIVEN
    PASSRL_SCALE_ABS_MAX PASSRL_EPSILON_ADD_STD PASSRL_EPSILON_ADD_VAR PASSRL_EPSILON_FLOOR_STD PASSRL_EPSILON_FLOOR_VAR
    PASSRL_LOO_ELEMENT PASSRL_LOO_ROLLOUT PASSRL_SINGLETON_ZERO PASSRL_SINGLETON_PASSTHROUGH PASSRL_SINGLETON_REFUSE
    PASSRL_MISSING_ERROR PASSRL_MISSING_ZERO PASSRL_MISSING_EXCLUDE PASSRL_MAX_STREAMS PASSRL_MAX_PROCESS PASSRL_MAX_EXTRA
    PASSRL_STREAM_PROCESS PASSRL_STREAM_OUTCOME PASSRL_STREAM_FORMAT PASSRL_STREAM_EXTRA PASSRL_GROUP_EMPTY PASSRL_GROUP_SINGLE
    PASSRL_GROUP_ZERO_VARIANCE PASSRL_GROUP_NONFINITE PASSRL_GROUP_BAD_STEPS PASSRL_GROUP_ALL_VIOLATING PASSRL_GROUP_BAD
    PASSRL_GROUP_MISSING PASSRL_GROUP_TOO_LARGE PASSRL_ROLLOUT_NO_SCOPE PASSRL_ROLLOUT_ABSENT PASSRL_ROLLOUT_NONFINITE
    PASSRL_ROLLOUT_MISSING PASSRL_ROLLOUT_BAD_STEPS PASSRL_ROLLOUT_FORMAT_VIOLATING PASSRL_ROLLOUT_IN_BAD_GROUP
    PASSRL_ROLLOUT_NO_STREAM PASSRL_FOUND_NONFINITE PASSRL_FOUND_MISSING PASSRL_FOUND_BAD_STEPS PASSRL_FOUND_SINGLETON
    PASSRL_FOUND_TOO_LARGE PASSRL_FOUND_BAD_OFFSETS PASSRL_FOUND_COLLECTIVE PASSRL_RANKS_REFUSED PASSRL_RANKS_OFFSETS PASSRL_RANKS_PLANS PASSRL_RANKS_CALLS PASSRL_RANKS_INPUTS PASSRL_RANKS_GROUPS PASSRL_RANKS_PHASES
    PASSRL_KERNELS_ANY PASSRL_KERNELS_BUILT_IN PASSRL_KERNELS_NVRTC PASSRL_REDUCE_SUM PASSRL_REDUCE_MAX PASSRL_SIMD_BEST PASSRL_SIMD_BASELINE PASSRL_SIMD_AVX2 PASSRL_SIMD_AVX512
    PASSRL_ABI_VERSION PASSRL_NUMERICS_VERSION PASSRL_OK PASSRL_ERR_NULL PASSRL_ERR_VALUE PASSRL_ERR_STRUCT_SIZE
    PASSRL_ERR_UNKNOWN_NAME PASSRL_ERR_CONFLICT PASSRL_ERR_NOT_YET PASSRL_ERR_SHAPE PASSRL_ERR_DTYPE PASSRL_ERR_LAYOUT
    PASSRL_ERR_OVERLAP PASSRL_ERR_LIMIT PASSRL_ERR_OFFSETS PASSRL_ERR_WORKSPACE PASSRL_ERR_FINGERPRINT PASSRL_ERR_NO_DEVICE
    PASSRL_ERR_DEVICE PASSRL_ERR_FORK PASSRL_ERR_RESOURCE PASSRL_ERR_DRIVER PASSRL_ERR_DATA PASSRL_ERR_COLLECTIVE PASSRL_ERR_INTERNAL
    PASSRL_POOL_ROLLOUTS PASSRL_FUSION_REWARD_SUM PASSRL_CHUNK_SEGMENT PASSRL_CREDIT_VTRACE
    PASSRL_CENTER_RUNNER_UP PASSRL_SCALE_NONZERO_SHARE PASSRL_SCALE_MEAN PASSRL_PLACE_EVERY PASSRL_PLACE_LAST PASSRL_PLACE_END
    PASSRL_ZERO_VARIANCE_ZERO PASSRL_ZERO_VARIANCE_CENTER PASSRL_COUNT_BY_ROLLOUT PASSRL_COUNT_BY_STEP PASSRL_KL_NONE PASSRL_KL_K1 PASSRL_KL_K2 PASSRL_KL_K3 PASSRL_KL_ABS
    PASSRL_KL_PLACE_OUTCOME PASSRL_KL_PLACE_REWARD PASSRL_KL_PLACE_ADVANTAGE PASSRL_SCAN_MASK_CARRY PASSRL_SCAN_MASK_DECAY
    PASSRL_SCAN_MASK_NONE PASSRL_GAE_TOKENS PASSRL_GAE_CHUNKS PASSRL_DIVIDE_BY_COUNT PASSRL_DIVIDE_BY_DISCOUNTED_COUNT
    PASSRL_STEP_SETS_GROUP PASSRL_STEP_SETS_STEP_GROUP PASSRL_STEP_VALUE_SCORE PASSRL_STEP_VALUE_RETURN_TO_GO
    PASSRL_TOKEN_BASELINE_NONE PASSRL_TOKEN_BASELINE_POSITION PASSRL_TOKEN_BASELINE_TOKEN
    PASSRL_FINDING_NONFINITE PASSRL_FINDING_MISSING PASSRL_FINDING_BAD_STEPS PASSRL_FINDING_SINGLETON PASSRL_FINDING_TOO_LARGE PASSRL_FINDING_BAD_OFFSETS
};
