"""ROLL: `compute_advantage` by any preset.

    import passrl.plugins.roll; passrl.plugins.roll.install()                at the top of the start script, before roll's pipelines are imported

The preset: PASSRL_PRESET; without it ROLL's own runs. Records are `data.non_tensor_batch["process"]`, from the reward worker or environment; groups
`data.non_tensor_batch["traj_group_id"]`, or "prompt_id", or "uid". The outcome is the row's sum of `token_level_rewards`. ROLL's `whiten_advantages` and
`advantage_clip` are the preset's whiten and clip: refused where they are set beside it.
"""
from __future__ import annotations

import os
from typing import Any

import numpy as np

from ..errors import ERR_CONFLICT, ERR_NULL, refuse
from . import lists, settings, spans
from .imports import after_import

_GROUPS = ("traj_group_id", "prompt_id", "uid")
_OPTIONS = {"values": "ROLL has a critic with adv_estimator: gae", "logp_policy": "ROLL keeps old_log_probs with the reference and old policies' log-probabilities enabled"}


def compute(data: Any, response_mask: Any = None, advantage_clip: Any = None, whiten_advantages: bool = False) -> Any:
    """Writes `raw_advantages`, `advantages` and `returns` `[B, T]` into the batch."""
    config = settings.from_environment()
    if whiten_advantages or advantage_clip is not None:
        refuse(ERR_CONFLICT, "passrl: whiten_advantages or advantage_clip is set in ROLL's configuration; passrl's advantages are final: leave them out and set whiten=tokens or clip in the preset")
    mask = data.batch["response_mask"][:, 1:] if response_mask is None else response_mask
    rewards = data.batch["token_level_rewards"]
    others = data.non_tensor_batch
    key = next((name for name in _GROUPS if name in others), None)
    if key is None:
        refuse(ERR_NULL, f"passrl: data.non_tensor_batch has none of {', '.join(_GROUPS)}, so that no row has a group; the scheduler sets prompt_id, the agentic pipeline traj_group_id")
    batch = data.batch
    tokens = lists.wanted(config, {name: batch[theirs] if theirs in batch.keys() else None for name, theirs in (
        ("values", "values"), ("logp_policy", "old_log_probs"), ("logp_reference", "ref_log_probs"))}, _OPTIONS)
    given = list(others.get("process", [None] * len(mask)))
    advantages, returns, _ = spans.shaped(config, given, rewards.sum(-1), mask, np.asarray(others[key]), where="the reward worker, as non_tensor_batch['process'],", **tokens)
    batch["raw_advantages"] = batch["advantages"] = advantages
    batch["returns"] = returns
    return data


def _wrap(module: Any) -> None:
    theirs = module.compute_advantage

    def compute_advantage(data: Any, gamma: Any, lambd: Any, adv_estimator: Any, advantage_clip: Any = None, whiten_advantages: bool = False,
                          whiten_rewards: bool = False, response_mask: Any = None, **named: Any) -> Any:
        if settings.VARIABLE not in os.environ:
            return theirs(data, gamma, lambd, adv_estimator, advantage_clip=advantage_clip, whiten_advantages=whiten_advantages, whiten_rewards=whiten_rewards,
                          response_mask=response_mask, **named)
        return compute(data, response_mask, advantage_clip, whiten_advantages)

    module.compute_advantage = compute_advantage


def install() -> None:
    """Wraps `roll.utils.functionals.compute_advantage` in this process, now or when its module is imported."""
    after_import("roll.utils.functionals", _wrap)
