// The sums (src/backend/cpu/group_stats.rs, `sums`): the maxima are complete, so that every set has its grid; one block a rollout adds the rollout's elements,
// and for kl by value the column sums of the group's table. A kernel of its own; of groups whose rollouts stand together and are few, the last of their
// blocks in passrl_prepare does it, and there is no such launch. Of kl long rollouts are summed in parts (kl_parts.cuh).
#ifndef PASSRL_SUMS_CUH
#define PASSRL_SUMS_CUH
#include "batch_stats.cuh"
#include "kl_parts.cuh"
#include "ranks.cuh"

// KL by value: adds q of each token in scope to its position's column and counts the rollout as live there; returns the rollout's sums of slot 0, whose set has
// the extremes `of` (`list_sums`; of `pool = rollouts` they are none of the tokens'). The signal is read once. The block.
OUT_OF_LINE Sums add_to_table(const Args& args, const Work& w, Extremes of) {
    const PlanConstants& plan = plan_of(args);
    Sums own = no_sums();
    if (extremes_bad(of)) return own;
    const KlTable table = kl_table(args, w.kept.group);
    const Grid grid = grid_of(plan.slot_bits[0], of.absmax);
    const bool at_extremes = counts_extremes(plan, 0, grid.bits);
    const f32 most = max_value(of), least = min_value(of);
    u32 n = 0, at_max = 0, at_min = 0;
    for (i64 t = w.scope.first + threadIdx.x; t < w.scope.end; t += blockDim.x) {
        if (!contains(w.scope, t)) continue;
        // (A part's scope begins later.)
        const i64 position = t - (i64)w.kept.first;
        const f32 x = signal_value(args, plan, w.e, 0, t);
        const i64 q = quantize(grid, x);
        const u64 a = (u64)(q < 0 ? -q : q), low = a * a, high = __umul64hi(a, a);
        n += 1;
        own.q += q;
        own.hi += (i64)(high << (64 - grid.bits) | low >> grid.bits);
        own.lo += (i64)(low & ((1ull << grid.bits) - 1));
        if (at_extremes) {
            at_max += x == most ? 1 : 0;
            at_min += x == least ? 1 : 0;
        }
        if (position >= table.positions) continue;
        // (Where deviations leave an element out, no position is compared.)
        if (!at_extremes) add_to(table.columns + position, q);
        atomicAdd((u64*)table.live + position, (u64)1);
    }
    own.n = n;
    own.at_max = at_max;
    own.at_min = at_min;
    return block_sums(own);
}
INLINE bool has_table(const PlanConstants& plan) { return plan.kind == KIND_KL && plan.chunk == CHUNK_BY_VALUE; }

// Adds what the rollout has for a slot's set. The first thread does.
OUT_OF_LINE void add_process_sum(const Args& args, const Work& w, i32 slot, Sums own) {
    if (!is_first_thread()) return;
    add_sums_to(group_words(args, w.kept.group) + 6 * slot, own);
    if (asks_one_rollout(plan_of(args), slot) && own.n > 0) mark_rollout(marks_of(args, w.kept.group), slot);
}

OUT_OF_LINE void add_process_sums(const Args& args, const Work& w) {
    const PlanConstants& plan = plan_of(args);
    for (i32 slot = 0; slot < plan.sets; ++slot) {
        bool pooled = slot == 1 && pools(plan);
        i32 list = pooled ? 0 : slot;
        if (list >= lists_of(args, plan)) continue;
        auto of = [&] { return load_extremes(args, group_keys(args, w.kept.group), slot); };
        auto by_table = [&] { return slot == 0 && has_table(plan); };
        if (by_table() && plan.pool == POOL_ROLLOUTS) add_to_table(args, w, of());
        if (by_table() && plan.pool != POOL_ROLLOUTS) add_process_sum(args, w, slot, add_to_table(args, w, of()));
        else add_process_sum(args, w, slot, list_sums(args, w, list, slot, of));
    }
}

// The per-rollout streams: scalars, one thread a stream.
OUT_OF_LINE void rollout_sums(const Args& args, const Work& w) {
    const PlanConstants& plan = plan_of(args);
    const i32* keys = group_keys(args, w.kept.group);
    i64* words = group_words(args, w.kept.group);
    i32 s = (i32)threadIdx.x;
    if (s >= ROLLOUT_STREAMS) return;
    i32 slot = slot_of_stream(plan, s);
    Value v = rollout_value(args, plan, s, w.i);
    if (!v.there || slot >= plan.slots) return;
    const Stream& row = plan.streams[OUTCOME + s];
    Extremes of = load_extremes(args, keys, slot);
    if (row.center == CENTER_LENGTH_WEIGHTED) {
        // As often as the rollout has tokens in scope; the counts at the extremes are of rollouts.
        Sums own = one_sum(plan, v.x, slot, (i64)w.kept.count, of);
        own.at_max = own.at_max > 0 ? 1 : 0;
        own.at_min = own.at_min > 0 ? 1 : 0;
        add_sums_to(words + 6 * slot, own);
    } else {
        add_sums_to(words + 6 * slot, one_sum(plan, v.x, slot, row.count_by == COUNT_BY_STEP ? (i64)w.kept.elements : (i64)1, of));
    }
    if ((plan.slots_runner_up >> slot & 1) && weighs(row, w.kept) && key(v.x) < of.max) max_key_to(args, group_seconds(args, w.kept.group) + slot, key(v.x));
    if (pools(plan)) {
        Sums own = one_sum(plan, v.x, 1, 1, load_extremes(args, keys, 1));
        add_sums_to(words + 6, own);
        if (asks_one_rollout(plan, 1) && s < 2 && own.n > 0) mark_rollout(marks_of(args, w.kept.group), 1);
    }
}

// The rollout as it was kept; false where it is in no set. The first thread.
OUT_OF_LINE bool open_work(const Args& args, i64 i, Work& w) {
    w.i = i;
    w.kept = rollout_of(args, i);
    if (w.kept.group == NO_GROUP || !counts_in_stats(w.kept)) return false;
    w.e = extent(args, i);
    w.scope = kept_scope(args, i, w.e, w.kept);
    return true;
}

// The task of passrl_sums.
INLINE Task& shared_sums_task() {
    SHARED(Task, task_of_block, [1]);
    return task_of_block[0];
}

// Everything that rollout i has for sums, or (TASK: of a rollout in parts) what the block's part of it has: the values beside its tokens are the first part's. The block.
template <bool TASK> OUT_OF_LINE void sum_rollout(const Args& args, i64 i, Work& w) {
    const PlanConstants& plan = plan_of(args);
    if (ranks_fault(args)) return;
    if (!__syncthreads_or(is_first_thread() && open_work(args, i, w))) return;
    if (TASK) {
        const Task& task = shared_sums_task();
        if (is_first_thread() && task.more > 0) w.scope = part_scope(task.number, w.scope.first, w.scope.end);
        __syncthreads();
    }
    if (w.kept.state & STATE_HAS_PROCESS) add_process_sums(args, w);
    if (TASK && shared_sums_task().number > 0) return;
    if (counts_members(plan) && is_first_thread()) add_to(group_words(args, w.kept.group) + 6 * plan.slots, 1);
    rollout_sums(args, w);
    if (counts_in_batch(plan, w.kept, w.kept.flags)) add_batch_sums(args, w);
}

// The rollouts of the group of rollout i, where groups stand together; none where it is in none. `group`: its number.
struct Members {
    i64 first, end;
    u32 group;
};
INLINE Members members_of(const Args& args, i64 i) {
    const Batch& batch = args.batch;
    const u32 g = group_of(args, i);
    if (g == NO_GROUP) return Members{0, 0, g};
    if (batch.grouping == GROUP_CONSTANT) return Members{g * batch.group_size, (g + 1) * batch.group_size, g};
    return Members{item_int(batch.group_view, g), item_int(batch.group_view, g + 1), g};
}

// Is this the last block of the group's rollouts to come here? As many come as the group has members, each of them once and none that is not: then all of them
// have written what is theirs, whatever the device's offsets say. The block; `members` is the first thread's.
INLINE bool is_last_of_group(const Args& args, const Members& members) {
    __threadfence();
    __syncthreads();
    const bool last = is_first_thread() && members.group != NO_GROUP &&
                      (i64)atomicAdd(&marks_of(args, members.group).arrived, 1u) + 1 == members.end - members.first;
    if (!__syncthreads_or(last)) return false;
    __threadfence();
    return true;
}

// MODE_JOINED: the block that is the last of its group to be done with its sums keeps the group's edges, or the first of them. The block.
INLINE void keep_edges_if_last(const Args& args, i64 i, i64 places, Decision& decision) {
    SHARED(Members, members, [1]);
    if (is_first_thread()) members[0] = members_of(args, i);
    if (counts_of(args).bad_offsets || !is_last_of_group(args, members[0])) return;
    decide(args, members[0].group, decision);
    keep_first_edges(args, places, decision);
}

// MODE_JOINED: waits until all rollouts of group g have been summed; their blocks have begun before. The block.
INLINE void await_sums(const Args& args, i64 i, u32 g) {
    if (is_first_thread()) {
        const Members members = members_of(args, i);
        while ((i64)*(volatile u32*)&marks_of(args, g).arrived < members.end - members.first) {
        }
        __threadfence();
    }
    __syncthreads();
}

// The first blocks have a rollout each, the next ones further parts of long rollouts, and (MODE_JOINED) the last ones the edges of further parts of positions.
extern "C" __global__ void __launch_bounds__(MOST_THREADS, BLOCKS_AT_ONCE) passrl_sums(const __grid_constant__ Args given) {
    const Args& args = open_args(given);
    Task& task = shared_sums_task();
    // (Each is formed where it is asked for: no register keeps it over a call.)
    auto joined = [&] { return (args.mode & MODE_JOINED) && has_table(plan_of(args)); };
    // Of n places there are n + edge_blocks(n) blocks.
    auto places = [&] {
        READ_AGAIN();
        const i64 beside = (i64)gridDim.x - args.batch.rollouts;
        return joined() ? beside * PLACES_A_BLOCK / (PLACES_A_BLOCK + 1) : beside;
    };
    if (args.layout.claims != 0 && is_first_thread()) claim(args, BLOCK_NUMBER());
    if (is_first_thread()) {
        take_task(args, QUEUE_SUMS, args.batch.rollouts, places(), task);
        if (places() > 0 && task.there) shared_work().e = extent(args, task.item);
        if (task.place >= 0 && task.there) task.more = parts_beside_first(shared_work().e.len);
    }
    __syncthreads();
    if (!task.there) {
        auto number = [&] { return task.place - (i64)*(volatile u64*)&counts_of(args).queues[QUEUE_SUMS].parts; };
        if (joined() && !counts_of(args).bad_offsets) keep_further_edges(args, number, shared_decision(), [&](i64 i, u32 g) { await_sums(args, i, g); });
        return;
    }
    if (places() > 0 && task.place < 0) {
        queue_parts(args, QUEUE_SUMS, places(), parts_beside_first(shared_work().e.len), task);
        __syncthreads();
    }
    // Offsets that do not fit may ask for more places than there are: the batch is zeroed.
    if (places() > 0 && counts_of(args).bad_offsets) return;
    sum_rollout<true>(args, task.item, shared_work());
    if (!joined() || (task.more > 0 && !is_last_part(args, QUEUE_SUMS, task))) return;
    keep_edges_if_last(args, task.item, places(), shared_decision());
}

// KL by value, when the sums are complete: the edges of each group's positions. A block a group, and those of further parts.
extern "C" __global__ void __launch_bounds__(MOST_THREADS, BLOCKS_AT_ONCE) passrl_edges(const __grid_constant__ Args given) {
    const Args& args = open_args(given);
    if (counts_of(args).bad_offsets) return;
    if (blockIdx.x < args.batch.groups) {
        decide(args, blockIdx.x, shared_decision());
        keep_first_edges(args, (i64)gridDim.x - args.batch.groups, shared_decision());
        return;
    }
    keep_further_edges(args, [&] { return (i64)blockIdx.x - args.batch.groups; }, shared_decision(), [](i64, u32) {});
}

#endif
