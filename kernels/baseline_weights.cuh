// Weights of `token_baseline` (src/backend/cpu/token_baseline.rs): W of each token in scope, the sum of w up to and with it, in order.
#ifndef PASSRL_BASELINE_WEIGHTS_CUH
#define PASSRL_BASELINE_WEIGHTS_CUH
#include "steps.cuh"

// Keeps W, a value a token in scope; returns how many tokens have a bad input. The block.
OUT_OF_LINE i64 keep_baseline_weights(const Args& args, const Extent& e, const Scope& scope) {
    const Batch& batch = args.batch;
    f64* to = list_of<f64>(args.work.baseline_weights, e);
    i64 bad = 0, count = 0;
    for (i64 tile = scope.first & ~(i64)31; tile < scope.end; tile += blockDim.x) {
        i64 t = tile + threadIdx.x;
        bool in = contains(scope, t);
        Rank rank = block_rank(in);
        if (in) {
            f64 logp = load_f64(batch.logp_policy, at(e, batch.logp_policy, t)), q = load_f64(batch.sum_pi_squared, at(e, batch.sum_pi_squared, t));
            f64 rho = is_given(batch.token_ratio) ? load_f64(batch.token_ratio, at(e, batch.token_ratio, t)) : 1.0;
            bad += is_finite(logp) && is_finite(q) && is_finite(rho) ? 0 : 1;
            f64 p = clamped(exp_of(logp), -F32_LARGEST, F32_LARGEST);
            q = clamped(q, -F32_LARGEST, F32_LARGEST);
            rho = clamped(rho, -F32_LARGEST, F32_LARGEST);
            to[count + rank.before] = ((1.0 - 2.0 * p) + q) * (rho * rho);
        }
        count += rank.total;
    }
    bad = block_sum(bad);
    __syncthreads();
    // A plain sequence of additions is part of the contract, so one thread makes it.
    if (is_first_thread()) {
        f64 sum = 0.0;
        for (i64 k = 0; k < count; ++k) to[k] = sum += to[k];
    }
    __syncthreads();
    return bad;
}

#endif
