"""verl 0.9.1 from PyPI: its own `compute_advantage` and `apply_kl_penalty` on its own `DataProto`, in float64 (vectorised GRPO and GDPO: float32 inside)."""
from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

import stubs
from cases import WEIGHTS, Case
from entry import Entry, F64

stubs.stub("ray", "transformers", "torchdata", "tqdm", "codetiming", "datasets", "PIL", "pandas", "peft", "accelerate", "cachetools", "uvicorn", "fastapi")
warnings.filterwarnings("ignore")

import torch  # noqa: E402
from omegaconf import OmegaConf  # noqa: E402
from verl import DataProto  # noqa: E402
from verl.trainer.ppo import core_algos, ray_trainer  # noqa: E402

SOURCE = "verl 0.9.1 verl/trainer/ppo/core_algos.py:"


def _data(case: Case, scores: F64, *, wide: torch.dtype) -> Any:
    def token(name: str) -> torch.Tensor:
        return torch.tensor(case.pad(getattr(case, name)), dtype=wide)

    # In the response, attention is on the whole extent; what is masked inside it is tool output.
    attention = case.pad(np.ones(len(case.mask)))
    data = DataProto.from_dict(
        tensors={
            "token_level_scores": torch.tensor(case.pad(scores), dtype=wide),
            "token_level_rewards": torch.tensor(case.pad(scores), dtype=wide),
            "response_mask": torch.tensor(case.pad(case.mask.astype(np.float64)), dtype=wide),
            "attention_mask": torch.tensor(np.concatenate([np.ones((case.rollouts, 1)), attention], axis=1), dtype=torch.int64),
            "prompts": torch.zeros((case.rollouts, 1), dtype=torch.int64),
            "old_log_probs": token("logp_policy"), "ref_log_prob": token("logp_reference"), "values": token("values"),
            "sum_pi_squared": token("sum_pi_squared"),
        },
        non_tensors={"uid": case.groups.astype(object), "f0": case.functions[:, 0], "f1": case.functions[:, 1], "f2": case.functions[:, 2]},
    )
    return data


def _run(name: str, *, rewards: str, kl: str | None = None, kl_coef: float = 0.0, std: bool = True, ratio: bool = False,
         wide: torch.dtype = torch.float64, clean: bool = False, **config: Any) -> Callable[[Case], F64]:
    def run(case: Case) -> F64:
        if clean:
            # What theirs gives where there is no NaN to leak: ours reads none of it.
            case = replace(case, **{name: np.nan_to_num(getattr(case, name)) for name in ("values", "logp_policy", "logp_reference")})
        scores = case.token_rewards if rewards == "token_rewards" else case.terminal(case.outcome)
        data = _data(case, scores, wide=wide)
        if name == "remax":
            data.batch["reward_baselines"] = torch.tensor(case.baselines, dtype=wide)
        if ratio:
            data.batch["rollout_is_weights"] = torch.tensor(np.exp(case.pad(case.logp_policy) - case.pad(case.logp_behavior)), dtype=wide)
        if kl:
            data, _ = ray_trainer.apply_kl_penalty(data, core_algos.FixedKLController(kl_coef), kl_penalty=kl)
        settings = {"gamma": 1.0, "lam": 1.0, "norm_adv_by_std_in_grpo": std, **config}
        data = ray_trainer.compute_advantage(data, adv_estimator=name, gamma=settings["gamma"], lam=settings["lam"], num_repeat=1,
                                             norm_adv_by_std_in_grpo=std, config=OmegaConf.create(settings))
        return case.pack(data.batch["advantages"].double().numpy())

    return run


def _entry(name: str, function: str, *, rewards: str = "outcome", variant: str = "", **more: Any) -> Entry:
    keys = ("clean", "kl", "kl_coef", "std", "gamma", "lam", "ratio", "wide", "gdpo_reward_keys", "gdpo_reward_weights", "estimator")
    arguments = {key: more.pop(key) for key in keys if key in more}
    run = _run(arguments.pop("estimator", name), rewards=rewards, **arguments)
    inputs = more.pop("inputs", (rewards,)) + (("logp_policy", "logp_reference") if "kl" in arguments else ())
    return Entry(preset=f"verl.{name}", variant=variant, source=SOURCE + function, run=run, inputs=inputs, **more)


def entries() -> list[Entry]:
    # One rollout: every advantage is the same, and the 1e-8 beside N in their mean is all that is left of it.
    lone = frozenset({"lone"})
    # Only k3 is clamped: the log-ratio at 20, the estimate at 10.
    free = {"kl_log_ratio_clamp": float("inf"), "kl_clamp": float("inf")}
    clamped = {"kl_log_ratio_clamp": 20.0, "kl_clamp": 10.0}
    kls = [("k1", "k1", free), ("abs", "abs", free), ("k2", "mse", free), ("k3", "low_var_kl", clamped)]
    found = [
        _entry("grpo", "compute_grpo_outcome_advantage"),
        _entry("grpo_vectorized", "compute_grpo_vectorized_outcome_advantage", precision="f32"),
        _entry("dr_grpo", "compute_grpo_outcome_advantage", estimator="grpo", std=False),
        _entry("grpo_passk", "compute_grpo_passk_outcome_advantage", refuses=frozenset({"single"})),
        _entry("grpo_passk", "compute_grpo_passk_outcome_advantage", variant="no_std", std=False, refuses=frozenset({"single"}), config={"scale": "none"}),
        _entry("gdpo", "compute_gdpo_outcome_advantage", precision="f32", inputs=("functions",), wide=torch.float32,
               gdpo_reward_keys=["f0", "f1", "f2"], gdpo_reward_weights=list(WEIGHTS)),
        _entry("rloo", "compute_rloo_outcome_advantage"),
        _entry("rloo_vectorized", "compute_rloo_vectorized_outcome_advantage"),
        _entry("opo", "compute_opo_outcome_advantage", refuses=frozenset({"empty"})),
        _entry("reinforce_plus_plus", "compute_reinforce_plus_plus_outcome_advantage", rewards="token_rewards", refuses=lone),
        _entry("reinforce_plus_plus", "compute_reinforce_plus_plus_outcome_advantage", rewards="token_rewards", variant="gamma", gamma=0.9, config={"gamma": 0.9}),
        _entry("reinforce_plus_plus", "compute_reinforce_plus_plus_outcome_advantage", rewards="outcome", variant="outcome", refuses=lone),
        _entry("reinforce_plus_plus_baseline", "compute_reinforce_plus_plus_baseline_outcome_advantage", refuses=lone),
        _entry("remax", "compute_remax_outcome_advantage", rewards="token_rewards", inputs=("token_rewards", "no_outcome", "baselines")),
        _entry("remax", "compute_remax_outcome_advantage", inputs=("outcome", "baselines"), variant="outcome"),
        _entry("gpg", "compute_gpg_outcome_advantage"),
        _entry("gae", "compute_gae_advantage_return", rewards="token_rewards", inputs=("token_rewards", "values")),
        _entry("gae", "compute_gae_advantage_return", rewards="token_rewards", inputs=("token_rewards", "values"), variant="gamma_lam", gamma=0.99, lam=0.9,
               config={"gamma": 0.99, "lam": 0.9}),
        _entry("gae", "compute_gae_advantage_return", inputs=("outcome", "values"), variant="outcome", gamma=0.99, lam=0.9, config={"gamma": 0.99, "lam": 0.9}),
        _entry("optimal_token_baseline", "compute_optimal_token_baseline_advantage", rewards="token_rewards",
               inputs=("token_rewards", "logp_policy", "sum_pi_squared")),
        _entry("optimal_token_baseline", "compute_optimal_token_baseline_advantage", variant="ratio", ratio=True, rewards="token_rewards",
               inputs=("token_rewards", "logp_policy", "sum_pi_squared", "token_ratio")),
        _entry("tir_optimal_token_baseline", "compute_multi_turn_optimal_token_baseline_advantage", rewards="token_rewards",
               inputs=("token_rewards", "logp_policy", "sum_pi_squared")),
        _entry("tir_optimal_token_baseline", "compute_multi_turn_optimal_token_baseline_advantage", variant="outcome",
               inputs=("outcome", "logp_policy", "sum_pi_squared")),
    ]
    for kl, theirs, clamps in kls:
        config = {"kl_in_reward": kl, "kl_coef": 0.05, **clamps}
        found.append(_entry("grpo", "compute_grpo_outcome_advantage", variant=f"kl_{kl}", kl=theirs, kl_coef=0.05, config=config))
        found.append(_entry("gae", "compute_gae_advantage_return", rewards="token_rewards", inputs=("token_rewards", "values"), variant=f"kl_{kl}",
                            kl=theirs, kl_coef=0.05, gamma=0.99, lam=0.9, config={"gamma": 0.99, "lam": 0.9, **config}))
    found.append(_entry("reinforce_plus_plus", "compute_reinforce_plus_plus_outcome_advantage", variant="kl_k1", kl="k1", kl_coef=0.05,
                        config={"kl_in_reward": "k1", "kl_coef": 0.05, **free}))
    single = frozenset({"even", "single"})
    found += [
        # Equal rewards, float32: the mean is off by a rounding, and what is left of r - mean is divided by what is left of the deviation.
        _entry("grpo", "compute_grpo_outcome_advantage", variant="compat_zero_variance", wide=torch.float32, precision="f32", needs=frozenset({"residue"}),
               exceptions={"residue": "zero variance"}, config={"compat": True}, bound=1e-3, bound_why="one rounding of a float32 sum decides the number"),
        _entry("gae", "compute_gae_advantage_return", inputs=("outcome", "values"), variant="compat_nan", needs=frozenset({"nan"}),
               exceptions={"nan": "nan"}, config={"compat": True}),
        _entry("grpo", "compute_grpo_outcome_advantage", variant="compat_nan", kl="k1", kl_coef=0.05, needs=frozenset({"nan"}), exceptions={"nan": "nan"},
               config={"kl_in_reward": "k1", "kl_coef": 0.05, "compat": True, **free}),
        _entry("gae", "compute_gae_advantage_return", inputs=("outcome", "values"), variant="nan_out_of_scope", clean=True, needs=frozenset({"nan"})),
        _entry("grpo", "compute_grpo_outcome_advantage", variant="nan_out_of_scope", clean=True, kl="k1", kl_coef=0.05, needs=frozenset({"nan"}),
               config={"kl_in_reward": "k1", "kl_coef": 0.05, **free}),
        _entry("grpo_passk", "compute_grpo_passk_outcome_advantage", variant="compat_refused", needs=single, exceptions={"one": "refused"}, config={"compat": True}),
    ]
    found.append(Entry(
        preset="verl.prime", source="volcengine/verl@15510e8 recipe/prime/prime_core_algos.py:compute_rloo_advantage_return", run=_prime, how="transcribed",
        reason="the recipe is in no wheel on PyPI", inputs=("signal", "outcome"), needs=frozenset({"even"}), refuses=frozenset({"single"}),
        config={"w_process": 5.0, "w_outcome": 0.5}))
    return found


def _prime(case: Case) -> F64:
    """A_t = whiten(Σ_{i>=t} Σ_s c_s (x_i n/(n-1) - Σ_j mean(x_j)/(n-1))): implicit process rewards (every token in scope), accuracy (last token)."""
    n = case.group_size
    x = np.where(case.mask, case.token_rewards, 0.0)
    total = np.zeros(len(x))
    means = np.array([row[m].mean() for row, m in zip(case.rows(x), case.rows(case.mask))])
    for rows in case.members():
        base, accuracy = means[rows].sum() / (n - 1), case.outcome[rows].sum() / (n - 1)
        for i in rows:
            a, b = case.cu[i], case.cu[i + 1]
            m = case.mask[a:b]
            total[a:b] += 5.0 * np.where(m, x[a:b] * n / (n - 1) - base, 0.0)
            total[a + np.flatnonzero(m)[-1]] += 0.5 * (case.outcome[i] * n / (n - 1) - accuracy)
    togo = np.concatenate([np.cumsum((row * m)[::-1])[::-1] for row, m in zip(case.rows(total), case.rows(case.mask))])
    live = togo[case.mask]
    count = len(live)
    mean = live.sum() / (count + 1e-8)
    variance = ((live - mean) ** 2).sum() / (count + 1e-8) * count / (count - 1)
    return (togo - mean) / np.sqrt(variance + 1e-8)
