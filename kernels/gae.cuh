// GAE over tokens or over chunks. Lines are what the scan runs over: tokens in scope, with `scan_mask` other than carry every token from the first in
// scope on, or chunks. Twin of gae.rs.
#ifndef PASSRL_GAE_CUH
#define PASSRL_GAE_CUH
#include "gaps.cuh"

// Do lines lie at every token from the first in scope on?
INLINE bool lines_spread(const PlanConstants& plan) { return plan.scan_mask != SCAN_MASK_CARRY; }

// Calls body(t, line) for the tokens whose own rewards and values take part.
template <class Body> INLINE void each_taking_part(const PlanConstants& plan, const Shaping& w, Body body) {
    const i64 first = w.scope.first;
    if (plan.scan_mask == SCAN_MASK_NONE) {
        for (i64 t = first + threadIdx.x; t < w.e.len; t += blockDim.x) body(t, t - first);
    } else {
        each_in_scope(w.scope, [&](i64 t, i64 line) { body(t, plan.scan_mask == SCAN_MASK_CARRY ? line : t - first); });
    }
}

// Rewards of a line a token in d: the caller's, or a_j on the last token of chunk j (f); less the KL. Values in v; 0 where a token takes part without its own.
// Returns how many lines there are. The block meets at the end.
template <class Own> OUT_OF_LINE i64 rewards_and_values(const Args& args, const Own& w) {
    const PlanConstants& plan = plan_of(args);
    const Batch& batch = args.batch;
    const bool spread = lines_spread(plan);
    const i64 first = w.scope.first, n = spread ? w.e.len - first : w.scope.count;
    const bool given = is_given(batch.token_rewards);
    for (i64 j = threadIdx.x; j < n; j += blockDim.x) w.d[j] = given || !spread ? 0.0 : w.lines[j];
    __syncthreads();
    if (given) {
        each_taking_part(plan, w, [&](i64 t, i64 line) { w.d[line] = (f64)load_f32(batch.token_rewards, at(w.e, batch.token_rewards, t)); });
    } else if (w.kept.state & STATE_EVERY_TOKEN) {
        each_in_scope(w.scope, [&](i64 t, i64 line) { w.d[spread ? t - first : line] = w.f[line]; });
    } else if (spread || !has_holes(w.scope)) {
        for (i64 j = threadIdx.x; j < (i64)w.kept.chunks; j += blockDim.x) w.d[(i64)w.last[j] - first] = w.f[j];
    } else {
        // The line of a chunk's last token: v keeps each token's for a moment.
        i64* const line_of = (i64*)w.v;
        each_in_scope(w.scope, [&](i64 t, i64 line) { line_of[t] = line; });
        __syncthreads();
        for (i64 j = threadIdx.x; j < (i64)w.kept.chunks; j += blockDim.x) w.d[line_of[w.last[j]]] = w.f[j];
    }
    __syncthreads();
    if (takes_kl(args, KL_PLACE_REWARD)) each_in_scope(w.scope, [&](i64 t, i64 line) { w.d[spread ? t - first : line] -= kl_taken(args, w, t); });
    if (spread) take_gap_kl(args, w, w.d);
    if (spread || !is_given(batch.values)) {
        for (i64 j = threadIdx.x; j < n; j += blockDim.x) w.v[j] = 0.0;
        __syncthreads();
    }
    if (is_given(batch.values)) each_taking_part(plan, w, [&](i64 t, i64 line) { w.v[line] = (f64)load_f32(batch.values, at(w.e, batch.values, t)); });
    __syncthreads();
    return n;
}

// From lines at every token to those in scope, of d and v.
OUT_OF_LINE void gather_lines(const Args& args, const Shaping& w) {
    if (!lines_spread(plan_of(args))) return;
    gather(w.scope, w.d);
    gather(w.scope, w.v);
}

// Value after the rollout's last line.
INLINE f64 bootstrap_of(const Args& args, i64 i) { return is_given(args.batch.bootstrap) ? (f64)item_f32(args.batch.bootstrap, i) : 0.0; }

// From rewards in d and values in v, n lines: advantages in d, returns in v. The block meets at the end.
OUT_OF_LINE void gae_advantages(const Args& args, const Shaping& w, i64 n, ScanTops& tops) {
    const PlanConstants& plan = plan_of(args);
    const f64 bootstrap = bootstrap_of(args, w.i);
    // Each delta reads its own reward and two values, and stands where its reward was.
    for (i64 t = threadIdx.x; t < n; t += blockDim.x) w.d[t] = (w.d[t] + plan.gamma * (t + 1 < n ? w.v[t + 1] : bootstrap)) - w.v[t];
    __syncthreads();
    SHARED(f64, powers, [33]);
    // (Asked again where it is needed: no register keeps it over a scan.)
    auto apart = [&] { return plan.lam_returns >= 0.0; };
    auto own = [&] { return is_given(args.batch.rollout_lam) || plan.lam_length_alpha > 0.0; };
    if (apart()) {
        if (is_first_thread()) decay_powers(plan.gamma * plan.lam_returns, powers);
        __syncthreads();
        scan_lines(n, powers, tops, [&](i64 t) { return w.d[t]; }, [&](i64 t, f64 a) { w.v[t] += a; });
    }
    if (own() && is_first_thread()) {
        f64 lam;
        if (is_given(args.batch.rollout_lam)) lam = (f64)item_f32(args.batch.rollout_lam, w.i);
        else lam = larger(0.0, 1.0 - 1.0 / (plan.lam_length_alpha * (f64)w.kept.count));
        decay_powers(plan.gamma * lam, powers);
    }
    __syncthreads();
    scan_lines(n, own() ? (const f64*)powers : plan.decay, tops, [&](i64 t) { return w.d[t]; }, [&](i64 t, f64 a) {
        w.d[t] = a;
        if (!apart()) w.v[t] += a;
    });
}

// How many lines a rollout with tokens in scope has.
template <class Own> INLINE i64 lines_of_tokens(const Args& args, const Own& w) { return lines_spread(plan_of(args)) ? w.e.len - w.scope.first : w.scope.count; }

// Advantages in d, returns in v: a value a token in scope. (In line, as what it calls needs the registers.)
INLINE void gae(const Args& args, const Shaping& w, ScanTops& tops) {
    if (w.scope.count == 0) return;
    rewards_and_values(args, w);
    gae_advantages(args, w, lines_of_tokens(args, w), tops);
    gather_lines(args, w);
}

// The units are chunks: r = a_j, V at the chunk's first token in scope. A value a chunk.
OUT_OF_LINE void rewards_and_values_of_chunks(const Args& args, const Shaping& w) {
    const Array& values = args.batch.values;
    const i64 k = w.kept.chunks;
    const bool every = w.kept.state & STATE_EVERY_TOKEN;
    for (i64 j = threadIdx.x; j < k; j += blockDim.x) {
        w.d[j] = w.f[j];
        if (every && is_given(values)) continue;
        const i64 t = is_given(values) ? first_in(w.scope, j == 0 ? w.scope.first : (i64)w.last[j - 1] + 1, (i64)w.last[j] + 1) : -1;
        w.v[j] = t >= 0 ? (f64)load_f32(values, at(w.e, values, t)) : 0.0;
    }
    if (every && is_given(values)) each_in_scope(w.scope, [&](i64 t, i64 j) { w.v[j] = (f64)load_f32(values, at(w.e, values, t)); });
    __syncthreads();
}
INLINE void gae_over_chunks(const Args& args, const Shaping& w, ScanTops& tops) {
    rewards_and_values_of_chunks(args, w);
    gae_advantages(args, w, w.kept.chunks, tops);
}

#endif
