// Rollouts in pieces over calls or ranks: a piece from its chunks to its outputs, by the scan of the whole rollout (pieces_scan.cuh). Twin of shape.rs.
#ifndef PASSRL_PIECES_SHAPE_CUH
#define PASSRL_PIECES_SHAPE_CUH
#include "pieces_scan.cuh"

// a_j of the chunks that end in the piece, in f; `ends`: the rollout's last is among them. The block meets at the end.
OUT_OF_LINE void fuse_unit(const Args& args, UnitRoom& room, bool ends) {
    const OwnShaping& w = room.own;
    const Terms& terms = shape_of(room).terms;
    FusedStreams& fusion = shape_of(room).fusion;
    auto chunks = [&] { return (i64)w.kept.chunks; };
    if (terms.gated) {
        for (i64 j = THREAD_NUMBER(); j < chunks(); j += blockDim.x) w.f[j] = ends && j + 1 == chunks() ? terms.gated_last : terms.gated_every;
        __syncthreads();
        return;
    }
    prepare_fusion(args, w, terms, fusion);
    add_noted(args, fusion.lost);
    if (!ends && is_first_thread()) fusion.gained[0] = fusion.gained[1] = false;
    __syncthreads();
    auto put = [&](i64 j, i64 t) {
        const f64 process = process_part(args, w, fusion, j, t);
        if (plan_of(args).divide_scope == DIVIDE_PROCESS) w.d[j] = process;
        w.f[j] = chunk_value(fusion, terms, ends && j + 1 == chunks(), process);
    };
    if (w.kept.state & STATE_EVERY_TOKEN) {
        each_in_scope(shape_of(room).work.scope, [&](i64 t, i64 j) { if (j < chunks()) put(j, t); });
    } else {
        for (i64 j = THREAD_NUMBER(); j < chunks(); j += blockDim.x) put(j, (i64)w.last[j]);
    }
    __syncthreads();
    add_noted(args, fusion.lost);
}

// From rewards in d (n lines) and values in v (`all`): what is scanned, in d; what the scans are asked. The block meets at the end.
OUT_OF_LINE void begin_unit_advantages(const Args& args, UnitRoom& room, Positions by, i64 n, i64 all) {
    const PlanConstants& plan = plan_of(args);
    const Shaping& w = room.own;
    const Unit& unit = unit_of(args, w.i);
    f64 next = n > 0 ? bootstrap_of(args, w.i) : 0.0;
    if (all > n) {
        next = w.v[n];
    } else if (plan.spreads) {
        // The next piece that has tokens, in scope or not.
        const i64* const rows = rows_of(args, unit);
        i64 j = (i64)unit.index + 1;
        while (j < unit.pieces && !(row_at(rows, j)[ROW_SLOTS] > 0 && row_at(rows, j)[ROW_BEGIN] < row_at(rows, j)[ROW_WHOLE])) j++;
        if (j < unit.pieces) next = (f64)f32_of((u32)row_at(rows, j)[ROW_VALUE]);
    } else if (const i64* const row = next_row(args, unit)) {
        next = (f64)f32_of((u32)row[ROW_VALUE]);
    }
    __syncthreads();
    if (is_first_thread()) room.asked = JointScan{0, by, n, all, room.powers, w.d};
    for (i64 t = THREAD_NUMBER(); t < n; t += blockDim.x) w.d[t] = (w.d[t] + plan.gamma * (t + 1 < n ? w.v[t + 1] : next)) - w.v[t];
    __syncthreads();
}

// After that: advantages in d, returns in v. (What the scans are asked stands in the room for what comes after them.) The block meets at the end.
INLINE void unit_advantages(const Args& args, UnitRoom& room) {
    const PlanConstants& plan = plan_of(args);
    const Shaping& w = room.own;
    auto apart = [&] { return plan.lam_returns >= 0.0; };
    if (apart()) {
        for (i64 t = THREAD_NUMBER(); t < room.asked.own; t += blockDim.x) w.lines[t] = w.d[t];
        if (is_first_thread()) decay_powers(plan.gamma * plan.lam_returns, room.apart);
        joint_scan(args, room, JointScan{1, room.asked.by, room.asked.own, room.asked.all, room.apart, w.lines});
        for (i64 t = THREAD_NUMBER(); t < room.asked.all && !room.tells; t += blockDim.x) w.v[t] += w.lines[t];
    }
    joint_scan(args, room, JointScan{0, room.asked.by, room.asked.own, room.asked.all, room.powers, w.d});
    for (i64 t = THREAD_NUMBER(); t < room.asked.all && !apart() && !room.tells; t += blockDim.x) w.v[t] += w.d[t];
    __syncthreads();
}

// V at the first token of the chunk that goes on into this piece; `there` false: the first chunk begins here. gae over chunks.
INLINE WideValue value_before(const Args& args, const Unit& unit) {
    const i64* const rows = rows_of(args, unit);
    const i64 *const counts = chunk_counts(args, unit), *const begins = chunk_begins(args, unit);
    WideValue value = {0.0, false};
    for (i64 j = (i64)unit.index - 1; j >= 0; j--) {
        if (in_scope(rows, j) == 0) continue;
        if (!(begins[j] >> 32 & 1)) break;
        value = WideValue{(f64)f32_of((u32)begins[j]), true};
        // With a chunk that ends in it the last one begins in it.
        if (counts[j] > 0) break;
    }
    return value;
}

// Values of the chunks in v; gae over chunks.
INLINE void unit_chunk_values(const Args& args, UnitRoom& room) {
    const Shaping& w = shape_of(room).work;
    const Array& values = args.batch.values;
    const i64 k = w.kept.chunks;
    const bool every = w.kept.state & STATE_EVERY_TOKEN;
    for (i64 j = THREAD_NUMBER(); j < k; j += blockDim.x) {
        if (j < (i64)room.own.kept.chunks) w.d[j] = w.f[j];
        if (every && is_given(values)) continue;
        const i64 t = is_given(values) ? first_in(w.scope, j == 0 ? w.scope.first : (i64)w.last[j - 1] + 1, (i64)w.last[j] + 1) : -1;
        w.v[j] = t >= 0 ? (f64)load_f32(values, at(w.e, values, t)) : 0.0;
    }
    if (every && is_given(values)) each_in_scope(w.scope, [&](i64 t, i64 j) { w.v[j] = (f64)load_f32(values, at(w.e, values, t)); });
    __syncthreads();
    const WideValue before = is_given(values) ? value_before(args, unit_of(args, w.i)) : WideValue{0.0, false};
    if (k > 0 && before.there && is_first_thread()) w.v[0] = before.x;
    __syncthreads();
}

// G in v, D in d: a value a chunk, from F in f. The block meets at the end.
INLINE void unit_credit(const Args& args, UnitRoom& room) {
    const PlanConstants& plan = plan_of(args);
    const Shaping& w = shape_of(room).work;
    const Terms& terms = shape_of(room).terms;
    const i64 k = w.kept.chunks, own = room.own.kept.chunks;
    const Array& rewards = args.batch.token_rewards;
    const bool apart = plan.divide_scope == DIVIDE_PROCESS && plan.fusion == FUSION_ADVANTAGE;
    for (i64 j = THREAD_NUMBER(); j < own; j += blockDim.x) w.v[j] = !apart ? w.f[j] : terms.gated ? 0.0 : w.d[j];
    __syncthreads();
    if (is_given(rewards) || takes_kl(args, KL_PLACE_REWARD)) {
        // `chunk = token`: line and chunk are one.
        each_in_scope(w.scope, [&](i64 t, i64 j) {
            if (j >= own) return;
            if (is_given(rewards)) w.v[j] += (f64)load_f32(rewards, at(w.e, rewards, t));
            if (takes_kl(args, KL_PLACE_REWARD)) w.v[j] -= kl_taken(args, w, t);
        });
        __syncthreads();
    }
    if (!plan.spreads) {
        joint_scan(args, room, JointScan{0, BY_CHUNK, own, k, plan.decay, w.v});
    } else {
        const i64 line = room.own.scope.first, n = w.e.len - line;
        each_in_scope(w.scope, [&](i64 t, i64 j) { w.lines[t - line] = w.v[j]; });
        __syncthreads();
        take_gap_kl(args, room.own, w.lines);
        joint_scan(args, room, JointScan{0, BY_LINE, n, n, plan.decay, w.lines});
        if (room.tells) return;
        gather(room.own.scope, w.lines);
        for (i64 j = THREAD_NUMBER(); j < k; j += blockDim.x) w.v[j] = w.lines[j];
        __syncthreads();
    }
    if (room.tells) return;
    const f64 rest = !apart ? 0.0 : terms.gated ? terms.gated_every : sum_of_terms(terms);
    const f64* const divisors = (const f64*)plan.divisors + (plan.max_rollout_tokens - (room.after + own));
    for (i64 j = THREAD_NUMBER(); j < k; j += blockDim.x) {
        const f64 g = w.v[j], d = plan.k == 0.0 ? g : g * divisors[j];
        w.v[j] = apart ? g + rest : g;
        w.d[j] = apart ? d + rest : d;
    }
    __syncthreads();
}

// Chunk values in f, advantages in d, returns in v. The block meets at the end.
INLINE void unit_credited(const Args& args, UnitRoom& room) {
    const PlanConstants& plan = plan_of(args);
    const OwnShaping& w = room.own;
    if (plan.spreads) gap_rewards(args, w, shared_decision(), shape_of(room).terms);
    fuse_unit(args, room, w.kept.chunks > 0 && room.after == 0);
    if (plan.credit != CREDIT_GAE) return unit_credit(args, room);
    auto over_tokens = [&] { return plan.gae_over == GAE_OVER_TOKENS; };
    if (over_tokens()) {
        if (plan.spreads ? w.scope.first >= w.e.len : w.scope.count == 0) return;
        const i64 n = rewards_and_values(args, w);
        begin_unit_advantages(args, room, plan.spreads ? BY_LINE : BY_TOKEN, n, n);
    } else {
        unit_chunk_values(args, room);
        begin_unit_advantages(args, room, BY_CHUNK, w.kept.chunks, shape_of(room).work.kept.chunks);
    }
    unit_advantages(args, room);
    if (over_tokens() && plan.spreads && !room.tells) {
        gather(w.scope, w.d);
        gather(w.scope, w.v);
    }
}

// Lists the chunks of the block's piece where its kind is kl; what is kept of it is in `shared_unit_kept`. The block meets at the end.
INLINE void list_unit_chunks(const Args& args, ShapeRoom& shape) {
    const bool lists = plan_of(args).kind == KIND_KL;
    if (is_first_thread()) {
        shape.work.scope = kept_scope(args, (i64)BLOCK_NUMBER(), shape.work.e, shape.work.kept);
        shared_unit_kept() = shape.work.kept;
    }
    __syncthreads();
    if (lists) unit_kl_chunks(args, shape.work, &shared_decision());
}

// Where the block's piece stands and what is kept of it. The block.
OUT_OF_LINE void open_unit_room(const Args& args, UnitRoom& room) {
    const PlanConstants& plan = plan_of(args);
    ShapeRoom& shape = shape_of(room);
    const i64 i = BLOCK_NUMBER();
    const Unit& unit = unit_of(args, i);
    const Extent& e = shape.work.e;
    Rollout kept = shared_unit_kept();
    if (shared_decision().bad) {
        kept.state |= STATE_ZEROED;
        if (!(kept.flags & ROLLOUT_ABSENT)) kept.flags |= ROLLOUT_IN_BAD_GROUP;
    }
    __syncthreads();
    if (is_first_thread()) {
        shape.work = make_shaping(args, i, e, kept);
        shape.path = 0.0;
        (Shaping&)room.own = shape.work;
        room.own.kept.chunks = (u32)own_chunks(kept);
        if (plan.spreads) room.own.scope.first = unit.line;
        room.tells = args.mode & MODE_SCAN;
        room.chunks = room.after = 0;
        const i64* const counts = chunk_counts(args, unit);
        // (While chunks are counted nobody asks how many there are.)
        for (i64 j = 0; j < unit.pieces && !(args.mode & MODE_CHUNKS); j++) {
            const i64 count = bounded(counts[j], 1ll << 31);
            room.chunks += count;
            if (j > unit.index) room.after += count;
        }
        room.chunks = smaller(room.chunks, plan.max_rollout_tokens);
        room.after = smaller(room.after, plan.max_rollout_tokens - (i64)room.own.kept.chunks);
        // Powers of the scan's coefficient, which a rollout may have of its own.
        const bool own = plan.credit == CREDIT_GAE && (is_given(args.batch.rollout_lam) || plan.lam_length_alpha > 0.0);
        if (own) {
            const f64 lam = is_given(args.batch.rollout_lam) ? (f64)item_f32(args.batch.rollout_lam, i) : larger(0.0, 1.0 - 1.0 / (plan.lam_length_alpha * (f64)unit.total));
            decay_powers(plan.gamma * lam, room.powers);
        } else {
            for (i32 m = 0; m < 33; m++) room.powers[m] = plan.decay[m];
        }
    }
    __syncthreads();
}

// The rollout's terms, as this piece has them. The block.
INLINE void unit_terms(const Args& args, UnitRoom& room) {
    const Shaping& w = shape_of(room).work;
    const Unit& unit = unit_of(args, w.i);
    // Whether the rollout's last token is in scope, and how many are, all pieces say.
    if (is_first_thread()) {
        (Work&)room.whole = w;
        room.whole.kept.count = (u32)unit.total;
        room.whole.e.len = (i64)w.kept.end + (unit.at_end ? 0 : 1);
    }
    __syncthreads();
    rollout_terms(args, room.whole, shared_decision(), shape_of(room).terms);
    add_noted(args, shape_of(room).terms.lost);
    if (is_first_thread() && unit.begin + w.e.len != unit.whole) shape_of(room).terms.has_beyond = false;
    __syncthreads();
}

// Zeros in the slots of a piece that hold no token.
INLINE void zero_tail(const Args& args, const Array& to, const Extent& e, i64 tail) {
    if (plan_of(args).fill_padding) zero_slots(to, 0, e.column + e.len, e.column + e.len + tail, true, threadIdx.x, blockDim.x);
}

// What a piece writes beside the advantages: returns (in v), and of its rollout what the first of its pieces in this call writes. The block.
INLINE void unit_outputs(const Args& args, const UnitRoom& room) {
    const PlanConstants& plan = plan_of(args);
    const Outputs& o = args.outputs;
    const Shaping& w = shape_of(room).work;
    const Unit& unit = unit_of(args, w.i);
    u64 none = 0;
    if (is_given(o.returns)) {
        const Lines lines = plan.credits_tokens ? Lines{true, w.last, w.scope.count} : chunk_lines(w);
        each_slot(w.e.len, sector_lead(o.returns, at(w.e, o.returns, 0), token_stride(w.e, o.returns)), w.scope, lines, [&](i64 j) { return w.v[j]; },
                  [&](i64 t, bool, f64 g) { store(o.returns, at(w.e, o.returns, t), g, none); });
        zero_tail(args, o.returns, w.e, unit.tail);
    }
    if (!is_first_thread()) return;
    if (unit.speaks) {
        const i64 row = unit.row;
        if (is_given(o.path_scores)) store(o.path_scores, row * o.path_scores.stride[0], shape_of(room).path, none);
        if (is_given(o.num_chunks)) store_int(o.num_chunks, row * o.num_chunks.stride[0], room.chunks);
        if (is_given(o.rollout_flags)) store_int(o.rollout_flags, row * o.rollout_flags.stride[0], (i64)(w.kept.flags | unit.flags));
    }
    Counts& counts = counts_of(args);
    add_to(&counts.rollouts, unit.head && !(w.kept.flags & ROLLOUT_ABSENT) ? 1 : 0);
    add_to(&counts.tokens, (i64)w.kept.count);
    add_to(&counts.chunks, own_chunks(w.kept));
}

// What the block does when its piece is shaped: zeros where none is, and the report.
OUT_OF_LINE void end_units(const Args& args) {
    if (!counts_of(args).bad_offsets) shape_ends(args);
    finish_report(args);
}

// The block's piece, and the block's end; `shared_decision` is of its group.
INLINE void shape_unit(const Args& args, UnitRoom& room) {
    const PlanConstants& plan = plan_of(args);
    // (Each is formed where it is asked for: no register keeps it over a stage.)
    auto keeps = [&] { return (args.mode & MODE_KEEP) != 0; };
    auto writes = [&] { return !(args.mode & (MODE_DRY | MODE_CHUNKS | MODE_SCAN)); };
    const Shaping& w = shape_of(room).work;
    list_unit_chunks(args, shape_of(room));
    open_unit_room(args, room);
    if (args.mode & MODE_CHUNKS) {
        if (is_first_thread()) tell_chunks(args, w.i, w.e, w.scope, w.kept);
        return;
    }
    auto lines = [&] { return result_lines(plan, w.kept, w.last); };
    if (w.kept.state & STATE_ZEROED) {
        for (i64 j = THREAD_NUMBER(); j < larger((i64)w.kept.chunks, lines().count); j += blockDim.x) w.f[j] = w.d[j] = w.v[j] = 0.0;
        __syncthreads();
    } else {
        unit_terms(args, room);
        unit_credited(args, room);
        if (!room.tells) {
            const f64 path = joint_path(args, room);
            if (is_first_thread()) shape_of(room).path = path;
            __syncthreads();
            if (takes_kl(args, KL_PLACE_ADVANTAGE)) {
                each_in_scope(w.scope, [&](i64 t, i64 line) { w.d[line] -= kl_taken(args, w, t); });
                __syncthreads();
            }
            temper(args, w);
        }
    }
    if (room.tells) return;
    if (is_first_thread()) rollout_of(args, w.i) = w.kept;
    if (keeps()) keep_advantages(args, w, lines(), shape_of(room).path);
    if (writes()) unit_outputs(args, room);
    if (writes() && !keeps()) {
        write_results(args, shape_of(room), 0, w.e.len);
        zero_tail(args, args.outputs.advantages, w.e, unit_of(args, room).tail);
    }
    if (writes()) end_units(args);
}

// The pieces make no whole rollouts: every slot is 0.
INLINE void shape_no_unit(const Args& args) {
    const Outputs& o = args.outputs;
    zero_all(args, o.advantages);
    if (is_given(o.returns)) zero_all(args, o.returns);
    const i64 i = blockIdx.x;
    if (i >= args.batch.rollouts || !is_first_thread() || unit_of(args, i).bad || !unit_of(args, i).speaks) return;
    const i64 row = unit_of(args, i).row;
    u64 none = 0;
    if (is_given(o.path_scores)) store(o.path_scores, row * o.path_scores.stride[0], 0.0, none);
    if (is_given(o.num_chunks)) store_int(o.num_chunks, row * o.num_chunks.stride[0], 0);
    if (is_given(o.rollout_flags)) store_int(o.rollout_flags, row * o.rollout_flags.stride[0], ROLLOUT_IN_BAD_GROUP);
}

// Block b: group b's counts and outputs, then piece b.
extern "C" __global__ void __launch_bounds__(MOST_THREADS, BLOCKS_AT_ONCE) passrl_pieces_shape(const __grid_constant__ Args given) {
    const Args& args = open_args(given);
    SHARED(UnitRoom, room, [1]);
    auto bad_batch = [&] { return counts_of(args).bad_offsets != 0; };
    auto writes = [&] { return !(args.mode & (MODE_DRY | MODE_CHUNKS | MODE_SCAN)); };
    auto b = [&] { return (i64)BLOCK_NUMBER(); };
    if (const i32 fault = ranks_fault(args)) {
        if (writes()) report_fault(args, fault);
        return;
    }
    if (b() < args.batch.groups && writes()) {
        decide(args, (u32)b(), shared_decision());
        if (bad_batch()) forget_sets(shared_decision());
        group_outputs(args, shared_decision());
        if (is_first_thread()) count_group(args, shared_decision());
    }
    // (Ways end in a return each: where they came together again there would be something to keep over the calls.)
    if (bad_batch()) {
        if (writes()) shape_no_unit(args);
        if (writes()) end_units(args);
        return;
    }
    if (b() >= args.batch.rollouts) {
        if (writes()) end_units(args);
        return;
    }
    read_rollout(args, b(), shape_of(room[0]));
    decide_for(args, shape_of(room[0]).work.kept, shared_decision());
    shape_unit(args, room[0]);
}

#endif
