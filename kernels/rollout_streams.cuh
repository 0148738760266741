// Values of the per-rollout streams as the statistics and the fusion take them: missing values, limits, the sum of rewards (src/backend/cpu/rollout_streams.rs).
// Scalars of a rollout: each thread of its block forms them for itself.
#ifndef PASSRL_ROLLOUT_STREAMS_CUH
#define PASSRL_ROLLOUT_STREAMS_CUH
#include "views.cuh"

// A value that may not be there.
struct Value {
    f32 x;
    bool there;
};
struct WideValue {
    f64 x;
    bool there;
};

// x limited to [-clip, clip]; NaN and what is infinite in f32 stay what they are, so that they are found.
INLINE f64 limited(f64 x, f64 clip) {
    if (is_infinite(clip) || !is_finite((f32)x)) return x;
    f64 c = (f64)(f32)smaller(clip, F32_LARGEST);
    return clamped(x, -c, c);
}

INLINE bool sums_rewards(const PlanConstants& plan) { return plan.fusion == FUSION_REWARD_SUM; }

// Has per-rollout stream s a set of its own? `summed`: `sums_rewards`, which loops over the streams ask once.
INLINE bool has_stream(const Args& args, bool summed, i32 s) {
    if (!summed) return is_given(args.batch.rollout_streams[s]);
    bool any = false;
    for (i32 other = 0; other < ROLLOUT_STREAMS; ++other) any |= is_given(args.batch.rollout_streams[other]);
    return s == 0 && any;
}
INLINE bool has_stream(const Args& args, const PlanConstants& plan, i32 s) { return has_stream(args, sums_rewards(plan), s); }

// Value of stream s alone, after `missing` and its limit. NaN and infinity come as they are.
INLINE WideValue limited_value(const Args& args, const PlanConstants& plan, i32 s, i64 i) {
    const Array& stream = args.batch.rollout_streams[s];
    if (!is_given(stream)) return WideValue{0.0, false};
    const Stream& row = plan.streams[OUTCOME + s];
    f64 x = item_f64(stream, i);
    if (is_nan(x)) {
        if (row.missing == MISSING_EXCLUDE) return WideValue{0.0, false};
        if (row.missing == MISSING_ZERO) x = 0.0;
    }
    // Of a sum the sum is limited.
    return WideValue{sums_rewards(plan) && s == 0 ? x : limited(x, row.clip_value), true};
}

// What the KL takes from the outcome of rollout i: `kl_coef` times its sum; 0 where that is not asked.
INLINE f64 kl_of(const Args& args, const PlanConstants& plan, i64 i) {
    if (!is_given(args.batch.logp_reference) || plan.kl_by_token) return 0.0;
    return plan.kl_coef * (f64)((const f32*)args.work.kl_sums)[i];
}

// Value of stream s alone, rounded to f32; the outcome is less its KL (a sum loses it as a whole).
INLINE Value own_value(const Args& args, const PlanConstants& plan, i32 s, i64 i) {
    WideValue v = limited_value(args, plan, s, i);
    if (!v.there) return Value{0.0f, false};
    return Value{s == 0 && !sums_rewards(plan) ? (f32)(v.x - kl_of(args, plan, i)) : (f32)v.x, true};
}

// What steps without scores have come to: the outcome, where there is one to take. A bad outcome is a finding of its own stream.
INLINE f32 returned_outcome(const Args& args, const PlanConstants& plan, i64 i) {
    WideValue v = limited_value(args, plan, 0, i);
    return v.there && is_finite((f32)v.x) ? (f32)v.x : 0.0f;
}

// Value of stream s as its set knows it; the outcome's under `reward_sum` is R = ((w_out x_out) + w_fmt x_fmt) + ..., rounded once.
OUT_OF_LINE Value rollout_value(const Args& args, const PlanConstants& plan, i32 s, i64 i) {
    if (!sums_rewards(plan)) return own_value(args, plan, s, i);
    if (s > 0) return Value{0.0f, false};
    f64 sum = 0.0;
    bool there = false;
    for (i32 other = 0; other < ROLLOUT_STREAMS; ++other) {
        Value v = own_value(args, plan, other, i);
        if (!v.there) continue;
        f64 term = plan.streams[OUTCOME + other].weight * (f64)v.x;
        sum = there ? sum + term : term;
        there = true;
    }
    if (!there) return Value{0.0f, false};
    return Value{(f32)(limited(sum, plan.streams[OUTCOME].clip_value) - kl_of(args, plan, i)), true};
}

// Weight of stream s in the fusion.
INLINE f64 stream_weight(const PlanConstants& plan, i32 s) { return sums_rewards(plan) ? 1.0 : plan.streams[OUTCOME + s].weight; }

// What `center = given` takes from the outcome.
INLINE Value baseline_of(const Args& args, i64 i) {
    if (!is_given(args.batch.baselines)) return Value{0.0f, false};
    return Value{item_f32(args.batch.baselines, i), true};
}

// The shaped reward of a step (fusion `reward_shaping`): R = ((w_prc s + w_out r_out) + w_fmt r_fmt), rounded once. A reward of the rollout that is not
// finite is a finding of its own stream and left out; a signal that is not finite stays what it is, under a weight of 0 too.
struct ShapedReward {
    f64 weight, outcome, format;
    bool has_outcome, has_format;
};
OUT_OF_LINE ShapedReward shaped_reward(const Args& args, const PlanConstants& plan, i64 i) {
    Value outcome = rollout_value(args, plan, 0, i), format = rollout_value(args, plan, 1, i);
    return ShapedReward{plan.streams[0].weight, plan.streams[OUTCOME].weight * (f64)outcome.x, plan.streams[FORMAT].weight * (f64)format.x,
                        outcome.there && is_finite(outcome.x), format.there && is_finite(format.x)};
}
INLINE f32 shaped(const ShapedReward& by, f32 s) {
    f64 r = by.weight * (f64)s;
    if (by.has_outcome) r += by.outcome;
    if (by.has_format) r += by.format;
    return is_finite(s) ? (f32)r : s;
}

#endif
