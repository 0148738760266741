// Kernel of the first pass (src/backend/cpu/prepare.rs): one block a rollout prepares it, keeps what the later ones need, and gives its group and the batch
// its maxima and findings.
#ifndef PASSRL_PREPARE_CUH
#define PASSRL_PREPARE_CUH
#include "baseline_weights.cuh"
#include "batch_stats.cuh"
#include "kl_parts.cuh"
#include "kl_reward.cuh"
#include "members.cuh"

// What the device's offsets say, where one block's look at its rollout does not see it: each block takes its share of the groups' offsets. A finding zeroes
// the batch.
OUT_OF_LINE void check_group_offsets(const Args& args) {
    const Batch& batch = args.batch;
    bool bad = false;
#pragma unroll 1
    for (i64 g = (i64)blockIdx.x * blockDim.x + threadIdx.x; g <= batch.groups; g += (i64)gridDim.x * blockDim.x) {
        i64 now = item_int(batch.group_view, g);
        bad = bad || now < 0 || now > batch.rollouts || (g == 0 ? now != 0 : now < item_int(batch.group_view, g - 1)) || (g == batch.groups && now != batch.rollouts);
    }
    if (bad) {
        atomicOr(&counts_of(args).bad_offsets, 1u);
        atomicOr((u64*)&counts_of(args).findings, (u64)FOUND_BAD_OFFSETS);
    }
}

// The outcome of a rollout that has no token loses no KL.
INLINE void keep_no_kl(const Args& args, i64 i) {
    if (is_given(args.batch.logp_reference) && !plan_of(args).kl_by_token) ((f32*)args.work.kl_sums)[i] = 0.0f;
}

// A rollout that nothing is known of: it has no token, is in no group, and its slots are zeroed.
INLINE void keep_bad_rollout(const Args& args, i64 i, bool bad_extent) {
    Counts& counts = counts_of(args);
    if (bad_extent) atomicOr(&counts.bad_offsets, 1u);
    atomicOr((u64*)&counts.findings, (u64)FOUND_BAD_OFFSETS);
    keep_no_kl(args, i);
    rollout_of(args, i) = Rollout{NO_GROUP, 0, 0, 0, 0, 0, ROLLOUT_NO_SCOPE, STATE_ZEROED | STATE_OUT_OF_STATS};
}

INLINE void keep_absent_rollout(const Args& args, i64 i, u32 group) {
    keep_no_kl(args, i);
    rollout_of(args, i) = Rollout{group, 0, 0, 0, 0, 0, ROLLOUT_ABSENT | ROLLOUT_NO_SCOPE, STATE_ZEROED | STATE_OUT_OF_STATS};
}

// Is every given stream of a rollout missing and excluded? Its advantages are 0 then.
OUT_OF_LINE bool is_without_stream(const Args& args, i64 i) {
    bool given = false, there = false;
    for (i32 s = 0; s < ROLLOUT_STREAMS; ++s) {
        given |= is_given(args.batch.rollout_streams[s]);
        there |= own_value(args, plan_of(args), s, i).there;
    }
    return given && !there;
}

// A rollout that is neither, and its steps. The first thread.
INLINE void fill_room(const Args& args, i64 i, const Extent& e, u32 group, Room& room) {
    const Batch& batch = args.batch;
    u32 state = is_given(batch.in_stats) && !item_flag(batch.in_stats, i) ? STATE_OUT_OF_STATS : 0;
    u32 flags = is_given(batch.format_ok) && !item_flag(batch.format_ok, i) ? ROLLOUT_FORMAT_VIOLATING : 0;
    room.has_extremes = false;
    shared_work().i = i;
    shared_work().e = e;
    shared_work().scope = span_scope(0, 0);
    shared_work().kept = Rollout{group, 0, 0, 0, 0, 0, flags, state};
    room.steps = StepRange{0, 0, true};
    if (is_given(batch.step_offsets)) room.steps = step_numbers(args, i);
}

// The rollout and its steps, before anything of it is read. One that is absent, or of which nothing is known, is done with here: false. The first thread.
OUT_OF_LINE bool open_room(const Args& args, i64 i, Room& room) {
    const Batch& batch = args.batch;
    Extent e = extent(args, i);
    u32 group = group_of(args, i);
    if (e.bad || group == NO_GROUP) {
        keep_bad_rollout(args, i, e.bad);
        return false;
    }
    atomicAdd(&marks_of(args, group).rollouts, 1u);
    if (is_given(batch.absent) && item_flag(batch.absent, i)) {
        keep_absent_rollout(args, i, group);
        return false;
    }
    fill_room(args, i, e, group, room);
    return true;
}

// The shaped reward of every element, chunk and token (fusion `reward_shaping`): once the rollout's KL is known. The block.
OUT_OF_LINE void shape_lists(const Args& args, const Work& w) {
    const PlanConstants& plan = plan_of(args);
    ShapedReward by = shaped_reward(args, plan, w.i);
    auto map = [&](u64 lists, u32 count) {
        const f32* from = list_of<f32>(args, lists, 0, w.e);
        f32* to = list_of<f32>(args, lists, 1, w.e);
        for (u32 j = threadIdx.x; j < count; j += blockDim.x) to[j] = shaped(by, from[j]);
    };
    __syncthreads();
    map(args.work.elements, w.kept.elements);
    if (!(w.kept.state & STATE_ONE_LIST) && plan.has_values) map(args.work.values, w.kept.chunks);
    if (plan.has_token_values) map(args.work.token_values, w.kept.count);
    __syncthreads();
}

// Scope, steps, elements and chunks, KL and baseline weights of a rollout, and its flags. The block.
INLINE void prepare_rollout(const Args& args, Room& room) {
    const PlanConstants& plan = plan_of(args);
    const Batch& batch = args.batch;
    Work& w = shared_work();
    bool filled = false;
    const bool steps_fit = !is_given(batch.step_offsets) || block_steps_fit(args, room.steps, w.e.len, room.ends, STEPS_AT_HAND, filled);
    if (is_first_thread()) {
        room.filled = filled;
        room.fits = steps_fit;
        room.found = 0;
        room.form = steps_fit ? form_of(batch, plan, room.steps.to - room.steps.from) : FORM_STEPLESS;
        // Steps that do not fit say nothing of the scope.
        room.between = steps_fit && room.steps.to > room.steps.from && is_given(batch.step_begins);
    }
    __syncthreads();
    note_found(room, read_scope(args, room));
    if (room.fits && plan.kind != KIND_KL) list_elements_and_chunks(args, room);
    i64 bad = is_given(batch.logp_reference) ? keep_kl(args, w.i, w.e, w.scope) : 0;
    if (is_given(batch.sum_pi_squared)) bad += keep_baseline_weights(args, w.e, w.scope);
    __syncthreads();
    const bool fits = room.fits;
    const u32 found = room.found;
    u32 flags = w.kept.flags | (found & (UNLISTED_INFINITE - 1));
    if (!fits) flags |= ROLLOUT_BAD_STEPS;
    if (w.scope.count == 0) flags |= ROLLOUT_NO_SCOPE;
    u32 state = w.kept.state | (fits ? 0 : STATE_ZEROED);
    if (room.form == FORM_TOKENS && w.scope.count > 0) state |= STATE_HAS_PROCESS;
    if (bad > 0) {
        flags |= ROLLOUT_NONFINITE;
        state |= STATE_INFINITE;
        if (is_first_thread() && (args.mode & MODE_COUNTING)) add_to(&counts_of(args).nonfinite_values, bad);
    }
    for (i32 p = 0; p < MAX_PROCESS; ++p) {
        bool infinite = found & (UNLISTED_INFINITE << p), nan = found & (UNLISTED_NAN << p);
        if (!infinite && !nan) continue;
        flags |= ROLLOUT_NONFINITE;
        state |= infinite ? STATE_INFINITE : STATE_NAN;
    }
    if (!(state & STATE_HAS_PROCESS) && !is_given(batch.token_rewards) && is_without_stream(args, w.i)) {
        flags |= ROLLOUT_NO_STREAM;
        state |= STATE_ZEROED;
    }
    __syncthreads();
    if (is_first_thread()) {
        w.kept.first = (u32)w.scope.first;
        w.kept.end = (u32)w.scope.end;
        w.kept.count = (u32)w.scope.count;
        if (room.form == FORM_TOKENS) w.kept.elements = w.kept.count;
        w.kept.state = state;
        w.kept.flags = flags;
    }
    __syncthreads();
    if (plan.shaped && plan.kind != KIND_KL && (w.kept.state & STATE_HAS_PROCESS)) shape_lists(args, w);
}

// Of slices of groups whose sums are known: is all of a set this rollout's?
OUT_OF_LINE void look_for_one_rollout(const Args& args, const Work& w) {
    const PlanConstants& plan = plan_of(args);
    for (i32 slot = 0; slot < plan.sets; ++slot) {
        if (!asks_one_rollout(plan, slot)) continue;
        i64 own = block_own_sums(args, plan, w, slot, [&] { return load_extremes(args, group_keys(args, w.kept.group), slot); }).n;
        bool all = own > 0 && own == load_sums(group_words(args, w.kept.group), slot).n;
        if (all && is_first_thread()) atomicOr(&marks_of(args, w.kept.group).one_rollout, 1u << slot);
    }
}

// The block's rollout, or its part of one, before anything of it is read; false: there is nothing more to do. The block.
INLINE bool open_task(const Args& args, Room& room) {
    const i64 rollouts = args.batch.rollouts, places = places_beside(args, QUEUE_PREPARE, rollouts);
    Task& task = room.task;
    if (is_first_thread()) take_task(args, QUEUE_PREPARE, rollouts, places, task);
    __syncthreads();
    if (task.place < 0) {
        const bool open = __syncthreads_or(is_first_thread() && open_room(args, task.item, room));
        const i64 len = open ? shared_work().e.len : 0;
        if (places > 0) queue_parts(args, QUEUE_PREPARE, places, parts_beside_first(len), task);
        // Offsets that do not fit may ask for more places than there are: the batch is zeroed.
        if (is_first_thread() && task.first + task.more > places) task.more = 0;
        __syncthreads();
        return open;
    }
    if (!task.there) return false;
    if (is_first_thread()) {
        fill_room(args, task.item, extent(args, task.item), group_of(args, task.item), room);
        task.more = parts_beside_first(shared_work().e.len);
    }
    __syncthreads();
    return true;
}

// A rollout from its data to what is kept of it, its maxima and its findings. The block; false: other blocks have parts of it, and one of them ends it.
INLINE bool keep_rollout(const Args& args, Room& room) {
    if (!open_task(args, room)) return room.task.place < 0;
    auto is_kl = [&] { return plan_of(args).kind == KIND_KL; };
    auto in_parts = [&] { return room.task.more > 0; };
    if (in_parts() && !(is_kl() ? look_at_part(args, room) : list_part(args, room))) return false;
    prepare_rollout(args, room);
    Work& w = shared_work();
    look_at_rollout(args, w, (is_kl() ? in_parts() : room.has_extremes) ? &room.extremes : 0);
    if (args.mode & MODE_KNOWN) look_for_one_rollout(args, w);
    else if (counts_in_batch(plan_of(args), w.kept, w.kept.flags)) add_batch_extremes(args, w);
    if (!is_first_thread()) return true;
    const Rollout kept = w.kept;
    if (kept.end > kept.first) atomicMax(&marks_of(args, kept.group).longest, (u64)(kept.end - kept.first) << 32 | (u32)~(u32)w.i);
    rollout_of(args, w.i) = kept;
    return true;
}

extern "C" __global__ void __launch_bounds__(MOST_THREADS, BLOCKS_AT_ONCE) passrl_prepare(const __grid_constant__ Args given) {
    const Args& args = open_args(given);
    Room* const room = &shared_room();
    if (args.batch.grouping == GROUP_OFFSETS) check_group_offsets(args);
    if (!keep_rollout(args, room[0]) || !(args.mode & MODE_JOINED)) return;
    sum_group_if_last(args, room[0].task.item, shared_work());
}

#endif
