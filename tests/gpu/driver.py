"""The CUDA driver by ctypes, and libpassrl's structs and functions without NumPy."""
from __future__ import annotations

import ctypes
import importlib
import sys
import types
from ctypes import byref, c_char_p, c_int, c_size_t, c_uint, c_uint64, c_void_p
from pathlib import Path
from typing import Any

# The package's own table of structs and functions, without the package around it, which needs NumPy.
_package = types.ModuleType("passrl")
_package.__path__ = [str(Path(__file__).resolve().parents[2] / "bindings/python/passrl")]
sys.modules.setdefault("passrl", _package)
ffi: Any = importlib.import_module("passrl._ffi")


class Missing(Exception):
    """Why there is no device."""


class Driver:
    """Device `number` with its primary context current, and a stream."""

    def __init__(self, number: int) -> None:
        for name in ("libcuda.so.1", "libcuda.so"):
            try:
                self._library = ctypes.CDLL(name)
                break
            except OSError:
                pass
        else:
            raise Missing("there is no CUDA driver here (no libcuda.so.1)")
        count = c_int()
        if self._library.cuInit(0) or self._library.cuDeviceGetCount(byref(count)) or count.value <= number:
            raise Missing(f"the CUDA driver has no device {number} ({count.value} devices)")
        self.number = number
        context, stream = c_void_p(), c_void_p()
        self("cuDevicePrimaryCtxRetain", byref(context), number)
        self("cuCtxSetCurrent", context)
        self("cuStreamCreate", byref(stream), 1)
        self.stream = stream
        name, version = ctypes.create_string_buffer(256), c_int()
        self("cuDeviceGetName", name, 256, number)
        self("cuDriverGetVersion", byref(version))
        self.contexts = {"cpu": _context(ffi.CPU, 0), "cuda": _context(ffi.CUDA, number)}
        self.name = f"{name.value.decode()}, driver for CUDA {version.value // 1000}.{version.value % 1000 // 10}; {ffi.described('context_describe', self.contexts['cuda'])}"

    def __call__(self, name: str, *arguments: Any) -> None:
        error = getattr(self._library, name)(*arguments)
        if error:
            told = c_char_p()
            self._library.cuGetErrorName(error, byref(told))
            raise RuntimeError(f"{name}: {told.value.decode() if told.value else error}")

    def new(self, content: bytes) -> int:
        """Device memory of exactly this content."""
        at = c_uint64()
        self("cuMemAlloc_v2", byref(at), c_size_t(max(len(content), 1)))
        self.fill(at.value, content)
        return at.value

    def fill(self, at: int, content: bytes) -> None:
        if content:
            self("cuMemcpyHtoD_v2", c_uint64(at), content, c_size_t(len(content)))

    def read(self, at: int, size: int) -> bytes:
        to = ctypes.create_string_buffer(max(size, 1))
        if size:
            self("cuMemcpyDtoH_v2", to, c_uint64(at), c_size_t(size))
        return to.raw[:size]

    def free(self, at: int) -> None:
        self("cuMemFree_v2", c_uint64(at))

    def wait(self) -> None:
        self("cuStreamSynchronize", self.stream)

    def captured(self, work: Any) -> Graph:
        """What `work` puts on the stream, as a graph."""
        graph, run = c_void_p(), c_void_p()
        self("cuStreamBeginCapture_v2", self.stream, c_uint(1))
        try:
            work()
        finally:
            self("cuStreamEndCapture", self.stream, byref(graph))
        self("cuGraphInstantiateWithFlags", byref(run), graph, c_uint64(0))
        return Graph(self, graph, run)


class Graph:
    """A captured run."""

    def __init__(self, driver: Driver, graph: c_void_p, run: c_void_p) -> None:
        self._driver, self._graph, self._run = driver, graph, run

    def launch(self) -> None:
        self._driver("cuGraphLaunch", self._run, self._driver.stream)

    def destroy(self) -> None:
        self._driver("cuGraphExecDestroy", self._run)
        self._driver("cuGraphDestroy", self._graph)


def _context(backend: int, number: int) -> c_void_p:
    import os

    options, handle = ffi.made(ffi.ContextOptions, "context_options"), c_void_p()
    options.backend, options.device = backend, number
    if backend == ffi.CUDA:
        nvrtc, cache = os.environ.get("PASSRL_NVRTC"), os.environ.get("PASSRL_CACHE_DIR")
        options.nvrtc = nvrtc.encode() if nvrtc else _nvrtc()
        options.cache_dir = None if cache is None else cache.encode()
    ffi.call("context_create", byref(options), byref(handle))
    return handle


def _nvrtc() -> bytes | None:
    """NVRTC of the wheels that torch brings; None: the library looks itself."""
    for folder in sys.path:
        for found in sorted(Path(folder or ".").glob("nvidia/cu*/lib/libnvrtc.so.1[23]"), reverse=True):
            return str(found).encode()
    return None
