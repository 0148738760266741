"""Plans and bound calls: one ctypes call a run."""
from __future__ import annotations

import contextlib
import ctypes
import importlib.util
import math
import os
import weakref
from collections.abc import Iterator
from ctypes import byref
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from . import _ffi, arrays, ready
from .arrays import Array
from .batch import ARGUMENTS, Arguments, Batch
from .collective import Collective
from .config import Config
from .errors import ERR_NOT_YET, ERR_UNKNOWN_NAME, ERR_VALUE, Error, error, integer, refuse
from .results import Like, Shaped, Small

WANTED = frozenset({"path_scores", "num_chunks", "chunks", "stats", "flags"})
_BACKENDS = {"cpu": _ffi.CPU, "cuda": _ffi.CUDA}
_LIMITS = ("rollouts", "groups", "tokens", "rollout_tokens", "steps", "group_rollouts", "group_elements", "pieces", "rollout_pieces", "batch_rollouts")

# Workspaces kept by a plan for later calls.
_MOST_FREE = os.cpu_count() or 1

_contexts: dict[tuple[int, int, int], Context] = {}


def _finally(owner: Any, end: Any, *arguments: Any) -> None:
    # Not at the interpreter's exit: daemon threads may be inside the library then.
    weakref.finalize(owner, end, *arguments).atexit = False


def _destroy(function: Any, handle: ctypes.c_void_p) -> None:
    function(handle)
    # In a cycle of garbage a `__del__` may use it after this: the library refuses NULL.
    handle.value = None


class Context:
    """Backend, device and threads; shared by plans, destroyed after the last of them."""

    def __init__(self, backend: int, device: int, threads: int) -> None:
        options = _ffi.made(_ffi.ContextOptions, "context_options")
        options.backend, options.device, options.threads = backend, device, threads
        if backend == _ffi.CUDA:
            options.nvrtc, options.cache_dir = _nvrtc(), _cache()
        handle = ctypes.c_void_p()
        _ffi.call("context_create", byref(options), byref(handle))
        self.handle = handle
        _finally(self, _destroy, _ffi.function("context_destroy"), handle)

    def __repr__(self) -> str:
        return _ffi.described("context_describe", self.handle)


def _nvrtc() -> bytes | None:
    """Path of NVRTC: PASSRL_NVRTC, else that of the wheel that torch brings along, which is not on the loader's path; None: the library looks itself."""
    told = os.environ.get("PASSRL_NVRTC")
    if told:
        return told.encode()
    found = importlib.util.find_spec("nvidia")
    for folder in () if found is None else found.submodule_search_locations or ():
        for library in sorted(Path(folder).glob("cu*/lib/libnvrtc.so.1[23]"), reverse=True):
            return str(library).encode()
    return None


def _cache() -> bytes | None:
    """Folder of compiled kernels: PASSRL_CACHE_DIR ("": none); None: the library's own choice."""
    told = os.environ.get("PASSRL_CACHE_DIR")
    return None if told is None else told.encode()


def placed(backend: str | None, found: int | None) -> tuple[int, int]:
    """Where a call runs: type and number of the device. found: the CUDA device on which arrays are."""
    if backend is None:
        return (_ffi.CPU, 0) if found is None else (_ffi.CUDA, found)
    if backend not in _BACKENDS:
        refuse(ERR_VALUE, f'passrl: backend is {backend!r}; it is "cpu", "cuda" or None (where the arrays are)')
    return (_BACKENDS[backend], (found or 0) if backend == "cuda" else 0)


def context(device: tuple[int, int], threads: int, told: bool = True) -> Context:
    """The process's context of a device and thread count (0: the library's choice). told: the caller named the backend."""
    key = (*device, integer(threads, "threads", 32))
    # No lock: a process forked while another thread holds one never gets it. Of two made at once one is dropped.
    found = _contexts.get(key)
    if found is not None:
        return found
    try:
        return _contexts.setdefault(key, Context(*key))
    except Error as fault:
        if not told and device[0] == _ffi.CUDA:
            raise error(fault.status, f"{fault}; the arrays are on CUDA device {device[1]}: copy them to the host to use the CPU") from None
        raise


def stream_pointer(stream: Any) -> int | None:
    """Address of a CUDA stream: an int, torch/cupy streams, or `__cuda_stream__`; None: none."""
    if stream is None or isinstance(stream, int):
        return stream
    for name in ("cuda_stream", "ptr"):
        if hasattr(stream, name):
            return int(getattr(stream, name))
    if hasattr(stream, "__cuda_stream__"):
        return int(stream.__cuda_stream__()[1])
    refuse(ERR_VALUE, f"passrl: stream is a {type(stream).__name__}; it must be an address, a torch or cupy stream, or None")


def arguments_of(given: dict[str, Any]) -> Arguments:
    """Batch arguments by keyword; an unknown one is refused with the nearest."""
    for name in given:
        if name not in ARGUMENTS:
            import difflib

            near = ", ".join(difflib.get_close_matches(name, ARGUMENTS, n=3, cutoff=0.0))
            refuse(ERR_UNKNOWN_NAME, f'passrl: argument "{name}" is unknown; nearest: {near}. Fields of the configuration belong to the plan')
    arguments = Arguments(**given)
    for name, _, weight in arguments.extra():
        if weight is not None:
            refuse(ERR_VALUE, f"passrl: streams[{name!r}] has a weight; a plan's weights are its configuration's (extra_0.weight, ...)")
    return arguments


class Plan:
    """A configuration within limits: validated once, run many times, from many threads at once.

    config: a `Config` or a preset's name; further keywords are its fields. rollouts, tokens (packed N, padded R*T): the most a call is
    given. groups (default: rollouts), rollout_tokens (tokens), steps (tokens), group_rollouts (rollouts), group_elements (tokens): likewise.
    pieces: the plan takes rollouts in pieces (`pieces=passrl.Pieces(...)` of a batch): most pieces of a call; rollout_pieces: of a rollout; batch_rollouts: rollouts of the
    whole batch, over all calls and ranks.
    backend, threads: as for `passrl.shape`; device: the CUDA device's number. Batches say their groups by dense indices (`groups`, see `passrl.group_index`), `group_size`
    or `group_offsets`.

    comm: a `Collective`: the plan is one rank's, every rank makes it with the same configuration and limits and runs it as often; each run is given
    the rank's share (`groups`: dense indices of the whole batch). One run at a time.
    """

    def __init__(
        self, config: Config | str = "pass", *, rollouts: int, tokens: int, groups: int = 0, rollout_tokens: int = 0, steps: int = 0,
        group_rollouts: int = 0, group_elements: int = 0, pieces: int = 0, rollout_pieces: int = 0, batch_rollouts: int = 0, backend: str | None = None,
        threads: int = 0, device: int = 0, comm: Collective | None = None, _told: bool = True, **fields: Any,
    ) -> None:
        if comm is not None and not isinstance(comm, Collective):
            refuse(ERR_VALUE, f"passrl: comm is a {type(comm).__name__}; it must be a passrl.Collective or None")
        self._comm = comm
        self._handle = ctypes.c_void_p()
        try:
            limits = self._configured(config, fields, {"rollouts": rollouts, "groups": groups or rollouts, "tokens": tokens,
                                      "rollout_tokens": rollout_tokens, "steps": steps, "group_rollouts": group_rollouts, "group_elements": group_elements,
                                      "pieces": pieces, "rollout_pieces": rollout_pieces, "batch_rollouts": batch_rollouts})
            self.device = placed(backend, integer(device, "device", 32) if backend == "cuda" else None)
            self._context = context(self.device, threads, _told)
            self._threads = threads
            if comm is not None and self.device[0] != _ffi.CPU:
                refuse(ERR_NOT_YET, "passrl: a Collective of this package reduces host memory, and the plan is on a CUDA device; make the plan on the CPU, or give a "
                                    "passrl_collective of device memory through the C ABI (docs/cuda.md)")
        except BaseException:
            if comm is not None:
                # The other ranks are told of the refusal: they are at the same call.
                _ffi.function("plan_create")(None, None, None, byref(comm.struct), byref(self._handle))
            raise
        over = None if comm is None else byref(comm.struct)
        status = _ffi.function("plan_create")(self._context.handle, byref(self.config._raw), byref(limits), over, byref(self._handle))
        if status < 0:
            self.fail(status)
        _finally(self, _destroy, _ffi.function("plan_destroy"), self._handle)
        needed = ctypes.c_size_t()
        _ffi.call("plan_workspace_size", self._handle, byref(needed))
        self.workspace_bytes = needed.value
        # Workspaces; on a device each with its stream, in whose order it may be used again.
        self._free: list[Any] = []
        self._free_on: dict[int | None, list[Any]] = {}
        self._forms: ready.Forms = ready.Forms()

    def _configured(self, config: Config | str, fields: dict[str, Any], limits: dict[str, int]) -> Any:
        self.config, self.limits = Config(config, **fields), limits
        struct = _ffi.made(_ffi.Limits, "limits")
        for name, value in limits.items():
            setattr(struct, name, integer(value, name))
        return struct

    @property
    def handle(self) -> ctypes.c_void_p:
        """The library's handle."""
        return self._handle

    def fail(self, status: int) -> NoReturn:
        """Raises the library's last refusal; what a collective's callback raised is its cause."""
        raise error(status, _ffi.last_error()) from (None if self._comm is None else self._comm.cause())

    def workspace(self, maker: arrays.Maker | None = None) -> Any:
        """A workspace for one call at a time; `release` it. maker: of the run, on a device."""
        try:
            if maker is None or maker.on_cpu:
                return self._free.pop()
            return self._free_on[maker.stream].pop()
        except (IndexError, KeyError):
            size = max(self.workspace_bytes, 1)
            return arrays.aligned(size) if maker is None else maker.block(size)

    def release(self, workspace: Any, stream: int | None = None) -> None:
        """Gives a workspace back for later calls (on a device: on its stream)."""
        free = self._free if isinstance(workspace, np.ndarray) else self._free_on.setdefault(stream, [])
        if len(free) < _MOST_FREE:
            free.append(workspace)

    def bind(self, *, out: Any = None, dtype: Any = None, returns: Any = None, want: Any = None, stream: Any = None, **batch: Any) -> Call:
        """A call with its memory: `call()` runs it again on whatever the arrays then hold. One thread at a time.

        batch: arguments of `passrl.shape` (groups: dense indices). out, dtype, returns, stream: as there. want: what is computed beside the
        advantages, any of "path_scores", "num_chunks", "chunks", "stats", "flags" (default: all).
        """
        arguments = arguments_of(batch)
        batch_of = Batch(arguments, out=out, dense=False, groups=self.limits["groups"], device=self.device, tokens=self.limits["tokens"])
        return Call(self, batch_of, dtype, returns, want, stream)

    def run(self, **batch: Any) -> Shaped:
        """Shapes one batch; arguments as `bind`. Of a plan with a `comm` every rank calls it; what is refused here the other ranks are told."""
        if self._comm is not None:
            with self.telling():
                call = self.bind(**batch)
            return call.once()
        known = ready.known("", batch)
        shaped = self._forms.run(known, self)
        if shaped is not None:
            return shaped
        call = self.bind(**batch)
        shaped = call.once()
        self._forms.learn(known, batch, call, None)
        return shaped

    @contextlib.contextmanager
    def telling(self) -> Iterator[None]:
        """The other ranks, which are at the same run, are told of a refusal in the block."""
        try:
            yield
        except BaseException:
            if self._comm is not None:
                _ffi.function("plan_run")(self._handle, None, None, None, 0, None)
                self._comm.cause()
            raise

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        # Pickled, copied: a plan of its own, of the same configuration and limits, in a context of the process that reads it.
        if self._comm is not None:
            refuse(ERR_VALUE, "passrl: a plan with a comm is one rank's and cannot be pickled or copied; each rank makes its own with passrl.Plan(..., comm=...)")
        kind, number = self.device
        return _remade, (self.config, self.limits, "cuda" if kind == _ffi.CUDA else "cpu", number, self._threads)

    def __repr__(self) -> str:
        return _ffi.described("plan_describe", self._handle)


def _remade(config: Config, limits: dict[str, Any], backend: str, device: int, threads: int) -> Plan:
    return Plan(config, **limits, backend=backend, device=device, threads=threads)


class Sinks:
    """Outputs of a run: the ABI's struct, its views by name, and the memory behind them."""

    def __init__(self, batch: Batch, groups: int, config: Config, dtype: Any, returns: Any, want: Any) -> None:
        self.struct = _ffi.made(_ffi.Outputs, "outputs")
        self.views: dict[str, Any] = {}
        self.keep: list[Any] = []
        self.native: dict[str, Any] = {}
        # Lists of chunks have no place in pieces.
        wanted = WANTED - ({"chunks"} if batch.in_pieces else set()) if want is None else frozenset([want] if isinstance(want, str) else want)
        if wanted - WANTED:
            refuse(ERR_VALUE, f"passrl: want has {', '.join(sorted(wanted - WANTED))}; it knows {', '.join(sorted(WANTED))}")
        maker, tokens = batch.maker, batch.token_shape
        # The caller's own memory, handed back as it is.
        given = set()
        if batch.out is not None:
            if dtype is not None and arrays.dtype_number(dtype) != batch.out.dtype:
                refuse(ERR_VALUE, f"passrl: dtype is {dtype} and out has another; leave dtype out")
            self._put("advantages", batch.out)
            given.add("advantages")
        else:
            self._put("advantages", arrays.array(maker.empty(tokens, _ffi.F32 if dtype is None else arrays.dtype_number(dtype)), "advantages"))
        if returns is None:
            returns = config.credit == "gae"
        if returns is True:
            self._put("returns", arrays.array(maker.empty(tokens, self.views["advantages"].dtype), "returns"))
        elif returns is not False:
            self._put("returns", arrays.output(returns, "returns"))
            given.add("returns")
        self.given = frozenset(given)
        self.chunks: Any = None
        if "chunks" in wanted:
            # Ends and values in one piece.
            flat = np.empty((2 * tokens[0], *tokens[1:]), dtype=np.int32) if maker.on_cpu else maker.empty((2 * tokens[0], *tokens[1:]), _ffi.I32)
            begin = arrays.address(flat)
            self.chunks = flat.reshape((2, *tokens))
            self._point("chunk_ends", arrays.line(begin, tokens, _ffi.I32, maker.device))
            self._point("chunk_values", arrays.line(begin + 4 * math.prod(tokens), tokens, _ffi.F32, maker.device))
        self.small = Small.new(batch.rollouts, groups, wanted, maker)
        begin = arrays.address(self.small.memory)
        for name, (offset, shape, number) in self.small.places.items():
            self._point(name, arrays.line(begin + offset, shape, number, maker.device))
        # In device memory the library wants its address alone.
        self.struct.report = ctypes.cast(ctypes.c_void_p(begin), ctypes.POINTER(_ffi.Report))

    def _point(self, name: str, view: Any) -> None:
        self.views[name] = view
        setattr(self.struct, name, ctypes.pointer(view))

    def _put(self, name: str, array: Array) -> None:
        self.keep.append(array)
        self.native[name] = array.source
        self._point(name, array.view)


def _give_back(plan: Plan, memory: Any, handle: ctypes.c_void_p, maker: arrays.Maker) -> None:
    # As `_destroy`: whoever gets the memory next has it alone; on a device, on the stream that used it last.
    handle.value = None
    plan.release(memory, maker.stream)


class Call:
    """A plan bound to a batch and outputs: calling it is one call into the library, without any conversion."""

    __slots__ = ("plan", "batch", "sinks", "shaped", "_function", "_arguments", "_workspace", "_stream", "_current", "_on_device", "_buffer", "_tensors", "__weakref__")

    def __init__(self, plan: Plan, batch: Batch, dtype: Any, returns: Any, want: Any, stream: Any, buffer: Any = None) -> None:
        self.plan, self.batch = plan, batch
        groups = batch.groups or (plan.limits["groups"] if batch.struct.group_index else 0)
        maker, pointer = batch.maker, stream_pointer(stream)
        self._on_device = not maker.on_cpu
        # On a device without a stream told: the framework's current one, at each call.
        self._current = maker if pointer is None and not maker.on_cpu and maker.framework != "numpy" else None
        pointer = batch.follow(pointer)
        self.sinks = Sinks(batch, groups, plan.config, dtype, returns, want)
        # Held here too: at the interpreter's exit the finalizer's own reference goes while a daemon thread may be in the call.
        self._workspace = plan.workspace(None if maker.on_cpu else maker)
        # ctypes objects, made once: a call converts nothing but the plan's handle, which is this call's own to forget.
        handle = ctypes.c_void_p(plan.handle.value)
        _finally(self, _give_back, plan, self._workspace, handle, maker)
        self._stream = ctypes.c_void_p(pointer)
        tail = (_ffi.word(arrays.address(self._workspace)), _ffi.word(plan.workspace_bytes),
                None if pointer is None and self._current is None else self._stream)
        structs = byref(batch.struct), byref(self.sinks.struct)
        if buffer is None:
            self._function = _ffi.bare("plan_run")
            self._arguments: tuple[Any, ...] = (handle, *structs, *tail)
        else:
            self._function = _ffi.bare("plan_apply")
            kept = ctypes.c_void_p(arrays.address(buffer)), _ffi.word(buffer.nbytes)
            self._arguments = (handle, structs[0], *kept, structs[1], *tail)
        self._buffer = buffer
        self._tensors = arrays.tensors(self.sinks.native[name] for name in self.sinks.given)
        # Neither holds the batch, whose arrays a kept result would keep alive.
        offsets, keys, sinks = batch.offsets, batch.group_keys, self.sinks
        self.shaped = Shaped(0, sinks.native, sinks.small.memory, sinks.chunks, (offsets,), None if keys is None else (list, keys),
                             Like(sinks.given, sinks.small.places, batch.stream_names, batch.maker))

    def once(self) -> Shaped:
        """Runs a call that is not kept: nothing overwrites its result."""
        self.batch.maker.once = True
        return self()

    def __call__(self) -> Shaped:
        """Runs; the result's memory is overwritten by the next call. Errors: `passrl.Error` with the library's sentence."""
        shaped = self.shaped
        if self._on_device:
            self._forget()
        status = self._function(*self._arguments)
        if status < 0:
            self.plan.fail(status)
        if self._tensors:
            arrays.written(self._tensors)
        shaped._status = status
        shaped._csr = None
        return shaped

    def _forget(self) -> None:
        """Before a run on a device: the stream is the current one, and what was read of the run before is freed, which waits for the device."""
        self.shaped._csr = self.shaped._report = None
        if self._current is not None:
            self._stream.value = self._current.stream = self._current.current_stream()
