// A part of a long rollout of kind kl (parts.cuh, kl_parts.cuh) from its chunks to its outputs, where the way is one scan over chunks without holes in the scope.
//
// Parts are counted from the rollout's end, so that they are whole tiles of the scan (numerics contract 5.5): part n has the chunks of positions n part_size() on,
// and the tokens that are as far from the end. Tiles are summed in parallel; the carry goes from part to part in the order of the tiles. Where every token is a
// chunk a part's results go to its tokens at once. Elsewhere a token's chunk is a part's that is not after the token's own: it waits until these have told that
// their results are there. No part reads what a part before it may have overwritten: a chunk of a later part ends before the tokens of this one.
#ifndef PASSRL_SHAPE_PARTS_CUH
#define PASSRL_SHAPE_PARTS_CUH
#include "kl_parts.cuh"
#include "shape_room.cuh"

constexpr i32 QUEUE_SHAPE = 0;
// How far the part before has come in telling.
enum ShapePartState { SHAPE_CARRY = 1, SHAPE_DONE = 2 };

// Which chunks the rollout has and which of them are this part's, in `room.work` and `part`; lists them where not every token is one. `decision` is of its group, or
// bad where it has none. The block.
OUT_OF_LINE void open_part(const Args& args, ShapeRoom& room, const Task& task, PartRoom& part) {
    const PlanConstants& plan = plan_of(args);
    const Extent e = room.work.e;
    Rollout kept = room.work.kept;
    const i64 tokens = kept.count, size = part_size(), more = parts_beside_first(e.len);
    const bool by_table = plan.chunk == CHUNK_BY_VALUE;
    kept.chunks = (u32)(tokens == 0 || !by_table ? tokens : count_edges(args, kept.group, tokens) + 1);
    kept.state &= ~(u32)STATE_EVERY_TOKEN;
    if (tokens > 0 && kept.chunks == tokens) kept.state |= STATE_EVERY_TOKEN;
    if (shared_decision().bad) {
        kept.state |= STATE_ZEROED;
        if (!(kept.flags & ROLLOUT_ABSENT)) kept.flags |= ROLLOUT_IN_BAD_GROUP;
    }
    __syncthreads();
    if (is_first_thread()) {
        room.work = make_shaping(args, task.item, e, kept);
        room.path = 0.0;
        part.high = larger((i64)kept.chunks - task.number * size, (i64)0);
        part.low = larger(part.high - size, (i64)0);
        part.own = task.place;
        part.next = task.number < more ? (task.place < 0 ? task.first : task.place + 1) : -1;
    }
    __syncthreads();
    if (part.low < part.high && !(kept.state & STATE_EVERY_TOKEN)) list_chunks_of_part(args, kept.group, tokens, kept.chunks, part.low, part.high, room.work.last);
}

// Where the part's chunks are between the tiles' sums and the results: in shared memory where every token is one (8 bytes for each, which the host has asked for),
// else where the results of all parts lie.
INLINE f64* part_values(const Shaping& w, const PartRoom& part) {
    DYNAMIC_SHARED(f64, at_hand);
    return w.kept.state & STATE_EVERY_TOKEN ? at_hand : w.d + part.low;
}

// Standardised and fused values of the part's chunks, summed within their tiles, in `part_values`; the tiles' sums in `part.tops`. The block meets at the end.
OUT_OF_LINE void sum_tiles(const Args& args, ShapeRoom& room, PartRoom& part, bool scans) {
    const PlanConstants& plan = plan_of(args);
    const Shaping& w = room.work;
    const Terms& terms = room.terms;
    FusedStreams& fusion = room.fusion;
    const Outputs& o = args.outputs;
    // (A rollout has less than 2^31 tokens.)
    const i32 high = (i32)part.high, n = high - (i32)part.low;
    // Zeroed, or the format is wrong: a value is what the rollout says, or its format.
    const bool given = (w.kept.state & STATE_ZEROED) || terms.gated, every = w.kept.state & STATE_EVERY_TOKEN, keeps_values = is_given(o.chunk_values);
    const i32 streams = given ? -1 : fusion.streams, own_lane = lane(), terms_of_every = given ? 0 : terms.every_count;
    const SignalLine signals = signal_line(args, w.e, 0, every ? w.scope.first : 0);
    // (The rollout's last chunk is the first position of its first part.)
    auto is_last = [&](i32 j) { return j + 1 == high && high == (i32)w.kept.chunks; };
    f64* const values = part_values(w, part);
    u64 none = 0;
    auto value = [&](i32 j) {
        if (streams < 0) return w.kept.state & STATE_ZEROED ? 0.0 : is_last(j) ? terms.gated_last : terms.gated_every;
        f64 process = 0.0;
        if (streams > 0) {
            const f32 x = signal_on_line(args, plan, w.e, 0, signals, every ? (i64)j : (i64)w.last[j], [&] { return every ? w.scope.first + j : (i64)w.last[j]; });
            u32 lost = 0;
            process = fusion.weights[0] * standardised(*fusion.standards[0], fusion.applies[0], x, &lost);
            note_lost(fusion.lost, lost);
        }
        if (is_last(j)) return chunk_value(fusion, terms, true, process);
#pragma unroll 1
        for (i32 s = 0; s < terms_of_every; s++) process += terms.every[s];
        return process;
    };
    for (i32 tile = warp(); 32 * tile < n; tile += warps()) {
        const i32 r = 32 * tile + own_lane, j = high - 1 - r;
        f64 y = r < n ? value(j) : 0.0;
        if (keeps_values && r < n) store(o.chunk_values, chunk_slot(w.e, o.chunk_values, j), y, none);
        if (scans) {
#pragma unroll
            for (i32 s = 0; s < 5; s++) {
                const f64 before = __shfl_up_sync(WARP, y, 1 << s);
                y = y + room.tops.steps[s] * (own_lane >= 1 << s ? before : 0.0);
            }
        }
        if (r < n) values[n - 1 - r] = y;
        if (own_lane == 31) part.tops[tile] = y;
    }
    __syncthreads();
}

// From the tiles' sums to the results of the part's chunks: to their tokens where every token is one, elsewhere to d (and v).
OUT_OF_LINE void finish_tiles(const Args& args, ShapeRoom& room, const PartRoom& part, bool scans) {
    const PlanConstants& plan = plan_of(args);
    const Shaping& w = room.work;
    const Outputs& o = args.outputs;
    const Extent& e = w.e;
    const i32 high = (i32)part.high, n = high - (i32)part.low, k = (i32)w.kept.chunks, first = (i32)w.scope.first;
    const bool every = w.kept.state & STATE_EVERY_TOKEN, divides = plan.k != 0.0, keeps_returns = is_given(o.returns), keeps_ends = is_given(o.chunk_ends);
    const f64* const divisors = (const f64*)plan.divisors + (plan.max_rollout_tokens - k);
    const f64 clip = plan.clip, temperature = plan.temperature;
    f64 *const values = part_values(w, part), *const v = w.v;
    const i32 own_lane = lane();
    Totals totals = no_totals();
    u64 none = 0;
    for (i32 tile = warp(); 32 * tile < n; tile += warps()) {
        const i32 r = 32 * tile + own_lane, j = high - 1 - r;
        if (r >= n) continue;
        f64 g = values[n - 1 - r];
        if (scans) g = g + room.tops.powers[own_lane + 1] * part.entering[tile];
        const f64 a = divides ? g * divisors[j] : g;
        if (j == 0) room.path = a;
        const f64 tempered = temperature == 1.0 ? a : a / temperature;
        if (keeps_ends) store_int(o.chunk_ends, chunk_slot(e, o.chunk_ends, j), every ? first + j + 1 : (i64)w.last[j] + 1);
        if (every) {
            if (keeps_returns) store(o.returns, at(e, o.returns, first + j), g, none);
            write_advantage(args, o.advantages, at(e, args.outputs.advantages, first + j), false, room.whitening, clip, tempered, totals);
        } else {
            if (keeps_returns) v[j] = g;
            values[n - 1 - r] = tempered;
        }
    }
    if (every) add_written(args, totals);
}

// Waits until the parts before have their results where all blocks see them, and tells that this part has too. The block.
OUT_OF_LINE void join_results(const Args& args, const PartRoom& part) {
    __threadfence();
    __syncthreads();
    if (is_first_thread()) {
        if (part.own >= 0) await_part(args, QUEUE_SHAPE, part.own, SHAPE_DONE);
        if (part.next >= 0) tell_part(args, QUEUE_SHAPE, part.next, SHAPE_DONE);
    }
    __syncthreads();
}

// A part's tokens, and the chunks that they are looked for in: those of later parts, whose list may not be there yet, have no token of this one.
struct PartSlots {
    i64 begin, end;
    Lines lines;
};
INLINE i64 first_chunk_of_part(const Shaping& w, i64 number) { return larger((i64)w.kept.chunks - (number + 1) * part_size(), (i64)0); }
INLINE PartSlots slots_of_part(const Shaping& w, i64 number) {
    const i64 size = part_size(), end = larger(w.e.len - number * size, (i64)0), from = first_chunk_of_part(w, number);
    return PartSlots{larger(end - size, (i64)0), end, Lines{false, w.last + from, (i64)w.kept.chunks - from}};
}
// Where chunks are longer than a token, once the results of the parts before it are there too: the part's advantages, its returns. The block.
OUT_OF_LINE void write_part_advantages(const Args& args, const Shaping& w, const Task& task) {
    const PartSlots slots = slots_of_part(w, task.number);
    add_written(args, write_slots(args, w.e, slots.begin, slots.end, w.scope, slots.lines, false, Whitening{0.0, 0.0, false, false, false}, [&](i64 j) { return w.d[first_chunk_of_part(w, task.number) + j]; }));
}
OUT_OF_LINE void write_part_returns(const Args& args, const Shaping& w, const Task& task) {
    const Array& to = args.outputs.returns;
    if (!is_given(to)) return;
    const PartSlots slots = slots_of_part(w, task.number);
    u64 none = 0;
    each_slot(slots.begin, slots.end, sector_lead(to, at(w.e, to, slots.begin), token_stride(w.e, to)), w.scope, slots.lines, [&](i64 j) { return w.v[first_chunk_of_part(w, task.number) + j]; },
              [&](i64 t, bool, f64 g) { store(to, at(w.e, to, t), g, none); });
}

// The block's part, and the block's end; `room.work` has the rollout as it was kept.
OUT_OF_LINE void shape_part(const Args& args, ShapeRoom& room, const Task& task, PartRoom& part) {
    const PlanConstants& plan = plan_of(args);
    open_part(args, room, task, part);
    const Shaping& w = room.work;
    auto scans = [&] { return plan.credit == CREDIT_RETURN_TO_GO; };
    auto some = [&] { return part.low < part.high; };
    if (some()) {
        // Counted once a rollout.
        rollout_terms(args, w, shared_decision(), room.terms);
        add_noted(args, room.terms.lost, task.number == 0);
        prepare_fusion(args, w, room.terms, room.fusion);
        add_noted(args, room.fusion.lost, task.number == 0);
        open_scan(plan.decay, room.tops);
        __syncthreads();
        sum_tiles(args, room, part, scans());
        add_noted(args, room.fusion.lost);
        if (scans() && warp() == 0) carry_tiles(args, QUEUE_SHAPE, part.own, part.next, SHAPE_CARRY, (i32)((part.high - part.low + 31) / 32), room.tops.powers[32], part.tops, part.entering);
        __syncthreads();
        finish_tiles(args, room, part, scans());
    }
    if (!(w.kept.state & STATE_EVERY_TOKEN)) {
        join_results(args, part);
        write_part_advantages(args, w, task);
        write_part_returns(args, w, task);
    }
    if (task.number == 0 && plan.fill_padding) {
        pad(args, args.outputs.advantages, w.e);
        if (is_given(args.outputs.returns)) pad(args, args.outputs.returns, w.e);
    }
    // The first chunk's part has the rollout's path.
    __syncthreads();
    if (is_first_thread() && (some() ? part.low == 0 : w.kept.chunks == 0 && task.number == 0)) rollout_outputs(args, w, room.path);
    end_shape(args);
}

#endif
