// What the threads of a warp and of a block do together. Blocks have 32 .. 512 threads, whole warps; every function here is called by all of them at once.
#ifndef PASSRL_BLOCK_CUH
#define PASSRL_BLOCK_CUH
#include "numerics.cuh"

constexpr u32 WARP = 0xffffffffu;
constexpr i32 MOST_WARPS = 16, MOST_THREADS = 512;
// Blocks of that size that a multiprocessor holds at once: 64 registers a thread.
constexpr i32 BLOCKS_AT_ONCE = 2;

INLINE i32 lane() { return (i32)(threadIdx.x & 31); }
INLINE i32 warp() { return (i32)(threadIdx.x >> 5); }
INLINE i32 warps() { return (i32)(blockDim.x >> 5); }
// (Where it is asked: the answer is no predicate that calls between two questions would have to leave alone, or to spill.)
INLINE bool is_first_thread() { return THREAD_NUMBER() == UNKNOWN_ZERO(); }

// The next of t, t + by, t + 2 by, ... where that is below `end`, else `end`: numbers of 32 bits that may end at the last of them.
INLINE i32 next_below(i32 t, u32 by, i32 end) { return (u32)end - (u32)t > by ? t + (i32)by : end; }

// ---- warps ----
template <class T> INLINE T warp_sum(T v) {
    for (i32 by = 16; by > 0; by >>= 1) v += __shfl_xor_sync(WARP, v, by);
    return v;
}
template <class T> INLINE T warp_max(T v) {
    for (i32 by = 16; by > 0; by >>= 1) v = larger(v, __shfl_xor_sync(WARP, v, by));
    return v;
}
INLINE i32 warp_sum(i32 v) { return __reduce_add_sync(WARP, v); }
INLINE u32 warp_sum(u32 v) { return __reduce_add_sync(WARP, v); }
INLINE i32 warp_max(i32 v) { return __reduce_max_sync(WARP, v); }
INLINE u32 warp_max(u32 v) { return __reduce_max_sync(WARP, v); }
INLINE u32 warp_or(u32 v) { return __reduce_or_sync(WARP, v); }

// ---- the block ----
// Sum, maximum over the block, in every thread. Two barriers.
template <class T> INLINE T block_sum(T v) {
    SHARED(T, sums_of_warps, [MOST_WARPS]);
    v = warp_sum(v);
    __syncthreads();
    if (lane() == 0) sums_of_warps[warp()] = v;
    __syncthreads();
    return warp_sum(lane() < warps() ? sums_of_warps[lane()] : T(0));
}
// `lowest`: what takes no part.
template <class T> INLINE T block_max(T v, T lowest) {
    SHARED(T, maxima_of_warps, [MOST_WARPS]);
    v = warp_max(v);
    __syncthreads();
    if (lane() == 0) maxima_of_warps[warp()] = v;
    __syncthreads();
    return warp_max(lane() < warps() ? maxima_of_warps[lane()] : lowest);
}
INLINE u32 block_or(u32 v) {
    SHARED(u32, bits_of_warps, [MOST_WARPS]);
    v = warp_or(v);
    __syncthreads();
    if (lane() == 0) bits_of_warps[warp()] = v;
    __syncthreads();
    return warp_or(lane() < warps() ? bits_of_warps[lane()] : 0u);
}
INLINE Extremes block_extremes(const Extremes& e) {
    SHARED(Extremes, extremes_of_warps, [MOST_WARPS]);
    Extremes own = {warp_max(e.absmax), warp_max(e.max), warp_max(e.min)};
    __syncthreads();
    if (lane() == 0) extremes_of_warps[warp()] = own;
    __syncthreads();
    Extremes all = lane() < warps() ? extremes_of_warps[lane()] : no_extremes();
    return Extremes{warp_max(all.absmax), warp_max(all.max), warp_max(all.min)};
}
INLINE Sums warp_sums(const Sums& s) {
    return Sums{warp_sum(s.n), warp_sum(s.q), warp_sum(s.hi), warp_sum(s.lo), warp_sum(s.at_max), warp_sum(s.at_min)};
}
INLINE Sums block_sums(const Sums& s) {
    SHARED(Sums, sets_of_warps, [MOST_WARPS]);
    Sums own = warp_sums(s);
    __syncthreads();
    if (lane() == 0) sets_of_warps[warp()] = own;
    __syncthreads();
    return warp_sums(lane() < warps() ? sets_of_warps[lane()] : no_sums());
}

// ---- positions in order: thread i of the block has position base + i, tile after tile ----
// How many threads before this one have their flag set, and how many of the block do.
struct Rank {
    u32 before, total;
};
INLINE Rank block_rank(bool flag) {
    SHARED(u32, counts_of_warps, [MOST_WARPS]);
    u32 votes = __ballot_sync(WARP, flag);
    __syncthreads();
    if (lane() == 0) counts_of_warps[warp()] = (u32)__popc(votes);
    __syncthreads();
    u32 count = lane() < warps() ? counts_of_warps[lane()] : 0u;
    u32 before = warp_sum(lane() < warp() ? count : 0u) + (u32)__popc(votes & ((1u << lane()) - 1));
    return Rank{before, warp_sum(count)};
}
// The last position up to and with this thread's (and before it) whose flag is set; `carry` where none of the block's is. Positions of threads rise, and
// `carry` is below them all. `all` is the carry for the next tile.
struct Previous {
    i64 with, before, all;
};
INLINE Previous block_previous(bool flag, i64 position, i64 carry) {
    SHARED(i64, lasts_of_warps, [MOST_WARPS]);
    u32 votes = __ballot_sync(WARP, flag);
    i64 base = position - lane();
    __syncthreads();
    if (lane() == 0) lasts_of_warps[warp()] = votes ? base + 31 - __clz((i32)votes) : carry;
    __syncthreads();
    i64 last = lane() < warps() ? lasts_of_warps[lane()] : carry;
    i64 earlier = warp_max(lane() < warp() ? last : carry);
    u32 with = votes & (0xffffffffu >> (31 - lane())), before = with & ~(1u << lane());
    return Previous{with ? base + 31 - __clz((i32)with) : earlier, before ? base + 31 - __clz((i32)before) : earlier, warp_max(last)};
}

// ---- shared counts in device memory ----
INLINE void add_to(i64* to, i64 v) {
    if (v != 0) atomicAdd((u64*)to, (u64)v);
}
// Adds what each thread of a warp has counted, which is seldom anything. The warp.
INLINE void add_counts_to(i64* to, u32 count) {
    if (!__any_sync(WARP, count != 0)) return;
    i64 all = warp_sum((i64)count);
    if ((THREAD_NUMBER() & 31) == 0) atomicAdd((u64*)to, (u64)all);
}
INLINE void add_sums_to(i64* words, const Sums& s) {
    add_to(words, s.n);
    add_to(words + 1, s.q);
    add_to(words + 2, s.hi);
    add_to(words + 3, s.lo);
    add_to(words + 4, s.at_max);
    add_to(words + 5, s.at_min);
}

#endif
