// Primitives on token-shaped arrays: the stages of a run on their own, a block a rollout. The constants that a plan would have kept lie in the workspace, put there by
// the first launch. Twin of primitives/tokens.rs.
#ifndef PASSRL_PRIMITIVES_CUH
#define PASSRL_PRIMITIVES_CUH
#include "gae.cuh"
#include "kl_reward.cuh"
#include "signal.cuh"
#include "table.cuh"
#include "whiten.cuh"

struct PrimitiveRoom {
    Shaping work;
    ScanTops tops;
};

INLINE bool is_absent(const Batch& batch, i64 i) { return is_given(batch.absent) && item_flag(batch.absent, i); }

// Scope of rollout i by mask and absence. The block.
INLINE Scope mask_scope(const Args& args, i64 i, const Extent& e) {
    const Batch& batch = args.batch;
    if (is_absent(batch, i)) return span_scope(0, 0);
    if (!is_given(batch.mask)) return span_scope(0, e.len);
    u32* const bits = scope_words(args, i, e);
    for (i64 tile = 0; tile < e.len; tile += blockDim.x) {
        const i64 t = tile + threadIdx.x;
        const u32 votes = __ballot_sync(WARP, t < e.len && load_flag(batch.mask, at(e, batch.mask, t)));
        if (lane() == 0 && t < e.len) bits[t / 32] = votes;
    }
    return block_scope_of(bits, e.len);
}

// Values of the tokens in scope, f32 as f64, to a line; is one of them not finite? The block meets at the end.
template <class Value> INLINE bool take_values(const Scope& scope, f64* to, Value value) {
    bool bad = false;
    each_in_scope(scope, [&](i64 t, i64 line) {
        const f32 x = value(t);
        bad |= !is_finite(x);
        to[line] = (f64)x;
    });
    return __syncthreads_or(bad);
}
INLINE bool take_array(const Shaping& w, const Array& a, f64* to) {
    return take_values(w.scope, to, [&](i64 t) { return load_f32(a, at(w.e, a, t)); });
}

// Unrounded, so that returns kept in f64 and then divided have the bits of one run.
INLINE bool take_wide(const Shaping& w, const Array& a, f64* to) {
    bool bad = false;
    each_in_scope(w.scope, [&](i64 t, i64 line) {
        const f64 x = load_f64(a, at(w.e, a, t));
        bad |= !is_finite(x);
        to[line] = x;
    });
    return __syncthreads_or(bad);
}

INLINE bool take_gae(const Args& args, const Shaping& w) {
    const bool rewards = take_array(w, args.batch.token_rewards, w.d), values = take_array(w, args.batch.values, w.v);
    return rewards || values || (w.scope.count > 0 && !is_finite(bootstrap_of(args, w.i)));
}
INLINE bool take_kl(const Args& args, const Shaping& w) {
    const PlanConstants& plan = plan_of(args);
    const Array& rewards = args.batch.token_rewards;
    bool bad = false;
    each_in_scope(w.scope, [&](i64 t, i64 line) {
        const f32 kl = token_kl(args, w.e, t), reward = is_given(rewards) ? load_f32(rewards, at(w.e, rewards, t)) : 0.0f;
        bad |= !is_finite(kl) || !is_finite(reward);
        w.d[line] = (f64)reward - plan.kl_coef * (f64)kl;
    });
    return __syncthreads_or(bad);
}

// A line of values to its tokens, 0 elsewhere in the rollout's row.
INLINE void write_line(const Args& args, const Array& to, const Shaping& w, const f64* values) {
    u64 none = 0;
    const i64 lead = sector_lead(to, at(w.e, to, 0), token_stride(w.e, to));
    each_slot(w.e.len, lead, w.scope, Lines{true, 0, w.scope.count}, [&](i64 j) { return values[j]; }, [&](i64 t, bool, f64 x) { store(to, at(w.e, to, t), x, none); });
    if (plan_of(args).fill_padding) pad(args, to, w.e);
}
INLINE void write_ends_of(const Args& args, const Array& to) {
    if (is_given(to) && plan_of(args).fill_padding) pad_ends(args, to);
}

// Rollout i: its line in d (of gae returns in v), or zeros where a value is bad. The block meets at the end; false: bad.
INLINE bool primitive_line(const Args& args, PrimitiveRoom& room) {
    const PlanConstants& plan = plan_of(args);
    const Shaping& w = room.work;
    const i64 n = w.scope.count;
    bool bad;
    switch (args.primitive) {
        case PRIMITIVE_GAE: bad = take_gae(args, w); break;
        case PRIMITIVE_OPD: bad = take_values(w.scope, w.d, [&](i64 t) { return signal_value(args, plan, w.e, 0, t); }); break;
        case PRIMITIVE_KL: bad = take_kl(args, w); break;
        case PRIMITIVE_DIVIDE: bad = take_wide(w, args.batch.token_rewards, w.d); break;
        default: bad = take_array(w, args.batch.token_rewards, w.d); break;
    }
    if (bad) {
        for (i64 j = threadIdx.x; j < n; j += blockDim.x) w.d[j] = w.v[j] = 0.0;
        __syncthreads();
    } else if (args.primitive == PRIMITIVE_RETURNS) {
        scan_lines(n, plan.decay, room.tops, [&](i64 t) { return w.d[t]; }, [&](i64 t, f64 g) { w.d[t] = g; });
    } else if (args.primitive == PRIMITIVE_GAE) {
        gae_advantages(args, w, n, room.tops);
    } else if (args.primitive == PRIMITIVE_DIVIDE) {
        for (i64 j = threadIdx.x; j < n; j += blockDim.x) w.d[j] = w.d[j] * power_at(plan.k, n - j);
        __syncthreads();
    }
    return !bad;
}

// Keeps what the whitening's later passes need of a rollout, and takes its maxima into the batch's. The block.
INLINE void keep_for_whitening(const Args& args, const Shaping& w, bool good) {
    const Batch& batch = args.batch;
    const bool out = is_absent(batch, w.i) || (is_given(batch.in_stats) && !item_flag(batch.in_stats, w.i));
    Rollout kept = w.kept;
    kept.state = (out ? STATE_OUT_OF_STATS : 0) | (good ? 0 : STATE_ZEROED);
    Extremes found = no_extremes();
    for (i64 j = threadIdx.x; j < w.scope.count; j += blockDim.x) extremes_push(found, (f32)w.d[j]);
    found = block_extremes(found);
    if (!is_first_thread()) return;
    rollout_of(args, w.i) = kept;
    if (whitens(kept)) max_extremes_to(args, whiten_keys(args), found);
}

// The constants to the workspace; counts and keys to their beginning. One block.
extern "C" __global__ void __launch_bounds__(MOST_THREADS, 2) passrl_primitive_start(const __grid_constant__ PrimitiveStart start) {
    const u64* const from = (const u64*)&start.plan;
    for (u32 w = threadIdx.x; w < sizeof(PlanConstants) / 8; w += blockDim.x) ((u64*)start.constants)[w] = from[w];
    for (u32 w = threadIdx.x; w < sizeof(Counts) / 8; w += blockDim.x) ((u64*)start.counts)[w] = 0;
    if (threadIdx.x < 4) ((i32*)start.keys)[threadIdx.x] = KEY_EMPTY;
    if (threadIdx.x < 6) ((i64*)start.words)[threadIdx.x] = 0;
}

// Do all extents fit? A thread a rollout.
extern "C" __global__ void __launch_bounds__(MOST_THREADS, 2) passrl_primitive_extents(const __grid_constant__ Args given) {
    const Args& args = open_args(given);
    const i64 i = (i64)blockIdx.x * blockDim.x + threadIdx.x;
    if (i < args.batch.rollouts && extent(args, i).bad) atomicOr(&counts_of(args).bad_offsets, 1u);
}

// A block a rollout. Whitening: its first pass, which writes nothing.
extern "C" __global__ void __launch_bounds__(MOST_THREADS, 2) passrl_primitive_tokens(const __grid_constant__ Args given) {
    const Args& args = open_args(given);
    SHARED(PrimitiveRoom, primitive_room, [1]);
    PrimitiveRoom& room = primitive_room[0];
    const Outputs& o = args.outputs;
    const i64 i = blockIdx.x;
    const bool looks = args.primitive == PRIMITIVE_WHITEN;
    if (counts_of(args).bad_offsets) {
        zero_all(args, o.advantages);
        if (is_given(o.returns)) zero_all(args, o.returns);
        return;
    }
    if (i < args.batch.rollouts) {
        const Extent e = extent(args, i);
        const Scope scope = mask_scope(args, i, e);
        if (is_first_thread()) {
            const Rollout kept = Rollout{NO_GROUP, 0, 0, (u32)scope.first, (u32)scope.end, (u32)scope.count, is_absent(args.batch, i) ? (u32)ROLLOUT_ABSENT : 0u, 0};
            room.work = make_shaping(args, i, e, kept);
        }
        __syncthreads();
        const bool good = primitive_line(args, room);
        if (looks) {
            keep_for_whitening(args, room.work, good);
        } else {
            write_line(args, o.advantages, room.work, room.work.d);
            if (is_given(o.returns)) write_line(args, o.returns, room.work, room.work.v);
        }
    }
    if (looks) return;
    write_ends_of(args, o.advantages);
    write_ends_of(args, o.returns);
}

extern "C" __global__ void __launch_bounds__(MOST_THREADS, 2) passrl_primitive_whiten_sums(const __grid_constant__ Args given) {
    const Args& args = open_args(given);
    const i64 i = blockIdx.x;
    if (counts_of(args).bad_offsets || i >= args.batch.rollouts) return;
    const Rollout kept = rollout_of(args, i);
    if (!whitens(kept)) return;
    const Grid grid = grid_of(STEP_BITS, load_extremes(args, whiten_keys(args), 0).absmax);
    const f64* const values = list_of<f64>(args.work.d, extent(args, i));
    Sums own = no_sums();
    for (i64 j = threadIdx.x; j < (i64)kept.count; j += blockDim.x) sums_push(own, grid, quantize(grid, (f32)values[j]), 1);
    own = block_sums(own);
    if (is_first_thread()) add_sums_to(whiten_words(args), own);
}

extern "C" __global__ void __launch_bounds__(MOST_THREADS, 2) passrl_primitive_whiten_write(const __grid_constant__ Args given) {
    const Args& args = open_args(given);
    SHARED(PrimitiveRoom, primitive_room, [1]);
    SHARED(Whitening, whitening, [1]);
    const i64 i = blockIdx.x;
    // The first pass has zeroed all where the offsets do not fit.
    if (counts_of(args).bad_offsets) return;
    if (i < args.batch.rollouts) {
        Shaping& w = primitive_room[0].work;
        if (is_first_thread()) {
            w = make_shaping(args, i, extent(args, i), rollout_of(args, i));
            whitening[0] = make_whitening(args);
        }
        __syncthreads();
        if (!(w.kept.state & STATE_ZEROED)) {
            for (i64 j = threadIdx.x; j < w.scope.count; j += blockDim.x) w.d[j] = whitened(whitening[0], w.d[j]);
            __syncthreads();
        }
        write_line(args, args.outputs.advantages, w, w.d);
    }
    write_ends_of(args, args.outputs.advantages);
}

#endif
