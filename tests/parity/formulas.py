"""The few steps that transcriptions share, in float64, one rollout or one batch at a time. No framework and no passrl in here."""
from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from cases import Case, F64


def by_group(case: Case, rewards: F64, rule: Callable[[F64], F64]) -> F64:
    """`rule` on the rewards of each group: `[R]`."""
    out = np.zeros(case.rollouts)
    for rows in case.members():
        out[rows] = rule(rewards[rows])
    return out


def log_ratio(kind: str, policy: F64, reference: F64) -> F64:
    """KL estimator without any clamp: k1 d, abs |d|, k2 d²/2, k3 exp(-d) - 1 + d, for d = policy - reference."""
    d = policy - reference
    return {"k1": d, "abs": np.abs(d), "k2": d**2 / 2, "k3": np.exp(-d) - 1 + d}[kind]


def to_go(rewards: F64, gamma: float) -> F64:
    """G_t = r_t + γ G_{t+1} over every slot."""
    out, carry = np.zeros(len(rewards)), 0.0
    for t in reversed(range(len(rewards))):
        out[t] = carry = rewards[t] + gamma * carry
    return out


def gae(rewards: F64, values: F64, gamma: float, lam: float) -> F64:
    """A_t = r_t + γ V_{t+1} - V_t + γλ A_{t+1} over every slot, nothing after the last."""
    out, carry, following = np.zeros(len(rewards)), 0.0, 0.0
    for t in reversed(range(len(rewards))):
        out[t] = carry = rewards[t] + gamma * following - values[t] + gamma * lam * carry
        following = values[t]
    return out


def gae_carried(rewards: F64, values: F64, mask: NDArray[np.bool_], gamma: float, lam: float) -> F64:
    """The same over the slots in scope; out of scope the value and the advantage that follow are carried past."""
    out = np.zeros(len(rewards))
    out[mask] = gae(rewards[mask], values[mask], gamma, lam)
    return out


def whiten(case: Case, advantages: F64, *, ddof: int, floor: bool) -> F64:
    """(A - mean) / deviation over all tokens in scope. floor: 1/sqrt(max(var, 1e-8)); else 1/sqrt(var + 1e-8)."""
    live = advantages[case.mask]
    mean = live.mean()
    variance = ((live - mean) ** 2).sum() / max(len(live) - ddof, 1)
    return (advantages - mean) / np.sqrt(max(variance, 1e-8) if floor else variance + 1e-8)


def rows(case: Case, rule: Callable[[int, slice], F64]) -> F64:
    """`rule(i, slots of rollout i)` for each rollout, joined: `[N]`."""
    return np.concatenate([rule(i, slice(case.cu[i], case.cu[i + 1])) for i in range(case.rollouts)])
