"""ROLL, transcribed in float64 (alibaba/ROLL@090ac94 roll/utils/functionals.py, @51e5358 roll/pipeline/agentic/utils.py)."""
from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from cases import Case
from entry import Entry, F64
from formulas import by_group, gae, log_ratio, rows, to_go, whiten

RLVR = "alibaba/ROLL@090ac94 roll/utils/functionals.py:compute_advantage"
AGENTIC = "alibaba/ROLL@51e5358 roll/pipeline/agentic/utils.py:"
REASON = "not on PyPI"


def _rlvr(estimator: str, *, gamma: float = 1.0, lam: float = 1.0, kl: str | None = None, coef: float = 0.0, clip: float | None = None,
          white: bool = False, advantage_clip: float | None = None) -> Callable[[Case], F64]:
    """Norm by group (grpo), clamp, onto the last slot (lost where that is out of scope), KL, clamp again, return or GAE, whitening, clip."""

    def run(case: Case) -> F64:
        scores = by_group(case, case.outcome, lambda r: (r - r.mean()) / (r.std(ddof=1) + 1e-6)) if estimator == "grpo" else case.outcome
        if clip:
            scores = np.clip(scores, -clip, clip)
        tokens = case.terminal(scores, scope=False)
        if kl:
            estimate = log_ratio(kl, case.logp_policy, case.logp_reference)
            tokens = tokens - coef * np.where(case.mask, np.clip(estimate, -10, 10) if kl == "k3" else estimate, 0.0)
        if clip:
            tokens = np.clip(tokens, -clip, clip)
        tokens, values = np.where(case.mask, tokens, 0.0), np.where(case.mask, case.values, 0.0)
        found = rows(case, lambda i, at: gae(tokens[at], values[at], gamma, lam) if estimator == "gae" else to_go(tokens[at], gamma))
        if white:
            found = whiten(case, found, ddof=1, floor=False)
        return np.clip(found, -advantage_clip, advantage_clip) if advantage_clip else found

    return run


def _segments(gamma: float) -> Callable[[Case], F64]:
    """Runs of tokens in scope: each has its LAST token's reward and γ times the next run's return; all its tokens hold it."""

    def run(case: Case) -> F64:
        out = np.zeros(len(case.mask))
        for start, mask in zip(case.cu[:-1], case.rows(case.mask)):
            edges = np.flatnonzero(np.diff(np.concatenate([[0], mask.astype(int), [0]])))
            carry = 0.0
            for begin, end in reversed(list(zip(edges[::2], edges[1::2]))):
                carry = case.token_rewards[start + end - 1] + gamma * carry
                out[start + begin : start + end] = carry
        return out

    return run


def _normalized(x: F64) -> F64:
    if len(x) < 2 or x.min() == x.max() or x.std(ddof=1) <= 1e-6:
        return np.zeros(len(x))
    return (x - x.mean()) / (x.std(ddof=1) + 1e-6)


def _gigpo(case: Case, gamma: float, episode_weight: float, step_weight: float) -> F64:
    """A row is a step. Episode: outcomes over the group's rows (a rollout counts once a step); step: returns over rows of one group and state."""
    return gigpo(case, gamma, _normalized, _normalized, episode_weight, step_weight)


def gigpo(case: Case, gamma: float, episode: Callable[[F64], F64], step: Callable[[F64], F64], episode_weight: float, step_weight: float) -> F64:
    out = np.zeros(len(case.mask))
    for members in case.members():
        spans, outcomes, returns, keys = [], [], [], []
        for i in members:
            steps = case.live_steps(i)
            scores = np.array([case.step_scores[number] for number, _ in steps])
            returns += to_go(scores, gamma).tolist()
            for number, at in steps:
                spans.append(at)
                outcomes.append(case.outcome[i])
                keys.append(int(case.step_keys[number]))
        total = episode_weight * episode(np.array(outcomes))
        for key in set(keys):
            rows_of = np.flatnonzero(np.array(keys) == key)
            total[rows_of] += step_weight * step(np.array(returns)[rows_of])
        for at, value in zip(spans, total):
            out[at] = value
    return out


def entries() -> list[Entry]:
    even, single, log_probs, values = frozenset({"even"}), frozenset({"single"}), ("logp_policy", "logp_reference"), ("outcome", "values")

    def entry(preset: str, run: Callable[[Case], F64], variant: str = "", inputs: tuple[str, ...] = ("outcome",), config: dict[str, Any] | None = None,
              source: str = RLVR, needs: frozenset[str] = even, refuses: frozenset[str] = frozenset()) -> Entry:
        return Entry(preset=f"roll.{preset}", variant=variant, source=source, run=run, how="transcribed", reason=REASON, inputs=inputs, config=config or {},
                     needs=needs, refuses=refuses)

    none: frozenset[str] = frozenset()
    return [
        entry("reinforce", _rlvr("reinforce"), needs=none), entry("reinforce", _rlvr("reinforce", gamma=0.95), "gamma", config={"gamma": 0.95}, needs=none),
        entry("reinforce", _rlvr("reinforce", kl="k1", coef=0.05, white=True), "kl_whiten", ("outcome", *log_probs), {"kl_in_reward": "k1", "kl_coef": 0.05, "whiten": "tokens"}, needs=none),
        entry("gae", _rlvr("gae", gamma=1.0, lam=0.95), inputs=values, needs=none),
        entry("gae", _rlvr("gae", gamma=0.98, lam=0.9, kl="k3", coef=0.05, white=True), "kl_whiten", (*values, *log_probs),
              {"gamma": 0.98, "lam": 0.9, "kl_in_reward": "k3", "kl_coef": 0.05, "kl_clamp": 10.0, "whiten": "tokens"}, needs=none),
        entry("grpo", _rlvr("grpo"), refuses=single),
        entry("grpo", _rlvr("grpo", clip=0.75), "clip", config={"outcome.clip_standardized": 0.75}, refuses=single),
        entry("grpo", _rlvr("grpo", kl="k1", coef=0.05), "kl", ("outcome", *log_probs), {"kl_in_reward": "k1", "kl_coef": 0.05}, refuses=single),
        entry("grpo", _rlvr("grpo", white=True, advantage_clip=1.5), "whiten_clip", config={"whiten": "tokens", "clip": 1.5}, refuses=single),
        entry("agentic_reinforce", _segments(1.0), inputs=("signal",), needs=none, source=AGENTIC + "compute_agentic_reinforce_return"),
        entry("agentic_reinforce", _segments(0.9), "gamma", ("signal",), {"gamma": 0.9}, needs=none, source=AGENTIC + "compute_agentic_reinforce_return"),
        entry("gigpo", lambda case: _gigpo(case, 1.0, 1.0, 1.0), inputs=("outcome", "steps", "step_keys"), config={"step_gamma": 1.0}, needs=none,
              refuses=frozenset({"empty"}), source=AGENTIC + "compute_response_level_rewards"),
        entry("gigpo", lambda case: _gigpo(case, 0.95, 1.0, 0.5), "gamma_weight", ("outcome", "steps", "step_keys"), {"step_gamma": 0.95, "w_process": 0.5}, needs=none,
              refuses=frozenset({"empty"}), source=AGENTIC + "compute_response_level_rewards"),
    ]
