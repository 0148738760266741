"""Groups spread over ranks: the caller's all-reduce as the library's collective."""
from __future__ import annotations

import ctypes
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import _ffi
from .errors import ERR_COLLECTIVE, error, integer

_AllReduce = ctypes.CFUNCTYPE(ctypes.c_int32, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int32, ctypes.c_int32, ctypes.c_void_p)
_TYPES: dict[int, Any] = {_ffi.I64: ctypes.c_int64, _ffi.I32: ctypes.c_int32}
_OPERATORS = {1: "sum", 2: "max"}


class Collective:
    """The all-reduce of the ranks over which groups are spread, for `Plan(..., comm=)` and `shape(..., comm=)`.

    `passrl.torch.collective(group)` and `passrl.mpi.collective(comm)` make one of torch.distributed and of mpi4py; any other engine is a function:

    all_reduce(data, op): reduces `data`, a one-dimensional int64 or int32 array (host memory), in place over all ranks by `op`, "sum" or "max". It is
    called from `Plan(...)`, `shape(...)` and from each run, on the calling thread, and must not call passrl. An exception in it becomes a
    `CollectiveError` of the call, whose `__cause__` is the exception. rank, size: 0 <= rank < size.
    """

    def __init__(self, all_reduce: Callable[[NDArray[Any], str], None], rank: int, size: int) -> None:
        self.rank, self.size = integer(rank, "rank", 32), integer(size, "size", 32)
        self._all_reduce = all_reduce
        # What the last failing call raised.
        self.raised: BaseException | None = None
        # Plans of `shape`, and where they run: every rank makes the same calls, so every rank has the same plans.
        self.plans: OrderedDict[Any, Any] = OrderedDict()
        self.where: Any = None

        def called(_user: Any, buffer: Any, count: int, dtype: int, op: int, _stream: Any) -> int:
            # An exception that leaves a ctypes callback gives an undefined status.
            try:
                all_reduce(np.ctypeslib.as_array((_TYPES[dtype] * count).from_address(buffer)), _OPERATORS[op])
            except BaseException as fault:
                self.raised = fault
                return -1
            return 0

        # Held: the library calls it as long as a plan lives.
        self._callback = _AllReduce(called)
        self.struct = _ffi.made(_ffi.Collective, "collective")
        self.struct.all_reduce = ctypes.cast(self._callback, ctypes.c_void_p)
        self.struct.rank, self.struct.size = self.rank, self.size

    def cause(self) -> BaseException | None:
        """What the callback raised since this was last asked."""
        raised, self.raised = self.raised, None
        return raised

    def reduce(self, data: NDArray[Any], op: str) -> None:
        """One all-reduce, in place; what the function raises becomes the cause of a `CollectiveError`."""
        try:
            self._all_reduce(data, op)
        except BaseException as fault:
            raise error(ERR_COLLECTIVE, f"passrl: all_reduce failed on rank {self.rank} of {self.size}: {fault}") from fault

    def most(self, words: list[int]) -> list[int]:
        """The maximum of each word over all ranks."""
        data = np.array(words, dtype=np.int64)
        self.reduce(data, "max")
        return [int(x) for x in data]
