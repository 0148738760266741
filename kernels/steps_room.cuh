// What a block that has a whole group of CSR steps keeps in its shared memory, and how the group's steps come there.
#ifndef PASSRL_STEPS_ROOM_CUH
#define PASSRL_STEPS_ROOM_CUH
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
    // The group's first step, where its steps are at hand; of each rollout its first among them, and whether it is shaped.
    i64 first_step;
    u32 begins[MOST_MEMBERS];
    bool shaped[MOST_MEMBERS];
    bool at_hand, usual;
    // The rollout that the block has, where it has one after another.
    i64 next;
};

// At one address: what the block's loops keep takes no register.
INLINE GroupRoom& shared_group_room() {
    SHARED(GroupRoom, group_of_block, [1]);
    return group_of_block[0];
}

// Results, ends and scores of the group's steps (then the chunks' last tokens in place of the scores).
struct StepsAtHand {
    f64* results;
    i32* ends;
    f32* scores;
};
INLINE StepsAtHand steps_at_hand(const Args& args) {
    DYNAMIC_SHARED(f64, results);
    i32* const ends = (i32*)(results + args.batch.steps_at_hand);
    return StepsAtHand{results, ends, (f32*)(ends + args.batch.steps_at_hand)};
}

// A warp's rollout, the n-th of the group.
struct WarpRoom {
    i32 number;
    Work work;
    Terms terms;
    f64 values[ROLLOUT_STREAMS];
    Apply apply;
    f64 path;
};
// First the one, then the other.
union GroupShapeRoom {
    WarpRoom warps[MOST_WARPS];
    Chunks chunks;
};
INLINE GroupShapeRoom& shared_group_shape_room() {
    SHARED(GroupShapeRoom, shape_room_of_group, [1]);
    return shape_room_of_group[0];
}
// The warp's own. (It is found where it is asked for: a function that was handed it would keep an address over its calls.)
INLINE WarpRoom& own_warp_room() { return shared_group_shape_room().warps[THREAD_NUMBER() >> 5]; }

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
INLINE void clear_keys(GroupRoom& room) {
    for (i32 n = (i32)threadIdx.x; n < 3 * MAX_STREAMS + 1; n += (i32)blockDim.x) room.keys[n] = 0;
}
OUT_OF_LINE void open_group(Args& args, GroupRoom& room) {
    const i64 slots = plan_of(args).slots;
    for (i32 n = (i32)threadIdx.x; n < 6 * MAX_STREAMS; n += (i32)blockDim.x) room.words[n] = 0;
    clear_keys(room);
    for (i32 n = (i32)threadIdx.x; n < MOST_MEMBERS; n += (i32)blockDim.x) room.shaped[n] = false;
    for (i32 n = (i32)threadIdx.x; n < MAX_STREAMS; n += (i32)blockDim.x) room.seconds[n] = 0;
    for (i32 n = (i32)threadIdx.x; n < (i32)(sizeof(GroupMarks) / 8); n += (i32)blockDim.x) ((u64*)&room.marks)[n] = 0;
    if (is_first_thread()) {
        const Members members = members_of_block(args);
        const i64 g = members.group == NO_GROUP ? 0 : (i64)members.group;
        room.members = members;
        room.marks_of_all = args.work.marks;
        room.at_hand = room.usual = false;
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
OUT_OF_LINE void read_steps(Args& args, GroupRoom& room) {
    const Batch& batch = args.batch;
    const Members& members = room.members;
    const i64 from = item_int(batch.step_offsets, members.first);
    bool good = members.first < members.end;
    for (i64 i = members.first + threadIdx.x; i < members.end; i += blockDim.x) {
        const StepRange steps = step_numbers(args, i);
        good = good && steps.good;
        if (i - members.first < MOST_MEMBERS) room.begins[i - members.first] = (u32)(steps.from - from);
    }
    if (!__syncthreads_and(good)) return;
    const i64 count = item_int(batch.step_offsets, members.end) - from;
    if (count > batch.steps_at_hand) return;
    const StepsAtHand to = steps_at_hand(args);
    for (i64 j = threadIdx.x; j < count; j += blockDim.x) {
        to.ends[j] = end_in_32_bits(item_int(batch.step_ends, from + j));
        to.scores[j] = step_score(args, 0, from + j);
    }
    __syncthreads();
    if (is_first_thread()) {
        room.at_hand = true;
        room.first_step = from;
        args.batch.step_ends.data = (u64)to.ends - (u64)from * 4;
        args.batch.step_ends.stride[0] = 1;
        args.batch.step_ends.dtype = I32;
        args.batch.scores.data = (u64)to.scores - (u64)from * 4;
    }
    __syncthreads();
}

#endif
