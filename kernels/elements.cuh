// What a rollout is made of: its scope, its steps (the elements of the process sets) and, for prm and outcome-only input, its chunks
// (src/backend/cpu/prepare.rs). One block a rollout; what is kept lies in lists at the rollout's slots, what its threads share in a Room.
#ifndef PASSRL_ELEMENTS_CUH
#define PASSRL_ELEMENTS_CUH
#include "chunk.cuh"
#include "group_stats.cuh"
#include "parts.cuh"

constexpr i64 STEPS_AT_HAND = 512;
// What the threads of a rollout's block share beside its `shared_work`. The first one writes, between barriers.
struct Room {
    // The rollout, or a part of it.
    Task task;
    StepRange steps;
    // Ends of the first steps (`block_steps_fit`), and the maxima of the first list where it is made in a way that knows them.
    u32 ends[STEPS_AT_HAND];
    Extremes extremes;
    bool has_extremes;
    StepList list;
    Form form;
    // Does the caller's begins leave tokens between steps? MODE_IN_PLACE: has each step a token?
    bool between, filled;
    // Do the rollout's steps fit into it?
    bool fits;
    // Bits that threads have found (`note_found`).
    u32 found;
};

INLINE Room& shared_room() {
    SHARED(Room, room_of_block, [1]);
    return room_of_block[0];
}

// Bits that each thread finds by itself, until the block joins them: ROLLOUT_* flags, and above them of each process stream p an infinity and (where that is an
// error) a NaN that no list may come to hold.
constexpr u32 UNLISTED_INFINITE = 1u << 16, UNLISTED_NAN = 1u << 20;

// They are seldom any.
INLINE void note_found(Room& room, u32 found) {
    if (found) atomicOr(&room.found, found);
}

// The scope of the words that the block has written, for all to see.
INLINE void take_scope(Room& room, const Scope& scope) {
    __syncthreads();
    if (is_first_thread()) shared_work().scope = scope;
    __syncthreads();
}

// Tokens of the mask and of the steps, without those whose value of the first stream is missing (`exclude`); counts missing and low values. Returns bits found.
OUT_OF_LINE u32 read_scope(const Args& args, Room& room) {
    const PlanConstants& plan = plan_of(args);
    const Batch& batch = args.batch;
    const Extent& e = shared_work().e;
    bool logps = batch.process == PROCESS_LOGPROBS, counting = args.mode & MODE_COUNTING;
    bool reads = has_token_values(room.form) || room.form == FORM_TOKENS || (room.form == FORM_SCORED && logps);
    bool masked = is_given(batch.mask), drops = reads && batch.num_process > 0 && plan.streams[0].missing == MISSING_EXCLUDE;
    // (Of kl in parts each part has counted its own: kl_parts.cuh.)
    bool looks = reads && counting && logps && !(plan.kind == KIND_KL && room.task.more > 0);
    for (i32 p = 0; reads && p < batch.num_process; ++p) looks = looks || plan.streams[p].missing != MISSING_ERROR;
    bool in_bits = masked || room.between || drops;
    if (!in_bits && !looks) {
        take_scope(room, span_scope(0, e.len));
        return 0;
    }
    u32* bits = scope_words(args, shared_work().i, e);
    u32 found = 0, count_missing = 0, count_low = 0;
    for (i64 tile = 0; tile < e.len; tile += blockDim.x) {
        i64 t = tile + threadIdx.x;
        bool in = t < e.len && (!masked || load_flag(batch.mask, at(e, batch.mask, t))) && (!room.between || in_a_step(args, room.steps, t));
        for (i32 p = 0; looks && in && p < batch.num_process; ++p) {
            i32 missing = plan.streams[p].missing;
            if (counting && logps) count_low += signal_low(args, e, t);
            if (missing == MISSING_ERROR || !signal_missing(args, e, p, t)) continue;
            found |= ROLLOUT_MISSING;
            ++count_missing;
            // Beside an infinite log-probability the value is that finding, not a missing one.
            if (p == 0 && drops && is_nan(signal_value(args, plan, e, 0, t))) in = false;
        }
        if (!in_bits) continue;
        u32 votes = __ballot_sync(WARP, in);
        if (lane() == 0 && t < e.len) bits[t / 32] = votes;
    }
    take_scope(room, in_bits ? block_scope_of(bits, e.len) : span_scope(0, e.len));
    if (counting) {
        add_counts_to(&counts_of(args).missing_values, count_missing);
        add_counts_to(&counts_of(args).low_logps, count_low);
    }
    return found;
}

// Bits for a scope that steps are taken out of, where it had none. The block.
INLINE u32* block_scope_bits(const Args& args, const Room& room) {
    u32* bits = scope_words(args, shared_work().i, shared_work().e);
    if (bits != shared_work().scope.bits) {
        block_fill_scope(bits, shared_work().e.len);
        __syncthreads();
    }
    return bits;
}

// CSR steps that have a token in scope, with their values; those whose value of the first stream is missing leave the scope. Returns bits found.
OUT_OF_LINE u32 list_csr_steps(const Args& args, Room& room) {
    const PlanConstants& plan = plan_of(args);
    const Batch& batch = args.batch;
    const Work& w = shared_work();
    i32 streams = room.form == FORM_STEPLESS ? 0 : batch.num_process;
    bool scores = batch.process == PROCESS_SCORES && streams > 0, sums = batch.process == PROCESS_LOGPROBS && room.form == FORM_SCORED;
    bool drops = scores && plan.streams[0].missing == MISSING_EXCLUDE, dropped = false;
    u32 missing = 0;
    i64 count = 0;
    for (i64 tile = room.steps.from; tile < room.steps.to; tile += blockDim.x) {
        i64 number = tile + threadIdx.x;
        bool listed = false;
        TokenRange range = {0, 0};
        i64 last = -1;
        if (number < room.steps.to) {
            range = step_tokens(args, room.steps, number, w.e.len);
            last = last_in(w.scope, range.begin, range.end);
            listed = last >= 0;
        }
        if (listed && drops && is_nan(step_score(args, 0, number))) {
            // The other streams are not read in a step that leaves the scope.
            ++missing;
            listed = false;
            dropped = true;
        }
        Rank rank = block_rank(listed);
        i64 j = count + rank.before;
        if (listed) {
            room.list.begin[j] = (u32)range.begin;
            room.list.end[j] = (u32)range.end;
            if (is_given(batch.step_group)) list_of<i64>(args.work.step_keys, w.e)[j] = item_int(batch.step_group, number);
        }
        for (i32 p = 0; listed && !sums && p < streams; ++p) {
            f32 x = 0.0f;
            if (scores) {
                x = step_score(args, p, number);
                if (is_nan(x) && plan.streams[p].missing != MISSING_ERROR) {
                    ++missing;
                    if (plan.streams[p].missing == MISSING_ZERO) x = 0.0f;
                }
            } else if (room.form == FORM_DENSE_WITH_ENDS) {
                x = signal_value(args, plan, w.e, p, last);
            }
            list_of<f32>(args, args.work.elements, p, w.e)[j] = x;
        }
        count += rank.total;
    }
    if (__syncthreads_or(dropped)) {
        u32* bits = block_scope_bits(args, room);
        for (i64 number = room.steps.from + threadIdx.x; number < room.steps.to; number += blockDim.x) {
            if (!is_nan(step_score(args, 0, number))) continue;
            TokenRange range = step_tokens(args, room.steps, number, w.e.len);
            clear_scope(bits, range.begin, range.end);
        }
        take_scope(room, block_scope_of(bits, w.e.len));
    }
    if (is_first_thread()) room.list.count = count;
    __syncthreads();
    if (args.mode & MODE_COUNTING) add_counts_to(&counts_of(args).missing_values, missing);
    return missing > 0 ? ROLLOUT_MISSING : 0;
}

// Are the steps with a token in scope, as they are listed, the chunks too, and nothing else asked of them than their values?
INLINE bool steps_are_chunks(const Args& args, const PlanConstants& plan, const Room& room) {
    const Batch& batch = args.batch;
    const bool cut = plan.chunk == CHUNK_STEP || (plan.chunk == CHUNK_BY_VALUE && plan.boundary_rule == BOUNDARY_ADJACENT && !plan.merge_equal_steps);
    const bool plain = !is_given(batch.step_begins) && !is_given(batch.step_group) && plan.pool != POOL_TOKENS && !plan.has_token_values;
    return cut && plain && room.form == FORM_SCORED && batch.process == PROCESS_SCORES && plan.streams[0].missing != MISSING_EXCLUDE && !has_holes(shared_work().scope);
}
// Such steps, as one list with their last tokens in `last`; none is made where all have a token and the block that shapes keeps them at hand. Returns bits found.
OUT_OF_LINE u32 list_steps_as_chunks(const Args& args, Room& room) {
    const PlanConstants& plan = plan_of(args);
    const Batch& batch = args.batch;
    const Work& w = shared_work();
    u32* const last = list_of<u32>(args.work.last, w.e);
    const StepRange steps = room.steps;
    Extremes found = no_extremes();
    u32 missing = 0;
    i64 count = 0;
    const bool few = steps.to - steps.from <= STEPS_AT_HAND && w.scope.count == w.e.len && ((args.mode & MODE_WHOLE_GROUPS) || parts_beside_first(w.e.len) == 0);
    const bool in_place = (args.mode & MODE_IN_PLACE) && room.filled && few;
    f32* const first = list_of<f32>(args, args.work.elements, 0, w.e);
    auto end_of = [&](i64 j) { return j - steps.from < STEPS_AT_HAND ? (i64)room.ends[j - steps.from] : item_int(batch.step_ends, j); };
    for (i64 tile = steps.from; tile < steps.to; tile += blockDim.x) {
        const i64 number = tile + threadIdx.x;
        i64 token = -1;
        // The last step takes the tokens that follow.
        if (number < steps.to) token = last_in(w.scope, number == steps.from ? 0 : end_of(number - 1), number + 1 == steps.to ? w.e.len : end_of(number));
        const Rank rank = block_rank(token >= 0);
        const i64 j = count + rank.before;
        if (token >= 0 && !in_place) last[j] = (u32)token;
        for (i32 p = 0; token >= 0 && p < batch.num_process; ++p) {
            f32 x = step_score(args, p, number);
            if (is_nan(x) && plan.streams[p].missing != MISSING_ERROR) {
                ++missing;
                if (plan.streams[p].missing == MISSING_ZERO) x = 0.0f;
            }
            if (!in_place) (p == 0 ? first : list_of<f32>(args, args.work.elements, p, w.e))[j] = x;
            if (p == 0) extremes_push(found, x);
        }
        count += rank.total;
    }
    found = block_extremes(found);
    if (is_first_thread()) {
        room.list.count = count;
        room.extremes = found;
        room.has_extremes = plan.pool == POOL_STEPS && plan.step_value == STEP_VALUE_SCORE;
        if (in_place) shared_work().kept.state |= STATE_IN_PLACE;
    }
    __syncthreads();
    if (args.mode & MODE_COUNTING) add_counts_to(&counts_of(args).missing_values, missing);
    return missing > 0 ? ROLLOUT_MISSING : 0;
}

// Steps of the sparse form: a mark on an in-scope token ends a step with that token's value; tokens after the last mark belong to the last step. Returns bits
// found.
OUT_OF_LINE u32 list_sparse_steps(const Args& args, Room& room) {
    const PlanConstants& plan = plan_of(args);
    const Batch& batch = args.batch;
    const Work& w = shared_work();
    const Array& marks = batch.step_marks;
    u32* ends = room.list.end;
    bool sums = batch.process == PROCESS_LOGPROBS;
    // First where the marks are, then what they end: ends are placed in the list of ends and moved up where steps leave the scope.
    i64 count = 0;
    for (i64 tile = first_tile(w.scope); tile < w.scope.end; tile += blockDim.x) {
        i64 t = tile + threadIdx.x;
        bool marked = contains(w.scope, t) && load_flag(marks, at(w.e, marks, t));
        Rank rank = block_rank(marked);
        if (marked) ends[count + rank.before] = (u32)(t + 1);
        count += rank.total;
    }
    __syncthreads();
    const OtherMarks others = other_marks(args, w.i);
    const i64 tail_from = count > 0 ? (i64)ends[count - 1] : 0;
    u32* bits = 0;
    u32 missing = 0;
    i64 kept = 0;
    for (i64 tile = 0; tile < count; tile += blockDim.x) {
        i64 n = tile + threadIdx.x;
        bool listed = n < count, dropped = false;
        i64 t = listed ? (i64)ends[n] - 1 : 0;
        // Where steps have left, what stands before has moved down by as many places: the entry before this one is still what it was.
        i64 begin = listed && n > 0 ? (i64)ends[n - 1] : 0, end = n + 1 == count && !others.later ? w.e.len : t + 1;
        if (listed && !sums && signal_missing(args, w.e, 0, t) && plan.streams[0].missing == MISSING_EXCLUDE) {
            ++missing;
            listed = false;
            dropped = true;
        }
        Rank rank = block_rank(listed);
        i64 j = kept + rank.before;
        if (listed) {
            room.list.begin[j] = (u32)begin;
            ends[j] = (u32)end;
        }
        for (i32 p = 0; listed && !sums && p < batch.num_process; ++p) {
            if (plan.streams[p].missing != MISSING_ERROR && signal_missing(args, w.e, p, t)) ++missing;
            list_of<f32>(args, args.work.elements, p, w.e)[j] = signal_value(args, plan, w.e, p, t);
        }
        if (__syncthreads_or(dropped)) {
            if (!bits) bits = block_scope_bits(args, room);
            if (dropped) clear_scope(bits, begin, end);
        }
        kept += rank.total;
        __syncthreads();
    }
    if (bits) take_scope(room, block_scope_of(bits, w.e.len));
    if (is_first_thread()) {
        if (others.any && (others.later || count == 0) && count_in(w.scope, tail_from, w.e.len) > 0) {
            for (i32 p = 0; p < batch.num_process; ++p) list_of<f32>(args, args.work.elements, p, w.e)[kept] = next_marked(args, w.i, p);
            room.list.begin[kept] = (u32)tail_from;
            ends[kept++] = (u32)w.e.len;
        }
        room.list.count = kept;
    }
    __syncthreads();
    if (args.mode & MODE_COUNTING) add_counts_to(&counts_of(args).missing_values, missing);
    return missing > 0 ? ROLLOUT_MISSING : 0;
}

// Values that no list may come to hold: a NaN of the first stream makes a run of its own, others may lie inside a step. Returns bits found.
OUT_OF_LINE u32 look_at_unlisted(const Args& args, const Room& room) {
    const PlanConstants& plan = plan_of(args);
    const Work& w = shared_work();
    u32 found = 0, bad = 0;
    for (i64 t = w.scope.first + threadIdx.x; t < w.scope.end; t += blockDim.x) {
        if (!contains(w.scope, t)) continue;
        for (i32 p = room.form == FORM_DENSE ? 1 : 0; p < args.batch.num_process; ++p) {
            f32 x = signal_value(args, plan, w.e, p, t);
            bool nan = is_nan(x) && plan.streams[p].missing == MISSING_ERROR;
            if (!nan && !is_infinite(x)) continue;
            found |= (nan ? UNLISTED_NAN : UNLISTED_INFINITE) << p;
            ++bad;
        }
    }
    if (args.mode & MODE_COUNTING) add_counts_to(&counts_of(args).nonfinite_values, bad);
    return found;
}

// OPD with steps: a step's score is the exact sum over its tokens, a warp a step.
OUT_OF_LINE void sum_steps(const Args& args, const Room& room) {
    const PlanConstants& plan = plan_of(args);
    const Work& w = shared_work();
    for (i64 j = warp(); j < room.list.count; j += warps()) {
        f32 sum = warp_exact_sum(w.scope, room.list.begin[j], room.list.end[j], [&](i64 t) { return signal_value(args, plan, w.e, 0, t); });
        if (lane() == 0) room.list.values[j] = sum;
    }
    __syncthreads();
}

// `step_value = return_to_go`: a plain sequence from the last step, one thread a stream.
OUT_OF_LINE void return_steps(const Args& args, const Room& room) {
    const PlanConstants& plan = plan_of(args);
    if (args.batch.process == PROCESS_RETURNS && is_first_thread()) room.list.values[room.list.count - 1] = returned_outcome(args, plan, shared_work().i);
    if (threadIdx.x < (u32)args.batch.num_process)
        returns_to_go(list_of<f32>(args, args.work.elements, (i32)threadIdx.x, shared_work().e), room.list.count, plan.step_gamma);
    __syncthreads();
}

// Of a rollout in parts the signal is dense, each token is in scope, and each part lists its runs at its own slots. Lists those of this part; true: of all parts this
// is the last that is done, and their lists are one. The block.
constexpr i32 QUEUE_PREPARE = 1;
OUT_OF_LINE bool list_part(const Args& args, Room& room) {
    const Task& task = room.task;
    const Extent& e = shared_work().e;
    // (The lists of steps are not asked for. Each is formed where it is asked for: no register keeps it over a call.)
    auto tokens = [&] { return list_of<u32>(args.work.step_begin, e); };
    auto values = [&] { return list_of<f32>(args.work.step_end, e); };
    auto low = [&] { return task.number * part_size(); };
    const i64 own = block_runs(args, e, span_scope(0, e.len), (i32)low(), (i32)smaller(low() + part_size(), e.len), tokens() + low(), values() + low());
    // (How many the first part has stands with the second.)
    if (is_first_thread()) {
        Part& to = part_of(args, QUEUE_PREPARE, larger(task.place, task.first));
        if (task.place < 0) to.totals.tokens = (u32)own;
        else to.count = (u32)own;
    }
    __threadfence();
    __syncthreads();
    const bool is_last = is_first_thread() && (i64)atomicAdd(part_state(args, QUEUE_PREPARE, task.first), 1u) == task.more;
    if (!__syncthreads_or(is_last)) return false;
    __threadfence();
    u32* const last = list_of<u32>(args.work.last, e);
    f32* const elements = list_of<f32>(args.work.elements, e);
    Extremes found = no_extremes();
    i64 to = 0;
    // Lanes hold how many 32 parts have; a warp copies every n-th part.
    for (i64 base = 0; base <= task.more; base += 32) {
        const i64 k = base + lane();
        const Part& part = part_of(args, QUEUE_PREPARE, task.first + larger(k - 1, (i64)0));
        u32 count = 0;
        if (k <= task.more) count = k == 0 ? *(const volatile u32*)&part.totals.tokens : *(const volatile u32*)&part.count;
        u32 with = count;
        for (i32 d = 1; d < 32; d <<= 1) {
            const u32 before = __shfl_up_sync(WARP, with, d);
            with += lane() >= d ? before : 0;
        }
        for (i32 p = warp(); p < 32; p += warps()) {
            const i64 n = __shfl_sync(WARP, count, p), at = to + __shfl_sync(WARP, with, p) - n, from = (base + p) * part_size();
            const u32* const own_tokens = tokens() + from;
            const f32* const own_values = values() + from;
            for (i64 j = lane(); j < n; j += 32) {
                const f32 x = own_values[j];
                last[at + j] = own_tokens[j];
                elements[at + j] = x;
                extremes_push(found, x);
            }
        }
        to += __shfl_sync(WARP, with, 31);
    }
    found = block_extremes(found);
    if (is_first_thread()) {
        room.list.count = to;
        room.extremes = found;
        room.has_extremes = plan_of(args).pool == POOL_STEPS;
    }
    __syncthreads();
    return true;
}

// Lists the runs of a signal without steps; their ends are in `last`.
OUT_OF_LINE void list_runs(const Args& args, Room& room) {
    const PlanConstants& plan = plan_of(args);
    const Work& w = shared_work();
    auto anchored = [&] { return plan.boundary_rule == BOUNDARY_ANCHORED; };
    i64 count = room.list.count;
    if (anchored()) count = block_runs_anchored(args, w.e, w.scope, list_of<u32>(args.work.last, w.e));
    else if (room.task.more == 0) count = block_runs(args, w.e, w.scope, (i32)w.scope.first, (i32)w.scope.end, list_of<u32>(args.work.last, w.e), room.list.values);
    const u32* const last = list_of<u32>(args.work.last, w.e);
    // (block_runs has listed the first stream's.)
    for (i64 j = threadIdx.x; j < count; j += blockDim.x) {
        for (i32 p = anchored() ? 0 : 1; p < args.batch.num_process; ++p) list_of<f32>(args, args.work.elements, p, w.e)[j] = signal_value(args, plan, w.e, p, last[j]);
    }
    if (is_first_thread()) room.list.count = count;
    __syncthreads();
}

// `pool = tokens`: how many tokens in scope each step has.
OUT_OF_LINE void weigh_steps(const Args& args, const Room& room) {
    const Work& w = shared_work();
    const u32* const last = list_of<u32>(args.work.last, w.e);
    u32* weights = list_of<u32>(args.work.weights, w.e);
    bool runs = room.form == FORM_DENSE;
    for (i64 j = threadIdx.x; j < room.list.count; j += blockDim.x) {
        i64 begin = !runs ? (i64)room.list.begin[j] : j > 0 ? (i64)last[j - 1] + 1 : 0, end = !runs ? (i64)room.list.end[j] : (i64)last[j] + 1;
        weights[j] = (u32)count_in(w.scope, begin, end);
    }
    __syncthreads();
}

// Chunks of a rollout whose steps are listed; with a barrier at the end.
OUT_OF_LINE i64 list_chunks(const Args& args, const Room& room) {
    const PlanConstants& plan = plan_of(args);
    const Work& w = shared_work();
    u32* const last = list_of<u32>(args.work.last, w.e);
    const StepList& list = room.list;
    if (plan.chunk == CHUNK_BY_VALUE && room.form != FORM_STEPLESS && list.count > 0) {
        bool uniform = room.form != FORM_DENSE_WITH_ENDS;
        if (uniform && plan.boundary_rule == BOUNDARY_ADJACENT && !has_holes(w.scope)) return block_chunks_by_step_value(args, w.scope, list, last);
        return block_chunks_by_value(args, w.e, w.scope, list, uniform, last);
    }
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

// The process values of each chunk, its step (`step_sets`), and the values of each token in scope (`chunk_value = mean`).
OUT_OF_LINE void list_values(const Args& args, const Room& room) {
    const PlanConstants& plan = plan_of(args);
    const Work& w = shared_work();
    const u32* const last = list_of<u32>(args.work.last, w.e);
    const bool values = plan.has_values && !(w.kept.state & STATE_ONE_LIST);
    i32 streams = args.batch.num_process;
    auto token_value = [&](i32 p, i64 t) {
        if (has_token_values(room.form)) return signal_value(args, plan, w.e, p, t);
        return list_of<f32>(args, args.work.elements, p, w.e)[listed_step(room.list.end, room.list.count, t)];
    };
    bool keyed = is_given(args.batch.step_group);
    for (u32 k = threadIdx.x; (values || keyed) && k < w.kept.chunks; k += blockDim.x) {
        for (i32 p = 0; values && p < streams; ++p) list_of<f32>(args, args.work.values, p, w.e)[k] = token_value(p, last[k]);
        if (keyed) list_of<u32>(args.work.chunk_steps, w.e)[k] = (u32)listed_step(room.list.end, room.list.count, last[k]);
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

// Lists the steps that have a token in scope, with their values, and the chunks. prm and outcome-only input.
INLINE void list_elements_and_chunks(const Args& args, Room& room) {
    const PlanConstants& plan = plan_of(args);
    const Batch& batch = args.batch;
    Work& w = shared_work();
    if (is_first_thread()) {
        room.list = StepList{list_of<u32>(args.work.step_begin, w.e), list_of<u32>(args.work.step_end, w.e), list_of<f32>(args.work.elements, w.e), room.task.more > 0 ? room.list.count : 0};
    }
    __syncthreads();
    auto as_chunks = [&] { return steps_are_chunks(args, plan, room); };
    if (room.form == FORM_DENSE_WITH_ENDS || (room.form == FORM_DENSE && batch.num_process > 1)) note_found(room, look_at_unlisted(args, room));
    if (as_chunks()) note_found(room, list_steps_as_chunks(args, room));
    else if (room.form == FORM_DENSE) list_runs(args, room);
    else if (room.form == FORM_SCORED && is_given(batch.step_marks)) note_found(room, list_sparse_steps(args, room));
    else if (room.form != FORM_STEPLESS || is_given(batch.step_offsets)) note_found(room, list_csr_steps(args, room));
    if (room.form == FORM_SCORED && batch.process == PROCESS_LOGPROBS) sum_steps(args, room);
    auto scored = [&] { return room.form != FORM_STEPLESS && room.list.count > 0; };
    if (scored() && plan.step_value == STEP_VALUE_RETURN_TO_GO && is_given(batch.step_offsets)) return_steps(args, room);
    if (scored() && plan.pool == POOL_TOKENS) weigh_steps(args, room);
    // The detector's runs are steps and chunks in one.
    auto one_list = [&] { return as_chunks() || (room.form == FORM_DENSE && (plan.chunk == CHUNK_BY_VALUE || plan.chunk == CHUNK_STEP)); };
    const i64 chunks = one_list() ? room.list.count : list_chunks(args, room);
    if (is_first_thread()) {
        w.kept.state |= (one_list() ? STATE_ONE_LIST : 0) | (scored() ? STATE_HAS_PROCESS : 0);
        w.kept.elements = scored() ? (u32)room.list.count : 0;
        w.kept.chunks = (u32)chunks;
    }
    __syncthreads();
    const bool values = plan.has_values && !(w.kept.state & STATE_ONE_LIST);
    if (scored() && (values || plan.has_token_values || is_given(batch.step_group))) list_values(args, room);
}

#endif
