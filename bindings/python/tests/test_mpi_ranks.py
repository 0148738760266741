"""mpi4py as a collective, under mpirun."""
from __future__ import annotations

import shutil
import subprocess
import sys

import numpy as np
import passrl
import pytest

MPIRUN = shutil.which("mpirun")
# Ranks beyond the machine's cores yield; this machine alone, without ssh.
OPTIONS = ["--allow-run-as-root", "--oversubscribe", "--mca", "plm", "isolated", "--mca", "btl", "self,vader",
           "--mca", "btl_vader_single_copy_mechanism", "none", "--mca", "mpi_yield_when_idle", "1"]


def one_rank() -> None:
    """What each process under mpirun does."""
    from mpi4py import MPI

    import passrl.mpi

    comm = passrl.mpi.collective(MPI.COMM_WORLD)
    rng = np.random.default_rng(5)
    lengths, groups = rng.integers(1, 30, 40), rng.integers(0, 6, 40)
    signal, outcome = np.float32(rng.integers(-4, 5, int(lengths.sum())) / 4), np.float32(rng.integers(0, 2, 40))
    begins = np.concatenate([[0], np.cumsum(lengths)])
    # The last of several has nothing.
    sharers = max(comm.size - 1, 1)
    rows = np.arange(comm.rank, 40, sharers) if comm.rank < sharers else np.zeros(0, int)
    tokens = np.concatenate([np.arange(begins[i], begins[i + 1]) for i in rows]) if len(rows) else np.zeros(0, int)
    whole = passrl.shape("pass", signal=signal, lengths=lengths, groups=groups, outcome=outcome).advantages
    for _ in range(2):
        share = passrl.shape("pass", comm=comm, signal=signal[tokens], lengths=lengths[rows], groups=groups[rows], outcome=outcome[rows]).advantages
        assert np.array_equal(share, np.asarray(whole)[tokens]), comm.rank
    # A refusal of one rank reaches all.
    try:
        passrl.shape("pass", comm=comm, signal=signal[tokens], lengths=lengths[rows], outcome=outcome[rows],
                     **({"group_size": 2} if comm.rank == 0 else {"groups": groups[rows]}))
    except passrl.Error as fault:
        wanted = "group_size 2 with comm" if comm.rank == 0 else "the arguments of rank 0 are refused"
        assert wanted in str(fault), fault
    else:
        raise AssertionError("not refused")
    print(f"rank {comm.rank} of {comm.size}: every bit that of one call")


@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_mpirun_has_the_bits_of_one_process(ranks: int) -> None:
    if MPIRUN is None:
        pytest.skip("SKIPPED: no mpirun; tests/setup.sh system installs it")
    pytest.importorskip("mpi4py", reason="SKIPPED: mpi4py is not installed; pip install mpi4py")
    done = subprocess.run([MPIRUN, *OPTIONS, "-n", str(ranks), sys.executable, __file__], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("every bit that of one call") == ranks, done.stdout


if __name__ == "__main__":
    one_rank()
