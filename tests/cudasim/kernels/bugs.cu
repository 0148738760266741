// Kernels with one seeded bug each, which a check must find (tests/*/bugs.rs). Not instructions on style.
#include "scan.cuh"
#define KERNEL extern "C" __global__ void

// ---- memory ----
KERNEL bug_out_of_bounds(float *p) { p[blockIdx.x * blockDim.x + threadIdx.x] = 1.f; }
KERNEL bug_one_beyond(float *p, int n) { p[n] = 1.f; }
KERNEL bug_before(float *p) { p[-1] = 1.f; }
KERNEL bug_uninitialised(const float *p, float *q) { q[threadIdx.x] = p[threadIdx.x] + 1.f; }
KERNEL bug_uninitialised_shared(float *q) {
    SHARED(float, s, [64]);
    if (threadIdx.x < 31) s[threadIdx.x] = 1.f;
    __syncthreads();
    q[threadIdx.x] = s[threadIdx.x];
}
// Memory of the block that ran before.
KERNEL bug_carried_over(float *q) {
    SHARED(float, s, [32]);
    if (blockIdx.x == 0) s[threadIdx.x] = 1.f;
    q[blockIdx.x * 32 + threadIdx.x] = s[threadIdx.x];
}
KERNEL bug_shared_overrun(float *q) {
    SHARED(float, first, [32]);
    SHARED(float, second, [32]);
    float *p = first;
    p[threadIdx.x + 1] = 1.f;
    second[threadIdx.x] = 1.f;
    __syncthreads();
    q[threadIdx.x] = second[threadIdx.x];
}
KERNEL bug_shared_index(float *q) {
    SHARED(float, s, [32]);
    s[threadIdx.x + 1] = 1.f;
    q[threadIdx.x] = s[threadIdx.x];
}
KERNEL bug_dynamic_overrun(float *q) {
    DYNAMIC_SHARED(float, d);
    d[threadIdx.x] = 1.f;
    q[threadIdx.x] = d[threadIdx.x];
}
KERNEL bug_misaligned(float *q) { *(float4 *)(q + 1 + 4 * threadIdx.x) = make_float4(1.f, 2.f, 3.f, 4.f); }
KERNEL bug_null(float *q) { *q = 1.f; }
KERNEL bug_host_pointer(const float *p, float *q) { q[threadIdx.x] = p[threadIdx.x]; }
__device__ int counter;
KERNEL bug_module_variable(int *q) {
    counter = threadIdx.x;
    q[threadIdx.x] = counter;
}
static __device__ int fill_stack(volatile char *before) {
    volatile char more[8192];
    more[0] = before[0];
    return fill_stack(more) + more[1];
}
KERNEL bug_stack(int *q) {
    volatile char first[1] = {1};
    q[0] = fill_stack(first);
}

// ---- order ----
KERNEL bug_missing_barrier(float *q) {
    SHARED(float, s, [64]);
    s[threadIdx.x] = threadIdx.x;
    q[threadIdx.x] = s[63 - threadIdx.x];
}
KERNEL bug_scan(const float *r, const u8 *reset, float *out, float gamma, i64 n) {
    DYNAMIC_SHARED(Affine, of_warp);
    scan_rows<false>(r, reset, out, gamma, n, of_warp);
}
KERNEL bug_missing_syncwarp(float *q) {
    SHARED(float, s, [32]);
    s[threadIdx.x] = threadIdx.x;
    __syncwarp();
    const float v = s[31 - threadIdx.x];
    s[threadIdx.x] = v + 1.f;
    q[threadIdx.x] = v;
}
KERNEL bug_blocks_race(float *q) { q[threadIdx.x] = blockIdx.x; }
// Not an atomic addition.
KERNEL bug_lost_update(unsigned *q) { q[0] = q[0] + 1; }
KERNEL bug_spin(unsigned *flag) {
    while (*(volatile unsigned *)flag == 0) {
    }
}
KERNEL bug_spin_atomic(unsigned *flag) {
    while (atomicAdd(flag, 0u) == 0) {
    }
}

// ---- barriers and collectives ----
KERNEL bug_divergent(float *q) {
    if (threadIdx.x < 32)
        __syncthreads();
    else
        __syncthreads();
    q[threadIdx.x] = 1.f;
}
KERNEL bug_ended(float *q) {
    if (threadIdx.x >= 40) return;
    q[threadIdx.x] = 1.f;
    __syncthreads();
    q[threadIdx.x] = 2.f;
}
KERNEL bug_deadlock(float *q) {
    if (threadIdx.x < 16) q[threadIdx.x] = __shfl_sync(~0u, 1.f, 0);
}
KERNEL bug_mask(float *q) { q[threadIdx.x] = __shfl_sync(0xFFFEu, 1.f, 1); }
KERNEL bug_collectives(float *q) {
    float v = 1.f;
    if (threadIdx.x & 1)
        v = __shfl_sync(~0u, v, 0);
    else
        v = __shfl_down_sync(~0u, v, 1);
    q[threadIdx.x] = v;
}
// Lane 20 does not take part: undefined in CUDA, NaN here.
KERNEL bug_absent_lane(float *q) {
    if (threadIdx.x < 16) q[threadIdx.x] = __shfl_sync(0xFFFFu, 1.f, 20);
}
KERNEL bug_async(const float *p, float *q) {
    SHARED(float4, s, [32]);
    cp_async_16(&s[threadIdx.x], p + 4 * threadIdx.x);
    cp_async_commit();
    __syncthreads();
    q[threadIdx.x] = s[31 - threadIdx.x].y;
}

// ---- what x86 does otherwise ----
KERNEL bug_shift(unsigned *q) { q[threadIdx.x] = 1u << (threadIdx.x + 1); }
KERNEL bug_cast(int *q, float v) { q[threadIdx.x] = (int)v; }
KERNEL bug_divide(int *q, int by) { q[threadIdx.x] = 100 / by; }
KERNEL bug_local_array(int *q, int i) {
    int local[4] = {1, 2, 3, 4};
    q[threadIdx.x] = local[i + threadIdx.x];
}
KERNEL bug_trap() { __trap(); }
KERNEL __launch_bounds__(2 * 32) bug_bounds(float *q) { q[threadIdx.x] = 1.f; }
KERNEL bug_static_shared(float *q) {
    SHARED(float, s, [10000]);
    s[threadIdx.x] = 1.f;
    q[threadIdx.x] = s[threadIdx.x];
}
