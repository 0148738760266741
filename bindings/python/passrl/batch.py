"""From the caller's arguments to the ABI's batch: layout, extents, groups, steps, streams. Views only; what is read here is `[R]`."""
from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import _ffi, arrays, cuda
from .arrays import Array, Maker
from .config import STREAM_NAMES
from .errors import ERR_CONFLICT, ERR_NULL, ERR_OFFSETS, ERR_SHAPE, ERR_VALUE, Error, integer, number, refuse
from .groups import group_index
from .pieces import Pieces
from .steps import Steps, from_ends


@dataclass
class Arguments:
    """What `passrl.shape`, `Plan.run` and `Partials.add` take as their batch; see `passrl.shape` for each."""

    signal: Any = None
    steps: Steps | None = None
    step_ends: Any = None
    step_marks: Any = None
    chunk_ends: Any = None
    logp_policy: Any = None
    logp_teacher: Any = None
    logp_base: Any = None
    logp_reference: Any = None
    logp_behavior: Any = None
    sum_pi_squared: Any = None
    token_ratio: Any = None
    cu_seqlens: Any = None
    lengths: Any = None
    pad_side: str = "right"
    mask: Any = None
    groups: Any = None
    group_size: int | None = None
    group_offsets: Any = None
    outcome: Any = None
    format: Any = None
    format_ok: Any = None
    streams: Mapping[str, Any] | None = None
    values: Any = None
    token_rewards: Any = None
    bootstrap: Any = None
    baselines: Any = None
    rollout_lam: Any = None
    in_stats: Any = None
    absent: Any = None
    stats_mean: Any = None
    stats_std: Any = None
    stats_in: Any = None
    pieces: Pieces | None = None

    def signals(self) -> list[Any]:
        """The process signals: one array, or a list or tuple of arrays."""
        if self.signal is None:
            return []
        if isinstance(self.signal, (list, tuple)) and self.signal and all(arrays.is_array(one) for one in self.signal):
            if all(getattr(one, "shape", ()) for one in self.signal):
                return list(self.signal)
        return [self.signal]

    def extra(self) -> list[tuple[str, Any, float | None]]:
        """Further streams: name, array, weight (None: the configuration's)."""
        found: list[tuple[str, Any, float | None]] = []
        if self.streams is not None and not isinstance(self.streams, Mapping):
            refuse(ERR_VALUE, f'passrl: streams is a {type(self.streams).__name__}; it must be a mapping with a name for each: {{"name": array}} or {{"name": (array, weight)}}')
        for name, value in (self.streams or {}).items():
            if not isinstance(name, str):
                refuse(ERR_VALUE, f"passrl: streams has the name {name!r}, a {type(name).__name__}; a name is text")
            # A row's name means that row, in the statistics as in the configuration.
            if name in STREAM_NAMES and name != f"extra_{len(found)}":
                refuse(ERR_VALUE, f"passrl: streams has the name {name!r}, which is another row's of the stream table; choose another")
            weighted = isinstance(value, tuple) and len(value) == 2 and np.ndim(value[1]) == 0
            found.append((name, value[0], number(value[1], f"the weight of streams[{name!r}]")) if weighted else (name, value, None))
        return found


ARGUMENTS: tuple[str, ...] = tuple(field.name for field in fields(Arguments))

# Argument, type of a list given for it. Token-shaped, then per rollout.
TOKENS = {"mask": "bool", "logp_policy": "float64", "logp_teacher": "float64", "logp_base": "float64", "logp_reference": "float64",
           "logp_behavior": "float64", "sum_pi_squared": "float64", "token_ratio": "float64",
           "values": "float64", "token_rewards": "float64", "step_marks": "bool", "chunk_ends": "bool"}
ROLLOUTS = {"outcome": "float64", "format": "float64", "format_ok": "bool", "in_stats": "bool", "absent": "bool",
             "bootstrap": "float64", "baselines": "float64", "rollout_lam": "float64"}


def _read_later(cu: Any) -> Callable[[], NDArray[np.int64]]:
    return lambda: arrays.host(cu, "cu_seqlens").astype(np.int64, copy=False)


def device_of(arguments: Arguments, *others: Any) -> int | None:
    """The CUDA device of the first array that is on one; None: there is none."""
    for value in (*vars(arguments).values(), *others):
        parts = vars(value).values() if isinstance(value, Steps) else value if isinstance(value, (list, tuple)) else (value,)
        for part in parts:
            if part is not None and not isinstance(part, (np.ndarray, int, float, str, bool)):
                found = arrays.cuda_device(part)
                if found is not None:
                    return found
    return None


class Batch:
    """The ABI's batch with what keeps its memory alive.

    out: memory for the result. dense: `groups` are keys of any kind, to be made dense. groups: their number where they are dense already.
    views: arrays that are arguments of a primitive rather than fields of the batch, token-shaped where `rollouts` is None: kept by name.
    rollouts: R of a batch without tokens. device: where the run is, and what is made on the host for it is copied to. tokens: N of a batch on a device
    without token-shaped arrays, whose offsets are not read (0: they are). alone: a packed batch without extents is one rollout.
    """

    token_shape: tuple[int, ...]
    # Where each rollout begins (host); what it holds of the batch is the offsets alone.
    offsets: Callable[[], NDArray[np.int64]]
    _cu: Callable[[], NDArray[np.int64]]
    in_pieces: bool

    def __init__(self, arguments: Arguments, *, out: Any = None, dense: bool, groups: int = 0, views: Mapping[str, Any] | None = None,
                 rollouts: int | None = None, device: tuple[int, int] = (_ffi.CPU, 0), tokens: int = 0, alone: bool = False) -> None:
        self.device, self._most_tokens, self._alone = device, tokens, alone
        self.struct = _ffi.made(_ffi.Batch, "batch")
        self.keep: list[Any] = []
        # Views by their argument; where a list of signals is given, none is "signal".
        self.named: dict[str, _ffi.View] = {}
        self.group_keys: list[Any] | None = None
        self._token_arrays: dict[str, Array] = {}
        self._like: Any = None
        self.out = None if out is None else self._out(out)
        self.views = {name: arrays.array(value, name) for name, value in (views or {}).items()}
        self.pointers = {name: self._view(found) for name, found in self.views.items()}
        if rollouts is None:
            self._token_arrays |= self.views
            self._tokens(arguments)
            self._extents(arguments)
        else:
            self._without_tokens(rollouts)
        self._steps(arguments)
        for name, listed in ROLLOUTS.items():
            self._put(name, getattr(arguments, name), listed)
        extra = arguments.extra()
        if len(extra) > _ffi.MAX_EXTRA:
            refuse(ERR_VALUE, f"passrl: streams has {len(extra)} streams; there are {_ffi.MAX_EXTRA} at most")
        self.stream_names = [name for name, _, _ in extra]
        for index, (name, value, _) in enumerate(extra):
            named = f"streams[{name!r}]"
            self.struct.extra[index] = self._view(self._placed(arrays.array(value, named), value, named))
        self._groups(arguments, dense, groups)
        for name in ("stats_mean", "stats_std"):
            self._statistics(name, getattr(arguments, name))
        if arguments.stats_in is not None:
            self._stats_in(arguments.stats_in)

    def _view(self, array: Array) -> Any:
        pointer = ctypes.pointer(array.view)
        self.keep.append((array, pointer))
        if self._like is None and arrays.is_array(array.source):
            self._like = array.source
        return pointer

    @functools.cached_property
    def maker(self) -> Maker:
        """Of outputs, and of copies on the device, in the framework of the first array."""
        return Maker(self._like, self.device)

    def _placed(self, found: Array, given: Any, name: str) -> Array:
        """Where the run is: what the caller gave as a list, or (given: None) was derived on the host."""
        if self.device[0] == _ffi.CPU or not found.on_cpu or (given is not None and arrays.is_array(given)):
            return found
        return arrays.array(Maker(self._like, self.device).place(found.source), name)

    def _put(self, name: str, value: Any, listed: str, field: str | None = None, derived: bool = False) -> Array | None:
        if value is None:
            return None
        found = arrays.array(value, name, listed)
        if listed.startswith("float"):
            arrays.floats(found, name)
        found = self._placed(found, None if derived else value, name)
        setattr(self.struct, field or name, self._view(found))
        self.named[name] = found.view
        return found

    def _out(self, out: Any) -> Array:
        found = arrays.output(out, "out")
        self.named["out"] = found.view
        self._like = found.source
        return found

    def _without_tokens(self, rollouts: int) -> None:
        self.rollouts = self.struct.num_rollouts = rollouts
        self.longest = self.slots = self.num_signals = 0
        self.in_pieces = False
        self.extents, self.offsets = np.zeros(rollouts, dtype=np.int64), lambda: np.zeros(rollouts, dtype=np.int64)
        self.token_shape = (0,)

    def _tokens(self, a: Arguments) -> None:
        signals = [self._placed(arrays.short_floats(arrays.array(one, "signal", "float32"), "signal"), one, "signal") for one in a.signals()]
        if len(signals) > _ffi.MAX_PROCESS:
            refuse(ERR_VALUE, f"passrl: signal is a list of {len(signals)} process streams; there are {_ffi.MAX_PROCESS} at most")
        for index, one in enumerate(signals):
            self.struct.signal[index] = self._view(one)
            if len(signals) == 1:
                self.named["signal"] = one.view
        self.num_signals = len(signals)
        self._token_arrays |= {"signal" if len(signals) == 1 else f"signal[{index}]": one for index, one in enumerate(signals)}
        for name, listed in TOKENS.items():
            found = self._put(name, getattr(a, name), listed)
            if found is not None:
                self._token_arrays[name] = found
        if self.out is not None:
            self._token_arrays["out"] = self.out

    def _extents(self, a: Arguments) -> None:
        sides = {"right": 0, "left": 1}
        if a.pad_side not in sides:
            refuse(ERR_VALUE, f'passrl: pad_side is {a.pad_side!r}; it is "right" or "left"')
        wide = {name: one.shape for name, one in self._token_arrays.items() if len(one.shape) == 2}
        padded = bool(wide)
        self.struct.layout = _ffi.PADDED if padded else _ffi.PACKED
        self.struct.pad_side = sides[a.pad_side]
        if padded:
            (name, shape), *_ = wide.items()
            for other, one in self._token_arrays.items():
                if other not in wide:
                    refuse(ERR_SHAPE, f"passrl: {name} has shape {list(shape)} and {other} {list(one.shape)}; token-shaped arrays are all padded, [R, T], or all packed, [N] with "
                                      "cu_seqlens or lengths: give both in one shape")
            self._put("cu_seqlens", a.cu_seqlens, "int64")
            self._put("lengths", a.lengths, "int64")
            self.rollouts, self.token_shape = shape[0], shape
            self.struct.row_tokens = shape[1]
            self.longest, self.slots = shape[1], shape[0] * shape[1]
            rows = self.rollouts
            self.offsets = lambda: np.arange(rows, dtype=np.int64) * shape[1]
            self.extents = np.full(self.rollouts, shape[1], dtype=np.int64)
        else:
            self.rollouts, cu = self._packed(a)
            # A plan's run on a device reads nothing of it.
            self._cu = read = _read_later(cu)
            if self._token_arrays:
                name, slots = next((name, one.shape[0]) for name, one in self._token_arrays.items())
                if a.lengths is not None and cu[-1] > slots:
                    refuse(ERR_OFFSETS, f"passrl: lengths add up to {cu[-1]} and {name} has {slots} elements; a packed array has those of each rollout, one after the other")
            else:
                slots = self._most_tokens if self.device[0] != _ffi.CPU and self._most_tokens else max(int(read()[-1]), 0)
            self.token_shape, self.slots = (slots,), slots
            self.offsets = lambda: read()[:-1]
        self.in_pieces = a.pieces is not None
        if a.pieces is not None:
            self._pieces(a.pieces)
        self.struct.num_rollouts = self.rollouts

    def _pieces(self, pieces: Pieces) -> None:
        if not isinstance(pieces, Pieces):
            refuse(ERR_VALUE, f"passrl: pieces is a {type(pieces).__name__}; it must be a passrl.Pieces")
        for name, field in (("rollout", "piece_rollout"), ("begin", "piece_begin"), ("index", "piece_index"), ("lengths", "lengths"), ("rollout_index", "rollout_index")):
            found = self._put(f"pieces.{name}", getattr(pieces, name), "int64", field)
            if name == "lengths":
                if found is None or len(found.shape) != 1:
                    refuse(ERR_SHAPE, "passrl: pieces.lengths must be [R], the tokens of the whole rollouts")
                self.rollouts = found.shape[0]

    @functools.cached_property
    def extents(self) -> NDArray[np.int64]:
        """Tokens of each rollout, `[R]` (host). Of offsets that decrease, which are the library's to refuse, none."""
        cu = self._cu()
        return cu[1:] - cu[:-1] if (cu[1:] >= cu[:-1]).all() and cu[0] >= 0 else np.zeros(len(cu) - 1, dtype=np.int64)

    @functools.cached_property
    def longest(self) -> int:
        """Most tokens of a rollout."""
        return int(max(self.extents.max(initial=0), 0))

    @property
    def token_offsets(self) -> NDArray[np.int64]:
        """Where each rollout begins, `[R]` (host)."""
        return self.offsets()

    def _packed(self, a: Arguments) -> tuple[int, Any]:
        """R, and the array of their offsets."""
        if a.cu_seqlens is not None:
            if a.lengths is not None:
                refuse(ERR_CONFLICT, "passrl: cu_seqlens and lengths are both given for a packed batch; give one")
            given = self._put("cu_seqlens", a.cu_seqlens, "int64")
            assert given is not None
            if len(given.shape) != 1 or given.shape[0] < 1:
                refuse(ERR_SHAPE, f"passrl: cu_seqlens has shape {list(given.shape)}; it must be [R+1], from 0 to N")
            return given.shape[0] - 1, given.source
        if a.lengths is None and self._alone and self._token_arrays:
            cu = np.array([0, next(iter(self._token_arrays.values())).shape[0]], dtype=np.int64)
            self._put("cu_seqlens", cu, "int64", derived=True)
            return 1, cu
        if a.lengths is None:
            refuse(ERR_NULL, "passrl: the arrays are packed (one dimension) and neither cu_seqlens [R+1] nor lengths [R] is given; "
                             "give one, or two-dimensional arrays [R, T]")
        lengths = arrays.extents(a.lengths, "lengths")
        if lengths.sum(dtype=np.float64) >= 2.0**40:
            refuse(ERR_OFFSETS, f"passrl: lengths add up to {sum(lengths.tolist())}; a call takes fewer than 2^40 tokens")
        cu = np.zeros(len(lengths) + 1, dtype=np.int64)
        np.cumsum(lengths, out=cu[1:])
        if self._like is None and arrays.is_array(a.lengths):
            self._like = a.lengths
        like = self._like
        self._put("cu_seqlens", cu, "int64", derived=True)
        self._like = like
        return len(lengths), cu

    def _steps(self, a: Arguments) -> None:
        self.num_steps, self.process_streams = 0, max(self.num_signals, 1)
        self._step_offsets: Any = None
        steps = a.steps
        if a.step_ends is not None:
            if steps is not None:
                refuse(ERR_CONFLICT, "passrl: steps and step_ends are both given; steps has the ends already")
            steps = from_ends(a.step_ends, self.rollouts)
        if steps is None:
            return
        if not isinstance(steps, Steps):
            refuse(ERR_VALUE, f"passrl: steps is a {type(steps).__name__}; it must be a passrl.Steps(offsets, ends, scores)")
        offsets = self._put("steps.offsets", steps.offsets, "int64", "step_offsets")
        ends = self._put("steps.ends", steps.ends, "int64", "step_ends")
        scores = self._put("steps.scores", steps.scores, "float64", "step_scores")
        self._put("steps.begins", steps.begins, "int64", "step_begins")
        self._put("steps.groups", steps.groups, "int64", "step_group")
        if scores is not None and len(scores.shape) == 2:
            self.process_streams = scores.shape[0]
        if ends is not None:
            self.num_steps = ends.shape[0]
        if offsets is not None and offsets.shape == (self.rollouts + 1,):
            self._step_offsets = offsets.source

    @functools.cached_property
    def step_counts(self) -> NDArray[np.int64] | None:
        """Steps of each rollout, `[R]` (host)."""
        if self._step_offsets is None:
            return None
        counts: NDArray[np.int64] = np.asarray(np.diff(arrays.host(self._step_offsets, "steps.offsets")), dtype=np.int64)
        return counts

    def _groups(self, a: Arguments, dense: bool, groups: int) -> None:
        self.groups = groups
        if a.group_size is not None:
            size = integer(a.group_size, "group_size")
            if size < 1:
                refuse(ERR_VALUE, f"passrl: group_size is {size}; it must be 1 or more")
            self.struct.group_size = size
            self.groups = self.rollouts // size
        if a.group_offsets is not None:
            found = self._put("group_offsets", a.group_offsets, "int64")
            assert found is not None
            self.groups = max(found.shape[0] - 1, 0)
        if a.groups is None:
            if a.group_size is None and a.group_offsets is None:
                self.groups = self.rollouts
            return
        if not dense:
            self._put("groups", a.groups, "int64", "group_index")
            return
        index, self.group_keys = group_index(a.groups)
        if not self.group_keys:
            # A number of groups of 0 means "not given" to the library.
            self.groups, self.struct.group_size = 0, 1
            return
        if self._like is None and arrays.is_array(a.groups):
            self._like = a.groups
        like = self._like
        self._put("groups", index, "int64", "group_index", derived=True)
        self._like = like
        self.groups = self.struct.num_groups = len(self.group_keys)

    def _statistics(self, name: str, value: Any) -> None:
        """`[G, 16]`, as `Shaped.stats` holds them, or `{stream: a number or [G]}` with the stream table's names."""
        if value is None:
            return
        derived = isinstance(value, Mapping)
        if isinstance(value, Mapping):
            table = np.zeros((max(self.groups, 1), _ffi.MAX_STREAMS))
            for stream, numbers in value.items():
                known = [*STREAM_NAMES, *self.stream_names]
                if stream not in known:
                    refuse(ERR_VALUE, f"passrl: {name} has the stream {stream!r}; it is one of {', '.join(known)}")
                row = STREAM_NAMES.index(stream) if stream in STREAM_NAMES else _ffi.STREAM_EXTRA + self.stream_names.index(stream)
                try:
                    column = np.asarray(arrays.host(numbers, f"{name}[{stream!r}]") if arrays.is_array(numbers) else numbers, dtype=np.float64)
                except (TypeError, ValueError) as fault:
                    if isinstance(fault, Error):
                        raise
                    refuse(ERR_VALUE, f"passrl: {name}[{stream!r}] is {numbers!r}; it is a number or [{len(table)}], one a group")
                if column.shape not in ((), (len(table),)):
                    refuse(ERR_SHAPE, f"passrl: {name}[{stream!r}] has shape {list(column.shape)}; it is a number or [{len(table)}], one a group")
                table[:, row] = column
            value = table[: self.groups]
        self._put(name, value, "float64", derived=derived)

    def _stats_in(self, value: Any) -> None:
        memory = np.frombuffer(value, dtype=np.uint8) if isinstance(value, (bytes, bytearray, memoryview)) else arrays.host(value, "stats_in")
        self.keep.append(memory)
        self.struct.stats_in = arrays.address(memory)
        self.struct.stats_in_bytes = memory.nbytes

    def index(self) -> NDArray[np.int64]:
        """Group of each rollout, `[R]` (host)."""
        if self.struct.group_size > 0:
            by_size: NDArray[np.int64] = np.arange(self.rollouts, dtype=np.int64) // int(self.struct.group_size)
            return by_size
        for pointer, per_group in ((self.struct.group_index, False), (self.struct.group_offsets, True)):
            if pointer:
                source = next(array.source for array, kept in self.keep_views() if ctypes.addressof(array.view) == ctypes.addressof(pointer.contents))
                found: NDArray[np.int64] = np.asarray(arrays.host(source, "groups"), dtype=np.int64)
                if per_group:
                    # Offsets that do not fit are the library's to refuse: they may ask for any amount of memory here.
                    counts = np.diff(found)
                    fit = counts.min(initial=0) >= 0 and counts.sum() == self.rollouts
                    found = np.repeat(np.arange(len(counts), dtype=np.int64), counts) if fit else counts[:0]
                return found
        return np.arange(self.rollouts, dtype=np.int64)

    def keep_views(self) -> list[tuple[Array, Any]]:
        """Views in use, with their pointers."""
        return [pair for pair in self.keep if isinstance(pair, tuple)]

    def follow(self, stream: int | None) -> int | None:
        """The run's stream on a device, and the maker's: the one told, else the framework's current one, else the first that a producer names; it waits for theirs."""
        if self.maker.on_cpu:
            return stream
        stream = self.maker.current_stream() if stream is None else stream
        producers = [array.stream for array, _ in self.keep_views() if array.stream is not None]
        if stream is None and producers:
            stream = producers[0]
        for producer in dict.fromkeys(producers):
            cuda.follow(stream, producer, self.device[1])
        self.maker.stream = stream
        return stream

    def largest_group(self, config: Any) -> tuple[int, int]:
        """Most rollouts, and most elements of the process set, of a group: what exact sums are limited by."""
        index = self.index()
        if self.rollouts == 0 or len(index) != self.rollouts or index.min() < 0:
            return max(self.rollouts, 1), max(self.slots, 1)
        # Of few rollouts a group's number may still be any (of a whole batch over ranks); counts are made by number.
        index = index if index.max() < 8 * self.rollouts else np.unique(index, return_inverse=True)[1]
        rollouts = int(np.bincount(index).max())
        by_steps = self.step_counts is not None and config.kind == "prm" and config.pool == "steps"
        elements = self.step_counts if by_steps else self.extents
        assert elements is not None
        most = int(np.bincount(index, weights=np.maximum(elements, 0).astype(np.float64)).max())
        return rollouts, max(most + (2 * rollouts if config.fusion == "pooled" else 0), 1)
