/* `ranks standin`: ranks as threads over passrl_nccl_collective and the stand-in. `ranks real`: the real libnccl.so.2 loads and has every function.
 * `ranks missing`: without any. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "passrl.h"

enum { SIZE = 4, ROLLOUTS = 64, GROUPS = 8, TOKENS = 5 };

#define CHECK(condition) \
    do { \
        if (!(condition)) { \
            fprintf(stderr, "line %d: %s (%s)\n", __LINE__, #condition, passrl_last_error()); \
            exit(1); \
        } \
    } while (0)
#define VIEW(x, n, type) &(passrl_view){(void *)(x), {(n), 0}, {1, 1}, 1, (type), PASSRL_CPU, 0}

static void *comms[SIZE];
static int64_t (*calls_of)(void *, void **);
static void (*fail)(void *, int);
static float signal_of[ROLLOUTS * TOKENS], outcome[ROLLOUTS];
static int32_t groups[ROLLOUTS], stream_of_the_test;
static double alone[ROLLOUTS * TOKENS], shared[ROLLOUTS * TOKENS];

/* Another function than the adapter's own, so that a CPU plan takes it: the stand-in reduces host memory. The stream stands for a plan's. */
static int32_t through(void *user, void *buffer, size_t count, int32_t dtype, int32_t op, void *stream) {
    const passrl_collective *nccl = user;
    (void)stream;
    return nccl->all_reduce(nccl->user, buffer, count, dtype, op, &stream_of_the_test);
}

static passrl_status run(passrl_plan *plan, int rank, int size, double *advantages) {
    int32_t cu[ROLLOUTS + 1] = {0}, index[ROLLOUTS], rows[ROLLOUTS], n = 0;
    float signals[ROLLOUTS * TOKENS], outcomes[ROLLOUTS];
    double out[ROLLOUTS * TOKENS];
    for (int i = rank; i < ROLLOUTS; i += size) {
        memcpy(signals + n * TOKENS, signal_of + i * TOKENS, TOKENS * sizeof *signals);
        rows[n] = i, index[n] = groups[i], outcomes[n] = outcome[i], n++, cu[n] = n * TOKENS;
    }
    passrl_batch batch;
    passrl_outputs outputs;
    passrl_batch_init(&batch, sizeof batch), passrl_outputs_init(&outputs, sizeof outputs);
    batch.num_rollouts = n, batch.num_groups = GROUPS, batch.cu_seqlens = VIEW(cu, n + 1, PASSRL_I32), batch.group_index = VIEW(index, n, PASSRL_I32);
    batch.signal[0] = VIEW(signals, n * TOKENS, PASSRL_F32), batch.outcome = VIEW(outcomes, n, PASSRL_F32);
    outputs.advantages = VIEW(out, n * TOKENS, PASSRL_F64);
    size_t bytes;
    passrl_plan_workspace_size(plan, &bytes);
    void *workspace = aligned_alloc(64, (bytes + 64) / 64 * 64);
    const passrl_status status = passrl_plan_run(plan, &batch, &outputs, workspace, bytes, NULL);
    free(workspace);
    for (int i = 0; i < n && status >= 0; i++) {
        memcpy(advantages + rows[i] * TOKENS, out + i * TOKENS, TOKENS * sizeof *out);
    }
    return status;
}

static passrl_status make(const passrl_collective *collective, passrl_context **context, passrl_plan **plan) {
    passrl_config config;
    passrl_limits limits;
    passrl_config_init_preset(&config, sizeof config, "pass");
    passrl_limits_init(&limits, sizeof limits);
    limits.rollouts = ROLLOUTS, limits.groups = GROUPS, limits.tokens = ROLLOUTS * TOKENS;
    CHECK(passrl_context_create(NULL, context) == 0);
    return passrl_plan_create(*context, &config, &limits, collective, plan);
}

static void *one_rank(void *argument) {
    const int rank = (int)(intptr_t)argument;
    passrl_collective nccl, collective;
    passrl_context *context, *other;
    passrl_plan *plan;
    void *stream = NULL;
    CHECK(passrl_nccl_collective(&nccl, sizeof nccl, comms[rank]) == 0);
    CHECK(nccl.rank == rank && nccl.size == SIZE && nccl.user == comms[rank]);
    CHECK(make(&nccl, &other, &plan) == PASSRL_ERR_CONFLICT && strstr(passrl_last_error(), "reduces device memory") != NULL);
    CHECK(calls_of(comms[rank], &stream) == 0);
    passrl_context_destroy(other);
    collective = nccl, collective.user = &nccl, collective.all_reduce = through, collective.device_type = PASSRL_CPU;
    CHECK(make(&collective, &context, &plan) == 0);
    CHECK(calls_of(comms[rank], &stream) == 1 && stream == &stream_of_the_test);
    CHECK(run(plan, rank, SIZE, shared) == 0);
    /* Two messages a run, two calls of the engine: nothing else was asked of it. */
    CHECK(calls_of(comms[rank], &stream) == 2 && stream == &stream_of_the_test);
    /* What no plan sends. */
    int64_t word = 1;
    CHECK(nccl.all_reduce(nccl.user, &word, 1, PASSRL_F32, PASSRL_REDUCE_SUM, NULL) == -1);
    CHECK(nccl.all_reduce(nccl.user, &word, 1, PASSRL_I64, 3, NULL) == -1 && calls_of(comms[rank], &stream) == 0);
    /* An engine that fails. */
    fail(comms[rank], 6);
    CHECK(run(plan, rank, SIZE, shared) == PASSRL_ERR_COLLECTIVE && strstr(passrl_last_error(), "collective.all_reduce returned 6") != NULL);
    CHECK(passrl_nccl_collective(&nccl, sizeof nccl, comms[rank]) == PASSRL_ERR_COLLECTIVE);
    CHECK(strstr(passrl_last_error(), "ncclCommUserRank returned 6 (stand-in error)") != NULL);
    passrl_plan_destroy(plan), passrl_context_destroy(context);
    return NULL;
}

int main(int argc, char **argv) {
    const char *mode = argc > 1 ? argv[1] : "";
    passrl_collective nccl;
    int32_t version = 0;
    CHECK(passrl_nccl_collective(&nccl, sizeof nccl, NULL) == PASSRL_ERR_NULL);
    CHECK(passrl_nccl_version(NULL) == PASSRL_ERR_NULL);
    const passrl_status status = passrl_nccl_version(&version);
    if (strcmp(mode, "missing") == 0) {
        CHECK(status == PASSRL_ERR_RESOURCE && strstr(passrl_last_error(), "libnccl.so.2 could not be loaded") != NULL);
        CHECK(passrl_nccl_collective(&nccl, sizeof nccl, &nccl) == PASSRL_ERR_RESOURCE);
        return 0;
    }
    CHECK(status == 0);
    printf("nccl %d\n", version);
    if (strcmp(mode, "real") == 0) {
        return 0;
    }
    void *library = dlopen("libnccl.so.2", RTLD_NOW | RTLD_NOLOAD);
    CHECK(library != NULL);
    void (*world)(int, void **);
    *(void **)&world = dlsym(library, "standin_world"), *(void **)&calls_of = dlsym(library, "standin_calls");
    *(void **)&fail = dlsym(library, "standin_fail");
    CHECK(world != NULL && calls_of != NULL && fail != NULL);
    for (int i = 0; i < ROLLOUTS; i++) {
        groups[i] = i * 7 % GROUPS, outcome[i] = (float)(i * i % 5);
        for (int t = 0; t < TOKENS; t++) {
            signal_of[i * TOKENS + t] = (float)((i * 31 + t * 17) % 23) / 7.0f;
        }
    }
    passrl_context *context;
    passrl_plan *plan;
    CHECK(make(NULL, &context, &plan) == 0 && run(plan, 0, 1, alone) == 0);
    passrl_plan_destroy(plan), passrl_context_destroy(context);
    world(SIZE, comms);
    pthread_t threads[SIZE];
    for (int rank = 0; rank < SIZE; rank++) {
        CHECK(pthread_create(&threads[rank], NULL, one_rank, (void *)(intptr_t)rank) == 0);
    }
    for (int rank = 0; rank < SIZE; rank++) {
        pthread_join(threads[rank], NULL);
    }
    CHECK(memcmp(alone, shared, sizeof alone) == 0);
    printf("%d ranks: every bit that of one\n", SIZE);
    return 0;
}
