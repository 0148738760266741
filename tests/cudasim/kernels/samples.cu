// Kernels that are right: whatever the schedule, the checks find nothing and the results are those of a loop.
#include "scan.cuh"

extern "C" __global__ void __launch_bounds__(256) reverse_scan(const float *r, const u8 *reset, float *out, float gamma, i64 n) {
    DYNAMIC_SHARED(Affine, of_warp);
    scan_rows<true>(r, reset, out, gamma, n, of_warp);
}

// Sums of each block, which the last block to end adds up; votes; a histogram by atomics.
extern "C" __global__ void sums(const unsigned *x, unsigned *partial, unsigned *ticket, unsigned long long *total, int *votes, unsigned *histogram, int n) {
    SHARED(unsigned, of_warp, [32]);
    SHARED(unsigned, bins, [8]);
    SHARED(bool, is_last);
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (threadIdx.x < 8) bins[threadIdx.x] = 0;
    __syncthreads();
    const unsigned v = i < n ? x[i] : 0u;
    if (i < n) atomicAdd(&bins[v & 7], 1u);
    unsigned sum = v;
    for (int d = 16; d; d >>= 1) sum += __shfl_xor_sync(~0u, sum, d);
    if ((threadIdx.x & 31) == 0) of_warp[threadIdx.x >> 5] = sum;
    const int count = __syncthreads_count(i < n && (v & 1));
    const int any = __syncthreads_or(v == 77), all = __syncthreads_and(i >= n || v < 1000);
    if (threadIdx.x == 0) {
        unsigned whole = 0;
        for (unsigned w = 0; w < blockDim.x / 32; w++) whole += of_warp[w];
        partial[blockIdx.x] = whole;
        atomicAdd(&votes[0], count);
        atomicOr(&votes[1], any);
        atomicAnd(&votes[2], all);
        __threadfence();
        is_last = atomicAdd(ticket, 1u) == gridDim.x - 1;
    }
    if (threadIdx.x < 8) atomicAdd(&histogram[threadIdx.x], bins[threadIdx.x]);
    __syncthreads();
    if (is_last && threadIdx.x < 32) {
        unsigned long long mine = 0;
        for (unsigned b = threadIdx.x; b < gridDim.x; b += 32) mine += partial[b];
        for (int d = 16; d; d >>= 1) mine += __shfl_down_sync(~0u, mine, d);
        if (threadIdx.x == 0) *total = mine;
    }
}

// Every collective, each lane's answer for the host to compare.
extern "C" __global__ void collectives(long long *out, const int *in) {
    const int lane = threadIdx.x, v = in[lane];
    long long *o = out + 16 * lane;
    o[0] = __ballot_sync(~0u, v & 1);
    o[1] = __any_sync(~0u, v == 5);
    o[2] = __all_sync(~0u, v >= 0);
    o[3] = __match_any_sync(~0u, v & 3);
    o[4] = __shfl_sync(~0u, (long long)v << 40, 3);
    o[5] = __shfl_up_sync(~0u, v, 2);
    o[6] = (long long)__shfl_down_sync(~0u, (double)v + 0.5, 5);
    o[7] = __shfl_xor_sync(~0u, (unsigned long long)v, 8);
    o[8] = __popcll((unsigned long long)v * 0x0101010101010101ull) + __ffsll(1ll << lane);
    o[9] = __clz(v) + __clzll((long long)v << 20) + __ffs(v) + __popc(v);
    o[10] = (long long)__umul64hi((unsigned long long)v << 60, 1ull << 10);
    o[11] = __shfl_sync(~0u, v, lane, 8);
    // Halves of a warp apart.
    if (lane < 16)
        o[12] = __shfl_xor_sync(0xFFFFu, v, 1);
    else
        o[12] = __shfl_xor_sync(0xFFFF0000u, v, 2) + __popc(__ballot_sync(0xFFFF0000u, 1));
    __syncwarp();
    o[13] = (long long)(((unsigned __int128)(unsigned long long)v << 70) / (1u << 30) >> 40);
    o[14] = __double2ll_rn(v + 0.5);
    o[15] = __reduce_add_sync(~0u, v);
}

extern "C" __global__ void maxima(int *i, unsigned *u, long long *l, unsigned long long *ul, float *f) {
    const int t = threadIdx.x;
    atomicMax(i, t - 40);
    atomicMin(i + 1, t - 40);
    atomicMax(u, (unsigned)t * 0x8000001u);
    atomicMin(u + 1, ~(unsigned)t);
    atomicMax(l, (long long)t - (1ll << 40));
    atomicMin(l + 1, -((long long)t << 33));
    atomicMax(ul, (unsigned long long)t << 58);
    atomicMin(ul + 1, ~0ull - t);
    atomicAdd(ul + 2, 1ull << 33);
    atomicExch(u + 2, 7u);
    atomicCAS(u + 3, 0u, 100u + t);
    atomicAdd(f, 1.0f);
}

extern "C" __global__ void async_reverse(const float *p, float *q) {
    SHARED(float4, s, [32]);
    cp_async_16(&s[threadIdx.x], p + 4 * threadIdx.x);
    cp_async_commit();
    CP_ASYNC_WAIT(0);
    __syncthreads();
    q[threadIdx.x] = s[31 - threadIdx.x].y;
}

// A warp's exchange through shared memory, ordered by __syncwarp alone.
extern "C" __global__ void warp_exchange(float *q) {
    SHARED(float, s, [64]);
    s[threadIdx.x] = threadIdx.x;
    __syncwarp();
    const float v = s[threadIdx.x ^ 31];
    __syncwarp();
    s[threadIdx.x] = v + 1.f;
    q[threadIdx.x] = s[threadIdx.x];
}

template <class T, int N>
static __device__ T sum_of(T v) {
    SHARED(T, s, [N]);
    s[threadIdx.x] = v;
    __syncthreads();
    T sum = 0;
    for (int i = 0; i < N; i++) sum += s[i];
    return sum;
}
extern "C" __global__ void of_templates(float *q) { q[threadIdx.x] = sum_of<float, 32>(1.f) + sum_of<int, 32>(2); }

struct Arguments {
    float *out;
    double values[400];
    int count;
};
extern "C" __global__ void by_value(const struct Arguments args) {
    double sum = 0;
    for (int i = 0; i < args.count; i++) sum += args.values[i];
    args.out[threadIdx.x] = (float)sum;
}

extern "C" __global__ void fill(float *p, float v, int n) {
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) p[i] = v;
}
extern "C" __global__ void add_one(float *p, int n) {
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) p[i] += 1.f;
}

// ---- for the traffic counts ----
extern "C" __global__ void copy4(const float *p, float *q) {
    float4 v = ((const float4 *)p)[threadIdx.x];
    v.x += 1.f;
    ((float4 *)q)[threadIdx.x] = v;
}
extern "C" __global__ void strided(const float *p, float *q, int stride) { q[threadIdx.x] = p[threadIdx.x * stride]; }
extern "C" __global__ void banks(float *q, int stride) {
    SHARED(float, s, [1024]);
    s[threadIdx.x * stride] = 1.f;
    __syncthreads();
    q[threadIdx.x] = s[threadIdx.x * stride];
}
// Warp 0 of each block reads eight times as much as the others.
extern "C" __global__ void unbalanced(const float *p, float *q) {
    float sum = 0.f;
    for (int i = 0; i < (threadIdx.x < 32 ? 8 : 1); i++) sum += p[threadIdx.x + i];
    q[blockIdx.x * blockDim.x + threadIdx.x] = sum;
}
