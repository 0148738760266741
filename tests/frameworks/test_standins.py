"""Megatron-LM, NeMo-RL, ROLL, DeepSpeed-Chat and prime-rl, which PyPI does not serve: against stand-ins of their hooks (standins/)."""
from __future__ import annotations

import types
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from conftest import Rollouts, make, standin

torch = pytest.importorskip("torch")

import passrl  # noqa: E402
from passrl.plugins import deepspeed_chat, imports, megatron, nemo_rl, prime_rl, roll  # noqa: E402

SPACE = types.SimpleNamespace
PROMPT = 3


def full(rollouts: Rollouts, rows: list[Any], dtype: Any = np.float32) -> Any:
    """Rows behind a prompt of PROMPT tokens, `[B, S]`."""
    return torch.tensor(np.concatenate([np.zeros((len(rows), PROMPT), dtype=dtype), rollouts.pad(rows, dtype)], axis=1))


# Megatron-LM


def test_megatron_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    module = standin("megatron.rl.rl_utils", "megatron_rl_utils.py")
    theirs = module.compute_group_stats([[SPACE(reward=r, trajectory=[0] * n) for r, n in ((1.0, 2), (0.0, 1), (0.5, 3))]])["advantages"]
    megatron.install()
    monkeypatch.setenv("PASSRL_PRESET", "megatron.grpo")
    ours = module.compute_group_stats([[SPACE(reward=r, trajectory=[0] * n) for r, n in ((1.0, 2), (0.0, 1), (0.5, 3))]])["advantages"]
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-6)
    assert len(ours) == 6 and max(ours) > 1

    monkeypatch.setenv("PASSRL_PRESET", "pass")
    groups = [[([1.0, -1.0, 0.5], 1.0), ([0.5], 0.0), ([], 0.0)], [([0.0, 1.0], 1.0), ([-1.0, -1.0], 0.0)]]
    found = module.compute_group_stats([[SPACE(reward=[*scores, outcome], trajectory=[0] * len(scores)) for scores, outcome in group] for group in groups])["advantages"]
    flat = [(g, scores, outcome) for g, group in enumerate(groups) for scores, outcome in group if scores]
    lengths = [len(scores) for _, scores, _ in flat]
    steps = passrl.Steps(np.concatenate([[0], np.cumsum(lengths)]), np.concatenate([np.arange(1, n + 1) for n in lengths]), np.concatenate([s for _, s, _ in flat]))
    wanted = passrl.shape(steps=steps, lengths=lengths, groups=[g for g, _, _ in flat], outcome=[o for _, _, o in flat], chunk="step")
    np.testing.assert_array_equal(np.float32(found), wanted.advantages)
    # Process rewards alone: no outcome stream.
    found = module.compute_group_stats([[SPACE(reward=scores, trajectory=[0] * len(scores)) for scores, _ in group if scores] for group in groups])["advantages"]
    wanted = passrl.shape(steps=steps, lengths=lengths, groups=[g for g, _, _ in flat], chunk="step")
    np.testing.assert_array_equal(np.float32(found), wanted.advantages)
    with pytest.raises(passrl.ShapeError, match="rollout 0 has 4 rewards and 2 turns"):
        module.calculate_grpo_advantages([[[1.0] * 4]], [[2]])


# NeMo-RL


def test_nemo_rl() -> None:
    rollouts = make(sizes=(4, 4))
    module = standin("nemo_rl.algorithms.grpo", "nemo_rl_grpo.py")
    nemo_rl.install()
    number = {key: g for g, key in enumerate(dict.fromkeys(rollouts.groups))}
    prompts = torch.tensor([[number[group]] * PROMPT for group in rollouts.groups])
    arguments = (prompts, torch.tensor(rollouts.outcome), full(rollouts, rollouts.masks), {"process": rollouts.records()}, None, None)
    for preset, fields in (("pass", {}), ("pass:k=0.2", {"k": 0.2})):
        found = module.training_step({"grpo": {"adv_estimator": {"name": "pass", "preset": preset}}}, *arguments)
        rollouts.compare(found[:, PROMPT:], rollouts.expected(**fields))
        assert not found[:, :PROMPT].any()
    # Keys of the batch part what prompts do not.
    keyed = {"process": rollouts.records(), "passrl_group": [group if i % 2 else "other" for i, group in enumerate(rollouts.groups)]}
    found = module.training_step({"grpo": {"adv_estimator": {"name": "pass"}}}, *arguments[:3], keyed, None, None)
    rollouts.groups = keyed["passrl_group"]
    rollouts.compare(found[:, PROMPT:], rollouts.expected())
    with pytest.raises(ValueError, match="Invalid adv_estimator name: other"):
        module.training_step({"grpo": {"adv_estimator": {"name": "other"}}}, *arguments)
    with pytest.raises(passrl.ArgumentError, match="repeated_batch"):
        module.training_step({"grpo": {"adv_estimator": {"name": "pass"}}}, *arguments[:3], {}, None, None)


# ROLL


def test_roll(monkeypatch: pytest.MonkeyPatch) -> None:
    rollouts = make(sizes=(4, 3))
    module = standin("roll.utils.functionals", "roll_functionals.py")
    mask = torch.cat([torch.zeros(len(rollouts.masks), 1), torch.tensor(rollouts.pad(rollouts.masks))], dim=1)

    def data(**others: Any) -> Any:
        records = np.empty(len(rollouts.masks), dtype=object)
        records[:] = rollouts.records()
        return SPACE(batch={"response_mask": mask, "token_level_rewards": torch.tensor(rollouts.terminal())}, non_tensor_batch={"process": records, **others})

    roll.install()
    groups = np.array(rollouts.groups, dtype=object)
    monkeypatch.delenv("PASSRL_PRESET", raising=False)
    theirs = module.compute_advantage(data(prompt_id=groups), 1.0, 1.0, "reinforce").batch["advantages"]
    assert theirs.abs().max() == 1
    monkeypatch.setenv("PASSRL_PRESET", "pass")
    for key in ("prompt_id", "traj_group_id"):
        batch = module.compute_advantage(data(**{key: groups}), 1.0, 1.0, "reinforce").batch
        rollouts.compare(batch["advantages"], rollouts.expected())
    with pytest.raises(passrl.ArgumentError, match="traj_group_id, prompt_id, uid"):
        module.compute_advantage(data(), 1.0, 1.0, "reinforce")
    with pytest.raises(passrl.ArgumentError, match="whiten=tokens"):
        module.compute_advantage(data(prompt_id=groups), 1.0, 1.0, "reinforce", whiten_advantages=True)
    monkeypatch.setenv("PASSRL_PRESET", "roll.reinforce")
    ours = module.compute_advantage(data(prompt_id=groups), 1.0, 1.0, "reinforce").batch["advantages"]
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-6)


# DeepSpeed-Chat


def test_deepspeed_chat(monkeypatch: pytest.MonkeyPatch) -> None:
    rollouts = make(sizes=(4, 3), holes=False)
    module = standin("dschat.rlhf.ppo_trainer", "dschat_ppo_trainer.py")

    class Trainer(deepspeed_chat.PassMixin, module.DeepSpeedPPOTrainer):  # type: ignore[misc, name-defined]
        pass

    random = np.random.default_rng(4)
    count, width = len(rollouts.masks), PROMPT + rollouts.width

    def inputs() -> Any:
        attention = np.concatenate([np.ones((count, PROMPT)), rollouts.pad(rollouts.masks)], axis=1)
        return {"prompts": torch.zeros(count, PROMPT, dtype=torch.long), "attention_mask": torch.tensor(attention, dtype=torch.long),
                "rewards": torch.tensor(rollouts.outcome, dtype=torch.float32), "logprobs": torch.zeros(count, width - 1), "ref_logprobs": torch.zeros(count, width - 1),
                "value": torch.tensor(random.random((count, width - 1)), dtype=torch.float32)}

    trainer = Trainer()
    monkeypatch.setenv("PASSRL_PRESET", "pass")
    with pytest.raises(passrl.ArgumentError, match="trainer.kl_ctl = 0"):
        trainer.train_rlhf(inputs())
    trainer.kl_ctl = 0.0
    with pytest.raises(passrl.ArgumentError, match="passrl_groups is not set"):
        trainer.train_rlhf(inputs())
    trainer.passrl_groups, trainer.passrl_records = rollouts.groups, rollouts.records()
    advantages, returns = trainer.train_rlhf(inputs())
    # Logits predict the next token: the response's first lies at the prompt's last place.
    rollouts.compare(advantages, rollouts.expected())
    assert returns.shape == advantages.shape


# prime-rl


@dataclass
class AdvantageInputs:
    """Stand-in of prime_rl.orchestrator.algo.advantage.AdvantageInputs (prime-rl 559b44772)."""

    rollouts: list[Any]
    completion_lengths: list[int]


def test_prime_rl() -> None:
    rollouts = make(sizes=(5,), mixed=False, holes=False)
    inputs = AdvantageInputs([{"reward": r, "process": record} for r, record in zip(rollouts.outcome, rollouts.records())], rollouts.lengths.tolist())
    for preset, fields in (("pass", {}), ("pass:k=0.2", {"k": 0.2})):
        found = prime_rl.advantages(inputs, preset=preset)
        for row, wanted in zip(found, rollouts.expected(**fields)):
            np.testing.assert_array_equal(np.float32(row), wanted)
    rewards = rollouts.outcome
    for row, wanted in zip(prime_rl.advantages(inputs, preset="prime_rl.grpo"), rewards - rewards.mean()):
        np.testing.assert_allclose(row, wanted, atol=1e-6)
    with pytest.raises(passrl.ArgumentError, match="state\\['process'\\]"):
        prime_rl.advantages(AdvantageInputs([{"reward": 1.0}], [3]))


# What installs them


def test_a_module_is_wrapped_once_before_others_take_from_it(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "wrapped_later.py").write_text("def value(): return 1\n")
    (tmp_path / "takes_from_it.py").write_text("from wrapped_later import value\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    calls = []

    def wrap(module: Any) -> None:
        calls.append(module.__name__)
        module.value = lambda: 2

    imports.after_import("wrapped_later", wrap)
    imports.after_import("wrapped_later", wrap)
    assert calls == []
    import takes_from_it  # type: ignore[import-not-found]

    assert takes_from_it.value() == 2 and calls == ["wrapped_later"]
    imports.after_import("wrapped_later", wrap)
    assert calls == ["wrapped_later"]
