"""Views of the caller's arrays, never copies: NumPy by its array interface, others by DLPack or `__cuda_array_interface__`."""
from __future__ import annotations

import contextlib
import ctypes
import math
import sys
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from . import _ffi, cuda
from .errors import ERR_DEVICE, ERR_DTYPE, ERR_LAYOUT, ERR_OFFSETS, ERR_SHAPE, ERR_VALUE, refuse

_NUMPY: dict[str, int] = {
    "float64": _ffi.F64, "float32": _ffi.F32, "float16": _ffi.F16, "bfloat16": _ffi.BF16,
    "int64": _ffi.I64, "int32": _ffi.I32, "uint8": _ffi.U8, "bool": _ffi.BOOL,
}
# Types met so far: `dtype.name` is slow.
_known: dict[np.dtype[Any], int] = {}
_NAMES: dict[int, str] = {number: name for name, number in _NUMPY.items()}
_ITEM: dict[int, int] = {_ffi.F64: 8, _ffi.F32: 4, _ffi.F16: 2, _ffi.BF16: 2, _ffi.I64: 8, _ffi.I32: 4, _ffi.U8: 1, _ffi.BOOL: 1}
_SHORT: dict[str, str] = {"f64": "float64", "f32": "float32", "f16": "float16", "bf16": "bfloat16", "i64": "int64", "i32": "int32",
                          "double": "float64", "float": "float32", "half": "float16", "long": "int64", "int": "int32"}

_capsule_pointer = ctypes.pythonapi.PyCapsule_GetPointer
_capsule_pointer.restype, _capsule_pointer.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
_is_capsule = ctypes.pythonapi.PyCapsule_IsValid
_is_capsule.restype, _is_capsule.argtypes = ctypes.c_int, [ctypes.py_object, ctypes.c_char_p]
# DLManagedTensor begins with the DLTensor; DLManagedTensorVersioned has version (8), context (8), deleter (8) and flags (8) before it.
_VERSIONED_FLAGS, _VERSIONED_TENSOR = 24, 32
_READ_ONLY = 1


class Array(NamedTuple):
    """A view and what keeps its memory alive.

    source: the caller's object (detached). view: pointer, shape, strides in elements, type, device. writable: may be an output.
    stream: address of the CUDA stream on which the producer made the data (`__cuda_array_interface__` version 3), None: nothing to wait for.
    """

    source: Any
    view: _ffi.View
    owner: Any
    writable: bool
    stream: int | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.view.shape[: self.view.ndim])

    @property
    def dtype(self) -> int:
        return int(self.view.dtype)

    @property
    def on_cpu(self) -> bool:
        return bool(self.view.device_type == _ffi.CPU)


def dtype_number(dtype: Any, name: str = "dtype") -> int:
    """The library's number of a type: NumPy, ml_dtypes, torch, jax types, or text ("f32", "bfloat16")."""
    if isinstance(dtype, type) and hasattr(dtype, "dtype"):
        dtype = np.dtype(dtype)
    text = dtype if isinstance(dtype, str) else getattr(dtype, "name", None) or str(dtype)
    text = text.removeprefix("torch.")
    text = _SHORT.get(text, text)
    if text not in _NUMPY:
        try:
            text = np.dtype(dtype).name
        except TypeError:
            pass
    if text not in _NUMPY:
        refuse(ERR_DTYPE, f"passrl: {name} is {dtype!r}; the library's types are {', '.join(_NUMPY)}")
    return _NUMPY[text]


def numpy_dtype(number: int) -> np.dtype[Any]:
    """The NumPy type of a number; bf16 is ml_dtypes.bfloat16."""
    if number == _ffi.BF16:
        try:
            import ml_dtypes
        except ImportError:
            refuse(ERR_DTYPE, "passrl: bf16 in NumPy is ml_dtypes.bfloat16; install ml_dtypes or ask for dtype=\"f32\"")
        bfloat16: np.dtype[Any] = np.dtype(ml_dtypes.bfloat16)
        return bfloat16
    named: np.dtype[Any] = np.dtype(_NAMES[number])
    return named


def _filled(data: int, shape: tuple[int, ...], strides: tuple[int, ...], dtype: int, device: tuple[int, int]) -> _ffi.View:
    wide = shape if len(shape) == 2 else (shape[0], 1)
    steps = strides if len(strides) == 2 else (strides[0], 1)
    return _ffi.View(data, wide, steps, len(shape), dtype, *device)


def line(data: int, shape: tuple[int, ...], dtype: int, device: tuple[int, int] = (_ffi.CPU, 0)) -> _ffi.View:
    """View of compact memory."""
    return _filled(data, shape, (shape[1], 1) if len(shape) == 2 else (1,), dtype, device)


def _elements(name: str, strides: tuple[int, ...], itemsize: int) -> tuple[int, ...]:
    if any(stride % itemsize for stride in strides):
        refuse(ERR_LAYOUT, f"passrl: {name} has strides of {strides} bytes; they must be multiples of its {itemsize}-byte elements")
    return tuple(stride // itemsize for stride in strides)


def _dims(name: str, ndim: int) -> None:
    if ndim not in (1, 2):
        refuse(ERR_SHAPE, f"passrl: {name} has {ndim} dimensions; it must have 1 or 2")


def _unmasked(value: NDArray[Any], name: str) -> None:
    # Its data would be read where it says that there is none.
    if isinstance(value, np.ma.MaskedArray) and np.ma.is_masked(value):
        refuse(ERR_VALUE, f"passrl: {name} is a masked array with {int(np.ma.getmaskarray(value).sum())} elements masked; give {name}.filled(...), and what to leave out as "
                          "mask= or in_stats=")


def from_numpy(value: NDArray[Any], name: str) -> Array:
    """View of a NumPy array."""
    _unmasked(value, name)
    dtype = _known.get(value.dtype)
    if dtype is None:
        dtype = _NUMPY.get(value.dtype.name)
        if dtype is None or not value.dtype.isnative:
            refuse(ERR_DTYPE, f"passrl: {name} has dtype {value.dtype}; the library's types are {', '.join(_NUMPY)} of native byte order")
        _known[value.dtype] = dtype
    _dims(name, value.ndim)
    # NumPy gives an array without elements strides of 0, which an output may not have.
    strides = _elements(name, value.strides, value.itemsize) if value.size else (value.shape[-1], 1)[-value.ndim :]
    view = _filled(value.__array_interface__["data"][0], value.shape, strides, dtype, (_ffi.CPU, 0))
    return Array(value, view, value, bool(value.flags.writeable))


def _from_capsule(value: Any, name: str) -> Array:
    # A consumer on the caller's own stream wants no synchronisation: -1 where there are streams.
    try:
        device = value.__dlpack_device__()[0] if hasattr(value, "__dlpack_device__") else 1
        options: dict[str, Any] = {"stream": -1} if device in (2, 13) else {}
        try:
            capsule = value.__dlpack__(max_version=(1, 0), **options)
        except TypeError:
            capsule = value.__dlpack__(**options)
    except Exception as fault:
        # A sparse tensor, one without data, a tracer of jax.
        mend = "; under jax.jit call the package through jax.pure_callback" if "Tracer" in type(value).__name__ else ""
        if getattr(value, "is_nested", False):
            mend = f"; give it packed, torch.cat({name}.unbind()), and lengths"
        refuse(ERR_VALUE, f"passrl: {name} is a {type(value).__name__} whose memory cannot be seen: {str(fault).partition(chr(10))[0]}{mend}")
    view = _ffi.View()
    writable = True
    if not _is_capsule(capsule, b"dltensor_versioned") and not _is_capsule(capsule, b"dltensor"):
        # Of another name, or one that another consumer has taken.
        refuse(ERR_VALUE, f"passrl: {name} is a {type(value).__name__} whose __dlpack__ gives a {type(capsule).__name__} that is no unused DLPack capsule; "
                          f"give an array of NumPy, torch, jax or CuPy, as numpy.asarray({name}) makes one")
    if _is_capsule(capsule, b"dltensor_versioned"):
        base = _capsule_pointer(capsule, b"dltensor_versioned")
        major, minor = (ctypes.c_uint32 * 2).from_address(base)
        if major != 1:
            refuse(ERR_VALUE, f"passrl: {name} gives a DLPack capsule of version {major}.{minor}; 1.x is known")
        writable = not ctypes.c_uint64.from_address(base + _VERSIONED_FLAGS).value & _READ_ONLY
        tensor = base + _VERSIONED_TENSOR
    else:
        tensor = _capsule_pointer(capsule, b"dltensor")
    try:
        _ffi.call("view_from_dlpack", tensor, ctypes.byref(view))
    except Exception as fault:
        raise type(fault)(*_named(fault, name)) from None
    # The capsule is not renamed, so it frees its tensor itself when it dies.
    return Array(value, view, (value, capsule), writable)


def _named(fault: Any, name: str) -> tuple[int, str]:
    return fault.status, f"{fault} (argument {name})"


def _from_cuda_interface(value: Any, name: str) -> Array:
    """Versions 2 and 3 of the interface. It does not name the device: 0 is taken; arrays of other devices come by DLPack."""
    found = value.__cuda_array_interface__
    version = int(found.get("version", 0))
    if version < 2:
        refuse(ERR_VALUE, f"passrl: {name} has version {version} of __cuda_array_interface__; 2 and 3 are known: update its library or use DLPack")
    if found.get("mask") is not None:
        refuse(ERR_VALUE, f"passrl: {name} is a masked array (__cuda_array_interface__ with a mask); give its data, and the mask as mask=")
    dtype = np.dtype(found["typestr"])
    number = _NUMPY.get(dtype.name)
    if number is None or not dtype.isnative:
        refuse(ERR_DTYPE, f"passrl: {name} has typestr {found['typestr']}; the library's types are {', '.join(_NUMPY)} of native byte order "
                          "(bfloat16 by DLPack: this interface has no name for it)")
    shape = tuple(int(n) for n in found["shape"])
    _dims(name, len(shape))
    strides = found.get("strides")
    if strides is None:
        steps: tuple[int, ...] = (1,) if len(shape) == 1 else (shape[1], 1)
    else:
        steps = _elements(name, tuple(int(stride) for stride in strides), dtype.itemsize)
        if len(steps) != len(shape):
            refuse(ERR_LAYOUT, f"passrl: {name} has {len(shape)} dimensions and {len(steps)} strides; give one stride a dimension")
    stream = found.get("stream")
    if stream is not None and int(stream) == 0:
        refuse(ERR_VALUE, f"passrl: {name} has stream 0, which the interface does not allow; 1 is the legacy default stream, 2 the per-thread one")
    address, read_only = found["data"]
    return Array(value, _filled(int(address or 0), shape, steps, number, (_ffi.CUDA, 0)), value, not read_only, None if stream is None else int(stream))


def _from_cuda(value: cuda.Array, name: str) -> Array:
    _dims(name, value.ndim)
    number = _NUMPY.get(value.dtype.name)
    if number is None:
        refuse(ERR_DTYPE, f"passrl: {name} has dtype {value.dtype}; the library's types are {', '.join(_NUMPY)}")
    steps = (value.shape[-1], 1)[-value.ndim :] if value.strides is None else _elements(name, value.strides, value.dtype.itemsize)
    return Array(value, _filled(value.data, value.shape, steps, number, (_ffi.CUDA, value.device)), value, True)


def is_array(value: Any) -> bool:
    """An array of some framework (not a list)."""
    return isinstance(value, np.ndarray) or any(
        hasattr(value, method) for method in ("__dlpack__", "__dlpack_device__", "__cuda_array_interface__", "__array_interface__", "__array__")
    )


def array(value: Any, name: str, listed: str = "float64") -> Array:
    """A view of `value`: a NumPy array, anything with `__dlpack__` (torch, jax, cupy), `__cuda_array_interface__` or `__array__`.

    Arrays are never copied here. (jax itself copies, silently, memory that is not 64-byte aligned when a jax array is made of it.) A list or
    tuple of numbers has no memory to view: it becomes a small array of type `listed` ("float64", "float32", "int64", "bool"). Tensors that
    require gradients are detached.
    """
    if isinstance(value, np.ndarray):
        return from_numpy(value, name)
    if isinstance(value, cuda.Array):
        return _from_cuda(value, name)
    if getattr(value, "requires_grad", False):
        value = value.detach()
    if hasattr(value, "is_neg") and value.is_neg():
        refuse(ERR_VALUE, f"passrl: {name} is a tensor whose memory holds the negatives of its elements; give {name}.resolve_neg()")
    if hasattr(value, "__dlpack__"):
        return _from_capsule(value, name)
    if hasattr(value, "__cuda_array_interface__"):
        return _from_cuda_interface(value, name)
    if isinstance(value, (list, tuple, range)):
        try:
            if any(isinstance(one, (str, bytes)) for one in value):
                raise TypeError("an element is text")
            found = np.array(value, dtype=listed)
            if listed == "int64" and not np.array_equal(found, np.asarray(value)):
                # NumPy cuts fractions.
                raise TypeError("an element is no whole number")
            return from_numpy(found, name)
        except (TypeError, ValueError, OverflowError) as fault:
            refuse(ERR_VALUE, f"passrl: {name} is a {type(value).__name__} that is no array of {listed} ({fault})")
    if hasattr(value, "__array_interface__") or hasattr(value, "__array__"):
        return from_numpy(np.asarray(value), name)
    refuse(ERR_VALUE, f"passrl: {name} is a {type(value).__name__}; it must be an array (NumPy, torch, jax, cupy) or a list of numbers")


def floats(found: Array, name: str) -> Array:
    """Refuses integers where floats belong (`np.array([1, 0, 1])` as rewards) with the mend in the framework's words."""
    if found.dtype >= _NUMPY["int64"]:
        mend = "float()" if framework(found.source) == "torch" else "astype(np.float32)"
        refuse(ERR_DTYPE, f"passrl: {name} has dtype {_NAMES[found.dtype]}; it must be a float type: give {name}.{mend}, or a list")
    return found


def short_floats(found: Array, name: str) -> Array:
    """The same for a process signal, which has no f64 (NumPy's default)."""
    if floats(found, name).dtype == _ffi.F64:
        mend = "float()" if framework(found.source) == "torch" else "astype(np.float32)"
        refuse(ERR_DTYPE, f"passrl: {name} has dtype float64; a process signal is float32, bfloat16 or float16: give {name}.{mend}")
    return found


def output(value: Any, name: str) -> Array:
    """A view of memory to write to. Refused: what is no array, read-only arrays, jax arrays (immutable)."""
    if not is_array(value):
        refuse(ERR_VALUE, f"passrl: {name} is a {type(value).__name__}, no array; it must be memory to write to")
    kind = framework(value)
    if kind == "jax":
        refuse(ERR_VALUE, f"passrl: {name} is a jax array, and those are immutable; leave {name} out for a new one, or give NumPy memory")
    if kind == "torch" and value.requires_grad and value.is_leaf and sys.modules["torch"].is_grad_enabled():
        # As torch refuses to write to it in place.
        refuse(ERR_VALUE, f"passrl: {name} is a leaf tensor that requires grad, which nothing may write to while gradients are recorded; "
                          f"give {name}.detach(), or call this under torch.no_grad()")
    found = array(value, name)
    if not found.writable:
        refuse(ERR_VALUE, f"passrl: {name} is a read-only {type(value).__name__}; give memory that may be written")
    return found


def tensors(outputs: Iterable[Any]) -> tuple[Any, ...]:
    """Those of torch among arrays to write to, for `written`."""
    return tuple(one for one in outputs if framework(one) == "torch" and not one.is_inference())


def written(outputs: tuple[Any, ...]) -> None:
    """Says to torch that tensors were written to: a gradient that has saved what was there is refused then, not computed of what is there now."""
    # From torch 2.1 on.
    increment = getattr(sys.modules["torch"].autograd.graph, "increment_version", None) if outputs else None
    if increment is not None:
        for one in outputs:
            increment(one)


def cuda_device(value: Any) -> int | None:
    """Number of the CUDA device on which an array is; None where it is on none."""
    if isinstance(value, np.ndarray):
        return None
    if hasattr(value, "__dlpack_device__"):
        try:
            kind, number = value.__dlpack_device__()
        except Exception:
            # What has no device is refused by name where it is viewed.
            return None
        return int(number) if kind in (2, 13) else None
    return 0 if hasattr(value, "__cuda_array_interface__") else None


def host(value: Any, name: str) -> NDArray[Any]:
    """A NumPy view of an array on the CPU, for what is read on the host (keys, offsets, lengths); from a device it is copied."""
    if isinstance(value, np.ndarray):
        _unmasked(value, name)
        return value
    if getattr(value, "requires_grad", False):
        value = value.detach()
    try:
        device = value.__dlpack_device__()[0] if hasattr(value, "__dlpack_device__") else 2 if hasattr(value, "__cuda_array_interface__") else 1
    except Exception as fault:
        refuse(ERR_VALUE, f"passrl: {name} is a {type(value).__name__} that does not say on which device it is ({fault}); give a NumPy array")
    if device not in (1, 3):
        fetch = getattr(value, "cpu", None) or getattr(value, "get", None) or getattr(value, "copy_to_host", None)
        if fetch is None:
            refuse(ERR_DEVICE, f"passrl: {name} is a {type(value).__name__} on a device and is read on the host; give a NumPy array")
        value = fetch()
    try:
        return np.asarray(value)
    except (TypeError, ValueError, RuntimeError) as fault:
        refuse(ERR_VALUE, f"passrl: {name} is a {type(value).__name__} that is no array ({fault})")


def extents(value: Any, name: str) -> NDArray[np.int64]:
    """`[R]` tokens of rollouts, read on the host."""
    found = host(value, name)
    # An empty list has no type of its own.
    found = found if found.size else found.astype(np.int64)
    if found.ndim != 1 or found.dtype.kind not in "iu":
        refuse(ERR_SHAPE, f"passrl: {name} has shape {list(found.shape)} of {found.dtype}; it must be [R] integers")
    # As i64 what is too large for it is below 0 as well.
    whole = found.astype(np.int64, copy=False)
    for row in np.flatnonzero(whole < 0)[:1]:
        refuse(ERR_OFFSETS, f"passrl: {name}[{row}] is {found[row]}; a rollout has 0 tokens or more, and less than 2^63")
    return whole


_FRAMEWORKS = {"torch": "torch", "jax": "jax", "jaxlib": "jax", "cupy": "cupy"}


def framework(value: Any) -> str:
    """ "numpy", "torch", "jax" or "cupy": the module an array's type comes from."""
    for kind in type(value).__mro__:
        found = _FRAMEWORKS.get(kind.__module__.partition(".")[0])
        if found is not None:
            return found
    return "numpy"


class Maker:
    """Makes and wraps outputs in the framework of an input, on a device and, there, on a stream.

    `once`: what is made is written by one call alone, so that a jax array may be a view of it; else jax arrays are copies. On a device torch and CuPy
    make what is theirs; all others get `passrl.cuda.Array`.
    """

    def __init__(self, like: Any, device: tuple[int, int] = (_ffi.CPU, 0)) -> None:
        self.framework, self.device = framework(like), device
        self.once = False
        self.on_cpu = device[0] == _ffi.CPU
        self._torch_device = getattr(like, "device", None)
        if not self.on_cpu:
            if self.framework == "jax":
                self.framework = "numpy"
            self._torch_device = f"cuda:{device[1]}"
        # Of the run; None: the framework's current one.
        self.stream: int | None = None

    def current_stream(self) -> int | None:
        """Address of the framework's current stream on the device; None: there is no such thing."""
        if self.framework == "torch" and not self.on_cpu:
            return int(sys.modules["torch"].cuda.current_stream(self.device[1]).cuda_stream)
        if self.framework == "cupy" and not self.on_cpu:
            return int(sys.modules["cupy"].cuda.get_current_stream().ptr)
        return None

    def _on_stream(self) -> Any:
        """Frameworks keep memory for the stream on which it was made."""
        if self.framework == "torch":
            torch = sys.modules["torch"]
            if self.stream is None or self.stream == self.current_stream():
                return contextlib.nullcontext()
            return torch.cuda.stream(torch.cuda.ExternalStream(self.stream, device=self._torch_device))
        stack = contextlib.ExitStack()
        where = sys.modules["cupy"].cuda
        stack.enter_context(where.Device(self.device[1]))
        if self.stream:
            stack.enter_context(where.ExternalStream(self.stream))
        return stack

    def empty(self, shape: tuple[int, ...], dtype: int) -> Any:
        """New memory, uninitialised."""
        if not self.on_cpu:
            return self._empty_on_device(shape, dtype)
        if self.framework == "torch":
            torch = sys.modules["torch"]
            return torch.empty(shape, dtype=getattr(torch, _NAMES[dtype]), device=self._torch_device)
        if self.framework == "jax":
            # jax takes aligned memory as it is.
            kind = numpy_dtype(dtype)
            return aligned(math.prod(shape) * kind.itemsize).view(kind).reshape(shape)
        return np.empty(shape, dtype=numpy_dtype(dtype))

    def _empty_on_device(self, shape: tuple[int, ...], dtype: int) -> Any:
        if self.framework == "torch":
            torch = sys.modules["torch"]
            with self._on_stream():
                return torch.empty(shape, dtype=getattr(torch, _NAMES[dtype]), device=self._torch_device)
        if self.framework == "cupy":
            with self._on_stream():
                return sys.modules["cupy"].empty(shape, dtype=numpy_dtype(dtype))
        return cuda.empty(shape, numpy_dtype(dtype), self.device[1])

    def block(self, size: int) -> Any:
        """New bytes at a multiple of 64, uninitialised."""
        return aligned(size) if self.on_cpu else self.empty((size,), _ffi.U8)

    def place(self, small: NDArray[Any]) -> Any:
        """What was made on the host, where the other arrays are: a copy on the device."""
        if self.on_cpu:
            return small
        if self.framework == "torch":
            torch = sys.modules["torch"]
            with self._on_stream():
                return torch.from_numpy(small).to(self._torch_device)
        if self.framework == "cupy":
            with self._on_stream():
                return sys.modules["cupy"].asarray(small)
        return cuda.array(small, self.device[1])

    def part(self, block: Any, offset: int, shape: tuple[int, ...], dtype: int) -> Any:
        """A view of bytes of a block, in NumPy where that is on the host."""
        if self.on_cpu:
            return np.ndarray(shape, numpy_dtype(dtype), block, offset)
        if isinstance(block, cuda.Array):
            return block.part(offset, shape, numpy_dtype(dtype))
        end = offset + math.prod(shape) * _ITEM[dtype]
        kind = getattr(sys.modules["torch"], _NAMES[dtype]) if self.framework == "torch" else numpy_dtype(dtype)
        return block[offset:end].view(kind).reshape(shape)

    def column(self, table: Any, number: int) -> Any:
        """A column of a part."""
        return table.column(number) if isinstance(table, cuda.Array) else table[:, number]

    def fetch(self, block: Any) -> NDArray[Any]:
        """A result in NumPy: the host's own memory, or a copy of the device's after the run's stream is done."""
        if not self.on_cpu:
            cuda.synchronize(self.stream, self.device[1])
        return host(block, "results")

    def wrap(self, memory: Any) -> Any:
        """An output as the caller's framework has it. jax has no f64 and i64 unless `jax_enable_x64` is set: it rounds them to 32 bits."""
        if self.framework == "jax" and isinstance(memory, np.ndarray):
            jax = sys.modules["jax"]
            return jax.device_put(memory, may_alias=True) if self.once else jax.numpy.array(memory)
        return memory

    def native(self, small: Any) -> Any:
        """A small result in the caller's framework, sharing memory where that has a way."""
        if self.framework == "torch" and isinstance(small, np.ndarray):
            torch = sys.modules["torch"]
            return torch.from_numpy(small)
        return self.wrap(small)


def aligned(bytes_wanted: int, alignment: int = 64) -> NDArray[np.uint8]:
    """Memory of at least `bytes_wanted` bytes at a multiple of `alignment`."""
    memory = np.empty(bytes_wanted + alignment, dtype=np.uint8)
    start = -memory.__array_interface__["data"][0] % alignment
    return memory[start : start + bytes_wanted]


def address(memory: Any) -> int:
    """Address of the first element, of memory that a `Maker` made."""
    if isinstance(memory, np.ndarray):
        return int(memory.__array_interface__["data"][0])
    return int(array(memory, "memory").view.data or 0)
