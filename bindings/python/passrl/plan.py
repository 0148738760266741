"""Plans and bound calls: one ctypes call a run."""
from __future__ import annotations

import contextlib
import ctypes
import os
import weakref
from collections.abc import Iterator
from ctypes import byref
from typing import Any, NoReturn

from . import _ffi, arrays
from .arrays import Array, Maker
from .batch import ARGUMENTS, Arguments, Batch
from .collective import Collective
from .config import Config
from .errors import ERR_NOT_YET, ERR_UNKNOWN_NAME, ERR_VALUE, Error, error, refuse
from .results import Report, Shaped

WANTED = frozenset({"path_scores", "num_chunks", "chunks", "stats", "flags"})
_BACKENDS = {"cpu": _ffi.CPU, "cuda": _ffi.CUDA}
_LIMITS = ("rollouts", "groups", "tokens", "rollout_tokens", "steps", "group_rollouts", "group_elements", "pieces")

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
        handle = ctypes.c_void_p()
        _ffi.call("context_create", byref(options), byref(handle))
        self.handle = handle
        _finally(self, _destroy, _ffi.function("context_destroy"), handle)

    def __repr__(self) -> str:
        return _ffi.described("context_describe", self.handle)


def context(backend: str | None, threads: int, device: tuple[int, int] = (_ffi.CPU, 0)) -> Context:
    """The process's context of a backend ("cpu", "cuda"; None: where the arrays are) and thread count (0: the library's choice)."""
    if backend is None:
        number = device[0]
    elif backend in _BACKENDS:
        number = _BACKENDS[backend]
    else:
        refuse(ERR_VALUE, f'passrl: backend is {backend!r}; it is "cpu", "cuda" or None (where the arrays are)')
    key = (number, device[1] if number == _ffi.CUDA else 0, int(threads))
    # No lock: a process forked while another thread holds one never gets it. Of two made at once one is dropped.
    found = _contexts.get(key)
    if found is not None:
        return found
    try:
        made = Context(*key)
    except Error as fault:
        if backend is None and number == _ffi.CUDA:
            raise error(fault.status, f"{fault}; the arrays are on CUDA device {device[1]} and this version of the package serves the CPU alone: "
                                      "copy them to the host first") from None
        raise
    if number == _ffi.CUDA:
        # The library serves it; this package's workspace and reports are host memory, which a device must never be given.
        refuse(ERR_NOT_YET, f"passrl: the library has a CUDA backend ({made!r}), which this version of the package does not reach yet: "
                            "copy the arrays to the host first, or call the C ABI (docs/cuda.md)")
    return _contexts.setdefault(key, made)


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
    backend, threads: as for `passrl.shape`. Batches say their groups by dense indices (`groups`, see `passrl.group_index`), `group_size`
    or `group_offsets`.

    comm: a `Collective`: the plan is one rank's, every rank makes it with the same configuration and limits and runs it as often; each run is given
    the rank's share (`groups`: dense indices of the whole batch). One run at a time.
    """

    def __init__(
        self, config: Config | str = "pass", *, rollouts: int, tokens: int, groups: int = 0, rollout_tokens: int = 0, steps: int = 0,
        group_rollouts: int = 0, group_elements: int = 0, backend: str | None = None, threads: int = 0, comm: Collective | None = None,
        _device: tuple[int, int] = (_ffi.CPU, 0), **fields: Any,
    ) -> None:
        if comm is not None and not isinstance(comm, Collective):
            refuse(ERR_VALUE, f"passrl: comm is a {type(comm).__name__}; it must be a passrl.Collective or None")
        self._comm = comm
        self._handle = ctypes.c_void_p()
        try:
            limits = self._configured(config, fields, {"rollouts": rollouts, "groups": groups or rollouts, "tokens": tokens,
                                      "rollout_tokens": rollout_tokens, "steps": steps, "group_rollouts": group_rollouts, "group_elements": group_elements})
            self._context = context(backend, threads, _device)
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
        self._free: list[Any] = []

    def _configured(self, config: Config | str, fields: dict[str, Any], limits: dict[str, int]) -> Any:
        self.config, self.limits = Config(config, **fields), limits
        struct = _ffi.made(_ffi.Limits, "limits")
        for name, value in limits.items():
            setattr(struct, name, int(value))
        return struct

    @property
    def handle(self) -> ctypes.c_void_p:
        """The library's handle."""
        return self._handle

    def fail(self, status: int) -> NoReturn:
        """Raises the library's last refusal; what a collective's callback raised is its cause."""
        raise error(status, _ffi.last_error()) from (None if self._comm is None else self._comm.cause())

    def workspace(self) -> Any:
        """A workspace for one call at a time; `release` it."""
        try:
            return self._free.pop()
        except IndexError:
            return arrays.aligned(max(self.workspace_bytes, 1))

    def release(self, workspace: Any) -> None:
        """Gives a workspace back for later calls."""
        if len(self._free) < _MOST_FREE:
            self._free.append(workspace)

    def bind(self, *, out: Any = None, dtype: Any = None, returns: Any = None, want: Any = None, stream: Any = None, **batch: Any) -> Call:
        """A call with its memory: `call()` runs it again on whatever the arrays then hold. One thread at a time.

        batch: arguments of `passrl.shape` (groups: dense indices). out, dtype, returns, stream: as there. want: what is computed beside the
        advantages, any of "path_scores", "num_chunks", "chunks", "stats", "flags" (default: all).
        """
        arguments = arguments_of(batch)
        return Call(self, Batch(arguments, out=out, dense=False, groups=self.limits["groups"]), dtype, returns, want, stream)

    def run(self, **batch: Any) -> Shaped:
        """Shapes one batch; arguments as `bind`. Of a plan with a `comm` every rank calls it; what is refused here the other ranks are told."""
        with self.telling():
            call = self.bind(**batch)
        return call.once()

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

    def __repr__(self) -> str:
        return _ffi.described("plan_describe", self._handle)


class Sinks:
    """Outputs of a run: the ABI's struct and the memory behind it."""

    def __init__(self, batch: Batch, groups: int, config: Config, dtype: Any, returns: Any, want: Any) -> None:
        self.struct = _ffi.made(_ffi.Outputs, "outputs")
        self.keep: list[Any] = []
        self.native: dict[str, Any] = {}
        # The caller's own memory, handed back as it is.
        self.given: set[str] = set()
        self.host: dict[str, Any] = {}
        self.report = Report()
        self.struct.report = ctypes.pointer(self.report._struct)
        wanted = WANTED if want is None else frozenset([want] if isinstance(want, str) else want)
        if wanted - WANTED:
            refuse(ERR_VALUE, f"passrl: want has {', '.join(sorted(wanted - WANTED))}; it knows {', '.join(sorted(WANTED))}")
        maker, tokens, rollouts = batch.maker, batch.token_shape, batch.rollouts
        if batch.out is not None:
            if dtype is not None and arrays.dtype_number(dtype) != batch.out.dtype:
                refuse(ERR_VALUE, f"passrl: dtype is {dtype} and out has another; leave dtype out")
            self._put("advantages", batch.out)
            self.given.add("advantages")
        else:
            self._make("advantages", maker, tokens, _ffi.F32 if dtype is None else arrays.dtype_number(dtype))
        if returns is None:
            returns = config.credit == "gae"
        if returns is True:
            self._make("returns", maker, tokens, self.native_dtype)
        elif returns is not False:
            self._put("returns", arrays.output(returns, "returns"))
            self.given.add("returns")
        plain = Maker(None)
        if "path_scores" in wanted:
            self._small("path_scores", plain, (rollouts,), _ffi.F64)
        if wanted & {"num_chunks", "chunks"}:
            self._small("num_chunks", plain, (rollouts,), _ffi.I64)
        if "chunks" in wanted:
            self._small("chunk_ends", plain, tokens, _ffi.I32)
            self._small("chunk_values", plain, tokens, _ffi.F32)
        table = (groups, _ffi.MAX_STREAMS)
        if "stats" in wanted:
            self._small("stats_count", plain, table, _ffi.I64)
            for name in ("stats_mean", "stats_std", "stats_absmax"):
                self._small(name, plain, table, _ffi.F64)
        if "flags" in wanted:
            self._small("group_flags", plain, table, _ffi.I32)
            self._small("rollout_flags", plain, (rollouts,), _ffi.I32)

    def _put(self, name: str, array: Array) -> None:
        pointer = ctypes.pointer(array.view)
        self.keep.append((array, pointer))
        setattr(self.struct, name, pointer)
        self.native[name] = array.source
        if name == "advantages":
            self.native_dtype = array.dtype

    def _make(self, name: str, maker: Maker, shape: tuple[int, ...], dtype: int) -> None:
        self._put(name, arrays.array(maker.empty(shape, dtype), name))

    def _small(self, name: str, maker: Maker, shape: tuple[int, ...], dtype: int) -> None:
        memory = maker.empty(shape, dtype)
        self._put(name, arrays.array(memory, name))
        self.host[name] = memory


def _give_back(plan: Plan, memory: Any, address: ctypes.c_void_p) -> None:
    # As `_destroy`: whoever gets the memory next has it alone.
    address.value = None
    plan.release(memory)


class Call:
    """A plan bound to a batch and outputs: calling it is one call into the library, without any conversion."""

    def __init__(self, plan: Plan, batch: Batch, dtype: Any, returns: Any, want: Any, stream: Any, buffer: Any = None) -> None:
        self.plan, self.batch = plan, batch
        groups = batch.groups or (plan.limits["groups"] if batch.struct.group_index else 0)
        self.sinks = Sinks(batch, groups, plan.config, dtype, returns, want)
        # Held here too: at the interpreter's exit the finalizer's own reference goes while a daemon thread may be in the call.
        self._workspace = plan.workspace()
        # ctypes objects, made once: a call converts nothing.
        self.workspace_arguments = ctypes.c_void_p(arrays.address(self._workspace)), ctypes.c_size_t(plan.workspace_bytes)
        _finally(self, _give_back, plan, self._workspace, self.workspace_arguments[0])
        tail = *self.workspace_arguments, ctypes.c_void_p(stream_pointer(stream))
        structs = byref(batch.struct), byref(self.sinks.struct)
        if buffer is None:
            self._function = _ffi.bare("plan_run")
            self._arguments: tuple[Any, ...] = (plan.handle, *structs, *tail)
        else:
            self._function = _ffi.bare("plan_apply")
            kept = ctypes.c_void_p(arrays.address(buffer)), ctypes.c_size_t(buffer.nbytes)
            self._arguments = (plan.handle, structs[0], *kept, structs[1], *tail)
            self._buffer = buffer
        self.shaped = Shaped(
            0, self.sinks.native, self.sinks.given, self.sinks.host, self.sinks.report, batch.token_offsets, batch.stream_names, batch.group_keys, batch.maker)

    def once(self) -> Shaped:
        """Runs a call that is not kept: nothing overwrites its result."""
        self.batch.maker.once = True
        return self()

    def __call__(self) -> Shaped:
        """Runs; the result's memory is overwritten by the next call. Errors: `passrl.Error` with the library's sentence."""
        status = self._function(*self._arguments)
        if status < 0:
            self.plan.fail(status)
        shaped = self.shaped
        shaped.status, shaped._csr = status, None
        return shaped
