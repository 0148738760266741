"""TRL from PyPI: the advantage statements of its trainers, run from its own files in float64.

The trainers compute advantages in the middle of methods that want a model, so the statements are run where they stand (see sources.py);
`nanstd` is TRL's. `experimental.ppo` ended with 1.12.0, `experimental.minillm` with 1.14.2.
"""
from __future__ import annotations

import types
from collections.abc import Callable
from typing import Any

import numpy as np

import sources
import stubs
from cases import WEIGHTS, Case
from entry import Entry, F64

stubs.stub("pandas", "transformers", "accelerate", "datasets", "huggingface_hub", "comet_ml", "peft", "rich")

import torch  # noqa: E402
from trl.trainer.utils import nanstd  # noqa: E402

GRPO, RLOO = "trl 1.16.0 trl/trainer/grpo_trainer.py:_generate_and_score_completions", "trl 1.16.0 trl/trainer/rloo_trainer.py:_generate_and_score_completions"
PPO = "trl 1.12.0 trl/experimental/ppo/ppo_trainer.py:train"
MINILLM = "trl 1.14.2 trl/experimental/minillm/minillm_trainer.py:MiniLLMTrainer._compute_advantage"


def _trainer(case: Case, **fields: Any) -> dict[str, Any]:
    """Names that the statements of the GRPO and RLOO trainers read."""
    functions = torch.tensor(case.functions)
    return {
        "torch": torch, "nanstd": nanstd, "device": "cpu", "mode": "train", "num_generations": case.group_size, "rewards_per_func": functions,
        "self": types.SimpleNamespace(reward_weights=torch.tensor(WEIGHTS, dtype=torch.float64), reward_funcs=[None] * functions.shape[1], **fields),
    }


def _grpo(scale: str, aggregation: str = "sum_then_normalize") -> Callable[[Case], F64]:
    statements = sources.block(sources.text("trl", "trainer/grpo_trainer.py"), "_generate_and_score_completions", "unscorable_mask", "advantages")

    def run(case: Case) -> F64:
        names = _trainer(case, multi_objective_aggregation=aggregation, scale_rewards=scale)
        # The statements go on to slice and log this process's part: one process, nothing to log.
        names |= {"prompts": range(case.rollouts)}
        names["self"].accelerator = types.SimpleNamespace(process_index=0)
        return np.asarray(statements(names)["advantages"])

    return run


def _rloo(normalize: bool = False, beta: float = 0.0, clip: tuple[float, float] | None = None) -> Callable[[Case], F64]:
    statements = sources.block(sources.text("trl", "trainer/rloo_trainer.py"), "_generate_and_score_completions", "unscorable_mask", "advantages")

    def run(case: Case) -> F64:
        names = _trainer(case, normalize_advantages=normalize, reward_clip_range=clip, beta=beta)
        names |= {"prompts": range(case.rollouts), "gather": lambda x: x, "completion_mask": torch.tensor(case.pad(case.mask.astype(float))),
                  "old_per_token_logps": torch.tensor(case.pad(case.logp_policy)), "ref_per_token_logps": torch.tensor(case.pad(case.logp_reference))}
        names["self"].accelerator = types.SimpleNamespace(process_index=0)
        return np.asarray(statements(names)["advantages"])

    return run


def _ppo(**arguments: Any) -> Callable[[Case], F64]:
    source = sources.text("trl", "experimental/ppo/ppo_trainer.py", wheel="trl-1.12.0-*.whl")
    statements = sources.block(source, "train", "logr", "advantages")

    def run(case: Case) -> F64:
        names: dict[str, Any] = {"torch": torch, "empty_cache": lambda: None}
        for helper in ("masked_mean", "masked_var", "masked_whiten"):
            sources.function(source, helper, names)
        tokens = torch.tensor(np.array([int(mask.sum()) for mask in case.rows(case.mask)]))
        columns = torch.arange(case.width).expand(case.rollouts, -1)
        last, after = tokens - 1, tokens
        padding, padding_after = columns > last[:, None], columns > after[:, None]
        logprobs, reference = torch.tensor(case.pad(case.logp_policy)), torch.tensor(case.pad(case.logp_reference))
        values = torch.tensor(case.pad(case.values))
        # As the statements before these leave them: 1.0 is the trainer's INVALID_LOGPROB.
        names |= {
            "logprobs": torch.masked_fill(logprobs, padding, 1.0), "ref_logprobs": torch.masked_fill(reference, padding, 1.0),
            "values": torch.masked_fill(values, padding_after, 0), "scores": torch.tensor(case.outcome), "sequence_lengths": last,
            "sequence_lengths_p1": after, "padding_mask": padding, "padding_mask_p1": padding_after, "responses": values,
            "args": types.SimpleNamespace(**{"kl_coef": 0.05, "kl_estimator": "k1", "gamma": 1.0, "lam": 0.95, "whiten_rewards": False, **arguments}),
        }
        return case.pack(np.asarray(statements(names)["advantages"]))

    return run


def _minillm(gamma: float, normalize: bool) -> Callable[[Case], F64]:
    compute = sources.function(sources.text("trl", "experimental/minillm/minillm_trainer.py", wheel="trl-1.14.2-*.whl"), "_compute_advantage", {"torch": torch})

    def run(case: Case) -> F64:
        # A rollout at a time: every slot of padding weighs 1e-4 in their denominator, so that the number depends on the batch's width.
        trainer = types.SimpleNamespace(gamma=gamma, length_normalization=normalize)
        rows = zip(case.rows(case.logp_policy), case.rows(case.logp_teacher), case.rows(case.mask.astype(float)))
        return np.concatenate([np.asarray(compute(trainer, *(torch.tensor(x)[None] for x in row))[0], dtype=np.float64) for row in rows])

    return run


def entries() -> list[Entry]:
    groups, functions = frozenset({"even"}), ("functions",)
    kl = ("functions", "no_outcome", "logp_policy", "logp_reference")
    found = []
    # Twice: batches where every function applies, and those where some do not.
    for variant, needs in (("", groups), ("absent", groups | {"absent"})):
        def add(preset: str, source: str, run: Callable[[Case], F64], **more: Any) -> None:
            found.append(Entry(preset=f"trl.{preset}", source=source, run=run, inputs=functions, needs=needs, variant=variant, **more))

        add("grpo", GRPO, _grpo("group"))
        add("grpo_batch", GRPO, _grpo("batch"))
        add("dr_grpo", GRPO, _grpo("none"))
        add("gdpo", GRPO, _grpo("group", "normalize_then_sum"))
        add("rloo", RLOO, _rloo())
        add("rloo_normalized", RLOO, _rloo(normalize=True), exceptions={"absent": "set"} if variant else {})
    found += [
        Entry(preset="trl.rloo", variant="kl", source=RLOO, run=_rloo(beta=0.04), inputs=kl, needs=groups, config={"kl_in_reward": "k1", "kl_coef": 0.04}),
        Entry(preset="trl.rloo", variant="clip_kl", source=RLOO, run=_rloo(beta=0.04, clip=(-0.75, 0.75)), inputs=kl, needs=groups,
              config={"kl_in_reward": "k1", "kl_coef": 0.04, "outcome.clip_value": 0.75}),
        Entry(preset="trl.minillm", source=MINILLM, run=_minillm(1.0, True), inputs=("logp_policy", "logp_teacher"), refuses=frozenset({"gaps", "empty"})),
        Entry(preset="trl.minillm", variant="gamma_normalized", source=MINILLM, run=_minillm(0.97, True), inputs=("logp_policy", "logp_teacher"), precision="f32",
              refuses=frozenset({"gaps", "empty"}), config={"gamma": 0.97}),
    ]
    # Theirs sets both log-probabilities of the slot after the last token to one constant.
    tail, ppo = frozenset({"tail"}), ("outcome", "values", "logp_policy", "logp_reference_in_scope")
    for variant, arguments in (("", {}), ("k3", {"kl_estimator": "k3"}), ("gamma", {"gamma": 0.97, "lam": 0.9})):
        names = {"kl_estimator": "kl_in_reward", "gamma": "gamma", "lam": "lam"}
        config = {"kl_coef": 0.05, **{names[key]: value for key, value in arguments.items()}}
        found.append(Entry(preset="trl.ppo", variant=variant, source=PPO, run=_ppo(**arguments), inputs=ppo, needs=tail, config=config))
    return found
