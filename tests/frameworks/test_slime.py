"""slime and miles: miles-rl 0.0.2 itself (slime is not on PyPI), its GPU packages stubbed; slime's second hook as `loss.py` calls it."""
from __future__ import annotations

import os
import types
from typing import Any

import numpy as np
import pytest
import stubs
from conftest import Rollouts, make

pytest.importorskip("torch")
os.environ["TORCHDYNAMO_DISABLE"] = "1"
stubs.stub("urllib3", "httpx", "httpcore", "requests", "jinja2", "torchvision", "librosa", "soundfile", "einops", "sglang_router", "aiohttp", "PIL", "pybase64", "wandb", "uvicorn", "fastapi", "msgspec", "zmq", "orjson",
           "starlette", "blobfile", "ring_flash_attn", "qwen_vl_utils", "memray", "mcp", "megatron.core", "megatron.training", "mbridge", "tensorboard", "pylatexenc", "polars", "openai", "setproctitle",
           "IPython", "torchft", "sentencepiece", "tiktoken", "numba", "transformer_engine", "flash_attn")
# Ray is installed where the tests run that need it; its actor classes are no classes.
stubs.replace("sglang", "ray")
pytest.importorskip("miles", reason="miles-rl is not installed; make frameworks brings it")

import torch  # noqa: E402
from miles.backends.training_utils import loss  # noqa: E402
from miles.ray.rollout import RolloutManager  # noqa: E402
from miles.utils.misc import load_function  # noqa: E402
from miles.utils.types import Sample  # noqa: E402

import passrl  # noqa: E402
from passrl.plugins import slime as plugin  # noqa: E402

HOOK = "passrl.plugins.slime.post_process_rewards"


def arguments(**more: Any) -> Any:
    return types.SimpleNamespace(**{**dict(
        reward_key="score", advantage_estimator="grpo", rewards_normalization=True, grpo_std_normalization=True, n_samples_per_prompt=4, rollout_batch_size=3, kl_coef=0.0,
        kl_loss_type="k1", gamma=1.0, lambd=1.0, normalize_advantages=False, use_rollout_logprobs=False, use_dynamic_global_batch_size=False, balance_data=False), **more})


def samples(rollouts: Rollouts, process: bool = True) -> list[Any]:
    number = {key: g for g, key in enumerate(dict.fromkeys(rollouts.groups))}
    return [Sample(index=i, group_index=number[rollouts.groups[i]], tokens=[1] * (3 + len(mask)), response_length=len(mask), loss_mask=mask.tolist(),
                   reward={"score": float(rollouts.outcome[i])} | ({"process": record} if process else {})) for i, (mask, record) in enumerate(zip(rollouts.masks, rollouts.records()))]


def train_data(args: Any, given: list[Any]) -> Any:
    """miles's own conversion of samples, with our hook as miles loads it."""
    manager = types.SimpleNamespace(args=args, custom_reward_post_process_func=load_function(HOOK), custom_convert_samples_to_train_data_func=None)
    manager._post_process_rewards = lambda found: RolloutManager._post_process_rewards(manager, found)
    return RolloutManager._convert_samples_to_train_data(manager, given)


def rank_data(data: Any, partition: list[int]) -> Any:
    found = {key: [data[key][i] for i in partition] for key in ("tokens", "response_lengths", "rewards", "loss_masks")}
    found["total_lengths"] = [len(tokens) for tokens in found["tokens"]]
    found["log_probs"] = [torch.zeros(n) for n in found["response_lengths"]]
    found["loss_masks"] = [torch.tensor(mask) for mask in found["loss_masks"]]
    return found


@pytest.mark.parametrize("preset, fields", [("pass", {}), ("pass:k=0.2", {"k": 0.2}), ("grpo_process", {})])
def test_two_ranks_of_one_rollout_batch(preset: str, fields: Any) -> None:
    rollouts = make(sizes=(4, 3, 5))
    args = arguments(passrl_preset=preset)
    data = train_data(args, samples(rollouts))
    assert data["raw_reward"] == rollouts.outcome.tolist()
    expected = rollouts.expected(preset.partition(":")[0], **fields)
    # miles splits groups over ranks; each makes tensors of its own samples.
    for partition in ([0, 2, 4, 6, 8, 10], [1, 3, 5, 7, 9, 11]):
        rank = rank_data(data, partition)
        plugin.advantages(args, rank)
        for i, found in zip(partition, rank["advantages"]):
            assert found.dtype == torch.float32
            np.testing.assert_array_equal(found.numpy(), expected[i])
        assert all(isinstance(reward, float) for reward in rank["rewards"]) and len(rank["returns"]) == 6


def test_miles_calls_ours_where_it_has_no_option(monkeypatch: pytest.MonkeyPatch) -> None:
    rollouts = make(sizes=(4, 4, 4))
    theirs = loss.compute_advantages_and_returns
    try:
        load_function("passrl.plugins.slime.install")(arguments())
        assert loss.compute_advantages_and_returns is not theirs
        args = arguments()
        rank = rank_data(train_data(args, samples(rollouts)), list(range(12)))
        loss.compute_advantages_and_returns(args, rank)
        for found, wanted in zip(rank["advantages"], rollouts.expected()):
            np.testing.assert_array_equal(found.numpy(), wanted)
        with pytest.raises(passrl.ArgumentError, match="--normalize-advantages"):
            loss.compute_advantages_and_returns(arguments(normalize_advantages=True), rank)
        loss.compute_advantages_and_returns(args, {"log_probs": None, "values": None})
    finally:
        loss.compute_advantages_and_returns = theirs


def test_their_own_estimator_by_our_name() -> None:
    rollouts = make(sizes=(4, 4, 4), mixed=False)
    args = arguments(passrl_preset="slime.grpo")
    given = samples(rollouts, False)
    _, ours = plugin.post_process_rewards(args, given)
    _, theirs = RolloutManager._post_process_rewards(types.SimpleNamespace(args=args, custom_reward_post_process_func=None), given)
    for row, value, mask in zip(ours, theirs, rollouts.masks):
        np.testing.assert_allclose(np.array(row)[mask != 0], value, rtol=0, atol=1e-5)


def test_samples_of_one_rollout_count_once() -> None:
    rollouts = make(sizes=(4,), mixed=False, seed=8)
    given = samples(rollouts)
    for sample, rollout in zip(given, (0, 1, 1, 2)):
        sample.rollout_id = rollout
    _, found = plugin.post_process_rewards(arguments(), given)
    for i, wanted in zip((0, 2, 3), rollouts.expected(rows=[0, 2, 3])):
        np.testing.assert_array_equal(np.float32(found[i]), wanted)


def test_context_parallel_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    # miles's own zigzag: two ranks of a context hold one sequence.
    from miles.backends.training_utils import cp_utils

    rollouts = make(sizes=(4,), mixed=False, holes=False)
    data = train_data(arguments(), samples(rollouts))
    whole = [np.float32(row) for row in data["rewards"]]
    covered = [np.zeros(len(row), dtype=bool) for row in whole]
    for rank_number in (0, 1):
        state = types.SimpleNamespace(cp=types.SimpleNamespace(rank=rank_number, size=2))
        monkeypatch.setattr(cp_utils, "get_parallel_state", lambda: state)
        rank = rank_data(data, [0, 1, 2, 3])
        rank["log_probs"] = [cp_utils.slice_log_prob_with_cp(torch.zeros(n), t, n) for n, t in zip(rank["response_lengths"], rank["total_lengths"])]
        places = [cp_utils.slice_log_prob_with_cp(torch.arange(n), t, n) for n, t in zip(rank["response_lengths"], rank["total_lengths"])]
        plugin.advantages(arguments(), rank)
        for row, at, found, seen in zip(whole, places, rank["advantages"], covered):
            np.testing.assert_array_equal(found.numpy(), row[at.numpy()])
            seen[at.numpy()] = True
    assert all(seen.all() for seen in covered)


def test_what_is_missing_is_named() -> None:
    rollouts = make(sizes=(4,))
    with pytest.raises(passrl.ArgumentError, match="--custom-rm-path"):
        plugin.post_process_rewards(arguments(), samples(rollouts, False))
    with pytest.raises(passrl.ArgumentError, match="--custom-reward-post-process-path"):
        plugin.advantages(arguments(), {"rewards": [1.0, 0.0]})
    with pytest.raises(passrl.ArgumentError, match="--use-rollout-logprobs"):
        plugin.post_process_rewards(arguments(passrl_preset="slime.opd"), samples(rollouts, False))
    given = samples(rollouts)
    given[2].group_index = None
    with pytest.raises(passrl.ArgumentError, match="sample 2 has no group_index"):
        plugin.post_process_rewards(arguments(), given)
