"""The C++ examples that need torch: installed library, CMake, a libtorch program that learns, an extension on torch's stable ABI."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

import passrl

torch = pytest.importorskip("torch", reason="SKIPPED: torch is not installed, its C++ examples were not built (make frameworks brings it)")
ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if shutil.which("cmake") is None or shutil.which("c++") is None:
        pytest.skip("SKIPPED: cmake or c++ is not installed, torch's C++ examples were not built")
    folder = tmp_path_factory.mktemp("torch-cpp")
    install = {**os.environ, "PREFIX": str(folder / "prefix"), "DESTDIR": "", "LIBDIR": "lib"}
    subprocess.run([ROOT / "bindings/cpp/install.sh", passrl.library_path], check=True, env=install)
    subprocess.run(
        ["cmake", "-S", ROOT / "bindings/cpp/examples", "-B", folder / "build", f"-DCMAKE_PREFIX_PATH={folder / 'prefix'}", f"-DTORCH_DIR={torch.__path__[0]}",
         "-DCMAKE_CXX_FLAGS=-Wall -Wextra"], check=True)
    subprocess.run(["cmake", "--build", folder / "build", "--parallel", "2", "--target", "torch_extension", "torch_program"], check=True)
    return folder / "build"


def test_the_libtorch_program_learns(built: Path) -> None:
    said = subprocess.run([built / "torch_program"], check=True, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}, timeout=300).stdout
    assert "iteration 150: share of sevens 0.9" in said


def test_the_stable_extension_gives_the_librarys_bits(built: Path) -> None:
    library = built / "libtorch_extension.so"
    needed = subprocess.run(["nm", "-DC", "--undefined-only", library], check=True, capture_output=True, text=True).stdout
    assert "aoti_torch" in needed and "c10::" not in needed and "at::" not in needed, "a C++ symbol of torch: not its stable ABI"
    torch.ops.load_library(str(library))
    cu, signal = torch.tensor([0, 4, 7, 12, 13]), torch.randn(13, dtype=torch.bfloat16)
    outcome = torch.tensor([1.0, 0, 0, 1])
    advantages = torch.ops.passrl_example.shape(signal, cu, outcome, 2, k=0.5)
    wanted = passrl.shape("pass", k=0.5, signal=signal, cu_seqlens=cu, outcome=outcome, group_size=2, dtype="bf16").advantages
    assert advantages.dtype == torch.bfloat16 and advantages.abs().sum() > 0
    np.testing.assert_array_equal(advantages.view(torch.int16).numpy(), wanted.view(torch.int16).numpy())
    with pytest.raises(RuntimeError, match="passrl_plan_run: .*group_size"):
        torch.ops.passrl_example.shape(signal, cu, outcome, 3)
