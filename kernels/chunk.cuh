// Chunk-by-Value (eq. 6, Algorithm 2) and its rivals: where the chunks of a rollout end (src/backend/cpu/chunk.rs). Lists hold the last in-scope token of
// each chunk, in order: the block looks at a tile of tokens at a time and places what it finds by a count over the block.
#ifndef PASSRL_CHUNK_CUH
#define PASSRL_CHUNK_CUH
#include "steps.cuh"

// Is there an edge between two values? NaN is one, so that it lands in the lists.
INLINE bool is_edge(f32 a, f32 b, f64 eta) {
    f64 distance = absolute((f64)b - (f64)a);
    return distance > eta || is_nan(distance);
}

// A value that one thread has found, in every thread.
INLINE i64 block_value(i64 v) {
    SHARED(i64, value_of_first, [1]);
    __syncthreads();
    if (is_first_thread()) value_of_first[0] = v;
    __syncthreads();
    return value_of_first[0];
}

// First position of the tiles that cover the scope: a multiple of 32, so that a warp's tokens are one word.
INLINE i64 first_tile(const Scope& scope) { return scope.first & ~(i64)31; }

// The in-scope token before t, -1 for the first; `carry` goes from tile to tile (-1 at the beginning). The block; only tokens in scope are told right.
INLINE i64 block_token_before(const Scope& scope, i64 t, bool in, i64& carry) {
    if (!has_holes(scope)) return t - 1 >= scope.first ? t - 1 : -1;
    Previous previous = block_previous(in, t, carry);
    carry = previous.all;
    return previous.before;
}

// Chunks that end where `cut(a, b)` stands between consecutive tokens a < b in scope; returns how many. With a barrier at the end.
template <class Cut> INLINE i64 block_chunks_where(const Scope& scope, u32* last, Cut cut) {
    i64 count = 0, carry = -1;
    for (i64 tile = first_tile(scope); tile < scope.end; tile += blockDim.x) {
        i64 t = tile + threadIdx.x;
        bool in = contains(scope, t);
        i64 before = block_token_before(scope, t, in, carry);
        bool ends = in && before >= 0 && cut(before, t);
        Rank rank = block_rank(ends);
        if (ends) last[count + rank.before] = (u32)before;
        count += rank.total;
    }
    if (scope.count > 0) {
        if (is_first_thread()) last[count] = (u32)(scope.end - 1);
        ++count;
    }
    __syncthreads();
    return count;
}

// The same where what decides is the chunk's first token: `cut(anchor, a, b)`. One after the other, by one thread.
template <class Cut> INLINE i64 block_chunks_anchored(const Scope& scope, u32* last, Cut cut) {
    i64 count = 0;
    if (is_first_thread()) {
        i64 anchor = -1, before = -1;
        for (i64 t = scope.first; t < scope.end; ++t) {
            if (!contains(scope, t)) continue;
            if (anchor < 0) {
                anchor = t;
            } else if (cut(anchor, before, t)) {
                last[count++] = (u32)before;
                anchor = t;
            }
            before = t;
        }
        if (before >= 0) last[count++] = (u32)before;
    }
    return block_value(count);
}

// Chunks of the tokens in scope for which `ends(t)` holds, the last one in any case.
template <class Ends> INLINE i64 block_chunks_after(const Scope& scope, u32* last, Ends ends) {
    i64 count = 0;
    for (i64 tile = first_tile(scope); tile < scope.end; tile += blockDim.x) {
        i64 t = tile + threadIdx.x;
        bool listed = contains(scope, t) && (t + 1 == scope.end || ends(t));
        Rank rank = block_rank(listed);
        if (listed) last[count + rank.before] = (u32)t;
        count += rank.total;
    }
    __syncthreads();
    return count;
}

// A chunk a maximal run of tokens in scope: a turn.
OUT_OF_LINE i64 block_chunks_segment(const Scope& scope, u32* last) {
    return block_chunks_after(scope, last, [&](i64 t) { return !contains(scope, t + 1); });
}
// A chunk a token.
OUT_OF_LINE i64 block_chunks_token(const Scope& scope, u32* last) {
    return block_chunks_after(scope, last, [](i64) { return true; });
}
// One chunk of all tokens in scope.
INLINE i64 block_chunks_whole(const Scope& scope, u32* last) {
    if (scope.count > 0 && is_first_thread()) last[0] = (u32)(scope.end - 1);
    __syncthreads();
    return scope.count > 0 ? 1 : 0;
}
// The caller's chunks: a nonzero mark ends one after the last token in scope up to it, if there is one since the mark before; so does the last token.
OUT_OF_LINE i64 block_chunks_given(const Args& args, const Extent& e, const Scope& scope, u32* last) {
    const Array& marks = args.batch.chunk_marks;
    i64 count = 0, token_carry = -1, mark_carry = -1;
    for (i64 tile = first_tile(scope); tile < scope.end; tile += blockDim.x) {
        i64 t = tile + threadIdx.x;
        bool in = contains(scope, t), within = t >= scope.first && t < scope.end;
        bool mark = within && (t + 1 == scope.end || load_flag(marks, at(e, marks, t)));
        Previous token = block_previous(in, t, token_carry), before = block_previous(mark, t, mark_carry);
        bool ends = mark && token.with > before.before;
        Rank rank = block_rank(ends);
        if (ends) last[count + rank.before] = (u32)token.with;
        count += rank.total;
        token_carry = token.all;
        mark_carry = before.all;
    }
    __syncthreads();
    return count;
}

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
INLINE bool has_token_values(Form form) { return form == FORM_DENSE || form == FORM_DENSE_WITH_ENDS; }

// A rollout's listed steps: begins and ends, how many, and where the first process stream's values of theirs lie.
struct StepList {
    u32 *begin, *end;
    f32* values;
    i64 count;
};

// Chunk-by-Value over listed steps of a value each, adjacent rule, a scope without holes: step after step, without a look at the tokens, as nothing lies
// between two steps' tokens.
OUT_OF_LINE i64 block_chunks_by_step_value(const Args& args, const Scope& scope, const StepList& list, u32* last) {
    const PlanConstants& plan = plan_of(args);
    i64 count = 0;
    for (i64 tile = 1; tile < list.count; tile += blockDim.x) {
        i64 j = tile + threadIdx.x;
        bool ends = j < list.count && (!plan.merge_equal_steps || is_edge(list.values[j - 1], list.values[j], plan.eta));
        Rank rank = block_rank(ends);
        if (ends) last[count + rank.before] = (u32)smaller((i64)list.end[j - 1], scope.end) - 1;
        count += rank.total;
    }
    if (scope.count > 0) {
        if (is_first_thread()) last[count] = (u32)(scope.end - 1);
        ++count;
    }
    __syncthreads();
    return count;
}

// Chunk-by-Value over listed steps. `uniform`: a value a step; else the signal has one a token.
OUT_OF_LINE i64 block_chunks_by_value(const Args& args, const Extent& e, const Scope& scope, const StepList& list, bool uniform, u32* last) {
    const PlanConstants& plan = plan_of(args);
    auto cut = [&](i64 anchor, i64 a, i64 b) {
        if (b - a > 1 && !plan.bridge_scope_gaps) return true;
        i64 step = listed_step(list.end, list.count, b);
        bool other = a < (i64)list.begin[step];
        if (other && !plan.merge_equal_steps) return true;
        if (!uniform) return is_edge(signal_value(args, plan, e, 0, anchor), signal_value(args, plan, e, 0, b), plan.eta);
        // Within a run of a step's tokens nothing is compared.
        if (!other && b - a == 1) return false;
        return is_edge(list.values[listed_step(list.end, list.count, anchor)], list.values[step], plan.eta);
    };
    if (plan.boundary_rule == BOUNDARY_ANCHORED) return block_chunks_anchored(scope, last, cut);
    return block_chunks_where(scope, last, [&](i64 a, i64 b) { return cut(a, a, b); });
}

// Runs of equal values of a signal without steps: they are steps and chunks in one, listed with the value at the run's last token. Each value is read once: the
// one before comes from a neighbour.
// Of tokens low .. high alone where these are not all. (A rollout has less than 2^31 tokens: numbers of 32 bits take half the registers.)
OUT_OF_LINE i64 block_runs(const Args& args, const Extent& e, const Scope& scope, i32 low, i32 high, u32* last, f32* values) {
    const PlanConstants& plan = plan_of(args);
    const f64 eta = plan.eta;
    const bool bridges = plan.bridge_scope_gaps;
    const Array& signal = args.batch.signal[0];
    // What is found is few and far between: it is gathered, and put into the lists side by side.
    SHARED(u32, tokens_at_hand, [2 * MOST_THREADS + 1]);
    SHARED(f32, values_at_hand, [2 * MOST_THREADS + 1]);
    SHARED(f32, edges, [2][MOST_WARPS]);
    i32 round = 0;
    bool carried = false;
    i32 count = 0, held = 0;
    i32 carry = -1;
    auto put = [&] {
        __syncthreads();
        for (i32 j = (i32)threadIdx.x; j < held; j += (i32)blockDim.x) {
            last[count + j] = tokens_at_hand[j];
            values[count + j] = values_at_hand[j];
        }
        count += held;
        held = 0;
    };
    // Only bits of a scope with holes ask for tiles of their words.
    const i32 lead = args.batch.process == PROCESS_SIGNAL ? (i32)sector_lead(signal, at(e, signal, low), token_stride(e, signal)) : 0;
    for (i32 tile = has_holes(scope) ? (i32)first_tile(scope) : low - lead; tile < high; tile = next_below(tile, blockDim.x, high)) {
        // (Beyond the last number it is below 0, where no token is.)
        const i32 t = (i32)((u32)tile + threadIdx.x);
        // What lies before `low` in its sector is compared with.
        const bool there = contains(scope, t) && t < high, in = there && t >= low;
        i64 carried_token = carry;
        const i32 before = (i32)block_token_before(scope, t, in, carried_token);
        carry = (i32)carried_token;
        f32 x = there ? signal_value(args, plan, e, 0, t) : 0.0f;
        f32 y;
        if (!has_holes(scope)) {
            // A warp's first token is compared with the last one of the warp before, or of the tile before.
            if (lane() == 31) edges[round][warp()] = x;
            __syncthreads();
            y = __shfl_up_sync(WARP, x, 1);
            if (lane() == 0 && (warp() > 0 || carried)) y = warp() > 0 ? edges[round][warp() - 1] : edges[round ^ 1][warps() - 1];
            else if (lane() == 0 && in && before >= 0) y = signal_value(args, plan, e, 0, before);
            carried = true;
            round ^= 1;
        } else {
            const i32 from = before - (t - lane());
            y = __shfl_sync(WARP, x, from >= 0 ? from : 0);
            if (in && before >= 0 && from < 0) y = signal_value(args, plan, e, 0, before);
        }
        bool ends = in && before >= 0 && ((t - before > 1 && !bridges) || is_edge(y, x, eta));
        Rank rank = block_rank(ends);
        if (ends) {
            tokens_at_hand[held + rank.before] = (u32)before;
            values_at_hand[held + rank.before] = y;
        }
        held += (i32)rank.total;
        // The last run ends with the scope.
        if (in && t + 1 == scope.end) {
            tokens_at_hand[held] = (u32)t;
            values_at_hand[held] = x;
        }
        // (Not after the last tile, beside whose ends that of the scope stands.)
        if (held > MOST_THREADS && next_below(tile, blockDim.x, high) < high) put();
    }
    if (scope.count > 0 && high == scope.end) ++held;
    put();
    __syncthreads();
    return count;
}
// The same by the anchored rule.
OUT_OF_LINE i64 block_runs_anchored(const Args& args, const Extent& e, const Scope& scope, u32* last) {
    const PlanConstants& plan = plan_of(args);
    return block_chunks_anchored(scope, last, [&](i64 anchor, i64 a, i64 b) {
        return (b - a > 1 && !plan.bridge_scope_gaps) || is_edge(signal_value(args, plan, e, 0, anchor), signal_value(args, plan, e, 0, b), plan.eta);
    });
}

#endif
