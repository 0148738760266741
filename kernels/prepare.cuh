// Kernel of the first pass (src/backend/cpu/prepare.rs): one block a rollout prepares it, keeps what the later ones need, and gives its group and the batch
// its maxima and findings.
#ifndef PASSRL_PREPARE_CUH
#define PASSRL_PREPARE_CUH
#include "baseline_weights.cuh"
#include "batch_stats.cuh"
#include "kl_reward.cuh"

// What the device's offsets say, where one block's look at its rollout does not see it: each block takes its share of the groups' offsets. A finding zeroes
// the batch.
INLINE void check_group_offsets(const Args& args) {
    const Batch& batch = args.batch;
    if (batch.grouping != GROUP_OFFSETS) return;
    bool bad = false;
    for (i64 g = (i64)blockIdx.x * blockDim.x + threadIdx.x; g <= batch.groups; g += (i64)gridDim.x * blockDim.x) {
        i64 now = item_int(batch.group_view, g);
        bad = bad || now < 0 || now > batch.rollouts || (g == 0 ? now != 0 : now < item_int(batch.group_view, g - 1)) || (g == batch.groups && now != batch.rollouts);
    }
    if (bad) {
        atomicOr(&counts_of(args).bad_offsets, 1u);
        atomicOr((u64*)&counts_of(args).findings, (u64)FOUND_BAD_OFFSETS);
    }
}

// A rollout that nothing is known of: it has no token, is in no group, and its slots are zeroed.
INLINE void keep_bad_rollout(const Args& args, const PlanConstants& plan, i64 i, const Extent& e) {
    if (!is_first_thread()) return;
    Counts& counts = counts_of(args);
    if (e.bad) atomicOr(&counts.bad_offsets, 1u);
    atomicOr((u64*)&counts.findings, (u64)FOUND_BAD_OFFSETS);
    if (is_given(args.batch.logp_reference) && !plan.kl_by_token) ((f32*)args.work.kl_sums)[i] = 0.0f;
    rollout_of(args, i) = Rollout{NO_GROUP, 0, 0, 0, 0, 0, ROLLOUT_NO_SCOPE, STATE_ZEROED | STATE_OUT_OF_STATS};
}

// A rollout whose every given stream is missing and excluded gets advantage 0.
INLINE void without_stream(const Args& args, const PlanConstants& plan, Work& w) {
    if ((w.kept.state & STATE_HAS_PROCESS) || is_given(args.batch.token_rewards)) return;
    bool given = false, there = false;
    for (i32 s = 0; s < ROLLOUT_STREAMS; ++s) {
        given |= is_given(args.batch.rollout_streams[s]);
        there |= own_value(args, plan, s, w.i).there;
    }
    if (!given || there) return;
    w.kept.flags |= ROLLOUT_NO_STREAM;
    w.kept.state |= STATE_ZEROED;
}

// Scope, steps, elements and chunks, KL and baseline weights of a rollout that is there. The block.
INLINE void block_prepare(const Args& args, const PlanConstants& plan, Work& w, Tally& tally) {
    const Batch& batch = args.batch;
    StepRange steps = {0, 0, true};
    bool fits = true;
    if (is_given(batch.step_offsets)) {
        steps = step_numbers(args, w.i);
        fits = block_steps_fit(args, steps, w.e.len);
    }
    Form form = fits ? form_of(batch, plan, steps.to - steps.from) : FORM_STEPLESS;
    // Steps that do not fit say nothing of the scope.
    bool between = fits && steps.to > steps.from && is_given(batch.step_begins);
    bool reads_tokens = form == FORM_DENSE || form == FORM_DENSE_WITH_ENDS || form == FORM_TOKENS || (form == FORM_SCORED && batch.process == PROCESS_LOGPROBS);
    u32* bits = scope_words(args, w.i, w.e);
    w.scope = block_read_scope(args, plan, w.e, steps, between, reads_tokens, bits, tally);
    if (!fits) {
        w.kept.flags |= ROLLOUT_BAD_STEPS;
        w.kept.state |= STATE_ZEROED;
    } else if (plan.kind != KIND_KL) {
        block_elements_and_chunks(args, plan, w, steps, form, bits, tally);
    }
    w.kept.first = (u32)w.scope.first;
    w.kept.end = (u32)w.scope.end;
    w.kept.count = (u32)w.scope.count;
    if (form == FORM_TOKENS) {
        w.kept.elements = w.kept.count;
        w.kept.state |= w.kept.count > 0 ? STATE_HAS_PROCESS : 0;
    }
    if (w.scope.count == 0) w.kept.flags |= ROLLOUT_NO_SCOPE;
    i64 bad = block_keep_kl(args, plan, w.i, w.e, w.scope);
    bad += block_keep_baseline_weights(args, w.e, w.scope);
    if (bad > 0) {
        w.kept.flags |= ROLLOUT_NONFINITE;
        w.kept.state |= STATE_INFINITE;
        tally.nonfinite += is_first_thread() ? (u32)bad : 0;
    }
    block_shape_lists(args, plan, w);
    without_stream(args, plan, w);
    // What threads have found by themselves.
    w.kept.flags |= block_or(tally.flags);
    u32 unlisted = block_or(tally.unlisted);
    for (i32 p = 0; p < MAX_PROCESS; ++p) {
        bool infinite = unlisted >> p & 1, nan = unlisted >> (4 + p) & 1;
        if (!infinite && !nan) continue;
        w.kept.flags |= ROLLOUT_NONFINITE;
        w.kept.state |= infinite ? STATE_INFINITE : STATE_NAN;
    }
}

INLINE void add_tally(const Args& args, const Work& w, const Tally& tally) {
    if (!(args.mode & MODE_COUNTING)) return;
    bool bad_steps = w.kept.flags & ROLLOUT_BAD_STEPS;
    if (!__syncthreads_or(tally.missing | tally.nonfinite | tally.low) && !bad_steps) return;
    Counts& counts = counts_of(args);
    i64 missing = block_sum((i64)tally.missing), nonfinite = block_sum((i64)tally.nonfinite), low = block_sum((i64)tally.low);
    if (!is_first_thread()) return;
    add_to(&counts.missing_values, missing);
    add_to(&counts.nonfinite_values, nonfinite);
    add_to(&counts.low_logps, low);
    add_to(&counts.bad_steps, bad_steps ? 1 : 0);
}

extern "C" __global__ void __launch_bounds__(MOST_THREADS) passrl_prepare(const __grid_constant__ Args args) {
    const PlanConstants& plan = plan_of(args);
    const Batch& batch = args.batch;
    i64 i = blockIdx.x;
    check_group_offsets(args);
    Work w;
    w.i = i;
    w.e = extent(args, i);
    u32 group = group_of(args, i);
    if (w.e.bad || group == NO_GROUP) return keep_bad_rollout(args, plan, i, w.e);
    w.kept = Rollout{group, 0, 0, 0, 0, 0, 0, 0};
    if (plan.kind == KIND_KL && plan.chunk == CHUNK_BY_VALUE && args.layout.positions == 0) {
        // The group's KL table will lie at the slots of one of its rollouts: which, is not known yet.
        i64 *columns = list_of<i64>(args.work.columns, w.e), *live = list_of<i64>(args.work.live, w.e);
        for (i64 t = threadIdx.x; t < w.e.len; t += blockDim.x) columns[t] = live[t] = 0;
    }
    if (is_first_thread()) atomicAdd(&marks_of(args, group).rollouts, 1u);
    if (is_given(batch.absent) && item_flag(batch.absent, i)) {
        if (!is_first_thread()) return;
        w.kept.flags = ROLLOUT_ABSENT | ROLLOUT_NO_SCOPE;
        w.kept.state = STATE_ZEROED | STATE_OUT_OF_STATS;
        if (is_given(batch.logp_reference) && !plan.kl_by_token) ((f32*)args.work.kl_sums)[i] = 0.0f;
        rollout_of(args, i) = w.kept;
        return;
    }
    if (is_given(batch.in_stats) && !item_flag(batch.in_stats, i)) w.kept.state |= STATE_OUT_OF_STATS;
    if (is_given(batch.format_ok) && !item_flag(batch.format_ok, i)) w.kept.flags |= ROLLOUT_FORMAT_VIOLATING;
    Tally tally = {0, 0, 0, 0, 0};
    block_prepare(args, plan, w, tally);
    block_look(args, plan, w, tally);
    if (!(args.mode & MODE_KNOWN)) {
        block_batch_extremes(args, plan, w);
    } else {
        // Of slices of groups whose sums are known: is all of a set this rollout's?
        for (i32 slot = 0; slot < plan.sets; ++slot) {
            if (!asks_one_rollout(plan, slot)) continue;
            i64 own = block_own_sums(args, plan, w, slot, load_extremes(group_keys(args, group), slot)).n;
            if (is_first_thread() && own > 0 && own == load_sums(group_words(args, group), slot).n) atomicOr(&marks_of(args, group).one_rollout, 1u << slot);
        }
    }
    add_tally(args, w, tally);
    if (!is_first_thread()) return;
    if (w.kept.end > w.kept.first) atomicMax(&marks_of(args, group).longest, (u64)(w.kept.end - w.kept.first) << 32 | (u32)~(u32)i);
    rollout_of(args, i) = w.kept;
}

#endif
