"""What a run gives back."""
from __future__ import annotations

import ctypes
import functools
import importlib
import math
from collections.abc import Callable, Iterator, Mapping
from enum import IntFlag
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from . import _ffi
from .arrays import Maker, aligned, numpy_dtype
from .config import STREAM_NAMES


class GroupFlag(IntFlag):
    """Bits of `Shaped.group_flags` (`PASSRL_GROUP_*`)."""

    EMPTY = 1
    SINGLE = 2
    ZERO_VARIANCE = 4
    NONFINITE = 8
    BAD_STEPS = 16
    ALL_VIOLATING = 32
    BAD = 64
    MISSING = 128
    TOO_LARGE = 256


class RolloutFlag(IntFlag):
    """Bits of `Shaped.rollout_flags` (`PASSRL_ROLLOUT_*`)."""

    NO_SCOPE = 1
    ABSENT = 2
    NONFINITE = 4
    MISSING = 8
    BAD_STEPS = 16
    FORMAT_VIOLATING = 32
    IN_BAD_GROUP = 64
    NO_STREAM = 128


class Finding(IntFlag):
    """Bits of `Report.findings` (`PASSRL_FOUND_*`)."""

    NONFINITE = 1
    MISSING = 2
    BAD_STEPS = 4
    SINGLETON = 8
    TOO_LARGE = 16
    BAD_OFFSETS = 32
    COLLECTIVE = 64


class Report:
    """Counts and sums of a run, never means: reports of micro-batches and ranks add (`a + b`).

    Attributes are the header's: findings, first_finding, first_rollout, first_group, first_stream, rollouts, tokens, chunks,
    degenerate_groups, bad_groups, violating_groups, missing_values, nonfinite_values, low_logps, clipped_tokens, overflowed_tokens,
    bad_steps, lost_deviations (int), sum_advantages, sum_squares (float).
    """

    __slots__ = ("_struct",)
    FIELDS = tuple(str(field[0]) for field in _ffi.Report._fields_ if field[0] not in ("struct_size", "reserved0"))

    def __init__(self, struct: Any = None) -> None:
        self._struct = _ffi.made(_ffi.Report, "report") if struct is None else struct

    def __getattr__(self, field: str) -> Any:
        if field not in Report.FIELDS:
            raise AttributeError(field)
        value = getattr(self._struct, field)
        return Finding(value) if field in ("findings", "first_finding") else value

    @property
    def status(self) -> int:
        """0, or the positive status of the first kind of finding."""
        return _ffi.call("report_status", ctypes.byref(self._struct))

    @property
    def message(self) -> str:
        """The library's sentence about the first finding; "" without one."""
        return _ffi.last_error() if self.status else ""

    def copy(self) -> Report:
        """A report of its own memory."""
        struct = _ffi.Report()
        ctypes.memmove(ctypes.byref(struct), ctypes.byref(self._struct), ctypes.sizeof(struct))
        return Report(struct)

    def __add__(self, other: Report) -> Report:
        both = self.copy()
        _ffi.call("report_merge", ctypes.byref(both._struct), ctypes.byref(other._struct))
        return both

    def as_dict(self) -> dict[str, int | float]:
        """All fields by name."""
        return {field: getattr(self._struct, field) for field in Report.FIELDS}

    def __reduce__(self) -> tuple[Any, tuple[bytes]]:
        return _report, (bytes(self._struct),)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Report) and self.as_dict() == other.as_dict()

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return "Report(" + ", ".join(f"{name}={value}" for name, value in self.as_dict().items() if value) + ")"


def _report(raw: bytes) -> Report:
    return Report(_ffi.Report.from_buffer_copy(raw))


_REPORT_BYTES = -(-ctypes.sizeof(_ffi.Report) // 64) * 64


@functools.lru_cache(64)
def _layout(rollouts: int, groups: int, wanted: frozenset[str]) -> tuple[dict[str, tuple[int, tuple[int, ...], int]], int]:
    table = (groups, _ffi.MAX_STREAMS)
    parts: list[tuple[str, tuple[int, ...], int]] = []
    if "path_scores" in wanted:
        parts.append(("path_scores", (rollouts,), _ffi.F64))
    if wanted & {"num_chunks", "chunks"}:
        parts.append(("num_chunks", (rollouts,), _ffi.I64))
    if "stats" in wanted:
        parts.append(("stats_count", table, _ffi.I64))
        parts += [(name, table, _ffi.F64) for name in ("stats_mean", "stats_std", "stats_absmax")]
    if "flags" in wanted:
        parts += [("group_flags", table, _ffi.I32), ("rollout_flags", (rollouts,), _ffi.I32)]
    places, end = {}, _REPORT_BYTES
    for name, shape, dtype in parts:
        places[name] = end, shape, dtype
        end += -(-math.prod(shape) * numpy_dtype(dtype).itemsize // 64) * 64
    return places, end


class Small:
    """The outputs that have a value a rollout or a group, and the report: one block of memory (on the host anything with a writable buffer), of which arrays
    are views; on a device the block is there."""

    __slots__ = ("memory", "places")

    def __init__(self, memory: Any, places: dict[str, tuple[int, tuple[int, ...], int]]) -> None:
        self.memory, self.places = memory, places

    @classmethod
    def new(cls, rollouts: int, groups: int, wanted: frozenset[str], maker: Maker) -> Small:
        """Room for what is wanted; the report of the host is filled with its size."""
        places, size = _layout(rollouts, groups, wanted)
        made = cls(maker.block(size), places)
        if maker.on_cpu:
            _ffi.call("report_init", ctypes.byref(made.report_struct()), ctypes.sizeof(_ffi.Report))
        return made

    def copy(self) -> Small:
        """The same in memory of its own."""
        return Small(self.memory.copy(), self.places)

    def report_struct(self) -> Any:
        return _ffi.Report.from_buffer(self.memory)

    def get(self, name: str, maker: Maker) -> Any:
        """An output's array, where the block is; None where it was not wanted."""
        place = self.places.get(name)
        return None if place is None else maker.part(self.memory, *place)


def _size(block: Any) -> int:
    return int(block.shape[0])


def column_names(streams: list[str]) -> list[str]:
    """Names of the 16 rows of the stream table, further streams by the caller's names."""
    names = list(STREAM_NAMES)
    names[_ffi.STREAM_EXTRA : _ffi.STREAM_EXTRA + len(streams)] = streams
    return names


def csr(counts: NDArray[np.int64], token_offsets: NDArray[np.int64], *columns: NDArray[Any]) -> list[NDArray[Any]]:
    """Offsets `[R+1]`, then from each token-shaped column the first `counts[i]` slots of every rollout, one after the other `[C]`."""
    offsets = np.zeros(len(counts) + 1, dtype=np.int64)
    np.cumsum(counts, out=offsets[1:])
    slots = np.repeat(token_offsets - offsets[:-1], counts) + np.arange(offsets[-1])
    return [offsets, *(column.reshape(-1)[slots] for column in columns)]


class StreamStats(NamedTuple):
    """Statistics of one stream, `[G]` each: elements (i64), mean, standard deviation, max|x| (f64)."""

    count: Any
    mean: Any
    std: Any
    absmax: Any


class Stats(Mapping[str, StreamStats]):
    """Statistics by stream: process_0 ..., outcome, format and the caller's own names. Iterates over the streams that were given."""

    def __init__(self, small: Small, names: Mapping[str, int], maker: Maker) -> None:
        self._small, self._names, self._maker = small, names, maker

    def _table(self, part: str) -> Any:
        return self._small.get("stats_" + part, self._maker)

    def __getitem__(self, name: str) -> StreamStats:
        column, maker = self._names[name], self._maker
        return StreamStats(*(maker.native(maker.column(self._table(part), column)) for part in StreamStats._fields))

    def __iter__(self) -> Iterator[str]:
        given: NDArray[np.bool_] = np.any(self._maker.fetch(self._table("count")) != 0, axis=0)
        return (name for name, column in self._names.items() if given[column])

    def __len__(self) -> int:
        return sum(1 for _ in self)


# A function and its arguments, called when a result is asked for what they give.
Later = tuple[Any, ...]


def now(later: Later) -> Any:
    """What a function that was kept with its arguments gives."""
    function, *arguments = later
    return function(*arguments)


class Like(NamedTuple):
    """What the results of like calls share.

    given: names of outputs that are the caller's own memory. places: of the small outputs in their block. streams: names of the further streams.
    """

    given: frozenset[str]
    places: dict[str, tuple[int, tuple[int, ...], int]]
    streams: list[str]
    maker: Maker


class Shaped:
    """Result of a run. Arrays are in the framework of the input, on its device.

    advantages: the input's layout, `[N]` or `[R, T]`. returns: likewise, or None. path_scores `[R]` f64, num_chunks `[R]` i64.
    status: 0, or a positive `PASSRL_FINDING_*`: the run is done, rollouts of bad groups have advantage 0; `findings` and `message` say
    what and which first. Results of a bound call share memory that the next call overwrites; those of `shape` are the caller's.

    On a CUDA device the arrays are there and the run is on its stream, perhaps not done: `status`, `report`, `findings`, `message`, `stats` when iterated
    over, the three `chunk_` arrays and `to_host` wait for that stream, and copy what they read. The others do not.
    """

    __slots__ = ("_status", "_native", "_memory", "_chunk_memory", "_offsets", "_keys", "_like", "_report", "_csr", "_bound", "__weakref__")

    def __init__(self, status: int, native: dict[str, Any], memory: Any, chunks: Any, offsets: Later, keys: Later | None, like: Like, bound: Any = None) -> None:
        self._status, self._native, self._memory, self._chunk_memory, self._offsets, self._keys, self._like = status, native, memory, chunks, offsets, keys, like
        self._report: Report | None = None
        self._csr: tuple[Any, Any, Any] | None = None
        # The call that made this, for `passrl.shape` to learn from; nobody else has use of it.
        self._bound = bound

    @property
    def _maker(self) -> Maker:
        return self._like.maker

    @property
    def _outputs(self) -> Small:
        return Small(self._memory, self._like.places)

    @property
    def status(self) -> int:
        """0, or a positive `PASSRL_FINDING_*`. On a device it is read from the report, after the run's stream is done."""
        return self._status if self._maker.on_cpu else self.report.status

    @property
    def report(self) -> Report:
        """Counts and sums of the run. On a device: a copy, after the run's stream is done."""
        if self._report is None:
            if self._maker.on_cpu:
                self._report = Report(self._outputs.report_struct())
            else:
                block = self._maker.part(self._outputs.memory, 0, (ctypes.sizeof(_ffi.Report),), _ffi.U8)
                self._report = Report(_ffi.Report.from_buffer_copy(self._maker.fetch(block).tobytes()))
        return self._report

    def to_host(self) -> Shaped:
        """The same in NumPy arrays, copied after the run's stream is done; of a run on the CPU, itself."""
        maker = self._maker
        if maker.on_cpu:
            return self
        small = Small(aligned(_size(self._outputs.memory)), self._outputs.places)
        small.memory[:] = maker.fetch(self._outputs.memory)
        native = {name: maker.fetch(found) for name, found in self._native.items()}
        chunks = None if self._chunk_memory is None else maker.fetch(self._chunk_memory)
        like = self._like._replace(given=frozenset(), maker=Maker(None))
        shaped = Shaped(0, native, small.memory, chunks, (np.asarray, now(self._offsets)), self._keys, like)
        shaped._status = shaped.report.status
        return shaped

    def __reduce__(self) -> tuple[Any, ...]:
        found, like = self.to_host(), self._like
        return _shaped, (found._status, found._native, bytearray(found._memory), found._chunk_memory, now(found._offsets), found.group_keys,
                         like.places, like.streams, found._maker.framework)

    @property
    def group_keys(self) -> list[Any] | None:
        """Keys of the groups in order of their numbers; None where the caller's groups were numbers already."""
        return None if self._keys is None else now(self._keys)

    def _get(self, name: str) -> Any:
        found = self._native.get(name)
        return found if found is None or name in self._like.given else self._maker.wrap(found)

    @property
    def advantages(self) -> Any:
        """A, `[N]` or `[R, T]`: 0 outside the scope."""
        return self._get("advantages")

    @property
    def returns(self) -> Any:
        """Return-to-go before Divide-Length (gae: A + V), token-shaped; None where not asked for."""
        return self._get("returns")

    @property
    def path_scores(self) -> Any:
        """S, `[R]` f64: the divided return of the first chunk."""
        return self._small("path_scores")

    @property
    def num_chunks(self) -> Any:
        """K, `[R]` i64."""
        return self._small("num_chunks")

    @property
    def group_flags(self) -> Any:
        """`GroupFlag` bits, `[G, 16]` i32: a column a row of the stream table (`stream_names`)."""
        return self._small("group_flags")

    @property
    def rollout_flags(self) -> Any:
        """`RolloutFlag` bits, `[R]` i32."""
        return self._small("rollout_flags")

    def _small(self, name: str) -> Any:
        found = self._outputs.get(name, self._maker)
        return None if found is None else self._maker.native(found)

    @property
    def stream_names(self) -> list[str]:
        """Names of the 16 columns of `group_flags`; further streams by the caller's names."""
        return column_names(self._like.streams)

    @property
    def stats(self) -> Stats | None:
        """Statistics by stream name."""
        if "stats_count" not in self._like.places:
            return None
        return Stats(self._outputs, {name: column for column, name in enumerate(self.stream_names)}, self._maker)

    def _chunks(self) -> tuple[Any, Any, Any]:
        if self._csr is None:
            maker = self._maker
            counts = self._outputs.get("num_chunks", maker)
            if self._chunk_memory is None or counts is None:
                return None, None, None
            memory = maker.fetch(self._chunk_memory)
            offsets, ends, values = (maker.place(part) for part in csr(maker.fetch(counts), now(self._offsets), memory[0], memory[1].view(np.float32)))
            native = maker.native
            self._csr = native(offsets), native(ends), native(values)
        return self._csr

    @property
    def chunk_offsets(self) -> Any:
        """`[R+1]` i64: chunks of rollout i are `chunk_offsets[i] .. chunk_offsets[i+1]`."""
        return self._chunks()[0]

    @property
    def chunk_ends(self) -> Any:
        """`[C]` i32: exclusive end of each chunk in tokens of its rollout."""
        return self._chunks()[1]

    @property
    def chunk_values(self) -> Any:
        """`[C]` f32: value a of each chunk."""
        return self._chunks()[2]

    @property
    def findings(self) -> Finding:
        """What was found in the data; `Finding(0)` for nothing."""
        return Finding(self.report.findings)

    @property
    def message(self) -> str:
        """The library's sentence about the first finding; "" without one."""
        return self.report.message

    def __repr__(self) -> str:
        told = f"status={self.status}" + (f" ({self.message})" if self.status else "")
        return f"Shaped(rollouts={self.report.rollouts}, tokens={self.report.tokens}, chunks={self.report.chunks}, {told})"


def _shaped(status: int, native: dict[str, Any], memory: bytearray, chunks: Any, offsets: NDArray[np.int64], keys: list[Any] | None,
            places: dict[str, tuple[int, tuple[int, ...], int]], streams: list[str], framework: str) -> Shaped:
    """A result that was pickled."""
    if framework == "jax":
        importlib.import_module("jax")
    maker = Maker(native["advantages"])
    maker.framework = framework
    return Shaped(status, native, memory, chunks, (np.asarray, offsets), None if keys is None else (list, keys), Like(frozenset(), places, streams, maker))
