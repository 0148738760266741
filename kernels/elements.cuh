// What a rollout is made of: its scope, its steps (the elements of the process sets) and, for prm and outcome-only input, its chunks
// (src/backend/cpu/prepare.rs). One block a rollout; what is kept lies in lists at the rollout's slots.
#ifndef PASSRL_ELEMENTS_CUH
#define PASSRL_ELEMENTS_CUH
#include "chunk.cuh"
#include "group_stats.cuh"

// What kind of steps a rollout has.
enum Form {
    FORM_STEPLESS,         // no step: one chunk, process term 0
    FORM_SCORED,           // CSR scores, OPD sums, sparse marks: a value a step
    FORM_DENSE_WITH_ENDS,  // a value a token, steps given
    FORM_DENSE,            // a value a token, steps found
    FORM_TOKENS,           // kind kl: tokens are the elements
};
INLINE Form form_of(const Batch& batch, const PlanConstants& plan, i64 count_steps) {
    if (plan.kind == KIND_NONE || batch.process == PROCESS_NONE) return FORM_STEPLESS;
    if (plan.kind == KIND_KL) return FORM_TOKENS;
    if (batch.process == PROCESS_SIGNAL && !is_given(batch.step_marks)) {
        if (!is_given(batch.step_offsets)) return FORM_DENSE;
        return count_steps > 0 ? FORM_DENSE_WITH_ENDS : FORM_STEPLESS;
    }
    bool marked = is_given(batch.step_marks) && (batch.process == PROCESS_SIGNAL || batch.process == PROCESS_LOGPROBS);
    return marked || count_steps > 0 ? FORM_SCORED : FORM_STEPLESS;
}

// What each thread has found and counted by itself, until the block adds it up.
struct Tally {
    u32 flags;      // ROLLOUT_*
    u32 unlisted;   // bit p: an infinity of stream p that no list may come to hold; bit 4 + p: a NaN, where that is an error
    u32 missing, nonfinite, low;
};

// Tokens of the mask and of the steps, without those whose value of the first stream is missing (`exclude`); counts missing and low values. The block.
INLINE Scope block_read_scope(const Args& args, const PlanConstants& plan, const Extent& e, const StepRange& steps, bool between, bool reads_tokens, u32* bits, Tally& tally) {
    const Batch& batch = args.batch;
    bool counting = args.mode & MODE_COUNTING, logps = batch.process == PROCESS_LOGPROBS;
    bool masked = is_given(batch.mask), drops = reads_tokens && batch.num_process > 0 && plan.streams[0].missing == MISSING_EXCLUDE;
    bool looks = reads_tokens && counting && logps;
    for (i32 p = 0; reads_tokens && p < batch.num_process; ++p) looks = looks || plan.streams[p].missing != MISSING_ERROR;
    bool in_bits = masked || between || drops;
    if (!in_bits && !looks) return span_scope(0, e.len);
    for (i64 tile = 0; tile < e.len; tile += blockDim.x) {
        i64 t = tile + threadIdx.x;
        bool in = t < e.len && (!masked || load_flag(batch.mask, at(e, batch.mask, t))) && (!between || in_a_step(args, steps, t));
        for (i32 p = 0; looks && in && p < batch.num_process; ++p) {
            i32 missing = plan.streams[p].missing;
            if (counting && logps) tally.low += signal_low(args, e, t);
            if (missing == MISSING_ERROR || !signal_missing(args, e, p, t)) continue;
            tally.flags |= ROLLOUT_MISSING;
            ++tally.missing;
            // Beside an infinite log-probability the value is that finding, not a missing one.
            if (p == 0 && drops && is_nan(signal_value(args, plan, e, 0, t))) in = false;
        }
        if (!in_bits) continue;
        u32 votes = __ballot_sync(WARP, in);
        if (lane() == 0 && t < e.len) bits[t / 32] = votes;
    }
    return in_bits ? block_scope_of(bits, e.len) : span_scope(0, e.len);
}

// CSR steps that have a token in scope, with their values; those whose value of the first stream is missing leave the scope. The block.
INLINE void block_csr_steps(const Args& args, const PlanConstants& plan, Work& w, const StepRange& steps, Form form, u32* bits, StepList& list, Tally& tally) {
    const Batch& batch = args.batch;
    i32 streams = form == FORM_STEPLESS ? 0 : batch.num_process;
    bool scores = batch.process == PROCESS_SCORES && streams > 0, sums = batch.process == PROCESS_LOGPROBS && form == FORM_SCORED;
    bool dropped = false;
    for (i64 tile = steps.from; tile < steps.to; tile += blockDim.x) {
        i64 number = tile + threadIdx.x;
        bool listed = false;
        TokenRange range = {0, 0};
        i64 last = -1;
        if (number < steps.to) {
            range = step_tokens(args, steps, number, w.e.len);
            last = last_in(w.scope, range.begin, range.end);
            listed = last >= 0;
        }
        if (listed && scores && is_nan(step_score(args, 0, number)) && plan.streams[0].missing == MISSING_EXCLUDE) {
            // The other streams are not read in a step that leaves the scope.
            tally.flags |= ROLLOUT_MISSING;
            ++tally.missing;
            listed = false;
            dropped = true;
        }
        Rank rank = block_rank(listed);
        i64 j = list.count + rank.before;
        if (listed) {
            list.begin[j] = (u32)range.begin;
            list.end[j] = (u32)range.end;
            if (is_given(batch.step_group)) list_of<i64>(args.work.step_keys, w.e)[j] = item_int(batch.step_group, number);
        }
        for (i32 p = 0; listed && !sums && p < streams; ++p) {
            f32 x = 0.0f;
            if (scores) {
                x = step_score(args, p, number);
                if (is_nan(x) && plan.streams[p].missing != MISSING_ERROR) {
                    tally.flags |= ROLLOUT_MISSING;
                    ++tally.missing;
                    if (plan.streams[p].missing == MISSING_ZERO) x = 0.0f;
                }
            } else if (form == FORM_DENSE_WITH_ENDS) {
                x = signal_value(args, plan, w.e, p, last);
            }
            list_of<f32>(args, args.work.elements, p, w.e)[j] = x;
        }
        list.count += rank.total;
    }
    if (__syncthreads_or(dropped)) {
        if (bits != w.scope.bits) {
            block_fill_scope(bits, w.e.len);
            __syncthreads();
        }
        for (i64 number = steps.from + threadIdx.x; number < steps.to; number += blockDim.x) {
            if (!is_nan(step_score(args, 0, number))) continue;
            TokenRange range = step_tokens(args, steps, number, w.e.len);
            clear_scope(bits, range.begin, range.end);
        }
        w.scope = block_scope_of(bits, w.e.len);
    }
}

// Steps of the sparse form: a mark on an in-scope token ends a step with that token's value; tokens after the last mark belong to the last step. The block.
INLINE void block_sparse_steps(const Args& args, const PlanConstants& plan, Work& w, u32* bits, StepList& list, Tally& tally) {
    const Batch& batch = args.batch;
    const Array& marks = batch.step_marks;
    bool sums = batch.process == PROCESS_LOGPROBS;
    // First where the marks are, then what they end: ends are placed in the list of ends and moved up where steps leave the scope.
    i64 count = 0;
    for (i64 tile = first_tile(w.scope); tile < w.scope.end; tile += blockDim.x) {
        i64 t = tile + threadIdx.x;
        bool marked = contains(w.scope, t) && load_flag(marks, at(w.e, marks, t));
        Rank rank = block_rank(marked);
        if (marked) list.end[count + rank.before] = (u32)(t + 1);
        count += rank.total;
    }
    __syncthreads();
    bool any_dropped = false;
    for (i64 tile = 0; tile < count; tile += blockDim.x) {
        i64 n = tile + threadIdx.x;
        bool listed = n < count, dropped = false;
        i64 t = listed ? (i64)list.end[n] - 1 : 0;
        // Steps that have left moved what stands before down by as many places, so that the entry before is still what it was.
        i64 begin = listed && n > 0 ? (i64)list.end[n - 1] : 0, end = n + 1 == count ? w.e.len : t + 1;
        if (listed && !sums && signal_missing(args, w.e, 0, t) && plan.streams[0].missing == MISSING_EXCLUDE) {
            tally.flags |= ROLLOUT_MISSING;
            ++tally.missing;
            listed = false;
            dropped = true;
        }
        Rank rank = block_rank(listed);
        i64 j = list.count + rank.before;
        if (listed) {
            list.begin[j] = (u32)begin;
            list.end[j] = (u32)end;
        }
        for (i32 p = 0; listed && !sums && p < batch.num_process; ++p) {
            if (plan.streams[p].missing != MISSING_ERROR && signal_missing(args, w.e, p, t)) {
                tally.flags |= ROLLOUT_MISSING;
                ++tally.missing;
            }
            list_of<f32>(args, args.work.elements, p, w.e)[j] = signal_value(args, plan, w.e, p, t);
        }
        if (__syncthreads_or(dropped)) {
            if (!any_dropped && bits != w.scope.bits) {
                block_fill_scope(bits, w.e.len);
                __syncthreads();
            }
            any_dropped = true;
            if (dropped) clear_scope(bits, begin, end);
        }
        list.count += rank.total;
        __syncthreads();
    }
    if (any_dropped) w.scope = block_scope_of(bits, w.e.len);
}

// Values that no list may come to hold: a NaN of the first stream makes a run of its own, others may lie inside a step.
INLINE void tally_unlisted(const Args& args, const PlanConstants& plan, const Work& w, i32 from, Tally& tally) {
    for (i64 t = w.scope.first + threadIdx.x; t < w.scope.end; t += blockDim.x) {
        if (!contains(w.scope, t)) continue;
        for (i32 p = from; p < args.batch.num_process; ++p) {
            f32 x = signal_value(args, plan, w.e, p, t);
            bool nan = is_nan(x) && plan.streams[p].missing == MISSING_ERROR;
            if (!nan && !is_infinite(x)) continue;
            tally.unlisted |= nan ? 16u << p : 1u << p;
            ++tally.nonfinite;
        }
    }
}

// Chunks of a rollout whose steps are listed, in `last`. The block.
INLINE i64 block_chunks(const Args& args, const PlanConstants& plan, const Work& w, const StepList& list, Form form, u32* last) {
    bool scored = form != FORM_STEPLESS && list.count > 0;
    if (plan.chunk == CHUNK_BY_VALUE && scored) return block_chunks_by_value(args, plan, w.e, w.scope, list, form != FORM_DENSE_WITH_ENDS, last);
    if (plan.chunk == CHUNK_STEP && list.count > 0) {
        for (i64 j = threadIdx.x; j < list.count; j += blockDim.x) last[j] = (u32)last_in(w.scope, list.begin[j], list.end[j]);
        __syncthreads();
        return list.count;
    }
    if (plan.chunk == CHUNK_SEGMENT) return block_chunks_segment(w.scope, last);
    if (plan.chunk == CHUNK_TOKEN) return block_chunks_token(w.scope, last);
    if (plan.chunk == CHUNK_GIVEN) return is_given(args.batch.chunk_marks) ? block_chunks_given(args, w.e, w.scope, last) : 0;
    return block_chunks_whole(w.scope, last);
}

// Lists the steps that have a token in scope, with their values, and the chunks. prm and outcome-only input. The block.
INLINE void block_elements_and_chunks(const Args& args, const PlanConstants& plan, Work& w, const StepRange& steps, Form form, u32* bits, Tally& tally) {
    const Batch& batch = args.batch;
    i32 streams = batch.num_process;
    bool dense = form == FORM_DENSE || form == FORM_DENSE_WITH_ENDS;
    if (dense && (form == FORM_DENSE_WITH_ENDS || streams > 1)) tally_unlisted(args, plan, w, form == FORM_DENSE ? 1 : 0, tally);
    u32* last = list_of<u32>(args.work.last, w.e);
    StepList list = {list_of<u32>(args.work.step_begin, w.e), list_of<u32>(args.work.step_end, w.e), list_of<f32>(args.work.elements, w.e), 0};
    if (form == FORM_DENSE) {
        list.count = block_chunks_dense(args, plan, w.e, w.scope, last);
        for (i64 j = threadIdx.x; j < list.count; j += blockDim.x) {
            for (i32 p = 0; p < streams; ++p) list_of<f32>(args, args.work.elements, p, w.e)[j] = signal_value(args, plan, w.e, p, last[j]);
        }
    } else if (form == FORM_SCORED && is_given(batch.step_marks)) {
        block_sparse_steps(args, plan, w, bits, list, tally);
    } else if (form != FORM_STEPLESS || is_given(batch.step_offsets)) {
        block_csr_steps(args, plan, w, steps, form, bits, list, tally);
    }
    __syncthreads();
    if (form == FORM_SCORED && batch.process == PROCESS_LOGPROBS) {
        for (i64 j = warp(); j < list.count; j += warps()) {
            f32 sum = warp_exact_sum(w.scope, list.begin[j], list.end[j], [&](i64 t) { return signal_value(args, plan, w.e, 0, t); });
            if (lane() == 0) list.values[j] = sum;
        }
        __syncthreads();
    }
    bool scored = form != FORM_STEPLESS && list.count > 0;
    if (scored && plan.step_value == STEP_VALUE_RETURN_TO_GO && is_given(batch.step_offsets)) {
        if (batch.process == PROCESS_RETURNS && is_first_thread()) list.values[list.count - 1] = returned_outcome(args, plan, w.i);
        if (threadIdx.x < (u32)streams) returns_to_go(list_of<f32>(args, args.work.elements, (i32)threadIdx.x, w.e), list.count, plan.step_gamma);
        __syncthreads();
    }
    if (scored) {
        w.kept.state |= STATE_HAS_PROCESS;
        w.kept.elements = (u32)list.count;
        if (plan.pool == POOL_TOKENS) {
            u32* weights = list_of<u32>(args.work.weights, w.e);
            for (i64 j = threadIdx.x; j < list.count; j += blockDim.x) {
                i64 begin = form != FORM_DENSE ? (i64)list.begin[j] : j > 0 ? (i64)last[j - 1] + 1 : 0, end = form != FORM_DENSE ? (i64)list.end[j] : (i64)last[j] + 1;
                weights[j] = (u32)count_in(w.scope, begin, end);
            }
        }
    }
    if (form == FORM_DENSE && (plan.chunk == CHUNK_BY_VALUE || plan.chunk == CHUNK_STEP)) {
        // The detector's runs are steps and chunks in one.
        w.kept.state |= STATE_ONE_LIST;
        w.kept.chunks = (u32)list.count;
    } else {
        __syncthreads();
        w.kept.chunks = (u32)block_chunks(args, plan, w, list, form, last);
    }
    if (!scored) return;
    auto token_value = [&](i32 p, i64 t) {
        return dense ? signal_value(args, plan, w.e, p, t) : list_of<f32>(args, args.work.elements, p, w.e)[listed_step(list.end, list.count, t)];
    };
    bool keyed = is_given(batch.step_group), values = plan.has_values && !(w.kept.state & STATE_ONE_LIST);
    for (i64 k = threadIdx.x; (values || keyed) && k < (i64)w.kept.chunks; k += blockDim.x) {
        for (i32 p = 0; values && p < streams; ++p) list_of<f32>(args, args.work.values, p, w.e)[k] = token_value(p, last[k]);
        if (keyed) list_of<u32>(args.work.chunk_steps, w.e)[k] = (u32)listed_step(list.end, list.count, last[k]);
    }
    if (!plan.has_token_values) return;
    i64 before = 0;
    for (i64 tile = first_tile(w.scope); tile < w.scope.end; tile += blockDim.x) {
        i64 t = tile + threadIdx.x;
        bool in = contains(w.scope, t);
        Rank rank = block_rank(in);
        for (i32 p = 0; in && p < streams; ++p) list_of<f32>(args, args.work.token_values, p, w.e)[before + rank.before] = token_value(p, t);
        before += rank.total;
    }
}

// The shaped reward of every element, chunk and token (fusion `reward_shaping`): once the rollout's KL is known. The block.
INLINE void block_shape_lists(const Args& args, const PlanConstants& plan, const Work& w) {
    if (!plan.shaped || plan.kind == KIND_KL || !(w.kept.state & STATE_HAS_PROCESS)) return;
    ShapedReward by = shaped_reward(args, plan, w.i);
    auto map = [&](u64 lists, u32 count) {
        const f32* from = list_of<f32>(args, lists, 0, w.e);
        f32* to = list_of<f32>(args, lists, 1, w.e);
        for (u32 j = threadIdx.x; j < count; j += blockDim.x) to[j] = shaped(by, from[j]);
    };
    __syncthreads();
    map(args.work.elements, w.kept.elements);
    if (!(w.kept.state & STATE_ONE_LIST) && plan.has_values) map(args.work.values, w.kept.chunks);
    if (plan.has_token_values) map(args.work.token_values, w.kept.count);
    __syncthreads();
}

#endif
