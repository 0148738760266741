// KL in the reward: a divergence from the reference policy a token in scope, kept a token or as the exact sum of the rollout (src/backend/cpu/kl_reward.rs).
#ifndef PASSRL_KL_REWARD_CUH
#define PASSRL_KL_REWARD_CUH
#include "pieces_rows.cuh"
#include "steps.cuh"

// d = policy - reference, not below `-kl_log_ratio_clamp`; its divergence within +-`kl_clamp`, rounded to f32. NaN where a log-probability is not finite.
INLINE f32 divergence(const PlanConstants& plan, f64 policy, f64 reference) {
    if (!is_finite(policy) || !is_finite(reference)) return f32_of(0x7fc00000u);
    f64 d = larger(policy - reference, -plan.kl_log_ratio_clamp);
    f64 kl = d;
    if (plan.kl_in_reward == KL_K2) kl = (d * d) * 0.5;
    else if (plan.kl_in_reward == KL_K3) kl = exp_minus_linear(d);
    else if (plan.kl_in_reward == KL_ABS) kl = absolute(d);
    return (f32)clamped(kl, -plan.kl_clamp, plan.kl_clamp);
}
OUT_OF_LINE f32 token_kl(const Args& args, const Extent& e, i64 t) {
    const PlanConstants& plan = plan_of(args);
    const Batch& batch = args.batch;
    return divergence(plan, load_f64(batch.logp_policy, at(e, batch.logp_policy, t)), load_f64(batch.logp_reference, at(e, batch.logp_reference, t)));
}

// Of a piece the sum of its rollout's: the largest is told, then the sum on the grid that all pieces' largest sets; then it is known. A piece with a bad value is a finding of
// its own; `bad`: how many it has. The block.
OUT_OF_LINE i64 keep_joint_kl(const Args& args, i64 i, const Extent& e, const Scope& scope, i64 bad) {
    const PlanConstants& plan = plan_of(args);
    const Unit& unit = unit_of(args, i);
    f32 sum = 0.0f;
    if (joint_stage(args) == JOINT_EDGES) {
        i32 most = 0;
        for (i64 t = scope.first + threadIdx.x; t < scope.end; t += blockDim.x)
            if (contains(scope, t)) most = larger(most, absolute_key(token_kl(args, e, t)));
        most = block_max(most, 0);
        if (is_first_thread()) add_to(row_at(rows_of(args, unit), unit.index) + ROW_MOST, most);
    } else if (unit.most_kl < KEY_INFINITE) {
        const Grid grid = grid_of(sum_bits(unit.whole), unit.most_kl);
        if (joint_stage(args) == JOINT_OWN) {
            i64 q = 0;
            for (i64 t = scope.first + threadIdx.x; t < scope.end; t += blockDim.x)
                if (contains(scope, t)) q += quantize(grid, token_kl(args, e, t));
            q = block_sum(q);
            if (is_first_thread()) add_to(own_kl(args, unit), q);
        } else {
            sum = (f32)((f64)*own_kl(args, unit) * grid.down);
            // (Of those that come to so much each has the finding, and the first counts it.)
            if (bad == 0 && !is_finite(sum)) bad = 1;
            if (!is_finite(sum)) sum = 0.0f;
        }
    }
    if (is_first_thread()) ((f32*)args.work.kl_sums)[i] = bad > 0 ? 0.0f : sum;
    __syncthreads();
    return bad;
}

// Keeps the KL of a rollout's tokens, or the sum of those in scope; returns how many bad ones there are: log-probabilities, KL or a sum beyond f32. The block.
OUT_OF_LINE i64 keep_kl(const Args& args, i64 i, const Extent& e, const Scope& scope) {
    const PlanConstants& plan = plan_of(args);
    i64 bad = 0;
    if (plan.kl_by_token) {
        f32* to = list_of<f32>(args.work.kl, e);
        // Tokens out of scope pay for it too where they take part with rewards of their own.
        bool gaps = (scope.count > 0 || args.work.joint) && plan.spreads && plan.scan_mask == SCAN_MASK_NONE && plan.kl_place == KL_PLACE_REWARD;
        const i64 line = line_of(args, i, scope.first, scope.count, e.len);
        for (i64 t = threadIdx.x; t < e.len; t += blockDim.x) {
            f32 kl = token_kl(args, e, t);
            to[t] = kl;
            bad += !is_finite(kl) && (contains(scope, t) || (gaps && t >= line)) ? 1 : 0;
        }
        return block_sum(bad);
    }
    for (i64 t = scope.first + threadIdx.x; t < scope.end; t += blockDim.x) {
        bad += contains(scope, t) && !is_finite(token_kl(args, e, t)) ? 1 : 0;
    }
    bad = block_sum(bad);
    if (args.work.joint) return keep_joint_kl(args, i, e, scope, bad);
    f32 sum = 0.0f;
    if (bad == 0) {
        sum = block_exact_sum(scope, e.len, [&](i64 t) { return token_kl(args, e, t); });
        bad = is_finite(sum) ? 0 : 1;
    }
    // The finding is made: the outcome is no second one.
    if (is_first_thread()) ((f32*)args.work.kl_sums)[i] = bad > 0 ? 0.0f : sum;
    __syncthreads();
    return bad;
}

#endif
