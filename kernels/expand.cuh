// Results of chunks (or tokens) to token-shaped outputs, and the walks over a rollout's tokens that every stage of pass two takes. Twin of expand.rs.
#ifndef PASSRL_EXPAND_CUH
#define PASSRL_EXPAND_CUH
#include "block.cuh"
#include "scope.cuh"
#include "views.cuh"

// How values lie over tokens: one for each in-scope token, or one for each chunk, whose last in-scope tokens are listed.
struct Lines {
    bool every_token;
    const u32* last;
    i64 count;
};

// Calls body(t, line) for the tokens in scope: `line` is the token's number among them. All threads of the block; neighbours take neighbouring tokens.
template <class Body> INLINE void each_in_scope(const Scope& scope, Body body) {
    if (!has_holes(scope)) {
        for (i64 t = scope.first + threadIdx.x; t < scope.end; t += blockDim.x) body(t, t - scope.first);
        return;
    }
    i64 before = 0;
    for (i64 base = scope.first; base < scope.end; base += blockDim.x) {
        const i64 t = base + threadIdx.x;
        const bool there = t < scope.end && contains(scope, t);
        const Rank rank = block_rank(there);
        if (there) body(t, before + rank.before);
        before += rank.total;
    }
}

// Calls body(t) for the tokens out of scope in first .. len.
template <class Body> INLINE void each_in_gaps(const Scope& scope, i64 len, Body body) {
    for (i64 t = scope.first + threadIdx.x; t < len; t += blockDim.x)
        if (!contains(scope, t)) body(t);
}

// The first chunk whose last token is t or after it.
INLINE i64 chunk_at(const u32* last, i64 count, i64 t) {
    i64 low = 0, high = count;
    while (low < high) {
        const i64 middle = low + (high - low) / 2;
        if ((i64)last[middle] < t) low = middle + 1;
        else high = middle;
    }
    return low;
}

// Calls body(t, j) for every slot of the rollout's extent, j the line of its value; -1 out of scope, and where a token has no chunk (the steps do not fit).
// Of chunks a warp takes neighbouring tiles of 32 tokens: it looks its first chunk up once; then the ends that lie in a tile are bits, and a token's chunk
// is how many ends come before it.
template <class Body> INLINE void each_slot(i64 len, const Scope& scope, const Lines& lines, Body body) {
    if (lines.every_token) {
        if (!has_holes(scope)) {
            for (i64 t = threadIdx.x; t < len; t += blockDim.x) body(t, t >= scope.first && t < scope.end ? t - scope.first : -1);
            return;
        }
        i64 before = 0;
        for (i64 base = 0; base < len; base += blockDim.x) {
            const i64 t = base + threadIdx.x;
            const bool there = t < len && contains(scope, t);
            const Rank rank = block_rank(there);
            if (t < len) body(t, there ? before + rank.before : -1);
            before += rank.total;
        }
        return;
    }
    const i64 tiles = (len + 31) / 32, each = (tiles + warps() - 1) / warps();
    const i64 from = each * warp(), to = smaller(from + each, tiles);
    if (from >= to) return;
    i64 chunk = chunk_at(lines.last, lines.count, 32 * from);
    for (i64 tile = from; tile < to; tile++) {
        const i64 begin = 32 * tile, t = begin + lane();
        const i64 end = chunk + lane() < lines.count ? (i64)lines.last[chunk + lane()] - begin : 32;
        const u32 ends = warp_or(end < 32 ? 1u << end : 0u);
        const i64 own = chunk + __popc(ends & ((1u << lane()) - 1));
        if (t < len) body(t, own < lines.count && contains(scope, t) ? own : -1);
        chunk += __popc(ends);
    }
}

// Every token's value from the first in scope on, in place: to those of the tokens in scope. Values move towards the front, tile by tile: a tile has been
// read before it is written (`block_rank` is a barrier), and no later tile is written.
INLINE void gather(const Scope& scope, f64* lines) {
    __syncthreads();
    i64 before = 0;
    for (i64 base = scope.first; base < scope.end && has_holes(scope); base += blockDim.x) {
        const i64 t = base + threadIdx.x;
        const bool there = t < scope.end && contains(scope, t);
        const f64 value = there ? lines[t - scope.first] : 0.0;
        const Rank rank = block_rank(there);
        if (there) lines[before + rank.before] = value;
        before += rank.total;
    }
    __syncthreads();
}

// Zeros in slots from .. to of row `row` (packed: of the line) of a token-shaped output, by `threads` threads of which this is number `thread`.
INLINE void zero_slots(const Array& to, i64 row, i64 from, i64 end, bool flat, i64 thread, i64 threads) {
    u64 none = 0;
    for (i64 t = from + thread; t < end; t += threads) store(to, flat ? t * to.stride[0] : row * to.stride[0] + t * to.stride[1], 0.0, none);
}

// Padded layout: zeros left and right of the rollout, by its block.
INLINE void pad(const Args& args, const Array& to, const Extent& e) {
    if (e.flat) return;
    zero_slots(to, e.row, 0, e.column, false, threadIdx.x, blockDim.x);
    zero_slots(to, e.row, e.column + e.len, args.batch.slots, false, threadIdx.x, blockDim.x);
}

// Packed layout: zeros before the first rollout and after the last, by the whole grid.
INLINE void pad_ends(const Args& args, const Array& to) {
    if (args.batch.layout != PACKED) return;
    const i64 thread = (i64)blockIdx.x * blockDim.x + threadIdx.x, threads = (i64)gridDim.x * blockDim.x;
    zero_slots(to, 0, 0, item_int(args.batch.extents, 0), true, thread, threads);
    zero_slots(to, 0, item_int(args.batch.extents, args.batch.rollouts), args.batch.slots, true, thread, threads);
}

// Zeros everywhere: the batch's offsets do not fit, so that no rollout has a place. By the whole grid.
INLINE void zero_all(const Args& args, const Array& to) {
    const i64 rows = args.batch.layout == PACKED ? 1 : args.batch.rollouts;
    for (i64 row = blockIdx.x; row < rows; row += gridDim.x) zero_slots(to, row, 0, args.batch.slots, args.batch.layout == PACKED, threadIdx.x, blockDim.x);
}

#endif
