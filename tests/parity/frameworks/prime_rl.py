"""prime-rl, transcribed in float64 (PrimeIntellect-ai/prime-rl src/prime_rl/orchestrator/algo). Its `opd` assigns no advantage: the KL is in the trainer's loss."""
from __future__ import annotations

import numpy as np

from cases import Case
from entry import Entry, F64
from formulas import by_group

SOURCE = "PrimeIntellect-ai/prime-rl src/prime_rl/orchestrator/algo/"


def _grpo(case: Case) -> F64:
    return by_group(case, case.outcome, lambda r: r - r.mean())


def _max_rl(case: Case) -> F64:
    return by_group(case, case.outcome, lambda r: np.zeros(len(r)) if r.mean() <= 0 else (r - r.mean()) / r.mean())


def entries() -> list[Entry]:
    reason = "not on PyPI"
    return [Entry(preset="prime_rl.grpo", source=SOURCE + "grpo.py@10d8af3:GRPOAlgorithm", run=_grpo, how="transcribed", reason=reason),
            Entry(preset="prime_rl.max_rl", source=SOURCE + "max_rl.py@0d6738f:MaxRLAlgorithm.score_group", run=_max_rl, how="transcribed", reason=reason)]
