// Rollouts in pieces over calls or ranks: what a piece tells of its edges, and what it learns of the others' (does its last step, its last chunk go on there?). Twin of pieces.rs,
// and of prepare.cuh, whose stage it takes.
#ifndef PASSRL_PIECES_EDGES_CUH
#define PASSRL_PIECES_EDGES_CUH
#include "pieces_rows.cuh"
#include "prepare.cuh"
#include "shaping.cuh"

// Number, among the rollout's, of the step that has token t of the piece, plus 1; 0: the rollout has none.
INLINE i64 step_number_at(const Args& args, i64 i, const StepRange& steps, i64 t) {
    if (unit_of(args, i).steps == 0) return 0;
    i64 low = steps.from, high = steps.to;
    while (low < high) {
        const i64 middle = low + (high - low) / 2;
        if (item_int(args.batch.step_ends, middle) <= t) low = middle + 1;
        else high = middle;
    }
    return low < steps.to ? (i64)((const u32*)joint_of(args).step_numbers)[low] + 1 : 0;
}

// What a piece says of itself before anything is known of the others; in shared memory.
struct Edge {
    // The detector's values at the first and last token in scope; steps there, and before missing steps left the scope, plus 1.
    f32 detected[2];
    i64 steps[2], raw[2];
    // Sparse steps: marks in scope, the values of the first and the last by stream; is the last token in scope one?
    i64 marks, marked[MAX_PROCESS];
    bool marked_last;
    // Does the piece have a process value of its own?
    bool process;
};

// The detector's value at token t of a rollout with scores.
INLINE f32 detected_at(const Args& args, const Room& room, i64 t) {
    if (has_token_values(room.form)) return signal_value(args, plan_of(args), shared_work().e, 0, t);
    return room.list.values[listed_step(room.list.end, room.list.count, t)];
}

// Steps at the first and last token in scope as it is before missing steps leave it. The block.
INLINE void raw_steps(const Args& args, const Room& room, bool fits, Edge& edge) {
    const PlanConstants& plan = plan_of(args);
    const Batch& batch = args.batch;
    const Work& w = shared_work();
    i64 first = w.scope.first, last = w.scope.end - 1;
    const bool drops = fits && batch.process == PROCESS_SCORES && plan.streams[0].missing == MISSING_EXCLUDE;
    if (drops) {
        i64 before = 0, end = 0;
        for (i64 t = threadIdx.x; t < w.e.len; t += blockDim.x) {
            if ((is_given(batch.mask) && !load_flag(batch.mask, at(w.e, batch.mask, t))) || (room.between && !in_a_step(args, room.steps, t))) continue;
            before = larger(before, w.e.len - t);
            end = larger(end, t + 1);
        }
        first = w.e.len - block_max(before, (i64)0);
        last = block_max(end, (i64)0) - 1;
    }
    if (!is_first_thread()) return;
    const bool any = fits && is_given(batch.step_offsets) && plan.kind != KIND_KL && (drops ? last >= first && last >= 0 : w.scope.count > 0);
    edge.raw[0] = any ? step_number_at(args, w.i, room.steps, first) : 0;
    edge.raw[1] = any ? step_number_at(args, w.i, room.steps, last) : 0;
}

// Marks in scope. The block.
INLINE void find_marks(const Args& args, const Room& room, Edge& edge) {
    const Array& marks = args.batch.step_marks;
    const Work& w = shared_work();
    if (!is_given(marks) || room.form != FORM_SCORED) return;
    i64 count = 0, before = 0, end = 0;
    for (i64 t = w.scope.first + threadIdx.x; t < w.scope.end; t += blockDim.x) {
        if (!contains(w.scope, t) || !load_flag(marks, at(w.e, marks, t))) continue;
        count += 1;
        before = larger(before, w.e.len - t);
        end = larger(end, t + 1);
    }
    count = block_sum(count);
    before = block_max(before, (i64)0);
    end = block_max(end, (i64)0);
    if (!is_first_thread() || count == 0) return;
    edge.marks = count;
    edge.marked_last = end == w.scope.end;
    for (i32 p = 0; p < args.batch.num_process; p++) {
        const f32 first = signal_value(args, plan_of(args), w.e, p, w.e.len - before), last = signal_value(args, plan_of(args), w.e, p, end - 1);
        edge.marked[p] = (i64)((u64)bits_of(first) | (u64)bits_of(last) << 32);
    }
}

// The edges of a piece that has been prepared. The block meets at the end.
INLINE void find_edges(const Args& args, const Room& room, bool open, bool fits, Edge& edge) {
    const Work& w = shared_work();
    if (is_first_thread()) {
        edge = Edge{};
        if (open && w.scope.count > 0) {
            const bool scored = room.form != FORM_STEPLESS && room.form != FORM_TOKENS && (w.kept.state & STATE_HAS_PROCESS);
            if (fits && is_given(args.batch.step_offsets)) {
                edge.steps[0] = step_number_at(args, w.i, room.steps, w.scope.first);
                edge.steps[1] = step_number_at(args, w.i, room.steps, w.scope.end - 1);
            }
            if (scored) {
                edge.detected[0] = detected_at(args, room, w.scope.first);
                edge.detected[1] = detected_at(args, room, w.scope.end - 1);
            }
        }
    }
    if (open) {
        raw_steps(args, room, fits, edge);
        find_marks(args, room, edge);
    }
    __syncthreads();
}

// Does the piece's last chunk go on, by the rules that know no values and no steps? One thread.
INLINE bool chunk_goes_on(const Args& args, const Unit& unit, i64 last) {
    const i64* const next = next_row(args, unit);
    if (!next) return false;
    switch (plan_of(args).chunk) {
        case CHUNK_TOKEN: return false;
        case CHUNK_SEGMENT: return next[ROW_FIRST] == unit.begin + last + 1;
        case CHUNK_GIVEN: {
            const i64* const rows = rows_of(args, unit);
            bool marked = row_at(rows, unit.index)[ROW_FLAGS] & ROW_MARK_AFTER;
            for (i64 j = (i64)unit.index + 1; j <= unit.next; j++) marked |= (row_at(rows, j)[ROW_FLAGS] & ROW_MARK_BEFORE) != 0;
            return !marked;
        }
        default: return true;
    }
}

// What the other pieces' edges say of this one: `kept` is changed. `flags` are the rollout's so far, and those after are returned. One thread.
INLINE u32 joined_edges(const Args& args, const Room& room, const Edge& edge, bool fits, u32 flags, Rollout& kept) {
    const PlanConstants& plan = plan_of(args);
    const Unit& unit = unit_of(args, shared_work().i);
    const Scope& scope = shared_work().scope;
    if (!knows_rows(args)) return flags;
    if (unit.total > 0) flags &= ~(u32)ROLLOUT_NO_SCOPE;
    if (unit.process) {
        kept.state |= STATE_HAS_PROCESS;
        // The process value is another piece's.
        if (flags & ROLLOUT_NO_STREAM) kept.state &= ~(u32)(fits ? STATE_ZEROED : 0);
        flags &= ~(u32)ROLLOUT_NO_STREAM;
    }
    const i64* const next = next_row(args, unit);
    if (plan.kind == KIND_KL || scope.count == 0 || kept.chunks == 0 || !next) return flags;
    const bool marked = is_given(args.batch.step_marks);
    bool same_step = edge.steps[1] > 0 && edge.steps[1] == next[ROW_FIRST_STEP];
    f32 following = f32_of((u32)next[ROW_DETECTED]);
    if (marked) {
        // A token's step is the number of marks before it; tokens after the last mark are of the last step.
        const i64* const rows = rows_of(args, unit);
        const i64 most = marks_before(rows, unit.pieces) - 1, own = marks_before(rows, unit.index) + edge.marks - (edge.marked_last ? 1 : 0);
        same_step = most >= 0 && smaller(own, most) == smaller(marks_before(rows, unit.next), most);
        following = marked_value(rows, unit.pieces, unit.next, 0);
    }
    const bool adjacent = next[ROW_FIRST] == unit.begin + scope.end;
    const bool dense = room.form == FORM_DENSE, stepped = marked ? room.form == FORM_SCORED : fits && unit.steps > 0;
    // Inside a step nothing is compared (an infinity is no edge to itself).
    const bool within = room.form == FORM_SCORED && same_step && adjacent;
    const bool same_run = within || ((adjacent || plan.bridge_scope_gaps) && !is_edge(edge.detected[1], following, plan.eta));
    // An element that goes on is counted where it ends.
    if (kept.elements > 0 && (dense ? same_run : stepped && same_step)) {
        if (plan.pool == POOL_TOKENS) kept.state |= STATE_OPEN_STEP;
        else kept.elements -= 1;
    }
    const bool scored = kept.state & STATE_HAS_PROCESS;
    bool open;
    if ((plan.chunk == CHUNK_BY_VALUE || plan.chunk == CHUNK_STEP) && dense && scored) open = same_run;
    else if (plan.chunk == CHUNK_BY_VALUE && scored) open = same_run && (same_step || plan.merge_equal_steps);
    else if (plan.chunk == CHUNK_STEP && stepped) open = same_step;
    else open = chunk_goes_on(args, unit, scope.end - 1);
    if (open) kept.state |= STATE_OPEN;
    return flags;
}

// Of a step that goes on in a later piece missing scores are counted there, as they have been counted here. One thread.
INLINE void count_missing_once(const Args& args, const Room& room, const Edge& edge) {
    const PlanConstants& plan = plan_of(args);
    if (!(args.mode & MODE_COUNTING) || !knows_rows(args) || args.batch.process != PROCESS_SCORES || edge.raw[1] == 0) return;
    // The next piece that has a step in scope before missing ones leave it.
    const Unit& unit = unit_of(args, shared_work().i);
    const i64* const rows = rows_of(args, unit);
    i64 j = (i64)unit.index + 1;
    while (j < unit.pieces && row_at(rows, j)[ROW_FIRST_RAW] <= 0) j++;
    if (j >= unit.pieces || row_at(rows, j)[ROW_FIRST_RAW] != edge.raw[1]) return;
    i64 step = room.steps.from;
    while (step + 1 < room.steps.to && (i64)((const u32*)joint_of(args).step_numbers)[step] + 1 < edge.raw[1]) step++;
    for (i32 p = 0; p < args.batch.num_process; p++) {
        if (!is_nan(step_score(args, p, step)) || plan.streams[p].missing == MISSING_ERROR) continue;
        add_to(&counts_of(args).missing_values, -1);
        if (p == 0 && plan.streams[p].missing == MISSING_EXCLUDE) break;
    }
}

// Maxima of the values that a piece has in a list. The block.
INLINE Extremes own_extremes(const Args& args, const Work& w, i32 list) {
    Extremes found = no_extremes();
    each_value(args, plan_of(args), w, list, [&](f32 x, u32) { extremes_push(found, x); });
    return block_extremes(found);
}

// Maxima of a list, as its set takes them from this piece. The block.
INLINE Extremes unit_extremes(const Args& args, const Work& w, i32 list) {
    const PlanConstants& plan = plan_of(args);
    if (plan.pool != POOL_ROLLOUTS) return list_extremes(args, w, list);
    // A bad value is found in its piece, the mean counts once.
    const Extremes own = own_extremes(args, w, list);
    if (extremes_bad(own)) return own;
    Extremes found = no_extremes();
    const Value mean = is_head(args, w.i) ? joint_mean(args, w, list) : Value{0.0f, false};
    if (mean.there) extremes_push(found, mean.x);
    return found;
}

// Is what the KL takes from the outcome not known yet?
INLINE bool sums_pending(const Args& args) { return is_given(args.batch.logp_reference) && !plan_of(args).kl_by_token && joint_stage(args) <= JOINT_OWN; }

// As `look_at_rollout` of findings.cuh, of a piece. `w.kept.count` is that of all pieces while the rollout's own values are looked at. The block.
OUT_OF_LINE void look_at_unit(const Args& args, Work& w) {
    const PlanConstants& plan = plan_of(args);
    if (is_first_thread()) {
        const Unit& unit = unit_of(args, w.i);
        const u32 flags = w.kept.flags;
        const bool known = args.mode & MODE_KNOWN;
        i32* const keys = group_keys(args, w.kept.group);
        if (!known) max_key_to(args, keys + 3 * plan.slots, flags & ROLLOUT_FORMAT_VIOLATING ? 1 : 2);
        if (flags & ROLLOUT_MISSING) atomicOr(&marks_of(args, w.kept.group).missing, 1u);
        if (flags & ROLLOUT_BAD_STEPS) {
            atomicOr(&marks_of(args, w.kept.group).found, 1u);
            if (!known) max_key_to(args, keys, KEY_BAD_STEPS);
            if ((args.mode & MODE_COUNTING) && unit.head) {
                add_to(&counts_of(args).bad_steps, 1);
                find(args, w, FOUND_BAD_STEPS, 0);
            }
        }
    }
    if (w.kept.state & (STATE_INFINITE | STATE_NAN)) poison(args, plan, w, 0, w.kept.state & STATE_NAN ? KEY_NAN : KEY_INFINITE);
    u32 flags = w.kept.flags;
#pragma unroll 1
    for (i32 list = 0; list < (w.kept.state & STATE_HAS_PROCESS ? lists_of(args, plan) : 0); ++list) {
        flags |= look_at_list(args, plan, w, list, unit_extremes(args, w, list));
    }
    const i64 line = line_of_unit(args, w.i, w.scope.first, w.scope.count, w.e.len);
    if (w.scope.count > 0 || (plan.spreads && line < w.e.len)) {
        if (process_in_gaps(args, plan, w.kept)) flags |= gap_findings(args, w, line);
        flags |= credit_findings(args, w, line, !unit_of(args, w.i).scope_before);
    }
    SHARED(u32, count_of_piece, [1]);
    __syncthreads();
    if (is_first_thread()) {
        count_of_piece[0] = w.kept.count;
        if (knows_rows(args) && !sums_pending(args)) w.kept.count = (u32)unit_of(args, w.i).total;
    }
    __syncthreads();
    if (!sums_pending(args) && warp() == 0) flags = rollout_extremes(args, w, flags);
    __syncthreads();
    if (is_first_thread()) {
        w.kept.count = count_of_piece[0];
        w.kept.flags = flags;
    }
    __syncthreads();
}

// `scan_mask = none`: is a value that the scan would read before the piece's first token in scope a finding? It is if the rollout's scope begins in an earlier piece. The block.
INLINE bool bad_before(const Args& args, const Work& w) {
    const PlanConstants& plan = plan_of(args);
    const Batch& batch = args.batch;
    if (!plan.spreads || plan.scan_mask != SCAN_MASK_NONE || (w.kept.flags & (ROLLOUT_ABSENT | ROLLOUT_BAD_STEPS))) return false;
    const i64 before = w.scope.count > 0 ? w.scope.first : w.e.len;
    const bool stepless = plan.kind == KIND_PRM && is_given(batch.step_offsets) && unit_of(args, w.i).steps == 0;
    const bool signals = reads_gaps(args, plan) && !stepless, kl = takes_kl(args, KL_PLACE_REWARD);
    const ShapedReward shape = plan.shaped ? shaped_reward(args, plan, w.i) : ShapedReward{0.0, 0.0, 0.0, false, false};
    bool bad = false;
    for (i64 t = threadIdx.x; t < before; t += blockDim.x) {
        if (is_given(batch.values)) bad |= !is_finite(load_f32(batch.values, at(w.e, batch.values, t)));
        if (is_given(batch.token_rewards)) bad |= !is_finite(load_f32(batch.token_rewards, at(w.e, batch.token_rewards, t)));
        if (kl) bad |= !is_finite(list_of<f32>(args.work.kl, w.e)[t]);
        for (i32 p = 0; signals && p < batch.num_process; ++p) {
            const f32 x = signal_value(args, plan, w.e, p, t);
            if (plan.streams[p].missing != MISSING_ERROR && is_nan(x)) continue;
            bad |= !is_finite(plan.shaped ? shaped(shape, x) : x);
        }
    }
    return __syncthreads_or(bad) != 0;
}

// `chunk = given`: bits of the marks before the first token in scope and from the last on. The block.
INLINE i64 mark_bits(const Args& args, const Extent& e, const Scope& scope) {
    const Array& marks = args.batch.chunk_marks;
    if (!is_given(marks)) return 0;
    const i64 before = scope.count > 0 ? scope.first : e.len, after = scope.count > 0 ? scope.end - 1 : e.len;
    u32 found = 0;
#pragma unroll 1
    for (i64 t = threadIdx.x; t < e.len; t += blockDim.x)
        if (load_flag(marks, at(e, marks, t))) found |= (t < before ? 1u : 0u) | (t >= after ? 2u : 0u);
    found = block_or(found);
    return (found & 1 ? ROW_MARK_BEFORE : 0) | (found & 2 ? ROW_MARK_AFTER : 0);
}

// Adds the piece's row to the table. The block.
OUT_OF_LINE void tell_edges(const Args& args, const Work& w, const Edge& edge) {
    const PlanConstants& plan = plan_of(args);
    const Batch& batch = args.batch;
    const Unit& unit = unit_of(args, w.i);
    i64* const row = row_at(rows_of(args, unit), unit.index);
    const bool beyond = bad_before(args, w);
    const i64 marks = mark_bits(args, w.e, w.scope);
    for (i32 list = 0; plan.pool == POOL_ROLLOUTS && (w.kept.state & STATE_HAS_PROCESS) && list < batch.num_process; ++list) {
        const Extremes own = own_extremes(args, w, list);
        if (is_first_thread()) add_to(row + ROW_MOST + 1 + list, own.absmax);
    }
    if (!is_first_thread()) return;
    add_to(row + ROW_TIMES, 1);
    add_to(row + ROW_BEGIN, unit.begin);
    add_to(row + ROW_SLOTS, unit.len + unit.tail);
    add_to(row + ROW_WHOLE, unit.whole);
    add_to(row + ROW_INPUTS_HASH, (i64)unit.hash);
    add_to(row + ROW_COUNT, w.scope.count);
    add_to(row + ROW_FLAGS, (edge.process ? ROW_HAS_PROCESS : 0) | marks | (i64)(w.kept.flags & (ROLLOUT_NONFINITE | ROLLOUT_MISSING | ROLLOUT_BAD_STEPS)) | (beyond ? ROW_BAD_BEFORE : 0));
    if (w.scope.count > 0) {
        add_to(row + ROW_FIRST, unit.begin + w.scope.first);
        add_to(row + ROW_LAST, unit.begin + w.scope.end - 1);
        add_to(row + ROW_DETECTED, (i64)((u64)bits_of(edge.detected[0]) | (u64)bits_of(edge.detected[1]) << 32));
        add_to(row + ROW_FIRST_STEP, edge.steps[0]);
        add_to(row + ROW_LAST_STEP, edge.steps[1]);
    }
    if (is_given(batch.values)) {
        i64 own = w.scope.count > 0 ? w.scope.first : -1;
        if (plan.spreads) own = w.e.len > 0 && (plan.scan_mask == SCAN_MASK_NONE || contains(w.scope, 0)) ? 0 : -1;
        if (own >= 0) add_to(row + ROW_VALUE, (i64)bits_of(load_f32(batch.values, at(w.e, batch.values, own))));
    }
    add_to(row + ROW_FIRST_RAW, edge.raw[0]);
    add_to(row + ROW_LAST_RAW, edge.raw[1]);
    add_to(row + ROW_MARKS, edge.marks);
    for (i32 p = 0; p < MAX_PROCESS; p++) add_to(row + ROW_MARKED + p, edge.marked[p]);
}

// Adds the piece's share of its rollout's sums of the process lists, on the grids that all pieces' largest values set. The block.
INLINE void tell_own_sums(const Args& args, const Work& w) {
    const PlanConstants& plan = plan_of(args);
    const Unit& unit = unit_of(args, w.i);
    for (i32 list = 0; plan.pool == POOL_ROLLOUTS && (w.kept.state & STATE_HAS_PROCESS) && list < args.batch.num_process; ++list) {
        const i32 most = joint_most(args, unit, list);
        if (most >= KEY_INFINITE) continue;
        const Grid grid = joint_grid(args, unit, most);
        i64 n;
        const i64 q = block_sum_of(args, plan, w, list, grid, n);
        if (!is_first_thread()) continue;
        add_to(own_list(args, unit, list), q);
        add_to(own_list(args, unit, list) + 1, n);
    }
}

// A piece from its data to what is kept of it, its edges, its maxima and its findings. The block.
INLINE void keep_unit(const Args& args, i64 i, Room& room, Edge& edge) {
    const PlanConstants& plan = plan_of(args);
    Work& w = shared_work();
    const bool open = __syncthreads_or(is_first_thread() && open_room(args, i, room));
    if (!open) {
        if (is_first_thread()) {
            w.i = i;
            w.e = extent(args, i);
            w.scope = span_scope(0, 0);
            w.kept = rollout_of(args, i);
        }
        find_edges(args, room, false, false, edge);
        if (is_first_thread()) edge.process = false;
        __syncthreads();
        if (!knows_rows(args)) tell_edges(args, w, edge);
        return;
    }
    if (is_first_thread()) {
        // (Parts of long rollouts are of whole ones.)
        room.task = Task{i, -1, 0, -1, 0, true};
    }
    __syncthreads();
    prepare_rollout(args, room);
    find_edges(args, room, true, !(w.kept.flags & ROLLOUT_BAD_STEPS), edge);
    __syncthreads();
    if (is_first_thread()) {
        Rollout kept = w.kept;
        edge.process = (kept.state & STATE_HAS_PROCESS) || edge.marks > 0;
        const u32 flags = joined_edges(args, room, edge, !(kept.flags & ROLLOUT_BAD_STEPS), kept.flags, kept);
        kept.flags = flags;
        w.kept = kept;
        if (args.mode & MODE_COUNTING) {
            count_missing_once(args, room, edge);
            // The sum of all pieces' KL is one finding.
            const bool joint_sum = is_given(args.batch.logp_reference) && !plan.kl_by_token;
            const Unit& unit = unit_of(args, i);
            if (joint_sum && !unit.head && unit.most_kl < KEY_INFINITE && !is_finite((f32)((f64)*own_kl(args, unit) * grid_of(sum_bits(unit.whole), unit.most_kl).down)))
                add_to(&counts_of(args).nonfinite_values, -1);
        }
    }
    __syncthreads();
    look_at_unit(args, w);
    if (joint_stage(args) == JOINT_EDGES) tell_edges(args, w, edge);
    if (joint_stage(args) == JOINT_OWN) tell_own_sums(args, w);
    if (joint_stage(args) > JOINT_OWN) {
        if (args.mode & MODE_KNOWN) look_for_one_rollout(args, w);
        else if (counts_in_batch(plan, w.kept, w.kept.flags | unit_of(args, i).flags)) add_batch_extremes(args, w);
    }
    if (is_first_thread()) rollout_of(args, i) = w.kept;
}

extern "C" __global__ void __launch_bounds__(MOST_THREADS, BLOCKS_AT_ONCE) passrl_pieces_prepare(const __grid_constant__ Args given) {
    const Args& args = open_args(given);
    Room* const room = &shared_room();
    SHARED(Edge, edge, [1]);
    if (counts_of(args).bad_offsets) return;
    keep_unit(args, blockIdx.x, room[0], edge[0]);
}

#endif
