"""slime and miles: whole groups are shaped where the rollouts are, and the advantages travel with them to the training ranks.

    --custom-reward-post-process-path passrl.plugins.slime.post_process_rewards
    --custom-advantage-function-path passrl.plugins.slime.advantages

The first hook sees all samples of a rollout batch: it shapes them and gives, as each sample's reward, the list of its advantages, a token each ("rewards" is
what slime hands to the ranks whatever its type). The second makes tensors of the list, of this rank's slice where there is context parallelism.
miles-rl 0.0.2 has no option for the second: there `--custom-megatron-init-path passrl.plugins.slime.install` puts it in.

The reward model (`--custom-rm-path`) returns a mapping as sample.reward, `{"score": r, "process": record}`, with `--reward-key score`; or the record lies in
`sample.metadata["process"]`. The preset: `passrl_preset: pass:k=0.7` in the file of `--custom-config-path`, or PASSRL_PRESET.

Samples of one rollout (`sample.rollout_id`, where slime has it) count once in the group's statistics: the last one does.
"""
from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from ..errors import ERR_CONFLICT, ERR_NULL, ERR_SHAPE, refuse
from . import lists, settings
from .imports import after_import

_OPTIONS = {
    "values": "slime computes values on the training ranks, after this hook: --advantage-estimator ppo without passrl is its GAE",
    "logp_policy": "slime keeps the rollout's log-probabilities with --use-rollout-logprobs", "logp_teacher": "slime keeps the teacher's in sample.teacher_log_probs (on-policy distillation)",
    "logp_reference": "slime computes the reference's log-probabilities on the training ranks: --use-kl-loss",
}


def _record(sample: Any) -> Any:
    reward = sample.reward
    if isinstance(reward, Mapping) and "process" in reward:
        return reward["process"]
    return (sample.metadata or {}).get("process")


def _tail(values: Any, length: int) -> Any:
    return None if values is None else lists.host(values)[-length:] if length else np.zeros(0)


def post_process_rewards(args: Any, samples: Any) -> tuple[list[float], list[list[float]]]:
    """`--custom-reward-post-process-path`: raw rewards, and each sample's advantages (lists of `response_length` floats) in the place of its reward."""
    config = settings.from_environment(getattr(args, "passrl_preset", None))
    flat = [sample for group in samples for sample in (group if isinstance(group, list) else [group])]
    raw = [float(sample.get_reward_value(args)) for sample in flat]
    for row, sample in enumerate(flat):
        if sample.group_index is None:
            refuse(ERR_NULL, f"passrl: sample {row} has no group_index; slime's data source sets it (--rollout-global-dataset), a rollout function of your own has to")
    masks = [np.zeros(sample.response_length) if sample.remove_sample else np.ones(sample.response_length) if sample.loss_mask is None else sample.loss_mask for sample in flat]
    has = {"logp_policy": [_tail(sample.rollout_log_probs, sample.response_length) for sample in flat],
           "logp_teacher": [_tail(getattr(sample, "teacher_log_probs", None), sample.response_length) for sample in flat]}
    tokens = lists.wanted(config, {name: None if any(row is None for row in rows) else rows for name, rows in has.items()}, _OPTIONS)
    last = {getattr(sample, "rollout_id", None): row for row, sample in enumerate(flat)}
    in_stats = np.array([getattr(sample, "rollout_id", None) is None or last[sample.rollout_id] == row for row, sample in enumerate(flat)])
    found, _ = lists.shaped(config, [_record(sample) for sample in flat], raw, masks, [sample.group_index for sample in flat], in_stats=in_stats,
                            where="the reward model of --custom-rm-path, as reward['process'],", **tokens)
    return raw, [row.tolist() for row in found]


def _sliced(values: torch.Tensor, total: int, response: int, like: torch.Tensor, args: Any) -> torch.Tensor:
    """This rank's part of a response, as its log-probabilities `like` are cut."""
    if len(like) == len(values):
        return values
    import importlib

    for name in ("slime.backends.megatron_utils.cp_utils", "miles.backends.training_utils.cp_utils"):
        try:
            cut = importlib.import_module(name).slice_log_prob_with_cp
        except ImportError:
            continue
        part: torch.Tensor = cut(values, total, response, getattr(args, "qkv_format", "thd"))
        return part
    refuse(ERR_SHAPE, f"passrl: a response has {len(values)} advantages and this rank {len(like)} tokens of it, and slime's slice_log_prob_with_cp is not there; "
                      "set --context-parallel-size 1")


def advantages(args: Any, rollout_data: dict[str, Any]) -> None:
    """`--custom-advantage-function-path`: sets `advantages` and `returns`, lists of f32 tensors like the log-probabilities."""
    given = rollout_data["rewards"]
    if len(given) and not isinstance(given[0], (list, tuple)):
        refuse(ERR_CONFLICT, "passrl: the samples' rewards are numbers, so that nothing shaped them; set --custom-reward-post-process-path "
                             "passrl.plugins.slime.post_process_rewards beside --custom-advantage-function-path")
    log_probs = rollout_data.get("log_probs") or rollout_data.get("rollout_log_probs") or rollout_data.get("values")
    found = []
    for row, values in enumerate(given):
        like = rollout_data["loss_masks"][row] if log_probs is None else log_probs[row]
        whole = torch.tensor(values, dtype=torch.float32, device=getattr(like, "device", None))
        found.append(_sliced(whole, rollout_data["total_lengths"][row], rollout_data["response_lengths"][row], like, args))
    rollout_data["advantages"] = found
    rollout_data["returns"] = list(found)
    # What is logged as the reward is a number again.
    rollout_data["rewards"] = [float(np.mean(values)) if len(values) else 0.0 for values in given]


def _wrap(module: Any) -> None:
    theirs = module.compute_advantages_and_returns

    def compute_advantages_and_returns(args: Any, rollout_data: dict[str, Any]) -> None:
        if rollout_data.get("log_probs") is None and rollout_data.get("values") is None:
            return  # Not the last pipeline stage.
        if args.normalize_advantages:
            refuse(ERR_CONFLICT, "passrl: --normalize-advantages would whiten each shard of what is shaped as a whole; leave it out and set whiten=tokens in the preset")
        advantages(args, rollout_data)

    module.compute_advantages_and_returns = compute_advantages_and_returns
    import sys

    for other in list(sys.modules.values()):
        if getattr(other, "compute_advantages_and_returns", None) is theirs:
            other.compute_advantages_and_returns = compute_advantages_and_returns  # type: ignore[attr-defined]


def install(args: Any = None) -> None:
    """`--custom-megatron-init-path`: for miles-rl 0.0.2, which has no `--custom-advantage-function-path`."""
    after_import("miles.backends.training_utils.loss", _wrap)
