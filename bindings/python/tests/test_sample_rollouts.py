"""The sample file is what its program writes, and is what the README says of it."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections import defaultdict
from pathlib import Path
from types import ModuleType
from typing import Any

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"


def program() -> ModuleType:
    spec = importlib.util.spec_from_file_location("arithmetic_rollouts", EXAMPLES / "arithmetic_rollouts.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up by name.
    spec.loader.exec_module(module)
    return module


def rows() -> list[dict[str, Any]]:
    return [json.loads(line) for line in (EXAMPLES / "arithmetic_rollouts.jsonl").read_text("ascii").splitlines()]


def test_the_program_writes_the_same_bytes() -> None:
    data = (EXAMPLES / "arithmetic_rollouts.jsonl").read_bytes()
    assert program().text().encode("ascii") == data
    assert len(data) <= 50_000


def test_another_seed_writes_others() -> None:
    module = program()
    module.SEED += 1
    assert module.text() != (EXAMPLES / "arithmetic_rollouts.jsonl").read_text("ascii")


def test_rows_are_well_formed() -> None:
    for row in rows():
        ends, scores = row["step_end"], row["step_score"]
        begins = row["step_begin"]
        assert len(ends) == len(scores) == len(begins) >= 1
        assert ends[-1] == row["len"]
        assert all(b < e for b, e in zip(begins, ends))
        assert all(e <= b for e, b in zip(ends, begins[1:]))
        assert set(scores) <= {-1, 0, 1} and row["outcome"] in (0, 1) and row["format"] in (0, 1)


def test_the_file_has_the_cases_that_matter() -> None:
    groups: dict[int, list[dict[str, Any]]] = defaultdict(list)
    for row in rows():
        groups[row["group"]].append(row)
    assert len(groups) == 24 and all(len(g) == 6 for g in groups.values())
    constant = [g for g in groups.values() if len({s for r in g for s in r["step_score"]}) == 1 and len({r["outcome"] for r in g}) == 1]
    assert len(constant) >= 3, "groups with zero variance"
    everything = [r for g in groups.values() for r in g]
    assert sum(r["format"] == 0 for r in everything) >= 8, "format violations"
    gaps = [r for r in everything if any(e < b for e, b in zip(r["step_end"], r["step_begin"][1:]))]
    assert len(gaps) >= 20, "tool output between steps"
    assert {s for r in everything for s in r["step_score"]} == {-1, 0, 1}
    assert 0.2 < sum(r["outcome"] for r in everything) / len(everything) < 0.8
    # Steps and outcome are not the same signal: some attempts mend what they broke.
    assert any(r["outcome"] == 1 and -1 in r["step_score"] for r in everything)


def test_the_checker_grades_by_hand_made_attempts() -> None:
    m = program()
    problem = m.Problem(4, [("+", 3), ("*", 2)], False, 0)
    right = m.Attempt([("4 + 3 = 7", True), ("7 * 2 = 14", True), ("<answer>14</answer>", True)], [(0, 7), (1, 14), (2, 14)])
    assert (m.grade_steps(problem, right), m.grade_rollout(problem, right)) == ([1, 1, 1], (1, 1))
    slipped = m.Attempt([("4 + 3 = 8", True), ("8 * 2 = 16", True), ("it is 16", True)], [(0, 8), (1, 16), (2, 16)])
    assert (m.grade_steps(problem, slipped), m.grade_rollout(problem, slipped)) == ([-1, 1, 1], (0, 0))
    skipped = m.Attempt([("4 * 2 = 8", True), ("<answer>8</answer>", True)], [(1, 8), (2, 8)])
    assert (m.grade_steps(problem, skipped), m.grade_rollout(problem, skipped)) == ([-1, 1], (0, 1))
    idle = m.Attempt([("hm", True), ("4 + 3 = 7", True), ("<answer>7</answer>", True)], [(-1, 4), (0, 7), (2, 7)])
    assert (m.grade_steps(problem, idle), m.grade_rollout(problem, idle)) == ([0, 1, -1], (0, 1))
    mended = m.Attempt([("4 + 3 = 8", True), ("4 + 3 = 7", True), ("7 * 2 = 14", True), ("<answer>14</answer>", True)], [(0, 8), (0, 7), (1, 14), (2, 14)])
    assert (m.grade_steps(problem, mended), m.grade_rollout(problem, mended)) == ([-1, 1, 1, 1], (1, 1))
