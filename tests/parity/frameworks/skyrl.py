"""SkyRL 0.4.0 from PyPI: its own `compute_advantages_and_returns` in float64 (group mean and deviation: float32 inside)."""
from __future__ import annotations

import typing
from collections.abc import Callable
from typing import Any

import numpy as np
import typing_extensions

import stubs
from cases import Case
from entry import Entry, F64

stubs.stub("cloudpathlib", "ray", "jaxtyping", "loguru", "skyrl_gym", "transformers", "hydra")
if not hasattr(typing, "override"):
    # SkyRL asks for Python 3.12; what it takes from there is in typing_extensions.
    typing.override = typing_extensions.override
typing.TypedDict = typing_extensions.TypedDict

import ray  # noqa: E402
import torch  # noqa: E402

# Its registry of estimators is kept in a ray actor where ray runs.
ray.is_initialized = lambda: False

from skyrl.backends.skyrl_train.utils import ppo_utils  # noqa: E402

SOURCE = "skyrl 0.4.0 skyrl/backends/skyrl_train/utils/ppo_utils.py:"


def _run(function: str, *, rewards: str = "outcome", **arguments: Any) -> Callable[[Case], F64]:
    def run(case: Case) -> F64:
        scores = case.token_rewards if rewards == "token_rewards" else case.terminal(case.outcome)
        found, _ = getattr(ppo_utils, function)(
            token_level_rewards=torch.tensor(case.pad(scores)), response_mask=torch.tensor(case.pad(case.mask.astype(float))),
            index=case.groups.astype(object), values=torch.tensor(case.pad(case.values)), **{"gamma": 1.0, "lambd": 1.0, **arguments})
        return case.pack(found.double().numpy())

    return run


def entries() -> list[Entry]:
    grpo, plus = "compute_grpo_outcome_advantage", "compute_reinforce_plus_plus_outcome_advantage"
    tokens = ("token_rewards",)
    return [
        Entry(preset="skyrl.grpo", source=SOURCE + grpo, run=_run(grpo), precision="f32"),
        Entry(preset="skyrl.grpo", variant="no_std", source=SOURCE + grpo, run=_run(grpo, grpo_norm_by_std=False), config={"scale": "none"}, precision="f32"),
        Entry(preset="skyrl.rloo", source=SOURCE + "compute_rloo_outcome_advantage", run=_run("compute_rloo_outcome_advantage")),
        Entry(preset="skyrl.maxrl", source=SOURCE + "compute_maxrl_advantage", run=_run("compute_maxrl_advantage"), precision="f32"),
        Entry(preset="skyrl.gae", source=SOURCE + "compute_gae_advantage_return", run=_run("compute_gae_advantage_return", rewards="token_rewards"),
              inputs=("token_rewards", "values")),
        Entry(preset="skyrl.gae", variant="gamma_lam", source=SOURCE + "compute_gae_advantage_return", inputs=("token_rewards", "values"),
              run=_run("compute_gae_advantage_return", rewards="token_rewards", gamma=0.98, lambd=0.9), config={"gamma": 0.98, "lam": 0.9}),
    ]
