"""A plan's description (`repr(plan)`) names the inputs that a configuration reads: what the others say changes no bit."""
from __future__ import annotations

from typing import Any

import numpy as np
import passrl
import pytest

LENGTHS = np.array([3, 5, 4, 6, 2, 5])
TOKENS = int(LENGTHS.sum())
GROUPS = [0, 0, 0, 1, 1, 1]
TOKEN_SHAPED = ["signal", "values", "token_rewards", "logp_policy", "logp_reference", "logp_behavior", "sum_pi_squared", "token_ratio"]
A_ROLLOUT = ["outcome", "format", "baselines", "bootstrap", "rollout_lam"]


def given(seed: int) -> dict[str, Any]:
    random = np.random.default_rng(seed)
    batch: dict[str, Any] = {name: random.random(TOKENS).astype(np.float32) for name in TOKEN_SHAPED}
    batch |= {name: random.random(len(LENGTHS)).astype(np.float32) for name in A_ROLLOUT}
    batch |= {"chunk_ends": random.random(TOKENS) < 0.3, "stats_mean": random.random((2, 16)), "stats_std": random.random((2, 16))}
    return batch


def read_by(plan: passrl.Plan) -> set[str]:
    line = next(line for line in repr(plan).splitlines() if line.startswith("inputs: "))
    assert line.endswith("; no other is read")
    return set(line.removeprefix("inputs: ").removesuffix("; no other is read").split(", "))


@pytest.mark.parametrize("preset", sorted(passrl.presets()))
def test_what_a_plan_does_not_read_changes_no_bit(preset: str) -> None:
    plan = passrl.Plan(preset, rollouts=6, groups=2, tokens=TOKENS, rollout_tokens=8)
    read = read_by(plan)
    one, other = given(1), given(2)
    common: dict[str, Any] = {"lengths": LENGTHS, "groups": GROUPS}
    batches = (one, other)
    if "step_group" in read:
        common["steps"] = passrl.Steps(offsets=np.arange(7), ends=LENGTHS, groups=np.zeros(6, int))
    # A process signal comes in one form; a teacher's log-probabilities and steps' scores are others.
    for name in ("signal", "logp_policy") if "step_group" in read else ("logp_policy",) if "signal" in read else ():
        for batch in batches:
            del batch[name]

    def bits(batch: dict[str, Any]) -> bytes:
        return bytes(plan.run(**common, **batch).advantages.tobytes())

    whole = bits(one)
    assert {"outcome", "mask", "in_stats"} <= read
    beside = one.keys() - read
    assert bits(one | {name: other[name] for name in beside}) == whole
    assert bits({name: one[name] for name in one.keys() & read}) == whole
    # Each that is named alone is read: another content of them all, and the bits are others.
    assert bits(one | {name: other[name] for name in one.keys() & read}) != whole
