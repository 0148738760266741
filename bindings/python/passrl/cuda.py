"""Memory of a CUDA device for callers that have neither torch nor CuPy: the driver's own functions, by ctypes.

    import passrl.cuda
    signal = passrl.cuda.array(numpy_array)          # a copy in device memory
    out = passrl.cuda.empty((n,), "float32")
    passrl.shape(signal=signal, out=out, ...)
    passrl.cuda.synchronize()
    out.copy_to_host()

Arrays speak `__cuda_array_interface__`. The driver is looked for at the first call; without one that raises `passrl.DeviceError`.
"""
from __future__ import annotations

import contextlib
import ctypes
import functools
import math
import weakref
from collections.abc import Iterator
from ctypes import byref, c_char_p, c_int, c_size_t, c_uint, c_uint64, c_void_p
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import ERR_DEVICE, ERR_DTYPE, ERR_LAYOUT, ERR_NO_DEVICE, ERR_SHAPE, refuse

_P = c_void_p
_SIGNATURES: dict[str, list[Any]] = {
    "cuInit": [c_uint], "cuDevicePrimaryCtxRetain": [_P, c_int], "cuCtxPushCurrent_v2": [_P], "cuCtxPopCurrent_v2": [_P],
    "cuMemAlloc_v2": [_P, c_size_t], "cuMemFree_v2": [c_uint64], "cuMemcpyHtoD_v2": [c_uint64, _P, c_size_t], "cuMemcpyDtoH_v2": [_P, c_uint64, c_size_t],
    "cuStreamSynchronize": [_P], "cuEventCreate": [_P, c_uint], "cuEventRecord": [_P, _P], "cuStreamWaitEvent": [_P, _P, c_uint], "cuEventDestroy_v2": [_P],
    "cuGetErrorName": [c_int, _P],
}
_NO_TIMING = 2


class Driver:
    """The driver's functions, and each device's primary context, which torch and CuPy use too; it stays retained."""

    def __init__(self) -> None:
        for name in ("libcuda.so.1", "libcuda.so"):
            with contextlib.suppress(OSError):
                self._library = ctypes.CDLL(name)
                break
        else:
            refuse(ERR_NO_DEVICE, "passrl: there is no libcuda.so: this machine has no CUDA driver, or it is not on the loader's path")
        for name, arguments in _SIGNATURES.items():
            try:
                getattr(self._library, name).argtypes = arguments
            except AttributeError:
                refuse(ERR_NO_DEVICE, f"passrl: libcuda.so has no {name}: it is no CUDA driver, or one too old")
        self._contexts: dict[int, c_void_p] = {}
        self.call("cuInit", 0)

    def call(self, name: str, *arguments: Any) -> None:
        """Calls a function of the driver; an error is raised by its name."""
        error = getattr(self._library, name)(*arguments)
        if error:
            told = c_char_p()
            self._library.cuGetErrorName(error, byref(told))
            refuse(ERR_DEVICE, f"passrl: {name}: {told.value.decode() if told.value else 'error'} ({error})")

    @contextlib.contextmanager
    def on(self, device: int) -> Iterator[None]:
        """The device's primary context is the thread's current one in the block."""
        context = self._contexts.get(device)
        if context is None:
            context = c_void_p()
            self.call("cuDevicePrimaryCtxRetain", byref(context), device)
            self._contexts[device] = context
        self.call("cuCtxPushCurrent_v2", context)
        try:
            yield
        finally:
            self.call("cuCtxPopCurrent_v2", byref(c_void_p()))


@functools.lru_cache(1)
def driver() -> Driver:
    """The process's driver. Errors: `passrl.DeviceError` where there is none."""
    return Driver()


def _free(address: int, device: int) -> None:
    # At the end of the process the driver may have shut down before.
    with contextlib.suppress(Exception), driver().on(device):
        driver().call("cuMemFree_v2", address)


class Array:
    """An array in device memory, freed with the last array that shares it. Made by `empty` and `array`."""

    def __init__(self, data: int, shape: tuple[int, ...], dtype: np.dtype[Any], device: int, owner: Any = None, strides: tuple[int, ...] | None = None) -> None:
        self.data, self.shape, self.dtype, self.device = data, shape, dtype, device
        self._owner, self.strides = owner, strides

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize

    def __len__(self) -> int:
        return self.shape[0]

    def __dlpack_device__(self) -> tuple[int, int]:
        return 2, self.device

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        if self.dtype.isbuiltin != 1:
            raise AttributeError(f"__cuda_array_interface__ has no name for {self.dtype}")
        return {"shape": self.shape, "typestr": self.dtype.str, "data": (self.data, False), "version": 3, "strides": self.strides, "stream": None}

    def part(self, offset: int, shape: tuple[int, ...], dtype: Any, strides: tuple[int, ...] | None = None) -> Array:
        """A view of the bytes from `offset` on, as an array."""
        return Array(self.data + offset, shape, np.dtype(dtype), self.device, self, strides)

    def reshape(self, shape: tuple[int, ...]) -> Array:
        """A view of another shape."""
        return Array(self.data, shape, self.dtype, self.device, self)

    def column(self, number: int) -> Array:
        """A column of an array of two dimensions; a view."""
        return self.part(number * self.dtype.itemsize, self.shape[:1], self.dtype, (self.shape[1] * self.dtype.itemsize,))

    def copy_to_host(self) -> NDArray[Any]:
        """A copy in NumPy. It waits for the legacy stream; for work on others call `synchronize` first."""
        span = self.nbytes if self.strides is None else sum((n - 1) * s for n, s in zip(self.shape, self.strides)) + self.dtype.itemsize
        memory = np.empty(max(span, 0) if math.prod(self.shape) else 0, dtype=np.uint8)
        if memory.size:
            with driver().on(self.device):
                driver().call("cuMemcpyDtoH_v2", memory.ctypes.data, self.data, memory.nbytes)
        return np.ndarray(self.shape, self.dtype, memory, 0, self.strides)

    def copy_from_host(self, value: NDArray[Any]) -> None:
        """Overwrites it with a NumPy array of its shape and type. Errors: `passrl.ShapeError`."""
        if value.shape != self.shape or value.dtype != self.dtype or self.strides is not None:
            refuse(ERR_SHAPE, f"passrl: copy_from_host is given {value.dtype} {list(value.shape)} for {self.dtype} {list(self.shape)}; give the same")
        host = np.ascontiguousarray(value)
        if host.size:
            with driver().on(self.device):
                driver().call("cuMemcpyHtoD_v2", self.data, host.ctypes.data, host.nbytes)

    def __repr__(self) -> str:
        return f"passrl.cuda.Array({self.dtype}, {list(self.shape)}, device {self.device})"


def empty(shape: tuple[int, ...] | int, dtype: Any = "float32", device: int = 0) -> Array:
    """New memory, uninitialised, aligned to 256 bytes. Errors: `passrl.DeviceError`."""
    kind, sizes = np.dtype(dtype), (shape,) if isinstance(shape, int) else tuple(shape)
    if kind.hasobject:
        refuse(ERR_DTYPE, f"passrl: dtype is {kind}; a device holds numbers")
    address = c_uint64()
    with driver().on(device):
        driver().call("cuMemAlloc_v2", byref(address), max(math.prod(sizes) * kind.itemsize, 1))
    made = Array(address.value, sizes, kind, device)
    weakref.finalize(made, _free, address.value, device).atexit = False
    return made


def array(value: Any, device: int = 0) -> Array:
    """A copy of a NumPy array (or of what NumPy makes one of) in device memory, compact."""
    host = np.asarray(value)
    if host.dtype.byteorder == ">":
        refuse(ERR_LAYOUT, f"passrl: the array is {host.dtype} of the other byte order; convert it first")
    made = empty(host.shape, host.dtype, device)
    made.copy_from_host(host)
    return made


def synchronize(stream: int | None = None, device: int = 0) -> None:
    """Waits for all work of a stream (None: the legacy default stream)."""
    with driver().on(device):
        driver().call("cuStreamSynchronize", stream)


def follow(stream: int | None, producer: int, device: int) -> None:
    """Work put on `stream` from now on waits for what is on `producer` now; the host does not."""
    if (stream or 1) == producer:
        return
    event = c_void_p()
    with driver().on(device):
        driver().call("cuEventCreate", byref(event), _NO_TIMING)
        driver().call("cuEventRecord", event, producer)
        driver().call("cuStreamWaitEvent", stream, event, 0)
        driver().call("cuEventDestroy_v2", event)
