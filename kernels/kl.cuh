// Chunks of kl signals: edges of the group's average (Algorithm 2 with u-bar), or the other chunk modes over tokens. Twin of kl.rs and of the edges in chunk.rs.
#ifndef PASSRL_KL_CUH
#define PASSRL_KL_CUH
#include "chunk.cuh"
#include "decide.cuh"

// Edges between positions, decided on integers: sums C and live counts n of the group's positions, and the scale that makes them comparable with eta.
struct KlEdges {
    KlTable table;
    // 2^(e - 30) and the scale (numerics contract 5.4).
    f64 down, inv, eta;
    // `average_over = group`: the group's size, elements (0: nothing is subtracted) and sum.
    i64 size, n, sum;
    bool over_group;
    // A degenerate set has no edges.
    bool none;
    // Up to 1,024 rollouts |C n'| < 2^30 n^2 fits 64 bits, difference included, and is exact in f64.
    bool narrow;
};

INLINE KlEdges make_edges(const Args& args, i64 g, const Decision& decision) {
    const PlanConstants& plan = plan_of(args);
    const Standard& s = decision.standards[0];
    KlEdges to;
    to.table = kl_table(args, g);
    to.down = s.grid.down;
    to.eta = plan.eta;
    to.inv = 0.0;
    to.none = decision.bad || !edge_scale(s, &to.inv);
    to.over_group = plan.average_over == AVERAGE_GROUP;
    to.size = decision.members;
    to.n = plan.streams[0].center != CENTER_NONE ? s.sums.n : 0;
    to.sum = s.sums.q;
    to.narrow = decision.members <= 1024;
    return to;
}

// Is there an edge between a position of sum ca and live count na, and one of cb and nb?
INLINE bool is_kl_edge(const KlEdges& edges, i64 ca, i64 na, i64 cb, i64 nb) {
    if (na == 0 || nb == 0) return false;
    if (!edges.over_group) {
        f64 left;
        if (edges.narrow) left = absolute((f64)(cb * na - ca * nb));
        else left = wide_to_f64(wide_absolute(wide_minus(wide_times(wide(cb), wide(na)), wide_times(wide(ca), wide(nb)))));
        return left * edges.down * edges.inv > edges.eta * (f64)nb * (f64)na;
    }
    Wide left = wide(cb - ca);
    if (edges.n != 0) left = wide_minus(wide_times(left, wide(edges.n)), wide_times(wide(nb - na), wide(edges.sum)));
    return wide_to_f64(wide_absolute(left)) * edges.down * edges.inv > edges.eta * (f64)edges.size * (f64)(edges.n != 0 ? edges.n : 1);
}

// Between positions a and b?
INLINE bool edge_between(const KlEdges& edges, i64 a, i64 b) {
    if (edges.none || larger(a, b) >= edges.table.positions) return false;
    return is_kl_edge(edges, edges.table.columns[a], edges.table.live[a], edges.table.columns[b], edges.table.live[b]);
}

// Where the bits of a group's edges lie: bit p says that there is one before position p. At the slot of its longest rollout, as the table.
INLINE u32* edge_words(const Args& args, i64 g) {
    const i64 longest = (i64)(u32)~marks_of(args, g).longest;
    return (u32*)((u64*)args.work.edges + extent(args, longest).slot / 64 + 2 * longest);
}

// Decides the edges between neighbouring positions low .. high of the decision's group, each once: a warp a word. Returns how many the warp's first thread has found.
// The block.
OUT_OF_LINE u32 keep_edges(const Args& args, const Decision& decision, i64 low, i64 high) {
    const u32 g = decision.group;
    const KlEdges edges = make_edges(args, g, decision);
    high = smaller(high, edges.table.positions);
    u32 count = 0;
    if (low >= high) return count;
    u32* const words = edge_words(args, g);
    for (i64 tile = low + 32 * (i64)warp(); tile < high; tile += blockDim.x) {
        const i64 p = tile + lane();
        const bool there = p < high && !edges.none;
        const i64 c = there ? edges.table.columns[p] : 0, n = there ? edges.table.live[p] : 0;
        i64 c_before = __shfl_up_sync(WARP, c, 1), n_before = __shfl_up_sync(WARP, n, 1);
        if (lane() == 0) {
            c_before = there && p > 0 ? edges.table.columns[p - 1] : 0;
            n_before = there && p > 0 ? edges.table.live[p - 1] : 0;
        }
        const u32 word = __ballot_sync(WARP, there && is_kl_edge(edges, c_before, n_before, c, n));
        if (lane() == 0) words[tile / 32] = word;
        count += lane() == 0 ? (u32)__popc(word) : 0;
    }
    return count;
}

// Adjacent rule, a scope without holes, edges that are kept (MODE_EDGES): bits alone are read, and nothing is listed where every token is a chunk. The block.
OUT_OF_LINE i64 block_chunks_by_edges(const Args& args, u32 group, const Scope& scope, u32* last) {
    const u32* const words = edge_words(args, group);
    i64 count = 0;
    for (i64 w = threadIdx.x; 32 * w < scope.count; w += blockDim.x) count += __popc(words[w] & word_mask(1, scope.count, w));
    count = block_sum(count) + 1;
    if (count == scope.count) return count;
    return block_chunks_where(scope, last, [&](i64, i64 b) { const i64 p = b - scope.first; return (words[p / 32] >> (p % 32) & 1) != 0; });
}

// Lists the chunks of rollout i (its last tokens), or says that every token is one. The block; `kept` is each thread's own and stays the same in all.
OUT_OF_LINE void kl_chunks(const Args& args, i64 i, const Extent& e, const Scope& scope, const KlEdges& edges, Rollout& kept, u32* last) {
    const PlanConstants& plan = plan_of(args);
    const Batch& batch = args.batch;
    kept.state &= ~(u32)STATE_EVERY_TOKEN;
    kept.chunks = 0;
    if ((kept.flags & ROLLOUT_BAD_STEPS) || scope.count == 0) return;
    const StepRange steps = is_given(batch.step_offsets) ? step_numbers(args, i) : StepRange{0, 0, false};
    bool every = plan.chunk == CHUNK_TOKEN || (plan.chunk == CHUNK_STEP && !is_given(batch.step_offsets));
    i64 count = 0;
    if (every) {
        count = scope.count;
    } else if (plan.chunk == CHUNK_BY_VALUE) {
        const i64 first = scope.first;
        auto cut = [&](i64 anchor, i64 a, i64 b) { return (b - a > 1 && !plan.bridge_scope_gaps) || edge_between(edges, anchor - first, b - first); };
        if (plan.boundary_rule == BOUNDARY_ANCHORED) count = block_chunks_anchored(scope, last, cut);
        else if ((args.mode & MODE_EDGES) && !has_holes(scope) && kept.group != NO_GROUP) count = block_chunks_by_edges(args, kept.group, scope, last);
        else count = block_chunks_where(scope, last, [&](i64 a, i64 b) { return cut(a, a, b); });
        every = plan.boundary_rule == BOUNDARY_ADJACENT && !has_holes(scope) && count == scope.count;
    } else if (plan.chunk == CHUNK_SEGMENT) {
        count = block_chunks_segment(scope, last);
    } else if (plan.chunk == CHUNK_STEP && steps.to > steps.from) {
        for (i64 tile = steps.from; tile < steps.to; tile += blockDim.x) {
            const i64 j = tile + threadIdx.x;
            i64 own = -1;
            if (j < steps.to) {
                const TokenRange tokens = step_tokens(args, steps, j, e.len);
                own = last_in(scope, tokens.begin, tokens.end);
            }
            const Rank rank = block_rank(own >= 0);
            if (own >= 0) last[count + rank.before] = (u32)own;
            count += rank.total;
        }
        __syncthreads();
    } else if (plan.chunk == CHUNK_GIVEN) {
        if (is_given(batch.chunk_marks)) count = block_chunks_given(args, e, scope, last);
    } else {
        count = block_chunks_whole(scope, last);
    }
    if (every) kept.state |= STATE_EVERY_TOKEN;
    kept.chunks = (u32)count;
}

#endif
