// The CUDA device language for a host C++17 compiler (g++): forced in front of a kernel source with `-include`, so that the source stays what nvcc
// and NVRTC compile. Each CUDA thread is a fiber of the simulated driver; see ../README.md. What is not offered here does not compile, on purpose.
#pragma once
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <type_traits>
#include <utility>
#define CUDASIM 1

// ../src/compile.rs looks for entry points in the preprocessed text, where these two must still stand.
#ifndef CUDASIM_SCAN
#define __global__
#define __launch_bounds__(...)
#endif
#define __device__
#define __host__
#define __constant__
#define __forceinline__ inline
#define __grid_constant__
#define __align__(n) alignas(n)

// g++ ignores a section attribute on statics of templates, so `__shared__` variables could not be told from others: kernels declare shared memory by
// these two macros (../../../kernels/device.cuh has them for CUDA compilers). They also leave a gap after each array, in which an overrun is seen.
#define __shared__ use_the_macro_SHARED_instead
#define SHARED(T, name, ...)                                                                                     \
    using name##_type = T __VA_ARGS__;                                                                           \
    static char name##_id;                                                                                       \
    name##_type& name = *static_cast<name##_type*>(cudasim::shared(&name##_id, sizeof(name##_type), #name))
#define DYNAMIC_SHARED(T, name) T* name = reinterpret_cast<T*>(cudasim::dynamic_shared)

#include "vectors.h"

// Kernel libraries find these in the driver, all else of which is hidden.
#pragma GCC visibility push(default)
namespace cudasim {
struct Where {
    const char* file;
    int line;
};
#define CUDASIM_HERE const char *file_ = __builtin_FILE(), int line_ = __builtin_LINE()
#define CUDASIM_AT \
    cudasim::Where { file_, line_ }

// Of the running thread; the scheduler changes it at every switch.
struct Here {
    uint3 thread, block;
    dim3 block_size, grid_size;
    int lane;
};
extern Here here;
extern unsigned char* dynamic_shared;

// This block's variable `id`: the same memory wherever the declaration is met.
void* shared(const void* id, size_t size, const char* name);
enum class Vote { none, any, all, count };
int barrier(Vote, int predicate, Where);
// Lanes' values of a finished collective; `lanes` are those that took part. Good until the calling thread meets again.
struct Met {
    const uint64_t* value;
    unsigned lanes;
};
// Waits for all lanes of `mask` at the same `operation` and source line; `orders` says that memory is ordered too.
Met meet(unsigned mask, uint64_t value, bool orders, const char* operation, Where);
unsigned active_lanes();
void fence();
enum class Atomic { add, add_float, min_signed, min_unsigned, max_signed, max_unsigned, bit_and, bit_or, bit_xor, exchange, compare };
// Returns the old value; `size` is 4 or 8 bytes.
uint64_t atomic(void* p, int size, Atomic, uint64_t value, uint64_t expected, Where);
void async_copy(void* to_shared, const void* from_global, int bytes, Where);
void async_commit();
void async_wait(int groups_left);
[[noreturn]] void trap(Where);

// What a lane that took no part has: all ones, a NaN.
constexpr uint64_t poison = ~0ull;

template <class T>
inline uint64_t to_bits(T value) {
    uint64_t bits = 0;
    memcpy(&bits, &value, sizeof value);
    return bits;
}
template <class T>
inline T from_bits(uint64_t bits) {
    T value;
    memcpy(&value, &bits, sizeof value);
    return value;
}
template <class T>
inline T of_lane(const Met& met, int lane) {
    return from_bits<T>(lane >= 0 && lane < 32 && (met.lanes >> lane & 1) ? met.value[lane] : poison);
}

// ---- registration: each kernel library names its entry points to the driver when it is loaded ----
using Call = void (*)(void** arguments);
struct Library {
    uint64_t source_hash;
    bool checked;
    const char *begin, *end;  // its image, in which its own constants lie
};
void register_library(const Library&);
void register_kernel(const char* name, const unsigned* sizes, const unsigned* alignments, int count, int max_threads, Call);

template <auto F>
struct Kernel;
template <class... A, void (*F)(A...)>
struct Kernel<F> {
    // Arguments lie on the host, so that the two are not instrumented; the kernel itself is.
    template <size_t... I>
    __attribute__((no_sanitize("thread"))) static void spread(void** p, std::index_sequence<I...>) {
        F(*static_cast<std::remove_cv_t<A>*>(p[I])...);
    }
    __attribute__((no_sanitize("thread"))) static void call(void** p) { spread(p, std::make_index_sequence<sizeof...(A)>()); }
    Kernel(const char* name, int max_threads) {
        static const unsigned sizes[] = {sizeof(A)..., 0}, alignments[] = {alignof(A)..., 0};
        register_kernel(name, sizes, alignments, sizeof...(A), max_threads, call);
    }
};
}  // namespace cudasim
#pragma GCC visibility pop
#define CUDASIM_REGISTER(kernel, max_threads) static cudasim::Kernel<kernel> cudasim_entry_##kernel(#kernel, max_threads);

#define threadIdx (cudasim::here.thread)
#define blockIdx (cudasim::here.block)
#define blockDim (cudasim::here.block_size)
#define gridDim (cudasim::here.grid_size)
#define warpSize 32

// ---- barriers and warp collectives ----
inline void __syncthreads(CUDASIM_HERE) { cudasim::barrier(cudasim::Vote::none, 0, CUDASIM_AT); }
inline int __syncthreads_or(int p, CUDASIM_HERE) { return cudasim::barrier(cudasim::Vote::any, p, CUDASIM_AT); }
inline int __syncthreads_and(int p, CUDASIM_HERE) { return cudasim::barrier(cudasim::Vote::all, p, CUDASIM_AT); }
inline int __syncthreads_count(int p, CUDASIM_HERE) { return cudasim::barrier(cudasim::Vote::count, p, CUDASIM_AT); }
inline void __syncwarp(unsigned mask = ~0u, CUDASIM_HERE) { cudasim::meet(mask, 0, true, "__syncwarp", CUDASIM_AT); }
inline void __threadfence() { cudasim::fence(); }
inline void __threadfence_block() {}
inline unsigned __activemask() { return cudasim::active_lanes(); }
[[noreturn]] inline void __trap(CUDASIM_HERE) { cudasim::trap(CUDASIM_AT); }

// A lane that reads beyond its segment of `width` lanes keeps its own value; one that reads a lane outside `mask` gets all ones (CUDA: undefined).
#define CUDASIM_SHUFFLES(T)                                                                                         \
    inline T __shfl_sync(unsigned mask, T v, int from, int width = 32, CUDASIM_HERE) {                              \
        cudasim::Met met = cudasim::meet(mask, cudasim::to_bits(v), false, "__shfl_sync", CUDASIM_AT);              \
        int lane = cudasim::here.lane;                                                                              \
        return cudasim::of_lane<T>(met, (lane & ~(width - 1)) | (from & (width - 1)));                              \
    }                                                                                                               \
    inline T __shfl_up_sync(unsigned mask, T v, unsigned by, int width = 32, CUDASIM_HERE) {                        \
        cudasim::Met met = cudasim::meet(mask, cudasim::to_bits(v), false, "__shfl_up_sync", CUDASIM_AT);           \
        int lane = cudasim::here.lane;                                                                              \
        return unsigned(lane & (width - 1)) >= by ? cudasim::of_lane<T>(met, lane - int(by)) : v;                   \
    }                                                                                                               \
    inline T __shfl_down_sync(unsigned mask, T v, unsigned by, int width = 32, CUDASIM_HERE) {                      \
        cudasim::Met met = cudasim::meet(mask, cudasim::to_bits(v), false, "__shfl_down_sync", CUDASIM_AT);         \
        int lane = cudasim::here.lane;                                                                              \
        return (lane & (width - 1)) + uint64_t(by) < unsigned(width) ? cudasim::of_lane<T>(met, lane + int(by)) : v; \
    }                                                                                                               \
    inline T __shfl_xor_sync(unsigned mask, T v, int with, int width = 32, CUDASIM_HERE) {                          \
        cudasim::Met met = cudasim::meet(mask, cudasim::to_bits(v), false, "__shfl_xor_sync", CUDASIM_AT);          \
        int lane = cudasim::here.lane, other = lane ^ with;                                                         \
        return other / width <= lane / width ? cudasim::of_lane<T>(met, other) : v;                                 \
    }                                                                                                               \
    inline unsigned __match_any_sync(unsigned mask, T v, CUDASIM_HERE) {                                            \
        cudasim::Met met = cudasim::meet(mask, cudasim::to_bits(v), false, "__match_any_sync", CUDASIM_AT);         \
        unsigned same = 0;                                                                                          \
        for (int i = 0; i < 32; i++)                                                                                \
            if ((met.lanes >> i & 1) && met.value[i] == cudasim::to_bits(v)) same |= 1u << i;                       \
        return same;                                                                                                \
    }
CUDASIM_SHUFFLES(int)
CUDASIM_SHUFFLES(unsigned)
CUDASIM_SHUFFLES(long)
CUDASIM_SHUFFLES(unsigned long)
CUDASIM_SHUFFLES(long long)
CUDASIM_SHUFFLES(unsigned long long)
CUDASIM_SHUFFLES(float)
CUDASIM_SHUFFLES(double)
#undef CUDASIM_SHUFFLES

namespace cudasim {
inline Met ballot(unsigned mask, int p, const char* operation, Where at, unsigned& votes) {
    Met met = meet(mask, p != 0, false, operation, at);
    votes = 0;
    for (int i = 0; i < 32; i++)
        if (met.lanes >> i & 1) votes |= unsigned(met.value[i]) << i;
    return met;
}
}  // namespace cudasim
inline unsigned __ballot_sync(unsigned mask, int p, CUDASIM_HERE) {
    unsigned votes;
    cudasim::ballot(mask, p, "__ballot_sync", CUDASIM_AT, votes);
    return votes;
}
inline int __any_sync(unsigned mask, int p, CUDASIM_HERE) {
    unsigned votes;
    cudasim::ballot(mask, p, "__any_sync", CUDASIM_AT, votes);
    return votes != 0;
}
inline int __all_sync(unsigned mask, int p, CUDASIM_HERE) {
    unsigned votes;
    cudasim::Met met = cudasim::ballot(mask, p, "__all_sync", CUDASIM_AT, votes);
    return votes == met.lanes;
}
#define CUDASIM_REDUCE(name, T, expression)                                                             \
    inline T name(unsigned mask, T v, CUDASIM_HERE) {                                                   \
        cudasim::Met met = cudasim::meet(mask, cudasim::to_bits(v), false, #name, CUDASIM_AT);          \
        bool first = true;                                                                              \
        T a = v;                                                                                        \
        for (int i = 0; i < 32; i++)                                                                    \
            if (met.lanes >> i & 1) {                                                                   \
                T b = cudasim::from_bits<T>(met.value[i]);                                              \
                a = first ? b : (expression);                                                           \
                first = false;                                                                          \
            }                                                                                           \
        return a;                                                                                       \
    }
CUDASIM_REDUCE(__reduce_add_sync, unsigned, a + b)
CUDASIM_REDUCE(__reduce_add_sync, int, int(unsigned(a) + unsigned(b)))
CUDASIM_REDUCE(__reduce_max_sync, unsigned, a > b ? a : b)
CUDASIM_REDUCE(__reduce_max_sync, int, a > b ? a : b)
CUDASIM_REDUCE(__reduce_min_sync, unsigned, a < b ? a : b)
CUDASIM_REDUCE(__reduce_min_sync, int, a < b ? a : b)
CUDASIM_REDUCE(__reduce_or_sync, unsigned, a | b)
CUDASIM_REDUCE(__reduce_and_sync, unsigned, a& b)
#undef CUDASIM_REDUCE

// ---- atomics: the overloads that CUDA has for every architecture (double additions left out: their order would decide the bits) ----
#define CUDASIM_ATOMIC(name, T, operation)                                                                          \
    inline T name(T* p, T v, CUDASIM_HERE) {                                                                        \
        return cudasim::from_bits<T>(cudasim::atomic(p, sizeof(T), cudasim::Atomic::operation, cudasim::to_bits(v), 0, CUDASIM_AT)); \
    }
#define CUDASIM_COMPARE(T)                                                                                          \
    inline T atomicCAS(T* p, T expected, T v, CUDASIM_HERE) {                                                       \
        return cudasim::from_bits<T>(                                                                               \
            cudasim::atomic(p, sizeof(T), cudasim::Atomic::compare, cudasim::to_bits(v), cudasim::to_bits(expected), CUDASIM_AT)); \
    }
#define CUDASIM_INTEGER_ATOMICS(T)         \
    CUDASIM_ATOMIC(atomicAnd, T, bit_and)  \
    CUDASIM_ATOMIC(atomicOr, T, bit_or)    \
    CUDASIM_ATOMIC(atomicXor, T, bit_xor)  \
    CUDASIM_ATOMIC(atomicExch, T, exchange) \
    CUDASIM_ATOMIC(atomicAdd, T, add)      \
    CUDASIM_COMPARE(T)
CUDASIM_INTEGER_ATOMICS(int)
CUDASIM_INTEGER_ATOMICS(unsigned)
CUDASIM_INTEGER_ATOMICS(unsigned long long)
CUDASIM_ATOMIC(atomicAdd, float, add_float)
CUDASIM_ATOMIC(atomicExch, float, exchange)
CUDASIM_ATOMIC(atomicMax, int, max_signed)
CUDASIM_ATOMIC(atomicMax, unsigned, max_unsigned)
CUDASIM_ATOMIC(atomicMax, long long, max_signed)
CUDASIM_ATOMIC(atomicMax, unsigned long long, max_unsigned)
CUDASIM_ATOMIC(atomicMin, int, min_signed)
CUDASIM_ATOMIC(atomicMin, unsigned, min_unsigned)
CUDASIM_ATOMIC(atomicMin, long long, min_signed)
CUDASIM_ATOMIC(atomicMin, unsigned long long, min_unsigned)
#undef CUDASIM_INTEGER_ATOMICS
#undef CUDASIM_COMPARE
#undef CUDASIM_ATOMIC
inline int atomicSub(int* p, int v, CUDASIM_HERE) { return atomicAdd(p, int(-unsigned(v)), file_, line_); }
inline unsigned atomicSub(unsigned* p, unsigned v, CUDASIM_HERE) { return atomicAdd(p, -v, file_, line_); }

// ---- asynchronous copies to shared memory: done only when they are waited for ----
inline void cp_async_4(void* to, const void* from, CUDASIM_HERE) { cudasim::async_copy(to, from, 4, CUDASIM_AT); }
inline void cp_async_8(void* to, const void* from, CUDASIM_HERE) { cudasim::async_copy(to, from, 8, CUDASIM_AT); }
inline void cp_async_16(void* to, const void* from, CUDASIM_HERE) { cudasim::async_copy(to, from, 16, CUDASIM_AT); }
inline void cp_async_commit() { cudasim::async_commit(); }
#define CP_ASYNC_WAIT(groups_left) cudasim::async_wait(groups_left)

#include "intrinsics.h"
