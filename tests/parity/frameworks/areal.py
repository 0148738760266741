"""AReaL 1.0.4 from PyPI: its own `PPOActor._compute_advantages`, in float32 (normalisation statistics: float64 inside).

An algorithm is a configuration there. In the matrix of docs/en/algorithms/grpo_series.md it is `adv_norm` that differs, and a group's mean is the mean
over the TOKENS in scope of its rollouts (the presets that end in `_tokens`); the others normalise rewards by group (`reward_norm`).
"""
from __future__ import annotations

import types
from collections.abc import Callable
from typing import Any

import numpy as np

import stubs
from cases import Case
from entry import Entry, F64

stubs.stub("aiohttp", "httpx", "colorlog", "tenacity", "flask", "torchdata", "werkzeug", "lark", "uvloop", "hydra", "transformers", "ray", "numba", "PIL", "einops",
           "requests", "aiofiles", "openai", "psutil", "datasets", "swanlab", "trackio", "wandb", "tensorboardX", "tabulate", "pybase64")

import torch  # noqa: E402
from areal.trainer.ppo.actor import PPOActor  # noqa: E402
from areal.utils.data import KLEstimator, Normalization  # noqa: E402

SOURCE = "areal 1.0.4 areal/trainer/ppo/actor.py:PPOActor._compute_advantages"


def _norm(mean: str | None, std: str | None, group_size: int, leave_one_out: bool = False) -> Normalization:
    return Normalization(types.SimpleNamespace(mean_level=mean, std_level=std, mean_leave1out=leave_one_out, std_unbiased=True, eps=1e-5, group_size=group_size))


def _run(advantages: tuple[Any, ...] | None, *, rewards: tuple[Any, ...] | None = None, values: bool = False, kl: str = "k1", kl_coef: float = 0.0,
         gamma: float = 1.0, lam: float = 1.0, clip: float = 20.0, bias: float = 0.0, scaling: float = 1.0) -> Callable[[Case], F64]:
    def run(case: Case) -> F64:
        actor = PPOActor.__new__(PPOActor)
        actor.config = types.SimpleNamespace(overlong_reward_penalty=False, use_decoupled_loss=False, recompute_logprob=False)
        actor.reward_bias, actor.reward_scaling, actor.reward_clip = bias, scaling, clip
        actor.reward_norm = _norm(rewards[0], rewards[1], case.group_size, *rewards[2:]) if rewards else None
        actor.adv_norm = _norm(advantages[0], advantages[1], case.group_size, *advantages[2:]) if advantages else None
        actor.kl_ctl, actor.kl_estimator = kl_coef, KLEstimator(kl)
        actor.discount, actor.gae_lambda, actor.mask_no_eos_with_zero = gamma, lam, False

        # One prompt token before the response, one slot after the longest: no row is taken for truncated.
        def full(packed: Any, shift: int) -> torch.Tensor:
            padded = case.pad(packed)
            out = np.zeros((case.rollouts, case.width + 2))
            out[:, shift : shift + case.width] = padded
            return torch.tensor(out, dtype=torch.float32)

        lengths = torch.tensor(case.lengths) + 1
        data = {
            "input_ids": torch.zeros((case.rollouts, case.width + 2), dtype=torch.long), "rewards": torch.tensor(case.outcome, dtype=torch.float32),
            "attention_mask": (torch.arange(case.width + 2) < lengths[:, None]).long(), "loss_mask": full(case.mask.astype(float), 1),
            # Log-probabilities of the old policy lie on their token and are rolled; the reference's and the values come aligned.
            "logprobs": full(case.logp_policy, 1), "ref_logp": full(case.logp_reference, 0),
        }
        if values:
            data["values"] = full(case.values, 0)
        return case.pack(actor._compute_advantages(data)["advantages"][:, : case.width].double().numpy())

    return run


def entries() -> list[Entry]:
    even, log_probs = frozenset({"even"}), ("logp_policy", "logp_reference")

    def entry(preset: str, advantages: tuple[Any, ...] | None, variant: str = "", inputs: tuple[str, ...] = ("outcome",), config: dict[str, Any] | None = None,
              refuses: frozenset[str] = frozenset(), **more: Any) -> Entry:
        return Entry(preset=f"areal.{preset}", variant=variant, source=SOURCE, run=_run(advantages, **more), inputs=inputs, config=config or {}, needs=even,
                     refuses=refuses, precision="f32")

    batch, values = ("batch", "batch"), ("outcome", "values")
    found = [
        # Rewards by group, then advantages by batch; rewards alone.
        entry("grpo", batch, rewards=("group", "group"), refuses=frozenset({"single"})),
        entry("grpo", None, "reward_norm", rewards=("group", "group"), config={"whiten": "none"}, refuses=frozenset({"single"})),
        entry("dr_grpo", None, rewards=("group", None)), entry("rloo", None, rewards=("group", None, True), refuses=frozenset({"single"})),
        entry("reinforce_plus_plus", batch),
        entry("ppo", batch, inputs=values, values=True),
        entry("ppo", batch, "gamma_lam", inputs=values, values=True, gamma=0.98, lam=0.9, config={"gamma": 0.98, "lam": 0.9}),
        entry("ppo", None, "no_norm", inputs=values, values=True, gamma=0.98, lam=0.9, config={"gamma": 0.98, "lam": 0.9, "whiten": "none"}),
        entry("ppo", batch, "clip", inputs=values, values=True, clip=0.5, config={"outcome.clip_value": 0.5}),
        entry("reinforce_plus_plus", batch, "kl", inputs=("outcome", *log_probs), kl_coef=0.1, config={"kl_in_reward": "k1", "kl_coef": 0.1}),
    ]
    for kl in ("k1", "k2", "k3"):
        found.append(entry("ppo", batch, f"kl_{kl}", inputs=(*values, *log_probs), values=True, kl=kl, kl_coef=0.05, config={"kl_in_reward": kl, "kl_coef": 0.05}))
    return found
