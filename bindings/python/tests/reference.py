"""A plain float64 transcription of the pipeline for scored steps with begins: one Python loop a token, nothing of the package."""
from __future__ import annotations

import math
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


# The primitives, on the in-scope values of one rollout (a list each).


def returns_to_go(rewards: list[float], gamma: float) -> list[float]:
    """G_t = r_t + gamma G_(t+1)."""
    out, after = [0.0] * len(rewards), 0.0
    for t in reversed(range(len(rewards))):
        out[t] = after = rewards[t] + gamma * after
    return out


def gae(rewards: list[float], values: list[float], gamma: float, lam: float, bootstrap: float = 0.0) -> tuple[list[float], list[float]]:
    """A_t = delta_t + gamma lam A_(t+1), delta_t = r_t + gamma V_(t+1) - V_t; and A + V."""
    advantages, after, value_after = [0.0] * len(rewards), 0.0, bootstrap
    for t in reversed(range(len(rewards))):
        after = rewards[t] + gamma * value_after - values[t] + gamma * lam * after
        advantages[t], value_after = after, values[t]
    return advantages, [a + v for a, v in zip(advantages, values)]


def divided(x: list[float], k: float) -> list[float]:
    """x_j / (K - j + 1)^k, j from 1."""
    return [v / (len(x) - j) ** k for j, v in enumerate(x)]


def opd(policy: float, teacher: float, base: float | None, weight: float) -> float:
    """Log-ratio of teacher and policy; with a base, the teacher's gain over it weighed against the policy's."""
    return teacher - policy if base is None else weight * (teacher - base) - (policy - base)


def k3(d: float, clamp: float) -> float:
    """exp(-d) - 1 + d, limited, in float32."""
    return float(np.float32(max(min(math.exp(-d) - 1 + d, clamp), -clamp)))


def whitened(rows: list[list[float]], counted: list[bool], ddof: int = 1, shift: bool = True) -> list[list[float]]:
    """(x - mean) / sqrt(var + 1e-8) with mean and variance over the rows that count."""
    pool = [v for row, yes in zip(rows, counted) if yes for v in row]
    mean = sum(pool) / len(pool)
    var = sum((v - mean) ** 2 for v in pool) / (len(pool) - ddof)
    return [[(v - mean) / (var + 1e-8) ** 0.5 + (0 if shift else mean) for v in row] for row in rows]


def chunk_ends(
    signal: list[float], scope: list[bool], step_ends: list[int], eta: float, anchored: bool = False, bridge: bool = False, merge: bool = False,
) -> list[int]:
    """Exclusive ends of the runs of nearly one value, of steps (unless merged) and of in-scope spans (unless bridged). Tokens after the last
    step's end are of the last step."""
    inside = [t for t in range(len(signal)) if scope[t]]
    ends, first = [], inside[0] if inside else 0
    for a, b in zip(inside, inside[1:]):
        new_step = any(a < end <= b for end in step_ends[:-1]) and not merge
        gap = b - a > 1 and not bridge
        if new_step or gap or abs(signal[b] - signal[first if anchored else a]) > eta:
            ends.append(a + 1)
            first = b
    return ends + [inside[-1] + 1] if inside else []
