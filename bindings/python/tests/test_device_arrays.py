"""Arrays on a CUDA device, without one: stand-ins that speak `__cuda_array_interface__` and DLPack. Their views are looked at, nothing is read."""
from __future__ import annotations

import ctypes
import sys
from typing import Any

import numpy as np
import pytest

import passrl
from passrl import _ffi, arrays
from passrl.plan import stream_pointer

SIGNAL = np.array([1, 1, -1, -1, 0.5, 0.5, 0.5], np.float32)
REST: dict[str, Any] = {"cu_seqlens": np.array([0, 4, 7]), "group_size": 2, "outcome": np.array([1.0, 0.0])}
ADDRESS = 0x7F00_0000_1000


class Cuda:
    """An array of `__cuda_array_interface__`."""

    def __init__(self, shape: tuple[int, ...] = (7,), typestr: str = "<f4", version: int = 3, read_only: bool = False, **more: Any) -> None:
        self.__cuda_array_interface__ = {"shape": shape, "typestr": typestr, "data": (ADDRESS, read_only), "version": version, **more}


def view(value: Any) -> tuple[Any, ...]:
    v = arrays.array(value, "x").view
    return v.data, tuple(v.shape[: v.ndim]), tuple(v.stride[: v.ndim]), v.dtype, (v.device_type, v.device_id)


@pytest.mark.parametrize(("value", "wanted"), [
    (Cuda(), ((7,), (1,), _ffi.F32)),
    (Cuda(version=2), ((7,), (1,), _ffi.F32)),
    (Cuda(strides=None), ((7,), (1,), _ffi.F32)),
    (Cuda((3, 5)), ((3, 5), (5, 1), _ffi.F32)),
    (Cuda((3, 5), strides=(40, 4)), ((3, 5), (10, 1), _ffi.F32)),
    (Cuda((3, 5), "<f8", strides=(8, 24)), ((3, 5), (1, 3), _ffi.F64)),
    (Cuda((7,), "<f2", strides=(-2,)), ((7,), (-1,), _ffi.F16)),
    (Cuda((7,), "<f4", strides=(0,)), ((7,), (0,), _ffi.F32)),
    (Cuda((7,), "<i8"), ((7,), (1,), _ffi.I64)),
    (Cuda((7,), "<i4"), ((7,), (1,), _ffi.I32)),
    (Cuda((7,), "|u1"), ((7,), (1,), _ffi.U8)),
    (Cuda((7,), "|b1"), ((7,), (1,), _ffi.BOOL)),
])
def test_cuda_array_interface(value: Cuda, wanted: tuple[Any, ...]) -> None:
    assert view(value) == (ADDRESS, *wanted, (_ffi.CUDA, 0))
    found = arrays.array(value, "x")
    assert found.writable and found.stream is None and found.source is value and not found.on_cpu


def test_cuda_array_interface_of_nothing() -> None:
    value = Cuda((0,))
    value.__cuda_array_interface__["data"] = (0, False)
    assert view(value) == (None, (0,), (1,), _ffi.F32, (_ffi.CUDA, 0))


@pytest.mark.parametrize(("stream", "kept"), [(None, None), (1, 1), (2, 2), (0x55AA00, 0x55AA00)])
def test_stream_of_the_producer_is_kept(stream: int | None, kept: int | None) -> None:
    assert arrays.array(Cuda(stream=stream), "x").stream == kept


@pytest.mark.parametrize(("value", "kind", "sentence"), [
    (Cuda(version=1), passrl.ArgumentError, "x has version 1 of __cuda_array_interface__; 2 and 3 are known"),
    (Cuda(mask=Cuda((7,), "|b1")), passrl.ArgumentError, "x is a masked array .* give its data, and the mask as mask="),
    (Cuda(stream=0), passrl.ArgumentError, "x has stream 0, which the interface does not allow"),
    (Cuda(typestr=">f4"), passrl.DtypeError, "x has typestr >f4; .* native byte order"),
    (Cuda(typestr="<V2"), passrl.DtypeError, r"x has typestr <V2; .*bfloat16 by DLPack"),
    (Cuda(typestr="<c8"), passrl.DtypeError, "x has typestr <c8"),
    (Cuda(()), passrl.ShapeError, "x has 0 dimensions; it must have 1 or 2"),
    (Cuda((2, 2, 2)), passrl.ShapeError, "x has 3 dimensions; it must have 1 or 2"),
    (Cuda(strides=(6,)), passrl.ShapeError, "x has strides of .6,. bytes; they must be multiples of its 4-byte elements"),
    (Cuda((3, 5), strides=(4,)), passrl.ShapeError, "x has 2 dimensions and 1 strides"),
])
def test_cuda_array_interface_refused(value: Cuda, kind: type[passrl.Error], sentence: str) -> None:
    with pytest.raises(passrl.Error, match=sentence) as caught:
        arrays.array(value, "x")
    assert type(caught.value) is kind


def test_read_only_device_memory_is_no_output() -> None:
    assert arrays.array(Cuda(read_only=True), "x").view.data == ADDRESS
    for name in ("out", "returns"):
        with pytest.raises(passrl.ArgumentError, match=f"{name} is a read-only Cuda"):
            passrl.shape(signal=SIGNAL, **{name: Cuda(read_only=True)}, **REST)


class _Tensor(ctypes.Structure):
    _fields_ = [
        ("data", ctypes.c_void_p), ("device_type", ctypes.c_int32), ("device_id", ctypes.c_int32), ("ndim", ctypes.c_int32),
        ("code", ctypes.c_uint8), ("bits", ctypes.c_uint8), ("lanes", ctypes.c_uint16), ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)), ("byte_offset", ctypes.c_uint64),
    ]


class _Legacy(ctypes.Structure):
    _fields_ = [("tensor", _Tensor), ("context", ctypes.c_void_p), ("deleter", ctypes.c_void_p)]


class _Versioned(ctypes.Structure):
    _fields_ = [
        ("major", ctypes.c_uint32), ("minor", ctypes.c_uint32), ("context", ctypes.c_void_p), ("deleter", ctypes.c_void_p),
        ("flags", ctypes.c_uint64), ("tensor", _Tensor),
    ]


_new_capsule = ctypes.pythonapi.PyCapsule_New
_new_capsule.restype, _new_capsule.argtypes = ctypes.py_object, [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]
_deleter_type = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
FLOAT, BFLOAT = (2, 32), (4, 16)


class DLPack:
    """A producer of DLPack capsules, old (no keyword but stream, "dltensor") or new ("dltensor_versioned"); notes how it was asked."""

    def __init__(
        self, shape: tuple[int, ...] = (7,), strides: tuple[int, ...] | None = (1,), code: tuple[int, int] = FLOAT, device: tuple[int, int] = (2, 3),
        *, versioned: bool = True, read_only: bool = False, byte_offset: int = 0, data: int = ADDRESS, major: int = 1,
    ) -> None:
        self._shape = (ctypes.c_int64 * len(shape))(*shape)
        self._strides = None if strides is None else (ctypes.c_int64 * len(strides))(*strides)
        tensor = _Tensor(data, *device, len(shape), *code, 1, self._shape, self._strides, byte_offset)
        self._managed = _Versioned(major, 0, None, None, int(read_only), tensor) if versioned else _Legacy(tensor, None, None)
        self._versioned, self._device = versioned, device
        self.asked: list[dict[str, Any]] = []

    def __dlpack_device__(self) -> tuple[int, int]:
        return self._device

    def __dlpack__(self, **options: Any) -> Any:
        if not self._versioned and options.keys() - {"stream"}:
            raise TypeError("__dlpack__() got an unexpected keyword argument 'max_version'")
        self.asked.append(options)
        return _new_capsule(ctypes.addressof(self._managed), b"dltensor_versioned" if self._versioned else b"dltensor", None)


@pytest.mark.parametrize("versioned", [True, False])
@pytest.mark.parametrize(("tensor", "wanted"), [
    ({}, (ADDRESS, (7,), (1,), _ffi.F32, (_ffi.CUDA, 3))),
    ({"shape": (3, 5), "strides": None}, (ADDRESS, (3, 5), (5, 1), _ffi.F32, (_ffi.CUDA, 3))),
    ({"shape": (3, 5), "strides": (1, 3), "code": BFLOAT}, (ADDRESS, (3, 5), (1, 3), _ffi.BF16, (_ffi.CUDA, 3))),
    ({"byte_offset": 64, "device": (2, 0)}, (ADDRESS + 64, (7,), (1,), _ffi.F32, (_ffi.CUDA, 0))),
    ({"device": (13, 1)}, (ADDRESS, (7,), (1,), _ffi.F32, (_ffi.CUDA, 1))),
    # Pinned memory is the host's.
    ({"device": (3, 0)}, (ADDRESS, (7,), (1,), _ffi.F32, (_ffi.CPU, 0))),
])
def test_dlpack(versioned: bool, tensor: dict[str, Any], wanted: tuple[Any, ...]) -> None:
    value = DLPack(versioned=versioned, **tensor)
    assert view(value) == wanted
    found = arrays.array(value, "x")
    assert found.writable and found.source is value
    # The producer is not to synchronise: the caller's stream is the run's.
    asked = {"stream": -1} if value.__dlpack_device__()[0] in (2, 13) else {}
    assert value.asked[-1] == (asked | {"max_version": (1, 0)} if versioned else asked)


def test_dlpack_read_only_is_no_output() -> None:
    assert not arrays.array(DLPack(read_only=True), "x").writable
    with pytest.raises(passrl.ArgumentError, match="out is a read-only DLPack"):
        passrl.shape(signal=SIGNAL, out=DLPack(read_only=True), **REST)


@pytest.mark.parametrize("versioned", [True, False])
@pytest.mark.parametrize(("tensor", "kind", "sentence"), [
    ({"shape": (2, 2, 2), "strides": None}, passrl.ShapeError, r"dltensor has 3 dimensions; a view has 1 or 2 \(argument x\)"),
    ({"code": (5, 64)}, passrl.DtypeError, r"dltensor has type code 5 with 64 bits; .* \(argument x\)"),
    ({"device": (10, 0)}, passrl.DeviceError, r"dltensor is on DLPack device type 10; .* \(argument x\)"),
])
def test_dlpack_refused(versioned: bool, tensor: dict[str, Any], kind: type[passrl.Error], sentence: str) -> None:
    with pytest.raises(passrl.Error, match=sentence) as caught:
        arrays.array(DLPack(versioned=versioned, **tensor), "x")
    assert type(caught.value) is kind


def test_dlpack_of_a_version_to_come_is_refused() -> None:
    with pytest.raises(passrl.ArgumentError, match=r"x gives a DLPack capsule of version 2\.0; 1\.x is known"):
        arrays.array(DLPack(major=2), "x")


def test_the_producer_is_held_as_long_as_the_view() -> None:
    """The capsule is not consumed: the producer's own deleter frees the tensor, once, when the view is gone."""
    x = np.arange(5.0)

    class Held:
        def __dlpack_device__(self) -> Any:
            return x.__dlpack_device__()

        def __dlpack__(self, **options: Any) -> Any:
            return x.__dlpack__(**options)

    before = sys.getrefcount(x)
    found = arrays.array(Held(), "x")
    assert found.view.data == x.__array_interface__["data"][0] and sys.getrefcount(x) == before + 1
    del found
    assert sys.getrefcount(x) == before


@pytest.mark.parametrize("value", [Cuda(), DLPack(), DLPack(versioned=False)])
def test_device_batches_are_refused_by_name(value: Any) -> None:
    for call in (lambda: passrl.shape(signal=value, **REST), lambda: passrl.whiten(value, lengths=[7]),
                 lambda: passrl.group_standardize(value, group_size=7)):
        with pytest.raises(passrl.Error) as caught:
            call()
        assert caught.value.status in (-105, -300)
        assert "CUDA" in str(caught.value) and "copy them to the host to use the CPU" in str(caught.value)
    with pytest.raises(passrl.DeviceError, match=r"batch.signal\[0\] is on CUDA device \d, the context is the CPU"):
        passrl.shape(signal=value, backend="cpu", out=np.empty(7, np.float32), **REST)
    with pytest.raises(passrl.DeviceError, match=r"x is on CUDA device \d, "):
        passrl.whiten(value, lengths=[7], backend="cpu", out=np.empty(7, np.float32))
    with pytest.raises(passrl.DeviceError, match=r"batch.outcome is on CUDA device"):
        passrl.shape(backend="cpu", **(REST | {"signal": SIGNAL, "outcome": value}))


def test_what_is_read_on_the_host_is_fetched_or_refused() -> None:
    class Fetched(Cuda):
        def get(self) -> Any:
            return REST["cu_seqlens"]

    with pytest.raises(passrl.DeviceError, match="cu_seqlens is a Cuda on a device and is read on the host; give a NumPy array"):
        passrl.shape(**(REST | {"signal": SIGNAL, "cu_seqlens": Cuda((3,), "<i8")}))
    np.testing.assert_array_equal(arrays.host(Fetched(), "cu_seqlens"), REST["cu_seqlens"])


@pytest.mark.parametrize(("stream", "address"), [
    (None, None), (7, 7), (type("Torch", (), {"cuda_stream": 5})(), 5), (type("CuPy", (), {"ptr": 6})(), 6),
    (type("Protocol", (), {"__cuda_stream__": lambda self: (0, 9)})(), 9),
])
def test_streams(stream: Any, address: int | None) -> None:
    assert stream_pointer(stream) == address
