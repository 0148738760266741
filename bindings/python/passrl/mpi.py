"""mpi4py as a collective: `comm=passrl.mpi.collective(MPI.COMM_WORLD)`."""
from __future__ import annotations

from typing import Any

from mpi4py import MPI
from numpy.typing import NDArray

from .collective import Collective

_OPERATORS = {"sum": MPI.SUM, "max": MPI.MAX}


def collective(comm: Any) -> Collective:
    """An MPI communicator (mpi4py) whose ranks hold the rollouts as a `Collective`: each message is one in-place `Allreduce` on the library's own memory.

    comm: an intracommunicator; it is duplicated (a collective call), so that messages never meet the caller's own. Replicas of the same rollouts
    (tensor parallelism) are not in it. What a rank sees of one that is gone is MPI's own: by default the job ends.
    """
    own = comm.Dup()

    def all_reduce(data: NDArray[Any], op: str) -> None:
        own.Allreduce(MPI.IN_PLACE, data, op=_OPERATORS[op])

    return Collective(all_reduce, own.Get_rank(), own.Get_size())
