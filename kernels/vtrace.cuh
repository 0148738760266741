// V-trace (Espeholt et al. 2018, arXiv 1802.01561): advantages and targets corrected by clipped importance ratios. Twin of vtrace.rs.
#ifndef PASSRL_VTRACE_CUH
#define PASSRL_VTRACE_CUH
#include "gae.cuh"

// No sum is beyond it: so nothing that comes of finite input is NaN.
constexpr f64 MOST_VTRACE = 1e250;

// The importance ratios of the tokens in scope, in `lines`. The block meets at the end.
OUT_OF_LINE void vtrace_ratios(const Args& args, const Shaping& w) {
    const Array &policy = args.batch.logp_policy, &behavior = args.batch.logp_behavior;
    each_in_scope(w.scope, [&](i64 t, i64 line) {
        w.lines[line] = smaller(exp_of(load_f64(policy, at(w.e, policy, t)) - load_f64(behavior, at(w.e, behavior, t))), F32_LARGEST);
    });
    __syncthreads();
}
// From these, rewards in d and values in v: advantages in d, targets vs in v, a value a token in scope. The recursion is a plain sequence in f64, from the last: one
// warp walks it, a tile of 32 tokens at a time, whose inputs its lanes have read and prepared together; the other warps wait. The block meets at the end.
OUT_OF_LINE void vtrace_advantages(const Args& args, const Shaping& w) {
    const PlanConstants& plan = plan_of(args);
    if (warp() == 0) {
        f64 after = 0.0, value_after = bootstrap_of(args, w.i), target_after = value_after;
        // (A rollout has less than 2^31 tokens; what all lanes share is read again for each tile.)
        for (i32 end = (i32)lines_of_tokens(args, w); end > 0; end -= 32) {
            READ_AGAIN();
            // Lane p has the p-th token from the tile's end; the token after it is lane p - 1's, or of the tile before.
            const i32 t = end - 1 - lane();
            const bool there = t >= 0;
            const f64 reward = there ? w.d[t] : 0.0, v = there ? w.v[t] : 0.0, ratio = there ? w.lines[t] : 0.0;
            f64 next = __shfl_up_sync(WARP, v, 1);
            if (lane() == 0) next = value_after;
            value_after = __shfl_sync(WARP, v, 31);
            const f64 rho = smaller(ratio, plan.rho_clip);
            const f64 delta = rho * ((reward + plan.gamma * next) - v);
            const f64 coefficient = plan.gamma * (plan.lam * smaller(ratio, plan.c_clip));
            f64 own = 0.0;
            for (i32 p = 0; p < 32; p++) {
                after = clamped(__shfl_sync(WARP, delta, p) + __shfl_sync(WARP, coefficient, p) * after, -MOST_VTRACE, MOST_VTRACE);
                if (p == lane()) own = after;
            }
            const f64 target = v + own;
            next = __shfl_up_sync(WARP, target, 1);
            if (lane() == 0) next = target_after;
            target_after = __shfl_sync(WARP, target, 31);
            if (there) {
                w.d[t] = rho * ((reward + plan.gamma * next) - v);
                w.v[t] = target;
            }
        }
    }
    __syncthreads();
}
INLINE void vtrace(const Args& args, const Shaping& w) {
    rewards_and_values(args, w);
    vtrace_ratios(args, w);
    vtrace_advantages(args, w);
}

#endif
