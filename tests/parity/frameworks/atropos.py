"""Atropos (atroposlib 0.4.0 from PyPI): its own `compute_grpo_process_supervision_advantages`, in float64; one call a group."""
from __future__ import annotations

from collections.abc import Callable

import numpy as np

import stubs
from cases import Case
from entry import Entry, F64

stubs.stub("openai")

from atroposlib.utils.advantages import compute_grpo_process_supervision_advantages  # noqa: E402

SOURCE = "atroposlib 0.4.0 atroposlib/utils/advantages.py:compute_grpo_process_supervision_advantages"


def _run(gamma: float | None) -> Callable[[Case], F64]:
    def run(case: Case) -> F64:
        out = np.zeros(len(case.mask))
        for rows in case.members():
            steps = [case.live_steps(i) for i in rows]
            scores = [[float(case.step_scores[step]) for step, _ in row] for row in steps]
            for row, advantages in zip(steps, compute_grpo_process_supervision_advantages(scores, gamma)):
                # A step's advantage is that of its tokens.
                for (_, slots), advantage in zip(row, advantages):
                    out[slots] = advantage
        return out

    return run


def entries() -> list[Entry]:
    # A group without variance (as one of one step) is refused by theirs.
    refuses = frozenset({"constant", "empty", "single"})
    return [
        Entry(preset="atropos.grpo_process", source=SOURCE, run=_run(None), inputs=("steps",), refuses=refuses),
        Entry(preset="atropos.grpo_process", variant="gamma", source=SOURCE, run=_run(0.9), inputs=("steps",), refuses=refuses, config={"gamma": 0.9}),
    ]
