//! Every number of the ABI: data types, choices of the configuration, flags. Numbers are for ever; a retired one stays reserved.

/// Data types of a `passrl_view`. Inputs: see each argument. Outputs: f32, bf16, f16, f64 for numbers, i32 or i64 for counts.
pub const PASSRL_F64: i32 = 1;
pub const PASSRL_F32: i32 = 2;
pub const PASSRL_F16: i32 = 3;
pub const PASSRL_BF16: i32 = 4;
pub const PASSRL_I64: i32 = 5;
pub const PASSRL_I32: i32 = 6;
pub const PASSRL_U8: i32 = 7;
pub const PASSRL_BOOL: i32 = 8;

/// Devices of a `passrl_view` and of a context (the numbers of DLPack).
pub const PASSRL_CPU: i32 = 1;
pub const PASSRL_CUDA: i32 = 2;

/// Layouts of a batch.
pub const PASSRL_PACKED: i32 = 0;
pub const PASSRL_PADDED: i32 = 1;

/// Side of the padding in a padded batch with lengths.
pub const PASSRL_PAD_RIGHT: i32 = 0;
pub const PASSRL_PAD_LEFT: i32 = 1;

/// `kind`: what the process signal is.
pub const PASSRL_KIND_PRM: i32 = 0;
pub const PASSRL_KIND_KL: i32 = 1;
pub const PASSRL_KIND_NONE: i32 = 2;

/// `pool`: the elements of the process set.
pub const PASSRL_POOL_STEPS: i32 = 0;
pub const PASSRL_POOL_TOKENS: i32 = 1;
pub const PASSRL_POOL_ROLLOUTS: i32 = 2;

/// `fusion`: how the streams become one advantage.
pub const PASSRL_FUSION_ADVANTAGE: i32 = 0;
pub const PASSRL_FUSION_REWARD_SHAPING: i32 = 1;
pub const PASSRL_FUSION_POOLED: i32 = 2;
pub const PASSRL_FUSION_REWARD_SUM: i32 = 3;

/// `chunk`: what a chunk is.
pub const PASSRL_CHUNK_BY_VALUE: i32 = 0;
pub const PASSRL_CHUNK_STEP: i32 = 1;
pub const PASSRL_CHUNK_TOKEN: i32 = 2;
pub const PASSRL_CHUNK_NONE: i32 = 3;
pub const PASSRL_CHUNK_GIVEN: i32 = 4;
pub const PASSRL_CHUNK_SEGMENT: i32 = 5;

/// `boundary_rule`: with what the detector compares a token.
pub const PASSRL_BOUNDARY_ADJACENT: i32 = 0;
pub const PASSRL_BOUNDARY_ANCHORED: i32 = 1;

/// `average_over`: the divisor of the KL group average.
pub const PASSRL_AVERAGE_LIVE: i32 = 0;
pub const PASSRL_AVERAGE_GROUP: i32 = 1;

/// `chunk_value`: the value of a chunk.
pub const PASSRL_CHUNK_VALUE_LAST: i32 = 0;
pub const PASSRL_CHUNK_VALUE_MEAN: i32 = 1;

/// `credit`: how chunk values become advantages.
pub const PASSRL_CREDIT_RETURN_TO_GO: i32 = 0;
pub const PASSRL_CREDIT_BROADCAST: i32 = 1;
pub const PASSRL_CREDIT_GAE: i32 = 2;
pub const PASSRL_CREDIT_VTRACE: i32 = 3;

/// `divide_scope`: what Divide-Length divides.
pub const PASSRL_DIVIDE_ALL: i32 = 0;
pub const PASSRL_DIVIDE_PROCESS: i32 = 1;

/// `whiten`: over what the advantages are whitened.
pub const PASSRL_WHITEN_NONE: i32 = 0;
pub const PASSRL_WHITEN_TOKENS: i32 = 1;
pub const PASSRL_WHITEN_ROLLOUTS: i32 = 2;

/// `center` of a stream.
pub const PASSRL_CENTER_NONE: i32 = 0;
pub const PASSRL_CENTER_GROUP: i32 = 1;
pub const PASSRL_CENTER_LEAVE_ONE_OUT: i32 = 2;
pub const PASSRL_CENTER_BATCH: i32 = 3;
pub const PASSRL_CENTER_LENGTH_WEIGHTED: i32 = 4;
pub const PASSRL_CENTER_GIVEN: i32 = 5;
pub const PASSRL_CENTER_RUNNER_UP: i32 = 6;

/// `scale` of a stream.
pub const PASSRL_SCALE_NONE: i32 = 0;
pub const PASSRL_SCALE_GROUP: i32 = 1;
pub const PASSRL_SCALE_LEAVE_ONE_OUT: i32 = 2;
pub const PASSRL_SCALE_BATCH: i32 = 3;
pub const PASSRL_SCALE_GIVEN: i32 = 4;
pub const PASSRL_SCALE_ABS_MAX: i32 = 5;
pub const PASSRL_SCALE_NONZERO_SHARE: i32 = 6;
pub const PASSRL_SCALE_MEAN: i32 = 7;

/// `epsilon_mode` of a stream and of the whitening.
pub const PASSRL_EPSILON_ADD_STD: i32 = 0;
pub const PASSRL_EPSILON_ADD_VAR: i32 = 1;
pub const PASSRL_EPSILON_FLOOR_STD: i32 = 2;
pub const PASSRL_EPSILON_FLOOR_VAR: i32 = 3;

/// `loo_unit` of a stream: what leave-one-out leaves out.
pub const PASSRL_LOO_ELEMENT: i32 = 0;
pub const PASSRL_LOO_ROLLOUT: i32 = 1;

/// `singleton` of a stream: what a set of one element gives.
pub const PASSRL_SINGLETON_ZERO: i32 = 0;
pub const PASSRL_SINGLETON_PASSTHROUGH: i32 = 1;
pub const PASSRL_SINGLETON_REFUSE: i32 = 2;

/// `missing` of a stream: what a NaN is.
pub const PASSRL_MISSING_ERROR: i32 = 0;
pub const PASSRL_MISSING_ZERO: i32 = 1;
pub const PASSRL_MISSING_EXCLUDE: i32 = 2;

/// `place` of a per-rollout stream: the chunks that its term goes to.
pub const PASSRL_PLACE_EVERY: i32 = 0;
pub const PASSRL_PLACE_LAST: i32 = 1;
pub const PASSRL_PLACE_END: i32 = 2;

/// `zero_variance` of a stream: what a set of equal values gives under a standard deviation.
pub const PASSRL_ZERO_VARIANCE_ZERO: i32 = 0;
pub const PASSRL_ZERO_VARIANCE_CENTER: i32 = 1;

/// `count_by` of a per-rollout stream: how often a rollout's value is in its set.
pub const PASSRL_COUNT_BY_ROLLOUT: i32 = 0;
pub const PASSRL_COUNT_BY_STEP: i32 = 1;

/// `kl_in_reward`: the divergence of a token, from d = logp_policy - logp_reference.
pub const PASSRL_KL_NONE: i32 = 0;
pub const PASSRL_KL_K1: i32 = 1;
pub const PASSRL_KL_K2: i32 = 2;
pub const PASSRL_KL_K3: i32 = 3;
pub const PASSRL_KL_ABS: i32 = 4;

/// `kl_place`: where the divergence is taken from.
pub const PASSRL_KL_PLACE_OUTCOME: i32 = 0;
pub const PASSRL_KL_PLACE_REWARD: i32 = 1;
pub const PASSRL_KL_PLACE_ADVANTAGE: i32 = 2;

/// `scan_mask`: how scans over tokens pass what is out of scope.
pub const PASSRL_SCAN_MASK_CARRY: i32 = 0;
pub const PASSRL_SCAN_MASK_DECAY: i32 = 1;
pub const PASSRL_SCAN_MASK_NONE: i32 = 2;

/// `gae_over`: the units of GAE.
pub const PASSRL_GAE_TOKENS: i32 = 0;
pub const PASSRL_GAE_CHUNKS: i32 = 1;

/// `divide_by`: the divisor of Divide-Length.
pub const PASSRL_DIVIDE_BY_COUNT: i32 = 0;
pub const PASSRL_DIVIDE_BY_DISCOUNTED_COUNT: i32 = 1;

/// `step_sets`: the sets of the process streams.
pub const PASSRL_STEP_SETS_GROUP: i32 = 0;
pub const PASSRL_STEP_SETS_STEP_GROUP: i32 = 1;

/// `step_value`: what a step's value is made of.
pub const PASSRL_STEP_VALUE_SCORE: i32 = 0;
pub const PASSRL_STEP_VALUE_RETURN_TO_GO: i32 = 1;

/// `token_baseline`: which tokens of a group's rollouts share a baseline: those at one offset in their extents, or of one number among the tokens in scope.
pub const PASSRL_TOKEN_BASELINE_NONE: i32 = 0;
pub const PASSRL_TOKEN_BASELINE_POSITION: i32 = 1;
pub const PASSRL_TOKEN_BASELINE_TOKEN: i32 = 2;

/// Size of the configuration's stream table, and where its rows begin: process signals, outcome, format, further streams.
pub const PASSRL_MAX_STREAMS: usize = 16;
pub const PASSRL_MAX_PROCESS: usize = 4;
pub const PASSRL_MAX_EXTRA: usize = 10;
pub const PASSRL_STREAM_PROCESS: usize = 0;
pub const PASSRL_STREAM_OUTCOME: usize = 4;
pub const PASSRL_STREAM_FORMAT: usize = 5;
pub const PASSRL_STREAM_EXTRA: usize = 6;

/// Flags of a group and stream (`group_flags`). 0: nothing to say.
pub const PASSRL_GROUP_EMPTY: i32 = 1;
pub const PASSRL_GROUP_SINGLE: i32 = 2;
pub const PASSRL_GROUP_ZERO_VARIANCE: i32 = 4;
pub const PASSRL_GROUP_NONFINITE: i32 = 8;
pub const PASSRL_GROUP_BAD_STEPS: i32 = 16;
/// Every rollout of the group violates the format (set in the format stream's column).
pub const PASSRL_GROUP_ALL_VIOLATING: i32 = 32;
/// The group has a finding in some stream: every advantage in it is 0 (set in every column).
pub const PASSRL_GROUP_BAD: i32 = 64;
/// A missing (NaN) value was met in this stream.
pub const PASSRL_GROUP_MISSING: i32 = 128;
/// More elements than the plan's limits allow for exact sums.
pub const PASSRL_GROUP_TOO_LARGE: i32 = 256;

/// Flags of a rollout (`rollout_flags`).
pub const PASSRL_ROLLOUT_NO_SCOPE: i32 = 1;
pub const PASSRL_ROLLOUT_ABSENT: i32 = 2;
pub const PASSRL_ROLLOUT_NONFINITE: i32 = 4;
pub const PASSRL_ROLLOUT_MISSING: i32 = 8;
pub const PASSRL_ROLLOUT_BAD_STEPS: i32 = 16;
pub const PASSRL_ROLLOUT_FORMAT_VIOLATING: i32 = 32;
/// The rollout's group is bad; its advantages are 0.
pub const PASSRL_ROLLOUT_IN_BAD_GROUP: i32 = 64;
/// Every stream of the rollout is missing, and there are no `token_rewards`; its advantages are 0.
pub const PASSRL_ROLLOUT_NO_STREAM: i32 = 128;

/// Findings (bits of `passrl_report.findings`).
pub const PASSRL_FOUND_NONFINITE: i64 = 1;
pub const PASSRL_FOUND_MISSING: i64 = 2;
pub const PASSRL_FOUND_BAD_STEPS: i64 = 4;
pub const PASSRL_FOUND_SINGLETON: i64 = 8;
pub const PASSRL_FOUND_TOO_LARGE: i64 = 16;
/// CUDA, where the host cannot look first: cu_seqlens decrease or reach beyond the arrays, or lengths beyond T or the plan's limits (every advantage of the
/// batch is 0); or a group index is out of range (its rollout has advantage 0); or pieces
/// of rollouts make no whole ones, or are others than in the first phase (every advantage of the call is 0, over ranks of every rank).
pub const PASSRL_FOUND_BAD_OFFSETS: i64 = 32;
/// CUDA, of a plan with a collective (with `PASSRL_RANKS_GROUPS` and `PASSRL_RANKS_PHASES` of partials too): the ranks did not agree on the run and nothing was written on any. Its status is `PASSRL_ERR_COLLECTIVE`; `first_rollout` is the
/// rank at fault (-1: none alone), `first_stream` one of `PASSRL_RANKS_*` (with `PASSRL_RANKS_GROUPS` the status is `PASSRL_ERR_CONFLICT`, `first_group` the group; with
/// `PASSRL_RANKS_PHASES` the status is that too).
pub const PASSRL_FOUND_COLLECTIVE: i64 = 64;

/// Why ranks did not agree (`passrl_report.first_stream` with `PASSRL_FOUND_COLLECTIVE`): a rank's arguments are refused; its offsets or lengths in device memory do
/// not fit; the ranks run different plans; they are at different calls of the plan; their batches give different inputs; a group that must be whole has rollouts on several
/// (or in several micro-batches). Of partials: micro-batches were not given to every phase, or not in the phases' order.
pub const PASSRL_RANKS_REFUSED: i64 = 1;
pub const PASSRL_RANKS_OFFSETS: i64 = 2;
pub const PASSRL_RANKS_PLANS: i64 = 3;
pub const PASSRL_RANKS_CALLS: i64 = 4;
pub const PASSRL_RANKS_INPUTS: i64 = 5;
pub const PASSRL_RANKS_GROUPS: i64 = 6;
pub const PASSRL_RANKS_PHASES: i64 = 7;

/// Operators and types of a reduction (`passrl_section`, `passrl_collective`).
pub const PASSRL_REDUCE_SUM: i32 = 1;
pub const PASSRL_REDUCE_MAX: i32 = 2;

/// Where the kernels of a CUDA context come from (`passrl_context_options.kernels`): ANY takes the image built in, else what NVRTC compiles (or has compiled).
pub const PASSRL_KERNELS_ANY: i32 = 0;
pub const PASSRL_KERNELS_BUILT_IN: i32 = 1;
pub const PASSRL_KERNELS_NVRTC: i32 = 2;

/// Instruction sets of the CPU backend (`passrl_context_options.simd`).
pub const PASSRL_SIMD_BEST: i32 = 0;
pub const PASSRL_SIMD_BASELINE: i32 = 1;
pub const PASSRL_SIMD_AVX2: i32 = 2;
/// AVX-512 F, BW, DQ and VL.
pub const PASSRL_SIMD_AVX512: i32 = 3;

/// Version of the ABI (additive changes keep it) and of the numerics (raised when any output bit may differ).
pub const PASSRL_ABI_VERSION: u32 = 1;
pub const PASSRL_NUMERICS_VERSION: u32 = 1;

/// The inner layers' numbers are these.
const _: () = {
    use crate::model::{config, flags, report};
    use crate::plan::partials;
    macro_rules! same {
        ($($ours:expr, $theirs:expr;)*) => {$(assert!($ours == $theirs);)*};
    }
    same! {
        PASSRL_GROUP_EMPTY, flags::GROUP_EMPTY; PASSRL_GROUP_SINGLE, flags::GROUP_SINGLE; PASSRL_GROUP_ZERO_VARIANCE, flags::GROUP_ZERO_VARIANCE;
        PASSRL_GROUP_NONFINITE, flags::GROUP_NONFINITE; PASSRL_GROUP_BAD_STEPS, flags::GROUP_BAD_STEPS;
        PASSRL_GROUP_ALL_VIOLATING, flags::GROUP_ALL_VIOLATING; PASSRL_GROUP_BAD, flags::GROUP_BAD; PASSRL_GROUP_MISSING, flags::GROUP_MISSING;
        PASSRL_GROUP_TOO_LARGE, flags::GROUP_TOO_LARGE;
        PASSRL_ROLLOUT_NO_SCOPE as u32, flags::ROLLOUT_NO_SCOPE; PASSRL_ROLLOUT_ABSENT as u32, flags::ROLLOUT_ABSENT;
        PASSRL_ROLLOUT_NONFINITE as u32, flags::ROLLOUT_NONFINITE; PASSRL_ROLLOUT_MISSING as u32, flags::ROLLOUT_MISSING;
        PASSRL_ROLLOUT_BAD_STEPS as u32, flags::ROLLOUT_BAD_STEPS; PASSRL_ROLLOUT_FORMAT_VIOLATING as u32, flags::ROLLOUT_FORMAT_VIOLATING;
        PASSRL_ROLLOUT_IN_BAD_GROUP as u32, flags::ROLLOUT_IN_BAD_GROUP; PASSRL_ROLLOUT_NO_STREAM as u32, flags::ROLLOUT_NO_STREAM;
        PASSRL_FOUND_NONFINITE, report::NONFINITE; PASSRL_FOUND_MISSING, report::MISSING; PASSRL_FOUND_BAD_STEPS, report::BAD_STEPS;
        PASSRL_FOUND_SINGLETON, report::SINGLETON; PASSRL_FOUND_TOO_LARGE, report::TOO_LARGE; PASSRL_FOUND_BAD_OFFSETS, report::BAD_OFFSETS;
        PASSRL_FOUND_COLLECTIVE, report::COLLECTIVE;
        PASSRL_I64, partials::I64; PASSRL_I32, partials::I32; PASSRL_REDUCE_SUM, partials::SUM; PASSRL_REDUCE_MAX, partials::MAX;
        PASSRL_MAX_STREAMS, config::MAX_STREAMS; PASSRL_MAX_PROCESS, config::MAX_PROCESS; PASSRL_MAX_EXTRA, config::MAX_EXTRA;
        PASSRL_STREAM_OUTCOME, config::OUTCOME; PASSRL_STREAM_FORMAT, config::FORMAT; PASSRL_STREAM_EXTRA, config::EXTRA;
        super::status::PASSRL_ERR_NO_DEVICE, crate::error::NO_DEVICE; super::status::PASSRL_ERR_RESOURCE, crate::error::RESOURCE;
        super::status::PASSRL_ERR_COLLECTIVE, crate::error::COLLECTIVE;
        super::status::PASSRL_ERR_NOT_YET, crate::error::NOT_YET; super::status::PASSRL_ERR_DEVICE, crate::error::DEVICE;
        super::status::PASSRL_ERR_FORK, crate::error::FORK; super::status::PASSRL_ERR_DRIVER, crate::error::DRIVER; PASSRL_NUMERICS_VERSION, crate::NUMERICS_VERSION;
    }
};
