"""Calls of `passrl.shape` and `Plan.run` like one before them. The first call of a form (the same fields, the same arguments of the same types and ranks) finds out what each
argument means, makes a plan and fills the ABI's structs; the next ones only put addresses and lengths into them, and their results into new memory.

A call that is not served here (None) takes the long way, which also has every refusal: what is kept decides nothing about an argument's validity.
"""
from __future__ import annotations

import contextlib
import ctypes
import functools
import os
import struct
import sys
from collections import OrderedDict
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ParamSpec

import numpy as np
from numpy.typing import NDArray

from . import _ffi, arrays
from .batch import TOKENS, Steps
from .config import Config
from .results import Finding, Shaped, Small

if TYPE_CHECKING:
    from .plan import Call, Plan

P = ParamSpec("P")

# Arguments whose length is the batch's number of tokens (steps: of steps), which differs from call to call.
_LONG = frozenset({"signal", "out", *TOKENS, "steps.ends", "steps.scores", "steps.begins", "steps.groups"})
_STEPS = tuple((name, "steps." + name) for name in ("offsets", "ends", "scores", "begins", "groups"))
_PLAIN = frozenset({str, int, float, bool})
# Objects that are not arrays; memory to write to beside `out`.
_NOT_SERVED = frozenset({"returns", "stream", "comm", "stats_in", "streams", "step_ends", "pieces"})
_NONE: frozenset[str] = frozenset()
_FIXED = (type, np.dtype, frozenset)
_MOST_FORMS, _MOST_IDLE = 16, os.cpu_count() or 1
_SMALL_WORKSPACE = 1 << 20

# A NumPy array's address is the first field after the object's head, by NumPy's C ABI. Read there it costs a fiftieth of what `__array_interface__` does: the
# whole address space as one array of words, of which only such fields are read.
_HEAD = object.__basicsize__
_words = (ctypes.c_size_t * (1 << 57)).from_address(0)


def _readable() -> bool:
    if sys.implementation.name != "cpython" or ctypes.sizeof(ctypes.c_size_t) != 8:
        return False
    samples: list[NDArray[Any]] = [np.empty(3), np.empty((4, 5), dtype=np.float32)[1:, 2:], np.zeros(0, dtype=np.int64)]
    return all(_words[id(sample) + _HEAD >> 3] == arrays.address(sample) for sample in samples)


_served = _readable()

# The beginning of a passrl_view: address, length; and of rows: address, shape, strides.
_put_line = struct.Struct("=Qq").pack_into
_put_rows = struct.Struct("=Qqqqq").pack_into
_ndarray = np.ndarray
_new: Callable[..., NDArray[Any]] = np.empty  # by position: keywords cost as much again
_i32 = np.dtype(np.int32)
_group_index = _ffi.bare("group_index")
_run = _ffi.bare("plan_run")


def _array(name: str, value: Any, parts: list[Any], found: list[Any]) -> bool:
    """Adds an array's part of the key; False where its kind is not served here."""
    kind = type(value)
    if kind is _ndarray:
        if name == "out" and not value.flags.writeable:
            return False
        shape, strides, unit = value.shape, value.strides, value.itemsize
    else:
        torch = sys.modules.get("torch")
        if torch is None or kind is not torch.Tensor or not value.is_cpu or value.requires_grad or value.layout is not torch.strided:
            return False
        shape, strides, unit = value.shape, value.stride(), 1
    if name not in _LONG:
        parts += (name, value.dtype, shape, strides)
    elif len(shape) == 1:
        parts += (name, value.dtype, strides)
    elif len(shape) == 2 and shape[1] > 1 and strides == (shape[1] * unit, unit) and name[:6] != "steps.":
        parts += (name, value.dtype, shape[0])
    else:
        return False
    found.append(value)
    return 0 not in shape


def known(preset: Any, given: dict[str, Any]) -> tuple[tuple[Any, ...], list[Any]] | None:
    """The key of a call's form, and its arrays in order; None where something is not served here. preset: "" for a plan's own."""
    if not _served:
        return None
    parts: list[Any] = []
    found: list[Any] = []
    if type(preset) is str:
        parts.append(preset)
    elif type(preset) is Config:
        parts += (preset.key(), preset.told)
    else:
        return None
    for name, value in given.items():
        kind = type(value)
        if kind in _PLAIN:
            if name == "stream":
                return None
            parts += (name, kind, value)
        elif kind is _ndarray and name not in _LONG and name not in _NOT_SERVED:
            if name == "groups" and value.dtype.kind not in "iub":
                # Text and objects (verl's uid) are made dense one by one.
                return None
            parts += (name, value.dtype, value.shape, value.strides)
            found.append(value)
        elif value is None:
            continue
        elif name == "dtype" or name == "want":
            # Types and names, none of which changes.
            if not isinstance(value, _FIXED) and getattr(type(value), "__module__", "") != "torch":
                return None
            parts += (name, value)
        elif kind is Steps:
            for member, full in _STEPS:
                array = getattr(value, member)
                if array is not None and not _array(full, array, parts, found):
                    return None
        elif name in _NOT_SERVED or not _array(name, value, parts, found):
            return None
    return tuple(parts), found


def _names(given: dict[str, Any]) -> list[str]:
    """Names of the arrays, in the order of `known`."""
    found: list[str] = []
    for name, value in given.items():
        if type(value) is Steps:
            found += [full for member, full in _STEPS if getattr(value, member) is not None]
        elif value is not None and type(value) not in _PLAIN and name not in ("dtype", "want"):
            found.append(name)
    return found


def _address(value: Any) -> int:
    return _words[id(value) + _HEAD >> 3] if type(value) is _ndarray else int(value.data_ptr())


def _offsets_of(cu: Any) -> NDArray[np.int64]:
    offsets: NDArray[np.int64] = np.asarray(cu).astype(np.int64, copy=False)[:-1]
    return offsets


def _offsets_of_rows(shape: tuple[int, ...]) -> NDArray[np.int64]:
    return np.arange(shape[0], dtype=np.int64) * shape[1]


def _keys_of(keys: NDArray[Any], index: NDArray[np.int64]) -> list[Any]:
    return [key.item() for key in keys[np.unique(index, return_index=True)[1]]]


class Form:
    """A call's structs, to be filled again; one call at a time. Holds none of the caller's arrays, and its plan only where that is not the one who asks."""

    def __init__(self, names: list[str], found: list[Any], call: Call, plan: Plan | None) -> None:
        batch, sinks, mine = call.batch, call.sinks, call.batch.named
        self.plan, self.maker, self.rollouts, self.streams = plan, batch.maker, batch.rollouts, batch.stream_names
        self.padded = batch.struct.layout == _ffi.PADDED
        # Views to be filled, one an array; of lengths and groups what is derived from them is.
        self._lines: list[tuple[int, Any]] = []
        self._rows: list[tuple[int, Any]] = []
        self._lengths = self._keys = self._tokens = -1
        for place, (name, value) in enumerate(zip(names, found, strict=True)):
            if name == "lengths" and not self.padded:
                self._lengths = place
                self._offsets = np.zeros(self.rollouts + 1, dtype=np.int64)
                _put_line(mine["cu_seqlens"], 0, arrays.address(self._offsets), self.rollouts + 1)
            elif name == "groups" and batch.group_keys is not None:
                self._keys = place
                self._index, self._count = np.empty(self.rollouts, dtype=np.int64), ctypes.c_int64()
                numbers = mine[name]
                _put_line(numbers, 0, arrays.address(self._index), self.rollouts)
                self._keys_view = arrays.array(value, name).view
                self._numbered = ctypes.byref(self._keys_view), ctypes.byref(numbers), ctypes.byref(self._count)
            elif value.ndim == 2 and name in _LONG:
                self._rows.append((place, mine[name]))
            else:
                self._lines.append((place, mine[name]))
            if name in _LONG and name[:6] != "steps." and (value.ndim == 2 or not self.padded) and self._tokens < 0:
                self._tokens = place
        self._cu = names.index("cu_seqlens") if "cu_seqlens" in names else -1
        self._groups = batch.groups
        self._batch, self._outputs = batch.struct, sinks.struct
        # Views of what is long and new in each call, in this order; the advantages may be in the caller's memory instead.
        self._out, self._given = names.index("out") if "out" in names else -1, sinks.given
        self._chunks = "chunk_ends" in sinks.views
        long = ("returns", "chunk_ends", "chunk_values") if self._out >= 0 else ("advantages", "returns", "chunk_ends", "chunk_values")
        self._long = [sinks.views[name] for name in long if name in sinks.views]
        self._dtype = int(sinks.views["advantages"].dtype)
        self._numpy = arrays.numpy_dtype(self._dtype) if self.maker.framework == "numpy" else None
        # Small outputs are written to a block, of which a result has a copy.
        self._small = sinks.small.copy()
        begin = arrays.address(self._small.memory)
        for name, (offset, _, _) in self._small.places.items():
            sinks.views[name].data = begin + offset
        self._report = self._small.report_struct()
        self._outputs.report = ctypes.pointer(self._report)
        self._returns = "returns" in sinks.views
        # Taken at the first run: by then the call that this was learnt from has given its own back.
        self._workspace: Any = None
        # A large one is the plan's, shared by its forms; a small one stays here, which is quicker.
        self._large = call.plan.workspace_bytes > _SMALL_WORKSPACE
        self._arguments: tuple[Any, ...] = (
            call.plan.handle, ctypes.byref(self._batch), ctypes.byref(self._outputs), ctypes.c_void_p(), _ffi.word(call.plan.workspace_bytes), None)

    def _shape(self, found: list[Any]) -> tuple[int, ...] | None:
        """Shape of what is token-shaped; derived arrays are made on the way."""
        if self._lengths >= 0:
            np.cumsum(found[self._lengths], out=self._offsets[1:])
        if self.padded:
            shape = tuple(found[self._tokens].shape)
            self._batch.row_tokens = shape[1]
            return shape
        if self._tokens >= 0:
            return (len(found[self._tokens]),)
        slots = int(self._offsets[-1] if self._lengths >= 0 else found[self._cu][-1])
        return (slots,) if slots > 0 else None

    def _numbers_groups(self, keys: Any) -> bool:
        _put_line(self._keys_view, 0, _address(keys), self.rollouts)
        return bool(_group_index(*self._numbered) == 0 and self._count.value == self._groups)

    def run(self, found: list[Any], plan: Plan) -> Shaped | None:
        """The result; None where the call is not of this form after all, or is refused. Nothing was written then."""
        shape = self._shape(found)
        if shape is None or (self._keys >= 0 and not self._numbers_groups(found[self._keys])):
            return None
        for place, view in self._lines:
            value = found[place]
            _put_line(view, 0, _words[id(value) + _HEAD >> 3] if type(value) is _ndarray else value.data_ptr(), len(value))
        for place, view in self._rows:
            value = found[place]
            _put_rows(view, 0, _address(value), *shape, shape[1], 1)
        # New memory for what is long.
        places: list[int] = []
        if self._out >= 0:
            advantages = found[self._out]
        elif self._numpy is not None:
            advantages = _new(shape, self._numpy)
            places.append(_words[id(advantages) + _HEAD >> 3])
        else:
            advantages = self.maker.empty(shape, self._dtype)
            places.append(advantages.data_ptr())
        native = {"advantages": advantages}
        if self._returns:
            native["returns"] = returns = self.maker.empty(shape, self._dtype)
            places.append(_address(returns))
        chunks = None
        if self._chunks:
            chunks = _new((2, *shape), _i32)
            begin = _words[id(chunks) + _HEAD >> 3]
            places += (begin, begin + (chunks.nbytes >> 1))
        if self.padded:
            for view, address in zip(self._long, places):
                _put_rows(view, 0, address, *shape, shape[1], 1)
        else:
            tokens = shape[0]
            for view, address in zip(self._long, places):
                _put_line(view, 0, address, tokens)
        if self._workspace is None:
            self._workspace = plan.workspace()
            self._arguments[3].value = arrays.address(self._workspace)
        status = _run(*self._arguments)
        if self._large:
            plan.release(self._workspace)
            self._workspace = self._arguments[3].value = None
        if status:
            # Too many elements for the limits of a plan that `shape` has chosen: it makes another. (It serves no `out` here, which would be written now.)
            if status < 0 or (self.plan is not None and self._report.findings & Finding.TOO_LARGE):
                return None
        cu = None if self.padded else found[self._cu] if self._lengths < 0 else self._offsets.copy()
        keys = None if self._keys < 0 else functools.partial(_keys_of, np.array(arrays.host(found[self._keys], "groups")), self._index.copy())
        return Shaped(status, native, self._given, Small(self._small.memory.copy(), self._small.places), chunks,
                      lambda: _offsets_of_rows(shape) if cu is None else _offsets_of(cu), self.streams, keys, self.maker)


class Forms(OrderedDict[Any, list[Form]]):
    """Idle forms by key, the least recently used first. No lock (see `plan.context`): each step is one of the dict's or list's own."""

    def run(self, known: tuple[tuple[Any, ...], list[Any]] | None, plan: Plan | None) -> Shaped | None:
        """The result of a call that is like one before it; else None. plan: the one who asks; None: the form's own."""
        idle = None if known is None else self.get(known[0])
        if not idle:
            return None
        try:
            form = idle.pop()
        except IndexError:  # another thread's by now
            return None
        shaped = form.run(known[1], plan or form.plan)  # type: ignore[index, arg-type]
        if shaped is not None:
            idle.append(form)
        return shaped

    def learn(self, known: tuple[tuple[Any, ...], list[Any]] | None, given: dict[str, Any], call: Call, plan: Plan | None) -> None:
        """Keeps the form of a call that has gone the long way."""
        if known is None or not call.batch.maker.on_cpu or call.shaped.status != 0 or call.batch.rollouts == 0:
            return
        idle = self.setdefault(known[0], [])
        with contextlib.suppress(KeyError):
            self.move_to_end(known[0])
        if len(idle) < _MOST_IDLE:
            idle.append(Form(_names(given), known[1], call, plan))
        while len(self) > _MOST_FORMS:
            with contextlib.suppress(KeyError):
                self.popitem(last=False)


_forms = Forms()


def remembered(shape: Callable[P, Shaped]) -> Callable[P, Shaped]:
    """`shape`, by a form of an earlier call where there is one."""

    @functools.wraps(shape)
    def short(preset: Any = "pass", **given: Any) -> Shaped:
        form = None if "out" in given else known(preset, given)
        shaped = _forms.run(form, None)
        if shaped is not None:
            return shaped
        shaped = shape(preset, **given)
        call, shaped._bound = shaped._bound, None
        if form is not None:
            _forms.learn(form, given, call, call.plan)
        return shaped

    return short  # type: ignore[return-value]
