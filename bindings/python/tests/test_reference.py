"""`make docs`: every function of the C header and every public name of the Python package has its place and its text in the reference."""

from __future__ import annotations

import html
import re
import shutil
import subprocess
from pathlib import Path

import pytest

import passrl

ROOT = Path(__file__).resolve().parents[3]
DOCS = ROOT / "target/docs"


@pytest.fixture(scope="module", autouse=True)
def made() -> None:
    if shutil.which("doxygen") is None:
        pytest.skip("SKIPPED: doxygen is not installed, the reference was not made")
    pytest.importorskip("pdoc", reason="SKIPPED: pdoc is not installed, the reference was not made")
    done = subprocess.run(["make", "--no-print-directory", "-o", "build", "docs"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def text(page: Path) -> str:
    return html.unescape(re.sub(r"<[^>]+>", "", page.read_text("utf-8")))


def test_c() -> None:
    page = text(DOCS / "c/passrl_8h.html")
    functions = (ROOT / "tests/abi/symbols.txt").read_text().split()
    assert len(functions) > 40
    for name in functions:
        assert f"{name}()" in page, name
    assert "Shapes one batch: reads it, writes the outputs" in page and "Status: every function that can fail returns" in page
    batch = text(DOCS / "c/structpassrl__batch.html")
    assert "exclusive end of each step, in tokens of its rollout" in batch


def test_cpp() -> None:
    assert "The noexcept try_... forms return the raw status" in text(DOCS / "c/passrl_8hpp.html")
    plan = text(DOCS / "c/classpassrl_1_1plan.html")
    assert "try_run" in plan and "Phases of the statistics" in plan


def test_guides() -> None:
    assert "Link it in ten minutes" in text(DOCS / "c/index.html")


def test_python() -> None:
    page = (DOCS / "python/passrl.html").read_text("utf-8")
    for name in passrl.__all__:
        assert f'id="{name}"' in page or (DOCS / f"python/passrl/{name}.html").is_file(), name
    assert "Turns rewards into per-token" in page
