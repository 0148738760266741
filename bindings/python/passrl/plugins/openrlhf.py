"""OpenRLHF: a `RemoteExperienceMaker` whose advantages are passrl's.

`install()` puts it in the place of OpenRLHF's own, in the process that runs the PPO trainer: that is a ray actor, so as the job's set-up hook:

    ray job submit --runtime-env-json='{"worker_process_setup_hook": "passrl.plugins.openrlhf.install",
                                        "env_vars": {"PASSRL_PRESET": "pass:k=0.7"}}' -- python -m openrlhf.cli.train_ppo_ray ...

`--algo.advantage.estimator` stays any of OpenRLHF's names (group_norm, say): it is checked there before and has no other say.

The reward function (`--reward.remote_url file.py`) gives the process record in `extra_logs`, as OpenRLHF makes tensors of what it finds there, padded
with 0 and per sample: the record's keys, each a list of numbers (`{"rewards": r, "scores": r, "extra_logs": {"step_end": [...], "step_score": [...],
"format": [1.0]}}`), in every sample; `"step_end": [0]` is a sample without steps. They are taken out of `info` before it is logged.
"""
from __future__ import annotations

from typing import Any

import numpy as np
import torch

from . import lists, settings
from ..config import Config
from ..errors import ERR_CONFLICT, refuse
from .imports import after_import
from .records import KEYS

MODULE = "openrlhf.trainer.ppo_utils.experience_maker"
_OPTIONS = {"values": "OpenRLHF has a critic with --algo.advantage.estimator gae", "logp_reference": "OpenRLHF has a reference model with --algo.kl.init_coef > 0"}


def _record(info: dict[str, torch.Tensor], row: int) -> dict[str, Any] | None:
    """A sample's record from its row of the tensors in `info`, padding off."""
    found: dict[str, Any] = {key: lists.host(info[key][row]).reshape(-1).tolist() for key in KEYS if key in info}
    if not found:
        return None
    if "step_end" in found:
        live = [i for i, end in enumerate(found["step_end"]) if end > 0]
        for key in ("step_end", "step_score", "step_begin"):
            if key in found:
                found[key] = [int(found[key][i]) if key != "step_score" else found[key][i] for i in live]
    for key in ("outcome", "format", "format_ok"):
        if key in found:
            found[key] = found[key][0]
    return found


def compute(maker: Any, experiences: list[Any], config: Config) -> list[Any]:
    """`compute_advantages_and_returns`: fills advantages and returns `[B, A]` of every experience."""
    module: Any = __import__(MODULE, fromlist=["apply_length_penalties"])
    args = maker.strategy.args
    if maker.kl_ctl.value > 0 and not getattr(getattr(args.algo, "kl", None), "use_loss", False):
        if config.kl_in_reward == "none":
            refuse(ERR_CONFLICT, f"passrl: OpenRLHF takes {maker.kl_ctl.value} KL from the reward and the configuration has no KL there; set --algo.kl.init_coef 0 "
                                 "or --algo.kl.use_loss, or the preset's kl_in_reward=k1")
        if "kl_coef" not in config.told:
            config = config.replace(kl_coef=maker.kl_ctl.value)
    for experience in experiences:
        experience.rewards = experience.rewards.to(torch.promote_types(experience.rewards.dtype, torch.float32))
    module.apply_length_penalties(experiences, args)

    given, masks, spans, groups = [], [], [], []
    tokens: dict[str, list[Any]] = {name: [] for name in lists.needed(config)}
    for experience in experiences:
        theirs = lists.wanted(config, {"values": experience.values, "logp_policy": experience.action_log_probs, "logp_reference": experience.base_action_log_probs,
                                       "logp_behavior": experience.rollout_log_probs}, _OPTIONS)
        for row, mask in enumerate(experience.action_mask):
            # Actions are a span of the row: the prompt's slots before it are no part of the response.
            live = torch.nonzero(mask).flatten()
            span = slice(int(live[0]), int(live[-1]) + 1) if len(live) else slice(0, 0)
            spans.append(span)
            masks.append(mask[span])
            given.append(_record(experience.info, row))
            groups.append(int(experience.index[row]) // args.rollout.n_samples_per_prompt)
            for name in tokens:
                tokens[name].append(theirs[name][row, span])
    rewards = torch.cat([experience.rewards.flatten() for experience in experiences]).double().cpu().numpy()
    advantages, result = lists.shaped(config, given, rewards, masks, groups, where="the reward function of --reward.remote_url, in extra_logs,", **tokens)
    lengths = np.cumsum([len(row) for row in advantages])[:-1]
    returns = advantages if result.returns is None else np.split(result.returns, lengths)
    scores = torch.tensor(np.asarray(result.path_scores), dtype=torch.float32)
    stats = result.stats["outcome"] if result.stats is not None else None
    at = 0
    for experience in experiences:
        experience.advantages = torch.zeros(experience.action_mask.shape, dtype=torch.float32)
        experience.returns = torch.zeros_like(experience.advantages)
        for row in range(len(experience.action_mask)):
            experience.advantages[row, spans[at + row]] = torch.from_numpy(advantages[at + row])
            experience.returns[row, spans[at + row]] = torch.from_numpy(returns[at + row])
        some = slice(at, at + len(experience.action_mask))
        experience.info = {key: value for key, value in experience.info.items() if key not in KEYS} | {"return": scores[some]}
        if stats is not None and args.rollout.n_samples_per_prompt > 1:
            keys = {key: g for g, key in enumerate(result.group_keys or [])}
            experience.info["group_reward_std"] = torch.tensor([float(stats.std[keys[group]]) for group in groups[some]])
        experience.kl = None
        at = some.stop
    return experiences


def _replace(module: Any) -> None:
    class PassExperienceMaker(module.RemoteExperienceMaker):  # type: ignore[misc]
        def compute_advantages_and_returns(self, experiences: list[Any]) -> list[Any]:
            with torch.no_grad():
                return compute(self, experiences, settings.from_environment(getattr(self.strategy.args, "passrl_preset", None)))

    module.RemoteExperienceMaker = PassExperienceMaker


def install() -> None:
    """Replaces `RemoteExperienceMaker` in this process, now or when its module is imported. Call it before `openrlhf.trainer.ppo_trainer` is imported."""
    after_import(MODULE, _replace)
