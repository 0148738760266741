// Kernel of a GAE run that needs no statistics: rewards and values a token, no streams a rollout, no mask, groups whose rollouts stand together. Each reward and
// value is read once, looked at, scanned, and both outputs are written at once. What is found makes a whole group's advantages 0, and offsets that do not fit the
// whole batch's: the last block of the group, and of the grid, then takes back what was written.
//
// A block takes a part of a rollout (parts.cuh), counted from the rollout's end, so that parts are whole tiles of the scan. Tiles are summed in parallel; the carry
// goes from part to part in the order of the tiles, and so do the value that an in-place output may overwrite and what the parts have counted.
#ifndef PASSRL_GAE_RUN_CUH
#define PASSRL_GAE_RUN_CUH
#include "gae.cuh"
#include "outputs.cuh"
#include "parts.cuh"
#include "prepare.cuh"

// What a rollout has counted lies in place of its `Rollout`.
INLINE RunTotals& run_totals_of(const Args& args, i64 i) { return ((RunTotals*)args.work.rollouts)[i]; }

// How far the part before has come in telling.
enum GaePartState { GAE_VALUE = 1, GAE_CARRY = 2, GAE_DONE = 3 };
constexpr i32 GAE_MOST_THREADS = 256, GAE_MOST_TILES = GAE_MOST_THREADS * PART_ROUNDS / 32;
constexpr i32 QUEUE_GAE = 0;

struct GaeRoom {
    Extent e;
    Members members;
    ScanTops scan;
    f64 tops[GAE_MOST_TILES], entering[GAE_MOST_TILES];
    f64 gamma, bootstrap, temperature, clip;
    Task task;
    // The part's tokens low .. high; where it and the one after it (nearer to the rollout's begin) stand in the queue (-1: nowhere).
    i64 low, high, own, next;
};

// Which part the block has. A finding of offsets. The block meets at the end.
INLINE void open_gae_room(const Args& args, GaeRoom& room) {
    const PlanConstants& plan = plan_of(args);
    const i64 rollouts = args.batch.rollouts, places = (i64)gridDim.x - rollouts, size = part_size();
    Task& task = room.task;
    if (is_first_thread()) {
        room.gamma = plan.gamma;
        room.temperature = plan.temperature;
        room.clip = plan.clip;
        take_task(args, QUEUE_GAE, rollouts, places, task);
        if (task.there) {
            room.e = extent(args, task.item);
            room.members = members_of(args, task.item);
            room.bootstrap = bootstrap_of(args, task.item);
        }
        if (task.place < 0) {
            if (room.e.bad) atomicOr(&counts_of(args).bad_offsets, 1u);
            if (room.e.bad || room.members.group == NO_GROUP) atomicOr((u64*)&counts_of(args).findings, (u64)FOUND_BAD_OFFSETS);
        }
    }
    __syncthreads();
    if (places > 0 && task.place < 0) queue_parts(args, QUEUE_GAE, places, room.e.len > size ? (room.e.len - 1) / size : 0, task);
    if (is_first_thread() && task.there) {
        room.high = room.e.len - task.number * size;
        room.low = larger(room.high - size, (i64)0);
        room.own = task.place;
        const i64 next = task.place < 0 ? task.first : task.place + 1;
        room.next = room.low > 0 && next < places ? next : -1;
    }
    __syncthreads();
}

// The part's tokens from the last to the first; `bad` grows by 1 for each input that is not finite. y and v (one longer than the part) are shared. What a warp reads
// and writes at a time begins at a sector of the array. The block meets before the first store: the outputs may lie over the inputs.
INLINE Totals gae_in_one_pass(const Args& args, GaeRoom& room, f64* y, f32* v, u32& bad) {
    const Outputs& o = args.outputs;
    const Array &rewards = args.batch.token_rewards, &values = args.batch.values;
    const Extent e = room.e;
    const i64 low = room.low;
    const i32 n = (i32)(room.high - low), tiles = (n + 31) / 32, own_lane = lane();
    auto each = [&](const Array& given, auto body) {
        // (Read once: what the loop stores could lie over it, for all that a compiler knows.)
        const Array a = given;
        const i64 first = at(e, a, low), stride = token_stride(e, a);
        const i32 lead = (i32)sector_lead(a, first, stride);
        for (i32 t = (i32)threadIdx.x - lead; t < n; t += (i32)blockDim.x)
            if (t >= 0) body(a, first + t * stride, t);
    };
    each(values, [&](const Array& a, i64 slot, i32 t) {
        const f32 x = load_f32(a, slot);
        bad += is_finite(x) ? 0 : 1;
        v[t] = x;
    });
    each(rewards, [&](const Array& a, i64 slot, i32 t) {
        const f32 x = load_f32(a, slot);
        bad += is_finite(x) ? 0 : 1;
        y[t] = (f64)x;
    });
    if (is_first_thread()) {
        if (room.own >= 0) await_part(args, QUEUE_GAE, room.own, GAE_VALUE);
        v[n] = room.own >= 0 ? (f32)*(volatile f64*)&part_of(args, QUEUE_GAE, room.own).value : (f32)room.bootstrap;
    }
    __syncthreads();
    if (is_first_thread() && room.next >= 0) {
        part_of(args, QUEUE_GAE, room.next).value = (f64)v[0];
        tell_part(args, QUEUE_GAE, room.next, GAE_VALUE);
    }
    // A tile's positions count from its end.
    for (i32 tile = warp(); tile < tiles; tile += warps()) {
        const i32 t = n - 1 - (32 * tile + own_lane);
        f64 sum = t >= 0 ? (y[t] + room.gamma * (f64)v[t + 1]) - (f64)v[t] : 0.0;
#pragma unroll
        for (i32 d = 0; d < 5; d++) {
            const f64 before = __shfl_up_sync(WARP, sum, 1 << d);
            sum = sum + room.scan.steps[d] * (own_lane >= 1 << d ? before : 0.0);
        }
        if (t >= 0) y[t] = sum;
        if (own_lane == 31) room.tops[tile] = sum;
    }
    __syncthreads();
    if (warp() == 0) carry_tiles(args, QUEUE_GAE, room.own, room.next, GAE_CARRY, tiles, room.scan.powers[32], room.tops, room.entering);
    __syncthreads();
    auto result = [&](i32 t) {
        const i32 p = n - 1 - t;
        return y[t] + room.scan.powers[p % 32 + 1] * room.entering[p / 32];
    };
    u64 none = 0;
    each(o.returns, [&](const Array& a, i64 slot, i32 t) { store(a, slot, (f64)v[t] + result(t), none); });
    const f64 temperature = room.temperature, clip = room.clip;
    const bool clips = !is_infinite(clip), reports = o.report != 0;
    Totals totals = no_totals();
    each(o.advantages, [&](const Array& to, i64 slot, i32 t) {
        const f64 a = result(t);
        f64 posted = temperature == 1.0 ? a : a / temperature;
        if (clips) {
            totals.clipped += absolute(posted) > clip ? 1 : 0;
            posted = clamped(posted, -clip, clip);
        }
        if (reports) {
            totals.sum += posted;
            totals.squares += posted * posted;
        }
        store(to, slot, posted, totals.overflowed);
    });
    return totals;
}

// What the parts of the rollout have counted, from the last to this one; of the first part: kept for the group, and true. The block.
INLINE bool pass_totals_on(const Args& args, const GaeRoom& room, const Totals& totals) {
    RunTotals own = {block_sum(totals.sum), block_sum(totals.squares), block_sum(totals.overflowed), block_sum(totals.clipped), (u32)room.e.len};
    // Everything that the block has written is to be seen by those that are told.
    __threadfence();
    __syncthreads();
    if (is_first_thread()) {
        if (room.own >= 0) {
            await_part(args, QUEUE_GAE, room.own, GAE_DONE);
            const volatile RunTotals& before = part_of(args, QUEUE_GAE, room.own).totals;
            own.sum += before.sum;
            own.squares += before.squares;
            own.overflowed += before.overflowed;
            own.clipped += before.clipped;
        }
        if (room.next >= 0) {
            part_of(args, QUEUE_GAE, room.next).totals = own;
            tell_part(args, QUEUE_GAE, room.next, GAE_DONE);
        } else if (room.low == 0) {
            run_totals_of(args, room.task.item) = own;
        }
    }
    return room.low == 0;
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
    for (i64 i = members.first; bad && i < members.end; ++i) take_back(args, i);
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

// Findings of the rollout, as `credit_findings` has them. The block.
INLINE void tell_gae_findings(const Args& args, const GaeRoom& room, u32 bad) {
    if (is_first_thread() && room.task.number == 0 && room.e.len > 0 && is_given(args.batch.bootstrap)) bad += is_finite(item_f32(args.batch.bootstrap, room.task.item)) ? 0 : 1;
    if (!__syncthreads_or(bad != 0) || room.members.group == NO_GROUP) return;
    add_counts_to(&counts_of(args).nonfinite_values, bad);
    if (!is_first_thread()) return;
    Work w;
    w.i = room.task.item;
    w.kept.group = room.members.group;
    find(args, w, FOUND_NONFINITE, plan_of(args).slot_row[0]);
}

extern "C" __global__ void __launch_bounds__(GAE_MOST_THREADS, 4) passrl_gae(const __grid_constant__ Args given) {
    const Args& args = open_args(given);
    SHARED(GaeRoom, shared_room, [1]);
    DYNAMIC_SHARED(f64, y);
    GaeRoom& room = shared_room[0];
    if (args.batch.grouping == GROUP_OFFSETS) check_group_offsets(args);
    open_scan(plan_of(args).decay, room.scan);
    open_gae_room(args, room);
    if (room.task.there) {
        u32 bad = 0;
        const Totals totals = gae_in_one_pass(args, room, y, (f32*)(y + part_size()), bad);
        tell_gae_findings(args, room, bad);
        if (plan_of(args).fill_padding && room.task.number == 0) {
            pad(args, args.outputs.advantages, room.e);
            pad(args, args.outputs.returns, room.e);
        }
        if (pass_totals_on(args, room, totals) && is_last_of_group(args, room.members)) finish_gae_group(args, room.members);
    }
    if (plan_of(args).fill_padding) {
        pad_ends(args, args.outputs.advantages);
        pad_ends(args, args.outputs.returns);
    }
    if (!is_last_block(args)) return;
    if (*(const volatile u32*)&counts_of(args).bad_offsets) take_all_back(args);
    if (args.outputs.report && is_first_thread()) write_report(args);
}

#endif
