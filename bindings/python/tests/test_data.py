"""Real rollouts (250 of 50 questions, human step labels, tool output out of scope) against the plain reference."""
from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

import passrl

from conftest import DATA
from reference import group_advantages


def rollouts() -> list[dict[str, Any]]:
    if not DATA.exists():
        pytest.skip(f"SKIPPED, REAL DATA ABSENT: {DATA.name} is not at <repository>/../shared/data; nothing here was compared with it")
    return [json.loads(line) for line in DATA.read_text().splitlines()]


def batch(rows: list[dict[str, Any]]) -> dict[str, Any]:
    offsets = np.concatenate([[0], np.cumsum([len(r["step_end"]) for r in rows])])

    def flat(key: str) -> Any:
        return np.array([value for r in rows for value in r[key]])

    return {
        "steps": passrl.Steps(offsets, flat("step_end"), flat("step_score").astype(np.float32), flat("step_begin")),
        "cu_seqlens": np.concatenate([[0], np.cumsum([r["len"] for r in rows])]), "groups": [f"q{r['group']}" for r in rows],
        "outcome": np.array([r["outcome"] for r in rows], np.float32), "format": np.array([r["format"] for r in rows], np.float32),
        "format_ok": np.array([r["format"] for r in rows], np.bool_),
    }


@pytest.mark.parametrize(("k", "gamma"), [(0.7, 1.0), (0.0, 1.0), (1.0, 0.9)])
def test_all_rollouts(k: float, gamma: float) -> None:
    rows = rollouts()
    assert len(rows) == 250
    shaped = passrl.shape(k=k, gamma=gamma, dtype="f64", **batch(rows))
    wanted: list[np.ndarray] = []
    for group in dict.fromkeys(r["group"] for r in rows):
        wanted += group_advantages([r for r in rows if r["group"] == group], k, gamma)
    np.testing.assert_allclose(shaped.advantages, np.concatenate(wanted), atol=1e-12, rtol=1e-12)
    assert shaped.report.tokens == 73775 and shaped.num_chunks.sum() == 734
    assert shaped.status == 0


def test_shuffled_micro_batches_give_the_same_bits() -> None:
    rows = rollouts()
    whole = passrl.shape(**batch(rows))
    order = np.random.default_rng(1).permutation(len(rows))
    keys, _ = passrl.group_index([f"q{r['group']}" for r in rows])
    plan = passrl.Plan(rollouts=64, groups=50, tokens=600_000, rollout_tokens=60_000, steps=400, group_rollouts=5, group_elements=200)
    partials = passrl.Partials(plan)
    parts = np.array_split(order, 5)
    micro = []
    for part in parts:
        one = batch([rows[i] for i in part])
        one["groups"] = keys[part]
        micro.append(one)
    for phase in range(partials.phases):
        for one in micro:
            partials.add(phase, **one)
    for part, one in zip(parts, micro):
        found = np.split(partials.apply(**one).advantages, one["cu_seqlens"][1:-1])
        for i, advantages in zip(part, found):
            begin = sum(r["len"] for r in rows[:i])
            np.testing.assert_array_equal(advantages, whole.advantages[begin : begin + rows[i]["len"]])
