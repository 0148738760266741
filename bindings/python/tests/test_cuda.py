"""The CUDA backend from Python, on the simulated driver of tests/cudasim (`cargo test` builds it), in processes whose loader finds that driver."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import passrl

ROOT = Path(__file__).resolve().parents[3]
TESTS = ROOT / "bindings/python/tests"
SAMPLE = ROOT / "bindings/python/examples/arithmetic_rollouts.jsonl"


@pytest.fixture(scope="module")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """An environment with the simulated driver, and a stand-in of NVRTC, whose output that driver takes for the kernels."""
    built = sorted(ROOT.glob("target/debug/build/cudasim-*/out/fast/libcuda.so.1"), key=lambda path: path.stat().st_mtime)
    if not built:
        pytest.skip("SKIPPED: tests/cudasim is not built (cargo test does it, with g++), nothing ran on the simulated CUDA driver")
    if shutil.which("cc") is None:
        pytest.skip("SKIPPED: no C compiler for the stand-in of NVRTC, nothing ran on the simulated CUDA driver")
    nvrtc = tmp_path_factory.mktemp("nvrtc") / "libnvrtc.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", nvrtc, ROOT / "tests/cuda/nvrtc.c"], check=True)
    return {**os.environ, "LD_LIBRARY_PATH": str(built[-1].parent), "PASSRL_NVRTC": str(nvrtc), "PASSRL_CACHE_DIR": "", "PASSRL_SIMULATED": "1",
            "PYTHONDONTWRITEBYTECODE": "1", "PASSRL_LIBRARY": str(passrl.library_path)}


def run(environment: dict[str, str], *command: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(word) for word in command], env=environment, capture_output=True, text=True, cwd=ROOT)


def test_on_the_simulated_driver(simulated: dict[str, str]) -> None:
    done = run(simulated, sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", TESTS / "on_device.py")
    assert done.returncode == 0, done.stdout + done.stderr
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed and int(passed[1]) >= 30 and "skipped" not in done.stdout, done.stdout


@pytest.mark.parametrize("options", [[], ["--preset", "grpo_process", "--batch-tokens", "200"], ["--set", "whiten=tokens", "--whole-file"]])
def test_the_command_line(simulated: dict[str, str], tmp_path: Path, options: list[str]) -> None:
    pytest.importorskip("click", reason="SKIPPED: click is not installed, the command line was not run")
    told = {}
    for backend in ("cpu", "cuda"):
        out = tmp_path / backend
        out.mkdir()
        done = subprocess.run([sys.executable, "-m", "passrl", "shape", str(SAMPLE), "--backend", backend, "--out", "advantages.npz", *options],
                              env={**simulated, "PYTHONPATH": str(ROOT / "bindings/python")}, capture_output=True, text=True, cwd=out)
        assert done.returncode == 0, done.stderr
        told[backend] = done.stdout, (out / "advantages.npz").read_bytes()
    assert told["cpu"] == told["cuda"] and "advantages.npz" in told["cpu"][0]


def test_the_command_line_refuses(simulated: dict[str, str]) -> None:
    pytest.importorskip("click", reason="SKIPPED: click is not installed, the command line was not run")
    done = run(simulated, sys.executable, "-m", "passrl", "shape", SAMPLE, "--backend", "cuda", "--set", "whiten=tokens")
    assert done.returncode == 2 and "give --whole-file" in done.stderr and done.stdout == ""


def test_the_guide(simulated: dict[str, str]) -> None:
    block, = re.findall(r"^```python cuda\n(.*?)^```$", (ROOT / "docs/python.md").read_text("utf-8"), re.DOTALL | re.MULTILINE)
    program = block + """
wanted = passrl.shape("pass", k=0.5, signal=np.float32([1, 1, -1, -1, 0.5, 0.5, 0.5]), lengths=[4, 3], group_size=2, outcome=[1.0, 0])
assert (signal.copy_to_host() == wanted.advantages).all() and shaped.status == 0 and shaped.report.tokens == 7
"""
    done = run({**simulated, "PYTHONPATH": str(ROOT / "bindings/python")}, sys.executable, "-c", program)
    assert done.returncode == 0, done.stdout + done.stderr


def test_without_a_driver(tmp_path: Path) -> None:
    """A sentence wherever CUDA is asked for, from the library or from the package."""
    program = """
import sys, numpy as np, passrl, passrl.cuda
calls = [lambda: passrl.Plan("pass", rollouts=1, tokens=1, backend="cuda"), lambda: passrl.cuda.empty(3), lambda: passrl.cuda.synchronize(),
         lambda: passrl.shape(outcome=[1.0, 0], lengths=[1, 1], group_size=2, kind="none", chunk="none", backend="cuda")]
for call in calls:
    try:
        call()
    except passrl.DeviceError as fault:
        assert fault.status == -300 and "libcuda.so" in str(fault), fault
    else:
        sys.exit("not refused")
assert passrl.shape(outcome=[1.0, 0], lengths=[1, 1], group_size=2, kind="none", chunk="none").advantages.any()
"""
    if shutil.which("nvidia-smi"):
        pytest.skip("SKIPPED: there is a CUDA driver here, what happens without one was not tried")
    environment = {name: value for name, value in os.environ.items() if name != "LD_LIBRARY_PATH"}
    done = run({**environment, "PASSRL_LIBRARY": str(passrl.library_path), "PYTHONPATH": str(ROOT / "bindings/python")}, sys.executable, "-c", program)
    assert done.returncode == 0, done.stdout + done.stderr
