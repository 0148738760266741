// Credit: chunk values to advantages, by return-to-go and Divide-Length (eq. 7) or broadcast. Twin of credit.rs; GAE is in gae.cuh, V-trace in vtrace.cuh.
#ifndef PASSRL_CREDIT_CUH
#define PASSRL_CREDIT_CUH
#include "gaps.cuh"

// G in v, D in d: a value a chunk, from F in f. The block meets at the end.
OUT_OF_LINE void credit(const Args& args, const Shaping& w, const Terms& terms, ScanTops& tops) {
    const PlanConstants& plan = plan_of(args);
    const i64 k = w.kept.chunks;
    const Array& rewards = args.batch.token_rewards;
    // f holds process + terms, the chunk values; `fuse` has left the process part in d. A wrong format has none.
    const bool apart = plan.divide_scope == DIVIDE_PROCESS && plan.fusion == FUSION_ADVANTAGE;
    auto value = [&](i64 j) { return !apart ? w.f[j] : terms.gated ? 0.0 : w.d[j]; };
    // A place other than every is refused with `divide_scope = process`.
    const f64 rest = !apart ? 0.0 : terms.gated ? terms.gated_every : sum_of_terms(terms);
    const f64* const divisors = (const f64*)plan.divisors + (plan.max_rollout_tokens - k);
    auto result = [&](i64 j, f64 g) {
        const f64 d = plan.k == 0.0 ? g : g * divisors[j];
        w.v[j] = apart ? g + rest : g;
        w.d[j] = apart ? d + rest : d;
    };
    const bool own_rewards = is_given(rewards) || takes_kl(args, KL_PLACE_REWARD);
    if (!own_rewards && !plan.spreads) {
        if (plan.credit == CREDIT_RETURN_TO_GO) {
            scan_lines(k, plan.decay, tops, value, result);
        } else {
            for (i64 j = threadIdx.x; j < k; j += blockDim.x) result(j, value(j));
            __syncthreads();
        }
        return;
    }
    // `chunk = token`: line and chunk are one, and each token's reward gains its own.
    each_in_scope(w.scope, [&](i64 t, i64 j) {
        f64 g = value(j);
        if (is_given(rewards)) g += (f64)load_f32(rewards, at(w.e, rewards, t));
        if (takes_kl(args, KL_PLACE_REWARD)) g -= kl_taken(args, w, t);
        if (plan.spreads) w.lines[t - w.scope.first] = g;
        else w.v[j] = g;
    });
    __syncthreads();
    if (!plan.spreads) {
        auto line = [&](i64 j) { return w.v[j]; };
        if (plan.credit == CREDIT_RETURN_TO_GO) {
            scan_lines(k, plan.decay, tops, line, result);
        } else {
            for (i64 j = threadIdx.x; j < k; j += blockDim.x) result(j, line(j));
            __syncthreads();
        }
        return;
    }
    take_gap_kl(args, w, w.lines);
    const i64 n = k > 0 ? w.e.len - w.scope.first : 0;
    scan_lines(n, plan.decay, tops, [&](i64 j) { return w.lines[j]; }, [&](i64 j, f64 g) { w.lines[j] = g; });
    gather(w.scope, w.lines);
    for (i64 j = threadIdx.x; j < k; j += blockDim.x) result(j, w.lines[j]);
    __syncthreads();
}

#endif
