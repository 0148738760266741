// Rollouts in pieces over calls or ranks: a piece's chunks (does its last go on in a later piece?) and its share of the sums. Twin of pieces.rs, and of sums.cuh.
#ifndef PASSRL_PIECES_SUMS_CUH
#define PASSRL_PIECES_SUMS_CUH
#include "pieces_edges.cuh"
#include "shaping.cuh"

// ---- chunks ----
// What is kept of a piece with its chunks, where `unit_kl_chunks` has put it.
INLINE Rollout& shared_unit_kept() {
    SHARED(Rollout, kept_of_piece, [1]);
    return kept_of_piece[0];
}
// Does the last chunk of a kl piece go on in a later one? One thread.
template <class Edges> INLINE bool last_goes_on(const Args& args, const Work& w, const Rollout& kept, Edges all_edges) {
    const PlanConstants& plan = plan_of(args);
    const i64 i = BLOCK_NUMBER();
    const Unit& unit = unit_of(args, i);
    const Scope& scope = w.scope;
    const i64* const next = next_row(args, unit);
    if (kept.chunks == 0 || !next) return false;
    if (plan.chunk == CHUNK_BY_VALUE) {
        const i64 last = unit.begin + scope.end - 1, following = larger(next[ROW_FIRST], last + 1), first = unit.begin + scope.first - unit.position;
        return (following == last + 1 || plan.bridge_scope_gaps) && !edge_between(all_edges(), last - first, following - first);
    }
    if (plan.chunk == CHUNK_STEP) {
        const i64 own = is_given(args.batch.step_offsets) ? step_number_at(args, i, step_numbers(args, i), scope.end - 1) : 0;
        return own > 0 && next[ROW_FIRST_STEP] > 0 ? own == next[ROW_FIRST_STEP] : is_given(args.batch.step_offsets);
    }
    return chunk_goes_on(args, unit, scope.end - 1);
}

// Lists the chunks of a kl piece, that of the block's number. `decision` is of its group, or 0 where the edges do not follow from its sums. The block meets at the end.
OUT_OF_LINE void unit_kl_chunks(const Args& args, const Work& w, const Decision* decision) {
    const PlanConstants& plan = plan_of(args);
    auto i = [] { return (i64)BLOCK_NUMBER(); };
    const Unit& unit = unit_of(args, i());
    const Extent& e = w.e;
    const Scope& scope = w.scope;
    // Each thread's own, and the same in all.
    Rollout kept = w.kept;
    // (Made anew after the chunks are listed.)
    auto all_edges = [&] {
        KlEdges edges;
        edges.none = true;
        edges.table = KlTable{0, 0, 0};
        if (decision && plan.chunk == CHUNK_BY_VALUE && kept.group != NO_GROUP) edges = make_edges(args, kept.group, *decision);
        return edges;
    };
    KlEdges edges = all_edges();
    if (edges.table.positions > 0) edges.table = KlTable{edges.table.columns + unit.position, edges.table.live + unit.position, edges.table.positions - unit.position};
    kept.state &= ~(u32)STATE_OPEN;
    kl_chunks(args, i(), e, scope, edges, kept, list_of<u32>(args.work.last, e));
    // (Lists of chunks by value are there.)
    if (plan.chunk == CHUNK_BY_VALUE) kept.state &= ~(u32)STATE_EVERY_TOKEN;
    __syncthreads();
    if (is_first_thread()) {
        if (last_goes_on(args, w, kept, all_edges)) kept.state |= STATE_OPEN;
        shared_unit_kept() = kept;
    }
    __syncthreads();
}

// Chunks that end in the piece.
INLINE i64 own_chunks(const Rollout& kept) { return (i64)kept.chunks - (kept.state & STATE_OPEN ? 1 : 0); }

// Adds the number of chunks that end in the piece; gae over chunks: V at the first token of its last. One thread, when the lists are there.
INLINE void tell_chunks(const Args& args, i64 i, const Extent& e, const Scope& scope, const Rollout& kept) {
    const Unit& unit = unit_of(args, i);
    const Array& values = args.batch.values;
    add_to(chunk_counts(args, unit) + unit.index, own_chunks(kept));
    if (joint_of(args).chunk_words < 2 || !is_given(values) || scope.count == 0) return;
    i64 begin = scope.first;
    if (kept.state & STATE_EVERY_TOKEN) begin = scope.end - 1;
    else if (kept.chunks >= 2) begin = first_in(scope, (i64)list_of<u32>(args.work.last, e)[kept.chunks - 2] + 1, e.len);
    const i64 value = begin >= 0 ? (i64)bits_of(load_f32(values, at(e, values, begin))) : 0;
    add_to(chunk_begins(args, unit) + unit.index, value | (kept.state & STATE_OPEN ? 1ll << 32 : 0));
}

// ---- sums ----
// KL by value: adds q of each token in scope to its position's column and counts the rollout as live there. The block.
INLINE void add_unit_to_table(const Args& args, const Work& w, const Extremes& of) {
    const PlanConstants& plan = plan_of(args);
    if (extremes_bad(of)) return;
    const KlTable table = kl_table(args, w.kept.group);
    const Grid grid = grid_of(plan.slot_bits[0], of.absmax);
    const bool at_extremes = counts_extremes(plan, 0, grid.bits);
    const i64 position = unit_of(args, w.i).position;
    for (i64 t = w.scope.first + threadIdx.x; t < w.scope.end; t += blockDim.x) {
        if (!contains(w.scope, t)) continue;
        const i64 to = position + t - w.scope.first;
        if (to >= table.positions) continue;
        if (!at_extremes) add_to(table.columns + to, quantize(grid, signal_value(args, plan, w.e, 0, t)));
        atomicAdd((u64*)table.live + to, (u64)1);
    }
}

// Everything that the block's piece has for sums. The block.
INLINE void sum_unit(const Args& args, Work& w) {
    const PlanConstants& plan = plan_of(args);
    // (It is found where it is asked for: no register keeps it over a call.)
    auto unit = [&]() -> const Unit& { return unit_of(args, w.i); };
    if (is_first_thread()) {
        const i64 i = BLOCK_NUMBER();
        w.i = i;
        w.kept = rollout_of(args, i);
        w.e = extent(args, i);
        w.scope = kept_scope(args, i, w.e, w.kept);
    }
    __syncthreads();
    if (w.kept.group == NO_GROUP) return;
    if (!has_table(plan)) {
        if (plan.kind == KIND_KL && !(w.kept.flags & ROLLOUT_ABSENT)) unit_kl_chunks(args, w, 0);
        else if (is_first_thread()) shared_unit_kept() = w.kept;
        if (is_first_thread()) tell_chunks(args, w.i, w.e, w.scope, shared_unit_kept());
        __syncthreads();
    }
    if (!counts_in_stats(w.kept)) return;
    if (is_first_thread() && unit().head && counts_members(plan)) add_to(group_words(args, w.kept.group) + 6 * plan.slots, 1);
    // A mean of all pieces' values counts once.
    auto lists = [&] { return plan.pool != POOL_ROLLOUTS || unit().head; };
    for (i32 slot = 0; (w.kept.state & STATE_HAS_PROCESS) && lists() && slot < plan.sets; ++slot) {
        const bool pooled = slot == 1 && pools(plan);
        const i32 list = pooled ? 0 : slot;
        if (list >= lists_of(args, plan)) continue;
        auto of = [&] { return load_extremes(args, group_keys(args, w.kept.group), slot); };
        add_process_sum(args, w, slot, list_sums(args, w, list, slot, of));
        if (slot == 0 && has_table(plan)) add_unit_to_table(args, w, of());
    }
    __syncthreads();
    if (unit().head) {
        __syncthreads();
        if (is_first_thread()) w.kept.count = (u32)unit().total;
        __syncthreads();
        rollout_sums(args, w);
        __syncthreads();
        if (is_first_thread()) w.kept.count = rollout_of(args, w.i).count;
        __syncthreads();
    }
    if (counts_in_batch(plan, w.kept, w.kept.flags | unit().flags)) add_batch_sums(args, w, lists(), unit().head);
}

extern "C" __global__ void __launch_bounds__(MOST_THREADS, BLOCKS_AT_ONCE) passrl_pieces_sums(const __grid_constant__ Args given) {
    const Args& args = open_args(given);
    if (ranks_fault(args) || counts_of(args).bad_offsets) return;
    sum_unit(args, shared_work());
}

#endif
