// Sets of steps of equal state (GiGPO): the process elements of a group whose steps have one key are a set of their own. Twin of step_sets.rs.
#ifndef PASSRL_STEP_SETS_CUH
#define PASSRL_STEP_SETS_CUH
#include "decide.cuh"

// Lowest bit of `KeyedStep::slot`: the step is in its set, not only standardised with it.
constexpr u64 KEYED_COUNTS = 1;

INLINE i64 clamped_index(i64 i, i64 end) { return smaller(larger(i, (i64)0), end); }

// Calls body(i) for the rollouts of group g, one after the other; all threads of the block are given the same i.
template <class Body> INLINE void each_member(const Args& args, i64 g, Body body) {
    const Batch& batch = args.batch;
    SHARED(u32, members, [MOST_THREADS]);
    i64 from = 0, to = batch.rollouts;
    if (batch.grouping == GROUP_CONSTANT) {
        from = smaller(g * batch.group_size, to);
        to = smaller(from + batch.group_size, to);
    } else if (batch.grouping == GROUP_OFFSETS) {
        from = clamped_index(item_int(batch.group_view, g), to);
        to = clamped_index(item_int(batch.group_view, g + 1), to);
    }
    for (i64 base = from; base < to; base += blockDim.x) {
        const i64 i = base + threadIdx.x;
        const bool member = i < to && rollout_of(args, i).group == (u32)g;
        const Rank rank = block_rank(member);
        if (member) members[rank.before] = (u32)i;
        __syncthreads();
        for (u32 m = 0; m < rank.total; m++) body((i64)members[m]);
        __syncthreads();
    }
}

// Sorts the block's steps by key, in place: a bitonic network whose comparisons all rise, so that the positions beyond the end stand for the largest keys
// and nothing need be done with them.
INLINE void sort_keyed(KeyedStep* steps, i64 n) {
    auto order = [&](i64 a, i64 b) {
        const KeyedStep x = steps[a], y = steps[b];
        if (y.key < x.key) {
            steps[a] = y;
            steps[b] = x;
        }
    };
    __syncthreads();
    for (i64 size = 2; size < 2 * n; size *= 2) {
        for (i64 half = size / 2; half > 0; half /= 2) {
            const bool mirror = half == size / 2;
            for (i64 pair = threadIdx.x; pair < n; pair += blockDim.x) {
                // The pair-th position whose bit `half` is 0.
                const i64 a = (pair / half) * 2 * half + pair % half, b = mirror ? (a / size) * size + size - 1 - a % size : a + half;
                if (b < n) order(a, b);
            }
            __syncthreads();
        }
    }
}

// What the block shares: the group's steps, where their keys change in a tile of the list, and how many these are; a warp's set, and how its steps are standardised that
// are in it, and those that are not.
struct StepSet {
    i64 from, to;
    // The process stream that it is looked at in.
    i32 stream;
    Standard standard;
    Apply inside, outside;
    u32 lost_inside, lost_outside;
};
struct StepRoom {
    KeyedStep* steps;
    i64 count;
    u32 heads[MOST_THREADS], head_count;
    // Where the tile begins, and which of its sets each warp has next.
    i64 base;
    u32 next[MOST_WARPS];
    StepSet sets[MOST_WARPS];
};
INLINE StepRoom& shared_step_room() {
    SHARED(StepRoom, room_of_block, [1]);
    return room_of_block[0];
}

// The warp's own set. (It is found where it is asked for: no register keeps it over a call.)
INLINE StepSet& own_step_set() { return shared_step_room().sets[THREAD_NUMBER() >> 5]; }

// A NaN that is left is a missing value: in no set, and 0 in the fusion.
INLINE bool is_there(const Stream& stream, f32 x) { return !(stream.missing == MISSING_EXCLUDE && is_nan(x)); }

// The warp's set in its process stream: its extremes, then its sums, then its standard. A warp.
OUT_OF_LINE void decide_step_set(const Args& args) {
    const PlanConstants& plan = plan_of(args);
    StepSet& set = own_step_set();
    const i32 p = set.stream;
    const Stream& stream = plan.streams[p];
    const KeyedStep* const steps = shared_step_room().steps;
    const f32* const values = (const f32*)args.work.elements + p * plan.max_tokens;
    const i64 from = set.from, to = set.to;
    const i32 bits = plan.slot_bits[p];
    Extremes extremes = no_extremes();
#pragma unroll 1
    for (i64 j = from + lane(); j < to; j += 32) {
        const f32 x = values[steps[j].slot >> 1];
        if ((steps[j].slot & KEYED_COUNTS) && is_there(stream, x)) extremes_push(extremes, x);
    }
    extremes = Extremes{warp_max(extremes.absmax), warp_max(extremes.max), warp_max(extremes.min)};
    const Grid grid = grid_of(bits, extremes.absmax);
    Sums sums = no_sums();
#pragma unroll 1
    for (i64 j = from + lane(); j < to; j += 32) {
        const f32 x = values[steps[j].slot >> 1];
        if ((steps[j].slot & KEYED_COUNTS) && is_there(stream, x)) sums_push_element(sums, grid, x, 1, extremes);
    }
    sums = warp_sums(sums);
    if (lane() == 0) {
        set.standard.stream = &stream;
        set.standard.extremes = extremes;
        set.standard.sums = sums;
        READ_AGAIN();
        make_standard(set.standard, bits, KEY_EMPTY, Whole{0, 0, 0.0, 1.0, false}, 0.0, 0.0);
    }
}

// Leaving out a whole rollout is refused with these sets, so that there are two ways: of steps in the set (`counts`), and of others. A warp, whose first thread does it.
OUT_OF_LINE void resolve_step_set(bool counts) {
    if (lane() != 0) return;
    StepSet& set = own_step_set();
    u32 lost = 0;
    const Apply apply = resolve(set.standard, set.standard.mean, counts, no_sums(), &lost);
    if (counts) {
        set.inside = apply;
        set.lost_inside = lost;
    } else {
        set.outside = apply;
        set.lost_outside = lost;
    }
}

// The warp's set in its process stream, whose standard is known: each of its steps. A warp.
OUT_OF_LINE void standardise_step_set(const Args& args) {
    const PlanConstants& plan = plan_of(args);
    const StepSet& set = own_step_set();
    const i32 p = set.stream;
    u32 lost = 0;
    __syncwarp();
#pragma unroll 1
    for (i64 j = set.from + lane(); j < set.to; j += 32) {
        const u64 slot = shared_step_room().steps[j].slot;
        const f32 x = ((const f32*)args.work.elements + p * plan.max_tokens)[slot >> 1];
        const bool counts = slot & KEYED_COUNTS;
        f64 s = 0.0;
        if (is_there(plan.streams[p], x)) {
            s = standardised(set.standard, counts ? set.inside : set.outside, x, &lost);
            lost += counts ? set.lost_inside : set.lost_outside;
        }
        ((f64*)args.work.stepped + p * plan.max_tokens)[slot >> 1] = s;
    }
    add_counts_to(&counts_of(args).lost_deviations, lost);
    __syncwarp();
    if (lane() == 0) own_step_set().stream += 1;
    __syncwarp();
}

// Where sets begin in the tile of the sorted list from `room.base` on. The block.
OUT_OF_LINE void find_step_sets(StepRoom& room) {
    const i64 j = room.base + threadIdx.x;
    const bool head = j < room.count && (j == 0 || room.steps[j - 1].key != room.steps[j].key);
    const Rank rank = block_rank(head);
    if (head) room.heads[rank.before] = threadIdx.x;
    if (is_first_thread()) room.head_count = rank.total;
    if (lane() == 0) room.next[warp()] = (u32)warp();
    __syncthreads();
}

// The warp's next set, which ends where its key does: by bisection, as it may reach beyond the tile. One thread.
OUT_OF_LINE void open_step_set(StepRoom& room) {
    const i64 from = room.base + room.heads[room.next[warp()]];
    i64 low = from, high = room.count;
    while (low < high) {
        const i64 middle = low + (high - low) / 2;
        if (room.steps[middle].key > room.steps[from].key) high = middle;
        else low = middle + 1;
    }
    StepSet& set = room.sets[warp()];
    set.from = from;
    set.to = low;
    set.stream = 0;
    room.next[warp()] += (u32)warps();
}

// Standardises every process element of group g with the set of its key, for `fuse` to read. The block; the group has no findings.
INLINE void step_sets(const Args& args, i64 g) {
    const PlanConstants& plan = plan_of(args);
    u64 own = 0;
    each_member(args, g, [&](i64 i) {
        const Rollout& kept = rollout_of(args, i);
        if (kept.state & STATE_HAS_PROCESS) own += kept.elements;
    });
    StepRoom& room = shared_step_room();
    __syncthreads();
    if (is_first_thread()) {
        const u64 begin = atomicAdd(&counts_of(args).keyed, own);
        room.steps = (KeyedStep*)args.work.keyed + begin;
        // Rollouts that share steps (offsets that the device has changed) could list more than there are.
        room.count = smaller((i64)own, larger(plan.max_steps - (i64)begin, (i64)0));
    }
    __syncthreads();
    i64 count = 0;
    each_member(args, g, [&](i64 i) {
        const Rollout& kept = rollout_of(args, i);
        if (!(kept.state & STATE_HAS_PROCESS)) return;
        const Extent e = extent(args, i);
        const i64* const keys = list_of<i64>(args.work.step_keys, e);
        const u64 counts = kept.state & STATE_OUT_OF_STATS ? 0 : KEYED_COUNTS;
        for (i64 j = threadIdx.x; j < (i64)kept.elements; j += blockDim.x)
            if (count + j < room.count) room.steps[count + j] = KeyedStep{keys[j], (u64)(e.slot + j) << 1 | counts};
        count += kept.elements;
    });
    // Sums are exact and each element is standardised on its own: the order within a key makes no difference.
    sort_keyed(room.steps, room.count);
    // (No register keeps over the calls where the block is: it stands in the room.)
    __syncthreads();
    if (is_first_thread()) room.base = 0;
    __syncthreads();
    while (room.base < room.count) {
        find_step_sets(room);
        while (room.next[warp()] < room.head_count) {
            __syncwarp();
            if (lane() == 0) open_step_set(room);
            __syncwarp();
            while (own_step_set().stream < args.batch.num_process) {
                decide_step_set(args);
                resolve_step_set(false);
                resolve_step_set(true);
                standardise_step_set(args);
            }
        }
        __syncthreads();
        if (is_first_thread()) room.base += blockDim.x;
        __syncthreads();
    }
}

#endif
