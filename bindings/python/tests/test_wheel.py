"""The wheel and the source distribution, as strangers get them: into an empty environment, NumPy beside, used from `/`."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

import passrl

ROOT = Path(__file__).resolve().parents[3]
PYTHON = ROOT / "bindings/python"
MODULES = {str(path.relative_to(PYTHON)) for path in (*PYTHON.glob("passrl_*.py"), *(PYTHON / "passrl").rglob("*.py"))}
PROGRAM = """
import sys, numpy as np, passrl
assert "site-packages" in str(passrl.library_path) and passrl.library_path.parent == passrl.include_path.parent, passrl.library_path
assert (passrl.include_path / "passrl.h").is_file() and (passrl.include_path / "passrl.hpp").is_file(), passrl.include_path
shaped = passrl.shape(signal=np.float32([1, 1, -1, 0.5, 0.5]), lengths=[3, 2], group_size=2, outcome=np.float32([1, 0]))
print(passrl.__version__, shaped.advantages.round(5).tolist())
"""


def run(*command: object, **environment: str) -> str:
    # Neither the checkout nor what this run's environment points at.
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("PASSRL_", "PYTHON"))}
    done = subprocess.run([str(word) for word in command], cwd="/", env={**clean, **environment}, capture_output=True, text=True)
    assert done.returncode == 0, f"{command}: {done.returncode}\n{done.stdout}{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("build", reason="SKIPPED: build is not installed, no wheel was made")
    folder = tmp_path_factory.mktemp("wheel")
    library = shutil.copy(passrl.library_path, folder / "libpassrl.so")
    if shutil.which("strip"):
        run("strip", "--strip-debug", library)
    run(ROOT / "bindings/python/wheel.sh", folder / "dist", library, PYTHON=sys.executable)
    return folder / "dist"


def install(folder: Path, what: Path) -> Path:
    """Python of a new environment that has it and what it asks for, nothing else."""
    run(sys.executable, "-m", "venv", "--without-pip", folder)
    python = folder / "bin" / "python"
    try:
        run(sys.executable, "-m", "pip", "--python", python, "install", "-q", "--disable-pip-version-check", what)
    except AssertionError as fault:
        if re.search(r"NewConnectionError|Temporary failure in name resolution|Could not find a version that satisfies the requirement numpy", str(fault)):
            pytest.skip("SKIPPED: no network, NumPy cannot be fetched into an empty environment")
        raise
    return python


def test_the_wheel_holds_what_it_should(made: Path) -> None:
    wheel, = made.glob("*.whl")
    assert re.fullmatch(rf"passrl-{re.escape(passrl.__version__)}-py3-none-linux_{platform.machine()}\.whl", wheel.name), wheel.name
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        info = f"passrl-{passrl.__version__}.dist-info"
        assert "Root-Is-Purelib: false" in archive.read(f"{info}/WHEEL").decode()
        entry_points = archive.read(f"{info}/entry_points.txt").decode()
    for name in ("libpassrl.so", "libpassrl_tvmffi.so", "py.typed", *(f"include/{path.name}" for path in (ROOT / "include").glob("passrl*.h*")), "cli/page.html"):
        assert f"passrl/{name}" in names, name
    for name in ("LICENSE-MIT", "LICENSE-APACHE", "NOTICE-third-party.md"):
        assert f"{info}/licenses/{name}" in names, name
    assert MODULES <= names, MODULES - names
    assert "passrl_verl" in entry_points


def test_the_wheel_alone_with_numpy(made: Path, tmp_path: Path) -> None:
    wheel, = made.glob("*.whl")
    python = install(tmp_path / "venv", wheel)
    wanted = passrl.shape(signal=[1, 1, -1, 0.5, 0.5], lengths=[3, 2], group_size=2, outcome=[1.0, 0]).advantages.round(5).tolist()
    assert run(python, "-c", PROGRAM) == f"{passrl.__version__} {wanted}\n"
    # Loaded without the package, by who speaks tvm-ffi: it finds libpassrl beside it.
    library = run(python, "-c", "import passrl; print(passrl.tvm_ffi_path())").strip()
    said = run(python, "-c", f"import ctypes; print(ctypes.CDLL({library!r}).__tvm_ffi_abi_version is not None); print(*[l.split()[-1] for l in open('/proc/self/maps') if 'libpassrl.so' in l][:1])")
    assert said.split() == ["True", str(Path(library).with_name("libpassrl.so"))], said
    others = run(python, "-c", "import importlib.metadata as m; print(*sorted(d.name for d in m.distributions()))")
    assert others.split() == ["numpy", "passrl"], others
    said = subprocess.run([tmp_path / "venv/bin/passrl", "presets"], cwd="/", capture_output=True, text=True)
    assert said.returncode != 0 and "pip install click rich tqdm matplotlib" in said.stderr


def test_the_source_distribution_is_whole(made: Path, tmp_path: Path) -> None:
    source, = made.glob("*.tar.gz")
    with tarfile.open(source) as archive:
        archive.extractall(tmp_path, filter="data") if sys.version_info >= (3, 12) else archive.extractall(tmp_path)
    tree = tmp_path / f"passrl-{passrl.__version__}"
    found = {str(path.relative_to(tree)) for path in tree.rglob("*") if path.is_file()}
    assert {"crate/Cargo.lock", "crate/kernels/build.rs", "setup.py", "LICENSE-MIT", "NOTICE-third-party.md"} <= found
    assert MODULES <= found, MODULES - found
    assert not any(name.endswith((".so", ".pyc")) for name in found)
    assert not any("tvmffi" in name for name in found)
    if shutil.which("cargo") is None:
        pytest.skip("SKIPPED: no cargo, the crate of the source distribution was not checked")
    # Nothing of the crate is missing. `make wheel-release` builds and installs it, which takes minutes where nothing is compiled yet.
    run("cargo", "check", "--quiet", "--lib", "--locked", "--manifest-path", tree / "crate/Cargo.toml", "--target-dir", ROOT / "target")
