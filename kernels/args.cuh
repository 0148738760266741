// What the host hands to every kernel: the plan's constants, the batch, the outputs and the workspace. Plain
// structs of fixed-width numbers, the same in src/backend/cuda/args.rs (a test compares their layouts). Nothing here decides anything.
#ifndef PASSRL_ARGS_CUH
#define PASSRL_ARGS_CUH

typedef signed char i8;
typedef unsigned char u8;
typedef unsigned short u16;
typedef int i32;
typedef unsigned int u32;
typedef long long i64;
typedef unsigned long long u64;
typedef float f32;
typedef double f64;

// Element types: numbers of `PASSRL_DTYPE_*`.
enum DType { F64 = 1, F32 = 2, F16 = 3, BF16 = 4, I64 = 5, I32 = 6, U8 = 7, BOOL = 8 };

// A view of one or two dimensions in device memory; strides in elements. `data` 0: not given.
struct Array {
    u64 data;
    i64 stride[2];
    i32 dtype;
    i32 reserved;
};

// Numbers of the enumerations as in passrl.h (`PASSRL_KIND_*`, `PASSRL_CENTER_*`, ...).
struct Stream {
    f64 weight;
    f64 epsilon;
    f64 clip_value;
    f64 clip_standardized;
    i8 center, scale, ddof, epsilon_mode, loo_unit, singleton, missing, place, zero_variance, count_by;
    i8 reserved[6];
};

enum { MAX_STREAMS = 16, MAX_PROCESS = 4, ROLLOUT_STREAMS = 12, OUTCOME = 4, FORMAT = 5, EXTRA = 6, NEAR_DIVISORS = 48 };

// A plan: `Plan` of src/plan/mod.rs in numbers. Constant; every launch brings it (`Args::constants`).
struct PlanConstants {
    Stream streams[MAX_STREAMS];
    f64 opd_lambda, eta, gamma, lam, k, temperature, whiten_epsilon, clip;
    f64 kl_coef, kl_log_ratio_clamp, kl_clamp, lam_returns, lam_length_alpha, step_gamma, rho_clip, c_clip;
    // Powers of the scan's coefficient c, c^0 .. c^32.
    f64 decay[33];
    // n^-k for n = rollout_tokens down to 1 (device memory; 0 where k is 0): chunk j of K reads entry rollout_tokens - K + j.
    u64 divisors;
    // The last of them, n = 1 .. NEAR_DIVISORS: rollouts of few chunks read no table.
    f64 near_divisors[NEAR_DIVISORS];
    i64 max_rollouts, max_groups, max_tokens, max_rollout_tokens, max_steps;
    i32 num_process, num_extra, kind, pool, fusion, chunk, boundary_rule, merge_equal_steps, average_over, bridge_scope_gaps, chunk_value, credit, divide_scope;
    i32 whiten, whiten_ddof, whiten_epsilon_mode, whiten_shift, fill_padding;
    i32 kl_in_reward, kl_place, scan_mask, gae_over, divide_by, step_sets, step_value, token_baseline;
    // Answers of Config and Slots: asks_kl, kl_by_token, credits_tokens, spreads; the sets (slots) and what each row of the stream table has.
    i32 asks_kl, kl_by_token, credits_tokens, spreads;
    i32 slots, sets, joint, lists, shaped;
    u32 slots_batch, slots_runner_up;
    // Of each slot: its row in the stream table, the row that reports it (-1: none), bits of its grid.
    i8 slot_row[MAX_STREAMS], slot_reported[MAX_STREAMS], slot_bits[MAX_STREAMS];
    // Which lists the workspace has: values (prm), token_values (chunk_value = mean).
    i32 has_values, has_token_values;
    i32 reserved;
};

enum Layout { PACKED = 0, PADDED_RIGHT = 1, PADDED_LEFT = 2 };
enum Grouping { GROUP_INDEX = 0, GROUP_OFFSETS = 1, GROUP_CONSTANT = 2 };
enum ProcessForm { PROCESS_NONE = 0, PROCESS_SIGNAL = 1, PROCESS_LOGPROBS = 2, PROCESS_SCORES = 3, PROCESS_RETURNS = 4 };

// `Problem` of src/model/batch.rs. The host has seen shapes, strides, types and alignment; what offsets and indices say is looked at here.
struct Batch {
    i64 rollouts, groups;
    // Token slots of token-shaped arrays: N packed, T padded.
    i64 slots;
    i64 group_size;
    // Steps that the CSR arrays have.
    i64 steps;
    i32 layout, grouping, process, num_process, scores_flat;
    // Of passrl_steps: steps of a group that its block has room for in shared memory.
    i32 steps_at_hand;
    // cu_seqlens [R + 1] packed; lengths [R] or none padded. Group index [R] or offsets [G + 1].
    Array extents, group_view;
    Array mask;
    Array rollout_streams[ROLLOUT_STREAMS];
    Array format_ok, in_stats, absent, bootstrap;
    // A value a token, `signal`; log-probabilities; scores of CSR steps [S] or [P, S].
    Array signal[MAX_PROCESS];
    Array logp_policy, logp_teacher, logp_base, scores;
    Array step_offsets, step_ends, step_begins, step_marks, chunk_marks, step_group;
    Array values, token_rewards;
    // center = given; center / scale = given: [G, MAX_STREAMS].
    Array baselines, stats_mean, stats_std;
    Array rollout_lam;
    // KL in the reward (with logp_policy), V-trace (with logp_policy), token_baseline (with logp_policy).
    Array logp_reference, logp_behavior, sum_pi_squared, token_ratio;
};

struct Outputs {
    Array advantages, returns, path_scores, num_chunks, chunk_ends, chunk_values;
    Array stats_count, stats_mean, stats_std, stats_absmax, group_flags, rollout_flags;
    // passrl_report in device memory, or 0.
    u64 report;
};

// A step of a group, to be sorted by its key; `slot`: where its values lie in the lists of elements, << 1 | is it in its set.
struct KeyedStep {
    i64 key;
    u64 slot;
};

// What is kept of a rollout between kernels; the CPU keeps the same (src/plan/workspace.rs), and of pieces more.
struct Rollout {
    u32 group;      // 0xffffffff: none (its index is out of range)
    u32 elements;   // elements of the process sets, listed at the rollout's slot
    u32 chunks;
    u32 first, end, count; // scope: tokens first .. end, all of them where count = end - first
    u32 flags;      // PASSRL_ROLLOUT_*
    u32 state;      // STATE_*
};
enum State {
    STATE_OUT_OF_STATS = 1, STATE_EVERY_TOKEN = 2, STATE_ONE_LIST = 4, STATE_HAS_PROCESS = 8, STATE_ZEROED = 16, STATE_INFINITE = 32, STATE_NAN = 64,
    // Of a piece: its last chunk, its last step goes on in a later one.
    STATE_OPEN = 128, STATE_OPEN_STEP = 256,
    // Its elements, which are its chunks, are its CSR steps as the caller has them: no list is made of them (MODE_IN_PLACE).
    STATE_IN_PLACE = 512,
};

// Where the sections of the statistics lie, in bytes from `Workspace::state`: the layout of a partials buffer (src/plan/partials.rs), so that one set of
// kernels serves a run and the partials. Keys (i32, MAX) of a group: (absmax, max, min) a slot, then the format state; an empty section is filled with
// INT32_MIN before use (of a run: keys_from_zero), and readers take max(absmax, 0), max(format, 0). Sums (i64, SUM): (n, q, hi, lo, at_max, at_min) a slot, then (kl) the members that count.
struct StateLayout {
    i64 extremes, sums, table, batch_extremes, batch_sums, second, whiten_extremes, whiten_sums;
    // Where a group must be whole on one rank: of each group the ranks that have rollouts of it (times 2^32) and the rollouts. 0: it need not.
    i64 claims;
    // KL table of group g: C at table + 16 * positions * g, n after it. positions 0: of a run alone, C at column[slot of the group's longest rollout].
    i64 positions;
    // Keys are kept as unsigned numbers that begin at 0 (`load_key`): those of a run.
    i64 keys_from_zero;
};

// Blocks that have begun, items that have told of their parts, those parts.
struct Queue {
    u32 begun, told;
    u64 parts;
};

// Counts of a run (and nothing of the bits): begin as zeros.
struct Counts {
    i64 findings, rollouts, tokens, chunks, degenerate_groups, bad_groups, violating_groups, missing_values, nonfinite_values, low_logps, clipped_tokens,
        overflowed_tokens, bad_steps, lost_deviations;
    f64 sum_advantages, sum_squares;
    // ~g of the first group with a finding (0: none yet), by atomicMax; bad offsets make the whole batch bad.
    u64 first_group;
    u32 bad_offsets;
    // Blocks of the last kernel that are done: the last one writes the report.
    u32 done;
    // Of passrl_gae and passrl_shape_one_pass, of passrl_prepare, of passrl_sums (parts.cuh).
    Queue queues[3];
    // `step_sets = step_group`: room of `Workspace::keyed` that groups have taken.
    u64 keyed;
    // Partials: ~g of the first group that must be whole in a call and is not (0: none).
    u64 split;
    // Partials: 1 where the phases were not given as much each, or not in their order.
    u64 disorder;
};

// Counts of a group, beside its statistics: begin as zeros.
struct GroupMarks {
    // ~((rollout + 1) << 16 | stream << 8 | finding), the smallest by atomicMax of its complement; 0: none.
    u64 first;
    // Rollouts in this call; tokens of the longest scope << 32 | ~its rollout (by atomicMax): where the KL table of a run lies.
    u64 longest;
    u32 rollouts;
    // Bits: missing values in slot s; `found`: a finding of a rollout was reported.
    u32 missing;
    u32 found;
    // Leave-one-out by rollout: bit s is set where one rollout has all elements of slot s.
    u32 one_rollout;
    // `token_baseline`: the most places that a rollout reaches << 32 | ~that rollout, whose slot is where the group's places lie; the most tokens in scope of
    // a rollout that counts << 32 | ~that rollout; the second most; rollouts that count.
    u64 reach, most;
    u32 second, counted;
    // Blocks of passrl_prepare that are done with a rollout of the group (MODE_JOINED); rollouts that this call has claimed (ranks.cuh).
    u32 arrived, claimed;
};

// Addresses in the caller's workspace. Token-indexed lists are [lists][max_tokens] or [max_tokens], by the rollout's slot.
struct Workspace {
    u64 state;        // statistics: StateLayout (the caller's partials buffer, where one is given)
    u64 counts;       // Counts
    u64 marks;        // GroupMarks [G]
    u64 rollouts;     // Rollout [R]
    u64 scope;        // u64 bits; rollout i's words begin at slot / 64 + 2 i
    u64 elements;     // f32 [lists]
    u64 weights;      // u32
    u64 last;         // u32: last token of each chunk
    u64 values;       // f32 [lists]: process value of each chunk
    u64 token_values; // f32 [lists]
    u64 step_begin, step_end; // u32: the steps listed
    u64 step_keys;    // i64
    u64 stepped;      // f64 [lists]
    u64 chunk_steps;  // u32
    u64 keyed;        // KeyedStep
    u64 whitened;     // f32
    u64 kl;           // f32 a token
    u64 kl_sums;      // f32 a rollout
    u64 paths;        // f32 a rollout
    u64 baseline_weights, baseline_gains; // f64
    u64 signal;       // f32 [max(lists, 1)]: signals formed from log-probabilities, shaped rewards
    u64 f, d, v, lines; // f64 a token: chunk values, results, returns, further lines of a scan
    u64 columns, live;  // i64 a token: KL table of a run
    u64 edges;          // u64 bits: edges of its positions, laid out as `scope`
    u64 edge_counts;    // u32: how many of a part's positions have an edge, of groups whose longest rollout is in parts
    u64 parts[3], part_states[3]; // Part and its state (u32) of each part of a rollout beside its first: of the queues
    u64 places;       // token_baseline: |G W| and |W| at most (f64), sums of both (i64): [4][max_tokens]
    u64 joint;        // rollouts in pieces over calls: Joint, then the call's units (UNITS_AT bytes on); 0: rollouts come whole
};

enum Mode {
    // Findings and counts go to Counts (a call's first pass over its data).
    MODE_COUNTING = 1,
    // Maxima go nowhere (they are known): partials' later phases and apply.
    MODE_KNOWN = 2,
    // Advantages are kept in f32 for the whitening's statistics; written later.
    MODE_KEEP = 4,
    // Nothing is written: a look for findings (strict), or partials alone.
    MODE_DRY = 8,
    // `token_baseline`: passrl_shape weighs the rollouts' returns and does nothing else.
    MODE_WEIGH = 16,
    // One rank among several: words of the ranks stand at the begin of the statistics (ranks.cuh).
    MODE_RANKS = 32,
    // Groups' rollouts stand together (and are few), so that the last of their blocks goes on: passrl_prepare with the sums, passrl_sums with the KL edges.
    MODE_JOINED = 64,
    // The edges of KL positions are kept as bits.
    MODE_EDGES = 128,
    // Pieces over calls: chunks are counted; tiles of the scan are brought together. Nothing else is made.
    MODE_CHUNKS = 256, MODE_SCAN = 512,
    // Steps may stay where the caller has them: f32 scores side by side, one process stream, and nothing asks for lists but what reads them through `elements_of`.
    MODE_IN_PLACE = 1024,
    // A block has all rollouts of a group (passrl_steps): none is in parts.
    MODE_WHOLE_GROUPS = 2048,
};

struct Args {
    u64 plan; // const PlanConstants* where a kernel has put them (primitives); 0: `constants`
    u32 mode;
    u32 primitive; // Primitive; of a plan 0
    Batch batch;
    Outputs outputs;
    StateLayout layout;
    Workspace work;
    PlanConstants constants;
};

// Primitives on token-shaped arrays (primitives.cuh), and what their first launch is handed: the constants, and where they, the counts and the whitening's
// statistics lie.
enum Primitive {
    PRIMITIVE_RETURNS = 1, PRIMITIVE_GAE = 2, PRIMITIVE_OPD = 3, PRIMITIVE_KL = 4, PRIMITIVE_WHITEN = 5, PRIMITIVE_DIVIDE = 6,
    // On chunks and on groups (primitives_chunks.cuh, primitives_groups.cuh); flags before a process signal is there are early.
    PRIMITIVE_CHUNKS = 7, PRIMITIVE_STANDARDIZE = 8, PRIMITIVE_FLAGS = 9, PRIMITIVE_FLAGS_EARLY = 10,
};
struct PrimitiveStart {
    PlanConstants plan;
    u64 constants, counts, keys, words;
};

// Rollouts in pieces (pieces.cuh): the pieces of a call, where their tokens lie and where they are put, as whole rollouts one after another.
enum { MOST_GATHERED = 13 };
struct Pieces {
    i64 pieces, rollouts;
    // Token slots of the call, rows of `table`, limits of the plan.
    i64 slots, each, max_tokens, max_rollout_tokens;
    // cu_seqlens [P + 1]; of each piece the rollout's row, the index of its first token, its number; [R] tokens of the whole rollouts, absence.
    Array extents, rollout, begin, index, lengths, absent;
    // Of the workspace: offsets of the whole rollouts (i64 [R + 1]), their pieces plus 1 (u32 [R, each], zeros before), u8 [R], Counts.
    u64 offsets, table, absent_to, counts;
    // Token-shaped inputs and their places; outputs, and where their results are.
    Array inputs[MOST_GATHERED];
    u64 gathered[MOST_GATHERED];
    Array outputs[2];
    u64 results[2];
    i32 count, fill_padding;
};

// Rollouts in pieces over calls or ranks (pieces_units.cuh): every piece of a call is a unit, with what is the rollout's gathered to it, and the kernels see units where
// they see rollouts. What pieces exchange are sections of a partials buffer (src/plan/pieces.rs).
enum JointStage { JOINT_EDGES = 0, JOINT_OWN = 1, JOINT_MAXIMA = 2, JOINT_SUMS = 3, JOINT_CHUNKS = 4, JOINT_SCAN = 5, JOINT_WHITEN = 6, JOINT_APPLY = 7 };
struct Joint {
    // Sections, in bytes from `Workspace::state`; rollouts of the batch, rows and tiles of one.
    i64 edges, own, chunks, scan, rollouts, each, tiles;
    // Numbers of the clipped steps among their rollout's (u32).
    u64 step_numbers;
    i32 scans, own_words, own_lists, chunk_words, stage, reserved;
};
enum { UNITS_AT = 256 };
// A piece of the call.
struct Unit {
    // Its first token's index in the rollout, its tokens, the slots beyond, the rollout's tokens and steps, its clipped steps.
    i64 begin, len, tail, whole, steps, clipped;
    // Number of the rollout in the batch; hash of what is the rollout's.
    i64 number;
    u64 hash;
    // Once the edges of all pieces are there: index in the rollout of its first token in scope (-1: none), tokens in scope of all and of later pieces, position of this
    // one's first token in scope, first of its tokens that takes part in a scan over all (its length: none does), and those of later pieces.
    i64 first, total, tokens_after, position, line, lines_after;
    // Row of the per-rollout arrays, number among the rollout's pieces, how many these are, flags of all, the next one with a token in scope (-1: none).
    u32 row, index, pieces, flags;
    i32 next;
    // Key of the largest KL of all.
    i32 most_kl;
    // The piece speaks for its rollout where something is said once, and of those in this call; steps that do not fit; ...
    u8 head, speaks, bad, process, at_end, scope_before, reserved[2];
};
enum { ROW_INPUTS = 18 };
struct UnitsStart {
    i64 pieces, rollouts, groups, group_size, slots, max_tokens, max_rollout_tokens, steps, scores_room;
    i32 grouping, num_process, scores_flat, hashes_scores;
    // cu_seqlens [P + 1]; of each piece the rollout's row, its first token's index, its number; of each row its tokens, its number in the batch; groups.
    Array extents, rollout, begin, index, lengths, numbers, group_view;
    // Outcome, format and further streams; baselines, bootstrap, lambda; format_ok, in_stats, absent; where they are gathered.
    Array inputs[ROW_INPUTS];
    u64 gathered[ROW_INPUTS];
    Array step_offsets, step_ends, step_begins, scores;
    u64 groups_to, ends_to, begins_to, scores_to, speakers;
    u64 state, counts, joint_to;
    Joint joint;
};

// What passrl_announce is handed (ranks.cuh): where the words go, the plan's count of calls (u32), the run's Counts (0: none).
enum { HEADER_WORDS = 8 };
struct Announcement {
    u64 words, calls, counts;
    i32 header[HEADER_WORDS];
    i32 rank, reserved;
};

// What passrl_phases is handed (phases.cuh): the buffer's counts of what each phase has been given, the call's Counts; how much comes to `phase` (`phases`: the buffer is
// applied); which count is that of each of the `phases`.
enum { MOST_PHASES = 8 };
struct PhaseNote {
    u64 given, counts;
    i64 units;
    i32 phase, phases;
    i32 words[MOST_PHASES];
};

#endif
