"""NeMo-RL: `grpo.adv_estimator.name=pass`, fields in `grpo.adv_estimator.preset` ("pass:k=0.7").

    import passrl.plugins.nemo_rl; passrl.plugins.nemo_rl.install()          at the top of the run script, before nemo_rl.algorithms.grpo is imported

The environment or data processor puts records into the batch as `repeated_batch["process"]`, a list; offsets count from the response's first token. Groups are rows of
equal prompt tokens, as NeMo-RL's own are, or the keys in `repeated_batch["passrl_group"]`, where one prompt serves several tasks.
"""
from __future__ import annotations

from typing import Any

import torch

from ..errors import ERR_VALUE, refuse
from . import lists, spans
from .imports import after_import
from .settings import configured

_OPTIONS = {"values": "NeMo-RL has a value model with the PPO algorithm", "logp_reference": "NeMo-RL computes it unless grpo.skip_reference_policy_logprobs_calculation is set"}


class PassAdvantageEstimator:
    """NeMo-RL's estimator contract: made of its two configurations, `compute_advantage` gives `[B, S]`."""

    def __init__(self, estimator_config: Any, loss_config: Any) -> None:
        preset = dict(estimator_config).get("preset") or dict(estimator_config).get("name")
        if not isinstance(preset, str):
            refuse(ERR_VALUE, f"passrl: grpo.adv_estimator.preset is {preset!r}; it is text, as pass:k=0.7")
        self.config = configured(preset)

    def compute_advantage(self, prompt_ids: torch.Tensor, rewards: torch.Tensor, mask: torch.Tensor, repeated_batch: Any = None, logprobs_policy: Any = None,
                          logprobs_reference: Any = None, values: Any = None, **_: Any) -> torch.Tensor:
        """prompt_ids `[B, P]`, rewards `[B]`, mask `[B, S]` (tokens that train). Returns `[B, S]` f32, 0 elsewhere."""
        batch = {} if repeated_batch is None else repeated_batch
        groups = batch.get("passrl_group")
        if groups is None:
            groups = torch.unique(prompt_ids, dim=0, return_inverse=True)[1].cpu().numpy()
        tokens = lists.wanted(self.config, {"values": values, "logp_policy": logprobs_policy, "logp_reference": logprobs_reference}, _OPTIONS)
        given = batch.get("process") or [None] * len(mask)
        advantages, _returns, _result = spans.shaped(self.config, given, rewards, mask, groups, where="the environment, as repeated_batch['process'],", **tokens)
        return advantages


def _wrap(module: Any) -> None:
    theirs = module._create_advantage_estimator

    def _create_advantage_estimator(master_config: Any) -> Any:
        grpo = master_config["grpo"] if isinstance(master_config, dict) else master_config.grpo
        own = grpo.get("adv_estimator") if hasattr(grpo, "get") else getattr(grpo, "adv_estimator", None)
        own = {} if own is None else own if isinstance(own, dict) else own.model_dump()
        if own.get("name") != "pass":
            return theirs(master_config)
        return PassAdvantageEstimator(own, None)

    module._create_advantage_estimator = _create_advantage_estimator


def install() -> None:
    """Makes `name: pass` known to `nemo_rl.algorithms.grpo` in this process, now or when it is imported."""
    after_import("nemo_rl.algorithms.grpo", _wrap)
