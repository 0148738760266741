// The one header of macros in which CUDA compilers (nvcc, NVRTC) and the simulated driver of the tests differ. Everything else that kernels use is
// plain CUDA, without any CUDA or standard header: NVRTC finds none.
//
//   SHARED(T, name, [n]);       a __shared__ array (or a scalar: leave out the third argument) in a function or a template of one
//   UNKNOWN_ZERO()              0, as no compiler knows: what is compared with it is compared anew each time, and not kept over a call
//   READ_AGAIN();               what was read of memory before is read again after it: what all threads share need not stay in registers over a loop
//   THREAD_NUMBER(), BLOCK_NUMBER()  threadIdx.x and blockIdx.x, asked of the processor each time: they need not stay in registers over a call
//   FORGET(x);                  the compiler knows no more of the integer x than that a register has it: what is formed of it is formed anew, and not kept over a call
//   DYNAMIC_SHARED(T, name);    T *name at the start of the launch's dynamic shared memory, 16-byte aligned
//   cp_async_16(to, from);      16 bytes (also _4, _8) from global to shared memory, both aligned to that; cp_async_commit() ends a group,
//   CP_ASYNC_WAIT(n);           waits until at most n of the calling thread's groups are under way: n a constant; a barrier for other threads' copies
//
// tests/cudasim/README.md lists the intrinsics that the simulated driver offers. It forces its own header in front of the source, which defines CUDASIM.
#pragma once
#define READ_AGAIN() asm volatile("" ::: "memory")
#ifndef CUDASIM

#define SHARED(T, name, ...) __shared__ T name __VA_ARGS__
extern __shared__ __align__(16) unsigned char passrl_dynamic_shared[];
#define DYNAMIC_SHARED(T, name) T *name = reinterpret_cast<T *>(passrl_dynamic_shared)

static __device__ __forceinline__ void cp_async_4(void *to, const void *from) {
    asm volatile("cp.async.ca.shared.global [%0], [%1], 4;" ::"r"((unsigned)__cvta_generic_to_shared(to)), "l"(from) : "memory");
}
static __device__ __forceinline__ void cp_async_8(void *to, const void *from) {
    asm volatile("cp.async.ca.shared.global [%0], [%1], 8;" ::"r"((unsigned)__cvta_generic_to_shared(to)), "l"(from) : "memory");
}
static __device__ __forceinline__ void cp_async_16(void *to, const void *from) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"((unsigned)__cvta_generic_to_shared(to)), "l"(from) : "memory");
}
static __device__ __forceinline__ void cp_async_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
#define CP_ASYNC_WAIT(groups_left) asm volatile("cp.async.wait_group %0;" ::"n"(groups_left) : "memory")

// (Some lane is active: the one that asks.)
static __device__ __forceinline__ unsigned unknown_zero() {
    unsigned active;
    asm volatile("activemask.b32 %0;" : "=r"(active));
    return active == 0 ? 1 : 0;
}
#define UNKNOWN_ZERO() unknown_zero()

static __device__ __forceinline__ unsigned thread_number() {
    unsigned number;
    asm volatile("mov.u32 %0, %%tid.x;" : "=r"(number));
    return number;
}
static __device__ __forceinline__ unsigned block_number() {
    unsigned number;
    asm volatile("mov.u32 %0, %%ctaid.x;" : "=r"(number));
    return number;
}
// blockDim.x is asked of the launch each time, whose constant it is: compilers keep it else, and what is formed of it, over loops and calls, where registers are few.
struct BlockSize {
    unsigned x;
};
static __device__ __forceinline__ BlockSize block_size() {
    unsigned threads;
    asm volatile("mov.u32 %0, %%ntid.x;" : "=r"(threads));
    return BlockSize{threads};
}
#define blockDim block_size()
#define THREAD_NUMBER() thread_number()
#define BLOCK_NUMBER() block_number()
#define FORGET(x) asm volatile("" : "+r"(x))

#else
#define UNKNOWN_ZERO() 0u
#define THREAD_NUMBER() threadIdx.x
#define BLOCK_NUMBER() blockIdx.x
#define FORGET(x)
#endif
