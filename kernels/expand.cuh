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
// (Body stands once, with holes and without them, as it may be long.)
template <class Body> INLINE void each_in_scope(const Scope& scope, Body body) {
    // (A rollout has less than 2^31 tokens: numbers of 32 bits take half the registers.)
    u32 before = 0;
    for (u32 done = 0; done < (u32)(scope.end - scope.first); done += blockDim.x) {
        u32 line = done + THREAD_NUMBER();
        const i64 t = scope.first + line;
        bool there = t < scope.end;
        if (has_holes(scope)) {
            there = contains(scope, t);
            const Rank rank = block_rank(there);
            line = before + rank.before;
            before += rank.total;
        }
        if (there) body(t, (i64)line);
    }
}

// Calls body(t) for the tokens out of scope in first .. len.
template <class Body> INLINE void each_in_gaps(const Scope& scope, i64 len, Body body) {
    for (i64 t = scope.first + THREAD_NUMBER(); t < len; t += blockDim.x)
        if (!contains(scope, t)) body(t);
}

// The first chunk from `low` on, and below `high`, whose last token is t or after it; `high` where none of them is.
INLINE i64 chunk_at(const u32* last, i64 low, i64 high, i64 t) {
    while (low < high) {
        const i64 middle = low + (high - low) / 2;
        if ((i64)last[middle] < t) low = middle + 1;
        else high = middle;
    }
    return low;
}

// Calls body(t, in, value) for every slot of the rollout's extent: `in`: it has a line, whose value is load(line); out of scope, and where a token has no chunk
// (the steps do not fit), it has none. Of chunks a warp takes neighbouring tiles of 32 tokens. It looks its first and last chunk up; then each lane holds a
// chunk's end and value, 32 chunks at a time and each read once. The ends that lie in a tile are bits, and a token's chunk is how many ends come before it.
// `lead`: tiles begin so many tokens before the slots (`sector_lead` of what is written). Of chunks the slots may be those of low .. high alone, and of `shares` warps this
// one has number `share`.
template <class Load, class Body>
INLINE void each_slot_of_chunks(i64 low, i64 high, i64 lead, const Scope& scope, const Lines& lines, i32 share, i32 shares, Load load, Body body) {
    const i64 start = low - lead, tiles = (high - start + 31) / 32, each = (tiles + shares - 1) / shares;
    const i64 from = each * share, to = smaller(from + each, tiles);
    if (from >= to) return;
    // From here on tokens are counted from the warp's first: a rollout has less than 2^31, and numbers of 32 bits take half the registers.
    const i32 origin = (i32)(start + 32 * from);
    const u32 n = (u32)(32 * (to - from));
    auto counted = [&](i64 t) { return (u32)larger((i64)0, smaller(t - origin, (i64)n)); };
    const u32 low_at = counted(low), high_at = counted(high), first = counted(scope.first), beyond = counted(scope.end);
    i32 chunk = (i32)chunk_at(lines.last, 0, lines.count, origin);
    // No later chunk has a token here: each has an end in the tiles, but the last.
    const i32 count = (i32)smaller(lines.count, chunk_at(lines.last, chunk, smaller(lines.count, (i64)chunk + n), origin + (i64)n) + 1);
    // A window of 32 chunks; at first it is that before the first one, which holds nothing and ends before every tile.
    i32 window = chunk - 32, held_end = (i32)0x80000000;
    f64 held = 0.0;
    for (u32 begin = 0; begin < n; begin += 32) {
        const u32 t = begin + (u32)lane();
        u32 ends = 0;
        i32 own;
        f64 value = 0.0;
        for (;;) {
            // (Of an end before this tile the difference is a large number.)
            ends |= warp_or((u32)held_end - begin < 32 ? 1u << ((u32)held_end - begin) : 0u);
            // Exact below the window's end; of chunks beyond it the next window says.
            own = chunk + __popc(ends & ((1u << lane()) - 1));
            const f64 found = __shfl_sync(WARP, held, (own - window) & 31);
            if (own >= window && own < window + 32) value = found;
            if (__shfl_sync(WARP, held_end, 31) >= (i32)(begin + 32)) break;
            window += 32;
            const i32 j = window + lane();
            held_end = j < count ? (i32)smaller(lines.last[j] - (u32)origin, 0x7fffffffu) : 0x7fffffff;
            held = j < count ? load(j) : 0.0;
        }
        const bool in = own < count && t >= first && t < beyond && (!has_holes(scope) || contains(scope, origin + (i64)t));
        if (t >= low_at && t < high_at) body(origin + (i64)t, in, in ? value : 0.0);
        chunk += __popc(ends);
    }
}
// The same of chunks and of tokens, by the block.
template <class Load, class Body> INLINE void each_slot(i64 low, i64 high, i64 lead, const Scope& scope, const Lines& lines, Load load, Body body) {
    if (lines.every_token) {
        i64 before = 0;
        for (i64 base = -lead; base < high; base += blockDim.x) {
            const i64 t = base + THREAD_NUMBER();
            const bool there = t >= 0 && t < high, in = there && contains(scope, t);
            i64 line = t - scope.first;
            if (has_holes(scope)) {
                const Rank rank = block_rank(in);
                line = before + rank.before;
                before += rank.total;
            }
            if (there) body(t, in, in ? load(line) : 0.0);
        }
        return;
    }
    each_slot_of_chunks(low, high, lead, scope, lines, warp(), warps(), load, body);
}
template <class Load, class Body> INLINE void each_slot(i64 len, i64 lead, const Scope& scope, const Lines& lines, Load load, Body body) {
    each_slot(0, len, lead, scope, lines, load, body);
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
OUT_OF_LINE void zero_slots(const Array& to, i64 row, i64 from, i64 end, bool flat, i64 thread, i64 threads) {
    u64 none = 0;
    const i64 base = flat ? 0 : row * to.stride[0], stride = flat ? to.stride[0] : to.stride[1];
    // From a sector's begin on.
    for (i64 t = from - sector_lead(to, base + from * stride, stride) + thread; t < end; t += threads)
        if (t >= from) store(to, base + t * stride, 0.0, none);
}

// Padded layout: zeros left and right of the rollout, by its block.
INLINE void pad(const Args& args, const Array& to, const Extent& e) {
    if (e.flat) return;
    zero_slots(to, e.row, 0, e.column, false, threadIdx.x, blockDim.x);
    zero_slots(to, e.row, e.column + e.len, args.batch.slots, false, threadIdx.x, blockDim.x);
}

INLINE i64 clamped_slot(i64 slot, i64 slots) { return smaller(larger(slot, (i64)0), slots); }
// Packed layout: zeros before the first rollout and after the last, by the whole grid.
OUT_OF_LINE void pad_ends(const Args& args, const Array& to) {
    if (args.batch.layout != PACKED) return;
    SHARED(i64, ends_of_batch, [2]);
    __syncthreads();
    // (What the device says may lie outside: then the batch is zeroed, by others.)
    if (threadIdx.x < 2) ends_of_batch[threadIdx.x] = clamped_slot(item_int(args.batch.extents, threadIdx.x == 0 ? 0 : args.batch.rollouts), args.batch.slots);
    __syncthreads();
    const i64 thread = (i64)blockIdx.x * blockDim.x + threadIdx.x, threads = (i64)gridDim.x * blockDim.x;
    zero_slots(to, 0, 0, ends_of_batch[0], true, thread, threads);
    zero_slots(to, 0, ends_of_batch[1], args.batch.slots, true, thread, threads);
}

// Zeros everywhere: the batch's offsets do not fit, so that no rollout has a place. By the whole grid.
OUT_OF_LINE void zero_all(const Args& args, const Array& to) {
    const i64 rows = args.batch.layout == PACKED ? 1 : args.batch.rollouts;
    for (i64 row = blockIdx.x; row < rows; row += gridDim.x) zero_slots(to, row, 0, args.batch.slots, args.batch.layout == PACKED, threadIdx.x, blockDim.x);
}

#endif
