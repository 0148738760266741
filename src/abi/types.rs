//! The `#[repr(C)]` structs of the ABI. They grow at the end only, apart from the frozen ones; layouts are asserted below.
use std::ffi::{c_char, c_void};

/// Zero-copy view of the caller's memory: never copied, never kept after the call (CPU) or past the stream's work (CUDA). Frozen.
///
/// One or two dimensions (`ndim`); strides are in elements and may be any number (0 and negative too) on inputs; outputs must
/// not overlap themselves. Natural alignment is enough. A NULL `passrl_view *` means "not given".
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct passrl_view {
    /// First element. May be NULL where a dimension is 0.
    pub data: *mut c_void,
    /// Elements along each dimension; `shape[1]` is ignored where `ndim` is 1.
    pub shape: [i64; 2],
    /// Distance between neighbours, in elements.
    pub stride: [i64; 2],
    /// 1 or 2.
    pub ndim: i32,
    /// `PASSRL_F32`, ...
    pub dtype: i32,
    /// `PASSRL_CPU` or `PASSRL_CUDA`.
    pub device_type: i32,
    /// Ordinal of the device; 0 on the CPU.
    pub device_id: i32,
}

/// One row of the configuration's stream table: how a stream is standardised and weighted (docs/formulas.md 2.2, 2.3). Frozen.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct passrl_stream {
    /// Weight w of the stream in the fusion (eq. 4). Finite.
    pub weight: f64,
    /// Beside or inside the standard deviation, by `epsilon_mode`. At least 0.
    pub epsilon: f64,
    /// `PASSRL_CENTER_*`: what is subtracted.
    pub center: i32,
    /// `PASSRL_SCALE_*`: what is divided by.
    pub scale: i32,
    /// 0 or 1: divisor n - ddof of the variance.
    pub ddof: i32,
    /// `PASSRL_EPSILON_*`.
    pub epsilon_mode: i32,
    /// `PASSRL_LOO_*`: what leave-one-out leaves out.
    pub loo_unit: i32,
    /// `PASSRL_SINGLETON_*`.
    pub singleton: i32,
    /// `PASSRL_MISSING_*`.
    pub missing: i32,
    /// `PASSRL_PLACE_*`: which chunks a per-rollout stream's term goes to.
    pub place: i32,
    /// `PASSRL_ZERO_VARIANCE_*`: what a set of equal values gives.
    pub zero_variance: i32,
    /// `PASSRL_COUNT_BY_*`: how often a rollout's value is in its set.
    pub count_by: i32,
    /// Per-rollout streams: values are limited to [-c, c] before anything else; +inf.
    pub clip_value: f64,
    /// Per-rollout streams: standardised values are limited to [-c, c]; +inf.
    pub clip_standardized: f64,
    /// Must be 0.
    pub reserved: [i64; 3],
    /// Name in sentences and descriptions of a plan, "accuracy (extra_0)": zero-terminated UTF-8, at most 31 bytes, or the plan is refused. A report holds the row's number
    /// alone: `passrl_report_status`, which knows no plan, says "extra_0".
    pub name: [c_char; 32],
}

/// The configuration: plain fields, filled by `passrl_config_init` or a preset, changed at will, read once by `passrl_plan_create`.
/// Field names and defaults are the same here, in text (`passrl_config_set`) and in Python. Flags are 0 or 1.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct passrl_config {
    /// sizeof(passrl_config) as the caller compiled it.
    pub struct_size: u32,
    /// Process streams that a batch may carry, 1 (default) to 4. They share steps; the detector reads the first.
    pub num_process: i32,
    /// Further per-rollout streams that a batch may carry, 0 (default) to 10: rows `PASSRL_STREAM_EXTRA`... of `streams`.
    pub num_extra: i32,
    /// `PASSRL_KIND_*`; prm.
    pub kind: i32,
    /// `PASSRL_POOL_*`; steps.
    pub pool: i32,
    /// `PASSRL_FUSION_*`; advantage.
    pub fusion: i32,
    /// `PASSRL_CHUNK_*`; by_value.
    pub chunk: i32,
    /// `PASSRL_BOUNDARY_*`; adjacent.
    pub boundary_rule: i32,
    /// Flag: neighbouring steps of equal value are one chunk; 0.
    pub merge_equal_steps: i32,
    /// `PASSRL_AVERAGE_*`; live.
    pub average_over: i32,
    /// Flag: `by_value` compares across out-of-scope spans; 0.
    pub bridge_scope_gaps: i32,
    /// `PASSRL_CHUNK_VALUE_*`; last.
    pub chunk_value: i32,
    /// `PASSRL_CREDIT_*`; return_to_go.
    pub credit: i32,
    /// `PASSRL_DIVIDE_*`; all.
    pub divide_scope: i32,
    /// `PASSRL_WHITEN_*`; none.
    pub whiten: i32,
    /// 0 or 1; 1.
    pub whiten_ddof: i32,
    /// `PASSRL_EPSILON_*`; add_var.
    pub whiten_epsilon_mode: i32,
    /// Flag: whitening subtracts the mean (0: the mean is added back, the frameworks' `shift_mean=False`); 1.
    pub whiten_shift: i32,
    /// Flag: slots of the outputs beyond a rollout's end are written 0 (0: left alone); 1.
    pub fill_padding: i32,
    /// Flag: look at the data first and refuse findings before anything is written (CPU); 0.
    pub strict: i32,
    /// Flag: a framework's own behaviour in degenerate sets. Declared for the frameworks' presets; 1 is refused by this version.
    pub compat: i32,
    /// Must be 0.
    pub reserved0: i32,
    /// lambda of G-OPD (with `logp_base`); 1.25.
    pub opd_lambda: f64,
    /// Chunk tolerance; 1e-8.
    pub eta: f64,
    /// Discount per step (chunk), 0 to 1; 1.
    pub gamma: f64,
    /// lambda of GAE, 0 to 1; 1.
    pub lam: f64,
    /// Divide-Length exponent, 0 to 8; 0.7.
    pub k: f64,
    /// Advantages are divided by it; 1.
    pub temperature: f64,
    /// 1e-8.
    pub whiten_epsilon: f64,
    /// Advantages are clipped to [-clip, clip]; +inf.
    pub clip: f64,
    /// The stream table: process 0-3, outcome, format, further streams. Sums run in this order.
    pub streams: [passrl_stream; 16],
    /// `PASSRL_KL_*`: the divergence from `logp_reference` that is taken from the reward; none.
    pub kl_in_reward: i32,
    /// `PASSRL_KL_PLACE_*`: where it is taken; outcome.
    pub kl_place: i32,
    /// `PASSRL_SCAN_MASK_*`: how return-to-go and GAE over tokens pass out-of-scope tokens; carry.
    pub scan_mask: i32,
    /// `PASSRL_GAE_*`: units of GAE; tokens.
    pub gae_over: i32,
    /// `PASSRL_DIVIDE_BY_*`: what Divide-Length divides by; count.
    pub divide_by: i32,
    /// `PASSRL_STEP_SETS_*`: the sets of the process streams; group.
    pub step_sets: i32,
    /// `PASSRL_STEP_VALUE_*`: what a step's value is made of; score.
    pub step_value: i32,
    /// `PASSRL_TOKEN_BASELINE_*`: what is subtracted from a token's advantage beside the group's statistics; none.
    pub token_baseline: i32,
    /// Coefficient of `kl_in_reward`; 0.
    pub kl_coef: f64,
    /// log(policy / reference) counts as no less than -c before the divergence is formed; +inf.
    pub kl_log_ratio_clamp: f64,
    /// The divergence of a token is limited to [-c, c]; +inf.
    pub kl_clamp: f64,
    /// GAE: lambda of the returns; -1: as `lam`.
    pub lam_returns: f64,
    /// GAE: lambda of a rollout of n tokens is 1 - 1 / (alpha n); 0: off.
    pub lam_length_alpha: f64,
    /// Discount of `step_value = return_to_go`; 1.
    pub step_gamma: f64,
    /// V-trace: limits of the importance ratios; 1.
    pub rho_clip: f64,
    pub c_clip: f64,
}

/// The most that a plan will ever be given. Workspace, tables and message sizes follow from it alone. 0 where a default is named.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct passrl_limits {
    /// sizeof(passrl_limits) as the caller compiled it.
    pub struct_size: u32,
    /// Must be 0.
    pub reserved0: u32,
    /// Rollouts of one call; below 2^31, as `groups`, `rollout_tokens`, `pieces` and `batch_rollouts` (the others: below 2^40, or what is said).
    pub rollouts: i64,
    /// Groups of one call (over micro-batches and ranks: of the whole batch). 0: as many as rollouts.
    pub groups: i64,
    /// Tokens of one call. Packed: those of its rollouts, from the first of `cu_seqlens` to the last (the arrays may hold more; on CUDA, where the host reads no
    /// offsets and no view is token-shaped, N is taken to be this). Padded: R*T slots.
    pub tokens: i64,
    /// Longest rollout in tokens: held against `cu_seqlens` or `lengths`; padded without lengths against T. 0: as `tokens`; state it, as each thread's scratch and the
    /// table of n^-k follow from it.
    pub rollout_tokens: i64,
    /// Steps of one call (CSR). 0: as `tokens`.
    pub steps: i64,
    /// Most rollouts of one group over all micro-batches and ranks; below 2^17. 0: as `rollouts`.
    pub group_rollouts: i64,
    /// Most elements (steps; tokens for kl and `pool = tokens`) of one group; below 2^33, with a leave-one-out standard deviation below 2^17. 0: as `tokens`.
    pub group_elements: i64,
    /// Pieces of rollouts of one call (context parallelism). 0: rollouts come whole; else every batch says its pieces.
    pub pieces: i64,
    /// With `pieces`: most pieces of one rollout over all calls and ranks (2 cp in a zigzag); below 2^16. 0: as `pieces`.
    pub rollout_pieces: i64,
    /// With `pieces`: rollouts of the whole batch, over all calls and ranks. 0: as `rollouts`.
    pub batch_rollouts: i64,
}

/// One batch: views of the caller's memory. Fill with `passrl_batch_init`, then set what there is. R rollouts, G groups, N tokens.
///
/// Token-shaped views are `[N]` in the packed layout and `[R, T]` (any row stride) in the padded one.
///
/// Views that the plan's configuration does not ask for are looked at for their shape at most, and change nothing: one batch serves any algorithm. `passrl_plan_describe`
/// names those that are read.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct passrl_batch {
    /// sizeof(passrl_batch) as the caller compiled it.
    pub struct_size: u32,
    /// `PASSRL_PACKED` or `PASSRL_PADDED`.
    pub layout: i32,
    /// R, 0 or more.
    pub num_rollouts: i64,
    /// G. 0: from `group_offsets`, R / `group_size`, or with `group_index` the plan's `limits.groups`.
    pub num_groups: i64,
    /// T of the padded layout. 0: from the first token-shaped view given.
    pub row_tokens: i64,
    /// `PASSRL_PAD_RIGHT` or `PASSRL_PAD_LEFT`; read where `lengths` is given.
    pub pad_side: i32,
    /// Must be 0.
    pub reserved0: i32,
    /// Packed: `[R+1]` (with pieces `[P+1]`) i32 or i64, not decreasing; may start above 0 (a slice of a longer batch).
    pub cu_seqlens: *const passrl_view,
    /// Padded: tokens of each rollout, `[R]` i32 or i64, 0 to T; with pieces those of the whole rollout. NULL: T each, the mask alone says what is there.
    pub lengths: *const passrl_view,
    /// Scope, token-shaped: bool, u8, i32, i64, f32, bf16; nonzero (NaN too) is in scope. NULL: all.
    pub mask: *const passrl_view,
    /// Groups, exactly one of three: dense index of each rollout's group, `[R]` i32 or i64, 0 to G-1, in any order;
    pub group_index: *const passrl_view,
    /// or offsets `[G+1]` i32 or i64 from 0 to R;
    pub group_offsets: *const passrl_view,
    /// or a constant size (R must be a multiple of it).
    pub group_size: i64,
    /// Outcome reward r_out, `[R]` f32, bf16, f16 or f64.
    pub outcome: *const passrl_view,
    /// Format reward r_fmt, `[R]` as outcome.
    pub format: *const passrl_view,
    /// Further per-rollout streams, in the order of the stream table, `[R]` as outcome.
    pub extra: [*const passrl_view; 10],
    /// Format indicator ok, `[R]` of a mask's types; NULL: 1 everywhere. Needs `format`.
    pub format_ok: *const passrl_view,
    /// 0: the rollout gets an advantage and is in no set. `[R]` of a mask's types. NULL: 1 everywhere.
    pub in_stats: *const passrl_view,
    /// Nonzero: the rollout is a placeholder, all of it 0. `[R]` of a mask's types.
    pub absent: *const passrl_view,
    /// `center = given`: what is subtracted from the outcome, `[R]` as outcome. NULL: `stats_mean`.
    pub baselines: *const passrl_view,
    /// gae: value after the last token, `[R]` f32, bf16, f16 or f64. NULL: 0.
    pub bootstrap: *const passrl_view,
    /// Process signals, token-shaped f32, bf16, f16: prm dense, prm sparse (with `step_marks`), or kl. As many as there are, first to last.
    pub signal: [*const passrl_view; 4],
    /// Instead of `signal`: log-probabilities, token-shaped f32, bf16, f16 or f64. OPD: teacher - policy.
    pub logp_policy: *const passrl_view,
    pub logp_teacher: *const passrl_view,
    /// With it G-OPD: lambda (teacher - base) - (policy - base).
    pub logp_base: *const passrl_view,
    /// `kl_in_reward`: log-probabilities of the reference, token-shaped as `logp_policy`, which it needs.
    pub logp_reference: *const passrl_view,
    /// gae: V, token-shaped f32, bf16, f16 or f64.
    pub values: *const passrl_view,
    /// Rewards a token, token-shaped f32, bf16, f16 or f64: gae: instead of the chunks' values; other credit (`chunk = token`): added to them.
    pub token_rewards: *const passrl_view,
    /// `chunk = given`: nonzero ends a chunk after this token; token-shaped, of a mask's types.
    pub chunk_ends: *const passrl_view,
    /// Steps of rollout i: `step_offsets[i] .. step_offsets[i+1]`, `[R+1]` i32 or i64.
    pub step_offsets: *const passrl_view,
    /// `[S]` i32 or i64: exclusive end of each step, in tokens of its rollout, not decreasing within a rollout.
    pub step_ends: *const passrl_view,
    /// `[S]` i32 or i64: begin of each step. Given: tokens outside steps are out of scope. NULL: a step begins where the one before ends.
    pub step_begins: *const passrl_view,
    /// `[S]`, or `[P, S]` for P process streams, f32, bf16, f16 or f64.
    pub step_scores: *const passrl_view,
    /// Sparse form: nonzero where a token ends a step; token-shaped, of a mask's types.
    pub step_marks: *const passrl_view,
    /// `step_sets = step_group`: `[S]` i32 or i64, any numbers: steps of a group with equal numbers (equal state) share statistics (GiGPO).
    pub step_group: *const passrl_view,
    /// Rollouts in pieces (context parallelism), `[P]` i32 or i64 each, in any order; for plans with `limits.pieces`. Packed layout: `cu_seqlens` is `[P+1]` and token-shaped
    /// views hold the pieces; `lengths [R]` says the whole rollouts' tokens, and slots of a piece beyond them are padding. Per-rollout views stay `[R]`, and steps are given
    /// whole: the same on every rank and in every call that has a piece of the rollout. On CUDA, where the host does not see them, pieces that make no whole rollouts give advantages 0
    /// and `PASSRL_FOUND_BAD_OFFSETS` (over ranks on every rank). Row of the rollout that a piece is of;
    pub piece_rollout: *const passrl_view,
    /// index of its first token in the rollout; see also `piece_index` and `rollout_index`.
    pub piece_begin: *const passrl_view,
    /// Exact statistics as bytes. Declared; refused by this version (`stats_mean` and `stats_std` are numbers; partials are exact).
    pub stats_in: *const c_void,
    pub stats_in_bytes: usize,
    /// gae: lambda of each rollout, `[R]` f32, bf16, f16 or f64, 0 to 1, in place of the configuration's.
    pub rollout_lam: *const passrl_view,
    /// V-trace: log-probabilities of the policy that sampled, token-shaped as `logp_policy`, which it needs.
    pub logp_behavior: *const passrl_view,
    /// `center = given`, `scale = given`: mean and standard deviation of each group and stream, `[G, PASSRL_MAX_STREAMS]` f64 or f32, as
    /// `outputs.stats_mean` and `stats_std` are written; a stride of 0 along G serves every group by one row.
    pub stats_mean: *const passrl_view,
    pub stats_std: *const passrl_view,
    /// `token_baseline`: sum over the vocabulary of the policy's squared probabilities at each token, token-shaped as `logp_policy`, which it needs.
    pub sum_pi_squared: *const passrl_view,
    /// `token_baseline`: importance ratio of each token, token-shaped as `logp_policy`. NULL: 1.
    pub token_ratio: *const passrl_view,
    /// With pieces: number of each piece among those of its rollout, from the rollout's begin, `[P]` i32 or i64, 0 to `limits.rollout_pieces` - 1.
    pub piece_index: *const passrl_view,
    /// With pieces: number of each rollout in the whole batch, the same in every call and on every rank, `[R]` i32 or i64, 0 to `limits.batch_rollouts` - 1. NULL: its row.
    pub rollout_index: *const passrl_view,
}

/// Where results go: views of the caller's memory, NULL for what is not wanted (`advantages` is always wanted). Fill with `passrl_outputs_init`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct passrl_outputs {
    /// sizeof(passrl_outputs) as the caller compiled it.
    pub struct_size: u32,
    /// Must be 0.
    pub reserved0: u32,
    /// A, token-shaped f32, bf16, f16 or f64: every slot of the shape is written. May be the memory of `signal[0]`, `logp_policy`, `logp_teacher`, `logp_base`, `values` or
    /// `token_rewards` where type, shape and strides are the same (in place). Nothing else may share a byte with an output; to lie in each other's gaps (columns of one
    /// matrix, halves of its rows) is to be apart.
    pub advantages: *const passrl_view,
    /// Return-to-go G before Divide-Length; gae: A + V. Token-shaped f32, bf16, f16 or f64.
    pub returns: *const passrl_view,
    /// S, `[R]` f32 or f64: D of the first chunk, before post.
    pub path_scores: *const passrl_view,
    /// K, `[R]` i32 or i64.
    pub num_chunks: *const passrl_view,
    /// Chunk j (from 0) of rollout i at element j of its packed tokens, padded at column j of its row: its exclusive end in tokens of the rollout, token-shaped i32
    /// or i64. Slots beyond K are left alone.
    pub chunk_ends: *const passrl_view,
    /// Likewise its value a, token-shaped f32 or f64.
    pub chunk_values: *const passrl_view,
    /// Statistics of each group and stream, `[G, PASSRL_MAX_STREAMS]`: elements (i64), mean, standard deviation, max|x| (f64). 0 for streams not given.
    pub stats_count: *const passrl_view,
    pub stats_mean: *const passrl_view,
    pub stats_std: *const passrl_view,
    pub stats_absmax: *const passrl_view,
    /// `PASSRL_GROUP_*` bits, `[G, PASSRL_MAX_STREAMS]` i32.
    pub group_flags: *const passrl_view,
    /// `PASSRL_ROLLOUT_*` bits, `[R]` i32.
    pub rollout_flags: *const passrl_view,
    /// Overwritten by the run; aligned to 8, apart from all other memory of the call. NULL: not wanted (on the CPU the status still tells). On CUDA device memory of
    /// `passrl_report_size` bytes, of any content: give a host copy to `passrl_report_status` once the stream's work is done.
    pub report: *mut passrl_report,
}

/// Counts and sums of one run; reports of micro-batches and ranks add (`passrl_report_merge`). Fill `struct_size` with `passrl_report_init`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct passrl_report {
    /// sizeof(passrl_report) as the caller compiled it.
    pub struct_size: u32,
    /// Must be 0.
    pub reserved0: u32,
    /// `PASSRL_FOUND_*` bits.
    pub findings: i64,
    /// The first finding: its `PASSRL_FOUND_*` bit (0: none), rollout (-1: of the group as a whole), group and stream (of a token's values, rewards and log-probabilities
    /// that of `process_0`, of a baseline that of `outcome`).
    pub first_finding: i64,
    pub first_rollout: i64,
    pub first_group: i64,
    pub first_stream: i64,
    /// Rollouts (absent ones excluded), tokens in scope, chunks.
    pub rollouts: i64,
    pub tokens: i64,
    pub chunks: i64,
    /// (group, stream) pairs whose set is empty, single or of zero variance; counted in each call that sees the group.
    pub degenerate_groups: i64,
    /// Groups with a finding; counted in each call that sees the group.
    pub bad_groups: i64,
    /// Groups whose rollouts all violate the format; counted in each call that sees the group.
    pub violating_groups: i64,
    /// Values that are NaN where `missing` is `zero` or `exclude`; those that are infinite, or NaN where no rule lets them be missing.
    pub missing_values: i64,
    pub nonfinite_values: i64,
    /// Log-probabilities below -1e4.
    pub low_logps: i64,
    /// Tokens changed by `clip`; tokens whose value was beyond the output type's range.
    pub clipped_tokens: i64,
    pub overflowed_tokens: i64,
    /// Rollouts whose steps do not fit.
    pub bad_steps: i64,
    /// Leave-one-out deviations that came out 0 although the others differ.
    pub lost_deviations: i64,
    /// Sum of A and of A squared over the tokens in scope (their last bits may depend on the schedule).
    pub sum_advantages: f64,
    pub sum_squares: f64,
}

/// Options of a context. Fill with `passrl_context_options_init`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct passrl_context_options {
    /// sizeof(passrl_context_options) as the caller compiled it.
    pub struct_size: u32,
    /// `PASSRL_CPU` (default) or `PASSRL_CUDA`.
    pub backend: i32,
    /// CUDA: device ordinal, or -1 for the calling thread's current context, which is borrowed and left as it was. 0.
    pub device: i32,
    /// CPU: threads that work on a run, 1 to 1024: the calling thread and, of more than 1, the context's own, which join it as the system wakes them. 0 (default): as many as
    /// the calling thread's affinity and cgroup quota allow, at most 8.
    pub threads: i32,
    /// CPU: instruction set, `PASSRL_SIMD_*`; BEST (default) takes what the processor has. Every path gives the same bits.
    pub simd: i32,
    /// Must be 0.
    pub reserved0: i32,
    /// CPU: calls that move fewer bytes than this stay on the calling thread. -1 (default): 1 MiB, 2 MiB where tokens have their chunk's credit.
    pub small_call_bytes: i64,
    /// CUDA: folder of what NVRTC has compiled; NULL: `.cache/passrl` in the user's home folder, "": no cache. Created where it is missing; one that cannot be
    /// written serves without. Read during `passrl_context_create` only.
    pub cache_dir: *const c_char,
    /// CUDA: path of the NVRTC library (`libnvrtc.so.12`, `.13`); NULL: one that the process has loaded, else as the loader finds it. Read during
    /// `passrl_context_create` only.
    pub nvrtc: *const c_char,
    /// CUDA: `PASSRL_KERNELS_*`; ANY.
    pub kernels: i32,
    /// Must be 0.
    pub reserved1: i32,
}

/// All-reduce of the caller's engine (NCCL, MPI, torch.distributed) over the ranks that share a batch's groups. Given to `passrl_plan_create`.
///
/// `all_reduce` reduces `count` elements of `dtype` (`PASSRL_I64`, `PASSRL_I32`) at `buffer` (aligned to the type) in place by `op` (`PASSRL_REDUCE_*`). 0: done; any
/// other return is a failure. It is called on the thread that calls the library and must not call the library itself. How often and with how many elements
/// follows from configuration and limits alone; `passrl_plan_describe` prints it. (On the CPU, where the maxima of sets say all, the sums follow only if some rank's
/// outputs ask for counts.) Made of an `ncclComm_t`: `passrl_nccl_collective`; of an `MPI_Comm`: passrl_mpi.h.
///
/// For a plan of a CPU context `buffer` is host memory and `stream` NULL. For one of a CUDA context, which `device_type` must say, `buffer` is memory of the context's device,
/// the device's context is the thread's current one, and the reduction takes its place in the order of `stream` (the run's; at the plan's creation NULL, the legacy
/// default stream, of which the creation waits): it returns once its work is on the stream, and a run can be captured where that work can.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct passrl_collective {
    /// sizeof(passrl_collective) as the caller compiled it.
    pub struct_size: u32,
    /// Must be 0.
    pub reserved0: u32,
    /// Handed back to `all_reduce`.
    pub user: *mut c_void,
    /// Must not be NULL; `user` and it must live as long as the plan.
    pub all_reduce: Option<
        unsafe extern "C" fn(user: *mut c_void, buffer: *mut c_void, count: usize, dtype: i32, op: i32, stream: *mut c_void) -> i32,
    >,
    /// This rank, 0 to size - 1.
    pub rank: i32,
    pub size: i32,
    /// The memory that `all_reduce` takes: `PASSRL_CPU` (default) or `PASSRL_CUDA`. That of the plan's context, or the plan is refused.
    pub device_type: i32,
    /// Must be 0.
    pub reserved1: i32,
}

/// One section of a partials buffer (`passrl_partials_layout`): reduce it in place and partials of several processes are one. Frozen.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct passrl_section {
    /// Bytes from the buffer's begin.
    pub offset: u64,
    /// Elements.
    pub count: u64,
    /// `PASSRL_I64` or `PASSRL_I32`.
    pub dtype: i32,
    /// `PASSRL_REDUCE_*`.
    pub op: i32,
}

/// A context: backend, device, threads. Opaque. May be used from many threads; plans keep what they need of it.
pub struct passrl_context {
    pub(crate) inner: std::sync::Arc<crate::backend::Context>,
}

/// A plan: one configuration within limits, immutable; may be run from many threads at once, each with its own workspace. Opaque.
pub struct passrl_plan {
    pub(crate) inner: crate::plan::Plan,
    pub(crate) device: Option<crate::backend::OnDevice>,
    pub(crate) comm: Option<super::ranks::Comm>,
    pub(crate) context: std::sync::Arc<crate::backend::Context>,
}

const _: () = {
    assert!(size_of::<passrl_view>() == 56);
    assert!(size_of::<passrl_stream>() == 128);
    assert!(size_of::<passrl_config>() == 22 * 4 + 8 * 8 + 16 * 128 + 8 * 4 + 8 * 8);
    assert!(size_of::<passrl_limits>() == 88);
    assert!(size_of::<passrl_section>() == 24);
    assert!(size_of::<passrl_report>() == 168);
};
