"""SkyRL 0.4.0 itself: its registry of estimators and `compute_advantages_and_returns`."""
from __future__ import annotations

import typing
from typing import Any

import numpy as np
import pytest
import stubs
from conftest import make

pytest.importorskip("torch")
typing_extensions = pytest.importorskip("typing_extensions")
stubs.stub("cloudpathlib", "ray", "jaxtyping", "loguru", "skyrl_gym", "hydra")
if not hasattr(typing, "override"):
    # SkyRL asks for Python 3.12; what it takes from there is in typing_extensions.
    typing.override = typing_extensions.override  # type: ignore[attr-defined]
typing.TypedDict = typing_extensions.TypedDict
pytest.importorskip("skyrl", reason="skyrl is not installed; make frameworks brings it")

import ray  # noqa: E402
import torch  # noqa: E402

ray.is_initialized = lambda: False

from skyrl.backends.skyrl_train.utils import ppo_utils  # noqa: E402

import passrl  # noqa: E402
from passrl.plugins import skyrl as plugin  # noqa: E402

plugin.register("pass:k=0.5")
plugin.register()


def advantages(rollouts: Any, rewards: Any, name: str, values: Any = None) -> Any:
    found, returns = ppo_utils.compute_advantages_and_returns(
        token_level_rewards=torch.tensor(rewards), response_mask=torch.tensor(rollouts.pad(rollouts.masks)), index=np.array(rollouts.groups, dtype=object), adv_estimator=name, config=None,
        values=values)
    assert returns.shape == found.shape
    return found


def test_step_rewards_inside_and_the_outcome_at_the_end() -> None:
    rollouts = make(holes=False)
    rollouts.scores = [np.where(s == 0, 0.25, s) for s in rollouts.scores]
    # The last step has no mark of its own: the last token is the outcome's.
    rewards = rollouts.terminal()
    for row, ends, scores in zip(rewards, rollouts.ends, rollouts.scores):
        row[ends[:-1] - 1] = scores[:-1]
    rollouts.ends = [np.append(e[:-2], n) if len(e) > 1 else e[:0] for e, n in zip(rollouts.ends, rollouts.lengths)]
    rollouts.scores = [s[:-1] for s in rollouts.scores]
    rollouts.compare(advantages(rollouts, rewards, "pass"), rollouts.expected(format=None, format_ok=None, k=0.5))
    rollouts.compare(advantages(rollouts, rewards, "grpo_process"), rollouts.expected("grpo_process"))


@pytest.mark.parametrize("theirs", ["grpo", "rloo", "maxrl", "gae"])
def test_skyrls_own_by_our_name(theirs: str) -> None:
    rollouts = make(sizes=(4, 4), holes=False)
    rollouts.outcome = np.random.default_rng(2).random(8)
    # Theirs looks at no mask: what lies behind a response is 0.
    rewards, inside = rollouts.terminal(), rollouts.pad(rollouts.masks) != 0
    values = torch.tensor(np.random.default_rng(3).random((8, rollouts.width)) * inside, dtype=torch.float32)
    ours, wanted = advantages(rollouts, rewards, f"skyrl.{theirs}", values), advantages(rollouts, rewards, theirs, values)
    assert np.abs(ours.numpy()[inside]).max() > 0.1
    np.testing.assert_allclose(ours.numpy()[inside], wanted.numpy()[inside], rtol=0, atol=2e-5)


def test_what_skyrl_does_not_give_is_named() -> None:
    rollouts = make(sizes=(4, 4), holes=False)
    with pytest.raises(passrl.ArgumentError, match="trainer.critic.model.path"):
        advantages(rollouts, rollouts.terminal(), "skyrl.gae")
    with pytest.raises(passrl.ArgumentError, match="no log-probabilities"):
        advantages(rollouts, rollouts.terminal(), "nemo_rl.opd")
