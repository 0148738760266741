// Maxima of a rollout's values, and what is found among them (src/backend/cpu/group_stats.rs, `extremes`; gaps.rs, `gap_extremes`). A finding marks its
// group's set by a key above every value's, and is told once: the smallest (group, rollout, stream, finding).
#ifndef PASSRL_FINDINGS_CUH
#define PASSRL_FINDINGS_CUH
#include "elements.cuh"
#include "pieces_rows.cuh"

// A rollout's finding of a row of the stream table. One thread.
INLINE void find(const Args& args, const Work& w, u32 finding, i32 stream) {
    if (!(args.mode & MODE_COUNTING)) return;
    Counts& counts = counts_of(args);
    GroupMarks& marks = marks_of(args, w.kept.group);
    atomicOr((u64*)&counts.findings, (u64)finding);
    atomicMax(&counts.first_group, ~(u64)w.kept.group);
    atomicMax(&marks.first, ~((u64)(row_of(args, w.i) + 1) << 16 | (u64)stream << 8 | (u64)finding));
    atomicOr(&marks.found, 1u);
}
// Marks the group bad in a slot and tells the finding. The block.
OUT_OF_LINE void poison(const Args& args, const PlanConstants& plan, const Work& w, i32 slot, i32 key) {
    if (!is_first_thread()) return;
    if (!(args.mode & MODE_KNOWN)) {
        i32* keys = group_keys(args, w.kept.group);
        max_key_to(args, keys + 3 * slot, key);
        // The pooled set holds the value too.
        if (pools(plan)) max_key_to(args, keys + 3, key);
    }
    find(args, w, key >= KEY_NAN ? FOUND_MISSING : FOUND_NONFINITE, plan.slot_row[slot]);
}

// Takes a rollout's maxima into its group's. The block; uniform values.
INLINE void take_extremes(const Args& args, const PlanConstants& plan, const Work& w, i32 slot, const Extremes& e) {
    if (!is_first_thread() || (args.mode & MODE_KNOWN)) return;
    i32* keys = group_keys(args, w.kept.group);
    max_extremes_to(args, keys + 3 * slot, e);
    if (pools(plan) && (slot == 0 || slot >= plan.sets)) max_extremes_to(args, keys + 3, e);
}

// Counts the bad values of a process list, token by token where the signal has a value a token.
OUT_OF_LINE void count_process(const Args& args, const Work& w, i32 list) {
    const PlanConstants& plan = plan_of(args);
    const Batch& batch = args.batch;
    if (list >= batch.num_process || !(args.mode & MODE_COUNTING)) return;
    bool signal = batch.process == PROCESS_SIGNAL, error = plan.streams[list].missing == MISSING_ERROR;
    u32 bad = 0;
    auto count = [&](f32 x) { bad += is_infinite(x) || (error && is_nan(x)) ? 1 : 0; };
    if ((signal && !is_given(batch.step_marks)) || batch.process == PROCESS_LOGPROBS) {
        // Counted when the lists were made.
        if (signal && plan.kind == KIND_PRM && (is_given(batch.step_offsets) || list > 0)) return;
        for (i64 t = w.scope.first + threadIdx.x; t < w.scope.end; t += blockDim.x) {
            if (contains(w.scope, t)) count(signal_value(args, plan, w.e, list, t));
        }
    } else {
        const f32* elements = elements_of(args, w.i, w.e, w.kept, list);
        // A step that goes on in a later piece is counted there.
        const u32 n = w.kept.elements - (w.kept.state & STATE_OPEN_STEP ? 1 : 0);
        for (u32 j = threadIdx.x; j < n; j += blockDim.x) count(elements[j]);
    }
    add_counts_to(&counts_of(args).nonfinite_values, bad);
}

// Does a token out of scope bring its own process value to the scan? It does where each token is a chunk and has a value of its own.
INLINE bool reads_gaps(const Args& args, const PlanConstants& plan) {
    const Batch& batch = args.batch;
    bool by_token = (batch.process == PROCESS_SIGNAL && !is_given(batch.step_marks)) || (batch.process == PROCESS_LOGPROBS && plan.kind == KIND_KL);
    // GAE takes the caller's rewards in place of the chunks' values; with sets of steps F is the step's, and a token out of scope has none.
    bool replaced = (plan.credit == CREDIT_GAE && is_given(batch.token_rewards)) || is_given(batch.step_group);
    return plan.spreads && plan.scan_mask == SCAN_MASK_NONE && plan.chunk == CHUNK_TOKEN && by_token && !replaced;
}
INLINE bool process_in_gaps(const Args& args, const PlanConstants& plan, const Rollout& kept) { return (kept.state & STATE_HAS_PROCESS) && reads_gaps(args, plan); }

// Process values out of scope that the scan will read, from token `first` on: a bad one is a finding of its stream. Returns flags. The block.
OUT_OF_LINE u32 gap_findings(const Args& args, const Work& w, i64 first) {
    const PlanConstants& plan = plan_of(args);
    u32 flags = 0;
    for (i32 p = 0; p < args.batch.num_process; ++p) {
        bool error = plan.streams[p].missing == MISSING_ERROR;
        ShapedReward shape = plan.shaped ? shaped_reward(args, plan, w.i) : ShapedReward{0.0, 0.0, 0.0, false, false};
        i32 worst = 0;
        u32 bad = 0;
        for (i64 t = first + threadIdx.x; t < w.e.len; t += blockDim.x) {
            if (contains(w.scope, t)) continue;
            f32 x = signal_value(args, plan, w.e, p, t);
            if (!error && is_nan(x)) continue;
            bad += !is_finite(x);
            // A shaped reward may be beyond f32 where its signal is not.
            if (plan.shaped) x = shaped(shape, x);
            if (!is_finite(x)) worst = larger(worst, absolute_key(x));
        }
        worst = block_max(worst, 0);
        if (worst == 0) continue;
        flags = ROLLOUT_NONFINITE;
        if (args.mode & MODE_COUNTING) add_counts_to(&counts_of(args).nonfinite_values, bad);
        poison(args, plan, w, p, worst);
    }
    return flags;
}

// Values, token rewards, bootstrap, the log-probabilities of V-trace and lambdas are read as they are; a bad one is a finding. `first`: where a scan over all tokens begins;
// `speaks`: what is the rollout's is looked at. Returns flags. The block.
OUT_OF_LINE u32 credit_findings(const Args& args, const Work& w, i64 first, bool speaks) {
    const PlanConstants& plan = plan_of(args);
    const Batch& batch = args.batch;
    u32 bad = 0;
    if (is_given(batch.values) || is_given(batch.token_rewards) || is_given(batch.logp_behavior)) {
        // Under `scan_mask = none` tokens out of scope take part.
        bool all = plan.spreads && plan.scan_mask == SCAN_MASK_NONE;
        i64 end = all ? w.e.len : w.scope.end;
        for (i64 t = (all ? first : w.scope.first) + threadIdx.x; t < end; t += blockDim.x) {
            READ_AGAIN();
            if (!all && !contains(w.scope, t)) continue;
            if (is_given(batch.values)) bad += is_finite(load_f32(batch.values, at(w.e, batch.values, t))) ? 0 : 1;
            if (is_given(batch.token_rewards)) bad += is_finite(load_f32(batch.token_rewards, at(w.e, batch.token_rewards, t))) ? 0 : 1;
            if (is_given(batch.logp_behavior)) {
                bool good = is_finite(load_f64(batch.logp_policy, at(w.e, batch.logp_policy, t))) &&
                            is_finite(load_f64(batch.logp_behavior, at(w.e, batch.logp_behavior, t)));
                bad += good ? 0 : 1;
            }
        }
    }
    if (is_first_thread() && speaks) {
        if (is_given(batch.rollout_lam)) {
            f32 lam = item_f32(batch.rollout_lam, w.i);
            bad += 0.0f <= lam && lam <= 1.0f ? 0 : 1;
        }
        if (is_given(batch.bootstrap)) bad += is_finite(item_f32(batch.bootstrap, w.i)) ? 0 : 1;
    }
    if (!__syncthreads_or(bad != 0)) return 0;
    if (args.mode & MODE_COUNTING) add_counts_to(&counts_of(args).nonfinite_values, bad);
    // No `missing` rule speaks of these values: a NaN is told as what it is.
    poison(args, plan, w, 0, KEY_INFINITE);
    return ROLLOUT_NONFINITE;
}

// Maxima of the per-rollout streams of one rollout, whose flags so far are `flags`; returns those with what is found here. Scalars: every thread comes to the
// same, the first one counts.
OUT_OF_LINE u32 rollout_extremes(const Args& args, const Work& w, u32 flags) {
    const PlanConstants& plan = plan_of(args);
    // (Of a rollout in pieces one speaks; each has the flags.)
    const bool speaks = is_head(args, w.i);
    bool counts = is_first_thread() && speaks && (args.mode & MODE_COUNTING);
    auto bad_value = [&](i32 slot, i32 key) {
        flags |= ROLLOUT_NONFINITE;
        if (!speaks) return;
        if (counts) add_to(&counts_of(args).nonfinite_values, 1);
        poison(args, plan, w, slot, key);
    };
    for (i32 s = 0; s < ROLLOUT_STREAMS; ++s) {
        const Array& stream = args.batch.rollout_streams[s];
        if (!is_given(stream)) continue;
        if (is_nan(item_f32(stream, w.i)) && plan.streams[OUTCOME + s].missing != MISSING_ERROR) {
            flags |= ROLLOUT_MISSING;
            if (counts) add_to(&counts_of(args).missing_values, 1);
            if (is_first_thread() && speaks) atomicOr(&marks_of(args, w.kept.group).missing, 1u << slot_of_stream(plan, s));
        }
        Value v = own_value(args, plan, s, w.i);
        if (v.there && !is_finite(v.x)) bad_value(slot_of_stream(plan, s), absolute_key(v.x));
    }
    const bool summed = sums_rewards(plan);
    Value baseline = baseline_of(args, w.i);
    // No `missing` rule speaks of baselines: a NaN is told as what it is.
    if (baseline.there && !is_finite(baseline.x)) bad_value(slot_of_stream(plan, 0), KEY_INFINITE);
    for (i32 s = 0; s < ROLLOUT_STREAMS; ++s) {
        if (!has_stream(args, summed, s)) continue;
        Value v = rollout_value(args, plan, s, w.i);
        if (!v.there) continue;
        i32 slot = slot_of_stream(plan, s);
        if (!is_finite(v.x)) {
            // Of a sum: one of its terms was found before, or it is beyond f32.
            if (!(flags & ROLLOUT_NONFINITE)) bad_value(slot, absolute_key(v.x));
            continue;
        }
        if (!speaks || !counts_in_stats(w.kept) || !weighs(plan.streams[OUTCOME + s], w.kept)) continue;
        Extremes one = no_extremes();
        extremes_push(one, v.x);
        take_extremes(args, plan, w, slot, one);
    }
    return flags;
}

// Maxima of a list of the rollout go to its group, or what is wrong with them is told; the flags found.
INLINE u32 look_at_list(const Args& args, const PlanConstants& plan, const Work& w, i32 list, const Extremes& found) {
    if (extremes_bad(found)) {
        count_process(args, w, list);
        poison(args, plan, w, list, found.absmax);
        return ROLLOUT_NONFINITE;
    }
    if (counts_in_stats(w.kept)) take_extremes(args, plan, w, list, found);
    return 0;
}

// Everything that a prepared rollout has for its group's maxima, and every finding, which the rollout's flags gain. `first`: the maxima of the first list where they
// are known, or 0. The block.
OUT_OF_LINE void look_at_rollout(const Args& args, Work& w, const Extremes* first) {
    const PlanConstants& plan = plan_of(args);
    if (is_first_thread()) {
        const u32 flags = w.kept.flags;
        const bool known = args.mode & MODE_KNOWN;
        i32* keys = group_keys(args, w.kept.group);
        if (!known) max_key_to(args, keys + 3 * plan.slots, flags & ROLLOUT_FORMAT_VIOLATING ? 1 : 2);
        if (flags & ROLLOUT_MISSING) atomicOr(&marks_of(args, w.kept.group).missing, 1u);
        if (flags & ROLLOUT_BAD_STEPS) {
            atomicOr(&marks_of(args, w.kept.group).found, 1u);
            if (!known) max_key_to(args, keys, KEY_BAD_STEPS);
            if (args.mode & MODE_COUNTING) add_to(&counts_of(args).bad_steps, 1);
            find(args, w, FOUND_BAD_STEPS, 0);
        }
    }
    if (w.kept.state & (STATE_INFINITE | STATE_NAN)) poison(args, plan, w, 0, w.kept.state & STATE_NAN ? KEY_NAN : KEY_INFINITE);
    u32 flags = w.kept.flags;
#pragma unroll 1
    for (i32 list = 0; list < (w.kept.state & STATE_HAS_PROCESS ? lists_of(args, plan) : 0); ++list) {
        Extremes found = list == 0 && first ? *first : list_extremes(args, w, list);
        flags |= look_at_list(args, plan, w, list, found);
    }
    if (!(flags & ROLLOUT_NO_SCOPE)) {
        if (process_in_gaps(args, plan, w.kept)) flags |= gap_findings(args, w, w.scope.first);
        flags |= credit_findings(args, w, w.scope.first, true);
    }
    // Scalars: the first warp's threads read them for all.
    if (warp() == 0) flags = rollout_extremes(args, w, flags);
    __syncthreads();
    if (is_first_thread()) w.kept.flags = flags;
    __syncthreads();
}

#endif
