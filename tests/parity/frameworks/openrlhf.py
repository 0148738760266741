"""OpenRLHF 0.11.2 from PyPI: its own `RemoteExperienceMaker.compute_advantages_and_returns`, in float64 (KL and whitening statistics: float32 inside)."""
from __future__ import annotations

import types
from collections.abc import Callable
from typing import Any

import numpy as np

import stubs
from cases import Case
from entry import Entry, F64

stubs.stub("pylatexenc", "transformers", "ray", "peft", "flash_attn", "deepspeed", "vllm", "aiohttp", "tqdm", "torchdata")

import torch  # noqa: E402
from openrlhf.models.utils import compute_approx_kl  # noqa: E402
from openrlhf.trainer.ppo_utils import experience_maker  # noqa: E402
from openrlhf.trainer.ppo_utils.experience import Experience  # noqa: E402

SOURCE = "openrlhf 0.11.2 openrlhf/trainer/ppo_utils/experience_maker.py:RemoteExperienceMaker.compute_advantages_and_returns"


def _run(estimator: str, *, kl: str | None = None, kl_coef: float = 0.0, gamma: float = 1.0, lam: float = 1.0, clip: tuple[float, float] | None = (-10.0, 10.0),
         no_std: bool = False) -> Callable[[Case], F64]:
    def run(case: Case) -> F64:
        maker = experience_maker.RemoteExperienceMaker.__new__(experience_maker.RemoteExperienceMaker)
        space = types.SimpleNamespace
        arguments = space(
            rollout=space(n_samples_per_prompt=case.group_size), reward=space(clip_range=clip, overlong_buffer_len=None, stop_properly_penalty_coef=None),
            algo=space(advantage=space(estimator=estimator, gamma=gamma, lambd=lam, no_std_norm=no_std)))
        maker.strategy, maker.kl_ctl, maker.advantage_estimator = space(args=arguments), space(value=kl_coef), estimator
        log_probs, reference = torch.tensor(case.pad(case.logp_policy)), torch.tensor(case.pad(case.logp_reference))
        divergence = compute_approx_kl(log_probs, reference, kl_estimator=kl).double() if kl else torch.zeros_like(log_probs)
        mask, values = torch.tensor(case.pad(case.mask)), torch.tensor(case.pad(case.values))
        found = []
        # Two experiences, as micro-batches come: whitening goes over both.
        half = max(1, case.rollouts // 2)
        for rows in (range(half), range(half, case.rollouts)):
            if len(rows):
                at = list(rows)
                found.append(Experience(rewards=torch.tensor(case.outcome)[at], action_mask=mask[at], values=values[at], kl=divergence[at], index=at, info={}))
        return case.pack(np.concatenate([one.advantages.double().numpy() for one in maker.compute_advantages_and_returns(found)]))

    return run


def entries() -> list[Entry]:
    groups, several = frozenset({"even"}), frozenset({"single"})
    log_probs = ("logp_policy", "logp_reference")

    def entry(estimator: str, variant: str = "", inputs: tuple[str, ...] = ("outcome",), config: dict[str, Any] | None = None, refuses: frozenset[str] = several,
              **more: Any) -> Entry:
        whitened = estimator in ("gae", "reinforce", "reinforce_baseline")
        return Entry(preset=f"openrlhf.{estimator}", variant=variant, source=SOURCE, run=_run(estimator, **more), inputs=inputs, config=config or {},
                     needs=groups, refuses=refuses, precision="f32" if whitened or "kl" in more else "f64")

    none: frozenset[str] = frozenset()
    # One rollout's KL terms alone are whitened there: their float32 mean leaves 1e-5 of it.
    lone = frozenset({"lone"})
    found = [entry(name) for name in ("rloo", "group_norm", "dr_grpo", "reinforce_baseline")]
    found += [
        entry("reinforce", refuses=none), entry("reinforce", "gamma", gamma=0.9, config={"gamma": 0.9}, refuses=none),
        entry("flash_reinforce", refuses=none),
        entry("group_norm", "clip", clip=(-0.75, 0.75), config={"outcome.clip_standardized": 0.75}),
        entry("gae", inputs=("outcome", "values"), lam=0.95, config={"lam": 0.95}, refuses=none),
        entry("gae", "gamma_lam", inputs=("outcome", "values"), gamma=0.98, lam=0.9, config={"gamma": 0.98, "lam": 0.9}, refuses=none),
        entry("gae", "kl", inputs=("outcome", "values", *log_probs), kl="k1", kl_coef=0.05, gamma=0.98, lam=0.9, refuses=none,
              config={"kl_in_reward": "k1", "kl_coef": 0.05, "gamma": 0.98, "lam": 0.9}),
    ]
    compat: dict[str, Any] = {"exceptions": {"one": "refused"}, "config": {"compat": True}, "needs": groups | several}
    found += [Entry(preset=f"openrlhf.{name}", variant="compat_refused", source=SOURCE, run=_run(name), **compat) for name in ("rloo", "group_norm")]
    for kl in ("k1", "k2", "k3"):
        found.append(entry("group_norm", f"kl_{kl}", inputs=("outcome", *log_probs), kl=kl, kl_coef=0.02, config={"kl_in_reward": kl, "kl_coef": 0.02}))
        found.append(entry("reinforce", f"kl_{kl}", inputs=("outcome", *log_probs), kl=kl, kl_coef=0.02, config={"kl_in_reward": kl, "kl_coef": 0.02}, refuses=lone))
    return found
