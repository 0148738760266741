"""NeMo-RL, transcribed in float64 from its formulas (NVIDIA-NeMo/RL@00925dd nemo_rl/algorithms/advantage_estimator.py, utils.py)."""
from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from cases import WEIGHTS, Case
from entry import Entry, F64
from formulas import by_group, gae_carried, log_ratio, rows, whiten

SOURCE = "NVIDIA-NeMo/RL@00925dd nemo_rl/algorithms/advantage_estimator.py:"
REASON = "nemo-rl on PyPI is an empty placeholder (0.0.0)"


def _baseline(rewards: F64, leave_one_out: bool) -> tuple[F64, F64]:
    """Baseline and deviation of each rollout of a group, from the others (or from all): variance E[r²] - E[r]² with Bessel's k/(k-1)."""
    n = len(rewards)
    if n <= 1:
        return rewards.copy(), np.zeros(n)
    baseline, deviation = np.zeros(n), np.zeros(n)
    for i in range(n):
        peers = np.delete(rewards, i) if leave_one_out else rewards
        baseline[i] = peers.mean()
        # Of one peer, or of equal ones: no deviation, no division.
        deviation[i] = peers.std(ddof=1) if len(peers) > 1 and peers.min() != peers.max() else 0.0
    return baseline, deviation


def _scores(rewards: F64, leave_one_out: bool, normalize: bool = True) -> F64:
    baseline, deviation = _baseline(rewards, leave_one_out)
    centred = rewards - baseline
    return np.where(deviation > 0, centred / (deviation + 1e-6), centred) if normalize else centred


def _grpo(leave_one_out: bool, normalize: bool = True) -> Callable[[Case], F64]:
    return lambda case: by_group(case, case.outcome, lambda r: _scores(r, leave_one_out, normalize))


def _gdpo(case: Case) -> F64:
    total = sum(w * by_group(case, case.functions[:, k], lambda r: _scores(r, True)) for k, w in enumerate(WEIGHTS))
    total = np.asarray(total)
    deviation = total.std(ddof=1)
    return (total - total.mean()) / deviation if deviation > 0 else total - total.mean()


def _kl(case: Case, kind: str) -> F64:
    """Log-ratio to ±20, estimate to ±10, whatever the estimator."""
    ratio = np.clip(case.logp_policy - case.logp_reference, -20, 20)
    return np.clip(log_ratio(kind, ratio, np.zeros(len(ratio))), -10, 10)


def _plus_plus(minus_baseline: bool = True, kl: str | None = None, coef: float = 0.0) -> Callable[[Case], F64]:
    def run(case: Case) -> F64:
        # A group of one is its own baseline.
        base = by_group(case, case.outcome, lambda r: r - r.mean()) if minus_baseline else case.outcome
        tokens = np.repeat(base, case.lengths) - (coef * _kl(case, kl) if kl else 0.0)
        return whiten(case, tokens, ddof=0, floor=True)

    return run


def _gae(gamma: float, lam: float, normalize: bool = True, kl: str | None = None, coef: float = 0.0, alpha: float = 0.0) -> Callable[[Case], F64]:
    def run(case: Case) -> F64:
        rewards = np.where(case.mask, case.terminal(case.outcome) - (coef * _kl(case, kl) if kl else 0.0), 0.0)

        def one(i: int, at: slice) -> F64:
            own = lam if not alpha else float(np.clip(1 - 1 / max(alpha * case.mask[at].sum(), 1.0), 0, 1))
            return gae_carried(rewards[at], case.values[at], case.mask[at], gamma, own)

        found = rows(case, one)
        return whiten(case, found, ddof=1, floor=False) if normalize else found

    return run


def _raw(normalize: bool) -> Callable[[Case], F64]:
    return lambda case: whiten(case, np.repeat(case.outcome, case.lengths), ddof=0, floor=True) if normalize else case.outcome


def entries() -> list[Entry]:
    log_probs = ("logp_policy", "logp_reference")

    def entry(preset: str, function: str, run: Callable[[Case], F64], variant: str = "", inputs: tuple[str, ...] = ("outcome",),
              config: dict[str, Any] | None = None, **more: Any) -> Entry:
        return Entry(preset=f"nemo_rl.{preset}", variant=variant, source=SOURCE + function, run=run, how="transcribed", reason=REASON, inputs=inputs,
                     config=config or {}, **more)

    plus, general, values = "ReinforcePlusPlusAdvantageEstimator", "GeneralizedAdvantageEstimator", ("outcome", "values")
    return [
        entry("grpo", "GRPOAdvantageEstimator", _grpo(True)), entry("grpo", "GRPOAdvantageEstimator", _grpo(True, False), "no_std", config={"scale": "none"}),
        entry("grpo_no_loo", "GRPOAdvantageEstimator", _grpo(False)),
        entry("gdpo", "GDPOAdvantageEstimator", _gdpo, inputs=("functions",), refuses=frozenset({"lone", "empty"})),
        entry("reinforce_plus_plus", plus, _plus_plus()),
        entry("reinforce_plus_plus", plus, _plus_plus(False), "no_baseline", config={"center": "none"}),
        entry("reinforce_plus_plus", plus, _plus_plus(kl="k1", coef=0.05), "kl_k1", ("outcome", *log_probs), {"kl_in_reward": "k1", "kl_coef": 0.05}),
        entry("reinforce_plus_plus", plus, _plus_plus(kl="k3", coef=0.05), "kl_k3", ("outcome", *log_probs), {"kl_in_reward": "k3", "kl_coef": 0.05}),
        entry("gae", general, _gae(1.0, 0.95), inputs=values, config={"lam": 0.95}),
        entry("gae", general, _gae(0.98, 0.9, False), "no_norm", values, {"gamma": 0.98, "lam": 0.9, "whiten": "none"}),
        entry("gae", general, _gae(0.98, 0.9, kl="k2", coef=0.05), "kl_k2", (*values, *log_probs), {"gamma": 0.98, "lam": 0.9, "kl_in_reward": "k2", "kl_coef": 0.05}),
        entry("gae_length_adaptive", general, _gae(1.0, 0.95, alpha=0.05), inputs=values),
        entry("opd", "OPDAdvantageEstimator", lambda case: case.logp_teacher - case.logp_policy, inputs=("logp_policy", "logp_teacher")),
        entry("raw_reward", "RawRewardAdvantageEstimator", _raw(True)),
        entry("raw_reward", "RawRewardAdvantageEstimator", _raw(False), "no_norm", config={"whiten": "none"}),
    ]
