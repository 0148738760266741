"""Types, layouts and frameworks of inputs and outputs."""
from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import passrl

SIGNAL = np.array([1, 1, -1, -1, 0.5, 0.5, 0.5], np.float32)
REST: dict[str, Any] = {"cu_seqlens": np.array([0, 4, 7]), "group_size": 2, "outcome": np.array([1.0, 0.0])}


def wanted() -> Any:
    return passrl.shape(signal=SIGNAL, dtype="f64", **REST).advantages


def test_types_of_signal_and_advantages() -> None:
    ml_dtypes = pytest.importorskip("ml_dtypes", reason="ml_dtypes absent: NumPy bf16 not tested")
    for signal_type in (np.float32, np.float16, ml_dtypes.bfloat16):
        for name, out_type in (("f64", np.float64), ("f32", np.float32), ("f16", np.float16), ("bf16", ml_dtypes.bfloat16)):
            for asked in (name, out_type, np.dtype(out_type)):
                found = passrl.shape(signal=SIGNAL.astype(signal_type), dtype=asked, **REST).advantages
                assert found.dtype == np.dtype(out_type)
                np.testing.assert_array_equal(found, wanted().astype(out_type))
    # Whatever the input, the advantages are f32 unless asked otherwise.
    assert passrl.shape(signal=SIGNAL.astype(ml_dtypes.bfloat16), **REST).advantages.dtype == np.float32


def test_out_is_filled_and_in_place_works() -> None:
    out = np.full(7, 9, np.float16)
    shaped = passrl.shape(signal=SIGNAL, out=out, **REST)
    assert shaped.advantages is out
    np.testing.assert_array_equal(out, wanted().astype(np.float16))
    signal = SIGNAL.copy()
    assert passrl.shape(signal=signal, out=signal, **REST).advantages is signal
    np.testing.assert_array_equal(signal, wanted().astype(np.float32))
    returns = np.empty(7, np.float64)
    assert passrl.shape(signal=SIGNAL, returns=returns, k=0, **REST).returns is returns
    np.testing.assert_array_equal(returns, wanted_k0())
    read_only = np.zeros(7, np.float32)
    read_only.flags.writeable = False
    with pytest.raises(passrl.ArgumentError, match="read-only"):
        passrl.shape(signal=SIGNAL, out=read_only, **REST)


def wanted_k0() -> Any:
    return passrl.shape(signal=SIGNAL, k=0, dtype="f64", **REST).advantages


def test_strides_are_viewed_not_copied() -> None:
    wide = np.zeros((7, 3), np.float32)
    wide[:, 1] = SIGNAL
    out = np.zeros((7, 2), np.float32)
    passrl.shape(signal=wide[:, 1], out=out[:, 0], **REST)
    np.testing.assert_array_equal(out[:, 0], wanted().astype(np.float32))
    assert not out[:, 1].any()
    backwards = np.ascontiguousarray(SIGNAL[::-1])
    np.testing.assert_array_equal(passrl.shape(signal=backwards[::-1], **REST).advantages, wanted().astype(np.float32))
    columns = np.asfortranarray(np.stack([SIGNAL[:3], SIGNAL[4:]]))
    rows = passrl.shape(signal=columns, group_size=2)
    np.testing.assert_array_equal(rows.advantages, passrl.shape(signal=np.ascontiguousarray(columns), group_size=2).advantages)


def test_read_only_inputs_are_taken() -> None:
    signal = SIGNAL.copy()
    signal.flags.writeable = False
    np.testing.assert_array_equal(passrl.shape(signal=signal, **REST).advantages, wanted().astype(np.float32))


class Shared:
    """An array known by `__dlpack__` alone, with or without versions."""

    def __init__(self, array: Any, versioned: bool) -> None:
        self.array, self.versioned = array, versioned

    def __dlpack_device__(self) -> Any:
        return self.array.__dlpack_device__()

    def __dlpack__(self, **options: Any) -> Any:
        if not self.versioned and options:
            raise TypeError("no keyword")
        return self.array.__dlpack__(**options)


@pytest.mark.parametrize("versioned", [True, False])
def test_dlpack(versioned: bool) -> None:
    out = np.empty(7, np.float32)
    shaped = passrl.shape(signal=Shared(SIGNAL, versioned), out=Shared(out, versioned), **REST)
    np.testing.assert_array_equal(out, wanted().astype(np.float32))
    assert shaped.num_chunks.tolist() == [2, 1]


def test_torch() -> None:
    torch = pytest.importorskip("torch", reason="SKIPPED: torch is not installed, its tensors were not tested")
    rest = REST | {"outcome": torch.tensor([1.0, 0.0])}
    signal = torch.tensor(SIGNAL, requires_grad=True)
    shaped = passrl.shape(signal=signal, **rest)
    assert isinstance(shaped.advantages, torch.Tensor) and shaped.advantages.dtype == torch.float32 and not shaped.advantages.requires_grad
    np.testing.assert_array_equal(shaped.advantages.numpy(), wanted().astype(np.float32))
    for small in (shaped.path_scores, shaped.num_chunks, shaped.chunk_ends, shaped.stats["outcome"].mean, shaped.group_flags):
        assert isinstance(small, torch.Tensor)
    low = passrl.shape(signal=torch.tensor(SIGNAL, dtype=torch.bfloat16), dtype=torch.bfloat16, mask=torch.ones(7, dtype=torch.bool), **rest)
    assert low.advantages.dtype == torch.bfloat16
    assert low.advantages.tolist() == torch.tensor(wanted()).to(torch.bfloat16).tolist()
    padded = torch.zeros(2, 6)
    padded[0, 2:], padded[1, 3:] = torch.tensor(SIGNAL[:4]), torch.tensor(SIGNAL[4:])
    left = passrl.shape(signal=padded, lengths=torch.tensor([4, 3]), pad_side="left", groups=torch.tensor([7, 7]), outcome=rest["outcome"])
    assert left.advantages.shape == (2, 6) and left.group_keys == [7]
    np.testing.assert_array_equal(left.advantages[0, 2:].numpy(), wanted()[:4].astype(np.float32))
    out = torch.empty(12)[::2][:6]
    again = passrl.shape(signal=torch.tensor(SIGNAL)[:6], out=out, cu_seqlens=torch.tensor([0, 3, 6], dtype=torch.int32), group_size=2)
    assert again.advantages.data_ptr() == out.data_ptr()


def test_tensors_that_have_no_memory_to_view() -> None:
    torch = pytest.importorskip("torch", reason="SKIPPED: torch is not installed, its tensors were not tested")
    signal = torch.tensor([1.0, 1, -1, -1, 0.5, 0.5, 0.5])
    rest: dict[str, Any] = {"lengths": [4, 3], "group_size": 2, "outcome": [1, 0]}
    for wrong in (signal.to("meta"), signal.to_sparse(), torch.nested.nested_tensor([signal[:4], signal[4:]], layout=torch.jagged)):
        with pytest.raises(passrl.ArgumentError, match="signal is a .*Tensor whose memory cannot be seen"):
            passrl.shape(signal=wrong, **rest)

    class Named(torch.Tensor):
        pass

    # A class of the caller's own is still torch's.
    assert isinstance(passrl.shape(signal=signal.as_subclass(Named), **rest).advantages, torch.Tensor)


def test_jax() -> None:
    jax = pytest.importorskip("jax", reason="SKIPPED: jax is not installed, its arrays were not tested")
    shaped = passrl.shape(signal=jax.numpy.asarray(SIGNAL), **REST)
    assert isinstance(shaped.advantages, jax.Array)
    np.testing.assert_array_equal(np.asarray(shaped.advantages), wanted().astype(np.float32))


def test_jax_under_jit() -> None:
    """A tracer has no memory: refused with the way, which works."""
    jax = pytest.importorskip("jax", reason="SKIPPED: jax is not installed, its arrays were not tested")
    signal, outcome = jax.numpy.array([1.0, 1, -1, -1, 0.5, 0.5, 0.5]), jax.numpy.array([1.0, 0])

    def advantages(signal: Any, outcome: Any) -> Any:
        return passrl.shape(signal=signal, lengths=[4, 3], group_size=2, outcome=outcome).advantages

    with pytest.raises(passrl.ArgumentError, match="signal is a .*Tracer whose memory cannot be seen.*jax.pure_callback"):
        jax.jit(advantages)(signal, outcome)
    called = jax.jit(lambda s, o: jax.pure_callback(lambda *a: np.asarray(advantages(*a)), jax.ShapeDtypeStruct(s.shape, s.dtype), s, o))
    np.testing.assert_array_equal(called(signal, outcome), advantages(signal, outcome))


def test_groups_by_any_key() -> None:
    signal = np.array([1, 2, 3, 4, 5, 6], np.float32)
    ones = {"signal": signal, "kind": "kl", "lengths": [1] * 6}
    by_size = passrl.shape(group_size=2, **ones).advantages
    order = [0, 2, 4, 1, 3, 5]
    for keys in (["b", "a", "b", "c", "a", "c"], [9, -4, 9, 2**40, -4, 2**40], np.array([3, 1, 3, 0, 1, 0], np.int32), np.array(["x", "", "x", "z", "", "z"])):
        mixed = passrl.shape(groups=keys, **(ones | {"signal": signal[[0, 2, 1, 4, 3, 5]]}))
        np.testing.assert_array_equal(mixed.advantages, by_size[[0, 2, 1, 4, 3, 5]])
        assert mixed.group_keys == list(dict.fromkeys(np.asarray(keys).tolist()))
    offsets = passrl.shape(group_offsets=np.array([0, 2, 4, 6], np.int32), **ones)
    np.testing.assert_array_equal(offsets.advantages, by_size)
    assert sorted(order) == list(range(6))


def test_empty_batches() -> None:
    shaped = passrl.shape(signal=np.zeros(0, np.float32), lengths=[], group_size=4)
    assert shaped.advantages.shape == (0,) and shaped.chunk_offsets.tolist() == [0]
    shaped = passrl.shape(signal=np.zeros(0, np.float32), lengths=[0, 0], group_size=2)
    assert shaped.num_chunks.tolist() == [0, 0]
    assert passrl.shape(signal=np.zeros(0, np.float32), lengths=[], groups=[]).group_keys == []
