"""The README's Python block runs and prints what the README says; the guide's blocks run, one after the other, and say what they assert."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

import passrl

WORKED = [1.989668793, 1.989668793, 0.224898493, 0.224898493, 0.579672813, 0.579672813, 0.579672813, -4.816441028, -4.264801964, 0.0, -3.464095615, -3.464095615]


def test_the_python_block_runs() -> None:
    readme = (Path(__file__).resolve().parents[3] / "README.md").read_text("utf-8")
    block = readme.split("```python\n")[1].split("```")[0]
    names: dict[str, Any] = {}
    exec(compile(block, "README.md", "exec"), names)
    np.testing.assert_allclose(names["shaped"].advantages, WORKED, rtol=0, atol=5e-7)


def test_the_guides_blocks_run() -> None:
    guide = (Path(__file__).resolve().parents[3] / "docs" / "python.md").read_text("utf-8")
    blocks = [part.split("```")[0] for part in guide.split("```python\n")[1:]]
    assert len(blocks) >= 6
    names: dict[str, Any] = {}
    for number, block in enumerate(blocks):
        exec(compile(block, f"docs/python.md, block {number}", "exec"), names)
    assert names["alive"].tolist() == [False, True]
    assert names["returns"].shape == names["to_go"].shape == (7,)


def test_the_guide_names_every_function_of_the_package() -> None:
    guide = (Path(__file__).resolve().parents[3] / "docs" / "python.md").read_text("utf-8")
    for name in passrl.__all__:
        kind = getattr(passrl, name)
        if callable(kind) and not isinstance(kind, type):
            assert f"passrl.{name}" in guide, f"docs/python.md does not name passrl.{name}"
