"""AReaL 1.0.4 itself, its GPU packages stubbed: `PPOActor._compute_advantages`, with ours behind it."""
from __future__ import annotations

import types
from typing import Any

import numpy as np
import pytest
import stubs
from conftest import Rollouts, make

pytest.importorskip("torch")
stubs.stub("aiohttp", "httpx", "colorlog", "tenacity", "flask", "torchdata", "werkzeug", "lark", "uvloop", "hydra", "ray", "numba", "PIL", "einops", "requests", "aiofiles", "openai",
           "swanlab", "trackio", "wandb", "tensorboardX", "pybase64")
pytest.importorskip("areal", reason="areal is not installed; make frameworks brings it")

import torch  # noqa: E402

from passrl.plugins import areal as plugin  # noqa: E402

plugin.install()

from areal.trainer.ppo.actor import PPOActor  # noqa: E402
from areal.utils.data import KLEstimator, Normalization  # noqa: E402

import passrl  # noqa: E402

PROMPT = 3


def norm(level: str | None, std: str | None = "same", size: int = 4, **more: Any) -> Any:
    return Normalization(types.SimpleNamespace(**{**dict(mean_level=level, std_level=level if std == "same" else std, mean_leave1out=False, std_unbiased=True, eps=1e-5, group_size=size), **more}))


def actor(**more: Any) -> Any:
    found = PPOActor.__new__(PPOActor)
    found.config = types.SimpleNamespace(overlong_reward_penalty=False, use_decoupled_loss=False, recompute_logprob=False)
    settings = dict(reward_bias=0.0, reward_scaling=1.0, reward_clip=20.0, reward_norm=norm("group"), adv_norm=None, kl_ctl=0.0, kl_estimator=KLEstimator("k1"), discount=1.0, gae_lambda=1.0,
                    mask_no_eos_with_zero=False)
    for name, value in (settings | more).items():
        setattr(found, name, value)
    return found


def batch(rollouts: Rollouts, process: bool = True) -> dict[str, Any]:
    """As a workflow gives them: a prompt, the response, one slot of padding at least; everything aligned with input_ids."""
    count, width = len(rollouts.masks), PROMPT + rollouts.width

    def full(rows: list[Any]) -> torch.Tensor:
        return torch.tensor(np.concatenate([np.zeros((count, PROMPT), np.float32), rollouts.pad(rows)], axis=1))

    data: dict[str, Any] = {"input_ids": torch.zeros((count, width), dtype=torch.long), "rewards": torch.tensor(rollouts.outcome, dtype=torch.float32),
                            "attention_mask": (torch.arange(width) < torch.tensor(rollouts.lengths)[:, None] + PROMPT).long(), "loss_mask": full(rollouts.masks), "logprobs": torch.zeros((count, width))}
    if process:
        ends, scores = full([np.zeros(n) for n in rollouts.lengths]), full([np.zeros(n) for n in rollouts.lengths])
        for row, (e, s) in enumerate(zip(rollouts.ends, rollouts.scores)):
            ends[row, PROMPT + e - 1], scores[row, PROMPT + e - 1] = 1, torch.tensor(s, dtype=torch.float32)
        data |= {"process_end": ends, "process_score": scores, "format": torch.tensor(rollouts.format)}
    return data


def rolled(advantages: torch.Tensor) -> Any:
    """Advantages of the response's tokens: AReaL holds a token's at the place that predicts it."""
    assert not advantages[:, : PROMPT - 1].any()
    return advantages[:, PROMPT - 1 : -1]


@pytest.mark.parametrize("preset", ["pass", "grpo_process", "pass:k=0.2"])
def test_process_rewards_in_the_trajectory(preset: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PASSRL_PRESET", preset)
    rollouts = make(sizes=(4, 4), mixed=False)
    data = actor()._compute_advantages(batch(rollouts))
    name, _, fields = preset.partition(":")
    rollouts.compare(rolled(data["advantages"]), rollouts.expected(name, **dict(pair.split("=") for pair in fields.split(",") if pair)))
    assert data["returns"].shape == data["advantages"].shape and "tot_rewards" in data


def test_group_sizes_of_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PASSRL_PRESET", "pass")
    rollouts = make(sizes=(5, 2), mixed=False)
    data = actor()._compute_advantages(batch(rollouts) | {"group_sizes": [5, 2]})
    rollouts.compare(rolled(data["advantages"]), rollouts.expected())


@pytest.mark.parametrize("preset, own", [("areal.dr_grpo", {}), ("areal.rloo", {"mean_leave1out": True})])
def test_areals_own_by_our_name(preset: str, own: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PASSRL_PRESET", preset)
    rollouts = make(sizes=(4, 4), mixed=False)
    rollouts.outcome = np.random.default_rng(2).random(8)
    ours = actor()._compute_advantages(batch(rollouts, False))
    monkeypatch.setattr(plugin, "compute", lambda actor, data: None)
    theirs = actor(reward_norm=norm("group", None, **own))._compute_advantages(batch(rollouts, False))
    inside = ours["loss_mask"] != 0
    assert ours["advantages"][inside].abs().max() > 0.1
    torch.testing.assert_close(ours["advantages"][inside], theirs["advantages"][inside].float(), rtol=0, atol=1e-5)


def test_what_is_in_the_way_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PASSRL_PRESET", "pass")
    rollouts = make(sizes=(4, 4), mixed=False)
    for given, process, told in [({"adv_norm": norm("batch")}, True, "actor.adv_norm to null"), ({"kl_ctl": 0.1}, True, "actor.kl_ctl to 0"), ({}, False, "process_score")]:
        with pytest.raises(passrl.ArgumentError, match=told):
            actor(**given)._compute_advantages(batch(rollouts, process))
    for lone in (None, norm("batch", size=1)):
        with pytest.raises(passrl.ArgumentError, match="actor.reward_norm.group_size"):
            actor(reward_norm=lone)._compute_advantages(batch(rollouts))
