"""Statistics in phases: a batch in micro-batches gives the bits of one call on the whole batch."""
from __future__ import annotations

import ctypes
import os
from ctypes import byref
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from . import _ffi, arrays
from .batch import Batch
from .collective import Collective
from .errors import ERR_COLLECTIVE, ERR_NOT_YET, ERR_WORKSPACE, refuse
from .plan import Call, Plan, arguments_of, stream_pointer
from .results import Shaped


class Section(NamedTuple):
    """A part of the buffer that an all-reduce combines in place: `data` a view of it (i64 or i32), `op` "sum" or "max"."""

    data: NDArray[Any]
    op: str


class Partials:
    """Statistics of a batch that is seen in parts.

        partials = Partials(plan)
        for phase in range(partials.phases):
            for micro in micro_batches:
                partials.add(phase, **micro)          # groups: dense indices of the whole batch
        shaped = [partials.apply(**micro) for micro in micro_batches]

    Batches are given as to `Plan.run`. `merge` adds a buffer of the same phases (another process's); `save`, `load`, `to_bytes` and
    `from_bytes` keep it (`reduce` makes it that of all ranks, after each phase): it begins with the plan's fingerprint and another plan's is refused.
    """

    def __init__(self, plan: Plan) -> None:
        if plan.device[0] != _ffi.CPU:
            refuse(ERR_NOT_YET, "passrl: the plan is on a CUDA device, and Partials keep their sums in host memory; make the plan on the CPU, or call "
                                "passrl_partials_add of the C ABI with device memory (docs/cuda.md)")
        self.plan = plan
        size, phases = ctypes.c_size_t(), ctypes.c_int32()
        _ffi.call("partials_size", plan.handle, byref(size))
        _ffi.call("plan_phases", plan.handle, byref(phases))
        self.phases = phases.value
        self.buffer = arrays.aligned(size.value)
        self.clear()

    def clear(self) -> None:
        """Makes the buffer empty again."""
        _ffi.call("partials_init", self.plan.handle, arrays.address(self.buffer), self.buffer.nbytes)

    def add(self, phase: int, *, stream: Any = None, **batch: Any) -> None:
        """Adds a micro-batch's share of a phase (0 to phases - 1). Every micro-batch once a phase, in any order."""
        bound = Batch(arguments_of(batch), dense=False, groups=self.plan.limits["groups"])
        workspace = self.plan.workspace()
        try:
            _ffi.call("partials_add", self.plan.handle, int(phase), byref(bound.struct), arrays.address(self.buffer), self.buffer.nbytes,
                      arrays.address(workspace), self.plan.workspace_bytes, stream_pointer(stream))
        finally:
            self.plan.release(workspace)

    def merge(self, other: Partials) -> None:
        """Adds another buffer, after the same phases, to this one."""
        _ffi.call("partials_merge", self.plan.handle, arrays.address(self.buffer), self.buffer.nbytes, arrays.address(other.buffer), other.buffer.nbytes)

    def reduce(self, phase: int, comm: Collective) -> None:
        """Makes the buffer that of all ranks after a phase: micro-batches within ranks. Every rank calls it after its last `add` of the phase, one
        without micro-batches too; the plan is one without a `comm`, of the same configuration and limits on every rank."""
        if phase == 0:
            mine = int(self.buffer[8:16].view(np.int64)[0])
            most, other = comm.most([mine, ~mine])
            if most != ~other:
                refuse(ERR_COLLECTIVE, "passrl: ranks have partials of different plans; configuration and limits must be the same on all")
        for section in self.sections(phase):
            comm.reduce(section.data, section.op)

    def apply(self, *, out: Any = None, dtype: Any = None, returns: Any = None, want: Any = None, stream: Any = None, **batch: Any) -> Shaped:
        """Shapes a slice of the batch from the complete statistics; arguments and result as `Plan.run`."""
        bound = Batch(arguments_of(batch), out=out, dense=False, groups=self.plan.limits["groups"])
        return Call(self.plan, bound, dtype, returns, want, stream, self.buffer).once()

    def sections(self, phase: int) -> list[Section]:
        """What an all-reduce must combine after a phase: views of the buffer, reduced in place by the caller."""
        count = ctypes.c_size_t()
        _ffi.call("partials_layout", self.plan.handle, int(phase), None, 0, byref(count))
        found = (_ffi.Section * max(count.value, 1))()
        _ffi.call("partials_layout", self.plan.handle, int(phase), found, count.value, byref(count))
        sections = []
        for section in found[: count.value]:
            dtype = arrays.numpy_dtype(section.dtype)
            data = self.buffer[section.offset : section.offset + section.count * dtype.itemsize].view(dtype)
            sections.append(Section(data, {1: "sum", 2: "max"}[section.op]))
        return sections

    def to_bytes(self) -> bytes:
        """The buffer, position-independent."""
        return self.buffer.tobytes()

    @classmethod
    def from_bytes(cls, plan: Plan, data: bytes) -> Partials:
        """A buffer from `to_bytes`; one of another configuration, limits or version is refused."""
        partials = cls(plan)
        if len(data) != partials.buffer.nbytes:
            refuse(ERR_WORKSPACE, f"passrl: partials of {len(data)} bytes; this plan's have {partials.buffer.nbytes}: "
                                  "configuration, limits and version must be the same")
        scratch = cls(plan)
        scratch.buffer[:] = np.frombuffer(data, dtype=np.uint8)
        # Merging checks the fingerprint.
        partials.merge(scratch)
        return scratch

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the buffer to a file."""
        Path(path).write_bytes(self.to_bytes())

    @classmethod
    def load(cls, plan: Plan, path: str | os.PathLike[str]) -> Partials:
        """Reads a buffer that `save` wrote."""
        return cls.from_bytes(plan, Path(path).read_bytes())
