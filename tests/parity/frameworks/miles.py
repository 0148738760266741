"""miles (miles-rl 0.0.2 from PyPI): its own `_post_process_rewards` and `compute_advantages_and_returns`, in float32.

The GAE over trainable tokens alone came after 0.0.2 (#1827) and is transcribed; its `compute_approx_kl` is torch-compiled, and run uncompiled here.
"""
from __future__ import annotations

import os
import types
from collections.abc import Callable
from typing import Any

import numpy as np

os.environ["TORCHDYNAMO_DISABLE"] = "1"

import stubs  # noqa: E402
from cases import Case  # noqa: E402
from entry import Entry, F64  # noqa: E402

stubs.stub("urllib3", "tokenizers", "safetensors", "numba", "torchvision", "librosa", "soundfile", "einops", "ray", "httpx", "sglang_router", "aiohttp", "transformers", "PIL", "pybase64", "datasets", "tqdm", "wandb", "uvicorn", "fastapi", "requests", "msgspec",
           "zmq", "orjson", "pandas", "starlette", "blobfile", "ring_flash_attn", "qwen_vl_utils", "memray", "mcp", "psutil", "megatron.core", "mbridge", "accelerate",
           "tensorboard", "pylatexenc", "polars", "jinja2", "openai", "setproctitle", "IPython", "torchft", "httpcore", "regex", "sentencepiece", "tiktoken", "huggingface_hub")
stubs.replace("sglang")

import torch  # noqa: E402
import torch.distributed as dist  # noqa: E402
from miles.backends.training_utils import loss  # noqa: E402
from miles.ray.rollout import RolloutManager  # noqa: E402
from miles.utils import ppo_utils  # noqa: E402

SOURCE = "miles-rl 0.0.2 miles/ray/rollout.py:_post_process_rewards, miles/backends/training_utils/loss.py:compute_advantages_and_returns"
MAIN = "radixark/miles@02df012 miles/backends/training_utils/loss/hub/math_utils.py:get_advantages_and_returns_batch"


def _world() -> None:
    """One rank: whitening is an all-reduce."""
    if not dist.is_initialized():
        dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    one = types.SimpleNamespace(rank=0, size=1, group=None)
    for module in (loss, ppo_utils):
        module.get_parallel_state = lambda: types.SimpleNamespace(cp=one, dp=one, intra_dp=one, tp=one)


def _run(estimator: str, *, kl: str = "k1", kl_coef: float = 0.0, gamma: float = 1.0, lam: float = 1.0, whiten: bool = False, std: bool = True,
         mixed: bool = False) -> Callable[[Case], F64]:
    def run(case: Case) -> F64:
        _world()
        arguments = types.SimpleNamespace(
            advantage_estimator=estimator, rewards_normalization=True, grpo_std_normalization=std, n_samples_per_prompt=case.group_size,
            rollout_batch_size=case.rollouts // case.group_size if "even" in case.kinds else 0, use_rollout_logprobs=False, kl_coef=kl_coef, kl_loss_type=kl, gamma=gamma, lambd=lam,
            normalize_advantages=whiten)
        samples = [types.SimpleNamespace(get_reward_value=lambda _, r=float(reward): r) for reward in case.outcome]
        if mixed:
            # A count of rollouts that is not prompts times samples: what theirs takes for uneven groups, and makes one group of.
            arguments.n_samples_per_prompt, arguments.rollout_batch_size = 8, 3
        _, rewards = RolloutManager._post_process_rewards(types.SimpleNamespace(args=arguments, custom_reward_post_process_func=None), samples)

        def ragged(packed: Any) -> list[torch.Tensor]:
            return [torch.tensor(row, dtype=torch.float32) for row in case.rows(packed)]

        lengths = case.lengths.tolist()
        data = {"log_probs": ragged(case.logp_policy), "ref_log_probs": ragged(case.logp_reference), "rewards": rewards, "values": ragged(case.values),
                "response_lengths": lengths, "total_lengths": lengths, "loss_masks": ragged(case.mask), "teacher_log_probs": ragged(case.logp_teacher)}
        loss.compute_advantages_and_returns(arguments, data)
        return np.concatenate([one.double().numpy() for one in data["advantages"]])

    return run


def _gae(gamma: float, lam: float) -> Callable[[Case], F64]:
    """GAE over the subsequence of tokens in scope; the reward on its last; nothing after it; 0 where no token is in scope."""

    def run(case: Case) -> F64:
        out = np.zeros(len(case.mask))
        for i, mask in enumerate(case.rows(case.mask)):
            at = case.cu[i] + np.flatnonzero(mask)
            carry = following = 0.0
            for k in reversed(range(len(at))):
                reward = case.outcome[i] if k == len(at) - 1 else 0.0
                carry = reward + gamma * following - case.values[at[k]] + gamma * lam * carry
                following = case.values[at[k]]
                out[at[k]] = carry
        return out

    return run


def entries() -> list[Entry]:
    even, single, log_probs = frozenset({"even"}), frozenset({"single"}), ("logp_policy", "logp_reference")

    def entry(preset: str, estimator: str, variant: str = "", inputs: tuple[str, ...] = ("outcome",), config: dict[str, Any] | None = None,
              refuses: frozenset[str] = frozenset(), **more: Any) -> Entry:
        return Entry(preset=f"miles.{preset}", variant=variant, source=SOURCE, run=_run(estimator, **more), inputs=inputs, config=config or {}, needs=even,
                     refuses=refuses, precision="f32")

    whitened = {"whiten": "tokens"}
    values = ("outcome", "values")
    reason = "the wheel on PyPI (0.0.2) is older than the GAE over trainable tokens (#1827)"
    return [
        entry("grpo", "grpo", refuses=single),
        entry("grpo", "grpo", "no_std", std=False, config={"scale": "none"}),
        entry("grpo", "grpo", "whiten", whiten=True, config=whitened, refuses=single),
        Entry(preset="miles.gae", source=MAIN, run=_gae(1.0, 1.0), how="transcribed", reason=reason, inputs=values),
        Entry(preset="miles.gae", variant="gamma_lam", source=MAIN, run=_gae(0.98, 0.9), how="transcribed", reason=reason, inputs=values, config={"gamma": 0.98, "lam": 0.9}),
        entry("ppo", "ppo", inputs=values, gamma=0.98, lam=0.9, config={"gamma": 0.98, "lam": 0.9}),
        entry("ppo", "ppo", "kl_whiten", inputs=(*values, *log_probs), gamma=0.98, lam=0.9, kl_coef=0.05, whiten=True,
              config={"gamma": 0.98, "lam": 0.9, "kl_in_reward": "k1", "kl_coef": 0.05, **whitened}),
        entry("ppo", "ppo", "kl_low_var", inputs=(*values, *log_probs), kl="low_var_kl", kl_coef=0.05, config={"kl_in_reward": "k3", "kl_coef": 0.05, "kl_clamp": 10.0}),
        entry("reinforce_plus_plus", "reinforce_plus_plus", inputs=("outcome", *log_probs), kl_coef=0.05, gamma=0.95, config={"kl_in_reward": "k1", "kl_coef": 0.05, "gamma": 0.95}),
        entry("reinforce_plus_plus_baseline", "reinforce_plus_plus_baseline", inputs=("outcome", *log_probs), kl_coef=0.05, whiten=True,
              config={"kl_in_reward": "k1", "kl_coef": 0.05, **whitened}),
        Entry(preset="miles.grpo", variant="compat_mixed", source=SOURCE, run=_run("grpo", mixed=True), precision="f32", needs=frozenset({"uneven", "gaps"}),
              exceptions={"uneven": "mixed"}, config={"compat": True}),
        Entry(preset="miles.grpo", variant="compat_refused", source=SOURCE, run=_run("grpo"), precision="f32", needs=even | single,
              exceptions={"one": "refused"}, config={"compat": True}),
        entry("opd", "on_policy_distillation", inputs=("logp_policy", "logp_teacher")),
    ]
