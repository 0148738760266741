"""docs/gigpo.md: its example runs and prints what it says, and its settings are the loops of the two frameworks it names."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import passrl

DOCS = (Path(__file__).resolve().parents[3] / "docs" / "gigpo.md").read_text("utf-8")
COMMON = dict(kind="prm", step_sets="step_group", step_value="return_to_go", chunk="step", credit="broadcast", k=0)


def test_the_example_prints_what_it_says() -> None:
    block = DOCS.split("```python\n")[1].split("```")[0]
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(block, "docs/gigpo.md", "exec"), {})
    told = [line.removeprefix("# ") for line in block.splitlines() if line.startswith("# ")]
    assert len(told) == 3 and printed.getvalue().splitlines() == told


class Rows:
    """A row a step, as the frameworks hold them: prompt, attempt, state, reward of the step, outcome of the attempt."""

    def __init__(self, seed: int) -> None:
        draw = np.random.default_rng(seed)
        self.steps = draw.integers(1, 7, size=15)
        self.attempt = np.repeat(np.arange(15), self.steps)
        self.prompt = self.attempt // 5
        self.state = draw.integers(-2, 3, size=len(self.attempt)) * (1 << 40)
        self.reward = (draw.integers(0, 5, size=len(self.attempt)) / 4).astype(np.float32)
        self.outcome = draw.integers(0, 3, size=15).astype(np.float32)

    def returns(self, gamma: float, rewards: NDArray[np.float32]) -> NDArray[np.float64]:
        found = np.zeros(len(self.attempt))
        for row in reversed(range(len(self.attempt))):
            later = row + 1 < len(self.attempt) and self.attempt[row + 1] == self.attempt[row]
            found[row] = rewards[row] + (gamma * found[row + 1] if later else 0.0)
        return found

    def shaped(self, scores: NDArray[np.float32] | None, **fields: Any) -> NDArray[np.float64]:
        """A(t) of the first token of each step; steps have three tokens each."""
        offsets = np.concatenate([[0], np.cumsum(self.steps)])
        ends = np.concatenate([3 * np.arange(1, n + 1) for n in self.steps])
        found = passrl.shape(
            steps=passrl.Steps(offsets, ends, scores, groups=self.state), cu_seqlens=3 * offsets, group_size=5, outcome=self.outcome,
            **(COMMON | fields),
        )
        assert found.status == 0, found.message
        by_step = np.asarray(found.advantages).reshape(-1, 3)
        assert (by_step == by_step[:, :1]).all()
        return by_step[:, 0].astype(np.float64)


def grouped(values: NDArray[Any], by: list[tuple[int, ...]], normal: Callable[[NDArray[Any]], NDArray[Any]]) -> NDArray[np.float64]:
    found = np.zeros(len(values))
    for key in set(by):
        rows = [i for i, k in enumerate(by) if k == key]
        found[rows] = normal(values[rows].astype(np.float64))
    return found


def centred(x: NDArray[Any]) -> NDArray[Any]:
    return x - x.mean()


def scaled(x: NDArray[Any]) -> NDArray[Any]:
    return centred(x) / (x.std(ddof=1) + 1e-6) if len(x) > 1 and x.std() > 1e-6 else np.zeros(len(x))


MODES = [("mean", centred), ("mean_std", scaled)]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("standardize", "normal"), MODES)
@pytest.mark.parametrize("own_rewards", [True, False])
def test_episode_and_step_terms_are_the_frameworks(seed: int, standardize: str, normal: Callable[..., Any], own_rewards: bool) -> None:
    rows = Rows(seed)
    last = np.append(rows.attempt[1:] != rows.attempt[:-1], True)
    rewards = rows.reward if own_rewards else np.where(last, rows.outcome[rows.attempt], 0).astype(np.float32)
    by_state = list(zip(rows.prompt.tolist(), rows.state.tolist(), strict=True))
    step = grouped(rows.returns(0.95, rewards), by_state, normal)
    once = grouped(rows.outcome, [(int(i // 5),) for i in range(15)], normal)[rows.attempt]
    got = rows.shaped(rewards if own_rewards else None, standardize=standardize, step_gamma=0.95, w_process=0.7)
    np.testing.assert_allclose(got, once + 0.7 * step, rtol=0, atol=2e-5)
    assert np.abs(step).max() > 0.1
    # An attempt counted as often as it has steps: two calls, whose advantages add.
    repeated = rows.outcome[rows.attempt]
    across = grouped(repeated, [(int(p),) for p in rows.prompt], normal)
    got = rows.shaped(rewards, standardize=standardize, step_gamma=0.95, w_outcome=0) + rows.shaped(
        repeated, standardize=standardize, step_value="score", step_sets="group", w_outcome=0)
    np.testing.assert_allclose(got, across + step, rtol=0, atol=2e-5)


def test_a_group_is_whole_in_one_micro_batch() -> None:
    rows = Rows(3)
    plan = passrl.Plan(passrl.Config("pass", **COMMON, whiten="rollouts"), rollouts=15, groups=3, tokens=3 * len(rows.attempt))

    def part(first: int, end: int) -> dict[str, Any]:
        at = (rows.attempt >= first) & (rows.attempt < end)
        offsets = np.concatenate([[0], np.cumsum(rows.steps[first:end])])
        ends = np.concatenate([3 * np.arange(1, n + 1) for n in rows.steps[first:end]])
        steps = passrl.Steps(offsets, ends, rows.reward[at], groups=rows.state[at])
        return dict(steps=steps, cu_seqlens=3 * offsets, groups=np.arange(first, end) // 5, outcome=rows.outcome[first:end])

    def in_parts(cuts: list[int]) -> NDArray[np.float32]:
        parts = [part(first, end) for first, end in zip(cuts, cuts[1:], strict=False)]
        partials = passrl.Partials(plan)
        for phase in range(partials.phases):
            for micro in parts:
                partials.add(phase, **micro)
        return np.concatenate([np.asarray(partials.apply(**micro).advantages) for micro in parts])

    whole = np.asarray(plan.run(**part(0, 15)).advantages)
    assert in_parts([0, 5, 15]).tobytes() == whole.tobytes()
    with pytest.raises(passrl.Error, match="group 1 has 2 rollouts in this call, and 5 in 2 call.* all rollouts of a group in one micro-batch"):
        in_parts([0, 7, 15])
