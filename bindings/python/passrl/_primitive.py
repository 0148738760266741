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
from .batch import Arguments, Batch
from .errors import ERR_NOT_YET, ERR_NULL, ERR_SHAPE, ERR_VALUE, FindingWarning, refuse
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
    first array is in the framework of the results, unless `out` is another's.
    """

    def __init__(self, arguments: Arguments, views: Mapping[str, Any], *, out: Any = None, rollouts: int | None = None) -> None:
        given = {name: value for name, value in views.items() if value is not None}
        self.batch = Batch(arguments, out=out, dense=True, views=given, rollouts=rollouts)
        self.batch.maker.once = True
        self._memory: dict[str, Any] = {}
        self._given: set[str] = set()
        self._keep: list[Any] = []

    def view(self, name: str) -> Any:
        """Pointer to the view of an argument; None (NULL) where it is not given."""
        return self.batch.pointers.get(name)

    def add(self, name: str, value: Any) -> Any:
        """Pointer to the view of a further argument, of its own shape."""
        return self.batch._view(arrays.array(value, name))

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

    def host(self, name: str) -> NDArray[Any]:
        """A result in NumPy, after the call."""
        return arrays.host(self._memory[name], name)

    def result(self, name: str = "out") -> Any:
        """A result in the caller's framework, after the call; the caller's own memory as it was given."""
        memory = self._memory.get(name)
        return memory if name in self._given or memory is None else self.batch.maker.wrap(memory)

    def call(self, function: str, *arguments: Any, backend: str | None, stream: Any) -> int:
        """Calls `passrl_<function>(context, batch, *arguments, workspace)`; its status, 0 or positive."""
        batch = self.batch
        views = batch.keep_views()
        found = next((int(array.view.device_id) for array, _ in views if not array.on_cpu), None)
        device = placed(backend, found)
        used = context(device, 0, backend is not None)
        if device[0] != _ffi.CPU:
            # Workspace, results and reports of this package's primitives are host memory, which a device must never be given.
            refuse(ERR_NOT_YET, f"passrl: {function} works on host memory in this version: copy the arrays to the host first, or use passrl.shape or a passrl.Plan, "
                                "which run on the device")
        limits = _ffi.made(_ffi.Limits, "limits")
        limits.rollouts, limits.groups, limits.rollout_tokens = batch.rollouts, batch.groups, batch.longest
        needed = ctypes.c_size_t()
        _ffi.call("primitive_workspace_size", used.handle, byref(limits), byref(needed))
        workspace = arrays.aligned(max(needed.value, 1))
        return _ffi.call(function, used.handle, byref(batch.struct), *arguments, arrays.address(workspace), needed.value, stream_pointer(stream))


def warn(status: int) -> None:
    """Tells the caller of a primitive about findings in the data."""
    if status > 0:
        warnings.warn(FindingWarning(status, _ffi.last_error()), stacklevel=3)
