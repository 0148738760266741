// What a run writes beside the advantages: returns, path scores, chunks, statistics, flags; and the advantages themselves. Twin of outputs.rs.
#ifndef PASSRL_OUTPUTS_CUH
#define PASSRL_OUTPUTS_CUH
#include "shaping.cuh"
#include "whiten.cuh"

// Entry j of a chunk list: in the slots of the rollout's tokens (padded: from the row's first, whatever the side of the padding).
INLINE i64 chunk_slot(const Extent& e, const Array& to, i64 j) { return e.flat ? (e.column + j) * to.stride[0] : e.row * to.stride[0] + j * to.stride[1]; }

// Path score, chunk count and flags of a rollout, and what it has for the report. One thread.
OUT_OF_LINE void rollout_outputs(const Args& args, const Work& w, f64 path) {
    const Outputs& o = args.outputs;
    const i64 k = w.kept.chunks;
    u64 none = 0;
    if (is_given(o.path_scores)) store(o.path_scores, w.i * o.path_scores.stride[0], path, none);
    if (is_given(o.num_chunks)) store_int(o.num_chunks, w.i * o.num_chunks.stride[0], k);
    if (is_given(o.rollout_flags)) store_int(o.rollout_flags, w.i * o.rollout_flags.stride[0], (i64)w.kept.flags);
    Counts& counts = counts_of(args);
    add_to(&counts.rollouts, w.kept.flags & ROLLOUT_ABSENT ? 0 : 1);
    add_to(&counts.tokens, (i64)w.kept.count);
    add_to(&counts.chunks, k);
}

// Returns (in v), path score, chunk count, ends and values (in f) of the block's rollout.
OUT_OF_LINE void side_outputs(const Args& args, const Shaping& w, f64 path) {
    const PlanConstants& plan = plan_of(args);
    const Outputs& o = args.outputs;
    const i64 k = w.kept.chunks;
    u64 none = 0;
    if (is_given(o.returns)) {
        const Lines lines = plan.credits_tokens ? Lines{true, w.last, w.scope.count} : chunk_lines(w);
        each_slot(w.e.len, sector_lead(o.returns, at(w.e, o.returns, 0), token_stride(w.e, o.returns)), w.scope, lines, [&](i64 j) { return w.v[j]; }, [&](i64 t, bool, f64 g) { store(o.returns, at(w.e, o.returns, t), g, none); });
        if (plan.fill_padding) pad(args, o.returns, w.e);
    }
    if (is_given(o.chunk_ends)) {
        if (w.kept.state & STATE_EVERY_TOKEN) {
            each_in_scope(w.scope, [&](i64 t, i64 j) { store_int(o.chunk_ends, chunk_slot(w.e, o.chunk_ends, j), t + 1); });
        } else {
            for (i64 j = threadIdx.x; j < k; j += blockDim.x) store_int(o.chunk_ends, chunk_slot(w.e, o.chunk_ends, j), (i64)w.last[j] + 1);
        }
    }
    if (is_given(o.chunk_values)) {
        for (i64 j = threadIdx.x; j < k; j += blockDim.x) store(o.chunk_values, chunk_slot(w.e, o.chunk_values, j), w.f[j], none);
    }
    if (is_first_thread()) rollout_outputs(args, w, path);
}

// Divided by the temperature, where there is one: divisions in f64 are dear.
INLINE f64 tempered(const PlanConstants& plan, f64 d) { return plan.temperature == 1.0 ? d : d / plan.temperature; }

// An advantage, tempered, to element `slot` of its array: whitening (where it `whitens`), clip (the plan's). Loops read the array and the clip once.
INLINE void write_advantage(const Args& args, const Array& to, i64 slot, bool whitens, const Whitening& whitening, f64 clip, f64 a, Totals& totals) {
    if (whitens) a = whitened(whitening, a);
    if (!is_infinite(clip)) {
        totals.clipped += absolute(a) > clip ? 1 : 0;
        a = clamped(a, -clip, clip);
    }
    if (args.outputs.report) {
        totals.sum += a;
        totals.squares += a * a;
    }
    store(to, slot, a, totals.overflowed);
}

// Zeros in the padding beside a rollout's advantages. The block.
OUT_OF_LINE void pad_advantages(const Args& args, const Shaping& w) {
    if (plan_of(args).fill_padding) pad(args, args.outputs.advantages, w.e);
}

// Slots low .. high of the rollout (of chunks; else every slot): value(j) of the tokens in scope, tempered; 0 elsewhere. What lies under the output has been used.
// Returns what this thread has counted.
template <class Value>
INLINE Totals write_slots(const Args& args, const Extent& e, i64 low, i64 high, const Scope& scope, const Lines& lines, bool whitens, const Whitening& whitening, Value value) {
    // The array from the rollout's first token on, which the loop reads once.
    Array to = args.outputs.advantages;
    const f64 clip = plan_of(args).clip;
    const i64 base = at(e, to, 0), stride = token_stride(e, to), lead = sector_lead(to, base + low * stride, stride);
    to.data += (u64)(base * bytes_of(to));
    Totals totals = no_totals();
    each_slot(low, high, lead, scope, lines, value, [&](i64 t, bool in, f64 a) {
        if (in) write_advantage(args, to, t * stride, whitens, whitening, clip, a, totals);
        else store(to, t * stride, 0.0, totals.overflowed);
    });
    return totals;
}
// The whole rollout, and the padding beside it.
template <class Value>
INLINE Totals write_advantages(const Args& args, const Extent& e, const Scope& scope, const Lines& lines, bool whitens, const Whitening& whitening, Value value) {
    const Totals totals = write_slots(args, e, 0, e.len, scope, lines, whitens, whitening, value);
    if (plan_of(args).fill_padding) pad(args, args.outputs.advantages, e);
    return totals;
}

// Statistics and flags of a group, from its block's decision.
OUT_OF_LINE void group_outputs(const Args& args, const Decision& decision) {
    const PlanConstants& plan = plan_of(args);
    const Outputs& o = args.outputs;
    u64 none = 0;
    // (Blocks have more threads than there are rows.)
    const i32 row = (i32)threadIdx.x;
    if (row < MAX_STREAMS) {
        i64 count = 0;
        f64 mean = 0.0, std = 0.0, absmax = 0.0;
#pragma unroll 1
        for (i32 slot = 0; slot < plan.slots; slot++) {
            const Standard& standard = decision.standards[slot];
            if (plan.slot_reported[slot] != row || extremes_bad(standard.extremes) || standard.sums.n <= 0) continue;
            count = standard.sums.n;
            reported(standard, &mean, &std);
            absmax = (f64)absmax_value(standard.extremes);
        }
        auto place = [&](const Array& to) { return (i64)decision.group * to.stride[0] + row * to.stride[1]; };
        if (is_given(o.stats_count)) store_int(o.stats_count, place(o.stats_count), count);
        if (is_given(o.stats_mean)) store(o.stats_mean, place(o.stats_mean), mean, none);
        if (is_given(o.stats_std)) store(o.stats_std, place(o.stats_std), std, none);
        if (is_given(o.stats_absmax)) store(o.stats_absmax, place(o.stats_absmax), absmax, none);
        if (is_given(o.group_flags)) store_int(o.group_flags, place(o.group_flags), decision.flags[row]);
    }
}

// What the block does when its rollout is shaped: zeros where no rollout is, and the report. (Ways to it end in it: none goes on where it came from.)
OUT_OF_LINE void end_shape(const Args& args) {
    const bool keeps = args.mode & MODE_KEEP, pads = !(args.mode & MODE_DRY) && plan_of(args).fill_padding && !counts_of(args).bad_offsets;
    if (pads && !keeps) pad_ends(args, args.outputs.advantages);
    if (pads && is_given(args.outputs.returns)) pad_ends(args, args.outputs.returns);
    if (!keeps) finish_report(args);
}

// The batch's offsets do not fit: no rollout has a place, every slot is 0.
OUT_OF_LINE void shape_nothing(const Args& args) {
    const Outputs& o = args.outputs;
    if (args.mode & MODE_DRY) return;
    zero_all(args, o.advantages);
    if (is_given(o.returns)) zero_all(args, o.returns);
    const i64 i = blockIdx.x;
    if (i >= args.batch.rollouts || !is_first_thread()) return;
    u64 none = 0;
    if (is_given(o.path_scores)) store(o.path_scores, i * o.path_scores.stride[0], 0.0, none);
    if (is_given(o.num_chunks)) store_int(o.num_chunks, i * o.num_chunks.stride[0], 0);
    if (is_given(o.rollout_flags)) store_int(o.rollout_flags, i * o.rollout_flags.stride[0], ROLLOUT_IN_BAD_GROUP);
}

// Zeros where no rollout is.
OUT_OF_LINE void shape_ends(const Args& args) {
    if (!plan_of(args).fill_padding) return;
    pad_ends(args, args.outputs.advantages);
    if (is_given(args.outputs.returns)) pad_ends(args, args.outputs.returns);
}

#endif
