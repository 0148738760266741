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
from .batch import ROLLOUTS, TOKENS
from .config import Config
from .results import Finding, Shaped
from .steps import Steps

if TYPE_CHECKING:
    from .plan import Call, Plan

P = ParamSpec("P")

# Arguments whose length is the batch's number of tokens (steps: of steps), which differs from call to call.
_LONG = frozenset({"signal", "out", *TOKENS, "steps.ends", "steps.scores", "steps.begins", "steps.groups"})
_STEPS = tuple((name, "steps." + name) for name in ("offsets", "ends", "scores", "begins", "groups"))
_PLAIN = frozenset({str, int, float, bool})
# Arguments whose length, a value a rollout or a group, is the form's.
_SHORT = frozenset({*ROLLOUTS, "cu_seqlens", "lengths", "group_offsets", "stats_mean", "stats_std", "steps.offsets"})
# Group keys of other types are made dense one by one, or of another width first.
_KEYS = frozenset({np.dtype(np.int64), np.dtype(np.int32)})
_NONE: frozenset[str] = frozenset()
_FIXED = (type, np.dtype, frozenset)
_MOST_FORMS, _MOST_IDLE = 16, os.cpu_count() or 1
_SMALL_WORKSPACE = 1 << 20

# A NumPy array's address is the first field after the object's head, by NumPy's C ABI. Read there it costs a tenth of what `__array_interface__` does: the
# whole address space as one array of words, of which only such fields are read, and only addresses and lengths of a form's own views are written.
_HEAD = object.__basicsize__
_words = (ctypes.c_size_t * (1 << 57)).from_address(0)


def _readable() -> bool:
    if sys.implementation.name != "cpython" or ctypes.sizeof(ctypes.c_size_t) != 8:
        return False
    samples: list[NDArray[Any]] = [np.empty(3), np.empty((4, 5), dtype=np.float32)[1:, 2:], np.zeros(0, dtype=np.int64)]
    return all(_words[id(sample) + _HEAD >> 3] == arrays.address(sample) for sample in samples)


_served = _readable()

# The beginning of a passrl_view: address, length; and of rows: address, shape, strides, put from its second word on.
_put_line = struct.Struct("=Qq").pack_into
_put_rows = struct.Struct("=qqqq").pack_into
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
        if torch is None or kind is not torch.Tensor or not value.is_cpu or value.requires_grad or value.is_nested or value.layout is not torch.strided:
            return False
        if value.is_neg() or (name == "groups" and value.dtype not in (torch.int64, torch.int32)):
            return False
        shape, strides, unit = value.shape, value.stride(), 1
    if name in _SHORT or name == "groups":
        parts += (name, value.dtype, shape, strides)
    elif name not in _LONG:
        # A field of the configuration, `returns`, or what is not known at all.
        return False
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
        if kind is _ndarray:
            if name in _SHORT or (name == "groups" and value.dtype in _KEYS):
                parts += (name, value.dtype, value.shape, value.strides)
                found.append(value)
            elif name not in _LONG or not _array(name, value, parts, found):
                return None
        elif kind in _PLAIN:
            if name == "stream":
                return None
            parts += (name, kind, value)
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
        elif not _array(name, value, parts, found):
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


def _word(view: Any) -> int:
    """Number of a view's first word, which holds its address."""
    return ctypes.addressof(view) >> 3


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
        self.plan, self.maker, self.rollouts = plan, batch.maker, batch.rollouts
        self.padded = batch.struct.layout == _ffi.PADDED
        self._batch, self._outputs = batch.struct, sinks.struct
        self._views: list[Any] = [mine, sinks.views]
        # Of each array the word of its view that holds the address; of packed lengths, from which offsets are made, a word that nobody reads.
        self._at: list[int] = []
        self._nowhere = ctypes.c_size_t()
        # Token-shaped arrays, all of one shape, and arrays with a length of their own (steps), with the word that holds it.
        self._token_shaped: list[int] = []
        self._counted: list[tuple[int, int]] = []
        token_views: list[Any] = []
        self._lengths = self._keys = -1
        for place, (name, value) in enumerate(zip(names, found, strict=True)):
            view: Any = mine.get(name)
            if name == "lengths" and not self.padded:
                self._lengths, view = place, self._nowhere
                self._offsets = np.zeros(self.rollouts + 1, dtype=np.int64)
                _put_line(mine["cu_seqlens"], 0, arrays.address(self._offsets), self.rollouts + 1)
            elif name == "groups" and batch.group_keys is not None:
                self._keys = place
                self._index, self._count = np.empty(self.rollouts, dtype=np.int64), ctypes.c_int64()
                _put_line(view, 0, arrays.address(self._index), self.rollouts)
                keys = arrays.array(value, name).view
                self._numbered = ctypes.byref(keys), ctypes.byref(view), ctypes.byref(self._count)
                self._views.append(keys)
                view = keys
            elif name in _LONG and name[:6] != "steps.":
                self._token_shaped.append(place)
                token_views.append(view)
            elif name in _LONG:
                self._counted.append((place, _word(view) + 1))
            self._at.append(_word(view))
        self._tokens = self._token_shaped.pop(0) if self._token_shaped else -1
        self._cu = names.index("cu_seqlens") if "cu_seqlens" in names else -1
        self._groups, self._most = batch.groups, call.plan.limits["tokens"]
        # Views of what is long and new in each call; the advantages may be in the caller's memory instead.
        self._out = names.index("out") if "out" in names else -1
        self._dtype = int(sinks.views["advantages"].dtype)
        self._numpy = arrays.numpy_dtype(self._dtype) if self.maker.framework == "numpy" else None
        long = {name: sinks.views[name] for name in ("advantages", "returns", "chunk_ends", "chunk_values") if name in sinks.views}
        self._advantages, self._returns, self._ends, self._values = (_word(long[name]) if name in long else 0 for name in (
            "advantages", "returns", "chunk_ends", "chunk_values"))
        # What has the shape of the tokens, of which the views hold this one.
        self._shaped_views = [*token_views, *long.values()]
        self._shape: Any = None
        # Small outputs are written to a block, of which a result has a copy.
        self._like = call.shaped._like
        self._block = bytearray(sinks.small.memory)
        begin = ctypes.addressof(ctypes.c_char.from_buffer(self._block))
        for name, (offset, _, _) in sinks.small.places.items():
            sinks.views[name].data = begin + offset
        # Holds the block where it is.
        self._report = _ffi.Report.from_buffer(self._block)
        self._outputs.report = ctypes.pointer(self._report)
        # Taken at the first run: by then the call that this was learnt from has given its own back.
        self._workspace: Any = None
        # A large one is the plan's, shared by its forms; a small one stays here, which is quicker.
        self._large = call.plan.workspace_bytes > _SMALL_WORKSPACE
        self._address = ctypes.c_void_p()
        self._arguments: tuple[Any, ...] = (
            call.plan.handle, ctypes.byref(self._batch), ctypes.byref(self._outputs), self._address, _ffi.word(call.plan.workspace_bytes), None)

    def _reshape(self, shape: tuple[int, ...]) -> None:
        """Puts the tokens' shape into the views that have it."""
        self._shape = None
        for view in self._shaped_views:
            if self.padded:
                _put_rows(view, 8, *shape, shape[1], 1)
            else:
                _words[_word(view) + 1] = shape[0]
        if self.padded:
            self._batch.row_tokens = shape[1]
        self._shape = shape

    def _numbers_groups(self) -> bool:
        return bool(_group_index(*self._numbered) == 0 and self._count.value == self._groups)

    def run(self, found: list[Any], plan: Plan) -> Shaped | None:
        """The result; None where the call is not of this form after all, or is refused. Nothing was written then."""
        words = _words
        if self._lengths >= 0:
            np.cumsum(found[self._lengths], out=self._offsets[1:])
        if self._tokens >= 0:
            shape = found[self._tokens].shape
            for place in self._token_shaped:
                if found[place].shape != shape:
                    return None
        else:
            slots = int(self._offsets[-1] if self._lengths >= 0 else found[self._cu][-1])
            if not 0 < slots <= self._most:
                return None
            shape = (slots,)
        if shape != self._shape:
            self._reshape(shape)
        for value, at in zip(found, self._at):
            words[at] = words[id(value) + _HEAD >> 3] if type(value) is _ndarray else value.data_ptr()
        for place, at in self._counted:
            words[at] = len(found[place])
        if self._keys >= 0 and not self._numbers_groups():
            return None
        # New memory for what is long.
        if self._out >= 0:
            advantages = found[self._out]
            words[self._advantages] = _address(advantages)
        elif self._numpy is not None:
            advantages = _new(shape, self._numpy)
            words[self._advantages] = words[id(advantages) + _HEAD >> 3]
        else:
            advantages = self.maker.empty(shape, self._dtype)
            words[self._advantages] = advantages.data_ptr()
        native = {"advantages": advantages}
        if self._returns:
            native["returns"] = returns = self.maker.empty(shape, self._dtype)
            words[self._returns] = _address(returns)
        chunks = None
        if self._ends:
            chunks = _new((2, *shape), _i32)
            words[self._ends] = begin = words[id(chunks) + _HEAD >> 3]
            words[self._values] = begin + (chunks.nbytes >> 1)
        if self._workspace is None:
            self._workspace = plan.workspace()
            self._address.value = words[id(self._workspace) + _HEAD >> 3]
        status = _run(*self._arguments)
        if self._large:
            plan.release(self._workspace)
            self._workspace = self._address.value = None
        if status:
            # Too many elements for the limits of a plan that `shape` has chosen: it makes another. (It serves no `out` here, which would be written now.)
            if status < 0 or (self.plan is not None and self._report.findings & Finding.TOO_LARGE):
                return None
        if self._out >= 0 and type(advantages) is not _ndarray:
            arrays.written(arrays.tensors((advantages,)))
        cu = None if self.padded else found[self._cu] if self._lengths < 0 else self._offsets.copy()
        keys = None if self._keys < 0 else (_keys_of, np.array(arrays.host(found[self._keys], "groups")), self._index.copy())
        return Shaped(status, native, self._block.copy(), chunks, (_offsets_of_rows, shape) if cu is None else (_offsets_of, cu), keys, self._like)


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
