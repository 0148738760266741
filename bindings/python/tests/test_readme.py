"""The README's Python block runs and prints what the README says; the guide's blocks run, one after the other, and say what they assert."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace
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


def test_what_the_migration_guide_says_runs() -> None:
    guide = (Path(__file__).resolve().parents[3] / "docs" / "migration.md").read_text("utf-8")
    random = np.random.default_rng(3)
    mask = np.arange(6) < np.array([6, 3, 4, 5])[:, None]
    rewards = random.normal(size=(4, 3))
    rewards[1, 2] = np.nan
    weights = {"right": 1.0, "short": 0.5, "polite": 0.2}
    names: dict[str, Any] = {
        "np": np, "passrl": passrl, "data": SimpleNamespace(non_tensor_batch={"uid": np.array(["a", "b", "a", "b"], dtype=object)}), "scores": rewards[:, 0], "response_mask": mask,
        "completion_mask": mask, "rewards": rewards, "reward_weights": weights, "num_generations": 2, "first_weight": weights["right"]}
    for number, block in enumerate(part.split("```")[0] for part in guide.split("```python\n")[1:]):
        exec(compile(block, f"docs/migration.md, block {number}", "exec"), names)
        assert names["shaped"].status == 0 and names["shaped"].advantages.shape == (4, 6)
    assert {"short", "polite"} <= set(names["shaped"].stream_names)
    # What stands within the text, with what it is given to.
    said = re.search(r"`gdpo` takes `(streams=\{.*?\})`", guide)
    assert said is not None
    streams = eval(f"dict({said[1]})", {"a": rewards[:, 0], "s": rewards[:, 1]})
    assert passrl.shape("verl.gdpo", groups=[0, 1, 0, 1], mask=mask, **streams).advantages.any()
    turns = np.where(np.arange(6) == 1, 1.0, 0.5).astype(np.float32) * mask
    assert "`agentic_reinforce` (`signal=`" in guide and passrl.shape("roll.agentic_reinforce", signal=turns, chunk="segment", mask=mask, group_size=2).status == 0


def test_the_guide_names_every_function_of_the_package() -> None:
    guide = (Path(__file__).resolve().parents[3] / "docs" / "python.md").read_text("utf-8")
    for name in passrl.__all__:
        kind = getattr(passrl, name)
        if callable(kind) and not isinstance(kind, type):
            assert f"passrl.{name}" in guide, f"docs/python.md does not name passrl.{name}"
