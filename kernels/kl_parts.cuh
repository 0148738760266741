// Long rollouts of kind kl in parts (parts.cuh), where every token is in scope and edges are kept as bits: what passrl_prepare and passrl_sums do of a part's tokens,
// the edges of a part's positions, and where a part's chunks are. Maxima and sums are integers, which join in any order; the last block to be done ends the rollout.
#ifndef PASSRL_KL_PARTS_CUH
#define PASSRL_KL_PARTS_CUH
#include "elements.cuh"
#include "kl.cuh"

constexpr i32 QUEUE_SUMS = 2;

// Tokens of part `number`.
INLINE Scope part_scope(i64 number, i64 first, i64 end) { return span_scope(larger(first, number * part_size()), smaller(end, (number + 1) * part_size())); }

// Where a part of passrl_prepare keeps the maxima of its tokens. (Those of the first part stand with the second.)
INLINE Extremes& part_maxima(const Args& args, i64 first, i64 number) {
    Part& part = part_of(args, QUEUE_PREPARE, first + larger(number - 1, (i64)0));
    return number == 0 ? *(Extremes*)&part.totals : *(Extremes*)&part.carry;
}

// The maxima of this part's tokens; true: of all parts this is the last that is done, and `room.extremes` are those of all of them. The block.
OUT_OF_LINE bool look_at_part(const Args& args, Room& room) {
    const Task& task = room.task;
    __syncthreads();
    if (is_first_thread()) shared_work().scope = part_scope(task.number, 0, shared_work().e.len);
    __syncthreads();
    if (args.batch.process == PROCESS_LOGPROBS && (args.mode & MODE_COUNTING)) {
        u32 low = 0;
        for (i64 t = shared_work().scope.first + threadIdx.x; t < shared_work().scope.end; t += blockDim.x) low += signal_low(args, shared_work().e, t);
        add_counts_to(&counts_of(args).low_logps, low);
    }
    const Extremes own = list_extremes(args, shared_work(), 0);
    if (is_first_thread()) part_maxima(args, task.first, task.number) = own;
    if (!is_last_part(args, QUEUE_PREPARE, task)) return false;
    Extremes all = no_extremes();
    for (i64 k = threadIdx.x; k <= task.more; k += blockDim.x) {
        const volatile Extremes& of = part_maxima(args, task.first, k);
        all = Extremes{larger(all.absmax, of.absmax), larger(all.max, of.max), larger(all.min, of.min)};
    }
    all = block_extremes(all);
    if (is_first_thread()) room.extremes = all;
    __syncthreads();
    return true;
}

// ---- edges ----
// How many edges each part of a group's positions has. At the slot of its longest rollout, as its bits.
INLINE u32* edge_counts(const Args& args, i64 g) {
    const i64 longest = (i64)(u32)~marks_of(args, g).longest;
    return (u32*)args.work.edge_counts + extent(args, longest).slot / part_size() + longest;
}

// The edges of part `number` of the positions of the decision's group, and how many they are. The block.
INLINE void keep_part_edges(const Args& args, u32 number, const Decision& decision) {
    const i64 low = number * part_size();
    const u32 count = block_sum(keep_edges(args, decision, low, low + part_size()));
    if (is_first_thread()) edge_counts(args, decision.group)[number] = count;
}

// Are the positions of a group in parts, where long rollouts are?
INLINE bool has_part_edges(const Args& args, i64 g, i64 places) { return places > 0 && parts_beside_first(kl_table(args, g).positions) > 0; }
// All edges of the decision's group, or those of the first part of its positions. The block.
INLINE void keep_first_edges(const Args& args, i64 places, const Decision& decision) {
    if (has_part_edges(args, decision.group, places)) keep_part_edges(args, 0, decision);
    else keep_edges(args, decision, 0, 1ll << 40);
}

// Blocks that keep the edges of further parts of groups' positions: each looks at so many places of the queue, and takes the parts of rollouts that are their groups'
// longest.
constexpr i64 PLACES_A_BLOCK = 2;
INLINE i64 edge_blocks(i64 places) { return (places + PLACES_A_BLOCK - 1) / PLACES_A_BLOCK; }

// Block `number()` of them, which is asked again for each place. `ready(i, g)`: waits for the sums of group g, of which rollout i is.
template <class Number, class Ready> INLINE void keep_further_edges(const Args& args, Number number, Decision& decision, Ready ready) {
    if (is_first_thread()) decision.group = NO_GROUP;
    __syncthreads();
#pragma unroll 1
    for (i32 n = 0; n < PLACES_A_BLOCK; ++n) {
        auto place = [&] { return PLACES_A_BLOCK * number() + n; };
        if (place() >= (i64)*(volatile u64*)&counts_of(args).queues[QUEUE_SUMS].parts) return;
        const i64 i = (i64)part_of(args, QUEUE_SUMS, place()).rollout;
        const u32 g = rollout_of(args, i).group;
        if (g == NO_GROUP || marks_of(args, g).longest >> 32 == 0 || (i64)(u32)~marks_of(args, g).longest != i) continue;
        // (Rollouts of one group are decided for once.)
        if (g != decision.group) {
            ready(i, g);
            decide(args, g, decision);
        }
        keep_part_edges(args, part_of(args, QUEUE_SUMS, place()).number, decision);
    }
}

// Edges between the first `end` positions of group g. The block.
INLINE i64 count_edges(const Args& args, i64 g, i64 end) {
    const u32 *const words = edge_words(args, g), *const counts = edge_counts(args, g);
    const i64 whole = end / part_size();
    i64 count = 0;
    for (i64 k = threadIdx.x; k < whole; k += blockDim.x) count += counts[k];
    for (i64 w = whole * part_size() / 32 + threadIdx.x; 32 * w < end; w += blockDim.x) count += __popc(words[w] & word_mask(1, end, w));
    return block_sum(count);
}

// ---- chunks ----
// What a thread's count comes to with those of the threads before it, without its own, and of the block.
INLINE Rank block_offset(u32 own) {
    SHARED(u32, counts_of_warps, [MOST_WARPS]);
    u32 with = own;
    for (i32 d = 1; d < 32; d <<= 1) {
        const u32 before = __shfl_up_sync(WARP, with, d);
        with += lane() >= d ? before : 0;
    }
    __syncthreads();
    if (lane() == 31) counts_of_warps[warp()] = with;
    __syncthreads();
    const u32 count = lane() < warps() ? counts_of_warps[lane()] : 0u;
    return Rank{warp_sum(lane() < warp() ? count : 0u) + with - own, warp_sum(count)};
}

// The part of the positions that has edge `number` of group g (from 0), and how many edges the parts before it have; of none of the `parts`: the part after them.
struct EdgePlace {
    i64 part, before;
};
INLINE EdgePlace find_edge(const Args& args, i64 g, i64 parts, i64 number) {
    const u32* const counts = edge_counts(args, g);
    i64 before = 0;
    for (i64 base = 0; base < parts; base += 32) {
        const u32 count = base + lane() < parts ? counts[base + lane()] : 0;
        u32 with = count;
        for (i32 d = 1; d < 32; d <<= 1) {
            const u32 other = __shfl_up_sync(WARP, with, d);
            with += lane() >= d ? other : 0;
        }
        const u32 beyond = __ballot_sync(WARP, before + with > number);
        if (beyond) {
            const i32 at = __ffs((i32)beyond) - 1;
            return EdgePlace{base + at, before + __shfl_sync(WARP, with - count, at)};
        }
        before += __shfl_sync(WARP, with, 31);
    }
    return EdgePlace{parts, before};
}

// Lists chunks low .. high of a rollout's `chunks` (the last token of each); its `tokens` are all in scope. An edge ends the chunk of its number. The block meets at
// the end.
OUT_OF_LINE void list_chunks_of_part(const Args& args, i64 g, i64 tokens, i64 chunks, i64 low, i64 high, u32* last) {
    const u32* const words = edge_words(args, g);
    const EdgePlace from = find_edge(args, g, (tokens + part_size() - 1) / part_size(), low);
    i64 seen = from.before;
    for (i64 base = from.part * part_size() / 32; 32 * base < tokens && seen < high; base += blockDim.x) {
        const i64 w = base + threadIdx.x;
        u32 word = 32 * w < tokens ? words[w] & word_mask(1, tokens, w) : 0;
        const Rank rank = block_offset((u32)__popc(word));
        for (i64 j = seen + rank.before; word; ++j, word &= word - 1)
            if (j >= low && j < high) last[j] = (u32)(32 * w + __ffs((i32)word) - 2);
        seen += rank.total;
    }
    if (is_first_thread() && high == chunks) last[chunks - 1] = (u32)(tokens - 1);
    __syncthreads();
}

#endif
