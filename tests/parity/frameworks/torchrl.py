"""torchrl 0.14.1 from PyPI: its own `MCAdvantage` and value functionals, in float64."""
from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from cases import Case
from entry import Entry, F64

warnings.filterwarnings("ignore")

from tensordict import TensorDict  # noqa: E402
from torchrl.objectives.llm import MCAdvantage  # noqa: E402
from torchrl.objectives.value import functional  # noqa: E402

FUNCTIONAL, MC = "torchrl 0.14.1 torchrl/objectives/value/functional.py:", "torchrl 0.14.1 torchrl/objectives/llm/grpo.py:MCAdvantage"


def _live(case: Case) -> list[Any]:
    """Slots in scope of each rollout that has any: torchrl knows no mask inside a trajectory."""
    return [start + np.flatnonzero(mask) for start, mask in zip(case.cu[:-1], case.rows(case.mask))]


def _sequences(call: Callable[[Case, Any, torch.Tensor], torch.Tensor]) -> Callable[[Case], F64]:
    def run(case: Case) -> F64:
        out = np.zeros(len(case.mask))
        for i, at in enumerate(_live(case)):
            if len(at):
                done = torch.zeros((len(at), 1), dtype=torch.bool)
                done[-1] = True
                out[at] = call(case, (i, at), done).squeeze(-1).numpy()
        return out

    return run


def _column(values: F64) -> torch.Tensor:
    return torch.tensor(values).unsqueeze(-1)


def _gae(gamma: float, lam: float, vectorised: bool = False, bootstrap: bool = False) -> Callable[[Case], F64]:
    def call(case: Case, where: Any, done: torch.Tensor) -> torch.Tensor:
        i, at = where
        values = case.values[at]
        following = np.append(values[1:], case.bootstrap[i] if bootstrap else 0.0)
        function = functional.vec_generalized_advantage_estimate if vectorised else functional.generalized_advantage_estimate
        terminated = torch.zeros_like(done) if bootstrap else done
        return function(gamma, lam, _column(values), _column(following), _column(case.token_rewards[at]), done=done, terminated=terminated)[0]

    return _sequences(call)


def _vtrace(gamma: float, rho: float, c: float, bootstrap: bool) -> Callable[[Case], F64]:
    def call(case: Case, where: Any, done: torch.Tensor) -> torch.Tensor:
        i, at = where
        values = case.values[at]
        following = np.append(values[1:], case.bootstrap[i] if bootstrap else 0.0)
        terminated = torch.zeros_like(done) if bootstrap else done
        return functional.vtrace_advantage_estimate(
            gamma, _column(case.logp_policy[at]), _column(case.logp_behavior[at]), _column(values), _column(following), _column(case.token_rewards[at]), done,
            terminated, rho_thresh=torch.tensor(rho, dtype=torch.float64), c_thresh=torch.tensor(c, dtype=torch.float64))[0]

    return _sequences(call)


def _reward_to_go(gamma: float) -> Callable[[Case], F64]:
    return _sequences(lambda case, where, done: functional.reward2go(_column(case.token_rewards[where[1]]), done, gamma))


def _mc(reduce: str | None) -> Callable[[Case], F64]:
    """One call a group: a trajectory is the rollout's tokens in scope with a reward each (None), or its outcome (reduce)."""

    def run(case: Case) -> F64:
        out = np.zeros(len(case.mask))
        for group, rows in enumerate(case.members()):
            transform, found = MCAdvantage(grpo_size=len(rows), prompt_key="group", trajectory_return=reduce), None
            spans = {int(i): [(t, slice(t, t + 1)) for t in case.cu[i] + np.flatnonzero(case.rows(case.mask)[i])] if reduce is None
                     else [(i, slice(case.cu[i], case.cu[i + 1]))] for i in rows}
            for i, steps in spans.items():
                source = case.token_rewards if reduce is None else case.outcome
                scores = np.array([source[step] for step, _ in steps])
                done = torch.zeros((len(scores), 1), dtype=torch.bool)
                done[-1] = True
                found = transform.inv(TensorDict(
                    {"group": torch.full((len(scores),), group), "row": torch.full((len(scores),), i),
                     "next": TensorDict({"reward": _column(scores), "done": done}, batch_size=[len(scores)])}, batch_size=[len(scores)]))
            assert found is not None
            advantage, of = found["advantage"].reshape(-1).numpy(), found["row"].reshape(-1).numpy()
            for i, steps in spans.items():
                for (_, slots), one in zip(steps, advantage[of == i]):
                    out[slots] = one
        return out

    return run


def entries() -> list[Entry]:
    tokens = ("token_rewards", "values")
    trace = (*tokens, "logp_policy", "logp_behavior")
    truncated = "powers of γ below 1e-7 are cut off"
    return [
        Entry(preset="torchrl.mc_advantage", source=MC, run=_mc(None), inputs=("signal",), refuses=frozenset({"empty"})),
        Entry(preset="torchrl.mc_advantage_trajectory", source=MC, run=_mc("sum"), refuses=frozenset({"single"})),
        Entry(preset="torchrl.gae", source=FUNCTIONAL + "generalized_advantage_estimate", run=_gae(0.99, 0.95), inputs=tokens, config={"gamma": 0.99}),
        Entry(preset="torchrl.gae", variant="bootstrap", source=FUNCTIONAL + "generalized_advantage_estimate", run=_gae(0.97, 0.9, bootstrap=True),
              inputs=(*tokens, "bootstrap"), config={"gamma": 0.97, "lam": 0.9}),
        Entry(preset="torchrl.gae", variant="vectorised", source=FUNCTIONAL + "vec_generalized_advantage_estimate", run=_gae(0.97, 0.9, vectorised=True), inputs=tokens,
              config={"gamma": 0.97, "lam": 0.9}, bound_why=truncated),
        Entry(preset="torchrl.vtrace", source=FUNCTIONAL + "vtrace_advantage_estimate", run=_vtrace(0.99, 1.0, 1.0, False), inputs=trace, config={"gamma": 0.99}),
        Entry(preset="torchrl.vtrace", variant="bootstrap", source=FUNCTIONAL + "vtrace_advantage_estimate", run=_vtrace(0.97, 1.5, 0.8, True),
              inputs=(*trace, "bootstrap"), config={"gamma": 0.97, "rho_clip": 1.5, "c_clip": 0.8}),
        Entry(preset="torchrl.reward_to_go", source=FUNCTIONAL + "reward2go", run=_reward_to_go(1.0), inputs=("token_rewards",), bound_why=truncated),
        Entry(preset="torchrl.reward_to_go", variant="gamma", source=FUNCTIONAL + "reward2go", run=_reward_to_go(0.9), inputs=("token_rewards",),
              config={"gamma": 0.9}, bound_why=truncated),
    ]
