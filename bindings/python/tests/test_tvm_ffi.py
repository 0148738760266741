"""libpassrl_tvmffi, called through apache-tvm-ffi with NumPy's (and jax's, torch's) own memory: the bits of the Python package, refusals as exceptions."""

from __future__ import annotations

import shutil
import subprocess
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import passrl

tvm_ffi = pytest.importorskip("tvm_ffi", reason="SKIPPED: apache-tvm-ffi is not installed, libpassrl_tvmffi was not tested")
ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def module(tmp_path_factory: pytest.TempPathFactory) -> Any:
    if shutil.which("cc") is None:
        pytest.skip("SKIPPED: no C compiler, libpassrl_tvmffi was not built")
    library = tmp_path_factory.mktemp("tvm-ffi") / "libpassrl_tvmffi.so"
    subprocess.run(["make", "--no-print-directory", "-C", ROOT, "-o", "library", "tvm-ffi", f"LIB={passrl.library_path}", f"TVM_FFI={library}"], check=True)
    exported = subprocess.run(["nm", "-D", "--defined-only", library], check=True, capture_output=True, text=True).stdout.split()[2::3]
    assert "__tvm_ffi_shape" in exported and all(name.startswith("__tvm_ffi_") for name in exported)
    assert "tvm" not in subprocess.run(["readelf", "-d", library], check=True, capture_output=True, text=True).stdout.replace("libpassrl_tvmffi", "")
    return tvm_ffi.load_module(str(library))


RANDOM = np.random.default_rng(1)
CU = np.array([0, 4, 5, 11, 14])
SIGNAL = RANDOM.integers(-2, 3, 14).astype(np.float32)
MASK = RANDOM.random(14) < 0.8
OUTCOME, FORMAT = np.float64([1, 0, 0.5, 2]), np.float32([1, 1, 0, 1])


def test_shape_packed(module: Any) -> None:
    for groups, same in ((2, {"group_size": 2}), (np.array([7, 3, 3, 7]), {"groups": np.array([7, 3, 3, 7])})):
        advantages = np.full(14, np.nan, np.float32)
        assert module.shape(advantages, SIGNAL, CU, MASK, groups, OUTCOME, FORMAT, None, "pass", "k=0.5, outcome.ddof = 0") == 0
        wanted = passrl.shape(signal=SIGNAL, cu_seqlens=CU, mask=MASK, outcome=OUTCOME, format=FORMAT, k=0.5, **same, **{"outcome.ddof": 0})
        np.testing.assert_array_equal(advantages, wanted.advantages)
        assert advantages.any()


def test_shape_padded_and_steps(module: Any) -> None:
    rows, lengths = RANDOM.normal(size=(4, 6)).astype(np.float32), np.array([6, 1, 3, 5])
    advantages = np.full((4, 6), np.nan)
    assert module.shape(advantages, rows, lengths, None, 4, OUTCOME) == 0
    np.testing.assert_array_equal(advantages, passrl.shape(signal=rows, lengths=lengths, group_size=4, outcome=OUTCOME, dtype="f64").advantages)
    offsets, ends, scores = np.array([0, 1, 2, 4, 5]), np.array([4, 1, 2, 6, 3]), np.array([1, 0, -1, 1, 0.5])
    packed = np.empty(14, np.float32)
    assert module.shape(packed, None, CU, None, 4, OUTCOME, None, None, "grpo_process", "", offsets, ends, scores) == 0
    wanted = passrl.shape("grpo_process", steps=passrl.Steps(offsets, ends, scores), cu_seqlens=CU, group_size=4, outcome=OUTCOME)
    np.testing.assert_array_equal(packed, wanted.advantages)


def test_the_stages(module: Any) -> None:
    out, also, four = np.empty(14, np.float32), np.empty(14, np.float32), np.empty(4)
    assert module.group_standardize(four, OUTCOME, 2) == 0
    np.testing.assert_array_equal(four, passrl.group_standardize(OUTCOME, group_size=2))
    assert module.discounted_returns(out, SIGNAL, CU, MASK, 0.9) == 0
    np.testing.assert_array_equal(out, passrl.discounted_returns(SIGNAL, 0.9, cu_seqlens=CU, mask=MASK))
    assert module.gae(out, also, SIGNAL, SIGNAL * 0.5, CU, None, 0.99, 0.95, OUTCOME) == 0
    wanted = passrl.gae(SIGNAL, SIGNAL * 0.5, 0.99, 0.95, cu_seqlens=CU, bootstrap=OUTCOME)
    np.testing.assert_array_equal(out, wanted[0])
    np.testing.assert_array_equal(also, wanted[1])
    assert module.divide_length(out, SIGNAL, CU, None, 1) == 0
    np.testing.assert_array_equal(out, passrl.divide_length(SIGNAL, 1, cu_seqlens=CU))
    assert module.whiten(out, SIGNAL, CU, MASK) == 0
    np.testing.assert_array_equal(out, passrl.whiten(SIGNAL, MASK, cu_seqlens=CU))
    assert module.abi_version() == 1


def test_refusals_and_findings(module: Any) -> None:
    advantages = np.full(14, 5, np.float32)
    with pytest.raises(ValueError, match="passrl_config_set: .*gama"):
        module.shape(advantages, SIGNAL, CU, None, 2, OUTCOME, None, None, "pass", "gama=1")
    with pytest.raises(ValueError, match="passrl_plan_run: .*group_size"):
        module.shape(advantages, SIGNAL, CU, None, 3, OUTCOME)
    with pytest.raises(TypeError, match=r"shape: argument 2 \(signal\).*tensor"):
        module.shape(advantages, "signal", CU)
    with pytest.raises(TypeError, match=r"argument 1 \(advantages\)"):
        module.shape(None, SIGNAL, CU)
    with pytest.raises(TypeError, match="more than 13"):
        module.shape(advantages, *[None] * 13)
    with pytest.raises(TypeError, match=r"argument 5 \(gamma\).*number"):
        module.discounted_returns(advantages, SIGNAL, CU, None, "0.9")
    assert (advantages == 5).all()
    bad = SIGNAL.copy()
    bad[0] = np.nan
    assert module.shape(advantages, bad, CU, None, 2, OUTCOME) > 0 and not advantages[:5].any() and advantages[5:].any()


def test_many_threads(module: Any) -> None:
    wanted, wrong = np.empty(14, np.float32), []
    module.shape(wanted, SIGNAL, CU, MASK, 2, OUTCOME)

    def run() -> None:
        for _ in range(50):
            advantages = np.empty(14, np.float32)
            module.shape(advantages, SIGNAL, CU, MASK, 2, OUTCOME)
            if not np.array_equal(advantages, wanted):
                wrong.append(advantages)

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@pytest.mark.parametrize("framework", ["torch", "jax.numpy"])
def test_other_frameworks_arrays(module: Any, framework: str) -> None:
    library = pytest.importorskip(framework, reason=f"SKIPPED: {framework} is not installed, its arrays were not given to tvm-ffi (make frameworks brings torch)")
    make = library.tensor if framework == "torch" else library.asarray
    advantages = np.empty(14, np.float32)
    assert module.shape(advantages, make(SIGNAL), make(CU.astype(np.int32)), make(MASK), 2, make(OUTCOME.astype(np.float32))) == 0
    np.testing.assert_array_equal(advantages, passrl.shape(signal=SIGNAL, cu_seqlens=CU, mask=MASK, group_size=2, outcome=OUTCOME).advantages)
    if framework == "torch":
        tensor = library.empty(14)
        module.shape(tensor, make(SIGNAL), make(CU), make(MASK), 2, make(OUTCOME))
        np.testing.assert_array_equal(tensor.numpy(), advantages)
