"""DeepSpeed-Chat: a mixin for its PPO trainer.

    from dschat.rlhf.ppo_trainer import DeepSpeedPPOTrainer
    from passrl.plugins.deepspeed_chat import PassMixin

    class Trainer(PassMixin, DeepSpeedPPOTrainer): ...

Before each `train_rlhf(inputs)` set what the inputs do not carry: `trainer.passrl_groups` (a key a row) and, where the preset reads process rewards,
`trainer.passrl_records`. The preset: PASSRL_PRESET ("deepspeed_chat.ppo" is its own).
"""
from __future__ import annotations

from typing import Any

import torch

from ..errors import ERR_CONFLICT, ERR_NULL, refuse
from . import lists, settings, spans


class PassMixin:
    """Keeps what `compute_rewards` is given and answers `get_advantages_and_returns` with passrl's."""

    passrl_groups: Any = None
    passrl_records: Any = None
    _passrl: dict[str, Any]

    def compute_rewards(self, prompts: Any, log_probs: Any, ref_log_probs: Any, reward_score: Any, action_mask: Any) -> Any:
        """DeepSpeed-Chat's own rewards; scores, mask and log-probabilities are kept for the advantages."""
        self._passrl = {"reward": reward_score, "mask": action_mask, "logp_policy": log_probs, "logp_reference": ref_log_probs}
        found: Any = super().compute_rewards(prompts, log_probs, ref_log_probs, reward_score, action_mask)  # type: ignore[misc]
        return found

    def get_advantages_and_returns(self, values: torch.Tensor, rewards: torch.Tensor, start: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Advantages and returns `[B, T - start]`; values `[B, T]`. Returns are the undivided return-to-go, for the critic."""
        config = settings.from_environment()
        kept = self._passrl
        kl_ctl, clip = float(getattr(self, "kl_ctl", 0.0)), float(getattr(self, "clip_reward_value", float("inf")))
        if kl_ctl:
            if config.kl_in_reward == "none":
                refuse(ERR_CONFLICT, f"passrl: DeepSpeed-Chat takes {kl_ctl} KL from the reward and the configuration has no KL there; set trainer.kl_ctl = 0, or the preset's kl_in_reward=k1")
            if "kl_coef" not in config.told:
                config = config.replace(kl_coef=kl_ctl)
        if self.passrl_groups is None:
            refuse(ERR_NULL, "passrl: passrl_groups is not set; set trainer.passrl_groups, a key a row, before train_rlhf: DeepSpeed-Chat has no groups of its own")
        mask = kept["mask"].clone()
        mask[:, :start] = 0
        scores = kept["reward"].float().clamp(-clip, clip)
        width = mask.shape[1]
        tokens = lists.wanted(config, {"values": values[:, :width], "logp_policy": kept["logp_policy"], "logp_reference": kept["logp_reference"]}, {})
        given = self.passrl_records or [None] * len(mask)
        advantages, returns, _ = spans.shaped(config, given, scores, mask, self.passrl_groups, where="trainer.passrl_records", **tokens)
        return advantages[:, start:], returns[:, start:]
