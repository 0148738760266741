// Token values of a rollout: the process signal as given, or formed from log-probabilities (OPD, G-OPD), with the rule for missing values
// (src/backend/cpu/signal.rs). Values are formed where they are read: three loads and a subtraction cost less than a list.
#ifndef PASSRL_SIGNAL_CUH
#define PASSRL_SIGNAL_CUH
#include "views.cuh"

// Log-probabilities below it are counted: a sign of a masked or broken softmax.
constexpr f64 LOW_LOGP = -1e4;

// A value formed from log-probabilities.
OUT_OF_LINE f32 signal_of_logprobs(const Args& args, const Extent& e, i64 t) {
    const Batch& batch = args.batch;
    const f64 policy = load_f64(batch.logp_policy, at(e, batch.logp_policy, t)), teacher = load_f64(batch.logp_teacher, at(e, batch.logp_teacher, t));
    // An infinite log-probability is a finding, even where the difference is NaN.
    const bool infinite = is_infinite(policy) || is_infinite(teacher);
    if (!is_given(batch.logp_base)) return infinite ? f32_of(0x7f800000u) : (f32)(teacher - policy);
    const f64 base = load_f64(batch.logp_base, at(e, batch.logp_base, t));
    return infinite || is_infinite(base) ? f32_of(0x7f800000u) : (f32)(plan_of(args).opd_lambda * (teacher - base) - (policy - base));
}
// Value of process stream p at token t, whatever its scope.
INLINE f32 signal_value(const Args& args, const PlanConstants& plan, const Extent& e, i32 p, i64 t) {
    const Batch& batch = args.batch;
    READ_AGAIN();
    f32 x = 0.0f;
    if (batch.process == PROCESS_SIGNAL) {
        const Array& signal = batch.signal[p];
        if (is_given(signal)) x = load_f32(signal, at(e, signal, t));
    } else if (batch.process == PROCESS_LOGPROBS) {
        x = signal_of_logprobs(args, e, t);
    }
    return is_nan(x) && plan.streams[p].missing == MISSING_ZERO ? 0.0f : x;
}
// The same where a loop reads one stream's values alone: where they lie is known before it, from token `first` on.
struct SignalLine {
    i64 base, stride;
};
INLINE SignalLine signal_line(const Args& args, const Extent& e, i32 p, i64 first) { return SignalLine{at(e, args.batch.signal[p], first), token_stride(e, args.batch.signal[p])}; }
// Value `at` of the line; `token()`: which token of the extent it is.
template <class Token> INLINE f32 signal_on_line(const Args& args, const PlanConstants& plan, const Extent& e, i32 p, const SignalLine& line, i64 at, Token token) {
    const Batch& batch = args.batch;
    READ_AGAIN();
    f32 x = 0.0f;
    if (batch.process == PROCESS_SIGNAL) {
        if (is_given(batch.signal[p])) x = load_f32(batch.signal[p], line.base + at * line.stride);
    } else if (batch.process == PROCESS_LOGPROBS) {
        x = signal_of_logprobs(args, e, token());
    }
    return is_nan(x) && plan.streams[p].missing == MISSING_ZERO ? 0.0f : x;
}

// Is the raw value of process stream p NaN at token t, before `missing = zero` replaces it?
OUT_OF_LINE bool signal_missing(const Args& args, const Extent& e, i32 p, i64 t) {
    const Batch& batch = args.batch;
    if (batch.process == PROCESS_SIGNAL) return is_given(batch.signal[p]) && is_nan(load_f64(batch.signal[p], at(e, batch.signal[p], t)));
    if (batch.process != PROCESS_LOGPROBS) return false;
    return is_nan(load_f64(batch.logp_policy, at(e, batch.logp_policy, t))) || is_nan(load_f64(batch.logp_teacher, at(e, batch.logp_teacher, t))) ||
           (is_given(batch.logp_base) && is_nan(load_f64(batch.logp_base, at(e, batch.logp_base, t))));
}

// Log-probabilities of token t that are below `LOW_LOGP`.
OUT_OF_LINE u32 signal_low(const Args& args, const Extent& e, i64 t) {
    const Batch& batch = args.batch;
    if (batch.process != PROCESS_LOGPROBS) return 0;
    u32 low = load_f64(batch.logp_policy, at(e, batch.logp_policy, t)) < LOW_LOGP ? 1 : 0;
    low += load_f64(batch.logp_teacher, at(e, batch.logp_teacher, t)) < LOW_LOGP ? 1 : 0;
    return low + (is_given(batch.logp_base) && load_f64(batch.logp_base, at(e, batch.logp_base, t)) < LOW_LOGP ? 1 : 0);
}

#endif
