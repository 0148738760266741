/* MPI as a passrl collective: groups spread over the ranks of any intracommunicator. Header only: libpassrl.so knows nothing of MPI, the program is
 * compiled by mpicc as it is anyway.
 *
 *     passrl_mpi mpi;
 *     passrl_collective collective;
 *     passrl_mpi_open(&mpi, MPI_COMM_WORLD, &collective);
 *     passrl_plan_create(context, &config, &limits, &collective, &plan);       every rank
 *     ... passrl_plan_run(plan, ...), as often on every rank ...
 *     passrl_plan_destroy(plan);
 *     passrl_mpi_close(&mpi);
 *
 * Each message is one in-place MPI_Allreduce of host memory, on the thread that calls the library: MPI_THREAD_SERIALIZED is enough where that is not the main
 * thread. A failing MPI_Allreduce becomes PASSRL_ERR_COLLECTIVE with MPI's error code. A rank that dies is MPI's to notice: by default the job ends.
 * Context parallel pieces are data and belong in the communicator; replicas of the same rollouts (tensor parallelism) do not. */
#ifndef PASSRL_MPI_H
#define PASSRL_MPI_H

#include <mpi.h>
#include <stddef.h>
#include <stdint.h>

#include "passrl.h"

#ifdef __cplusplus
extern "C" {
#endif

/* A communicator of passrl's own. It must outlive the plans made with it, at the same address. */
typedef struct passrl_mpi {
    MPI_Comm comm;
} passrl_mpi;

/* The collective's function: `user` is a passrl_mpi. 0, MPI's error code, or -1 for what passrl never sends. */
static inline int32_t passrl_mpi_all_reduce(void *user, void *buffer, size_t count, int32_t dtype, int32_t op, void *stream) {
    const passrl_mpi *mpi = (const passrl_mpi *)user;
    /* MPI counts in int. */
    const size_t most = (size_t)1 << 30, each = dtype == PASSRL_I64 ? 8 : 4;
    char *at = (char *)buffer;
    (void)stream;
    if ((dtype != PASSRL_I64 && dtype != PASSRL_I32) || (op != PASSRL_REDUCE_SUM && op != PASSRL_REDUCE_MAX)) {
        return -1;
    }
    while (count > 0) {
        const size_t now = count < most ? count : most;
        const int failed = MPI_Allreduce(MPI_IN_PLACE, at, (int)now, dtype == PASSRL_I64 ? MPI_INT64_T : MPI_INT32_T,
                                         op == PASSRL_REDUCE_SUM ? MPI_SUM : MPI_MAX, mpi->comm);
        if (failed != MPI_SUCCESS) {
            return failed;
        }
        at += now * each;
        count -= now;
    }
    return 0;
}

/* Duplicates `comm` (a collective call) so that messages never meet the caller's own, makes its errors come back instead of ending the program, and fills
 * `collective`. MPI_SUCCESS or MPI's error code; MPI_ERR_OTHER where passrl_collective_init refuses (passrl_last_error says why). */
static inline int passrl_mpi_open(passrl_mpi *mpi, MPI_Comm comm, passrl_collective *collective) {
    int rank, size, failed = MPI_Comm_dup(comm, &mpi->comm);
    if (failed != MPI_SUCCESS) {
        return failed;
    }
    if ((failed = MPI_Comm_set_errhandler(mpi->comm, MPI_ERRORS_RETURN)) != MPI_SUCCESS || (failed = MPI_Comm_rank(mpi->comm, &rank)) != MPI_SUCCESS ||
        (failed = MPI_Comm_size(mpi->comm, &size)) != MPI_SUCCESS) {
        return failed;
    }
    if (passrl_collective_init(collective, sizeof *collective) < 0) {
        return MPI_ERR_OTHER;
    }
    collective->user = mpi;
    collective->all_reduce = passrl_mpi_all_reduce;
    collective->rank = rank;
    collective->size = size;
    return MPI_SUCCESS;
}

/* Frees the communicator (a collective call). No plan made with it may be run after this. */
static inline int passrl_mpi_close(passrl_mpi *mpi) { return MPI_Comm_free(&mpi->comm); }

#ifdef __cplusplus
}
#endif

#endif
