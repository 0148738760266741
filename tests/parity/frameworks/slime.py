"""slime, transcribed in float64 (THUDM/slime: slime/ray/rollout.py, slime/utils/ppo_utils.py, slime/backends/megatron_utils/loss.py).

Its functions are those that miles 0.0.2 was forked with, which frameworks/miles.py calls; later differences are in the formulas here.
"""
from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from cases import Case
from entry import Entry, F64
from formulas import by_group, gae, log_ratio, rows, to_go, whiten

SOURCE = "THUDM/slime@00c2d6d slime/backends/megatron_utils/loss.py:compute_advantages_and_returns"
REASON = "not on PyPI (slime there is another project)"


def _kl(case: Case, kind: str) -> F64:
    if kind == "low_var_kl":
        return np.clip(log_ratio("k3", case.logp_policy, case.logp_reference), -10, 10)
    return log_ratio(kind, case.logp_policy, case.logp_reference)


def _grpo(std: bool = True, opd: float = 0.0) -> Callable[[Case], F64]:
    def run(case: Case) -> F64:
        scores = by_group(case, case.outcome, lambda r: (r - r.mean()) / (r.std(ddof=1) + 1e-6) if std else r - r.mean())
        tokens = np.repeat(scores, case.lengths)
        return tokens - opd * (case.logp_policy - case.logp_teacher) if opd else tokens

    return run


def _mixed(case: Case) -> F64:
    """Groups of several sizes: theirs takes the whole batch for one group."""
    return (case.outcome - case.outcome.mean()) / (case.outcome.std(ddof=1) + 1e-6)


def _ppo(gamma: float, lam: float, kl: str | None = None, coef: float = 0.0, normalize: bool = False) -> Callable[[Case], F64]:
    """The reward is put on the last slot of the response; masks are not looked at."""

    def run(case: Case) -> F64:
        rewards = case.terminal(case.outcome, scope=False) - (coef * _kl(case, kl) if kl else 0.0)
        found = rows(case, lambda i, at: gae(rewards[at], case.values[at], gamma, lam))
        return whiten(case, found, ddof=1, floor=False) if normalize else found

    return run


def _plus_plus(gamma: float, kl: str = "k1", coef: float = 0.0, normalize: bool = False) -> Callable[[Case], F64]:
    """KL in scope alone, the reward on the last slot in scope; γ runs over every slot."""

    def run(case: Case) -> F64:
        rewards = case.terminal(case.outcome) - coef * np.where(case.mask, _kl(case, kl), 0.0)
        found = rows(case, lambda i, at: to_go(rewards[at], gamma))
        return whiten(case, found, ddof=1, floor=False) if normalize else found

    return run


def _plus_plus_baseline(coef: float, normalize: bool) -> Callable[[Case], F64]:
    def run(case: Case) -> F64:
        found = np.repeat(by_group(case, case.outcome, lambda r: r - r.mean()), case.lengths) - coef * _kl(case, "k1")
        return whiten(case, found, ddof=1, floor=False) if normalize else found

    return run


def entries() -> list[Entry]:
    even, log_probs, values = frozenset({"even"}), ("logp_policy", "logp_reference"), ("outcome", "values")
    single = frozenset({"single"})

    def entry(preset: str, run: Callable[[Case], F64], variant: str = "", inputs: tuple[str, ...] = ("outcome",), config: dict[str, Any] | None = None,
              refuses: frozenset[str] = frozenset()) -> Entry:
        return Entry(preset=f"slime.{preset}", variant=variant, source=SOURCE, run=run, how="transcribed", reason=REASON, inputs=inputs, config=config or {},
                     needs=even, refuses=refuses)

    kl = {"kl_in_reward": "k1", "kl_coef": 0.05}
    return [
        entry("grpo", _grpo(), refuses=single), entry("dr_grpo", _grpo(False)),
        entry("ppo", _ppo(1.0, 1.0), inputs=values), entry("ppo", _ppo(0.98, 0.9), "gamma_lam", values, {"gamma": 0.98, "lam": 0.9}),
        entry("ppo", _ppo(0.98, 0.9, "k1", 0.05, True), "kl_whiten", (*values, *log_probs), {"gamma": 0.98, "lam": 0.9, "whiten": "tokens", **kl}),
        entry("ppo", _ppo(1.0, 0.95, "low_var_kl", 0.05), "kl_low_var", (*values, *log_probs), {"lam": 0.95, "kl_in_reward": "k3", "kl_coef": 0.05, "kl_clamp": 10.0}),
        entry("reinforce_plus_plus", _plus_plus(1.0)), entry("reinforce_plus_plus", _plus_plus(0.95), "gamma", config={"gamma": 0.95}),
        entry("reinforce_plus_plus", _plus_plus(0.95, "k1", 0.05, True), "kl_whiten", ("outcome", *log_probs), {"gamma": 0.95, "whiten": "tokens", **kl}),
        entry("reinforce_plus_plus_baseline", _plus_plus_baseline(0.0, True), config={"whiten": "tokens"}),
        entry("reinforce_plus_plus_baseline", _plus_plus_baseline(0.05, True), "kl", ("outcome", *log_probs), {"whiten": "tokens", **kl}),
        Entry(preset="slime.grpo", variant="compat_mixed", source=SOURCE, run=_mixed, how="transcribed", reason=REASON, needs=frozenset({"uneven", "gaps"}),
              exceptions={"uneven": "mixed"}, config={"compat": True}),
        entry("opd", _grpo(True, 1.0), inputs=("outcome", "logp_policy", "logp_teacher"), refuses=single),
        entry("opd", _grpo(True, 0.5), "coef", ("outcome", "logp_policy", "logp_teacher"), {"w_process": 0.5}, single),
    ]
