// Primitives on values a rollout: statistics and standardisation by group, and the flags of the groups. passrl_prepare and passrl_sums have taken maxima, findings and
// sums of rollouts without a token; this kernel decides for each group and writes. Twin of primitives/groups.rs.
#ifndef PASSRL_PRIMITIVES_GROUPS_CUH
#define PASSRL_PRIMITIVES_GROUPS_CUH
#include "outputs.cuh"

// What is known of the group's one set. One thread.
OUT_OF_LINE void write_statistics(const Args& args, const Decision& decision) {
    const i64 g = decision.group;
    const Outputs& o = args.outputs;
    const Standard& s = decision.standards[0];
    const bool known = !extremes_bad(s.extremes) && s.sums.n > 0 && decision.findings[0] != FOUND_TOO_LARGE;
    f64 mean = 0.0, std = 0.0;
    if (known) reported(s, &mean, &std);
    u64 none = 0;
    if (is_given(o.stats_count)) store_int(o.stats_count, g * o.stats_count.stride[0], known ? s.sums.n : 0);
    if (is_given(o.stats_mean)) store(o.stats_mean, g * o.stats_mean.stride[0], mean, none);
    if (is_given(o.stats_std)) store(o.stats_std, g * o.stats_std.stride[0], std, none);
    if (is_given(o.stats_absmax)) store(o.stats_absmax, g * o.stats_absmax.stride[0], known ? (f64)absmax_value(s.extremes) : 0.0, none);
}

// Of a set that is too large nothing else is said. One thread.
OUT_OF_LINE void leave_too_large(const PlanConstants& plan, Decision& decision) {
    for (i32 slot = 0; slot < plan.slots; slot++) {
        if (decision.findings[slot] != FOUND_TOO_LARGE) continue;
        decision.flags[plan.slot_row[slot]] &= ~(i32)GROUP_ZERO_VARIANCE;
        decision.degenerate &= ~(1u << slot);
    }
}

// Counts of the group, and its first finding where no rollout's has been told. One thread.
OUT_OF_LINE void tell_group(const Args& args, const Decision& decision) {
    const i64 g = decision.group;
    const PlanConstants& plan = plan_of(args);
    const GroupMarks& marks = marks_of(args, g);
    if (marks.rollouts == 0) return;
    Counts& counts = counts_of(args);
    add_to(&counts.degenerate_groups, __popc(decision.degenerate));
    add_to(&counts.bad_groups, decision.bad);
    add_to(&counts.violating_groups, decision.format == 1);
    for (i32 slot = 0; slot < plan.slots && !marks.found; slot++) {
        if (!decision.findings[slot]) continue;
        find_in_group(args, g, decision.findings[slot], plan.slot_row[slot]);
        return;
    }
}

// N(x; S) of a rollout whose group is good. One thread.
OUT_OF_LINE f64 standardised_own(const Args& args, i64 i, const Rollout& kept, const Decision& decision) {
    u32 lost = 0;
    return standardised_stream(args, i, 0, kept, decision, &lost);
}

// A rollout's flags: its scope is not known, and with a process signal to come it may still have a value.
INLINE i32 early_flags(const Args& args, const Rollout& kept, bool bad) {
    u32 flags = kept.flags;
    if (flags & ROLLOUT_ABSENT) return (i32)flags;
    flags &= ~(u32)ROLLOUT_NO_SCOPE;
    if (args.primitive == PRIMITIVE_FLAGS_EARLY) flags &= ~(u32)ROLLOUT_NO_STREAM;
    return (i32)(bad ? flags | ROLLOUT_IN_BAD_GROUP : flags);
}

// Does the block's batch have offsets that do not fit?
INLINE bool is_bad_batch(const Args& args) { return counts_of(args).bad_offsets != 0; }

// The block's group: what is known of its sets. The block.
INLINE void write_group(const Args& args, Decision& decision) {
    decide(args, blockIdx.x, decision);
    if (is_bad_batch(args)) forget_sets(decision);
    if (is_first_thread()) leave_too_large(plan_of(args), decision);
    __syncthreads();
    if (args.primitive != PRIMITIVE_STANDARDIZE) group_outputs(args, decision);
    if (!is_first_thread()) return;
    if (args.primitive == PRIMITIVE_STANDARDIZE) write_statistics(args, decision);
    else tell_group(args, decision);
}

// The block's rollout: its result, its flags. The block.
INLINE void write_rollout(const Args& args, Decision& decision) {
    const Outputs& o = args.outputs;
    const i64 i = blockIdx.x;
    if (const u32 g = rollout_of(args, i).group; g != NO_GROUP) decide(args, g, decision);
    if (!is_first_thread()) return;
    const Rollout kept = rollout_of(args, i);
    const bool bad_batch = is_bad_batch(args), bad = bad_batch || kept.group == NO_GROUP || decision.bad;
    if (is_given(o.advantages)) {
        u64 none = 0;
        // x of this rollout is read before its result is written over it; the sums were taken before.
        const f64 r = bad || (kept.flags & ROLLOUT_ABSENT) ? 0.0 : standardised_own(args, i, kept, decision);
        store(o.advantages, i * o.advantages.stride[0], r, none);
    }
    if (args.primitive == PRIMITIVE_STANDARDIZE) return;
    if (!bad_batch && !(kept.flags & ROLLOUT_ABSENT)) add_to(&counts_of(args).rollouts, 1);
    if (is_given(o.rollout_flags)) store_int(o.rollout_flags, i * o.rollout_flags.stride[0], early_flags(args, kept, bad));
}

// Block b: group b, then rollout b.
extern "C" __global__ void __launch_bounds__(MOST_THREADS, 2) passrl_primitive_groups(const __grid_constant__ Args given) {
    const Args& args = open_args(given);
    if (blockIdx.x < args.batch.groups) write_group(args, shared_decision());
    __syncthreads();
    if (blockIdx.x < args.batch.rollouts) write_rollout(args, shared_decision());
    __syncthreads();
    finish_report(args);
}

#endif
