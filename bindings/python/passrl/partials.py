"""Statistics in phases: a batch in micro-batches gives the bits of one call on the whole batch."""
from __future__ import annotations

import ctypes
import os
from ctypes import byref
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from . import _ffi, arrays, cuda
from .batch import Batch
from .collective import Collective
from .errors import ERR_COLLECTIVE, ERR_WORKSPACE, integer, refuse
from .plan import Call, Plan, arguments_of, stream_pointer
from .results import Shaped


class Section(NamedTuple):
    """A part of the buffer that an all-reduce combines in place: `data` a view of it (i64 or i32; on a device a `passrl.cuda.Array`), `op` "sum" or "max"."""

    data: Any
    op: str


class Partials:
    """Statistics of a batch that is seen in parts.

        partials = Partials(plan)
        for phase in range(partials.phases):
            for micro in micro_batches:
                partials.add(phase, **micro)          # groups: dense indices of the whole batch
        shaped = [partials.apply(**micro) for micro in micro_batches]

    Batches are given as to `Plan.run`. What is not in the phases' order, or not once in each of them, is refused (on a device by the report of `apply`). `merge` adds
    another process's buffer after a phase, and both go on with copies of the sum; `save`, `load`, `to_bytes` and
    `from_bytes` keep it (`reduce` makes it that of all ranks, after each phase): it begins with the plan's fingerprint and another plan's is refused.

    Of a plan on a CUDA device the buffer is there, with the bytes that it has on the CPU; `add` and `apply` are put on their stream (the framework's current one, or
    `stream`) and do not wait: give all of them one stream, or let one wait for the other. All else waits for them.
    """

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        size, phases = ctypes.c_size_t(), ctypes.c_int32()
        _ffi.call("partials_size", plan.handle, byref(size))
        _ffi.call("plan_phases", plan.handle, byref(phases))
        self.phases = phases.value
        self.on_device = plan.device[0] != _ffi.CPU
        self.buffer: Any = cuda.empty(size.value, np.uint8, plan.device[1]) if self.on_device else arrays.aligned(size.value)
        self._streams: set[int | None] = set()
        self.clear()

    def _bound(self, batch: dict[str, Any], out: Any = None) -> Batch:
        limits = self.plan.limits
        return Batch(arguments_of(batch), out=out, dense=False, groups=limits["groups"], device=self.plan.device, tokens=limits["tokens"])

    def _wait(self) -> None:
        """For what has been put on streams."""
        while self._streams:
            cuda.synchronize(self._streams.pop(), self.plan.device[1])

    def clear(self) -> None:
        """Makes the buffer empty again."""
        self._wait()
        _ffi.call("partials_init", self.plan.handle, arrays.address(self.buffer), self.buffer.nbytes)

    def add(self, phase: int, *, stream: Any = None, **batch: Any) -> None:
        """Adds a micro-batch's share of a phase (0 to phases - 1). Every micro-batch once a phase, in any order."""
        phase = integer(phase, "phase", 32)
        bound = self._bound(batch)
        pointer = bound.follow(stream_pointer(stream))
        if self.on_device:
            self._streams.add(pointer)
        workspace = self.plan.workspace(bound.maker)
        try:
            _ffi.call("partials_add", self.plan.handle, phase, byref(bound.struct), arrays.address(self.buffer), self.buffer.nbytes,
                      arrays.address(workspace), self.plan.workspace_bytes, pointer)
        finally:
            self.plan.release(workspace, pointer)

    def merge(self, other: Partials) -> None:
        """Adds another buffer's share of the latest phase; of the phases before both must have the same, as copies of one buffer do."""
        self._wait()
        other._wait()
        _ffi.call("partials_merge", self.plan.handle, arrays.address(self.buffer), self.buffer.nbytes, arrays.address(other.buffer), other.buffer.nbytes)

    def reduce(self, phase: int, comm: Collective) -> None:
        """Makes the buffer that of all ranks after a phase: micro-batches within ranks. Every rank calls it after its last `add` of the phase, one
        without micro-batches too; the plan is one without a `comm`, of the same configuration and limits on every rank."""
        whole = self._fetch()
        if phase == 0:
            mine = int(whole[8:16].view(np.int64)[0])
            most, other = comm.most([mine, ~mine])
            if most != ~other:
                refuse(ERR_COLLECTIVE, "passrl: ranks have partials of different plans; configuration and limits must be the same on all")
        for section in self._sections(phase, whole):
            comm.reduce(section.data, section.op)
        if self.on_device:
            self.buffer.copy_from_host(whole)

    def _fetch(self) -> NDArray[np.uint8]:
        """The buffer in NumPy: itself, or a copy of what is on the device."""
        if not self.on_device:
            return np.asarray(self.buffer)
        self._wait()
        return np.asarray(self.buffer.copy_to_host())

    def apply(self, *, out: Any = None, dtype: Any = None, returns: Any = None, want: Any = None, stream: Any = None, **batch: Any) -> Shaped:
        """Shapes a slice of the batch from the complete statistics; arguments and result as `Plan.run`."""
        call = Call(self.plan, self._bound(batch, out), dtype, returns, want, stream, self.buffer)
        if self.on_device:
            self._streams.add(call.batch.maker.stream)
        return call.once()

    def sections(self, phase: int) -> list[Section]:
        """What an all-reduce must combine after a phase: views of the buffer, reduced in place by the caller (on a device in the order of the stream of `add`)."""
        return self._sections(phase, self.buffer)

    def _sections(self, phase: int, buffer: Any) -> list[Section]:
        count, phase = ctypes.c_size_t(), integer(phase, "phase", 32)
        _ffi.call("partials_layout", self.plan.handle, phase, None, 0, byref(count))
        found = (_ffi.Section * max(count.value, 1))()
        _ffi.call("partials_layout", self.plan.handle, phase, found, count.value, byref(count))
        sections = []
        for section in found[: count.value]:
            dtype = arrays.numpy_dtype(section.dtype)
            if isinstance(buffer, cuda.Array):
                data: Any = buffer.part(section.offset, (section.count,), dtype)
            else:
                data = buffer[section.offset : section.offset + section.count * dtype.itemsize].view(dtype)
            sections.append(Section(data, {1: "sum", 2: "max"}[section.op]))
        return sections

    def to_bytes(self) -> bytes:
        """The buffer, position-independent."""
        return self._fetch().tobytes()

    @classmethod
    def from_bytes(cls, plan: Plan, data: bytes) -> Partials:
        """A buffer from `to_bytes`; one of another configuration, limits or version is refused."""
        partials = cls(plan)
        if len(data) != partials.buffer.nbytes:
            refuse(ERR_WORKSPACE, f"passrl: partials of {len(data)} bytes; this plan's have {partials.buffer.nbytes}: "
                                  "configuration, limits and version must be the same")
        scratch = cls(plan)
        if scratch.on_device:
            scratch.buffer.copy_from_host(np.frombuffer(data, dtype=np.uint8))
        else:
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
