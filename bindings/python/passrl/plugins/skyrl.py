"""SkyRL: `trainer.algorithm.advantage_estimator=pass`, or the name of any preset.

    import passrl.plugins.skyrl; passrl.plugins.skyrl.register()             beside the entry point's own registrations, before ray starts the trainer

An estimator of SkyRL is given token-level rewards, mask, uid and values. For a preset that reads process rewards a reward inside the response is a step's
score on the step's last token (nonzero: a step whose score is exactly 0 has to be given as a small number), and the reward on the last token is the outcome:
what a generator gives as `rewards: list[list[float]]`. Fields by the name: `register("pass:k=0.5")` makes the estimator `pass`.
"""
from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from ..config import Config, presets
from ..errors import ERR_NULL, refuse
from ..shape import shape
from .records import told
from .settings import configured


def _estimator(config: Config) -> Callable[..., tuple[torch.Tensor, torch.Tensor]]:
    def estimate(token_level_rewards: torch.Tensor, response_mask: torch.Tensor, index: Any, values: Any = None, **_: Any) -> tuple[torch.Tensor, torch.Tensor]:
        rewards, mask = token_level_rewards.detach().cpu(), response_mask.detach().cpu()
        arguments: dict[str, Any] = {"mask": mask, "groups": np.asarray(index), "out": torch.empty(rewards.shape, dtype=torch.float32)}
        places = torch.arange(1, rewards.shape[1] + 1)
        last = ((mask != 0) * places).amax(-1).clamp(min=1) - 1
        if config.kind == "prm":
            inner = rewards.float().clone()
            arguments["outcome"] = inner.gather(1, last[:, None]).flatten().double()
            inner.scatter_(1, last[:, None], 0.0)
            arguments |= {"signal": inner, "step_marks": (inner != 0) & (mask != 0)}
        elif config.kind == "none":
            arguments["outcome"] = rewards.double().sum(-1)
        else:
            refuse(ERR_NULL, "passrl: SkyRL's estimators are given no log-probabilities; take a preset of kind prm or none (passrl.presets())")
        if config.credit == "gae":
            if values is None:
                refuse(ERR_NULL, "passrl: the configuration reads values and the batch has none; SkyRL has a critic with trainer.critic.model.path")
            arguments |= {"values": values.detach().cpu(), "token_rewards": rewards, "outcome": None}
        result = told(shape(config, **arguments))
        advantages = result.advantages.to(token_level_rewards.device)
        return advantages, advantages if result.returns is None else result.returns.to(token_level_rewards.device)

    return estimate


def register(*names: str) -> None:
    """Registers presets (`NAME[:KEY=VALUE,...]`), all of them where none is named. A name that is there is left."""
    from skyrl.backends.skyrl_train.utils.ppo_utils import AdvantageEstimatorRegistry

    there = set(AdvantageEstimatorRegistry.list_available())
    for text in names or [str(preset) for preset in presets()]:
        name = text.partition(":")[0].strip()
        if name not in there:
            AdvantageEstimatorRegistry.register(name, _estimator(configured(text)))
