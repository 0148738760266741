// Kernel of a run on CSR steps whose groups stand together, where there are enough groups for every multiprocessor (src/backend/cuda/way.rs): a block has a whole
// group, from its steps to its tokens. What the rollouts of a group tell each other stays in the block's shared memory, as do the group's ends and scores where
// they fit: each is read once, and of the workspace nothing is used but the counts.
//
// The stages are those of the kernels that have a block a rollout. They see what is shared where they see the workspace and the caller's steps: the arguments in
// shared memory say where these lie. Of a group with more steps than there is room for, they lie where the caller has them; what no shared list holds is listed
// in the workspace, as elsewhere.
//
// Offsets that do not fit make the whole batch 0, which a block may see when others have written: the last block of the grid then takes back what was written.
#ifndef PASSRL_STEPS_RUN_CUH
#define PASSRL_STEPS_RUN_CUH
#include "prepare.cuh"
#include "shape.cuh"

struct GroupRoom {
    Members members;
    // What the workspace has in other kernels.
    i64 words[6 * MAX_STREAMS];
    i32 keys[3 * MAX_STREAMS + 1], seconds[MAX_STREAMS];
    GroupMarks marks;
    Rollout rollouts[MOST_MEMBERS];
    // Where the workspace has its own marks.
    u64 marks_of_all;
};

// Which rollouts the block's group has; none where the device's offsets say nothing that could be. One thread.
INLINE Members members_of_block(const Args& args) {
    const Batch& batch = args.batch;
    const i64 g = blockIdx.x;
    if (g >= batch.groups) return Members{0, 0, NO_GROUP};
    if (batch.grouping == GROUP_CONSTANT) return Members{g * batch.group_size, smaller((g + 1) * batch.group_size, batch.rollouts), (u32)g};
    const i64 first = item_int(batch.group_view, g), end = item_int(batch.group_view, g + 1);
    const bool good = 0 <= first && first <= end && end <= batch.rollouts;
    return good ? Members{first, end, (u32)g} : Members{0, 0, (u32)g};
}

// Statistics, marks and rollouts of the block's group are in its shared memory from here on, empty. (Of more rollouts than it has room for they stay in the
// workspace.) The block meets at the end.
OUT_OF_LINE void open_group(Args& args, GroupRoom& room) {
    const i64 slots = plan_of(args).slots;
    for (i32 n = (i32)threadIdx.x; n < 6 * MAX_STREAMS; n += (i32)blockDim.x) room.words[n] = 0;
    for (i32 n = (i32)threadIdx.x; n < 3 * MAX_STREAMS + 1; n += (i32)blockDim.x) room.keys[n] = 0;
    for (i32 n = (i32)threadIdx.x; n < MAX_STREAMS; n += (i32)blockDim.x) room.seconds[n] = 0;
    for (i32 n = (i32)threadIdx.x; n < (i32)(sizeof(GroupMarks) / 8); n += (i32)blockDim.x) ((u64*)&room.marks)[n] = 0;
    if (is_first_thread()) {
        const Members members = members_of_block(args);
        const i64 g = members.group == NO_GROUP ? 0 : (i64)members.group;
        room.members = members;
        room.marks_of_all = args.work.marks;
        args.work.state = 0;
        args.layout.extremes = (i64)&room.keys - g * (3 * slots + 1) * 4;
        args.layout.sums = (i64)&room.words - g * 6 * slots * 8;
        args.layout.second = (i64)&room.seconds - g * slots * 4;
        args.work.marks = (u64)&room.marks - (u64)g * sizeof(GroupMarks);
        if (members.end - members.first <= MOST_MEMBERS) args.work.rollouts = (u64)&room.rollouts - (u64)members.first * sizeof(Rollout);
    }
    __syncthreads();
}

// An end of the caller's as 32 bits: what is beyond them fits no rollout, and stays so.
INLINE i32 end_in_32_bits(i64 end) { return (i32)smaller(larger(end, (i64)-1), (i64)0x7fffffff); }

// The ends and scores of the group's steps, from here on in shared memory where there is room for them and the offsets fit. The block meets at the end.
OUT_OF_LINE void read_steps(Args& args, const Members& members) {
    const Batch& batch = args.batch;
    DYNAMIC_SHARED(i32, ends);
    f32* const scores = (f32*)(ends + batch.steps_at_hand);
    bool good = members.first < members.end;
    for (i64 i = members.first + threadIdx.x; i < members.end; i += blockDim.x) good = good && step_numbers(args, i).good;
    if (!__syncthreads_and(good)) return;
    const i64 from = item_int(batch.step_offsets, members.first), count = item_int(batch.step_offsets, members.end) - from;
    if (count > batch.steps_at_hand) return;
    for (i64 j = threadIdx.x; j < count; j += blockDim.x) {
        ends[j] = end_in_32_bits(item_int(batch.step_ends, from + j));
        scores[j] = step_score(args, 0, from + j);
    }
    __syncthreads();
    if (is_first_thread()) {
        args.batch.step_ends.data = (u64)ends - (u64)from * 4;
        args.batch.step_ends.stride[0] = 1;
        args.batch.step_ends.dtype = I32;
        args.batch.scores.data = (u64)scores - (u64)from * 4;
    }
    __syncthreads();
}

// A rollout of the group before anything of it is read; false where it is absent, or its offsets do not fit. The first thread.
INLINE bool open_member(const Args& args, i64 i, u32 group, Room& room) {
    const Extent e = extent(args, i);
    if (e.bad) {
        keep_bad_rollout(args, i, true);
        return false;
    }
    marks_of(args, group).rollouts += 1;
    if (is_given(args.batch.absent) && item_flag(args.batch.absent, i)) {
        keep_absent_rollout(args, i, group);
        return false;
    }
    fill_room(args, i, e, group, room);
    return true;
}

// A rollout of the group from its steps to what is kept of it, and its maxima and findings. The block.
INLINE void keep_member(const Args& args, i64 i, u32 group, Room& room) {
    if (!__syncthreads_or(is_first_thread() && open_member(args, i, group, room))) return;
    prepare_rollout(args, room);
    Work& w = shared_work();
    look_at_rollout(args, w, room.has_extremes ? &room.extremes : 0);
    if (is_first_thread()) rollout_of(args, i) = w.kept;
    __syncthreads();
}

// Sums of the group, whose maxima are complete. The block.
INLINE void sum_group(const Args& args, const Members& members) {
    if (members.end - members.first <= MOST_MEMBERS && adds_as_one(args, plan_of(args))) return sum_members(args, members);
    for (i64 i = members.first; i < members.end; ++i) {
        sum_rollout<false>(args, i, shared_work());
        __syncthreads();
    }
}

// The batch's offsets do not fit: every slot is 0, no set is known, and nothing of any rollout counts but what was found. The last block of the grid, alone.
OUT_OF_LINE void take_back_all(const Args& args) {
    const Outputs& o = args.outputs;
    const Batch& batch = args.batch;
    const bool packed = batch.layout == PACKED;
    for (i64 row = 0; row < (packed ? 1 : batch.rollouts); ++row) {
        zero_slots(o.advantages, row, 0, batch.slots, packed, threadIdx.x, blockDim.x);
        if (is_given(o.returns)) zero_slots(o.returns, row, 0, batch.slots, packed, threadIdx.x, blockDim.x);
    }
    u64 none = 0;
    for (i64 i = threadIdx.x; i < batch.rollouts; i += blockDim.x) {
        if (is_given(o.path_scores)) store(o.path_scores, i * o.path_scores.stride[0], 0.0, none);
        if (is_given(o.num_chunks)) store_int(o.num_chunks, i * o.num_chunks.stride[0], 0);
        if (is_given(o.rollout_flags)) store_int(o.rollout_flags, i * o.rollout_flags.stride[0], ROLLOUT_IN_BAD_GROUP);
    }
    for (i64 n = threadIdx.x; n < batch.groups * MAX_STREAMS; n += blockDim.x) {
        auto place = [&](const Array& to) { return n / MAX_STREAMS * to.stride[0] + n % MAX_STREAMS * to.stride[1]; };
        if (is_given(o.stats_count)) store_int(o.stats_count, place(o.stats_count), 0);
        if (is_given(o.stats_mean)) store(o.stats_mean, place(o.stats_mean), 0.0, none);
        if (is_given(o.stats_std)) store(o.stats_std, place(o.stats_std), 0.0, none);
        if (is_given(o.stats_absmax)) store(o.stats_absmax, place(o.stats_absmax), 0.0, none);
        if (is_given(o.group_flags)) store_int(o.group_flags, place(o.group_flags), load_int(o.group_flags, place(o.group_flags)) | GROUP_BAD);
    }
    if (!is_first_thread()) return;
    Counts& counts = counts_of(args);
    counts.rollouts = counts.tokens = counts.chunks = counts.clipped_tokens = counts.overflowed_tokens = counts.lost_deviations = 0;
    counts.sum_advantages = counts.sum_squares = 0.0;
}

// What the block does when its group is shaped: zeros where no rollout is, and the report.
OUT_OF_LINE void end_group(Args& args, const GroupRoom& room) {
    __syncthreads();
    if (is_first_thread()) {
        args.work.marks = room.marks_of_all;
        // (The report looks at that of the first group that has one.)
        if (room.marks.first) marks_of(args, room.members.group).first = room.marks.first;
    }
    __syncthreads();
    if (plan_of(args).fill_padding) {
        pad_ends(args, args.outputs.advantages);
        if (is_given(args.outputs.returns)) pad_ends(args, args.outputs.returns);
    }
    if (!is_last_block(args)) return;
    if (*(const volatile u32*)&counts_of(args).bad_offsets) take_back_all(args);
    __syncthreads();
    if (args.outputs.report && is_first_thread()) write_report(args);
}

extern "C" __global__ void __launch_bounds__(MOST_THREADS, BLOCKS_AT_ONCE) passrl_steps(const __grid_constant__ Args given) {
    open_args(given);
    Args& args = shared_args();
    SHARED(GroupRoom, group, [1]);
    SHARED(Chunks, chunks, [1]);
    Room& room = shared_room();
    ShapeRoom& shape = shared_shape_room();
    if (args.batch.grouping == GROUP_OFFSETS) check_group_offsets(args);
    open_group(args, group[0]);
    const Members& members = group[0].members;
    if (members.group == NO_GROUP) return end_group(args, group[0]);
    if (is_first_thread()) room.task = Task{0, -1, 0, -1, 0, true};
    read_steps(args, members);
    for (i64 i = members.first; i < members.end; ++i) keep_member(args, i, members.group, room);
    sum_group(args, members);
    shape_group(args, members.group, shared_decision());
    for (i64 i = members.first; i < members.end; ++i) {
        read_rollout(args, i, shape);
        if (shape.work.kept.group != NO_GROUP) shape_rollout<false>(args, i, shape, chunks, &room.task);
    }
    end_group(args, group[0]);
}

#endif
