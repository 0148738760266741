"""OpenRLHF 0.11.2 itself, its GPU packages stubbed: responses become Experiences, micro-batches, advantages, all by its own code but for the models' forward passes."""
from __future__ import annotations

import types
from typing import Any

import numpy as np
import pytest
import stubs
from conftest import Rollouts, make

pytest.importorskip("torch")
stubs.stub("pylatexenc", "ray", "peft", "flash_attn", "deepspeed", "vllm", "aiohttp", "torchdata", "wandb")
pytest.importorskip("openrlhf", reason="openrlhf is not installed; make frameworks brings it")

import torch  # noqa: E402

from passrl.plugins import openrlhf as plugin  # noqa: E402

plugin.install()

from openrlhf.trainer.ppo_utils import experience_maker, samples_generator  # noqa: E402

import passrl  # noqa: E402

SPACE = types.SimpleNamespace
PROMPT = 3


def arguments(estimator: str = "group_norm", **kl: Any) -> Any:
    return SPACE(
        rollout=SPACE(n_samples_per_prompt=4, micro_batch_size=5), train=SPACE(dynamic_batch_enable=False),
        reward=SPACE(clip_range=(-10.0, 10.0), overlong_buffer_len=None, stop_properly_penalty_coef=None),
        algo=SPACE(advantage=SPACE(estimator=estimator, gamma=1.0, lambd=1.0, no_std_norm=False), kl=SPACE(use_loss=False)))


def maker(args: Any, kl: float = 0.0) -> Any:
    found = experience_maker.RemoteExperienceMaker.__new__(experience_maker.RemoteExperienceMaker)
    found.strategy, found.args, found.kl_ctl, found.advantage_estimator = SPACE(args=args), args, SPACE(value=kl), args.algo.advantage.estimator
    found.tokenizer = SPACE(pad_token_id=0)

    def make_experience(samples: list[Any]) -> list[Any]:
        # The models' part: without a reference the KL is 0.
        for sample in samples:
            sample.kl = torch.zeros(sample.action_mask.shape)
        return samples

    found.make_experience = make_experience
    return found


def responses(rollouts: Rollouts, process: bool = True) -> list[Any]:
    found = []
    for i, mask in enumerate(rollouts.masks):
        edges = np.flatnonzero(np.diff(np.concatenate([[0], mask, [0]])))
        extra = {key: value if isinstance(value, list) else [value] for key, value in rollouts.records()[i].items()} if process else {}
        generator = samples_generator.SamplesGenerator.__new__(samples_generator.SamplesGenerator)
        found.append(generator._process_response_into_experience({
            "observation_tokens": [1] * (PROMPT + len(mask)), "action_ranges": [(PROMPT + int(a), PROMPT + int(b)) for a, b in zip(edges[::2], edges[1::2])],
            "reward": float(rollouts.outcome[i]), "scores": float(rollouts.outcome[i]), "rollout_log_probs": None, "prompt": "p", "label": "l", "extra_logs": extra}))
    return found


def advantages(experiences: list[Any], rollouts: Rollouts) -> list[Any]:
    rows = [row for one in experiences for row in one.advantages]
    return [row[PROMPT - 1 :].numpy() for row in rows]


@pytest.mark.parametrize("preset", ["pass", "grpo_process", "pass:k=0.2,w_format=0.5"])
def test_records_in_extra_logs(preset: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PASSRL_PRESET", preset)
    rollouts = make(sizes=(4, 4, 4), mixed=False)
    experiences = maker(arguments()).make_experience_batch(responses(rollouts))
    name, _, fields = preset.partition(":")
    expected = rollouts.expected(name, **dict(pair.split("=") for pair in fields.split(",") if pair))
    assert len(experiences) == 3
    for found, row in zip(advantages(experiences, rollouts), expected):
        np.testing.assert_array_equal(found[: len(row)], row)
        assert not found[len(row) :].any()
    for one in experiences:
        assert not any(key in one.info for key in ("step_end", "step_score", "format")) and one.info["return"].shape == one.rewards.shape
        assert one.info["group_reward_std"].shape == one.rewards.shape


@pytest.mark.parametrize("estimator", ["group_norm", "rloo", "dr_grpo", "reinforce", "reinforce_baseline"])
def test_openrlhfs_own_estimators_by_our_name(estimator: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PASSRL_PRESET", f"openrlhf.{estimator}")
    rollouts = make(sizes=(4, 4, 4), mixed=False)
    rollouts.outcome = np.random.default_rng(3).random(12)
    args = arguments(estimator)
    ours = maker(args).make_experience_batch(responses(rollouts, False))
    # The class below ours is OpenRLHF's.
    theirs = experience_maker.RemoteExperienceMaker.__mro__[1].compute_advantages_and_returns(maker(args), maker(args).make_experience(maker(args).split_rollout_samples(responses(rollouts, False))))
    for one, two in zip(ours, theirs):
        inside = one.action_mask != 0
        assert one.advantages[inside].abs().max() > 0.01
        torch.testing.assert_close(one.advantages[inside], two.advantages[inside].float(), rtol=0, atol=1e-5)
        torch.testing.assert_close(one.info["group_reward_std"], two.info["group_reward_std"].float(), rtol=0, atol=1e-5)


def test_kl_in_the_reward_is_not_lost_in_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PASSRL_PRESET", "pass")
    rollouts = make(sizes=(4, 4), mixed=False)
    with pytest.raises(passrl.ArgumentError, match="--algo.kl.init_coef 0"):
        maker(arguments(), kl=0.1).make_experience_batch(responses(rollouts))
    monkeypatch.setenv("PASSRL_PRESET", "openrlhf.gae")
    with pytest.raises(passrl.ArgumentError, match="--algo.advantage.estimator gae"):
        maker(arguments()).make_experience_batch(responses(rollouts))
    monkeypatch.setenv("PASSRL_PRESET", "pass")
    with pytest.raises(passrl.ArgumentError, match="--reward.remote_url"):
        maker(arguments()).make_experience_batch(responses(rollouts, False))


def test_the_trainer_sees_our_maker() -> None:
    from openrlhf.trainer import ppo_trainer

    assert ppo_trainer.RemoteExperienceMaker is experience_maker.RemoteExperienceMaker
    assert experience_maker.RemoteExperienceMaker.__name__ == "PassExperienceMaker"
