/* What the simulated driver offers to tests beside the CUDA driver API. Plain C; all functions may be called from any thread, before cuInit too.
 * State is one for the process: tests that look at it run one at a time. Names of driver functions are those of the symbols ("cuMemAlloc_v2"). */
#ifndef CUDASIM_CONTROL_H
#define CUDASIM_CONTROL_H
#include <stddef.h>
#include <stdint.h>
#ifdef __cplusplus
extern "C" {
#endif

/* Counts since the last reset. The first line counts in both builds; the rest in the checked build only (0 in the fast one).
 * A request is one instruction executed by a warp. bytes: distinct bytes that the request's lanes use; sectors: 32-byte sectors that they touch;
 * ideal: the fewest that could hold those bytes. Atomics on global memory are counted beside reads and writes, not in them. */
typedef struct CudasimStats {
    uint64_t launches, blocks, threads, warps, barriers, collectives, atomics, switches;
    uint64_t read_requests, read_bytes, read_sectors, read_ideal;
    uint64_t write_requests, write_bytes, write_sectors, write_ideal;
    uint64_t atomic_requests, atomic_bytes, atomic_sectors, atomic_ideal;
    /* A request of 8 or 16 bytes a lane counts as two or four, as the hardware splits it; wavefronts: one each without bank conflicts. */
    uint64_t shared_requests, shared_wavefronts;
    /* Accesses of lanes to global and shared memory; requests of warps to both; and those of the one warp of all launches that has the most. */
    uint64_t accesses, warp_requests, longest_warp;
    /* Of all kernels together alone (both builds): bytes that memsets on device memory have written. */
    uint64_t memset_bytes;
} CudasimStats;

/* Of one kernel by name, or of all together where it is null. */
void cudasim_stats(const char *kernel, CudasimStats *out);
/* Names of the kernels launched since the last reset, each ended by '\n'. Here and below: writes at most `capacity` bytes, the last one a 0, and
 * returns the length of the whole text without it. */
size_t cudasim_launched(char *out, size_t capacity);

/* What the checks found, one finding a line; empty: nothing. take: it is forgotten (else the end of the process prints it to stderr). */
size_t cudasim_report(char *out, size_t capacity, int take);

/* Statistics, report, call counts, faults and attributes back to their beginning; contexts that failed work again; seed 0; work deferred. */
void cudasim_reset(void);

/* The schedule of threads and blocks. 0: in order. Others: shuffled blocks, and in half of them the newest runnable thread goes first. */
void cudasim_seed(uint64_t seed);
/* 1 (the beginning): queued work runs only when something waits for it. 0: at once. */
void cudasim_defer(int on);
/* The nth call from now (0: the next) of a driver function returns `code` and does nothing; "*": of any. Once. */
void cudasim_fault(const char *function, int nth, int code);
/* Faults that have not happened yet. */
int cudasim_faults_left(void);
/* Calls since the last reset of one driver function; all where it is null. */
int cudasim_calls(const char *function);
/* Names of the driver functions called since the last reset in order, each ended by '\n'; the first 65536 calls. */
size_t cudasim_trace(char *out, size_t capacity);
/* What cuDeviceGetAttribute says of every device from now on (75, 76: compute capability; 16: processors; 97: shared memory a block may ask for). */
void cudasim_attribute(int attribute, int value);

/* What is alive in the process. */
typedef struct CudasimLive {
    uint64_t allocations, bytes, host_allocations, contexts, primary_retains, streams, events, modules, graphs, graph_execs;
} CudasimLive;
void cudasim_live(CudasimLive *out);

/* 1 in the checked build (CUDASIM_CHECKED=1). */
int cudasim_checked(void);
/* FNV-1a, 64 bits, of the kernel sources: `source_hash` in src/compile.rs. 0 where no kernels are loaded. */
uint64_t cudasim_source_hash(void);

#ifdef __cplusplus
}
#endif
#endif
