"""A plain float64 transcription of the pipeline for scored steps with begins: one Python loop a token, nothing of the package."""
from __future__ import annotations

from typing import Any

import numpy as np


def standardised(x: list[float], pool: list[float]) -> list[float]:
    """(x - mean) / (std + 1e-6), ddof 1; 0 where the pool has fewer than two different values."""
    if len(pool) < 2 or max(pool) == min(pool):
        return [0.0] * len(x)
    mean = sum(pool) / len(pool)
    std = (sum((p - mean) ** 2 for p in pool) / (len(pool) - 1)) ** 0.5
    return [(v - mean) / (std + 1e-6) for v in x]


def group_advantages(rollouts: list[dict[str, Any]], k: float = 0.7, gamma: float = 1.0) -> list[np.ndarray]:
    """PASS of one group: fuse, a chunk a step (steps are never adjacent here), discounted return-to-go, divide by (K - j + 1)^k."""
    steps = standardised([s for r in rollouts for s in r["step_score"]], [s for r in rollouts for s in r["step_score"]])
    outcome = standardised([r["outcome"] for r in rollouts], [r["outcome"] for r in rollouts])
    form = standardised([r["format"] for r in rollouts], [r["format"] for r in rollouts])
    out, at = [], 0
    for i, r in enumerate(rollouts):
        advantages = np.zeros(r["len"])
        count = len(r["step_end"])
        values = [steps[at + j] + outcome[i] + form[i] if r["format"] else 3 * form[i] for j in range(count)]
        at += count
        to_go = 0.0
        for j in reversed(range(count)):
            to_go = values[j] + gamma * to_go
            for t in range(r["step_begin"][j], r["step_end"][j]):
                advantages[t] = to_go / (count - j) ** k
        out.append(advantages)
    return out
