/* One rank of `mpirun -n N mpi MODE`. Each rank shapes the whole batch alone and its own share over MPI, and compares every bit.
 * bits: any split, with an empty rank and one that has everything. refused: rank 0's arguments are refused. broken: the communicator is gone. dies: rank 1
 * is killed within a reduction. */
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "passrl_mpi.h"

enum { ROLLOUTS = 96, GROUPS = 12, LONGEST = 40 };

#define CHECK(condition, ...) \
    do { \
        if (!(condition)) { \
            fprintf(stderr, "rank %d, line %d: ", rank, __LINE__); \
            fprintf(stderr, __VA_ARGS__); \
            fprintf(stderr, " (%s)\n", passrl_last_error()); \
            MPI_Abort(MPI_COMM_WORLD, 3); \
        } \
    } while (0)
#define VIEW(x, n, type) &(passrl_view){(void *)(x), {(n), 0}, {1, 1}, 1, (type), PASSRL_CPU, 0}

static int rank, size, calls, dying;
static int32_t cu[ROLLOUTS + 1], groups[ROLLOUTS];
static float signal_of[ROLLOUTS * LONGEST], outcome[ROLLOUTS];

static uint32_t draw(void) {
    static uint32_t x = 2463534242u;
    x ^= x << 13, x ^= x >> 17, x ^= x << 5;
    return x;
}

static int32_t counted(void *user, void *buffer, size_t count, int32_t dtype, int32_t op, void *stream) {
    calls++;
    if (dying && rank == 1 && calls == 3) {
        kill(getpid(), SIGKILL);
    }
    return passrl_mpi_all_reduce(user, buffer, count, dtype, op, stream);
}

static passrl_plan *make(passrl_context *context, const passrl_collective *collective, const char *whiten, size_t *bytes) {
    passrl_config config;
    passrl_limits limits;
    passrl_plan *plan = NULL;
    passrl_config_init_preset(&config, sizeof config, "pass");
    CHECK(passrl_config_set(&config, "whiten", whiten) == 0, "whiten");
    passrl_limits_init(&limits, sizeof limits);
    limits.rollouts = ROLLOUTS, limits.groups = GROUPS, limits.tokens = ROLLOUTS * LONGEST, limits.rollout_tokens = LONGEST;
    CHECK(passrl_plan_create(context, &config, &limits, collective, &plan) == 0, "plan");
    passrl_plan_workspace_size(plan, bytes);
    return plan;
}

/* Shapes the rollouts whose `owner` is `mine` (-1: all) into `advantages`, where they stand in the whole batch. */
static passrl_status shape(passrl_plan *plan, size_t bytes, const int *owner, int mine, int layout, double *advantages) {
    static float signals[ROLLOUTS * LONGEST], outcomes[ROLLOUTS];
    static double out[ROLLOUTS * LONGEST];
    int32_t offsets[ROLLOUTS + 1] = {0}, index[ROLLOUTS], rows[ROLLOUTS], n = 0;
    for (int i = 0; i < ROLLOUTS; i++) {
        if (mine < 0 || owner[i] == mine) {
            const int length = cu[i + 1] - cu[i];
            memcpy(signals + offsets[n], signal_of + cu[i], (size_t)length * sizeof *signals);
            rows[n] = i, outcomes[n] = outcome[i], index[n] = groups[i], offsets[n + 1] = offsets[n] + length, n++;
        }
    }
    passrl_batch batch;
    passrl_outputs outputs;
    passrl_batch_init(&batch, sizeof batch), passrl_outputs_init(&outputs, sizeof outputs);
    batch.num_rollouts = n, batch.num_groups = GROUPS, batch.layout = layout;
    batch.cu_seqlens = VIEW(offsets, n + 1, PASSRL_I32), batch.group_index = VIEW(index, n, PASSRL_I32);
    batch.signal[0] = VIEW(signals, offsets[n], PASSRL_F32), batch.outcome = VIEW(outcomes, n, PASSRL_F32);
    outputs.advantages = VIEW(out, offsets[n], PASSRL_F64);
    for (int t = 0; t < offsets[n]; t++) {
        out[t] = 7;
    }
    void *workspace = aligned_alloc(64, (bytes + 64) / 64 * 64);
    const passrl_status status = passrl_plan_run(plan, &batch, &outputs, workspace, bytes, NULL);
    free(workspace);
    for (int i = 0; i < n; i++) {
        memcpy(advantages + cu[rows[i]], out + offsets[i], (size_t)(offsets[i + 1] - offsets[i]) * sizeof *out);
    }
    for (int t = 0; status < 0 && t < offsets[n]; t++) {
        CHECK(out[t] == 7, "written in spite of a refusal");
    }
    return status;
}

int main(int argc, char **argv) {
    const char *mode = argc > 1 ? argv[1] : "bits";
    passrl_mpi mpi;
    passrl_collective collective;
    passrl_context *context;
    MPI_Init(&argc, &argv);
    CHECK(passrl_mpi_open(&mpi, MPI_COMM_WORLD, &collective) == MPI_SUCCESS, "open");
    rank = collective.rank, size = collective.size, collective.all_reduce = counted;
    for (int i = 0; i < ROLLOUTS; i++) {
        cu[i + 1] = cu[i] + 1 + (int32_t)(draw() % LONGEST);
        groups[i] = (int32_t)(draw() % GROUPS), outcome[i] = (float)(draw() % 3);
        for (int t = cu[i]; t < cu[i + 1]; t++) {
            signal_of[t] = (float)(draw() % 1000) / 300.0f;
        }
    }
    CHECK(passrl_context_create(NULL, &context) == 0, "context");
    int owner[ROLLOUTS];
    static double alone[ROLLOUTS * LONGEST], shared[ROLLOUTS * LONGEST];
    const char *whiten[] = {"none", "tokens"};
    for (int w = 0; w < 2 && strcmp(mode, "bits") == 0; w++) {
        size_t bytes, share_bytes;
        passrl_plan *one = make(context, NULL, whiten[w], &bytes), *over = make(context, &collective, whiten[w], &share_bytes);
        CHECK(shape(one, bytes, NULL, -1, PASSRL_PACKED, alone) == 0, "alone");
        for (int split = 0; split < 6; split++) {
            for (int i = 0; i < ROLLOUTS; i++) {
                const int any = (int)(draw() % (uint32_t)size);
                owner[i] = split == 0 ? i % size : split == 1 ? size / 2 : split == 2 ? any / 2 * 2 : split == 3 ? groups[i] % size : any;
            }
            calls = 0;
            CHECK(shape(over, share_bytes, owner, rank, PASSRL_PACKED, shared) == 0, "share");
            CHECK(calls == (w ? 4 : 2), "%d reductions", calls);
            for (int i = 0; i < ROLLOUTS; i++) {
                const size_t length = (size_t)(cu[i + 1] - cu[i]) * sizeof *alone;
                CHECK(owner[i] != rank || memcmp(alone + cu[i], shared + cu[i], length) == 0, "rollout %d differs in split %d", i, split);
            }
        }
        passrl_plan_destroy(over), passrl_plan_destroy(one);
    }
    if (strcmp(mode, "bits") != 0) {
        size_t bytes;
        passrl_plan *plan = make(context, &collective, "none", &bytes);
        for (int i = 0; i < ROLLOUTS; i++) {
            owner[i] = i % size;
        }
        calls = 1, dying = strcmp(mode, "dies") == 0;
        if (strcmp(mode, "broken") == 0) {
            MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN), MPI_Comm_set_errhandler(MPI_COMM_SELF, MPI_ERRORS_RETURN);
            MPI_Comm_free(&mpi.comm);
            CHECK(shape(plan, bytes, owner, rank, PASSRL_PACKED, shared) == PASSRL_ERR_COLLECTIVE, "no communicator");
            CHECK(strstr(passrl_last_error(), "collective.all_reduce returned") != NULL, "sentence");
            MPI_Comm_dup(MPI_COMM_SELF, &mpi.comm);
        } else {
            const int at_fault = strcmp(mode, "refused") == 0 && rank == 0;
            const passrl_status status = shape(plan, bytes, owner, rank, at_fault ? 9 : PASSRL_PACKED, shared);
            CHECK(status == (at_fault ? PASSRL_ERR_VALUE : PASSRL_ERR_COLLECTIVE), "status %d", status);
            CHECK(at_fault || strstr(passrl_last_error(), "rank 0 are refused") != NULL, "sentence");
        }
        passrl_plan_destroy(plan);
    }
    passrl_context_destroy(context);
    CHECK(passrl_mpi_close(&mpi) == MPI_SUCCESS, "close");
    printf("rank %d of %d: %s\n", rank, size, mode);
    MPI_Finalize();
    return 0;
}
