"""Runs on a CUDA device from Python, against the CPU: every bit. `test_cuda.py` runs this file on the simulated driver; on a real one it is
`pytest bindings/python/tests/on_device.py`. The file's name keeps it out of a plain `pytest`."""

from __future__ import annotations

import ctypes
import gc
import os
import sys
import threading
import types
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import passrl
from passrl import arrays, cuda
from random_calls import random_call, random_primitives
from test_pieces import LENS, LIMITS, share, whole
from test_ranks import RANKS
from test_ready import LONG, PLANNED, RESULTS, batch, planned

SIMULATED = "PASSRL_SIMULATED" in os.environ
simulated = pytest.mark.skipif(not SIMULATED, reason="SKIPPED: the simulated driver's own counts are asked for")


def on_device(value: Any) -> Any:
    if isinstance(value, passrl.Steps):
        return passrl.Steps(*(on_device(part) for part in vars(value).values()))
    if isinstance(value, (list, tuple)):
        return type(value)(on_device(part) for part in value)
    if isinstance(value, dict):
        return {name: on_device(part) for name, part in value.items()}
    return cuda.array(value) if isinstance(value, np.ndarray) else value


def moved(given: dict[str, Any]) -> dict[str, Any]:
    """Arguments whose arrays are on the device; groups stay keys, which are made numbers on the host."""
    return {name: value if name == "groups" else on_device(value) for name, value in given.items()}


def same(found: passrl.Shaped, wanted: passrl.Shaped) -> None:
    host = found.to_host()
    for name in RESULTS:
        there, here, theirs = getattr(found, name), getattr(host, name), getattr(wanted, name)
        assert (here is None) == (theirs is None), name
        if here is not None:
            assert here.dtype == theirs.dtype and here.shape == theirs.shape and here.tobytes() == theirs.tobytes(), name
            assert not isinstance(there, np.ndarray) and arrays.host(there, name).tobytes() == theirs.tobytes(), name
    assert found.status == host.status == wanted.status and found.message == wanted.message
    ours, theirs = found.report.as_dict(), wanted.report.as_dict()
    size = max(1.0, (theirs["sum_squares"] * theirs["tokens"]) ** 0.5)
    for field in ("sum_advantages", "sum_squares"):  # the order of these sums is the backend's own
        np.testing.assert_allclose(ours.pop(field), theirs.pop(field), rtol=1e-12, atol=1e-12 * size)
    assert ours == theirs and found.group_keys == wanted.group_keys
    assert found.stats is not None and wanted.stats is not None and list(found.stats) == list(wanted.stats)
    for stream in wanted.stats:
        assert all(np.array_equal(arrays.host(a, stream), b) for a, b in zip(found.stats[stream], wanted.stats[stream], strict=True)), stream


@pytest.fixture
def sim() -> Iterator[Any]:
    library = ctypes.CDLL("libcuda.so.1")
    library.cudasim_reset()
    yield library
    assert text(library.cudasim_report, 0) == ""


def text(function: Any, *more: Any) -> str:
    buffer = ctypes.create_string_buffer(1 << 16)
    function(buffer, ctypes.c_size_t(len(buffer)), *more)
    return buffer.value.decode()


def new_stream() -> int:
    stream = ctypes.c_void_p()
    with cuda.driver().on(0):
        assert ctypes.CDLL("libcuda.so.1").cuStreamCreate(ctypes.byref(stream), 1) == 0
    assert stream.value
    return stream.value


@pytest.mark.parametrize("begin", range(0, int(os.environ.get("PASSRL_SEEDS", 120)), 40))
def test_random_calls(begin: int) -> None:
    """Every bit of calls that nobody thought of; what one backend refuses, the other does too."""
    ran = 0
    for seed in range(begin, begin + 40):
        preset, given = random_call(seed)
        told = []
        for arguments in (given, moved(given)):
            try:
                told.append(passrl.shape(preset, **arguments))
            except passrl.Error as error:
                told.append(str(error))
        wanted, found = told
        assert isinstance(wanted, str) == isinstance(found, str), (seed, told)
        if isinstance(wanted, passrl.Shaped):
            same(found, wanted)
            ran += 1
    assert ran >= 15, f"{ran} of 40 calls are served"


def parts(result: Any) -> list[Any]:
    """What a primitive returned, in NumPy."""
    if isinstance(result, passrl.Flags):
        return [arrays.host(result.group_flags, ""), arrays.host(result.rollout_flags, ""), result.report.as_dict(), result.group_keys, result.status]
    return [arrays.host(part, "") for one in (result if type(result) is tuple else (result,)) for part in (one if isinstance(one, tuple) else (one,))]


@pytest.mark.filterwarnings("ignore::passrl.FindingWarning")
def test_primitives() -> None:
    """Every stage on its own: on the device, results are there and have the CPU's bits."""
    for seed in range(int(os.environ.get("PASSRL_SEEDS", 120)) // 6):
        for name, (arguments, named) in random_primitives(seed).items():
            function = getattr(passrl, name)
            wanted, found = function(*arguments, **named), function(*map(on_device, arguments), **moved(named))
            assert not any(isinstance(part, np.ndarray) for part in (found if type(found) is tuple else (found,)))
            for here, theirs in zip(parts(found), parts(wanted), strict=True):
                if isinstance(theirs, np.ndarray):
                    assert here.dtype == theirs.dtype and here.shape == theirs.shape and here.tobytes() == theirs.tobytes(), (seed, name)
                else:
                    assert here == theirs, (seed, name)


def test_an_array_without_extents_is_one_rollout() -> None:
    values = np.random.default_rng(10).normal(size=300).astype(np.float32)
    mask = values > -1
    for call in (lambda x, m: passrl.whiten(x, m), lambda x, m: passrl.discounted_returns(x, 0.9, mask=m), lambda x, m: passrl.chunk(x, mask=m).ends):
        found = call(passrl.cuda.array(values), passrl.cuda.array(mask))
        assert arrays.host(found, "found").tobytes() == call(values, mask).tobytes()


def test_primitives_on_a_stream(sim: Any) -> None:
    """In its order, behind what it holds already; lists go to the device."""
    stream, values = new_stream(), np.float32([1, -1, 0.5, 2])
    there = on_device(np.zeros(4, np.float32))
    found, _ = passrl.gae(there, there, 0.9, bootstrap=[1.0, 2.0], lengths=[1, 3], stream=stream)
    cuda.synchronize(stream)
    wanted, _ = passrl.gae(np.zeros(4, np.float32), np.zeros(4, np.float32), 0.9, bootstrap=[1.0, 2.0], lengths=[1, 3])
    assert found.copy_to_host().tobytes() == wanted.tobytes()
    out = cuda.empty(4)
    there.copy_from_host(values)
    assert passrl.discounted_returns(there, 0.5, lengths=[1, 3], out=out, stream=stream) is out
    cuda.synchronize(stream)
    assert out.copy_to_host().tolist() == [1, -0.25, 1.5, 2]


@pytest.mark.parametrize("how", ["packed", "padded", "gae"])
def test_partials(how: str) -> None:
    """Micro-batches on the device have the bits of one call, and the buffer the bytes that it has on the CPU."""
    there, like = planned(how, backend="cuda", whiten="tokens")
    here, _ = planned(how, whiten="tokens")
    micro = [like(np.random.default_rng(seed)) for seed in (11, 12, 13)]
    ours, theirs, stream = passrl.Partials(there), passrl.Partials(here), new_stream()
    for phase in range(ours.phases):
        second = passrl.Partials(there) if phase == 0 else ours
        for number, batch_of in enumerate(micro):
            (second if number == 2 else ours).add(phase, stream=stream, **moved(batch_of) | {name: on_device(batch_of[name]) for name in batch_of if name == "groups"})
            theirs.add(phase, **batch_of)
        if phase == 0:
            ours.merge(second)
        assert ours.to_bytes() == theirs.to_bytes(), phase
        ours.reduce(phase, passrl.Collective(lambda data, op: None, 0, 1))
        assert sum(section.data.copy_to_host().size for section in ours.sections(phase)) == sum(section.data.size for section in theirs.sections(phase))
    read = passrl.Partials.from_bytes(there, theirs.to_bytes())
    for batch_of in micro:
        given = moved(batch_of) | {name: on_device(batch_of[name]) for name in batch_of if name == "groups"}
        wanted = theirs.apply(**batch_of)
        for partials in (ours, read):
            found = partials.apply(stream=stream, **given)
            assert found.to_host().advantages.tobytes() == wanted.advantages.tobytes()
    with pytest.raises(passrl.Error, match="from has fingerprint"):
        passrl.Partials.from_bytes(planned(how, backend="cuda", whiten="tokens", gamma=0.5)[0], theirs.to_bytes())


@pytest.mark.parametrize("how", PLANNED)
def test_shape(how: str) -> None:
    random = np.random.default_rng(1)
    for _ in range(3):
        given = batch(random, how)
        same(passrl.shape(**moved(given)), LONG(**given))


@pytest.mark.parametrize("name", ["pass", "grpo_process", "verl.grpo", "verl.rloo", "trl.grpo", "verl.gae"])
def test_presets(name: str) -> None:
    if name not in passrl.presets():
        pytest.skip(f"no preset {name}")
    given = batch(np.random.default_rng(2), "gae" if name == "verl.gae" else "steps") | {"preset": name}
    same(passrl.shape(**moved(given)), LONG(**given))


@pytest.mark.parametrize("how", PLANNED)
def test_a_plan(how: str) -> None:
    random = np.random.default_rng(3)
    plan, like = planned(how, backend="cuda")
    on_cpu, _ = planned(how)
    assert "cuda" in repr(plan._context)
    for _ in range(3):
        given = like(random)
        # N of a batch without token-shaped arrays is the limit: nothing is read on the host.
        if how in ("outcome", "steps"):
            given |= {"out": np.zeros(given["cu_seqlens"][-1], np.float16), "dtype": None}
        there = {name: on_device(value) for name, value in given.items()}
        found = plan.run(**there)
        assert found.advantages is there.get("out", found.advantages)
        same(found, on_cpu.run(**given))


def test_lists_and_text_are_copied_arrays_are_not() -> None:
    signal = np.float32([1, 1, -1, 0.5, 0.5, 2])
    wanted = LONG(signal=signal, lengths=[2, 1, 1, 2], outcome=[1.0, 0, 0.5, 2], groups=["a", "b", "a", "b"], stats_mean={"outcome": 0.5}, **{"outcome.center": "given"})
    same(passrl.shape(signal=cuda.array(signal), lengths=[2, 1, 1, 2], outcome=[1.0, 0, 0.5, 2], groups=["a", "b", "a", "b"], stats_mean={"outcome": 0.5},
                      **{"outcome.center": "given"}), wanted)
    with pytest.raises(passrl.DeviceError, match="outcome is .*host|outcome is on the CPU"):
        passrl.shape(signal=cuda.array(signal), lengths=[2, 1, 1, 2], outcome=np.zeros(4), group_size=2)
    alone = passrl.shape(outcome=[1.0, 0], lengths=[2, 2], group_size=2, kind="none", chunk="none", backend="cuda")
    assert isinstance(alone.advantages, cuda.Array) and alone.to_host().advantages[0] > 0


def ran_nowhere_but(stream: int) -> bool:
    """Whether work is queued that waiting for another stream does not run, and waiting for this one does."""
    if SIMULATED:
        counts, library = (ctypes.c_uint64 * 64)(), ctypes.CDLL("libcuda.so.1")
        cuda.synchronize(new_stream())
        library.cudasim_stats(None, counts)
        before = counts[0]
        cuda.synchronize(stream)
        library.cudasim_stats(None, counts)
        return bool(counts[0] > before)
    cuda.synchronize(stream)
    return True


def test_bound_in_place_on_a_stream_and_again() -> None:
    random = np.random.default_rng(4)
    given = batch(random, "packed")
    del given["group_size"]
    rollouts, tokens = 8, len(given["signal"])
    plan = passrl.Plan("pass", rollouts=rollouts, tokens=tokens, backend="cuda")
    there, stream = moved(given), new_stream()
    call = plan.bind(out=there["signal"], stream=stream, group_size=4, **there)
    for _ in range(3):
        signal = random.integers(-2, 3, size=tokens).astype(np.float32)
        there["signal"].copy_from_host(signal)
        found = call()
        assert found.advantages is there["signal"]
        assert ran_nowhere_but(stream)
        wanted = LONG(**given | {"signal": signal, "group_size": 4})
        assert found.advantages.copy_to_host().tobytes() == wanted.advantages.tobytes() and found.status == 0
        same(found, wanted)


@simulated
def test_a_bound_call_only_launches(sim: Any) -> None:
    plan, like = planned("packed", backend="cuda")
    given = {name: on_device(value) for name, value in like(np.random.default_rng(5)).items()}
    call = plan.bind(**given)
    call().report
    sim.cudasim_reset()
    call()
    names = text(sim.cudasim_trace).split()
    assert names[0] == "cuCtxPushCurrent_v2" and names[-1] == "cuCtxPopCurrent_v2"
    assert set(names[1:-1]) <= {"cuLaunchKernel", "cuMemsetD8Async", "cuMemsetD32Async"} and "cuLaunchKernel" in names, names
    call().report


def test_a_graph_is_captured_and_replayed() -> None:
    random = np.random.default_rng(6)
    plan, like = planned("padded", backend="cuda")
    given = batch(random, "padded")
    there, stream = moved({name: given[name] for name in ("signal", "lengths", "outcome", "pad_side", "group_size")}), new_stream()
    call = plan.bind(stream=stream, **there)
    call().report
    library, graph, run = ctypes.CDLL("libcuda.so.1"), ctypes.c_void_p(), ctypes.c_void_p()
    with cuda.driver().on(0):
        assert library.cuStreamBeginCapture_v2(ctypes.c_void_p(stream), 1) == 0
        found = call()
        assert library.cuStreamEndCapture(ctypes.c_void_p(stream), ctypes.byref(graph)) == 0
        assert library.cuGraphInstantiateWithFlags(ctypes.byref(run), graph, ctypes.c_uint64(0)) == 0
        for _ in range(3):
            given["signal"] = random.normal(size=given["signal"].shape).astype(np.float32)
            given["outcome"] = random.normal(size=8)
            there["signal"].copy_from_host(given["signal"])
            there["outcome"].copy_from_host(given["outcome"])
            assert library.cuGraphLaunch(run, ctypes.c_void_p(stream)) == 0
            cuda.synchronize(stream)
            found._report = found._csr = None  # of the run before
            same(found, LONG(**given))
        library.cuGraphExecDestroy(run)
        library.cuGraphDestroy(graph)


def test_findings_are_in_the_report() -> None:
    given = batch(np.random.default_rng(7), "packed")
    given["outcome"][2] = np.nan
    found, wanted = passrl.shape(**moved(given)), LONG(**given)
    assert wanted.status > 0
    same(found, wanted)
    assert found.findings == wanted.findings != 0


class Foreign:
    """Nothing but the interface."""

    def __init__(self, array: Any, stream: int | None) -> None:
        self.__cuda_array_interface__ = array.__cuda_array_interface__ | {"stream": stream}
        self._array = array


@simulated
def test_producers_streams(sim: Any) -> None:
    given = batch(np.random.default_rng(8), "packed")
    there, first, second = moved(given), new_stream(), new_stream()
    for told, signal, outcome, waits in ((None, first, None, 0), (None, first, second, 1), (second, first, second, 1), (None, None, None, 0)):
        sim.cudasim_reset()
        changed = there | {"signal": Foreign(there["signal"], signal), "outcome": Foreign(there["outcome"], outcome)}
        changed["cu_seqlens"] = given["cu_seqlens"].tolist()
        found = passrl.shape(stream=told, **changed)
        assert sim.cudasim_calls(b"cuStreamWaitEvent") == waits
        assert found._maker.stream == (told or signal)
        same(found, LONG(**given))


@pytest.fixture
def cupy(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A stand-in of what is called of CuPy, over the same memory."""
    module: Any = types.ModuleType("cupy")

    class ndarray:
        def __init__(self, array: Any) -> None:
            self.array, self.shape, self.dtype, self.nbytes = array, array.shape, array.dtype, array.nbytes
            self.__cuda_array_interface__ = array.__cuda_array_interface__

        def get(self) -> Any:
            return self.array.copy_to_host()

        def view(self, kind: Any) -> Any:
            return ndarray(self.array.part(0, (self.nbytes // np.dtype(kind).itemsize,), kind))

        def reshape(self, shape: Any) -> Any:
            return ndarray(self.array.reshape(shape))

        def __getitem__(self, key: Any) -> Any:
            if isinstance(key, slice):
                return ndarray(self.array.part(key.start or 0, (key.stop - (key.start or 0),), self.dtype))
            return ndarray(self.array.column(key[1]))

    class Device:
        def __init__(self, number: int) -> None:
            assert number == 0

        def __enter__(self) -> None:
            pass

        def __exit__(self, *_: Any) -> None:
            pass

    ndarray.__module__ = "cupy"
    current = types.SimpleNamespace(ptr=0)
    module.ndarray, module.empty, module.asarray = ndarray, lambda shape, dtype: ndarray(cuda.empty(shape, dtype)), lambda host: ndarray(cuda.array(host))
    module.made_on = []

    class External(Device):
        def __init__(self, pointer: int) -> None:
            module.made_on.append(pointer)

    module.current = current
    module.cuda = types.SimpleNamespace(Device=Device, ExternalStream=External, get_current_stream=lambda: current)
    monkeypatch.setitem(sys.modules, "cupy", module)
    return module


def test_cupy_gets_its_own_arrays_and_its_current_stream(cupy: Any) -> None:
    given = batch(np.random.default_rng(9), "packed")
    plan, _ = planned("packed", backend="cuda")
    there = {name: cupy.ndarray(value) if isinstance(value, cuda.Array) else value for name, value in moved(given).items()}
    wanted = LONG(**given)
    call = plan.bind(**there)
    for _ in range(2):
        cupy.current.ptr = new_stream()
        found = call()
        assert ran_nowhere_but(cupy.current.ptr)
        assert isinstance(found.advantages, cupy.ndarray) and found.advantages.get().tobytes() == wanted.advantages.tobytes()
        same(found, wanted)
        call.sinks.native["advantages"].array.copy_from_host(np.zeros_like(wanted.advantages))
    assert isinstance(found.path_scores, cupy.ndarray) and isinstance(found.stats["outcome"].mean, cupy.ndarray)
    other = new_stream()
    found = passrl.shape(stream=other, **there)
    assert cupy.made_on[-1] == other
    same(found, wanted)


def test_refusals() -> None:
    given = moved(batch(np.random.default_rng(10), "packed"))
    with pytest.raises(passrl.Error, match="strict"):
        passrl.shape(strict=True, **given)
    with pytest.raises(passrl.DeviceError, match="x is on CUDA device 0, the context is the CPU"):
        passrl.whiten(given["signal"], lengths=[3], backend="cpu", out=np.empty(3, np.float32))
    with pytest.raises(passrl.NotServedError, match="a Collective of this package reduces host memory"):
        passrl.Plan("pass", rollouts=1, tokens=1, backend="cuda", comm=passrl.Collective(lambda data, op: None, 0, 1))
    with pytest.raises(passrl.NotServedError, match="batch.stats_in is given"):
        passrl.shape(stats_in=b"", **given)
    with pytest.raises(passrl.DeviceError, match=r"batch.signal\[0\] is on CUDA device 0, the context is the CPU"):
        passrl.shape(backend="cpu", out=np.empty(given["signal"].shape, np.float32), **given | {"cu_seqlens": given["cu_seqlens"].copy_to_host()})
    with pytest.raises(passrl.ShapeError, match="copy_from_host"):
        cuda.empty(3).copy_from_host(np.zeros(4, np.float32))
    with pytest.raises(passrl.DeviceError, match="cuMemAlloc_v2: CUDA_ERROR_OUT_OF_MEMORY"):
        cuda.empty(1 << 60)


@pytest.mark.parametrize("kind", ["prm", "kl"])
def test_all_pieces_in_one_call(kind: str) -> None:
    """Megatron's zigzag, the parts of its ranks one after the other; groups are numbers of the whole batch, an array of the device."""
    shares = [share(kind, rank) for rank in range(RANKS)]
    begins = np.concatenate([[0], np.cumsum([one["cu_seqlens"][-1] for one in shares])])
    cu = np.concatenate([[0], *(one["cu_seqlens"][1:] + begin for one, begin in zip(shares, begins))])
    pieces = passrl.Pieces(*(np.concatenate([getattr(one["pieces"], name) for one in shares]) for name in ("rollout", "begin", "index")), shares[0]["pieces"].lengths)
    given = {name: on_device(value) for name, value in shares[0].items()} | {"cu_seqlens": on_device(cu), "pieces": passrl.Pieces(*map(on_device, vars(pieces).values()))}
    if kind == "kl":
        given["signal"] = on_device(np.concatenate([one["signal"] for one in shares]))
    found = passrl.Plan("pass", kind=kind, backend="cuda", pieces=12 * RANKS, rollout_pieces=2 * RANKS, **LIMITS).run(**given).to_host().advantages
    wanted = whole(kind)
    begin = np.concatenate([[0], np.cumsum(LENS)])
    for p, (row, first) in enumerate(zip(pieces.rollout, pieces.begin)):
        here = found[cu[p]:cu[p + 1]]
        inside = max(0, min(len(here), LENS[row] - first))
        assert here[:inside].tobytes() == wanted.advantages[begin[row] + first:begin[row] + first + inside].tobytes() and not here[inside:].any()


def test_types_and_strides() -> None:
    import ml_dtypes

    given = batch(np.random.default_rng(11), "padded")
    for kind in (np.float16, ml_dtypes.bfloat16):
        changed = given | {"signal": given["signal"].astype(kind), "dtype": np.dtype(kind).name}
        same(passrl.shape(**moved(changed)), LONG(**changed))
    table = np.arange(12.0).reshape(3, 4)
    there = cuda.array(table)
    np.testing.assert_array_equal(there.column(2).copy_to_host(), table[:, 2])
    np.testing.assert_array_equal(there.part(16, (2, 3), "f8", (32, 8)).copy_to_host(), np.arange(12.0)[2:].reshape(-1)[[[0, 1, 2], [4, 5, 6]]])
    assert cuda.empty((0, 3)).copy_to_host().shape == (0, 3)


def test_threads_with_their_own_streams() -> None:
    random = np.random.default_rng(12)
    given = [batch(random, how) for how in ("packed", "steps", "padded", "packed")]
    wanted = [LONG(**one).advantages.tobytes() for one in given]
    there, wrong = [moved(one) for one in given], []

    def run(number: int) -> None:
        stream = new_stream()
        for _ in range(5):
            if passrl.shape(stream=stream, **there[number]).to_host().advantages.tobytes() != wanted[number]:
                wrong.append(number)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@simulated
def test_memory_goes_with_its_names(sim: Any) -> None:
    class Live(ctypes.Structure):
        _fields_ = [(name, ctypes.c_uint64) for name in ("allocations", "bytes", "host_allocations", "contexts", "primary_retains", "streams", "events", "modules", "graphs", "graph_execs")]

    def live() -> tuple[int, int]:
        gc.collect()
        found = Live()
        sim.cudasim_live(ctypes.byref(found))
        return found.allocations, found.events

    given = batch(np.random.default_rng(13), "packed")
    passrl.shape(**moved(given)).report  # the workspace stays with the plan
    before = live()
    for _ in range(3):
        shaped = passrl.shape(**moved(given))
        part = shaped.path_scores
        del shaped
        assert part.copy_to_host().shape == (8,)
        del part
    assert live() == before
