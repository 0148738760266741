// `scan_mask` other than carry: what tokens out of scope bring to the scan. Twin of gaps.rs.
#ifndef PASSRL_GAPS_CUH
#define PASSRL_GAPS_CUH
#include "findings.cuh"
#include "fuse.cuh"

struct GapRoom {
    Apply applies[MAX_PROCESS];
    ShapedReward shape;
    i32 streams;
    // Are tokens out of scope of the scan's own, with rewards of theirs?
    bool own, rewards;
};

// Rewards of the tokens out of scope, from the first in scope on, in `lines`; 0 in scope. The block meets at the end.
template <class Own> OUT_OF_LINE void gap_rewards(const Args& args, const Own& w, const Decision& decision, const Terms& terms) {
    const PlanConstants& plan = plan_of(args);
    if (w.scope.count == 0 && !args.work.joint) return;
    // (What all threads share stands in shared memory: it is asked for out of scope alone.)
    SHARED(GapRoom, room_of_gaps, [1]);
    GapRoom& room = room_of_gaps[0];
    __syncthreads();
    if (is_first_thread()) {
        const bool process = process_in_gaps(args, plan, w.kept) && !terms.gated;
        room.streams = !process ? 0 : plan.joint ? 1 : args.batch.num_process;
        room.own = plan.scan_mask == SCAN_MASK_NONE;
        room.rewards = room.own && is_given(args.batch.token_rewards) && plan.credit == CREDIT_RETURN_TO_GO;
        if (plan.shaped) room.shape = shaped_reward(args, plan, w.i);
    }
    __syncthreads();
    // (Unrolled, so that no register keeps the list's number over the sums.)
#pragma unroll
    for (i32 p = 0; p < MAX_PROCESS; p++) {
        if (p >= room.streams) break;
        add_lost(args, block_resolve(args, w, decision, plan.joint ? 1 : p, room.applies, p));
    }
    __syncthreads();
    u32 lost = 0;
    // (A rollout has less than 2^31 tokens: numbers of 32 bits take half the registers.)
    for (u32 t = (u32)w.scope.first + threadIdx.x; t < (u32)w.e.len; t += blockDim.x) {
        f64 reward = 0.0;
        if (!contains(w.scope, t)) {
            READ_AGAIN();
#pragma unroll 1
            for (i32 p = 0; p < room.streams; p++) {
                FORGET(p);
                f32 x = signal_value(args, plan, w.e, p, t);
                // A NaN that is no finding is a missing value: it contributes 0.
                if (is_nan(x)) continue;
                if (plan.shaped) x = shaped(room.shape, x);
                const f64 s = standardised(decision.standards[plan.joint ? 1 : p], room.applies[p], x, &lost);
                reward += (plan.shaped ? 1.0 : plan.streams[p].weight) * s;
            }
            if (room.rewards) reward += (f64)load_f32(args.batch.token_rewards, at(w.e, args.batch.token_rewards, t));
            // `place = end` means the extent's last token, in scope or not.
            if (room.own && terms.has_beyond && t + 1 == w.e.len) reward += terms.beyond;
        }
        w.lines[t - w.scope.first] = reward;
    }
    __syncthreads();
    add_lost(args, lost);
}

// `scan_mask = none`: takes the KL of the tokens out of scope from their rewards, `lines` from the first in scope on.
INLINE void take_gap_kl(const Args& args, const Shaping& w, f64* lines) {
    if (!takes_kl(args, KL_PLACE_REWARD) || plan_of(args).scan_mask != SCAN_MASK_NONE) return;
    each_in_gaps(w.scope, w.e.len, [&](i64 t) { lines[t - w.scope.first] -= kl_taken(args, w, t); });
}

#endif
