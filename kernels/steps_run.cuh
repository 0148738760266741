// Kernel of a run on CSR steps whose groups stand together, where there are enough groups for every multiprocessor (src/backend/cuda/way.rs): a block has a whole
// group, from its steps to its tokens. What the rollouts of a group tell each other stays in the block's shared memory, as do the group's ends and scores where
// they fit: each is read once, and of the workspace nothing is used but the counts.
//
// The stages are those of the kernels that have a block a rollout. They see what is shared where they see the workspace and the caller's steps: the arguments in
// shared memory say where these lie. Of a group with more steps than there is room for, they lie where the caller has them; what no shared list holds is listed
// in the workspace, as elsewhere. Those stages take one rollout after another. A usual group, whose rollouts all have steps that fit, each with a token, and no value
// that is missing or not finite, is looked at as a whole, and a warp has a rollout from its chunks to its tokens.
//
// Offsets that do not fit make the whole batch 0, which a block may see when others have written: the last block of the grid then takes back what was written.
#ifndef PASSRL_STEPS_RUN_CUH
#define PASSRL_STEPS_RUN_CUH
#include "steps_room.cuh"

// ---- a usual group ----

// May it be looked at as a whole, and each rollout be a warp's, by settings and views alone?
OUT_OF_LINE bool has_usual_settings(const Args& args) {
    const PlanConstants& plan = plan_of(args);
    const Batch& batch = args.batch;
    const Outputs& o = args.outputs;
    const bool cut = plan.chunk == CHUNK_STEP || (plan.chunk == CHUNK_BY_VALUE && plan.boundary_rule == BOUNDARY_ADJACENT && !plan.merge_equal_steps);
    const bool beside = is_given(o.returns) || is_given(o.chunk_ends) || is_given(o.chunk_values) || is_given(batch.bootstrap) || is_given(batch.rollout_lam);
    return cut && !beside && plan.pool == POOL_STEPS && plan.credit == CREDIT_RETURN_TO_GO && !plan.joint && !plan.shaped;
}

// A rollout of it as it would be kept; false where it is none. One thread.
INLINE bool open_usual(const Args& args, i64 i, u32 group, Rollout& to) {
    const Batch& batch = args.batch;
    const Extent e = extent(args, i);
    const StepRange steps = step_numbers(args, i);
    const u32 state = is_given(batch.in_stats) && !item_flag(batch.in_stats, i) ? STATE_OUT_OF_STATS : 0;
    const u32 flags = is_given(batch.format_ok) && !item_flag(batch.format_ok, i) ? ROLLOUT_FORMAT_VIOLATING : 0;
    const u32 count = (u32)(steps.to - steps.from), len = (u32)e.len;
    to = Rollout{group, count, count, 0, len, len, flags, state | STATE_HAS_PROCESS | STATE_ONE_LIST | STATE_IN_PLACE};
    return !e.bad && len > 0 && count > 0 && !(is_given(batch.absent) && item_flag(batch.absent, i));
}

// Its streams; false where one is missing or not finite. One thread.
INLINE bool look_at_streams(const Args& args, i64 i, const Rollout& kept) {
    const PlanConstants& plan = plan_of(args);
    const bool summed = sums_rewards(plan);
    i32* const keys = group_keys(args, kept.group);
    const Value baseline = baseline_of(args, i);
    bool good = !baseline.there || is_finite(baseline.x);
#pragma unroll 1
    for (i32 s = 0; s < ROLLOUT_STREAMS; ++s) {
        if (is_given(args.batch.rollout_streams[s])) good = good && is_finite(item_f32(args.batch.rollout_streams[s], i));
        if (!has_stream(args, summed, s)) continue;
        const Value v = rollout_value(args, plan, s, i);
        good = good && v.there && is_finite(v.x);
        if (!good || !counts_in_stats(kept) || !weighs(plan.streams[OUTCOME + s], kept)) continue;
        Extremes one = no_extremes();
        extremes_push(one, v.x);
        max_extremes_to(args, keys + 3 * slot_of_stream(plan, s), one);
    }
    max_key_to(args, keys + 3 * plan.slots, kept.flags & ROLLOUT_FORMAT_VIOLATING ? 1 : 2);
    return good;
}

// Its steps: in order, each with a token, finite; false where they are not. A warp.
INLINE bool look_at_steps(const Args& args, const Rollout& kept, const i32* ends, const f32* scores) {
    const u32 count = kept.elements;
    const i32 len = (i32)kept.count;
    Extremes found = no_extremes();
    bool good = true;
    for (u32 j = (u32)lane(); j < count; j += 32) {
        const i32 before = j > 0 ? ends[j - 1] : 0, end = ends[j];
        good = good && before <= end && end <= len && before < (j + 1 == count ? len : end);
        extremes_push(found, scores[j]);
    }
    found = Extremes{warp_max(found.absmax), warp_max(found.max), warp_max(found.min)};
    if (extremes_bad(found)) return false;
    if (lane() == 0 && counts_in_stats(kept)) max_extremes_to(args, group_keys(args, kept.group), found);
    return good;
}

// The group's rollouts as they are kept and the maxima of its sets, where it is a usual one; else neither. The block meets at the end.
OUT_OF_LINE void look_at_group(const Args& args, GroupRoom& room) {
    const i32 count = (i32)(room.members.end - room.members.first);
    if (!room.at_hand || count > MOST_MEMBERS || !has_usual_settings(args)) return;
    bool usual = true;
    for (i32 m = (i32)threadIdx.x; m < count; m += (i32)blockDim.x) {
        usual = usual && open_usual(args, room.members.first + m, room.members.group, room.rollouts[m]);
        usual = usual && look_at_streams(args, room.members.first + m, room.rollouts[m]);
    }
    if (__syncthreads_and(usual)) {
        const StepsAtHand steps = steps_at_hand(args);
        for (i32 m = warp(); m < count; m += warps()) usual = look_at_steps(args, room.rollouts[m], steps.ends + room.begins[m], steps.scores + room.begins[m]) && usual;
    }
    usual = __syncthreads_and(usual) != 0;
    if (!usual) clear_keys(room);
    if (is_first_thread()) {
        room.usual = usual;
        if (usual) room.marks.rollouts = (u32)count;
    }
    __syncthreads();
}

// Chunks 0 .. k of a rollout, whose values are value(j), from the last on: the results go to result(j, G_j). As `scan_lines_by`, by a warp: tiles in their order.
template <bool UNIT, class Value, class Result> INLINE void scan_by_warp(i32 k, const ScanTops& shared, Value value, Result result) {
    const i32 own_lane = lane();
    f64 carry = 0.0;
    for (i32 done = 0; done < k; done += 32) {
        const i32 j = k - 1 - done - own_lane;
        f64 y = j >= 0 ? value(j) : 0.0;
#pragma unroll
        for (i32 d = 0; d < 5; d++) {
            const f64 before = __shfl_up_sync(WARP, y, 1 << d);
            const f64 taken = own_lane >= 1 << d ? before : 0.0;
            y = y + (UNIT ? taken : shared.steps[d] * taken);
        }
        const f64 top = __shfl_sync(WARP, y, 31);
        if (j >= 0) result(j, y + (UNIT ? carry : shared.powers[own_lane + 1] * carry));
        carry = top + (UNIT ? carry : shared.powers[32] * carry);
    }
}

// The block's scans, and before each warp's first rollout. The block meets at the end.
OUT_OF_LINE void begin_usual(const Args& args) {
    open_scan(plan_of(args).decay, shared_shape_room().tops);
    if (lane() == 0) own_warp_room().number = warp() - warps();
    __syncthreads();
}
// The warp's next rollout; false where there is none. A warp.
OUT_OF_LINE bool next_usual(const Args&) {
    WarpRoom& room = own_warp_room();
    __syncwarp();
    if (lane() == 0) room.number += warps();
    __syncwarp();
    return room.number < (i32)(shared_group_room().members.end - shared_group_room().members.first);
}

// Terms of the warp's rollout, and how its scores are standardised; false where that asks for the sums of its own. A warp.
OUT_OF_LINE bool open_usual_rollout(const Args& args) {
    WarpRoom& room = own_warp_room();
    const PlanConstants& plan = plan_of(args);
    const Decision& decision = shared_decision();
    const Standard& standard = decision.standards[0];
    const i64 i = shared_group_room().members.first + room.number;
    const Rollout& kept = shared_group_room().rollouts[room.number];
    if (needs_own(standard, counts_in_stats(kept))) return false;
    u32 lost = 0;
    if (lane() == 0) {
        const Extent e = extent(args, i);
        room.work = Work{i, e, span_scope(0, e.len), kept};
        room.path = 0.0;
    }
    if (lane() < ROLLOUT_STREAMS && has_stream(args, plan, lane())) room.values[lane()] = standardised_stream(args, i, lane(), kept, decision, &lost);
    __syncwarp();
    if (lane() == 0) {
        place_terms(args, room.work, room.values, room.terms);
        // (Of a wrong format the scores are not asked.)
        if (!room.terms.gated) room.apply = resolve(standard, standard.mean, counts_in_stats(kept), no_sums(), &lost);
    }
    add_lost(args, lost);
    __syncwarp();
    return true;
}

// The warp's rollout from its scores to its chunks' results, tempered.
OUT_OF_LINE void scan_usual(const Args& args) {
    WarpRoom& room = own_warp_room();
    const PlanConstants& plan = plan_of(args);
    const Standard& standard = shared_decision().standards[0];
    const u32 begin = shared_group_room().begins[room.number];
    const f32* const scores = steps_at_hand(args).scores + begin;
    f64* const results = steps_at_hand(args).results + begin;
    const i32 k = (i32)room.work.kept.chunks;
    u32 lost = 0;
    auto value = [&](i32 j) {
        READ_AGAIN();
        const Terms& terms = room.terms;
        const bool is_last = j + 1 == k;
        if (terms.gated) return is_last ? terms.gated_last : terms.gated_every;
        f64 f = plan.streams[0].weight * standardised(standard, room.apply, scores[j], &lost);
        const f64* const gains = is_last && terms.placed ? terms.last : terms.every;
        const i32 count = is_last && terms.placed ? terms.last_count : terms.every_count;
#pragma unroll 1
        for (i32 s = 0; s < count; s++) f += gains[s];
        return f;
    };
    auto result = [&](i32 j, f64 g) {
        READ_AGAIN();
        const i32 n = k - j;
        const f64 a = plan.k == 0.0 ? g : g * (n <= NEAR_DIVISORS ? plan.near_divisors[n - 1] : ((const f64*)plan.divisors + plan.max_rollout_tokens)[-n]);
        if (j == 0) room.path = a;
        results[j] = tempered(plan, a);
    };
    if (plan.decay[1] == 1.0) scan_by_warp<true>(k, shared_shape_room().tops, value, result);
    else scan_by_warp<false>(k, shared_shape_room().tops, value, result);
    add_lost(args, lost);
    __syncwarp();
}

// What the warp's lanes have counted while it wrote; as `add_totals`. A warp.
INLINE void add_totals_of_warp(const Args& args, const Totals& totals) {
    Counts& counts = counts_of(args);
    const u32 clipped = warp_sum(totals.clipped);
    const u64 overflowed = warp_sum(totals.overflowed);
    const f64 sum = warp_sum(totals.sum), squares = warp_sum(totals.squares);
    if (lane() != 0) return;
    add_to(&counts.clipped_tokens, (i64)clipped);
    add_to(&counts.overflowed_tokens, (i64)overflowed);
    if (!args.outputs.report) return;
    add_f64_to(&counts.sum_advantages, sum);
    add_f64_to(&counts.sum_squares, squares);
}

// Its results to its tokens, and zeros beside them. The chunks' last tokens take the place of the scores, which have been read. A warp.
OUT_OF_LINE void write_usual(const Args& args) {
    const WarpRoom& room = own_warp_room();
    const PlanConstants& plan = plan_of(args);
    const Extent& e = room.work.e;
    const u32 begin = shared_group_room().begins[room.number];
    u32* const last = (u32*)(steps_at_hand(args).scores + begin);
    const f64* const results = steps_at_hand(args).results + begin;
    for (i32 j = lane(), k = (i32)room.work.kept.chunks; j < k; j += 32) last[j] = (u32)(j + 1 == k ? (i32)e.len : steps_at_hand(args).ends[begin + j]) - 1;
    __syncwarp();
    Array to = args.outputs.advantages;
    const f64 clip = plan.clip;
    const i64 base = at(e, to, 0), stride = token_stride(e, to), lead = sector_lead(to, base, stride);
    to.data += (u64)(base * bytes_of(to));
    Totals totals = no_totals();
    const Whitening none = {0.0, 0.0, false, false, false};
    each_slot_of_chunks(0, e.len, lead, room.work.scope, Lines{false, last, (i64)room.work.kept.chunks}, 0, 1, [&](i64 j) { return results[j]; },
                        [&](i64 t, bool in, f64 a) {
                            if (in) write_advantage(args, to, t * stride, false, none, clip, a, totals);
                        });
    if (counts_written(args)) add_totals_of_warp(args, totals);
    if (plan.fill_padding && !e.flat) {
        zero_slots(args.outputs.advantages, e.row, 0, e.column, false, lane(), 32);
        zero_slots(args.outputs.advantages, e.row, e.column + e.len, args.batch.slots, false, lane(), 32);
    }
    if (lane() != 0) return;
    shared_group_room().shaped[own_warp_room().number] = true;
    rollout_outputs(args, own_warp_room().work, own_warp_room().path);
}

// The rollouts of a usual group, a warp each, where the group is not bad. Those that ask for more stay for the block. The block meets at the end.
// (All is in functions that are called from here: the kernel keeps nothing over a call.)
INLINE void shape_usual(const Args& args) {
    if (!shared_group_room().usual || shared_decision().bad) return;
    begin_usual(args);
    while (next_usual(args)) {
        if (!open_usual_rollout(args)) continue;
        scan_usual(args);
        write_usual(args);
    }
    __syncthreads();
}

// ---- any group, a rollout after another ----

// A rollout of the group before anything of it is read; false where it is absent, or its offsets do not fit. The first thread.
INLINE bool open_member(const Args& args, i64 i, u32 group, Room& room) {
    const Extent e = extent(args, i);
    if (e.bad) {
        keep_bad_rollout(args, i, true);
        return false;
    }
    marks_of(args, group).rollouts += 1;
    if (is_given(args.batch.absent) && item_flag(args.batch.absent, i)) {
        keep_absent_rollout(args, i, group);
        return false;
    }
    fill_room(args, i, e, group, room);
    return true;
}

// The rollouts of the group from their steps to what is kept of them, and their maxima and findings. The block.
INLINE void keep_members(const Args& args) {
    GroupRoom& room = shared_group_room();
    for (;;) {
        if (!(room.next < room.members.end)) return;
        if (__syncthreads_or(is_first_thread() && open_member(args, room.next, room.members.group, shared_room()))) {
            prepare_rollout(args, shared_room());
            look_at_rollout(args, shared_work(), shared_room().has_extremes ? &shared_room().extremes : 0);
            if (is_first_thread()) rollout_of(args, room.next) = shared_work().kept;
        }
        __syncthreads();
        if (is_first_thread()) room.next += 1;
        __syncthreads();
    }
}

// Sums of the group, whose maxima are complete; the block's next rollout is its first. The block.
INLINE void sum_group(const Args& args) {
    GroupRoom& room = shared_group_room();
    if (room.members.end - room.members.first <= MOST_MEMBERS && adds_as_one(args, plan_of(args))) return sum_members(args, room.members);
    for (;;) {
        if (!(room.next < room.members.end)) return;
        sum_rollout<false>(args, room.next, shared_work());
        __syncthreads();
        if (is_first_thread()) room.next += 1;
        __syncthreads();
    }
}

// The rollouts of the group that no warp has shaped, from what is kept of them to their outputs. The block.
INLINE void shape_members(const Args& args) {
    GroupRoom& room = shared_group_room();
    for (;;) {
        __syncthreads();
        if (!(room.next < room.members.end)) return;
        if (room.next - room.members.first >= MOST_MEMBERS || !room.shaped[room.next - room.members.first]) {
            read_rollout(args, room.next, shared_shape_room());
            if (shared_shape_room().work.kept.group != NO_GROUP)
                shape_rollout<false>(args, room.next, shared_shape_room(), &shared_group_shape_room().chunks, &shared_room().task);
        }
        __syncthreads();
        if (is_first_thread()) room.next += 1;
    }
}

// The batch's offsets do not fit: every slot is 0, no set is known, and nothing of any rollout counts but what was found. The last block of the grid, alone.
OUT_OF_LINE void take_back_all(const Args& args) {
    const Outputs& o = args.outputs;
    const Batch& batch = args.batch;
    const bool packed = batch.layout == PACKED;
    for (i64 row = 0; row < (packed ? 1 : batch.rollouts); ++row) {
        zero_slots(o.advantages, row, 0, batch.slots, packed, threadIdx.x, blockDim.x);
        if (is_given(o.returns)) zero_slots(o.returns, row, 0, batch.slots, packed, threadIdx.x, blockDim.x);
    }
    u64 none = 0;
    for (i64 i = threadIdx.x; i < batch.rollouts; i += blockDim.x) {
        if (is_given(o.path_scores)) store(o.path_scores, i * o.path_scores.stride[0], 0.0, none);
        if (is_given(o.num_chunks)) store_int(o.num_chunks, i * o.num_chunks.stride[0], 0);
        if (is_given(o.rollout_flags)) store_int(o.rollout_flags, i * o.rollout_flags.stride[0], ROLLOUT_IN_BAD_GROUP);
    }
    for (i64 n = threadIdx.x; n < batch.groups * MAX_STREAMS; n += blockDim.x) {
        auto place = [&](const Array& to) { return n / MAX_STREAMS * to.stride[0] + n % MAX_STREAMS * to.stride[1]; };
        if (is_given(o.stats_count)) store_int(o.stats_count, place(o.stats_count), 0);
        if (is_given(o.stats_mean)) store(o.stats_mean, place(o.stats_mean), 0.0, none);
        if (is_given(o.stats_std)) store(o.stats_std, place(o.stats_std), 0.0, none);
        if (is_given(o.stats_absmax)) store(o.stats_absmax, place(o.stats_absmax), 0.0, none);
        if (is_given(o.group_flags)) store_int(o.group_flags, place(o.group_flags), load_int(o.group_flags, place(o.group_flags)) | GROUP_BAD);
    }
    if (!is_first_thread()) return;
    Counts& counts = counts_of(args);
    counts.rollouts = counts.tokens = counts.chunks = counts.clipped_tokens = counts.overflowed_tokens = counts.lost_deviations = 0;
    counts.sum_advantages = counts.sum_squares = 0.0;
}

// What the block does when its group is shaped: zeros where no rollout is, and the report.
OUT_OF_LINE void end_group(Args& args, const GroupRoom& room) {
    __syncthreads();
    if (is_first_thread()) {
        args.work.marks = room.marks_of_all;
        // (The report looks at that of the first group that has one.)
        if (room.marks.first) marks_of(args, room.members.group).first = room.marks.first;
    }
    __syncthreads();
    if (plan_of(args).fill_padding) {
        pad_ends(args, args.outputs.advantages);
        if (is_given(args.outputs.returns)) pad_ends(args, args.outputs.returns);
    }
    if (!is_last_block(args)) return;
    if (*(const volatile u32*)&counts_of(args).bad_offsets) take_back_all(args);
    __syncthreads();
    if (args.outputs.report && is_first_thread()) write_report(args);
}

// The rollout that the block has next is the group's first. The block meets after it.
INLINE void begin_members(GroupRoom& room) {
    __syncthreads();
    if (is_first_thread()) room.next = room.members.first;
    __syncthreads();
}

extern "C" __global__ void __launch_bounds__(MOST_THREADS, BLOCKS_AT_ONCE) passrl_steps(const __grid_constant__ Args given) {
    open_args(given);
    Args& args = shared_args();
    if (args.batch.grouping == GROUP_OFFSETS) check_group_offsets(args);
    open_group(args, shared_group_room());
    if (shared_group_room().members.group == NO_GROUP) return end_group(args, shared_group_room());
    if (is_first_thread()) shared_room().task = Task{0, -1, 0, -1, 0, true};
    read_steps(args, shared_group_room());
    look_at_group(args, shared_group_room());
    begin_members(shared_group_room());
    if (!shared_group_room().usual) keep_members(args);
    begin_members(shared_group_room());
    sum_group(args);
    shape_group(args, shared_group_room().members.group, shared_decision());
    shape_usual(args);
    begin_members(shared_group_room());
    shape_members(args);
    end_group(args, shared_group_room());
}

#endif
