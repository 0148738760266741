// What a group's statistics come to: the standardisation of every stream, findings of the group as a whole, its flags. A block decides for the group of its
// rollout, a thread a set. Twin of `decide` in group.rs.
#ifndef PASSRL_DECIDE_CUH
#define PASSRL_DECIDE_CUH
#include "report.cuh"
#include "group_stats.cuh"
#include "standard.cuh"

// In shared memory.
struct Decision {
    Standard standards[MAX_STREAMS];
    // `PASSRL_GROUP_*` bits of each row of the stream table; finding of each set (0: none).
    i32 flags[MAX_STREAMS];
    i32 findings[MAX_STREAMS];
    // `token_baseline`: more rollouts than its sums allow.
    i32 bad, crowded, format;
    // Sets (bits) that are degenerate and reported; the caller's statistics that are no number.
    u32 degenerate, bad_given;
    // Whose it is.
    u32 group;
    // Rollouts that count (kl).
    i64 members;
};

// That of the block's group, where a kernel has one.
INLINE Decision& shared_decision() {
    SHARED(Decision, decision_of_block, [1]);
    return decision_of_block[0];
}

// Elements that exact sums allow on a grid.
INLINE i64 most_elements(i32 bits) { return bits == ROLLOUT_BITS ? 1ll << 17 : 1ll << 33; }

// A statistic of the caller's; 0 where none is given.
INLINE f64 given_statistic(const Array& statistics, i64 g, i32 row) {
    return is_given(statistics) ? load_f64(statistics, g * statistics.stride[0] + row * statistics.stride[1]) : 0.0;
}

// How many of the caller's statistics that a row takes for a group are no number, beyond f32, or a negative deviation.
INLINE u32 count_bad_given(const Stream& stream, bool by_baselines, f64 mean, f64 std) {
    u32 bad = 0;
    if (stream.center == CENTER_GIVEN && !by_baselines) bad += mean >= -F32_LARGEST && mean <= F32_LARGEST ? 0 : 1;
    if (stream.scale == SCALE_GIVEN) bad += std >= 0.0 && std <= F32_LARGEST ? 0 : 1;
    return bad;
}

// The set of the whole batch.
OUT_OF_LINE Whole whole_of(const Args& args, i32 slot, const Stream& stream) {
    const Extremes extremes = load_extremes(args, batch_keys(args), slot);
    const Sums sums = load_sums(batch_words(args), slot, 7);
    const Grid grid = grid_of(STEP_BITS, extremes.absmax);
    return Whole{sums.n, batch_words(args)[7 * slot + 6], sums_mean(sums, grid), deviation_of(stream, sums, grid), all_equal(extremes)};
}

// The standard of one set of the group, whose sums `decide` has put there. One thread.
INLINE void decide_standard(const Args& args, i32 slot, Decision& to) {
    const PlanConstants& plan = plan_of(args);
    i32 row = plan.slot_row[slot];
    const i64 g = to.group;
    to.standards[slot].stream = &plan.streams[row];
    to.standards[slot].extremes = load_extremes(args, group_keys(args, g), slot);
    const Whole whole = plan.slots_batch ? whole_of(args, slot, plan.streams[row]) : Whole{0, 0, 0.0, 1.0, false};
    FORGET(slot);
    row = plan.slot_row[slot];
    Standard& s = to.standards[slot];
    const i32 second = plan.slots_runner_up ? load_key(args, group_seconds(args, g) + slot) : KEY_EMPTY;
    make_standard(s, plan.slot_bits[slot], second, whole, given_statistic(args.batch.stats_mean, g, row), given_statistic(args.batch.stats_std, g, row));
}

// What is found in that set, and its flags. One thread; nothing that `decide_standard` has read is kept for it.
INLINE void judge_set(const Args& args, i32 slot, Decision& to) {
    const PlanConstants& plan = plan_of(args);
    const i64 g = to.group;
    const GroupMarks& marks = marks_of(args, g);
    const i32 row = plan.slot_row[slot], bits = plan.slot_bits[slot];
    const Stream& stream = plan.streams[row];
    const Standard& s = to.standards[slot];
    const bool process = slot < plan.sets, in_report = plan.slot_reported[slot] >= 0;
    const bool there = process ? (plan.joint && slot == 1) || slot < args.batch.num_process : has_stream(args, plan, slot - plan.sets);
    const f64 mean = given_statistic(args.batch.stats_mean, g, row), std = given_statistic(args.batch.stats_std, g, row);
    const u32 bad_given = there ? count_bad_given(stream, row == OUTCOME && is_given(args.batch.baselines), mean, std) : 0;
    const Extremes extremes = s.extremes;
    i32 finding = 0, flags = 0;
    if (extremes_bad(extremes)) {
        finding = extremes.absmax == KEY_BAD_STEPS ? FOUND_BAD_STEPS : extremes.absmax == KEY_NAN ? FOUND_MISSING : FOUND_NONFINITE;
        flags |= extremes.absmax == KEY_BAD_STEPS ? GROUP_BAD_STEPS : GROUP_NONFINITE;
    }
    if (bad_given) atomicAdd(&to.bad_given, bad_given);
    if (!finding && bad_given) {
        finding = FOUND_NONFINITE;
        flags |= GROUP_NONFINITE;
    }
    if (marks.missing >> slot & 1) flags |= GROUP_MISSING;
    if (there && !finding) {
        const bool flat = all_equal(extremes);
        if (in_report) flags |= s.sums.n <= 0 ? GROUP_EMPTY : s.sums.n == 1 ? GROUP_SINGLE : flat ? GROUP_ZERO_VARIANCE : 0;
        if (in_report && (s.sums.n <= 1 || flat)) atomicOr(&to.degenerate, 1u << slot);
        // Leave-one-out by rollout: do all elements come from one rollout, so that nothing is left?
        const bool by_rollout = leaves_out(stream) && stream.loo_unit == LOO_ROLLOUT && process;
        const bool one_rollout = by_rollout && s.set >= SET_FLAT && is_one_rollout(marks, slot);
        if (s.sums.n >= most_elements(bits)) {
            finding = FOUND_TOO_LARGE;
            flags |= GROUP_TOO_LARGE;
        } else if (in_report && stream.singleton == SINGLETON_REFUSE && (s.set == SET_SINGLE || s.set == SET_EMPTY_BESIDE_ONE || one_rollout)) {
            finding = FOUND_SINGLETON;
        }
    }
    to.findings[slot] = finding;
    // Two sets share a row where one is joint.
    if (flags) atomicOr(&to.flags[row], flags);
    if (finding) atomicOr(&to.bad, 1);
}

// Of group g, by all threads of the block. The block meets at the end.
// (Blocks have more threads than there are sets, or rows.)
OUT_OF_LINE void decide(const Args& args, u32 g, Decision& to) {
    const PlanConstants& plan = plan_of(args);
    __syncthreads();
    if (threadIdx.x < MAX_STREAMS) to.flags[threadIdx.x] = to.findings[threadIdx.x] = 0;
    // Words of all sets stand side by side.
    const i64* const words = group_words(args, g);
    for (i32 n = (i32)threadIdx.x; n < 6 * plan.slots; n += (i32)blockDim.x) ((i64*)&to.standards[n / 6].sums)[n % 6] = words[n];
    if (is_first_thread()) {
        to.group = g;
        to.bad = to.crowded = 0;
        to.degenerate = to.bad_given = 0;
        to.format = load_format(args, group_keys(args, g), plan.slots);
        to.members = load_members(plan, group_words(args, g));
    }
    __syncthreads();
    if ((i32)threadIdx.x < plan.slots) {
        decide_standard(args, (i32)THREAD_NUMBER(), to);
        READ_AGAIN();
        judge_set(args, (i32)THREAD_NUMBER(), to);
    }
    __syncthreads();
    if (is_first_thread()) {
        if (is_given(args.batch.sum_pi_squared) && !to.bad && (i64)marks_of(args, to.group).rollouts >= most_elements(ROLLOUT_BITS)) {
            to.bad = to.crowded = 1;
            to.flags[OUTCOME] |= GROUP_TOO_LARGE;
        }
        if (to.format == 1) to.flags[FORMAT] |= GROUP_ALL_VIOLATING;
    }
    __syncthreads();
    if (to.bad && threadIdx.x < MAX_STREAMS) to.flags[threadIdx.x] |= GROUP_BAD;
    __syncthreads();
}

// Of a batch whose offsets do not fit no set is known. The block.
OUT_OF_LINE void forget_sets(Decision& decision) {
    if (threadIdx.x < MAX_STREAMS) {
        decision.flags[threadIdx.x] |= GROUP_BAD;
        decision.standards[threadIdx.x].sums = no_sums();
    }
    __syncthreads();
}

// Counts what `decide` has found of its group. One thread.
OUT_OF_LINE void count_group(const Args& args, const Decision& decision) {
    const PlanConstants& plan = plan_of(args);
    const i64 g = decision.group;
    const GroupMarks& marks = marks_of(args, g);
    Counts& counts = counts_of(args);
    if (decision.crowded) find_in_group(args, g, FOUND_TOO_LARGE, OUTCOME);
    if (marks.rollouts == 0) return;
    add_to(&counts.nonfinite_values, decision.bad_given);
    add_to(&counts.degenerate_groups, __popc(decision.degenerate));
    add_to(&counts.bad_groups, decision.bad);
    add_to(&counts.violating_groups, decision.format == 1);
    if (marks.found) return; // a rollout's finding has been told
    for (i32 slot = 0; slot < plan.slots; slot++)
        if (decision.findings[slot]) find_in_group(args, g, decision.findings[slot], plan.slot_row[slot]);
}

#endif
