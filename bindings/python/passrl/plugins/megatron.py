"""Megatron-LM's RL: `calculate_grpo_advantages` by any preset.

    import passrl.plugins.megatron; passrl.plugins.megatron.install()        before megatron.rl.rl_utils is imported, on every rank

Its loss takes a number a row, and a row is a turn: credit is given a turn. An environment's reward is a number (the outcome) or, for process rewards, a list
of one a turn, or of one a turn and the outcome behind them (`TokenRollout.reward`). The preset: PASSRL_PRESET ("megatron.grpo" is Megatron's own).

Groups may be of any size; a rollout of 0 turns (a placeholder) is in no statistics.
"""
from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..errors import ERR_SHAPE, refuse
from . import lists, settings
from .imports import after_import


def _record(reward: Any, turns: int, row: int) -> tuple[dict[str, Any], float]:
    if not isinstance(reward, (list, tuple, np.ndarray)):
        return {}, float(reward)
    if len(reward) not in (turns, turns + 1):
        refuse(ERR_SHAPE, f"passrl: rollout {row} has {len(reward)} rewards and {turns} turns; an environment gives a number, one a turn, or one a turn and the outcome")
    process = {"step_end": list(range(1, turns + 1)), "step_score": [float(score) for score in reward[:turns]]}
    return process, float(reward[turns]) if len(reward) > turns else float("nan")


def calculate_grpo_advantages(rewards: Sequence[Sequence[Any]], num_turns: Sequence[Sequence[int]]) -> list[float]:
    """Advantages of all turns, group by group: a drop-in for Megatron's function of this name."""
    config = settings.from_environment()
    flat, turns = [reward for group in rewards for reward in group], [int(n) for group in num_turns for n in group]
    groups = [g for g, group in enumerate(rewards) for _ in group]
    found = [_record(reward, n, row) for row, (reward, n) in enumerate(zip(flat, turns))]
    outcome = np.array([reward for _, reward in found])
    live = np.array(turns) > 0
    if np.isnan(outcome[live]).all():
        config = config.replace(missing="exclude")
    if config.kind == "prm" and "chunk" not in config.told and config.chunk == "by_value":
        # A turn is a step, and a token here: neighbouring turns of one score stay apart.
        config = config.replace(chunk="step")
    advantages, _ = lists.shaped(config, [record for record, _ in found], outcome, [np.ones(n) for n in turns], groups, in_stats=live,
                                 where="the environment, as a list of rewards a turn,")
    return [float(value) for row in advantages for value in row]


def _replace(module: Any) -> None:
    module.calculate_grpo_advantages = calculate_grpo_advantages


def install() -> None:
    """Replaces `megatron.rl.rl_utils.calculate_grpo_advantages` in this process, now or when its module is imported."""
    after_import("megatron.rl.rl_utils", _replace)
