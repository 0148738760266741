// Maxima of a rollout's values, and what is found among them (src/backend/cpu/group_stats.rs, `extremes`; gaps.rs, `gap_extremes`). A finding marks its
// group's set by a key above every value's, and is told once: the smallest (group, rollout, stream, finding).
#ifndef PASSRL_FINDINGS_CUH
#define PASSRL_FINDINGS_CUH
#include "elements.cuh"

// A rollout's finding of a row of the stream table. One thread.
INLINE void find(const Args& args, const Work& w, u32 finding, i32 stream) {
    if (!(args.mode & MODE_COUNTING)) return;
    Counts& counts = counts_of(args);
    GroupMarks& marks = marks_of(args, w.kept.group);
    atomicOr((u64*)&counts.findings, (u64)finding);
    atomicMax(&counts.first_group, ~(u64)w.kept.group);
    atomicMax(&marks.first, ~((u64)(w.i + 1) << 16 | (u64)stream << 8 | (u64)finding));
    atomicOr(&marks.found, 1u);
}
// Marks the group bad in a slot and tells the finding. The block.
INLINE void poison(const Args& args, const PlanConstants& plan, const Work& w, i32 slot, i32 key) {
    if (!is_first_thread()) return;
    if (!(args.mode & MODE_KNOWN)) {
        i32* keys = group_keys(args, w.kept.group);
        atomicMax(keys + 3 * slot, key);
        // The pooled set holds the value too.
        if (pools(plan)) atomicMax(keys + 3, key);
    }
    find(args, w, key >= KEY_NAN ? FOUND_MISSING : FOUND_NONFINITE, plan.slot_row[slot]);
}

// Takes a rollout's maxima into its group's. The block; uniform values.
INLINE void take_extremes(const Args& args, const PlanConstants& plan, const Work& w, i32 slot, const Extremes& e) {
    if (!is_first_thread() || (args.mode & MODE_KNOWN)) return;
    i32* keys = group_keys(args, w.kept.group);
    max_extremes_to(keys + 3 * slot, e);
    if (pools(plan) && (slot == 0 || slot >= plan.sets)) max_extremes_to(keys + 3, e);
}

// Counts the bad values of a process list, token by token where the signal has a value a token.
INLINE void count_process(const Args& args, const PlanConstants& plan, const Work& w, i32 list, Tally& tally) {
    const Batch& batch = args.batch;
    if (list >= batch.num_process) return;
    bool signal = batch.process == PROCESS_SIGNAL, error = plan.streams[list].missing == MISSING_ERROR;
    auto count = [&](f32 x) { tally.nonfinite += is_infinite(x) || (error && is_nan(x)) ? 1 : 0; };
    if ((signal && !is_given(batch.step_marks)) || batch.process == PROCESS_LOGPROBS) {
        // Counted when the lists were made.
        if (signal && plan.kind == KIND_PRM && (is_given(batch.step_offsets) || list > 0)) return;
        for (i64 t = w.scope.first + threadIdx.x; t < w.scope.end; t += blockDim.x) {
            if (contains(w.scope, t)) count(signal_value(args, plan, w.e, list, t));
        }
        return;
    }
    const f32* elements = list_of<f32>(args, args.work.elements, list, w.e);
    for (u32 j = threadIdx.x; j < w.kept.elements; j += blockDim.x) count(elements[j]);
}

// Does a token out of scope bring its own process value to the scan? It does where each token is a chunk and has a value of its own.
INLINE bool process_in_gaps(const Args& args, const PlanConstants& plan, const Rollout& kept) {
    const Batch& batch = args.batch;
    bool by_token = (batch.process == PROCESS_SIGNAL && !is_given(batch.step_marks)) || (batch.process == PROCESS_LOGPROBS && plan.kind == KIND_KL);
    // GAE takes the caller's rewards in place of the chunks' values; with sets of steps F is the step's, and a token out of scope has none.
    bool replaced = (plan.credit == CREDIT_GAE && is_given(batch.token_rewards)) || is_given(batch.step_group);
    return plan.spreads && plan.scan_mask == SCAN_MASK_NONE && plan.chunk == CHUNK_TOKEN && by_token && !replaced && (kept.state & STATE_HAS_PROCESS);
}

// Process values out of scope that the scan will read: a bad one is a finding of its stream. The block.
INLINE void block_gap_findings(const Args& args, const PlanConstants& plan, Work& w, Tally& tally) {
    if (!process_in_gaps(args, plan, w.kept)) return;
    for (i32 p = 0; p < args.batch.num_process; ++p) {
        bool error = plan.streams[p].missing == MISSING_ERROR;
        ShapedReward shape = plan.shaped ? shaped_reward(args, plan, w.i) : ShapedReward{0.0, 0.0, 0.0, false, false};
        i32 worst = 0;
        for (i64 t = w.scope.first + threadIdx.x; t < w.e.len; t += blockDim.x) {
            if (contains(w.scope, t)) continue;
            f32 x = signal_value(args, plan, w.e, p, t);
            if (!error && is_nan(x)) continue;
            // A shaped reward may be beyond f32 where its signal is not.
            if (plan.shaped) x = shaped(shape, x);
            if (is_finite(x)) continue;
            worst = larger(worst, absolute_key(x));
            ++tally.nonfinite;
        }
        worst = block_max(worst, 0);
        if (worst == 0) continue;
        w.kept.flags |= ROLLOUT_NONFINITE;
        poison(args, plan, w, p, worst);
    }
}

// Values, token rewards, bootstrap, the log-probabilities of V-trace and lambdas are read as they are; a bad one is a finding. The block.
INLINE void block_credit_findings(const Args& args, const PlanConstants& plan, Work& w, Tally& tally) {
    const Batch& batch = args.batch;
    bool values = is_given(batch.values), rewards = is_given(batch.token_rewards), ratios = is_given(batch.logp_behavior);
    u32 bad = 0;
    if (values || rewards || ratios) {
        // Under `scan_mask = none` tokens out of scope take part.
        Scope scope = plan.spreads && plan.scan_mask == SCAN_MASK_NONE ? span_scope(w.scope.first, w.e.len) : w.scope;
        for (i64 t = scope.first + threadIdx.x; t < scope.end; t += blockDim.x) {
            if (!contains(scope, t)) continue;
            if (values) bad += is_finite(load_f32(batch.values, at(w.e, batch.values, t))) ? 0 : 1;
            if (rewards) bad += is_finite(load_f32(batch.token_rewards, at(w.e, batch.token_rewards, t))) ? 0 : 1;
            if (ratios) {
                bool good = is_finite(load_f64(batch.logp_policy, at(w.e, batch.logp_policy, t))) &&
                            is_finite(load_f64(batch.logp_behavior, at(w.e, batch.logp_behavior, t)));
                bad += good ? 0 : 1;
            }
        }
    }
    if (is_first_thread()) {
        if (is_given(batch.rollout_lam)) {
            f32 lam = item_f32(batch.rollout_lam, w.i);
            bad += 0.0f <= lam && lam <= 1.0f ? 0 : 1;
        }
        if (is_given(batch.bootstrap)) bad += is_finite(item_f32(batch.bootstrap, w.i)) ? 0 : 1;
    }
    tally.nonfinite += bad;
    if (!__syncthreads_or(bad != 0)) return;
    // No `missing` rule speaks of these values: a NaN is told as what it is.
    w.kept.flags |= ROLLOUT_NONFINITE;
    poison(args, plan, w, 0, KEY_INFINITE);
}

// Maxima of the per-rollout streams of one rollout. Scalars: every thread comes to the same, the first one counts.
INLINE void rollout_extremes(const Args& args, const PlanConstants& plan, Work& w, Tally& tally) {
    u32 once = is_first_thread() ? 1 : 0;
    auto bad_value = [&](i32 slot, i32 key) {
        w.kept.flags |= ROLLOUT_NONFINITE;
        tally.nonfinite += once;
        poison(args, plan, w, slot, key);
    };
    for (i32 s = 0; s < ROLLOUT_STREAMS; ++s) {
        const Array& stream = args.batch.rollout_streams[s];
        if (!is_given(stream)) continue;
        if (is_nan(item_f32(stream, w.i)) && plan.streams[OUTCOME + s].missing != MISSING_ERROR) {
            w.kept.flags |= ROLLOUT_MISSING;
            tally.missing += once;
            if (once) atomicOr(&marks_of(args, w.kept.group).missing, 1u << slot_of_stream(plan, s));
        }
        Value v = own_value(args, plan, s, w.i);
        if (v.there && !is_finite(v.x)) bad_value(slot_of_stream(plan, s), absolute_key(v.x));
    }
    Value baseline = baseline_of(args, w.i);
    // No `missing` rule speaks of baselines: a NaN is told as what it is.
    if (baseline.there && !is_finite(baseline.x)) bad_value(slot_of_stream(plan, 0), KEY_INFINITE);
    for (i32 s = 0; s < ROLLOUT_STREAMS; ++s) {
        Value v = rollout_value(args, plan, s, w.i);
        if (!v.there) continue;
        i32 slot = slot_of_stream(plan, s);
        if (!is_finite(v.x)) {
            // Of a sum: one of its terms was found before, or it is beyond f32.
            if (!(w.kept.flags & ROLLOUT_NONFINITE)) bad_value(slot, absolute_key(v.x));
            continue;
        }
        if (!counts_in_stats(w.kept) || !weighs(plan.streams[OUTCOME + s], w.kept)) continue;
        Extremes one = no_extremes();
        extremes_push(one, v.x);
        take_extremes(args, plan, w, slot, one);
    }
}

// Everything that a prepared rollout has for its group's maxima, and every finding; `unlisted` as in Tally, of the whole block. The block.
INLINE void block_look(const Args& args, const PlanConstants& plan, Work& w, Tally& tally) {
    bool counts = counts_in_stats(w.kept), known = args.mode & MODE_KNOWN;
    i32* keys = group_keys(args, w.kept.group);
    if (is_first_thread()) {
        if (!known) atomicMax(keys + 3 * plan.slots, w.kept.flags & ROLLOUT_FORMAT_VIOLATING ? 1 : 2);
        if (w.kept.flags & ROLLOUT_MISSING) atomicOr(&marks_of(args, w.kept.group).missing, 1u);
        if (w.kept.flags & ROLLOUT_BAD_STEPS) {
            atomicOr(&marks_of(args, w.kept.group).found, 1u);
            if (!known) atomicMax(keys, KEY_BAD_STEPS);
            find(args, w, FOUND_BAD_STEPS, 0);
        }
    }
    if (w.kept.state & (STATE_INFINITE | STATE_NAN)) poison(args, plan, w, 0, w.kept.state & STATE_NAN ? KEY_NAN : KEY_INFINITE);
    bool listed = w.kept.state & STATE_HAS_PROCESS;
    for (i32 list = 0; listed && list < lists_of(args, plan); ++list) {
        Extremes found = block_list_extremes(args, plan, w, list);
        if (extremes_bad(found)) {
            w.kept.flags |= ROLLOUT_NONFINITE;
            count_process(args, plan, w, list, tally);
            poison(args, plan, w, list, found.absmax);
        } else if (counts) {
            take_extremes(args, plan, w, list, found);
        }
    }
    if (!(w.kept.flags & ROLLOUT_NO_SCOPE)) {
        block_gap_findings(args, plan, w, tally);
        block_credit_findings(args, plan, w, tally);
    }
    rollout_extremes(args, plan, w, tally);
}

#endif
