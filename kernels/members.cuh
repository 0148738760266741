// The sums of a whole group by one block (src/backend/cpu/group_stats.rs, `sums`): what the last of a group's blocks does in passrl_prepare (MODE_JOINED). Rollouts
// are opened by a thread each and shared out over the block's warps, as integers add in any order.
#ifndef PASSRL_MEMBERS_CUH
#define PASSRL_MEMBERS_CUH
#include "sums.cuh"

// The most rollouts of a group that one block adds, as src/backend/cuda/way.rs has it; and elements from which on a rollout is the whole block's.
constexpr i32 MOST_MEMBERS = 64;
constexpr u32 LONG_MEMBER = 128;

// A rollout of the group. In shared memory.
struct Member {
    // Its elements of list 0, and where its lists lie; elements of the process sets, tokens in scope.
    const f32* values;
    i64 slot;
    u32 elements, count;
    // Is it in the sets?
    bool counts;
};

// (Out of line: where a rollout's lists lie takes more registers than are left beside what the kernels keep.)
OUT_OF_LINE void open_members(const Args& args, const Members& members, Member* to) {
#pragma unroll 1
    for (i32 m = (i32)threadIdx.x; m < (i32)(members.end - members.first); m += (i32)blockDim.x) {
        const Rollout kept = rollout_of(args, members.first + m);
        const bool counts = kept.group != NO_GROUP && counts_in_stats(kept);
        if (counts) {
            const Extent e = extent(args, members.first + m);
            to[m] = Member{elements_of(args, members.first + m, e, kept, 0), e.slot, kept.elements, kept.count, true};
        } else {
            to[m] = Member{0, 0, 0, kept.count, false};
        }
    }
    __syncthreads();
}

// Their elements of a process list, to the set of `slot`. The block.
OUT_OF_LINE void add_members(const Args& args, const Member* members, i32 count, u32 group, i32 list, i32 slot) {
    const PlanConstants& plan = plan_of(args);
    const Extremes of = load_extremes(args, group_keys(args, group), slot);
    // A set with findings has no grid, and its group no use for sums.
    if (extremes_bad(of)) return;
    const Grid grid = grid_of(plan.slot_bits[slot], of.absmax);
    const bool at_extremes = counts_extremes(plan, list, grid.bits), skip = skips_nan(plan, list), weighed = plan.pool == POOL_TOKENS;
    const i64 list_at = list * plan.max_tokens;
    Sums own = no_sums();
    auto add = [&](const f32* values, i64 slot, u32 j) {
        const f32 x = values[j];
        if (skip && is_nan(x)) return;
        const i64 weight = weighed ? (i64)((const u32*)args.work.weights)[slot + j] : 1;
        if (at_extremes) sums_push_element(own, grid, x, weight, of);
        else sums_push(own, grid, quantize(grid, x), weight);
    };
    for (i32 m = warp(); m < count; m += warps()) {
        const u32 elements = members[m].elements;
        const f32* const values = members[m].values + list_at;
        const i64 slot = members[m].slot;
        for (u32 j = (u32)lane(); elements <= LONG_MEMBER && j < elements; j += 32) add(values, slot, j);
    }
    for (i32 base = 0; base < count; base += 32) {
        const i32 m = base + lane();
        for (u32 votes = __ballot_sync(WARP, m < count && members[m < count ? m : 0].elements > LONG_MEMBER); votes != 0; votes &= votes - 1) {
            const Member& member = members[base + __ffs((i32)votes) - 1];
            const u32 elements = member.elements;
            const f32* const values = member.values + list_at;
            const i64 slot = member.slot;
            for (u32 j = threadIdx.x; j < elements; j += blockDim.x) add(values, slot, j);
        }
    }
    own = block_sums(own);
    if (is_first_thread()) add_sums_to(group_words(args, group) + 6 * slot, own);
}

// Their values of per-rollout stream s, to its set or (`pooled`) to the pooled one. A warp.
INLINE void add_members_stream(const Args& args, const Members& members, const Member* of, i32 s, bool pooled) {
    const PlanConstants& plan = plan_of(args);
    const i32 slot = pooled ? 1 : slot_of_stream(plan, s);
    if (slot >= plan.slots) return;
    const Stream& row = plan.streams[OUTCOME + s];
    const Extremes extremes = load_extremes(args, group_keys(args, members.group), slot);
    Sums own = no_sums();
    for (i32 m = lane(); m < (i32)(members.end - members.first); m += 32) {
        const Member& member = of[m];
        const Value v = member.counts ? rollout_value(args, plan, s, members.first + m) : Value{0.0f, false};
        if (!v.there) continue;
        const bool by_length = !pooled && row.center == CENTER_LENGTH_WEIGHTED;
        const i64 weight = by_length ? (i64)member.count : !pooled && row.count_by == COUNT_BY_STEP ? (i64)member.elements : (i64)1;
        Sums one = one_sum(plan, v.x, slot, weight, extremes);
        if (by_length) {
            // As often as the rollout has tokens in scope; the counts at the extremes are of rollouts.
            one.at_max = one.at_max > 0 ? 1 : 0;
            one.at_min = one.at_min > 0 ? 1 : 0;
        }
        sums_add(own, one);
        const bool weighs = (row.center != CENTER_LENGTH_WEIGHTED || member.count > 0) && (row.count_by == COUNT_BY_ROLLOUT || member.elements > 0);
        if (!pooled && (plan.slots_runner_up >> slot & 1) && weighs && key(v.x) < extremes.max) max_key_to(args, group_seconds(args, members.group) + slot, key(v.x));
    }
    own = warp_sums(own);
    if (lane() == 0) add_sums_to(group_words(args, members.group) + 6 * slot, own);
}
// Of all streams: a warp has every n-th. The block.
OUT_OF_LINE void add_members_streams(const Args& args, const Members& members, const Member* of) {
    for (i32 s = warp(); s < ROLLOUT_STREAMS; s += warps()) {
        READ_AGAIN();
        if (!sums_rewards(plan_of(args)) && !is_given(args.batch.rollout_streams[s])) continue;
#pragma unroll 1
        for (i32 set = 0; set < (pools(plan_of(args)) ? 2 : 1); ++set) add_members_stream(args, members, of, s, set == 1);
    }
}

// Is all that a group's rollouts have for its sums in their lists and streams, and nothing asked of a single one?
INLINE bool adds_as_one(const Args& args, const PlanConstants& plan) {
    bool one = plan.kind != KIND_KL && plan.pool != POOL_ROLLOUTS && plan.slots_batch == 0;
    for (i32 slot = 0; slot < plan.sets; ++slot) one = one && !asks_one_rollout(plan, slot);
    return one;
}

// Sums of all rollouts of a group. The block.
INLINE void sum_members(const Args& args, const Members& members) {
    const PlanConstants& plan = plan_of(args);
    SHARED(Member, member, [MOST_MEMBERS]);
    // (Each is formed where it is asked for: no register keeps it over a call.)
    auto count = [&] { return (i32)(members.end - members.first); };
    auto pooled = [&] { return pools(plan); };
    open_members(args, members, member);
    for (i32 slot = 0; slot < plan.sets; ++slot) {
        const i32 list = slot == 1 && pooled() ? 0 : slot;
        if (list < lists_of(args, plan)) add_members(args, member, count(), members.group, list, slot);
    }
    add_members_streams(args, members, member);
}

// MODE_JOINED: the block that is the last of its group to be done with its maxima adds the sums of all of them. The block.
INLINE void sum_group_if_last(const Args& args, i64 i, Work& w) {
    SHARED(Members, members, [1]);
    if (is_first_thread()) members[0] = members_of(args, i);
    if (!is_last_of_group(args, members[0])) return;
    if (members[0].end - members[0].first <= MOST_MEMBERS && adds_as_one(args, plan_of(args)) && !ranks_fault(args)) return sum_members(args, members[0]);
    while (members[0].first < members[0].end) {
        sum_rollout<false>(args, members[0].first, w);
        __syncthreads();
        if (is_first_thread()) ++members[0].first;
        __syncthreads();
    }
}

#endif
