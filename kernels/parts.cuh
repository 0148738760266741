// Parts of long rollouts: a block takes PART_ROUNDS tokens a thread. The first blocks of a grid have an item each (a rollout), and tell in a queue which further
// parts it has; the further blocks take theirs from there. Blocks number themselves when they begin, and wait for lower numbers alone: for blocks that run, or have.
// A queue a kernel: `places` blocks are there for what it may come to hold.
#ifndef PASSRL_PARTS_CUH
#define PASSRL_PARTS_CUH
#include "block.cuh"
#include "views.cuh"

constexpr i64 PART_ROUNDS = 8;
INLINE i64 part_size() { return PART_ROUNDS * (i64)blockDim.x; }
// Of chunks, whose results are to be seen by all parts: a rollout has parts from so many on; shorter ones are one block's.
constexpr i64 FEWEST_PARTS = 4;
INLINE i64 parts_beside_first(i64 len) { return len > FEWEST_PARTS * part_size() ? (len - 1) / part_size() : 0; }

// What a rollout has counted until its group is known to be good (passrl_gae).
struct RunTotals {
    f64 sum, squares;
    u64 overflowed;
    u32 clipped, tokens;
};
// A part beside a rollout's first, in the queue; and what the one before it tells it (passrl_gae, passrl_shape_one_pass), or what it has found (passrl_prepare).
struct Part {
    u64 rollout;
    u32 number, count;
    f64 carry, value;
    RunTotals totals;
};
INLINE Part& part_of(const Args& args, i32 queue, i64 at) { return ((Part*)args.work.parts[queue])[at]; }
INLINE u32* part_state(const Args& args, i32 queue, i64 at) { return (u32*)args.work.part_states[queue] + at; }
// Waits for a part's state; what was written before it is then to be seen. One thread.
INLINE void await_part(const Args& args, i32 queue, i64 at, u32 state) {
    while (*(volatile u32*)part_state(args, queue, at) < state) {
    }
    __threadfence();
}
INLINE void tell_part(const Args& args, i32 queue, i64 at, u32 state) {
    __threadfence();
    *(volatile u32*)part_state(args, queue, at) = state;
}

// What enters each of a part's tiles of 32 positions, in the tiles' order (numerics contract 5.5), of `tops`, their own sums; what enters the part at `own` (-1: the
// rollout's first) is waited for in `state`, and the part at `next` (-1: none) is told. `power`: c^32. One warp: a lane holds a tile's sum, and what enters it.
INLINE void carry_tiles(const Args& args, i32 queue, i64 own, i64 next, u32 state, i32 tiles, f64 power, const f64* tops, f64* entering) {
    const i32 own_lane = lane();
    f64 carry = 0.0;
    if (own >= 0) {
        if (own_lane == 0) {
            await_part(args, queue, own, state);
            carry = *(volatile f64*)&part_of(args, queue, own).carry;
        }
        carry = __shfl_sync(WARP, carry, 0);
    }
    for (i32 base = 0; base < tiles; base += 32) {
        const i32 tile = base + own_lane, count = smaller(tiles - base, 32);
        const f64 top = tile < tiles ? tops[tile] : 0.0;
        f64 enters = 0.0;
        for (i32 w = 0; w < count; w++) {
            enters = w == own_lane ? carry : enters;
            carry = __shfl_sync(WARP, top, w) + power * carry;
        }
        if (tile < tiles) entering[tile] = enters;
    }
    if (own_lane == 0 && next >= 0) {
        part_of(args, queue, next).carry = carry;
        tell_part(args, queue, next, state);
    }
}

// What a block has to do: item `number` of the grid, or (place >= 0) a part of a rollout's, or nothing.
struct Task {
    i64 item, place, number;
    // Where the rollout's further parts are queued, and how many they are (of an item: `queue_parts`).
    i64 first, more;
    bool there;
};

// Of all parts of a rollout, is this block's the last to be done? Each comes once; the state of the rollout's first place counts them. The block.
INLINE bool is_last_part(const Args& args, i32 queue, const Task& task) {
    __threadfence();
    __syncthreads();
    const bool last = is_first_thread() && (i64)atomicAdd(part_state(args, queue, task.first), 1u) == task.more;
    if (!__syncthreads_or(last)) return false;
    __threadfence();
    return true;
}

// Blocks beside those of `items`: where the host has room for parts.
INLINE i64 places_beside(const Args& args, i32 queue, i64 items) { return args.work.parts[queue] ? (i64)gridDim.x - items : 0; }

// Which task this block has, `items` and `places` of them. One thread.
INLINE void take_task(const Args& args, i32 queue, i64 items, i64 places, Task& task) {
    Queue& q = counts_of(args).queues[queue];
    task = Task{(i64)blockIdx.x, -1, 0, -1, 0, true};
    if (places <= 0) return;
    task.item = (i64)atomicAdd(&q.begun, 1u);
    if (task.item < items) return;
    // Every item has told of its parts: as many are there.
    while (*(volatile u32*)&q.told < (u32)items) {
    }
    __threadfence();
    task.place = task.item - items;
    // (Of offsets that do not fit there may be more parts than places.)
    task.there = task.place < smaller((i64)*(volatile u64*)&q.parts, places);
    if (!task.there) return;
    task.item = (i64)part_of(args, queue, task.place).rollout;
    task.number = part_of(args, queue, task.place).number;
    task.first = task.place - (task.number - 1);
}

// An item tells that it has `more` parts beside its first. The block, `task` in shared memory; every item does so, once.
INLINE void queue_parts(const Args& args, i32 queue, i64 places, i64 more, Task& task) {
    Queue& q = counts_of(args).queues[queue];
    if (is_first_thread()) {
        task.more = more;
        if (more > 0) task.first = (i64)atomicAdd(&q.parts, (u64)more);
    }
    __syncthreads();
    for (i64 k = threadIdx.x; k < more; k += blockDim.x) {
        // (There is a place for each, unless offsets do not fit.)
        if (task.first + k >= places) break;
        part_of(args, queue, task.first + k).rollout = (u64)task.item;
        part_of(args, queue, task.first + k).number = (u32)(k + 1);
    }
    __threadfence();
    __syncthreads();
    if (is_first_thread()) atomicAdd(&q.told, 1u);
}

#endif
