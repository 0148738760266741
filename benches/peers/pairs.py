"""The pairs: what theirs is called with, what ours is given, and how far apart the two may be. Nothing is copied or converted between calls."""
from __future__ import annotations

import sys
import types
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

import passrl
from batch import Batch

# The stand-ins for what the frameworks import beside their functions, and the reader of TRL's statements, are the parity tests'.
sys.path.insert(1, str(Path(__file__).resolve().parents[2] / "tests" / "parity"))

GAMMA, LAM = 0.99, 0.95
Tensors = tuple[torch.Tensor, ...]


@dataclass
class Pair:
    """Two calls that give the same tensors. `tolerance` is of the largest value; `where` picks the slots that both define (padded: those in scope)."""

    theirs: Callable[[], Tensors]
    ours: Callable[[], Tensors]
    # Bytes that must be read and written: the floor copies as many.
    bytes: int
    tolerance: float = 1e-5
    where: torch.Tensor | None = None


def _ours(b: Batch, preset: str, threads: int, returns: bool = False, packed: bool = False, fields: dict[str, Any] | None = None, **given: Any) -> Callable[[], Tensors]:
    """A bound call on the rollouts of `b`."""
    plan = passrl.Plan(preset, rollouts=b.rollouts, groups=b.rollouts // b.group_size, tokens=b.tokens if packed else b.slots, rollout_tokens=b.width,
                       group_rollouts=b.group_size, threads=threads, **(fields or {}))
    if packed:
        given["cu_seqlens"] = b.cu_seqlens
    call = plan.bind(group_size=b.group_size, want=(), returns=returns, **given)

    def run() -> Tensors:
        shaped = call()
        return (shaped.advantages, shaped.returns) if returns else (shaped.advantages,)

    return run


def _rows(b: Batch, count: int = 1) -> int:
    return 4 * count * b.rollouts


# verl: response_mask is int64, and rewards are summed out of [B, T] where ours is given the outcome [B].

def _verl(b: Batch, threads: int, function: str, preset: str, arguments: dict[str, Any], given: dict[str, Any], read: int, outputs: int = 1,
          fields: dict[str, Any] | None = None, **more: Any) -> Pair:
    import stubs

    stubs.stub("ray", "transformers", "torchdata", "tqdm", "codetiming", "datasets", "PIL", "pandas", "peft", "accelerate", "cachetools", "uvicorn", "fastapi")
    from verl.trainer.ppo import core_algos

    call = getattr(core_algos, function)
    arguments = {"response_mask": b.mask, **arguments}
    ours = _ours(b, preset, threads, returns=outputs == 2, fields=fields, mask=b.mask, **given)
    return Pair(lambda: tuple(call(**arguments)[:outputs]), ours, 8 * b.slots + 4 * outputs * b.slots + read, where=b.in_scope, **more)


def _group(function: str, preset: str) -> Callable[[Batch, int], Pair]:
    def pair(b: Batch, threads: int) -> Pair:
        return _verl(b, threads, function, preset, {"token_level_rewards": b.last_token_rewards, "index": b.uid}, {"outcome": b.outcome}, _rows(b))

    return pair


def _verl_reinforce(b: Batch, threads: int) -> Pair:
    return _verl(b, threads, "compute_reinforce_plus_plus_outcome_advantage", "verl.reinforce_plus_plus",
                 {"token_level_rewards": b.token_rewards, "config": types.SimpleNamespace(gamma=GAMMA)}, {"token_rewards": b.token_rewards}, 4 * b.tokens,
                 fields={"gamma": GAMMA})


def _verl_gdpo(b: Batch, threads: int) -> Pair:
    keys = [f"f{i}" for i in range(3)]
    scores = {key: b.functions[:, i].contiguous() for i, key in enumerate(keys)}
    batch = {"prompts": torch.zeros((b.rollouts, 1), dtype=torch.int64), "attention_mask": torch.cat([torch.ones((b.rollouts, 1), dtype=torch.int64), b.mask], 1)}
    arguments = {"token_level_rewards": b.last_token_rewards, "index": b.uid, "config": {"gdpo_reward_keys": keys},
                 "non_tensor_batch": {key: value.numpy() for key, value in scores.items()}, "batch": batch}
    return _verl(b, threads, "compute_gdpo_outcome_advantage", "verl.gdpo", arguments, {"streams": scores}, _rows(b, 3), fields={"num_extra": 3})


def _verl_gae(b: Batch, threads: int) -> Pair:
    return _verl(b, threads, "compute_gae_advantage_return", "verl.gae", {"token_level_rewards": b.token_rewards, "values": b.values, "gamma": GAMMA, "lam": LAM},
                 {"token_rewards": b.token_rewards, "values": b.values}, 8 * b.tokens, outputs=2, fields={"gamma": GAMMA, "lam": LAM})


def _openrlhf() -> Any:
    import stubs

    stubs.stub("pylatexenc", "transformers", "ray", "peft", "flash_attn", "deepspeed", "vllm", "aiohttp", "tqdm", "torchdata")
    from openrlhf.trainer.ppo_utils import experience_maker

    return experience_maker.RemoteExperienceMaker.__new__(experience_maker.RemoteExperienceMaker)


def _openrlhf_gae(b: Batch, threads: int) -> Pair:
    maker, mask = _openrlhf(), b.in_scope
    ours = _ours(b, "openrlhf.gae", threads, returns=True, fields={"whiten": "none", "gamma": GAMMA, "lam": LAM}, mask=mask, token_rewards=b.token_rewards, values=b.values)
    return Pair(lambda: maker.get_advantages_and_returns(b.values, b.token_rewards, mask, GAMMA, LAM), ours, 9 * b.slots + 8 * b.tokens, where=mask)


def _to_go(b: Batch, threads: int, **extent: torch.Tensor) -> Callable[[], Tensors]:
    """Discounted return-to-go of rewards a token."""
    return _ours(b, "verl.reinforce_plus_plus", threads, fields={"whiten": "none", "gamma": GAMMA}, token_rewards=b.token_rewards, **extent)


def _openrlhf_returns(b: Batch, threads: int) -> Pair:
    maker, mask = _openrlhf(), b.in_scope
    return Pair(lambda: (maker.get_cumulative_returns(b.token_rewards, mask, GAMMA),), _to_go(b, threads, mask=mask), 5 * b.slots + 4 * b.tokens, where=mask)


# TRL computes [B] numbers and broadcasts them in the loss: ours, too, is given rollouts of one token here.

def _trl(aggregation: str, preset: str) -> Callable[[Batch, int], Pair]:
    def pair(b: Batch, threads: int) -> Pair:
        import sources
        import stubs

        stubs.stub("pandas", "transformers", "accelerate", "datasets", "huggingface_hub", "comet_ml", "peft", "rich")
        from trl.trainer.utils import nanstd

        statements = sources.block(sources.text("trl", "trainer/grpo_trainer.py"), "_generate_and_score_completions", "unscorable_mask", "advantages")
        trainer = types.SimpleNamespace(reward_weights=torch.ones(3), reward_funcs=[None] * 3, multi_objective_aggregation=aggregation, scale_rewards="group",
                                        accelerator=types.SimpleNamespace(process_index=0))
        given = {"torch": torch, "nanstd": nanstd, "device": "cpu", "mode": "train", "num_generations": b.group_size, "rewards_per_func": b.functions,
                 "self": trainer, "prompts": range(b.rollouts)}
        plan = passrl.Plan(preset, rollouts=b.rollouts, groups=b.rollouts // b.group_size, tokens=b.rollouts, rollout_tokens=1, group_rollouts=b.group_size,
                           threads=threads, num_extra=3)
        streams = {f"f{i}": b.functions[:, i] for i in range(3)}
        call = plan.bind(group_size=b.group_size, cu_seqlens=torch.arange(b.rollouts + 1), streams=streams, want=())
        return Pair(lambda: (statements(dict(given))["advantages"],), lambda: (call().advantages,), 16 * b.rollouts)

    return pair


def _ends(b: Batch) -> torch.Tensor:
    """[B, T, 1], true on the last token of each rollout and of each row."""
    done = torch.zeros((b.rollouts, b.width, 1), dtype=torch.bool)
    done[torch.arange(b.rollouts), b.lengths - 1] = True
    done[:, -1] = True
    return done


def _torchrl_gae(function: str) -> Callable[[Batch, int], Pair]:
    def pair(b: Batch, threads: int) -> Pair:
        from torchrl.objectives.value import functional

        call = getattr(functional, function)
        done, reward, value = _ends(b), b.token_rewards.unsqueeze(-1), b.values.unsqueeze(-1)
        following = torch.cat([value[:, 1:], torch.zeros_like(value[:, :1])], 1)
        ours = _ours(b, "verl.gae", threads, returns=True, fields={"whiten": "none", "gamma": GAMMA, "lam": LAM}, lengths=b.lengths, token_rewards=b.token_rewards,
                     values=b.values)
        return Pair(lambda: tuple(x.squeeze(-1) for x in call(GAMMA, LAM, value, following, reward, done=done, terminated=done)), ours,
                    8 * b.slots + 8 * b.tokens, where=b.in_scope, tolerance=1e-4 if function.startswith("vec") else 1e-5)

    return pair


def _torchrl_to_go(b: Batch, threads: int) -> Pair:
    from torchrl.objectives.value import functional

    done, reward = _ends(b), b.token_rewards.unsqueeze(-1)
    return Pair(lambda: (functional.reward2go(reward, done, GAMMA).view(b.mask.shape),), _to_go(b, threads, lengths=b.lengths), 4 * b.slots + 4 * b.tokens,
                where=b.in_scope, tolerance=1e-4)


def _scipy(coefficients: str) -> Callable[[Batch, int], Pair]:
    """A filter over rows from the end; it knows neither masks nor lengths: rewards behind the end are 0."""

    def pair(b: Batch, threads: int) -> Pair:
        import numpy as np
        from scipy.signal import lfilter

        rewards, (one, gamma) = b.token_rewards.numpy(), (np.array(x, dtype=coefficients) for x in ([1.0], [1.0, -GAMMA]))
        return Pair(lambda: (torch.from_numpy(lfilter(one, gamma, rewards[:, ::-1])[:, ::-1].copy()),), _to_go(b, threads, lengths=b.lengths),
                    4 * b.slots + 4 * b.tokens, where=b.in_scope)

    return pair


def _pass(name: str, compiled: bool) -> Callable[[Batch, int], Pair]:
    def pair(b: Batch, threads: int) -> Pair:
        import torch_pass

        kind, layout = name.split("_")
        function = getattr(torch_pass, name)
        call = torch.compile(function) if compiled else function
        packed = layout == "packed"
        signal = getattr(b, {"prm": "dense", "kl": "kl"}[kind] + ("_packed" if packed else ""))
        rollouts = {"outcome": b.outcome, "format": b.format, "format_ok": b.format_ok}
        extent = {} if packed else {"mask": b.mask}
        ours = _ours(b, "pass", threads, packed=packed, fields={"kind": kind}, signal=signal, **rollouts, **extent)
        arguments = (signal, b.cu_seqlens if packed else b.mask, b.outcome, b.format, b.format_ok, b.group_size)
        moved = 8 * b.tokens if packed else 12 * b.slots + 4 * b.tokens
        return Pair(lambda: (call(*arguments),), ours, moved, where=None if packed else b.in_scope)

    return pair


PAIRS: dict[str, Callable[[Batch, int], Pair]] = {
    "verl GRPO": _group("compute_grpo_outcome_advantage", "verl.grpo"),
    "verl GRPO vectorised": _group("compute_grpo_vectorized_outcome_advantage", "verl.grpo_vectorized"),
    "verl RLOO": _group("compute_rloo_outcome_advantage", "verl.rloo"),
    "verl RLOO vectorised": _group("compute_rloo_vectorized_outcome_advantage", "verl.rloo_vectorized"),
    "verl REINFORCE++": _verl_reinforce,
    "verl GDPO, 3 rewards": _verl_gdpo,
    "verl GAE": _verl_gae,
    "OpenRLHF GAE": _openrlhf_gae,
    "OpenRLHF returns": _openrlhf_returns,
    "TRL GRPO, [B] alone": _trl("sum_then_normalize", "trl.grpo"),
    "TRL GDPO, [B] alone": _trl("normalize_then_sum", "trl.gdpo"),
    "torchrl GAE": _torchrl_gae("generalized_advantage_estimate"),
    "torchrl GAE vectorised": _torchrl_gae("vec_generalized_advantage_estimate"),
    "torchrl reward2go": _torchrl_to_go,
    "scipy lfilter": _scipy("float64"),
    "scipy lfilter, f32 coefficients": _scipy("float32"),
    **{f"torch PASS {name.replace('_', ' ')}{', compiled' * compiled}": _pass(name, compiled)
       for name in ("prm_padded", "kl_padded", "prm_packed", "kl_packed") for compiled in (False, True)},
}
