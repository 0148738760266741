// One rollout from its chunks to its outputs: decide, fuse, credit, divide, post, write; and the group whose number is the block's. Twin of shape.rs and of
// `group_shape` in group.rs.
#ifndef PASSRL_SHAPE_CUH
#define PASSRL_SHAPE_CUH
#include "credit.cuh"
#include "gae.cuh"
#include "ranks.cuh"
#include "shape_parts.cuh"
#include "vtrace.cuh"

// Chunk values in f, advantages in d, returns in v: a value a chunk (gae over tokens, vtrace: a token). The block meets at the end.
INLINE void credited(const Args& args, ShapeRoom& room) {
    const PlanConstants& plan = plan_of(args);
    const Shaping& w = room.work;
    if (plan.spreads) gap_rewards(args, w, shared_decision(), room.terms);
    prepare_fusion(args, w, room.terms, room.fusion);
    add_noted(args, room.fusion.lost);
    if (fuses_means(args, w, room.terms, room.fusion)) fuse_means(args, w, room.terms, room.fusion);
    else fuse(args, w, room.terms, room.fusion);
    if (plan.credit == CREDIT_GAE && plan.gae_over == GAE_OVER_TOKENS) gae(args, w, room.tops);
    else if (plan.credit == CREDIT_GAE) gae_over_chunks(args, w, room.tops);
    else if (plan.credit == CREDIT_VTRACE) vtrace(args, w);
    else credit(args, w, room.terms, room.tops);
}

// Where rollout i lies and what is kept of it, read by one thread for all. The block.
INLINE void read_rollout(const Args& args, i64 i, ShapeRoom& room) {
    __syncthreads();
    if (is_first_thread()) {
        room.work.kept = rollout_of(args, i);
        room.work.e = extent(args, i);
    }
    __syncthreads();
}

// Is a rollout's way from its chunks' values to its results one scan, with nothing taken or added between?
INLINE bool is_one_pass(const Args& args, const Shaping& w) {
    const PlanConstants& plan = plan_of(args);
    const bool plain = (plan.credit == CREDIT_RETURN_TO_GO || plan.credit == CREDIT_BROADCAST) && !plan.spreads && plan.divide_scope == DIVIDE_ALL &&
                       plan.chunk_value == CHUNK_VALUE_LAST;
    const bool beside = is_given(args.batch.token_rewards) || is_given(args.batch.sum_pi_squared) || (is_given(args.batch.logp_reference) && plan.kl_by_token);
    return plain && !beside && !((w.kept.state & STATE_EVERY_TOKEN) && has_holes(w.scope));
}

// Lists rollout i's chunks where its kind is kl and lays out its work in shared memory. `decision` is of its group, or bad where it has none. `chunks`: where few
// of them lie, or 0.
OUT_OF_LINE void open_rollout(const Args& args, i64 i, ShapeRoom& room, Chunks* chunks) {
    const PlanConstants& plan = plan_of(args);
    const Extent& e = room.work.e;
    Rollout kept = room.work.kept;
    if (plan.kind == KIND_KL) {
        KlEdges edges;
        edges.none = true;
        if (plan.chunk == CHUNK_BY_VALUE && kept.group != NO_GROUP) edges = make_edges(args, kept.group, shared_decision());
        kl_chunks(args, i, e, kept_scope(args, i, e, kept), edges, kept, list_of<u32>(args.work.last, e));
    }
    if (shared_decision().bad) {
        kept.state |= STATE_ZEROED;
        if (!(kept.flags & ROLLOUT_ABSENT)) kept.flags |= ROLLOUT_IN_BAD_GROUP;
    }
    __syncthreads();
    if (is_first_thread()) {
        room.work = make_shaping(args, i, e, kept);
        room.path = 0.0;
        room.one_pass = is_one_pass(args, room.work);
        room.direct = room.one_pass && !(args.mode & (MODE_DRY | MODE_KEEP)) && lies_by_token(plan, kept) && !(kept.state & STATE_ZEROED);
    }
    if (chunks && kept.chunks <= CHUNKS_AT_HAND && !(kept.state & STATE_EVERY_TOKEN)) {
        __syncthreads();
        const u32* const last = list_of<u32>(args.work.last, e);
        const bool in_place = kept.state & STATE_IN_PLACE;
        for (u32 j = threadIdx.x; j < kept.chunks; j += blockDim.x) chunks->last[j] = in_place ? last_in_place(args, i, e, kept, j) : last[j];
        if (is_first_thread()) {
            if (in_place) room.work.scores = elements_of(args, i, e, kept, 0);
            room.work.d = chunks->d;
            room.work.last = chunks->last;
        }
    }
    __syncthreads();
}

// Decides for the group of a rollout, where it has one.
INLINE void decide_for(const Args& args, const Rollout& kept, Decision& decision) {
    if (kept.group != NO_GROUP) {
        decide(args, kept.group, decision);
        return;
    }
    __syncthreads();
    if (is_first_thread()) decision.bad = 1;
    __syncthreads();
}

// Whitening's shift and scale where the batch's statistics are known and the rollout takes part (`whitens`). The block.
INLINE void know_whitening(const Args& args, ShapeRoom& room) {
    if (is_first_thread()) {
        room.whitens = plan_of(args).whiten != WHITEN_NONE && !(room.work.kept.state & STATE_ZEROED);
        if (room.whitens) room.whitening = make_whitening(args);
    }
    __syncthreads();
}

// Is the one scan of a rollout the usual one: its chunks' values lie in one list, are shifted and scaled, and gain the same terms, the last one alone perhaps others?
INLINE bool is_plain(const Args& args, const ShapeRoom& room) {
    const PlanConstants& plan = plan_of(args);
    const bool listed = plan.kind != KIND_KL && !is_given(args.batch.step_group) && plan.credit == CREDIT_RETURN_TO_GO;
    return listed && !room.terms.gated && room.fusion.streams == 1 && room.fusion.applies[0].how == HOW_AFFINE;
}
// `shape_in_one_pass` (below) of such a rollout, after `prepare_fusion`: what a chunk needs is read before the loop, so that the longest rollout's block has little more to
// read than a value and a divisor a chunk. The block meets at the end.
OUT_OF_LINE void scan_plain(const Args& args, ShapeRoom& room) {
    const PlanConstants& plan = plan_of(args);
    const Shaping& w = room.work;
    const Terms& terms = room.terms;
    const i64 k = w.kept.chunks;
    const f32* const values = w.scores ? w.scores : list_of<f32>(args, w.kept.state & STATE_ONE_LIST ? args.work.elements : args.work.values, plan.shaped ? 1 : 0, w.e);
    const f64 shift = room.fusion.applies[0].a, scale = room.fusion.applies[0].b, weight = room.fusion.weights[0];
    const i32 every = terms.every_count;
    const f64 first_term = every > 0 ? terms.every[0] : 0.0, second_term = every > 1 ? terms.every[1] : 0.0;
    const f64* const far = plan.k != 0.0 ? (const f64*)plan.divisors + plan.max_rollout_tokens : 0;
    f64* const d = w.d;
    auto value = [&](i64 j) {
        f64 f = weight * (((f64)values[j] - shift) * scale);
        if (j + 1 == k) {
            f = chunk_value(room.fusion, terms, true, f);
        } else {
            if (every > 0) f += first_term;
            if (every > 1) f += second_term;
            for (i32 s = 2; s < every; s++) f += terms.every[s];
        }
        if (is_given(args.outputs.chunk_values)) w.f[j] = f;
        return f;
    };
    auto result = [&](i64 j, f64 g) {
        const i32 n = (i32)(k - j);
        const f64 a = !far ? g : g * (n <= NEAR_DIVISORS ? plan.near_divisors[n - 1] : far[-n]);
        if (is_given(args.outputs.returns)) w.v[j] = g;
        if (j == 0) room.path = a;
        d[j] = a;
    };
    if (plan.decay[1] == 1.0) scan_lines_by<true, false>([&] { return k; }, plan.decay, room.tops, value, result);
    else scan_lines_by<false, false>([&] { return k; }, plan.decay, room.tops, value, result);
}

// Standardises, fuses, accumulates and divides a chunk at a time, so that no list of chunk values is written and read again. Where every token is a chunk the
// result goes to its token at once (DIRECT): each position reads its own signal before it writes its own slot, so the output may lie over it. Otherwise
// results are in d. The block meets at the end.
template <bool DIRECT> OUT_OF_LINE void scan_chunks(const Args& args, ShapeRoom& room) {
    const PlanConstants& plan = plan_of(args);
    const Shaping& w = room.work;
    const Terms& terms = room.terms;
    FusedStreams& fusion = room.fusion;
    auto k = [&] { return (i64)w.kept.chunks; };
    Totals totals = no_totals();
    // What all threads share is read again for each chunk.
    auto value = [&](i64 j) {
        READ_AGAIN();
        f64 f;
        if (terms.gated) {
            f = j + 1 == k() ? terms.gated_last : terms.gated_every;
        } else {
            const u32 t = plan.kind != KIND_KL ? 0 : w.kept.state & STATE_EVERY_TOKEN ? (u32)(w.scope.first + j) : w.last[j];
            f = process_part(args, w, fusion, j, t);
            f = chunk_value(fusion, terms, j + 1 == k(), f);
        }
        if (is_given(args.outputs.chunk_values)) w.f[j] = f;
        return f;
    };
    auto result = [&](i64 j, f64 g) {
        READ_AGAIN();
        const f64 d = plan.k != 0.0 ? g * ((const f64*)plan.divisors)[plan.max_rollout_tokens - k() + j] : g;
        if (is_given(args.outputs.returns)) w.v[j] = g;
        if (j == 0) room.path = d;
        if (DIRECT) write_advantage(args, args.outputs.advantages, at(w.e, args.outputs.advantages, w.scope.first + j), room.whitens, room.whitening, plan.clip, tempered(plan, d), totals);
        else w.d[j] = d;
    };
    scan_lines_by<false, true>(k, plan.decay, room.tops, value, result, 0.0, plan.credit == CREDIT_RETURN_TO_GO);
    if (DIRECT) add_written(args, totals);
    add_noted(args, fusion.lost);
}
INLINE void shape_in_one_pass(const Args& args, ShapeRoom& room) {
    prepare_fusion(args, room.work, room.terms, room.fusion);
    add_noted(args, room.fusion.lost);
    if (room.direct) {
        know_whitening(args, room);
        scan_chunks<true>(args, room);
    } else if (is_plain(args, room)) {
        scan_plain(args, room);
    } else {
        scan_chunks<false>(args, room);
    }
}

// Zeros beside the tokens in scope, which have no holes.
INLINE void write_ends(const Args& args, const Shaping& w) {
    const Array& to = args.outputs.advantages;
    u64 none = 0;
    for (i64 t = THREAD_NUMBER(); t < w.e.len; t += blockDim.x)
        if (t < w.scope.first || t >= w.scope.end) store(to, at(w.e, to, t), 0.0, none);
    pad_advantages(args, w);
}

// The same in stages, each over all lines: advantages in d, as they are before the temperature.
INLINE void shape_in_stages(const Args& args, ShapeRoom& room) {
    const Shaping& w = room.work;
    credited(args, room);
    const i64 n = plan_of(args).credits_tokens ? (i64)w.kept.count : (i64)w.kept.chunks;
    if (is_first_thread() && n > 0) room.path = w.d[0];
    __syncthreads();
    if (is_given(args.batch.sum_pi_squared)) take_baseline(args, w);
    if (takes_kl(args, KL_PLACE_ADVANTAGE)) {
        each_in_scope(w.scope, [&](i64 t, i64 line) { w.d[line] -= kl_taken(args, w, t); });
        __syncthreads();
    }
}

// Divides the results in d by the temperature, where there is one, before they are kept or written. The block meets at the end.
OUT_OF_LINE void temper(const Args& args, const Shaping& w) {
    const PlanConstants& plan = plan_of(args);
    if (plan.temperature == 1.0) return;
    const i64 n = result_lines(plan, w.kept, w.last).count;
    for (i64 j = threadIdx.x; j < n; j += blockDim.x) w.d[j] = tempered(plan, w.d[j]);
    __syncthreads();
}

// Keeps a rollout's advantages, tempered, rounded to f32, for the whitening's statistics, and takes their maxima.
OUT_OF_LINE void keep_advantages(const Args& args, const Shaping& w, const Lines& lines, f64 path) {
    const PlanConstants& plan = plan_of(args);
    f32* const to = list_of<f32>(args.work.whitened, w.e);
    u64 none = 0;
    Extremes found = no_extremes();
    for (i64 j = threadIdx.x; j < lines.count; j += blockDim.x) {
        const f32 a = stored_f32(w.d[j], none);
        to[j] = a;
        extremes_push(found, a);
    }
    const f32 score = stored_f32(tempered(plan, path), none);
    if (is_first_thread()) ((f32*)args.work.paths)[w.i] = score;
    if (!whitens(w.kept) || (args.mode & MODE_KNOWN)) return;
    if (plan.whiten == WHITEN_ROLLOUTS) {
        found = no_extremes();
        extremes_push(found, score);
    } else {
        found = block_extremes(found);
    }
    if (is_first_thread()) max_extremes_to(args, whiten_keys(args), found);
}

// The advantages in d, tempered, to slots low .. high of their output; whitened where the batch's statistics are known.
OUT_OF_LINE void write_results(const Args& args, ShapeRoom& room, i64 low, i64 high) {
    const PlanConstants& plan = plan_of(args);
    const Shaping& w = room.work;
    know_whitening(args, room);
    add_written(args, write_slots(args, w.e, low, high, w.scope, result_lines(plan, w.kept, w.last), room.whitens, room.whitening, [&](i64 j) { return w.d[j]; }));
}

// A part of a rollout whose results another block has put into d, and the block's end. The block.
OUT_OF_LINE void write_part(const Args& args, ShapeRoom& room, const Task& task) {
    if (is_first_thread()) await_part(args, QUEUE_SHAPE, task.place, 1);
    read_rollout(args, task.item, room);
    if (is_first_thread()) room.work = make_shaping(args, task.item, room.work.e, room.work.kept);
    __syncthreads();
    const i64 low = task.number * part_size();
    write_results(args, room, low, smaller(low + part_size(), room.work.e.len));
    end_shape(args);
}

// Lets other blocks write the rollout's further parts, as its results are in d. The block.
INLINE void tell_parts(const Args& args, const Task& task, i64 places) {
    __threadfence();
    __syncthreads();
    for (i64 k = THREAD_NUMBER(); k < task.more && task.first + k < places; k += blockDim.x) tell_part(args, QUEUE_SHAPE, task.first + k, 1);
}

// Blocks of the grid that have a rollout or a group.
INLINE i64 shape_items(const Args& args) { return larger(larger(args.batch.rollouts, args.batch.groups), (i64)1); }

// Rollout i by its block; `decision` is of its group. STAGES: some rollout's way may be longer than one scan.
template <bool STAGES> INLINE void shape_rollout(const Args& args, i64 i, ShapeRoom& room, Chunks* chunks, const Task* task) {
    const PlanConstants& plan = plan_of(args);
    const Shaping& w = room.work;
    // (Read anew where they are asked for, so that they take no registers between.)
    auto keeps = [&] { return (args.mode & MODE_KEEP) != 0; };
    auto writes = [&] { return !(args.mode & MODE_DRY); };
    auto split = [&] { return !STAGES && task->more > 0; };
    auto lines = [&] { return result_lines(plan, w.kept, w.last); };
    open_rollout(args, i, room, split() ? 0 : chunks);
    if (w.kept.state & STATE_ZEROED) {
        for (i64 j = THREAD_NUMBER(); j < larger((i64)w.kept.chunks, lines().count); j += blockDim.x) w.f[j] = w.d[j] = w.v[j] = 0.0;
        __syncthreads();
    } else {
        rollout_terms(args, w, shared_decision(), room.terms);
        add_noted(args, room.terms.lost);
        if (!STAGES || room.one_pass) {
            shape_in_one_pass(args, room);
            if (room.direct) write_ends(args, w);
        } else {
            shape_in_stages(args, room);
        }
    }
    if (!room.direct) temper(args, w);
    if ((keeps() || split()) && is_first_thread()) rollout_of(args, w.i) = w.kept;
    if (keeps()) keep_advantages(args, w, lines(), room.path);
    if (writes()) side_outputs(args, w, room.path);
    if (writes() && !keeps() && !room.direct) {
        if (split()) tell_parts(args, *task, (i64)gridDim.x - shape_items(args));
        write_results(args, room, 0, split() ? part_size() : w.e.len);
        pad_advantages(args, w);
    }
}

// `token_baseline`: a rollout's weighted returns, before any rollout is shaped.
INLINE void weigh_rollout(const Args& args, i64 i, ShapeRoom& room) {
    read_rollout(args, i, room);
    const Rollout kept = room.work.kept;
    if (kept.group == NO_GROUP || !counts_in_baselines(kept) || marks_of(args, kept.group).counted < 2) return;
    decide(args, kept.group, shared_decision());
    if (shared_decision().bad) return;
    open_rollout(args, i, room, 0);
    const Shaping& w = room.work;
    rollout_terms(args, w, shared_decision(), room.terms);
    credited(args, room);
    weigh_returns(args, w);
}

// The group whose counts and outputs are those of block b, or -1: of groups of one size the one whose first rollout is the block's, so that one decision serves both.
INLINE i64 group_of_block(const Batch& batch, i64 b) {
    if (batch.grouping != GROUP_CONSTANT) return b < batch.groups ? b : -1;
    return b < batch.rollouts && b % batch.group_size == 0 ? b / batch.group_size : -1;
}

// Its decision, counts and outputs. The block.
INLINE void shape_group(const Args& args, u32 group, Decision& decision) {
    decide(args, group, decision);
    if (counts_of(args).bad_offsets) forget_sets(decision);
    if (!(args.mode & MODE_DRY)) group_outputs(args, decision);
    if ((args.mode & MODE_COUNTING) && is_first_thread()) count_group(args, decision);
}

// Block b: a group's counts and outputs, then rollout b. Of `task` (STAGES: 0) further blocks have parts of long rollouts.
template <bool STAGES> INLINE void shape_block(const Args& args, ShapeRoom* room, Chunks* chunks, Task* task) {
    // (Each is formed where it is asked for: no register keeps it over the stages.)
    auto bad_batch = [&] { return room[0].bad_batch; };
    auto writes = [&] { return !(args.mode & MODE_DRY); };
    auto places = [&] { return STAGES || bad_batch() ? 0 : (i64)gridDim.x - shape_items(args); };
    auto number = [&] { return STAGES ? (i64)BLOCK_NUMBER() : task[0].place < 0 ? task[0].item : 1ll << 62; };
    auto group = [&] { return writes() || (args.mode & MODE_COUNTING) ? group_of_block(args.batch, number()) : -1; };
    auto has_rollout = [&] { return number() < args.batch.rollouts; };
    auto is_further = [&] { return !STAGES && task[0].place >= 0; };
    // Of kl each part has its own chunks, elsewhere its tokens alone.
    auto is_kl_part = [&] { return !STAGES && plan_of(args).kind == KIND_KL && (is_further() ? task[0].there : places() > 0 && task[0].more > 0); };
    if (const i32 fault = ranks_fault(args)) {
        if (writes()) report_fault(args, fault);
        return;
    }
    if (is_first_thread()) {
        room[0].bad_batch = counts_of(args).bad_offsets != 0;
        if (!STAGES) take_task(args, QUEUE_SHAPE, shape_items(args), places(), task[0]);
    }
    __syncthreads();
    if (group() >= 0) shape_group(args, (u32)group(), shared_decision());
    if (bad_batch()) {
        shape_nothing(args);
        return end_shape(args);
    }
    if (!writes() && !(args.mode & MODE_KEEP)) return end_shape(args);
    if (has_rollout()) read_rollout(args, number(), room[0]);
    if (places() > 0 && !is_further()) {
        // (In bits a rollout is its block's alone: the host has no places then.)
        queue_parts(args, QUEUE_SHAPE, places(), parts_beside_first(has_rollout() ? room[0].work.e.len : 0), task[0]);
        __syncthreads();
    }
    if (is_further() && is_kl_part()) read_rollout(args, task[0].item, room[0]);
    if ((has_rollout() || is_kl_part()) && (group() < 0 || room[0].work.kept.group != (u32)group())) decide_for(args, room[0].work.kept, shared_decision());
    if (is_kl_part()) return shape_part(args, room[0], task[0], chunks->part);
    if (is_further() && task[0].there) return write_part(args, room[0], task[0]);
    if (has_rollout()) shape_rollout<STAGES>(args, number(), room[0], chunks, task);
    end_shape(args);
}

// Every estimator. (Token baselines weigh with the same code in an earlier launch.)
extern "C" __global__ void __launch_bounds__(MOST_THREADS, 2) passrl_shape(const __grid_constant__ Args given) {
    const Args& args = open_args(given);
    ShapeRoom* const room = &shared_shape_room();
    if (!(args.mode & MODE_WEIGH)) return shape_block<true>(args, room, 0, 0);
    if (!counts_of(args).bad_offsets) weigh_rollout(args, blockIdx.x, room[0]);
}

// What most runs ask for: the host knows that every rollout's way is one scan (`is_one_pass`), so that the code of the others takes no registers.
extern "C" __global__ void __launch_bounds__(MOST_THREADS, 2) passrl_shape_one_pass(const __grid_constant__ Args given) {
    const Args& args = open_args(given);
    ShapeRoom* const room = &shared_shape_room();
    shape_block<false>(args, room, &shared_chunks(), &shared_shape_task());
}

// Sums of the kept values on the grid that their maxima set.
extern "C" __global__ void __launch_bounds__(MOST_THREADS, 2) passrl_whiten_sums(const __grid_constant__ Args given) {
    const Args& args = open_args(given);
    const PlanConstants& plan = plan_of(args);
    const i64 i = blockIdx.x;
    const Rollout kept = rollout_of(args, i);
    if (counts_of(args).bad_offsets || ranks_fault(args) || !whitens(kept)) return;
    const Grid grid = grid_of(STEP_BITS, load_extremes(args, whiten_keys(args), 0).absmax);
    Sums own = no_sums();
    if (plan.whiten == WHITEN_ROLLOUTS) {
        if (is_first_thread() && is_head(args, i)) sums_push(own, grid, quantize(grid, ((const f32*)args.work.paths)[i]), 1);
    } else {
        const Extent e = extent(args, i);
        const f32* const values = list_of<f32>(args.work.whitened, e);
        const Lines lines = result_lines(plan, kept, list_of<u32>(args.work.last, e));
        const Scope scope = kept_scope(args, i, e, kept);
        if (!lines.every_token && has_holes(scope)) {
            each_slot(e.len, 0, scope, lines, [&](i64 j) { return (f64)values[j]; }, [&](i64, bool in, f64 a) {
                if (in) sums_push(own, grid, quantize(grid, (f32)a), 1);
            });
        } else {
            for (i64 j = threadIdx.x; j < lines.count; j += blockDim.x) {
                const i64 begin = j == 0 ? scope.first - 1 : (i64)lines.last[j - 1];
                sums_push(own, grid, quantize(grid, values[j]), lines.every_token ? 1 : (i64)lines.last[j] - begin);
            }
        }
    }
    own = block_sums(own);
    if (is_first_thread()) add_sums_to(whiten_words(args), own);
}

// Last pass of a whitened run: from the kept advantages to the output.
extern "C" __global__ void __launch_bounds__(MOST_THREADS, 2) passrl_whiten_write(const __grid_constant__ Args given) {
    const Args& args = open_args(given);
    SHARED(Whitening, whitening, [1]);
    // (What is the rollout's stands in shared memory, and is read where it is asked for.)
    Work& w = shared_work();
    Totals totals = no_totals();
    const bool there = !counts_of(args).bad_offsets && blockIdx.x < args.batch.rollouts;
    if (is_first_thread()) {
        whitening[0] = make_whitening(args);
        if (there) {
            w.i = blockIdx.x;
            w.kept = rollout_of(args, w.i);
            w.e = extent(args, w.i);
            w.scope = kept_scope(args, w.i, w.e, w.kept);
        }
    }
    __syncthreads();
    if (counts_of(args).bad_offsets) {
        zero_all(args, args.outputs.advantages);
    } else {
        if (BLOCK_NUMBER() < args.batch.rollouts)
            totals = write_advantages(args, w.e, w.scope, result_lines(plan_of(args), w.kept, list_of<u32>(args.work.last, w.e)),
                             !(w.kept.state & STATE_ZEROED), whitening[0], [&](i64 j) { return (f64)list_of<f32>(args.work.whitened, w.e)[j]; });
        if (plan_of(args).fill_padding) pad_ends(args, args.outputs.advantages);
    }
    add_totals(args, totals);
    finish_report(args);
}

#endif
