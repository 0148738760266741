"""docs/linking.md as a reader follows it: its files are written, its commands run, and all its programs print the same advantages."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import passrl

ROOT = Path(__file__).resolve().parents[3]
GUIDE = (ROOT / "docs/linking.md").read_text("utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", GUIDE, re.DOTALL | re.MULTILINE)
WANTED = passrl.shape("pass", k=0.5, signal=np.float32([1, 1, -1, -1, 0.5, 0.5, 0.5]), cu_seqlens=[0, 4, 7], group_size=2, outcome=[1.0, 0]).advantages


def block(kind: str, holding: str) -> str:
    found = [text for found_kind, text in BLOCKS if found_kind == kind and holding in text]
    assert len(found) == 1, f"{len(found)} blocks of {kind} with {holding!r}"
    return found[0]


def right(said: str) -> None:
    np.testing.assert_allclose([float(line) for line in said.split()], WANTED, atol=2e-6)


def program(text: str, folder: Path, *arguments: object) -> str:
    (folder / "app.py").write_text(text)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "bindings/python"), os.environ.get("PYTHONPATH", "")])}
    return subprocess.run([sys.executable, "app.py", *map(str, arguments)], cwd=folder, env=environment, check=True, capture_output=True, text=True).stdout


@pytest.fixture(scope="module")
def prefix(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("guide") / "passrl"
    command = block("sh", "make install").strip()
    # The library is there; the rest is the guide's.
    assert command == "make install PREFIX=/opt/passrl"
    subprocess.run(["make", "--no-print-directory", "-o", "library", f"LIB={passrl.library_path}", "install", f"PREFIX={made}"], cwd=ROOT, check=True)
    return made


def follow(kind: str, prefix: Path, folder: Path) -> str:
    """Runs the shell block that has `kind` in a folder with the files; what its last command printed."""
    lines = block("sh", kind).replace("/opt/passrl", str(prefix)).strip().splitlines()
    for line in lines[:-1]:
        subprocess.run(["bash", "-euc", line], cwd=folder, check=True)
    return subprocess.run(["bash", "-euc", lines[-1]], cwd=folder, check=True, capture_output=True, text=True).stdout


def test_c(prefix: Path, tmp_path: Path) -> None:
    if shutil.which("pkg-config") is None or shutil.which("cc") is None:
        pytest.skip("SKIPPED: no pkg-config or cc, the guide's C program was not built")
    (tmp_path / "app.c").write_text(block("c", "main"))
    right(follow("cc -std=c11", prefix, tmp_path))


def test_cpp(prefix: Path, tmp_path: Path) -> None:
    if shutil.which("cmake") is None or shutil.which("c++") is None:
        pytest.skip("SKIPPED: no cmake or c++, the guide's C++ program was not built")
    (tmp_path / "app.cpp").write_text(block("cpp", "main"))
    (tmp_path / "CMakeLists.txt").write_text(block("cmake", "find_package"))
    right(follow("cmake -S", prefix, tmp_path))


def test_python(tmp_path: Path) -> None:
    right(program(block("python", "import passrl\n\nshaped"), tmp_path))


def test_torch(tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="SKIPPED: torch is not installed, the guide's compiled model was not run (make frameworks brings it)")
    right(program(block("python", "torch.compile"), tmp_path))


def test_tvm_ffi(tmp_path: Path) -> None:
    pytest.importorskip("tvm_ffi", reason="SKIPPED: apache-tvm-ffi is not installed, the guide's program was not run")
    library = tmp_path / "libpassrl_tvmffi.so"
    subprocess.run(["make", "--no-print-directory", "-o", "library", "tvm-ffi", f"LIB={passrl.library_path}", f"TVM_FFI={library}"], cwd=ROOT, check=True)
    # Its SONAME beside it, as `make build` leaves it in target/release.
    (tmp_path / "libpassrl.so.0").symlink_to(passrl.library_path)
    right(program(block("python", "tvm_ffi.load_module"), tmp_path, library))


def test_every_program_is_tested() -> None:
    assert sorted(kind for kind, _ in BLOCKS) == ["c", "cmake", "cpp", "python", "python", "python", "sh", "sh", "sh"]
