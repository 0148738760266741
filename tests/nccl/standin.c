/* A libnccl.so.2 for the tests: ranks are threads of one process, memory is host memory or (standin_device) that of the CUDA driver which the process has loaded: then a
 * call waits for its stream, which NCCL does not. It counts what it is asked, and notes the stream. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { MOST = 8 };

typedef struct World {
    int size;
    pthread_barrier_t barrier;
    void *buffers[MOST];
} World;

typedef struct Comm {
    World *world;
    int rank;
    int64_t calls, elements;
    void *stream;
    int fails; /* the status of the next call, if not 0 */
} Comm;

/* Not of NCCL: makes the communicators of a world of `size` ranks. */
void standin_world(int size, Comm **comms) {
    World *world = calloc(1, sizeof *world);
    world->size = size;
    pthread_barrier_init(&world->barrier, NULL, (unsigned)size);
    for (int rank = 0; rank < size; rank++) {
        comms[rank] = calloc(1, sizeof **comms);
        comms[rank]->world = world, comms[rank]->rank = rank;
    }
}

/* Not of NCCL: calls since this was last asked, and the stream of the last. */
int64_t standin_calls(Comm *comm, void **stream) {
    const int64_t calls = comm->calls;
    comm->calls = 0, *stream = comm->stream;
    return calls;
}

/* The driver's functions where memory is the device's. */
static int (*wait_for)(void *), (*to_host)(void *, uint64_t, size_t), (*to_device)(uint64_t, const void *, size_t);

/* Not of NCCL: from here on memory is the device's. 0: the driver is there. */
int standin_device(const char *driver) {
    void *library = dlopen(driver, RTLD_NOW);
    if (library == NULL) {
        return 1;
    }
    *(void **)&wait_for = dlsym(library, "cuStreamSynchronize"), *(void **)&to_host = dlsym(library, "cuMemcpyDtoH_v2");
    *(void **)&to_device = dlsym(library, "cuMemcpyHtoD_v2");
    return wait_for == NULL || to_host == NULL || to_device == NULL;
}

void standin_fail(Comm *comm, int status) { comm->fails = status; }

int ncclGetVersion(int *version) { return *version = 20000, 0; }
const char *ncclGetErrorString(int status) { return status == 4 ? "invalid argument" : "stand-in error"; }
int ncclCommCount(const Comm *comm, int *count) { return *count = comm->world->size, comm->fails; }
int ncclCommUserRank(const Comm *comm, int *rank) { return *rank = comm->rank, comm->fails; }

static int reduce(void *receive, size_t count, int dtype, int op, Comm *comm);

int ncclAllReduce(const void *send, void *receive, size_t count, int dtype, int op, Comm *comm, void *stream) {
    if ((dtype != 2 && dtype != 4) || (op != 0 && op != 2) || send != receive) {
        return 4;
    }
    comm->calls++, comm->elements += (int64_t)count, comm->stream = stream;
    if (wait_for == NULL) {
        return reduce(receive, count, dtype, op, comm);
    }
    const size_t bytes = count * (dtype == 4 ? 8 : 4);
    char *copy = malloc(bytes);
    int status = wait_for(stream) || to_host(copy, (uint64_t)(uintptr_t)receive, bytes) ? 1 : 0;
    const int failed = reduce(copy, count, dtype, op, comm);
    status = status || to_device((uint64_t)(uintptr_t)receive, copy, bytes) ? 1 : failed;
    free(copy);
    return status;
}

/* ncclInt32 is 2, ncclInt64 4; ncclSum 0, ncclMax 2. */
static int reduce(void *receive, size_t count, int dtype, int op, Comm *comm) {
    const size_t bytes = count * (dtype == 4 ? 8 : 4);
    const int failing = comm->fails;
    char *own = malloc(bytes);
    memcpy(own, receive, bytes);
    comm->world->buffers[comm->rank] = own;
    pthread_barrier_wait(&comm->world->barrier);
    for (int rank = 0; rank < comm->world->size; rank++) {
        const void *other = comm->world->buffers[rank];
        for (size_t i = 0; i < count && rank != comm->rank; i++) {
            if (dtype == 4) {
                int64_t *to = (int64_t *)receive + i;
                const int64_t x = ((const int64_t *)other)[i];
                *to = op == 0 ? (int64_t)((uint64_t)*to + (uint64_t)x) : (*to > x ? *to : x);
            } else {
                int32_t *to = (int32_t *)receive + i;
                const int32_t x = ((const int32_t *)other)[i];
                *to = op == 0 ? (int32_t)((uint32_t)*to + (uint32_t)x) : (*to > x ? *to : x);
            }
        }
    }
    /* Nobody frees before all have read. */
    pthread_barrier_wait(&comm->world->barrier);
    free(own);
    return failing;
}
