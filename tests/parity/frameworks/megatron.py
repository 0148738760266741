"""Megatron-LM's RL, transcribed in float64 (NVIDIA/Megatron-LM megatron/rl/rl_utils.py:calculate_grpo_advantages).

The `megatron.rl` of PyPI (in the wheel of miles-rl 0.0.2) is older than that function: training divides by torch's ddof 1 there.
"""
from __future__ import annotations

from cases import Case
from entry import Entry, F64
from formulas import by_group

SOURCE = "NVIDIA/Megatron-LM@d98e8a6 megatron/rl/rl_utils.py:calculate_grpo_advantages"


def _run(case: Case) -> F64:
    return by_group(case, case.outcome, lambda r: (r - r.mean()) / (1e-4 + r.std()))


def entries() -> list[Entry]:
    return [Entry(preset="megatron.grpo", source=SOURCE, run=_run, how="transcribed", needs=frozenset({"even"}),
                  reason="megatron-core on PyPI has no megatron.rl; that in miles-rl's wheel is older than the function")]
