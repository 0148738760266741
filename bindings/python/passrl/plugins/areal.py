"""AReaL: `PPOActor._compute_advantages` by any preset.

    import passrl.plugins.areal; passrl.plugins.areal.install()              at the top of the training script, which every worker runs

AReaL's own method runs first, for what it prepares (rolled masks, log-probabilities, KL); advantages and returns are then ours. The workflow puts the process
rewards into the trajectory as tensors of the shape of `input_ids`, which AReaL pads like the others: `process_end`, nonzero on the last token of a step, and
`process_score`, the step's score there; or `process_score` alone, a reward a token. `format` and `format_ok` are `[B]`. Everything is aligned with `input_ids`;
like AReaL's masks it is rolled by one here.

Groups: `group_sizes` in the batch, else neighbours by `actor.reward_norm.group_size`. The preset: PASSRL_PRESET.
"""
from __future__ import annotations

from typing import Any

import numpy as np
import torch

from ..errors import ERR_CONFLICT, ERR_NULL, refuse
from . import lists, settings, spans
from .imports import after_import

_OPTIONS = {"values": "AReaL has a critic with the section critic of its configuration", "logp_reference": "AReaL has a reference model with the section ref of its configuration"}


def _groups(actor: Any, data: dict[str, Any], rows: int) -> Any:
    sizes = data.get("group_sizes")
    if sizes is not None:
        return np.repeat(np.arange(len(sizes)), lists.host(sizes, np.int64))
    for norm in (actor.reward_norm, actor.adv_norm):
        if norm is not None and norm.group_size > 1:
            return np.arange(rows) // int(norm.group_size)
    refuse(ERR_NULL, "passrl: the batch has no group_sizes and the actor no group_size; set actor.reward_norm.group_size to gconfig.n_samples (with mean_level: group): its own "
                     "normalisation has no say")


def _records(data: dict[str, Any], at: list[slice]) -> list[dict[str, Any] | None]:
    if "process_score" not in data:
        return [None] * len(at)

    def rolled(name: str) -> torch.Tensor:
        found: torch.Tensor = torch.roll(data[name], shifts=-1, dims=-1)
        return found

    scores = rolled("process_score")
    ends = rolled("process_end") if "process_end" in data else None
    found: list[dict[str, Any] | None] = []
    for row, span in enumerate(at):
        values = lists.host(scores[row, span])
        if ends is None:
            record: dict[str, Any] = {"signal": values.tolist()}
        else:
            places = np.flatnonzero(lists.host(ends[row, span]) != 0)
            record = {"step_end": (places + 1).tolist(), "step_score": values[places].tolist()}
        for name in ("format", "format_ok"):
            if name in data:
                record[name] = float(data[name][row])
        found.append(record)
    return found


def _one_batch(config: Any) -> None:
    """A worker holds whole groups, and a part of the batch."""
    world = torch.distributed.get_world_size() if torch.distributed.is_available() and torch.distributed.is_initialized() else 1
    batch_wide = config.whiten != "none" or any("batch" in (row.center, row.scale) for row in config.streams.values())
    if world > 1 and batch_wide:
        refuse(ERR_CONFLICT, f"passrl: the configuration asks for statistics of the whole batch and this is one of {world} workers; take a preset with statistics "
                             "of groups alone (whiten=none, center and scale not batch)")


def compute(actor: Any, data: dict[str, Any]) -> None:
    """Ours in the place of the advantages and returns that AReaL has put into `data`."""
    config = settings.from_environment(getattr(actor.config, "passrl_preset", None))
    if actor.adv_norm is not None and config.whiten == "none":
        refuse(ERR_CONFLICT, "passrl: actor.adv_norm is set and passrl's advantages are final; set actor.adv_norm to null, or whiten=tokens in the preset")
    _one_batch(config)
    if actor.kl_ctl and config.kl_in_reward == "none":
        refuse(ERR_CONFLICT, f"passrl: AReaL takes {actor.kl_ctl} KL from the reward and the configuration has no KL there; set actor.kl_ctl to 0, or the preset's kl_in_reward=k1")
    if actor.kl_ctl and "kl_coef" not in config.told:
        config = config.replace(kl_coef=float(actor.kl_ctl))
    mask = data["loss_mask"]
    rewards = torch.clip((data["rewards"] + actor.reward_bias) * actor.reward_scaling, min=-actor.reward_clip, max=actor.reward_clip)
    tokens = lists.wanted(config, {"values": data.get("values"), "logp_policy": data["logprobs"], "logp_reference": data.get("ref_logp")}, _OPTIONS)
    data["advantages"], data["returns"], _ = spans.shaped(
        config, _records(data, spans.spans(mask)), rewards, mask, _groups(actor, data, len(mask)), where="the workflow, in process_score (and process_end),", **tokens)


def _wrap(module: Any) -> None:
    theirs = module.PPOActor._compute_advantages

    def _compute_advantages(self: Any, data: dict[str, Any], *arguments: Any, **named: Any) -> Any:
        found = theirs(self, data, *arguments, **named)
        compute(self, found)
        return found

    module.PPOActor._compute_advantages = _compute_advantages


def install() -> None:
    """Wraps `PPOActor._compute_advantages` in this process, now or when its module is imported."""
    after_import("areal.trainer.ppo.actor", _wrap)
