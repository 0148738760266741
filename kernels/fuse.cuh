// Advantage Fusion (eq. 4): the standardised streams of a rollout become one value a chunk. Twin of fuse.rs and of `fuse` in shape.rs.
#ifndef PASSRL_FUSE_CUH
#define PASSRL_FUSE_CUH
#include "group_stats.cuh"
#include "shaping.cuh"

// What the fusion of a rollout needs beside its terms. In shared memory.
struct FusedStreams {
    // Of each process list: its set, how its values are standardised, its weight, whether NaN is a value left out.
    const Standard* standards[MAX_PROCESS];
    Apply applies[MAX_PROCESS];
    f64 weights[MAX_PROCESS];
    bool skip[MAX_PROCESS];
    // `chunk_value = mean`: grids that take in the set's values and the rollout's own.
    Grid grids[MAX_PROCESS];
    i32 streams;
    // `pooled`: outcome and format, gained by the last chunk.
    f64 gains[2];
    bool gained[2];
    ShapedReward shaping;
    // Deviations that the block has seen lost and not yet counted (`add_noted`).
    u32 lost;
};

// Sums of the rollout's own elements of a set, which is told here as well: what is asked for over the block's sums takes no register.
struct OwnSums {
    Sums sums;
    i32 slot;
};
INLINE OwnSums& shared_own() {
    SHARED(OwnSums, own_of_rollout, [1]);
    return own_of_rollout[0];
}
// The extremes of that set, asked for where they are needed.
struct OwnExtremes {
    INLINE Extremes operator()() const { return shared_decision().standards[shared_own().slot].extremes; }
    INLINE operator Extremes() const { return (*this)(); }
};
// As `block_own_sums`, for the thread that reads them. The block.
template <class Own> OUT_OF_LINE void own_sums(const Args& args, const Own& w) {
    const PlanConstants& plan = plan_of(args);
    OwnSums& own = shared_own();
    auto pooled = [&] { return own.slot == 1 && pools(plan); };
    if (is_first_thread()) own.sums = no_sums();
    if (!counts_in_stats(w.kept)) return;
    if (own.slot < plan.sets && (w.kept.state & STATE_HAS_PROCESS)) {
        const Sums listed = list_sums(args, w, pooled() ? 0 : own.slot, own.slot, OwnExtremes{});
        if (is_first_thread()) own.sums = listed;
    }
    if (!pooled()) return;
#pragma unroll 1
    for (i32 s = 0; s < 2; ++s) {
        const Value v = rollout_value(args, plan, s, w.i);
        if (v.there && is_first_thread()) sums_add(own.sums, one_sum(plan, v.x, 1, 1, shared_decision().standards[1].extremes));
    }
}

// The same as one thread has it, when they are there. Returns what it has seen lost.
OUT_OF_LINE u32 resolve_own(const Standard& standard, bool counts, Apply& to) {
    u32 lost = 0;
    to = resolve(standard, standard.mean, counts, shared_own().sums, &lost);
    return lost;
}

// How the rollout's values of set `slot` are standardised, in to[list], by one thread. Returns what this thread has seen lost. The block.
// (In line: what the callers keep over the sums is little, and a level of calls less.)
template <class Own> INLINE u32 block_resolve(const Args& args, const Own& w, const Decision& decision, i32 slot, Apply* to, i32 list) {
    const PlanConstants& plan = plan_of(args);
    if (needs_own(decision.standards[slot], plan.streams[plan.slot_row[slot]], w.counts)) {
        __syncthreads();
        if (is_first_thread()) shared_own().slot = slot;
        __syncthreads();
        own_sums(args, w);
    }
    return is_first_thread() ? resolve_own(decision.standards[slot], w.counts, to[list]) : 0;
}
// Value of process list p at token t, kind kl.
INLINE f32 token_value(const Args& args, const Shaping& w, const FusedStreams& fusion, i32 p, i64 t) {
    const PlanConstants& plan = plan_of(args);
    const f32 x = signal_value(args, plan, w.e, p, t);
    return plan.shaped ? shaped(fusion.shaping, x) : x;
}

// Resolves every process stream of a rollout that is not zeroed and whose format is not wrong. What is lost is noted there. The block meets at the end.
template <class Own> OUT_OF_LINE void prepare_fusion(const Args& args, const Own& w, const Terms& terms, FusedStreams& to) {
    const PlanConstants& plan = plan_of(args);
    const Decision& decision = shared_decision();
    if (is_first_thread()) to.lost = 0;
    if ((w.kept.state & STATE_ZEROED) || terms.gated) return;
    __syncthreads();
    if (is_first_thread()) {
        const bool process = (w.kept.state & STATE_HAS_PROCESS) && w.kept.chunks > 0;
        to.streams = !process ? 0 : plan.joint ? 1 : args.batch.num_process;
        to.gained[0] = to.gained[1] = false;
        if (plan.shaped) to.shaping = shaped_reward(args, plan, w.i);
    }
    __syncthreads();
    if (plan.fusion == FUSION_POOLED && w.kept.chunks > 0) {
        // (The process stream's is the same, and comes after.)
        note_lost(to.lost, block_resolve(args, w, decision, 1, to.applies, 0));
        __syncthreads();
        if (threadIdx.x < 2) {
            const i32 s = (i32)threadIdx.x;
            u32 lost = 0;
            const Value x = rollout_value(args, plan, s, w.i);
            to.gained[s] = x.there;
            if (x.there) to.gains[s] = plan.streams[OUTCOME + s].weight * standardised(decision.standards[1], to.applies[0], x.x, &lost);
            note_lost(to.lost, lost);
        }
        __syncthreads();
    }
    // (Unrolled, so that no register keeps the list's number over the sums.)
#pragma unroll
    for (i32 p = 0; p < MAX_PROCESS; p++) {
        if (p >= to.streams || is_given(args.batch.step_group)) break;
        note_lost(to.lost, block_resolve(args, w, decision, plan.joint ? 1 : p, to.applies, p));
        if (is_first_thread()) {
            to.standards[p] = &decision.standards[plan.joint ? 1 : p];
            // The joint set's result is not weighted again: R carries the weights (reward_shaping).
            to.weights[p] = plan.shaped ? 1.0 : plan.streams[p].weight;
            to.skip[p] = p > 0 && plan.streams[p].missing == MISSING_EXCLUDE;
        }
    }
    __syncthreads();
}

// `chunk_value = mean`: the maxima of the rollout's token values set the grids; a rollout outside the set may hold larger values than the set. Where scope has
// holes and values are listed by line, v keeps each token's line.
OUT_OF_LINE void prepare_means(const Args& args, const Shaping& w, FusedStreams& fusion) {
    const PlanConstants& plan = plan_of(args);
    i64* const line_of = (i64*)w.v;
    for (i32 p = 0; p < fusion.streams; p++) {
        const f32* const listed = list_of<f32>(args, args.work.token_values, plan.shaped ? 1 : p, w.e);
        i32 absmax = 0;
        each_in_scope(w.scope, [&](i64 t, i64 line) {
            const f32 x = plan.kind == KIND_KL ? token_value(args, w, fusion, p, t) : listed[line];
            if (!is_nan(x)) absmax = larger(absmax, absolute_key(x));
            line_of[t] = line;
        });
        absmax = block_max(absmax, 0);
        const Standard& standard = *fusion.standards[p];
        if (is_first_thread()) fusion.grids[p] = grid_of(standard.grid.bits, larger(absmax, standard.extremes.absmax));
    }
    __syncthreads();
}

// One value of a mean's sum.
INLINE void add_to_mean(const Grid& grid, f32 x, i64& q, i64& n) {
    if (is_nan(x)) return;
    q += quantize(grid, x);
    n += 1;
}
INLINE f64 mean_of_chunk(FusedStreams& fusion, i32 p, i64 q, i64 n) {
    if (n == 0) return 0.0;
    u32 lost = 0;
    const f64 s = standardised_mean(*fusion.standards[p], fusion.applies[p], ((f64)q / (f64)n) * fusion.grids[p].down, &lost);
    note_lost(fusion.lost, lost);
    return s;
}

// F of a chunk from its process part: the terms in the table's order (of the last chunk those placed there among them), then what it gains.
INLINE f64 chunk_value(const FusedStreams& fusion, const Terms& terms, bool last, f64 process) {
    f64 f = process;
    if (last && terms.placed) {
#pragma unroll 1
        for (i32 s = 0; s < terms.last_count; s++) f += terms.last[s];
    } else {
#pragma unroll 1
        for (i32 s = 0; s < terms.every_count; s++) f += terms.every[s];
    }
    for (i32 s = 0; s < 2 && last; s++)
        if (fusion.gained[s]) f += fusion.gains[s];
    return f;
}

INLINE void store_chunk(const Args& args, const Shaping& w, const FusedStreams& fusion, const Terms& terms, i64 j, f64 process) {
    // The process part alone is credited and divided.
    if (plan_of(args).divide_scope == DIVIDE_PROCESS) w.d[j] = process;
    w.f[j] = chunk_value(fusion, terms, j + 1 == (i64)w.kept.chunks, process);
}

// Adds a stream's part to that of the streams before it.
INLINE f64 joined(i32 p, f64 sum, f64 part) { return p == 0 ? part : sum + part; }

// Process part of chunk j, whose last token is t.
INLINE f64 process_part(const Args& args, const Shaping& w, FusedStreams& fusion, i64 j, i64 t) {
    const PlanConstants& plan = plan_of(args);
    const bool stepped = is_given(args.batch.step_group);
    f64 sum = 0.0;
#pragma unroll 1
    for (i32 p = 0; p < fusion.streams; p++) {
        FORGET(p);
        if (stepped) {
            const u32 step = list_of<u32>(args.work.chunk_steps, w.e)[j];
            sum = joined(p, sum, plan.streams[p].weight * list_of<f64>(args, args.work.stepped, p, w.e)[step]);
            continue;
        }
        f32 x;
        if (plan.kind == KIND_KL) x = token_value(args, w, fusion, p, t);
        else if (w.scores) x = w.scores[j];
        else x = list_of<f32>(args, w.kept.state & STATE_ONE_LIST ? args.work.elements : args.work.values, plan.shaped ? 1 : p, w.e)[j];
        u32 lost = 0;
        const f64 s = fusion.skip[p] && is_nan(x) ? 0.0 : standardised(*fusion.standards[p], fusion.applies[p], x, &lost);
        note_lost(fusion.lost, lost);
        sum = joined(p, sum, fusion.weights[p] * s);
    }
    return sum;
}

// Means of chunk j as the warp's first lane has them, a warp a chunk: integers add in any order.
INLINE f64 mean_part(const Args& args, const Shaping& w, FusedStreams& fusion, i64 j) {
    const PlanConstants& plan = plan_of(args);
    const i64* const line_of = (const i64*)w.v;
    const i64 begin = j == 0 ? w.scope.first : (i64)w.last[j - 1] + 1, end = (i64)w.last[j] + 1;
    f64 sum = 0.0;
    for (i32 p = 0; p < fusion.streams; p++) {
        const f32* const listed = list_of<f32>(args, args.work.token_values, plan.shaped ? 1 : p, w.e);
        i64 q = 0, n = 0;
        for (i64 t = begin + lane(); t < end; t += 32) {
            if (!contains(w.scope, t)) continue;
            add_to_mean(fusion.grids[p], plan.kind == KIND_KL ? token_value(args, w, fusion, p, t) : listed[line_of[t]], q, n);
        }
        q = warp_sum(q);
        n = warp_sum(n);
        const f64 s = lane() == 0 ? mean_of_chunk(fusion, p, q, n) : 0.0;
        sum = joined(p, sum, fusion.weights[p] * s);
    }
    return sum;
}

// Are chunk values means over a chunk's tokens?
INLINE bool fuses_means(const Args& args, const Shaping& w, const Terms& terms, const FusedStreams& fusion) {
    return plan_of(args).chunk_value == CHUNK_VALUE_MEAN && !terms.gated && fusion.streams > 0;
}
// a_j of such chunks, in f, after `prepare_fusion`. The block meets at the end.
OUT_OF_LINE void fuse_means(const Args& args, const Shaping& w, const Terms& terms, FusedStreams& fusion) {
    prepare_means(args, w, fusion);
    if (w.kept.state & STATE_EVERY_TOKEN) {
        each_in_scope(w.scope, [&](i64 t, i64 j) {
            f64 sum = 0.0;
            for (i32 p = 0; p < fusion.streams; p++) {
                i64 q = 0, n = 0;
                add_to_mean(fusion.grids[p], token_value(args, w, fusion, p, t), q, n);
                sum = joined(p, sum, fusion.weights[p] * mean_of_chunk(fusion, p, q, n));
            }
            store_chunk(args, w, fusion, terms, j, sum);
        });
    } else {
        for (i64 j = warp(); j < (i64)w.kept.chunks; j += warps()) {
            const f64 sum = mean_part(args, w, fusion, j);
            if (lane() == 0) store_chunk(args, w, fusion, terms, j, sum);
        }
    }
    __syncthreads();
    add_noted(args, fusion.lost);
}

// a_j = F at the chunk's last token, in f, after `prepare_fusion`. The block meets at the end.
OUT_OF_LINE void fuse(const Args& args, const Shaping& w, const Terms& terms, FusedStreams& fusion) {
    auto chunks = [&] { return (i64)w.kept.chunks; };
    if (terms.gated) {
        for (i64 j = threadIdx.x; j < chunks(); j += blockDim.x) w.f[j] = j + 1 == chunks() ? terms.gated_last : terms.gated_every;
        __syncthreads();
        return;
    }
    // (What was noted before has been counted when the first is noted here.)
    __syncthreads();
    auto put = [&](i64 j, i64 t) { store_chunk(args, w, fusion, terms, j, process_part(args, w, fusion, j, t)); };
    if (w.kept.state & STATE_EVERY_TOKEN) {
        each_in_scope(w.scope, [&](i64 t, i64 j) { put(j, t); });
    } else {
        for (i64 j = threadIdx.x; j < chunks(); j += blockDim.x) put(j, (i64)w.last[j]);
    }
    __syncthreads();
    add_noted(args, fusion.lost);
}

#endif
