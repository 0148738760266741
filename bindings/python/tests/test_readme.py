"""The README's Python block runs and prints what the README says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

WORKED = [1.989668793, 1.989668793, 0.224898493, 0.224898493, 0.579672813, 0.579672813, 0.579672813, -4.816441028, -4.264801964, 0.0, -3.464095615, -3.464095615]


def test_the_python_block_runs() -> None:
    readme = (Path(__file__).resolve().parents[3] / "README.md").read_text("utf-8")
    block = readme.split("```python\n")[1].split("```")[0]
    names: dict[str, Any] = {}
    exec(compile(block, "README.md", "exec"), names)
    np.testing.assert_allclose(names["shaped"].advantages, WORKED, rtol=0, atol=5e-7)
