// Sets of steps of equal state (GiGPO): the process elements of a group whose steps have one key are a set of their own. Twin of step_sets.rs.
#ifndef PASSRL_STEP_SETS_CUH
#define PASSRL_STEP_SETS_CUH
#include "decide.cuh"

// Lowest bit of `KeyedStep::slot`: the step is in its set, not only standardised with it.
constexpr u64 KEYED_COUNTS = 1;

INLINE i64 clamped_index(i64 i, i64 end) { return smaller(larger(i, (i64)0), end); }

// Calls body(i) for the rollouts of group g, one after the other; all threads of the block are given the same i.
template <class Body> INLINE void each_member(const Args& args, i64 g, Body body) {
    const Batch& batch = args.batch;
    SHARED(u32, members, [MOST_THREADS]);
    i64 from = 0, to = batch.rollouts;
    if (batch.grouping == GROUP_CONSTANT) {
        from = smaller(g * batch.group_size, to);
        to = smaller(from + batch.group_size, to);
    } else if (batch.grouping == GROUP_OFFSETS) {
        from = clamped_index(item_int(batch.group_view, g), to);
        to = clamped_index(item_int(batch.group_view, g + 1), to);
    }
    for (i64 base = from; base < to; base += blockDim.x) {
        const i64 i = base + threadIdx.x;
        const bool member = i < to && rollout_of(args, i).group == (u32)g;
        const Rank rank = block_rank(member);
        if (member) members[rank.before] = (u32)i;
        __syncthreads();
        for (u32 m = 0; m < rank.total; m++) body((i64)members[m]);
        __syncthreads();
    }
}

// Sorts the block's steps by key, in place: a bitonic network whose comparisons all rise, so that the positions beyond the end stand for the largest keys
// and nothing need be done with them.
INLINE void sort_keyed(KeyedStep* steps, i64 n) {
    auto order = [&](i64 a, i64 b) {
        const KeyedStep x = steps[a], y = steps[b];
        if (y.key < x.key) {
            steps[a] = y;
            steps[b] = x;
        }
    };
    __syncthreads();
    for (i64 size = 2; size < 2 * n; size *= 2) {
        for (i64 half = size / 2; half > 0; half /= 2) {
            const bool mirror = half == size / 2;
            for (i64 pair = threadIdx.x; pair < n; pair += blockDim.x) {
                // The pair-th position whose bit `half` is 0.
                const i64 a = (pair / half) * 2 * half + pair % half, b = mirror ? (a / size) * size + size - 1 - a % size : a + half;
                if (b < n) order(a, b);
            }
            __syncthreads();
        }
    }
}

// One set: steps from .. to of the sorted list, process stream p. A warp.
OUT_OF_LINE void step_set(const Args& args, const KeyedStep* steps, i64 from, i64 to, i32 p, u32* lost) {
    const PlanConstants& plan = plan_of(args);
    const Stream& stream = plan.streams[p];
    const f32* const values = (const f32*)args.work.elements + p * plan.max_tokens;
    f64* const stepped = (f64*)args.work.stepped + p * plan.max_tokens;
    const i32 bits = plan.slot_bits[p];
    // A NaN that is left is a missing value: in no set, and 0 in the fusion.
    auto there = [&](f32 x) { return !(stream.missing == MISSING_EXCLUDE && is_nan(x)); };
    Extremes extremes = no_extremes();
    for (i64 j = from + lane(); j < to; j += 32) {
        const f32 x = values[steps[j].slot >> 1];
        if ((steps[j].slot & KEYED_COUNTS) && there(x)) extremes_push(extremes, x);
    }
    extremes = Extremes{warp_max(extremes.absmax), warp_max(extremes.max), warp_max(extremes.min)};
    const Grid grid = grid_of(bits, extremes.absmax);
    Sums sums = no_sums();
    for (i64 j = from + lane(); j < to; j += 32) {
        const f32 x = values[steps[j].slot >> 1];
        if ((steps[j].slot & KEYED_COUNTS) && there(x)) sums_push_element(sums, grid, x, 1, extremes);
    }
    sums = warp_sums(sums);
    SHARED(Standard, standards_of_warps, [MOST_WARPS]);
    Standard& standard = standards_of_warps[warp()];
    if (lane() == 0) {
        standard.stream = &stream;
        standard.extremes = extremes;
        standard.sums = sums;
        make_standard(standard, bits, KEY_EMPTY, Whole{0, 0, 0.0, 1.0, false}, 0.0, 0.0);
    }
    __syncwarp();
    // Leaving out a whole rollout is refused with these sets, so that there are two ways: of steps in the set, and of others.
    u32 lost_outside = 0, lost_inside = 0;
    const Apply outside = resolve(standard, standard.mean, false, no_sums(), &lost_outside), inside = resolve(standard, standard.mean, true, no_sums(), &lost_inside);
    for (i64 j = from + lane(); j < to; j += 32) {
        const u64 slot = steps[j].slot;
        const f32 x = values[slot >> 1];
        const bool counts = slot & KEYED_COUNTS;
        f64 s = 0.0;
        if (there(x)) {
            s = standardised(standard, counts ? inside : outside, x, lost);
            *lost += counts ? lost_inside : lost_outside;
        }
        stepped[slot >> 1] = s;
    }
}

// Standardises every process element of group g with the set of its key, for `fuse` to read. The block; the group has no findings.
INLINE void step_sets(const Args& args, i64 g) {
    const PlanConstants& plan = plan_of(args);
    u64 own = 0;
    each_member(args, g, [&](i64 i) {
        const Rollout& kept = rollout_of(args, i);
        if (kept.state & STATE_HAS_PROCESS) own += kept.elements;
    });
    SHARED(u64, begin, [1]);
    __syncthreads();
    if (is_first_thread()) begin[0] = atomicAdd(&counts_of(args).keyed, own);
    __syncthreads();
    KeyedStep* const steps = (KeyedStep*)args.work.keyed + begin[0];
    // Rollouts that share steps (offsets that the device has changed) could list more than there are.
    const i64 n = smaller((i64)own, larger(plan.max_steps - (i64)begin[0], (i64)0));
    i64 count = 0;
    each_member(args, g, [&](i64 i) {
        const Rollout& kept = rollout_of(args, i);
        if (!(kept.state & STATE_HAS_PROCESS)) return;
        const Extent e = extent(args, i);
        const i64* const keys = list_of<i64>(args.work.step_keys, e);
        const u64 counts = kept.state & STATE_OUT_OF_STATS ? 0 : KEYED_COUNTS;
        for (i64 j = threadIdx.x; j < (i64)kept.elements; j += blockDim.x)
            if (count + j < n) steps[count + j] = KeyedStep{keys[j], (u64)(e.slot + j) << 1 | counts};
        count += kept.elements;
    });
    // Sums are exact and each element is standardised on its own: the order within a key makes no difference.
    sort_keyed(steps, n);
    SHARED(u32, heads, [MOST_THREADS]);
    u32 lost = 0;
    for (i64 base = 0; base < n; base += blockDim.x) {
        const i64 j = base + threadIdx.x;
        const bool head = j < n && (j == 0 || steps[j - 1].key != steps[j].key);
        const Rank rank = block_rank(head);
        if (head) heads[rank.before] = threadIdx.x;
        __syncthreads();
        for (u32 set = (u32)warp(); set < rank.total; set += (u32)warps()) {
            const i64 from = base + heads[set];
            // The set ends where its key does: by bisection, as it may reach beyond the tile.
            i64 low = from, high = n;
            while (low < high) {
                const i64 middle = low + (high - low) / 2;
                if (steps[middle].key > steps[from].key) high = middle;
                else low = middle + 1;
            }
            for (i32 p = 0; p < args.batch.num_process; p++) step_set(args, steps, from, low, p, &lost);
        }
        __syncthreads();
    }
    lost = warp_sum(lost);
    if (lane() == 0) add_to(&counts_of(args).lost_deviations, (i64)lost);
}

#endif
