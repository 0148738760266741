"""DeepSpeed-Chat, transcribed in float64 (deepspeedai/DeepSpeedExamples@5ff0211 applications/DeepSpeed-Chat/dschat/rlhf/ppo_trainer.py).

The score, clamped to ±5, is added one slot past the last token in scope (the EOS where it is the padding token), which has its own KL term
and value; a row that fills the width has no such slot. Plain GAE up to there.
"""
from __future__ import annotations

import numpy as np

from cases import Case
from entry import Entry, F64
from formulas import gae, rows

SOURCE = "deepspeedai/DeepSpeedExamples@5ff0211 applications/DeepSpeed-Chat/dschat/rlhf/ppo_trainer.py:DeepSpeedPPOTrainer.get_advantages_and_returns"


def _run(case: Case) -> F64:
    rewards = -0.1 * (case.logp_policy - case.logp_reference) + case.terminal(np.clip(case.outcome, -5, 5), scope=False)
    return rows(case, lambda i, at: gae(rewards[at], case.values[at], 1.0, 0.95))


def entries() -> list[Entry]:
    return [Entry(preset="deepspeed_chat.ppo", source=SOURCE, run=_run, how="transcribed", reason="dschat is not on PyPI", needs=frozenset({"tail"}),
                  inputs=("outcome", "values", "logp_policy", "logp_reference"), config={"kl_coef": 0.1})]
