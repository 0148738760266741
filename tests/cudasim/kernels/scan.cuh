// A reverse discounted scan with resets, over rows of any length: with its second barrier it is right, without it a bug that only a schedule shows.
#pragma once
#include "../../../kernels/device.cuh"

typedef unsigned char u8;
typedef long long i64;

// y = a x + b, composed from right to left.
struct Affine {
    float a, b;
};
static __device__ __forceinline__ Affine compose(Affine left, Affine right) { return {left.a * right.a, left.a * right.b + left.b}; }

// G[t] = r[t] + (reset[t] ? 0 : gamma G[t+1]); one row a block, of any length.
template <bool SECOND_BARRIER>
static __device__ void scan_rows(const float *__restrict__ r, const u8 *__restrict__ reset, float *__restrict__ out, float gamma, i64 n, Affine *of_warp) {
    const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, warps = blockDim.x >> 5;
    const i64 row = (i64)blockIdx.x * n;
    float carry = 0.f;
    for (i64 tile = (n - 1) / blockDim.x; tile >= 0; tile--) {
        const i64 t = tile * blockDim.x + threadIdx.x;
        Affine v = {1.f, 0.f};
        if (t < n) v = {reset[row + t] ? 0.f : gamma, r[row + t]};
        for (int d = 1; d < 32; d <<= 1) {
            Affine other = {__shfl_down_sync(~0u, v.a, d), __shfl_down_sync(~0u, v.b, d)};
            if (lane + d < 32) v = compose(v, other);
        }
        if (lane == 0) of_warp[warp] = v;
        __syncthreads();
        Affine s = {1.f, 0.f};
        for (int w = warps - 1; w > warp; w--) s = compose(of_warp[w], s);
        v = compose(v, s);
        if (t < n) out[row + t] = v.a * carry + v.b;
        for (int w = warp; w >= 0; w--) s = compose(of_warp[w], s);
        carry = s.a * carry + s.b;
        // of_warp is written again in the next tile.
        if (SECOND_BARRIER) __syncthreads();
    }
}
