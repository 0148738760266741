"""prime-rl: its custom advantage function.

    [orchestrator.advantage]
    type = "custom"
    import_path = "passrl.plugins.prime_rl.advantages"
    kwargs = { preset = "pass:k=0.7" }

It is given one group. The environment leaves a rollout's record in its state as `process` (verifiers: `state["process"]`, kept by `state_columns`), offsets in
completion tokens, tool output included. Rollouts without one have no steps.
"""
from __future__ import annotations

from typing import Any

import numpy as np

from . import lists
from .settings import configured


def advantages(inputs: Any, preset: str = "pass", **fields: Any) -> list[list[float]]:
    """Per-token advantages of a group, a list a rollout of `inputs.completion_lengths` numbers.

    inputs: prime-rl's `AdvantageInputs`: `rollouts` (mappings with "reward") and `completion_lengths`. fields: of the configuration, beside the preset.
    """
    config = configured(preset, fields)
    given = [rollout.get("process") for rollout in inputs.rollouts]
    rewards = np.array([float(rollout["reward"]) for rollout in inputs.rollouts])
    # prime-rl masks what the policy did not write itself; every completion token has an advantage here.
    found, _ = lists.shaped(config, given, rewards, [np.ones(n) for n in inputs.completion_lengths], [0] * len(given), where="the environment, as state['process'],")
    return [row.tolist() for row in found]
