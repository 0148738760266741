"""verl: `algorithm.adv_estimator=pass`, or the name of any preset; fields as `+algorithm.passrl.k=0.5`.

Importing this file registers every preset in `core_algos`. verl does so by itself through the entry point `verl.plugins` (see `passrl_verl`), in
every process that imports it. verl gives an estimator rewards, mask and uid alone, so `compute_advantage` (and, for the trainers under
`trainer.v1`, `compute_advantage_for_multi_trajectories`) is wrapped as its module is imported: with one of our names the whole batch is at hand,
with any other name nothing is changed.

Where the process rewards come from, `+algorithm.passrl.signal=`:

- `records` (default): `compute_score` returns `{"score": r, "process": record}`, see `records`. verl's validation averages what it finds beside the
  score and passes text over: give `json.dumps(record)` where `trainer.test_freq` is on.
- `rm_scores`: `rm_scores` holds a process reward a token (dense); `sparse_rm_scores`: one on the last token of each step, 0 elsewhere. The outcome
  then comes from the record, or there is none.

The outcome of a record without one is the score: the row's sum of `token_level_rewards`, KL penalty included where `algorithm.use_kl_in_reward`.

A session of several outputs (rows `{uid}_{session}_{index}` of the v1 trainers) is one rollout of its group, as in verl's own GRPO: its last
output is the one in the statistics. The others have no steps of their own: they are one chunk with the session's outcome and format terms.
"""
from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from verl.trainer.ppo import core_algos

from ..config import Config, presets
from ..errors import ERR_NULL, ERR_VALUE, refuse
from ..results import Shaped
from ..shape import shape
from . import lists, records
from .imports import after_import
from .settings import configured

SIGNALS = ("records", "rm_scores", "sparse_rm_scores")
_NAMES = frozenset(str(preset) for preset in presets())
# Where verl keeps what an argument of ours is made of, and the option that makes verl compute it.
_TOKENS = {
    "values": ("values", "critic.enable=True"),
    "logp_policy": ("old_log_probs", "algorithm.rollout_correction.bypass_mode=False"),
    "logp_reference": ("ref_log_prob", "algorithm.use_kl_in_reward=True or actor_rollout_ref.actor.use_kl_loss=True"),
    "logp_behavior": ("rollout_log_probs", "actor_rollout_ref.rollout.calculate_log_probs=True"),
    "logp_teacher": ("teacher_logprobs", "distillation.enabled=True"),
    "sum_pi_squared": ("sum_pi_squared", "actor_rollout_ref.actor.calculate_sum_pi_squared=True"),
}


def settings(name: str, config: Any) -> tuple[Config, str]:
    """The configuration of an estimator's name and verl's `algorithm` section, and the source of the process rewards."""
    own = dict((config.get("passrl") if config is not None and hasattr(config, "get") else None) or {})
    signal = own.pop("signal", SIGNALS[0])
    if signal not in SIGNALS:
        refuse(ERR_VALUE, f"passrl: algorithm.passrl.signal is {signal!r}; it is one of {', '.join(SIGNALS)}")
    nested = {f"{key}.{field}" if isinstance(value, Mapping) else key: inner
              for key, value in own.items() for field, inner in (value.items() if isinstance(value, Mapping) else [("", value)])}
    return configured(name, nested), signal


def extents(mask: torch.Tensor) -> Any:
    """Tokens of each row up to the last in scope, `[B]`."""
    places = torch.arange(1, mask.shape[1] + 1, device=mask.device)
    return ((mask != 0) * places).amax(-1).cpu().numpy() if mask.numel() else np.zeros(len(mask), dtype=np.int64)


def shaped(data: Any, config: Config, signal: str = "records", *, in_stats: Any = None, out: torch.Tensor | None = None) -> Shaped:
    """Shapes a `DataProto` `[B, T]`: views of its tensors, advantages into `out` (f32, made where None).

    data: `response_mask`, `token_level_rewards` and what the configuration reads (`values`, `old_log_probs`, ...) in `.batch`; `uid`, and
    `process` (records), in `.non_tensor_batch`. in_stats: `[B]`, 0 for rows outside the statistics.
    Errors: `passrl.Error`; what verl did not compute is named with the option that makes it.
    """
    batch, mask = data.batch, data.batch["response_mask"]
    rewards = batch["token_level_rewards"]
    if "uid" not in data.non_tensor_batch:
        refuse(ERR_NULL, "passrl: the batch has no uid, so that no row has a group; verl's trainers make it where algorithm.adv_estimator is set through the trainer, "
                         "else set data.non_tensor_batch['uid'], a key a row")
    arguments: dict[str, Any] = {"mask": mask, "groups": data.non_tensor_batch["uid"], "in_stats": in_stats, "out": torch.empty_like(rewards, dtype=torch.float32) if out is None else out}
    for name in lists.needed(config):
        key, option = _TOKENS[name]
        if key not in batch.keys():
            refuse(ERR_NULL, f"passrl: the configuration reads {name}, verl's {key!r}, and the batch has none; verl computes it with {option}")
        arguments[name] = batch[key]
    if config.token_baseline != "none" and batch.get("rollout_is_weights", None) is not None:
        arguments["token_ratio"] = batch["rollout_is_weights"]
    if config.streams["outcome"].center == "given":
        if "reward_baselines" not in batch.keys():
            refuse(ERR_NULL, "passrl: the configuration reads baselines, verl's 'reward_baselines', and the batch has none; verl computes it for algorithm.adv_estimator=remax alone")
        arguments["baselines"] = batch["reward_baselines"]
    given = list(data.non_tensor_batch.get("process", [None] * len(mask)))
    where = "compute_score returns it as {'score': r, 'process': record}: reward.custom_reward_function.path names the file, algorithm.passrl.signal=rm_scores takes rm_scores instead; it"
    if signal == "records":
        # verl's own score: the whole row, in scope or not.
        scores = rewards.sum(-1).double().cpu().numpy()
        arguments |= records.arguments(config, given, scores, extents(mask), width=mask.shape[1], where=where)
        outcome = config.streams["outcome"]
        if config.kind == "none" and (config.credit in ("gae", "vtrace") or config.chunk == "token") and outcome.center in ("none", "given") and outcome.scale == "none":
            # Rewards stay on the tokens where verl has them; the outcome would count them once more.
            arguments |= {"token_rewards": rewards, "outcome": np.zeros(len(mask)) if outcome.center == "given" else None}
    else:
        found = records.arguments(Config(config, kind="none"), given, np.full(len(mask), np.nan), np.zeros(len(mask)))
        arguments |= {"signal": rewards} | ({} if np.isnan(found["outcome"]).all() else found)
        if signal == "sparse_rm_scores":
            arguments["step_marks"] = rewards != 0
    return records.told(shape(config, **arguments))


def estimate(data: Any, name: str, config: Any = None, *, in_stats: Any = None) -> Any:
    """`compute_advantage` for one of our names: writes `advantages` and `returns` `[B, T]` into the batch."""
    ours, signal = settings(name, config)
    result = shaped(data, ours, signal, in_stats=in_stats)
    data.batch["advantages"] = result.advantages
    data.batch["returns"] = result.advantages if result.returns is None else result.returns
    return data


def _is_ours(name: Any) -> bool:
    return not isinstance(name, core_algos.AdvantageEstimator) and str(name) in _NAMES


def _estimator(name: str) -> Callable[..., Any]:
    """What the registry holds: for trainers that do not go through `compute_advantage`. It is given rewards, mask and uid alone."""

    def compute(token_level_rewards: torch.Tensor, response_mask: torch.Tensor, config: Any = None, index: Any = None, non_tensor_batch: Any = None,
                batch: Any = None, reward_baselines: Any = None, **_: Any) -> tuple[torch.Tensor, torch.Tensor]:
        from tensordict import TensorDict
        from verl import DataProto

        tensors = dict(batch.items()) if batch is not None else {}
        tensors |= {"token_level_rewards": token_level_rewards, "response_mask": response_mask}
        if reward_baselines is not None:
            tensors["reward_baselines"] = reward_baselines
        others = {**(non_tensor_batch or {}), **({} if index is None else {"uid": index})}
        data = estimate(DataProto(batch=TensorDict(tensors, batch_size=len(response_mask)), non_tensor_batch=others), name, config)
        return data.batch["advantages"], data.batch["returns"]

    return compute


def _wrap_one(module: Any) -> None:
    """`ray_trainer.compute_advantage`."""
    theirs = module.compute_advantage

    def compute_advantage(data: Any, adv_estimator: Any, *arguments: Any, config: Any = None, **named: Any) -> Any:
        if not _is_ours(adv_estimator):
            return theirs(data, adv_estimator, *arguments, config=config, **named)
        if "response_mask" not in data.batch.keys():
            data.batch["response_mask"] = module.compute_response_mask(data)
        return estimate(data, str(adv_estimator), config)

    module.compute_advantage = compute_advantage


def sessions(keys: Sequence[str]) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Whether a row is the last output of its session, `[B]`; keys are `{uid}_{session}_{index}`."""
    last: dict[str, tuple[int, int]] = {}
    for row, key in enumerate(keys):
        session, _, index = key.rpartition("_")
        if not index.isdigit():
            refuse(ERR_VALUE, f"passrl: verl's key {key!r} of row {row} does not end in _INDEX; it is uid_session_index")
        last[session] = max(last.get(session, (-1, -1)), (int(index), row))
    found = np.zeros(len(keys), dtype=np.bool_)
    found[[row for _, row in last.values()]] = True
    return found


def _of_extra_fields(fields: Any, is_last: bool) -> Any:
    """The record of a row: its own, or, for the last output of a session, that of the session's reward (verl copies it to every row)."""
    fields = getattr(fields, "data", fields)
    if not isinstance(fields, Mapping):
        return None
    if fields.get("process") is not None:
        return fields["process"]
    record = (fields.get("reward_extra_info") or {}).get("process")
    if is_last or record is None:
        return record
    return {key: value for key, value in records.read(record, 0).items() if key in ("outcome", "format", "format_ok", "streams")}


def _wrap_sessions(module: Any) -> None:
    """`v1.utils.compute_advantage_for_multi_trajectories`: records lie in the store, under `extra_fields`."""
    theirs = module.compute_advantage_for_multi_trajectories

    def compute_advantage_for_multi_trajectories(data: Any, batch_keys: list[str], adv_estimator: Any, *arguments: Any, config: Any = None, **named: Any) -> Any:
        if not _is_ours(adv_estimator):
            return theirs(data, batch_keys, adv_estimator, *arguments, config=config, **named)
        last = sessions(batch_keys)
        if "process" not in data.non_tensor_batch:
            import transfer_queue

            stored = transfer_queue.kv_batch_get(keys=batch_keys, partition_id="train", select_fields=["extra_fields"])["extra_fields"]
            found = np.empty(len(batch_keys), dtype=object)
            found[:] = [_of_extra_fields(fields, is_last) for fields, is_last in zip(stored.tolist() if hasattr(stored, "tolist") else stored, last)]
            data.non_tensor_batch["process"] = found
        return estimate(data, str(adv_estimator), config, in_stats=last)

    module.compute_advantage_for_multi_trajectories = compute_advantage_for_multi_trajectories


def register() -> None:
    """Registers every preset, and wraps what is imported or will be. A second call does nothing."""
    for name in sorted(_NAMES):
        if name not in core_algos.ADV_ESTIMATOR_REGISTRY:
            core_algos.register_adv_est(name)(_estimator(name))
    after_import("verl.trainer.ppo.ray_trainer", _wrap_one)
    after_import("verl.trainer.ppo.v1.utils", _wrap_sessions)


register()
