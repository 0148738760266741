"""rLLM, transcribed in float64 (rllm-org/rllm rllm/trainer/algorithms/rl_algo.py, advantage.py)."""
from __future__ import annotations

from collections.abc import Callable

from cases import Case
from entry import Entry, F64
from formulas import by_group

SOURCE = "rllm-org/rllm rllm/trainer/algorithms/rl_algo.py:"


def _grpo(std: bool) -> Callable[[Case], F64]:
    def rule(r: F64) -> F64:
        mean, deviation = (r.mean(), r.std()) if len(r) > 1 else (0.0, 1.0)
        return (r - mean) / (deviation + 1e-6) if std else r - mean

    return lambda case: by_group(case, case.outcome, rule)


def _rloo(case: Case) -> F64:
    return by_group(case, case.outcome, lambda r: r if len(r) <= 1 else len(r) / (len(r) - 1) * (r - r.mean()))


def _plus_plus_baseline(case: Case) -> F64:
    """Group mean off (of one rollout: to 0), then the deviation of all rollouts, ddof 0."""
    centred = by_group(case, case.outcome, lambda r: r - r.mean())
    return centred / (centred.std() + 1e-6)


def entries() -> list[Entry]:
    reason = "not on PyPI"
    return [
        Entry(preset="rllm.grpo", source=SOURCE + "calculate_grpo_advantages_per_group", run=_grpo(True), how="transcribed", reason=reason),
        Entry(preset="rllm.grpo", variant="no_std", source=SOURCE + "calculate_grpo_advantages_per_group", run=_grpo(False), how="transcribed", reason=reason,
              config={"scale": "none"}),
        Entry(preset="rllm.reinforce", source=SOURCE + "calculate_reinforce_advantages", run=lambda case: case.outcome, how="transcribed", reason=reason),
        Entry(preset="rllm.rloo", source=SOURCE + "calculate_rloo_advantages_per_group", run=_rloo, how="transcribed", reason=reason),
        Entry(preset="rllm.reinforce_plus_plus_baseline", source=SOURCE + "calculate_reinforce_plus_plus_baseline_advantages", run=_plus_plus_baseline,
              how="transcribed", reason=reason, refuses=frozenset({"empty"})),
    ]
