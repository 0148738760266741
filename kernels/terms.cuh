// Terms of the per-rollout streams in the fusion (eq. 4): standardised, weighted, placed; and the format gate. Twin of terms.rs.
#ifndef PASSRL_TERMS_CUH
#define PASSRL_TERMS_CUH
#include "decide.cuh"

// Terms w * N(r) of a rollout, in the stream table's order. In shared memory.
struct Terms {
    // Of every chunk; of the last chunk: those of every chunk and those placed there.
    f64 every[ROLLOUT_STREAMS], last[ROLLOUT_STREAMS];
    i32 every_count, last_count;
    // Does the last chunk differ from the others?
    bool placed;
    // Of the extent's last token where it is out of scope (`place = end`).
    bool has_beyond;
    f64 beyond;
    // The format is wrong: F is this, whatever the other streams say; of the last chunk and of the others.
    bool gated;
    f64 gated_every, gated_last;
    // Deviations that the block has seen lost and not yet counted (`add_noted`).
    u32 lost;
};

// ((t0 + t1) + t2) + ... of the terms of every chunk.
INLINE f64 sum_of_terms(const Terms& terms) {
    f64 sum = terms.every_count > 0 ? terms.every[0] : 0.0;
    for (i32 s = 1; s < terms.every_count; s++) sum += terms.every[s];
    return sum;
}

// W: the sum of the weights of the streams given, in the stream table's order.
INLINE f64 total_weight(const Args& args) {
    const PlanConstants& plan = plan_of(args);
    const bool summed = sums_rewards(plan);
    f64 sum = 0.0;
#pragma unroll 1
    for (i32 p = 0; p < args.batch.num_process; p++) sum += plan.streams[p].weight;
#pragma unroll 1
    for (i32 s = 0; s < ROLLOUT_STREAMS; s++)
        if (has_stream(args, summed, s)) sum += plan.streams[OUTCOME + s].weight;
    return sum;
}

// N(r) of per-rollout stream s of rollout i; 0 where its value is excluded.
INLINE f64 standardised_stream(const Args& args, i64 i, i32 s, const Rollout& kept, const Decision& decision, u32* lost) {
    const PlanConstants& plan = plan_of(args);
    const Stream& row = plan.streams[OUTCOME + s];
    const Standard* of = &decision.standards[slot_of_stream(plan, s)];
    const Value x = rollout_value(args, plan, s, i);
    if (!x.there) return 0.0;
    const bool counts = !(kept.state & STATE_OUT_OF_STATS) && weighs(row, kept);
    const Value baseline = baseline_of(args, i);
    const f64 mean = row.center == CENTER_GIVEN && s == 0 && baseline.there ? (f64)baseline.x : of->mean;
    Sums own = no_sums();
    if (needs_own(*of, counts)) sums_push_element(own, of->grid, x.x, 1, of->extremes);
    const f64 r = standardised(*of, mean, resolve(*of, mean, counts, own, lost), x.x, lost);
    return clamped(r, -row.clip_standardized, row.clip_standardized);
}

// Standardised values of the streams in their order. One thread.
template <class Own> INLINE void place_terms(const Args& args, const Own& w, const f64* values, Terms& to) {
    const PlanConstants& plan = plan_of(args);
    to.every_count = to.last_count = 0;
    to.placed = to.has_beyond = to.gated = false;
    to.beyond = 0.0;
    const bool at_end = (i64)w.kept.end == w.e.len, gate = plan.fusion == FUSION_ADVANTAGE && (w.kept.flags & ROLLOUT_FORMAT_VIOLATING);
    bool outside = false;
    f64 violation = 0.0;
    const i32 streams = plan.joint ? 0 : ROLLOUT_STREAMS;
    const bool summed = sums_rewards(plan);
#pragma unroll 1
    for (i32 s = 0; s < streams; s++) {
        if (!has_stream(args, summed, s)) continue;
        const i32 place = plan.streams[OUTCOME + s].place;
        const f64 term = stream_weight(plan, s) * values[s];
        if (place == PLACE_EVERY) to.every[to.every_count++] = term;
        if (place != PLACE_END || at_end) {
            to.last[to.last_count++] = term;
        } else {
            to.beyond = to.has_beyond ? to.beyond + term : term;
            to.has_beyond = true;
        }
        to.placed = to.placed || place != PLACE_EVERY;
        if (gate && s == 1) {
            violation = total_weight(args) * values[s];
            outside = place == PLACE_END && !at_end;
            to.gated = true;
            to.gated_every = place == PLACE_EVERY ? violation : 0.0;
            to.gated_last = outside ? 0.0 : violation;
        }
    }
    if (to.gated) {
        to.has_beyond = outside;
        to.beyond = violation;
    }
}

// Of a rollout, but of one that is zeroed: a thread a stream, then one thread puts them in order. The block meets at the end.
// (Own: how the caller has the rollout, always at one address in shared memory, which then takes no register.)
template <class Own> OUT_OF_LINE void rollout_terms(const Args& args, const Own& w, const Decision& decision, Terms& to) {
    const PlanConstants& plan = plan_of(args);
    if (is_first_thread()) to.lost = 0;
    if (w.kept.state & STATE_ZEROED) return;
    SHARED(f64, values, [ROLLOUT_STREAMS]);
    __syncthreads();
    if (const i32 own = (i32)threadIdx.x; !plan.joint && own < ROLLOUT_STREAMS && has_stream(args, plan, own)) {
        u32 lost = 0;
        values[own] = standardised_stream(args, w.i, own, w.kept, decision, &lost);
        note_lost(to.lost, lost);
    }
    __syncthreads();
    if (is_first_thread()) place_terms(args, w, values, to);
    __syncthreads();
}

#endif
