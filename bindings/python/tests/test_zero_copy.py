"""What the library reads and writes is the caller's own memory: the same addresses going in and coming out, in every framework on the CPU."""
from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import passrl
from passrl import arrays
from passrl._primitive import Primitive
from passrl.batch import Arguments

SIGNAL = np.array([1, 1, -1, -1, 0.5, 0.5, 0.5], np.float32)
REST: dict[str, Any] = {"cu_seqlens": np.array([0, 4, 7]), "group_size": 2, "outcome": np.array([1.0, 0.0])}
FRAMEWORKS = ["numpy", "torch", "jax"]
DTYPES = ["float64", "float32", "float16", "bfloat16", "int64", "int32", "uint8", "bool"]


def wanted() -> Any:
    return passrl.shape(signal=SIGNAL, **REST).advantages


def seen(value: Any) -> tuple[int, tuple[int, ...], tuple[int, ...]]:
    """Address, shape and strides (in elements) of the package's view."""
    view = arrays.array(value, "x").view
    return view.data or 0, tuple(view.shape[: view.ndim]), tuple(view.stride[: view.ndim])


def written(call: passrl.Call, name: str = "advantages") -> int:
    """Address that the library was given for an output."""
    return int(getattr(call.sinks.struct, name).contents.data)


def module(name: str) -> Any:
    return pytest.importorskip(name, reason=f"SKIPPED: {name} is not installed, its arrays were not tested (make frameworks brings it)")


def made_by(framework: str) -> tuple[Any, Any]:
    """What makes an array of a NumPy one, and the type of the arrays."""
    if framework == "numpy":
        return np.array, np.ndarray
    found = module(framework)
    return (found.tensor, found.Tensor) if framework == "torch" else (found.numpy.asarray, found.Array)


def address(value: Any) -> int:
    """Address by the framework's own word for it."""
    for name in ("data_ptr", "unsafe_buffer_pointer"):
        if hasattr(value, name):
            return int(getattr(value, name)())
    return int(value.__array_interface__["data"][0])


def test_numpy_views() -> None:
    memory = np.zeros((6, 8), np.float32)
    base = memory.__array_interface__["data"][0]
    assert seen(memory) == (base, (6, 8), (8, 1))
    assert seen(memory[1:5:2, ::-1]) == (base + 4 * (8 + 7), (2, 8), (16, -1))
    assert seen(memory.T) == (base, (8, 6), (1, 8))
    assert seen(np.broadcast_to(memory[0], (3, 8))) == (base, (3, 8), (0, 1))
    assert seen(memory[2, 3:3])[1:] == ((0,), (1,))
    with pytest.raises(passrl.ShapeError, match="strides of .* bytes; they must be multiples"):
        seen(np.zeros(4, [("a", np.float32), ("b", np.uint8)])["a"])


@pytest.mark.parametrize("dtype", DTYPES)
def test_torch_views(dtype: str) -> None:
    torch = module("torch")
    x = torch.zeros((6, 8), dtype=getattr(torch, dtype))
    base, size = x.data_ptr(), x.element_size()
    assert seen(x) == (base, (6, 8), (8, 1))
    assert seen(x[1:5:2, 3:]) == (base + size * 11, (2, 5), (16, 1))
    assert seen(x.T) == (base, (8, 6), (1, 8))
    assert seen(x[0].expand(3, 8)) == (base, (3, 8), (0, 1))
    found = arrays.array(x, "x")
    assert found.writable and found.dtype == arrays.dtype_number(dtype) == arrays.dtype_number(x.dtype)


@pytest.mark.parametrize("dtype", [name for name in DTYPES if "64" not in name])
def test_jax_views(dtype: str) -> None:
    jax = module("jax")
    x = jax.numpy.zeros((6, 8), dtype=dtype)
    assert seen(x) == (x.unsafe_buffer_pointer(), (6, 8), (8, 1))
    assert arrays.array(x, "x").dtype == arrays.dtype_number(dtype) == arrays.dtype_number(x.dtype)


def test_numpy_results_are_what_was_written() -> None:
    plan = passrl.Plan(rollouts=2, tokens=7)
    call = plan.bind(signal=SIGNAL, returns=True, **REST)
    shaped = call()
    assert address(shaped.advantages) == written(call) and address(shaped.returns) == written(call, "returns")
    assert address(shaped.path_scores) == written(call, "path_scores")
    out = np.empty((7, 2), np.float32)[:, 1]
    assert written(plan.bind(signal=SIGNAL, out=out, **REST)) == address(out)


def test_torch_results_are_what_was_written() -> None:
    torch = module("torch")
    signal = torch.tensor(SIGNAL)
    plan = passrl.Plan(rollouts=2, tokens=7)
    call = plan.bind(signal=signal, returns=True, **REST)
    assert int(call.batch.struct.signal[0].contents.data) == signal.data_ptr()
    shaped = call()
    for name in ("advantages", "returns", "path_scores", "num_chunks"):
        assert isinstance(getattr(shaped, name), torch.Tensor) and getattr(shaped, name).data_ptr() == written(call, name)
    np.testing.assert_array_equal(shaped.advantages.numpy(), wanted())
    out = torch.empty(14)[::2]
    call = plan.bind(signal=signal, out=out, **REST)
    assert call().advantages is out and written(call) == out.data_ptr()
    np.testing.assert_array_equal(out.numpy(), wanted())
    # A parameter's memory, and memory that NumPy shares with torch.
    with_gradient = torch.tensor(SIGNAL, requires_grad=True)
    assert seen(with_gradient)[0] == with_gradient.data_ptr()
    shared = np.zeros(7, np.float32)
    passrl.shape(signal=signal, out=torch.from_numpy(shared), **REST)
    np.testing.assert_array_equal(shared, wanted())


def test_jax_results_are_what_was_written() -> None:
    jax = module("jax")
    signal = jax.numpy.asarray(SIGNAL)
    plan = passrl.Plan(rollouts=2, tokens=7)
    call = plan.bind(signal=signal, returns=True, **REST)
    assert int(call.batch.struct.signal[0].contents.data) == signal.unsafe_buffer_pointer()
    first = call().advantages
    # A bound call writes its memory again, and jax arrays never change: they are copies.
    assert isinstance(first, jax.Array) and address(first) != written(call)
    np.testing.assert_array_equal(np.asarray(first), wanted())
    # A call that is not kept leaves its memory to the array.
    call = plan.bind(signal=signal, returns=True, dtype="bf16", **REST)
    shaped = call.once()
    assert shaped.advantages.dtype == jax.numpy.bfloat16
    assert address(shaped.advantages) == written(call) and address(shaped.returns) == written(call, "returns")
    shaped = plan.run(signal=signal, **REST)
    assert isinstance(shaped.advantages, jax.Array) and address(shaped.advantages) == address(shaped.advantages)


def test_jax_arrays_are_never_written() -> None:
    jax = module("jax")
    x = jax.numpy.zeros(7, jax.numpy.float32)
    for call in (lambda: passrl.shape(signal=SIGNAL, out=x, **REST), lambda: passrl.shape(signal=SIGNAL, returns=x, **REST),
                 lambda: passrl.whiten(SIGNAL, lengths=[7], out=x), lambda: passrl.gae(SIGNAL, SIGNAL, lengths=[7], returns=x)):
        with pytest.raises(passrl.ArgumentError, match="is a jax array, and those are immutable"):
            call()
    assert not np.asarray(x).any()
    # NumPy memory for a jax batch is the caller's, and comes back as it is.
    out, returns = np.empty(7, np.float32), np.empty(7, np.float32)
    shaped = passrl.shape(signal=jax.numpy.asarray(SIGNAL), out=out, returns=returns, **REST)
    assert shaped.advantages is out and shaped.returns is returns
    shaped = passrl.shape(signal=jax.numpy.asarray(SIGNAL), returns=returns, **REST)
    assert isinstance(shaped.advantages, jax.Array) and shaped.returns is returns
    advantages, again = passrl.gae(jax.numpy.asarray(SIGNAL), jax.numpy.asarray(SIGNAL), lengths=[7], returns=returns)
    assert isinstance(advantages, jax.Array) and again is returns


def test_jax_copies_unaligned_memory() -> None:
    """jax's own habit, told in the docstring of `arrays.array`: memory off a 64-byte boundary is copied when a jax array is made of it."""
    jax = module("jax")
    memory = arrays.aligned(4 * 80).view(np.float32)
    memory[:] = 1
    on = jax.dlpack.from_dlpack(memory[16:])
    off = jax.dlpack.from_dlpack(memory[1:])
    assert seen(on)[0] == address(memory) + 64
    assert seen(off)[0] not in range(address(memory), address(memory) + memory.nbytes)


def test_read_only_memory_is_no_output() -> None:
    frozen = np.zeros(7, np.float32)
    frozen.flags.writeable = False
    for call in (lambda: passrl.shape(signal=SIGNAL, out=frozen, **REST), lambda: passrl.shape(signal=SIGNAL, returns=frozen, **REST),
                 lambda: passrl.opd_signal(SIGNAL, SIGNAL, lengths=[7], out=frozen), lambda: passrl.gae(SIGNAL, SIGNAL, lengths=[7], returns=frozen)):
        with pytest.raises(passrl.ArgumentError, match="is a read-only ndarray"):
            call()
    assert not frozen.any()


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_primitives_answer_in_the_callers_framework(framework: str) -> None:
    new, kind = made_by(framework)
    x, rest = new(SIGNAL), {"lengths": new([4, 3])}
    plain = {"lengths": [4, 3]}
    both: list[tuple[Any, Any]] = [
        (passrl.discounted_returns(x, 0.9, **rest), passrl.discounted_returns(SIGNAL, 0.9, **plain)),
        *zip(passrl.gae(x, x, 0.9, 0.8, **rest), passrl.gae(SIGNAL, SIGNAL, 0.9, 0.8, **plain)),
        (passrl.divide_length(x, **rest), passrl.divide_length(SIGNAL, **plain)),
        (passrl.opd_signal(x, x, **rest), passrl.opd_signal(SIGNAL, SIGNAL, **plain)),
        (passrl.whiten(x, **rest), passrl.whiten(SIGNAL, **plain)),
        *zip(passrl.chunk(x, **rest), passrl.chunk(SIGNAL, **plain)),
        (passrl.group_standardize(x, new([5, 5, 5, 5, 9, 9, 9])), passrl.group_standardize(SIGNAL, [0] * 4 + [1] * 3)),
        (passrl.group_flags(x, group_size=7).group_flags, passrl.group_flags(SIGNAL, group_size=7).group_flags),
    ]
    for found, numpys in both:
        assert isinstance(found, kind) and "cpu" in str(getattr(found, "device", "cpu")).lower()
        np.testing.assert_array_equal(np.asarray(found), numpys)
    low = passrl.whiten(x, dtype="bf16", **rest)
    assert isinstance(low, kind) and "bfloat16" in str(low.dtype)


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_primitives_write_where_they_say(framework: str) -> None:
    new, _ = made_by(framework)
    made = Primitive(Arguments(lengths=[7]), {"x": new(SIGNAL)})
    result = made.out((7,), None, "x")
    made.call("divide_length", 0.7, made.view("x"), result)
    assert address(made.result()) == result.contents.data
    assert made.view("x").contents.data == address(made.batch.views["x"].source)


def test_torch_is_told_of_what_is_written() -> None:
    torch = module("torch")
    signal = torch.tensor(SIGNAL)
    batch = {"signal": signal, "cu_seqlens": torch.tensor([0, 4, 7]), "group_size": 2, "outcome": torch.tensor([1.0, 0.0])}
    plan = passrl.Plan(rollouts=2, groups=1, tokens=7)
    for write in (
        lambda out: passrl.shape(out=out, **batch), lambda out: passrl.shape(returns=out, **batch), lambda out: plan.bind(out=out, **batch)(),
        # The second and later ones are the short way.
        *[lambda out: plan.run(out=out, **batch)] * 3, lambda out: passrl.discounted_returns(signal, lengths=[7], out=out),
        lambda out: passrl.gae(signal, signal, lengths=[7], returns=out), lambda out: passrl.group_standardize(signal, group_size=7, out=out),
    ):
        x, out = torch.ones(7, requires_grad=True), torch.zeros(7)
        loss = (x * out).sum()
        version = out._version
        write(out)
        assert out._version == version + 1
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            loss.backward()
        # Of the others nothing is said: they were read.
        assert signal._version == 0
        leaf = torch.zeros(7, requires_grad=True)
        with pytest.raises(passrl.ArgumentError, match=r"(out|returns) is a leaf tensor that requires grad.*\.detach\(\), or call this under torch.no_grad\(\)"):
            write(leaf)
        assert leaf._version == 0 and not leaf.detach().any()
        with torch.no_grad():
            write(leaf)
        assert leaf._version == 1
        with torch.inference_mode():
            write(torch.zeros(7))
    ends = torch.zeros(7, dtype=torch.int32)
    passrl.chunk(signal, out=ends)
    assert ends._version == 1
