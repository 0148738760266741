"""What the primitives share: a batch from the caller's arguments, the result's memory, the call."""
from __future__ import annotations

import ctypes
import warnings
from collections.abc import Mapping
from ctypes import byref
from typing import Any

from numpy.typing import NDArray

from . import _ffi, arrays
from .arrays import Array
from .batch import Arguments, Batch, device_of
from .errors import ERR_NULL, ERR_SHAPE, ERR_VALUE, FindingWarning, refuse
from .plan import context, placed, stream_pointer


def rollouts_of(name: str, value: Any) -> int:
    """R, from an array with a value a rollout."""
    if value is None:
        refuse(ERR_NULL, f"passrl: {name} is None; it must be an array [R], a value a rollout")
    shape = arrays.array(value, name).shape
    if len(shape) != 1:
        refuse(ERR_SHAPE, f"passrl: {name} has shape {list(shape)}; it must be [R], a value a rollout")
    return shape[0]


class Primitive:
    """One call of a primitive.

    arguments: what it reads of a batch. views: its own arrays by name (None: not given), token-shaped where `rollouts` (R) is None. The
    first array is in the framework of the results, unless `out` is another's. backend, stream: where and in what order it runs; on a device memory is
    made for its stream.
    """

    def __init__(self, arguments: Arguments, views: Mapping[str, Any], *, out: Any = None, rollouts: int | None = None, backend: str | None = None,
                 stream: Any = None) -> None:
        given = {name: value for name, value in views.items() if value is not None}
        device = placed(backend, device_of(arguments, *given.values(), out))
        self._context = context(device, 0, backend is not None)
        self.batch = Batch(arguments, out=out, dense=True, views=given, rollouts=rollouts, device=device, alone=True)
        self.on_device = device[0] != _ffi.CPU
        self.batch.maker.once = True
        self._stream = self.batch.follow(stream_pointer(stream))
        self._memory: dict[str, Any] = {}
        self._given: set[str] = set()
        self._keep: list[Any] = []

    def view(self, name: str) -> Any:
        """Pointer to the view of an argument; None (NULL) where it is not given."""
        return self.batch.pointers.get(name)

    def add(self, name: str, value: Any) -> Any:
        """Pointer to the view of a further argument, of its own shape."""
        return self.batch._view(self.batch._placed(arrays.array(value, name), value, name))

    def _put(self, name: str, array: Array) -> Any:
        pointer = ctypes.pointer(array.view)
        self._keep.append((array, pointer))
        self._memory[name] = array.source
        return pointer

    def give(self, name: str, array: Array) -> Any:
        """Pointer to the view of a result in the caller's memory."""
        self._given.add(name)
        return self._put(name, array)

    def make(self, name: str, shape: tuple[int, ...], dtype: int) -> Any:
        """Pointer to the view of a result in new memory."""
        return self._put(name, arrays.array(self.batch.maker.empty(shape, dtype), name))

    def out(self, shape: tuple[int, ...], dtype: Any, like: str | None) -> Any:
        """Pointer to the view of the result: `out`, or new memory of `dtype` (None: of the type of the argument `like`, or f32)."""
        number = None if dtype is None else arrays.dtype_number(dtype)
        out = self.batch.out
        if out is not None:
            if number not in (None, out.dtype):
                refuse(ERR_VALUE, f"passrl: dtype is {dtype} and out has another; leave dtype out")
            return self.give("out", out)
        if number is None:
            number = self.batch.views[like].dtype if like in self.batch.views else _ffi.F32
        return self.make("out", shape, number)

    def report(self, report: Any) -> Any:
        """Pointer to a report for the call: the one given, or on a device new memory, which `read` copies to it."""
        if not self.on_device:
            return byref(report)
        self._memory["report"] = memory = self.batch.maker.block(ctypes.sizeof(report))
        return ctypes.cast(ctypes.c_void_p(arrays.address(memory)), ctypes.POINTER(_ffi.Report))

    def read(self, report: Any) -> None:
        """Copies the report from the device after the call, for which it waits."""
        if self.on_device:
            ctypes.memmove(byref(report), self.host("report").tobytes(), ctypes.sizeof(report))

    def host(self, name: str) -> NDArray[Any]:
        """A result in NumPy, after the call; from a device once the stream is done."""
        return self.batch.maker.fetch(self._memory[name])

    def result(self, name: str = "out") -> Any:
        """A result in the caller's framework, after the call; the caller's own memory as it was given."""
        memory = self._memory.get(name)
        return memory if name in self._given or memory is None else self.batch.maker.wrap(memory)

    def call(self, function: str, *arguments: Any) -> int:
        """Calls `passrl_<function>(context, batch, *arguments, workspace)`; its status, 0 or positive (on a device 0: the work is on the stream)."""
        batch = self.batch
        limits = _ffi.made(_ffi.Limits, "limits")
        limits.rollouts, limits.groups = batch.rollouts, batch.groups
        if self.on_device:
            limits.tokens = batch.slots
        else:
            limits.rollout_tokens = batch.longest
        needed = ctypes.c_size_t()
        _ffi.call("primitive_workspace_size", self._context.handle, byref(limits), byref(needed))
        workspace = batch.maker.block(max(needed.value, 1))
        status = _ffi.call(function, self._context.handle, byref(batch.struct), *arguments, arrays.address(workspace), needed.value, self._stream)
        arrays.written(arrays.tensors(self._memory[name] for name in self._given))
        return status


def warn(status: int) -> None:
    """Tells the caller of a primitive about findings in the data."""
    if status > 0:
        warnings.warn(FindingWarning(status, _ffi.last_error()), stacklevel=3)
