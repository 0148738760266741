// Kernel of a GAE run that needs no statistics: rewards and values a token, no streams a rollout, no mask, groups whose rollouts stand together. One block a
// rollout reads each reward and value once, looks at them, scans, and writes both outputs at once. What is found makes a whole group's advantages 0, and
// offsets that do not fit the whole batch's: the last block of the group, and of the grid, then takes back what was written.
#ifndef PASSRL_GAE_RUN_CUH
#define PASSRL_GAE_RUN_CUH
#include "gae.cuh"
#include "outputs.cuh"
#include "prepare.cuh"

// What a rollout has counted until its group is known to be good. Lies in place of its `Rollout`.
struct RunTotals {
    f64 sum, squares;
    u64 overflowed;
    u32 clipped, tokens;
};
INLINE RunTotals& run_totals_of(const Args& args, i64 i) { return ((RunTotals*)args.work.rollouts)[i]; }

struct GaeRoom {
    Extent e;
    Members members;
    ScanTops scan;
    // The value of each round's last position, for the next: the output may lie over the values.
    f64 values[2];
    f64 gamma, bootstrap, temperature, clip;
    bool last_of_group;
};

// The rollout's tokens from the last to the first; `bad` grows by 1 for each input that is not finite. The block meets before each round's stores and before the
// next one's loads of what they overwrite.
INLINE Totals gae_in_one_pass(const Args& args, GaeRoom& room, u32& bad) {
    const Outputs& o = args.outputs;
    const Array &rewards = args.batch.token_rewards, &values = args.batch.values;
    const Extent e = room.e;
    const i64 n = e.len;
    const i32 own_lane = lane(), own_warp = warp(), count = warps();
    const f64 gamma = room.gamma, temperature = room.temperature, clip = room.clip;
    const bool clips = !is_infinite(clip), reports = o.report != 0;
    Totals totals = no_totals();
    u64 none = 0;
    f64 carry = 0.0;
    i32 round = 0;
    for (i64 done = 0; done < n; done += blockDim.x, round ^= 1) {
        const i64 t = n - 1 - (done + threadIdx.x);
        f64 reward = 0.0, value = 0.0;
        if (t >= 0) {
            const f32 r = load_f32(rewards, at(e, rewards, t)), v = load_f32(values, at(e, values, t));
            bad += is_finite(r) ? 0 : 1;
            bad += is_finite(v) ? 0 : 1;
            reward = (f64)r;
            value = (f64)v;
        }
        f64 next = __shfl_up_sync(WARP, value, 1);
        if (own_lane == 0 && t >= 0) {
            if (t + 1 == n) next = room.bootstrap;
            else if (own_warp == 0) next = room.values[round ^ 1];
            else next = (f64)load_f32(values, at(e, values, t + 1));
        }
        f64 y = t >= 0 ? (reward + gamma * next) - value : 0.0;
#pragma unroll
        for (i32 d = 0; d < 5; d++) {
            const f64 before = __shfl_up_sync(WARP, y, 1 << d);
            y = y + room.scan.steps[d] * (own_lane >= 1 << d ? before : 0.0);
        }
        if (own_lane == 31) room.scan.tops[round][own_warp] = y;
        if (threadIdx.x + 1 == blockDim.x) room.values[round] = value;
        __syncthreads();
        f64 entering = carry;
        for (i32 w = 0; w < count; w++) {
            if (w == own_warp) entering = carry;
            carry = room.scan.tops[round][w] + room.scan.powers[32] * carry;
        }
        if (t < 0) continue;
        const f64 a = y + room.scan.powers[own_lane + 1] * entering;
        store(o.returns, at(e, o.returns, t), value + a, none);
        f64 posted = temperature == 1.0 ? a : a / temperature;
        if (clips) {
            totals.clipped += absolute(posted) > clip ? 1 : 0;
            posted = clamped(posted, -clip, clip);
        }
        if (reports) {
            totals.sum += posted;
            totals.squares += posted * posted;
        }
        store(o.advantages, at(e, o.advantages, t), posted, totals.overflowed);
    }
    return totals;
}

// Zeros in every slot of rollout i, by this block.
INLINE void take_back(const Args& args, i64 i) {
    const Extent e = extent(args, i);
    zero_slots(args.outputs.advantages, e.row, e.column, e.column + e.len, e.flat, threadIdx.x, blockDim.x);
    zero_slots(args.outputs.returns, e.row, e.column, e.column + e.len, e.flat, threadIdx.x, blockDim.x);
}

// What the rollouts of a group have counted; of a bad one the advantages are 0. The block.
OUT_OF_LINE void finish_gae_group(const Args& args, const Members& members) {
    const PlanConstants& plan = plan_of(args);
    const bool bad = *(const volatile u32*)&marks_of(args, members.group).found != 0;
    Totals totals = no_totals();
    i64 tokens = 0, chunks = 0;
    for (i64 i = members.first + threadIdx.x; i < members.end; i += blockDim.x) {
        const RunTotals own = run_totals_of(args, i);
        tokens += own.tokens;
        chunks += plan.chunk == CHUNK_TOKEN ? (i64)own.tokens : own.tokens > 0 ? 1 : 0;
        if (bad) continue;
        totals.clipped += own.clipped;
        totals.overflowed += own.overflowed;
        totals.sum += own.sum;
        totals.squares += own.squares;
    }
    for (i64 i = members.first; bad && i < members.end; ++i) take_back(args, i);
    tokens = block_sum(tokens);
    chunks = block_sum(chunks);
    add_totals(args, totals);
    if (!is_first_thread()) return;
    Counts& counts = counts_of(args);
    add_to(&counts.rollouts, members.end - members.first);
    add_to(&counts.tokens, tokens);
    add_to(&counts.chunks, chunks);
    add_to(&counts.bad_groups, bad ? 1 : 0);
}

// The batch's offsets do not fit: every slot is 0, and nothing of any rollout counts but what was found. The last block of the grid, alone.
OUT_OF_LINE void take_all_back(const Args& args) {
    const i64 rows = args.batch.layout == PACKED ? 1 : args.batch.rollouts;
    for (i64 row = 0; row < rows; ++row) {
        zero_slots(args.outputs.advantages, row, 0, args.batch.slots, args.batch.layout == PACKED, threadIdx.x, blockDim.x);
        zero_slots(args.outputs.returns, row, 0, args.batch.slots, args.batch.layout == PACKED, threadIdx.x, blockDim.x);
    }
    if (!is_first_thread()) return;
    Counts& counts = counts_of(args);
    counts.rollouts = counts.tokens = counts.chunks = counts.clipped_tokens = counts.overflowed_tokens = 0;
    counts.sum_advantages = counts.sum_squares = 0.0;
}

// The rollout's place, its group and the plan's numbers; a finding of offsets. One thread.
INLINE void open_gae_room(const Args& args, i64 i, GaeRoom& room) {
    const PlanConstants& plan = plan_of(args);
    room.e = extent(args, i);
    room.members = members_of(args, i);
    if (room.e.bad) atomicOr(&counts_of(args).bad_offsets, 1u);
    if (room.e.bad || room.members.group == NO_GROUP) atomicOr((u64*)&counts_of(args).findings, (u64)FOUND_BAD_OFFSETS);
    room.gamma = plan.gamma;
    room.temperature = plan.temperature;
    room.clip = plan.clip;
    room.bootstrap = bootstrap_of(args, i);
}

// Findings of the rollout, as `credit_findings` has them. The block.
INLINE void tell_gae_findings(const Args& args, const GaeRoom& room, i64 i, u32 bad) {
    if (is_first_thread() && room.e.len > 0 && is_given(args.batch.bootstrap)) bad += is_finite(item_f32(args.batch.bootstrap, i)) ? 0 : 1;
    if (!__syncthreads_or(bad != 0) || room.members.group == NO_GROUP) return;
    add_counts_to(&counts_of(args).nonfinite_values, bad);
    if (!is_first_thread()) return;
    Work w;
    w.i = i;
    w.kept.group = room.members.group;
    find(args, w, FOUND_NONFINITE, plan_of(args).slot_row[0]);
}

extern "C" __global__ void __launch_bounds__(MOST_THREADS, BLOCKS_AT_ONCE) passrl_gae(const __grid_constant__ Args args) {
    open_plan(args, false);
    SHARED(GaeRoom, shared_room, [1]);
    GaeRoom& room = shared_room[0];
    const i64 i = blockIdx.x;
    if (args.batch.grouping == GROUP_OFFSETS) check_group_offsets(args);
    if (is_first_thread()) open_gae_room(args, i, room);
    open_scan(plan_of(args).decay, room.scan);
    __syncthreads();
    u32 bad = 0;
    Totals totals = gae_in_one_pass(args, room, bad);
    tell_gae_findings(args, room, i, bad);
    if (plan_of(args).fill_padding) {
        pad(args, args.outputs.advantages, room.e);
        pad(args, args.outputs.returns, room.e);
        pad_ends(args, args.outputs.advantages);
        pad_ends(args, args.outputs.returns);
    }
    const u64 overflowed = block_sum(totals.overflowed);
    const u32 clipped = block_sum(totals.clipped);
    const f64 sum = block_sum(totals.sum), squares = block_sum(totals.squares);
    if (is_first_thread()) run_totals_of(args, i) = RunTotals{sum, squares, overflowed, clipped, (u32)room.e.len};
    if (is_last_of_group(args, room.members)) finish_gae_group(args, room.members);
    if (!is_last_block(args)) return;
    if (*(const volatile u32*)&counts_of(args).bad_offsets) take_all_back(args);
    if (args.outputs.report && is_first_thread()) write_report(args);
}

#endif
