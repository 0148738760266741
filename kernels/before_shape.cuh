// Kernels before `passrl_shape`, where sets are a step's equals (src/backend/cpu/step_sets.rs) or tokens have baselines (src/backend/cpu/token_baseline.rs).
#ifndef PASSRL_BEFORE_SHAPE_CUH
#define PASSRL_BEFORE_SHAPE_CUH
#include "step_sets.cuh"
#include "token_baseline.cuh"

// `step_sets = step_group`. A block a group.
extern "C" __global__ void __launch_bounds__(MOST_THREADS, 2) passrl_step_sets(const __grid_constant__ Args given) {
    const Args& args = open_args(given);
    if (counts_of(args).bad_offsets) return;
    decide(args, blockIdx.x, shared_decision());
    if (!shared_decision().bad) step_sets(args, blockIdx.x);
}

// `token_baseline`, before passrl_shape: how far groups reach (a thread a rollout), clear, weigh (passrl_shape in MODE_WEIGH), add (a block a rollout).
extern "C" __global__ void __launch_bounds__(MOST_THREADS, 2) passrl_baselines_longest(const __grid_constant__ Args given) {
    const Args& args = open_args(given);
    if (!counts_of(args).bad_offsets) baselines_longest(args, (i64)blockIdx.x * blockDim.x + threadIdx.x);
}
extern "C" __global__ void __launch_bounds__(MOST_THREADS, 2) passrl_baselines_clear(const __grid_constant__ Args given) {
    const Args& args = open_args(given);
    if (!counts_of(args).bad_offsets) baselines_clear(args, blockIdx.x);
}
extern "C" __global__ void __launch_bounds__(MOST_THREADS, 2) passrl_baselines_add(const __grid_constant__ Args given) {
    const Args& args = open_args(given);
    if (!counts_of(args).bad_offsets) baselines_add(args, blockIdx.x);
}

#endif
