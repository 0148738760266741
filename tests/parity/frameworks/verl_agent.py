"""GiGPO of verl-agent, transcribed in float64 (gigpo/core_gigpo.py, read in the copy zhengxuyu/verl-agent@3d91c9b).

A row is a step of a rollout. Episode term: the outcome against the group's ROWS (a rollout counts once a step; its default
`compute_mean_std_cross_steps`, which the caller cannot set); step term: the discounted return of the step rewards against the rows of the group with the same state.
"""
from __future__ import annotations

from collections.abc import Callable

import numpy as np

from cases import Case
from entry import Entry, F64
from frameworks.roll import gigpo

SOURCE = "langfengQ/verl-agent (copy zhengxuyu/verl-agent@3d91c9b) gigpo/core_gigpo.py:compute_gigpo_outcome_advantage"


def _run(gamma: float, weight: float, std: bool) -> Callable[[Case], F64]:
    def scaled(x: F64) -> F64:
        return (x - x.mean()) / ((0.0 if x.min() == x.max() else x.std(ddof=1)) + 1e-6) if std else x - x.mean()

    def episode(x: F64) -> F64:
        # One row: mean 0, deviation 1.
        return scaled(x) if len(x) > 1 else x / (1 + 1e-6) if std else x

    def step(x: F64) -> F64:
        return scaled(x) if len(x) > 1 else np.zeros(1)

    return lambda case: gigpo(case, gamma, episode, step, 1.0, weight)


def entries() -> list[Entry]:
    inputs, refuses, reason = ("outcome", "steps", "step_keys"), frozenset({"empty"}), "not on PyPI"
    return [
        Entry(preset="verl_agent.gigpo", source=SOURCE, run=_run(0.95, 1.0, True), how="transcribed", reason=reason, inputs=inputs, refuses=refuses,
              config={"step_gamma": 0.95}),
        Entry(preset="verl_agent.gigpo", variant="weight", source=SOURCE, run=_run(1.0, 0.5, True), how="transcribed", reason=reason, inputs=inputs, refuses=refuses,
              config={"step_gamma": 1.0, "w_process": 0.5}),
        Entry(preset="verl_agent.gigpo_mean", source=SOURCE, run=_run(0.95, 1.0, False), how="transcribed", reason=reason, inputs=inputs, refuses=refuses,
              config={"step_gamma": 0.95}),
    ]
