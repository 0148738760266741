"""The batches that every framework and passrl are given. NumPy alone; the same bytes on every machine and NumPy version.

Every number is representable in float32 (in bf16 in the case `bf16`), so that a framework that works in float32 and one that works in
float64 are given the same input. `numpy.random.RandomState` is used because its streams are frozen.
"""
from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]

WEIGHTS = (1.0, 0.5, 0.25)  # of the reward functions, exact in every type


@dataclass(frozen=True)
class Case:
    """A batch of R rollouts in packed form, N token slots in all.

    lengths [R]: slots of each rollout. groups [R]: group of each rollout. mask [N]: 1 in scope (0: tool output, and the slots after the
    last token). outcome [R]. functions [R, F]: a reward function a column, NaN = does not apply. baselines [R]. bootstrap [R]: value
    after the last slot. token_rewards, values, logp_* (old policy, reference, teacher, behaviour), sum_pi_squared: [N].
    step_offsets [R+1], step_ends [S] (exclusive, in slots of the rollout), step_scores [S], step_keys [S] (state of GiGPO).
    kinds: what the batch has in it (see KINDS).
    """

    name: str
    kinds: frozenset[str]
    lengths: I64
    groups: I64
    mask: NDArray[np.bool_]
    outcome: F64
    functions: F64
    baselines: F64
    bootstrap: F64
    token_rewards: F64
    values: F64
    logp_policy: F64
    logp_reference: F64
    logp_teacher: F64
    logp_behavior: F64
    sum_pi_squared: F64
    step_offsets: I64
    step_ends: I64
    step_scores: F64
    step_keys: I64

    @property
    def rollouts(self) -> int:
        return len(self.lengths)

    @property
    def width(self) -> int:
        return int(self.lengths.max())

    @property
    def cu(self) -> I64:
        return np.concatenate([[0], np.cumsum(self.lengths)]).astype(np.int64)

    @property
    def group_size(self) -> int:
        """Rollouts of each group, where all are equal and contiguous (kind `even`)."""
        return int(np.bincount(self.groups)[0])

    def rows(self, packed: NDArray[Any]) -> list[NDArray[Any]]:
        """`[N]` as R arrays."""
        return [packed[a:b] for a, b in zip(self.cu[:-1], self.cu[1:])]

    def pad(self, packed: NDArray[Any], fill: float = 0.0) -> NDArray[Any]:
        """`[N]` as `[R, T]`, right-padded."""
        out = np.full((self.rollouts, self.width), fill, dtype=packed.dtype)
        for row, values in zip(out, self.rows(packed)):
            row[: len(values)] = values
        return out

    def pack(self, padded: NDArray[Any]) -> NDArray[Any]:
        """`[R, T]` as `[N]`."""
        return np.concatenate([row[:n] for row, n in zip(padded, self.lengths)])

    def terminal(self, reward: F64, *, scope: bool = True) -> F64:
        """`[R]` put on the last slot in scope (else the last slot) of each rollout: `[N]`, 0 elsewhere."""
        out = np.zeros(len(self.mask))
        for i, (start, mask) in enumerate(zip(self.cu[:-1], self.rows(self.mask))):
            if not scope and len(mask):
                out[start + len(mask) - 1] = reward[i]
            elif scope and mask.any():
                out[start + np.flatnonzero(mask)[-1]] = reward[i]
        return out

    def live_steps(self, i: int) -> list[tuple[int, slice]]:
        """Steps of rollout i with a token in scope: number, slots. A step without one is in no set."""
        found, begin = [], int(self.cu[i])
        for step in range(int(self.step_offsets[i]), int(self.step_offsets[i + 1])):
            end = int(self.cu[i] + self.step_ends[step])
            if self.mask[begin:end].any():
                found.append((step, slice(begin, end)))
            begin = end
        return found

    def members(self) -> list[I64]:
        """Rollouts of each group, in order of the group's number."""
        return [np.flatnonzero(self.groups == g) for g in np.unique(self.groups)]

    def digest(self) -> str:
        """Of every input: a golden file made from other inputs is refused."""
        found = hashlib.sha256()
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, np.ndarray):
                found.update(field.name.encode() + str(value.dtype).encode() + np.ascontiguousarray(value).tobytes())
        return found.hexdigest()[:16]


KINDS = {
    "even": "groups of one size, contiguous",
    "uneven": "groups of several sizes, interleaved",
    "single": "a group of one rollout",
    "lone": "a batch of one rollout",
    "gaps": "tool output (mask 0) between tokens",
    "empty": "a rollout without a token in scope",
    "constant": "a group whose outcomes are equal",
    "absent": "reward functions that do not apply (NaN)",
    "tail": "every rollout but the longest ends in one slot out of scope (the state after the last token)",
    "far": "a few log-ratios beyond the clamps of the KL estimators (10 and 20)",
    "nan": "NaN in values and log-probabilities out of scope",
    "residue": "groups of equal outcomes whose mean is not exact in float32",
    "bf16": "every number is representable in bf16",
}


def _round(x: NDArray[Any], bf16: bool) -> F64:
    """To float32, or to bf16 (round to nearest even)."""
    single = np.asarray(x, dtype=np.float32)
    if bf16:
        bits = single.view(np.uint32).astype(np.uint64)
        bits = (bits + 0x7FFF + ((bits >> np.uint64(16)) & np.uint64(1))) & np.uint64(0xFFFF0000)
        single = bits.astype(np.uint32).view(np.float32).reshape(single.shape)
    return single.astype(np.float64)


def _make(name: str, seed: int, sizes: list[int], longest: int, kinds: set[str], shortest: int = 2,
          lengths: list[int] | None = None, edit: Callable[[dict[str, Any]], None] | None = None) -> Case:
    rng = np.random.RandomState(seed)
    count = sum(sizes)
    groups = np.repeat(np.arange(len(sizes)), sizes)
    if "uneven" in kinds:
        groups = groups[rng.permutation(count)]
        # Numbers in order of appearance, as a dense index has them.
        order = {g: k for k, g in enumerate(dict.fromkeys(groups.tolist()))}
        groups = np.array([order[g] for g in groups.tolist()])
    extent = np.array(lengths) if lengths else rng.randint(shortest, longest + 1, count)
    if not lengths:
        extent[rng.randint(count)] = longest
    n = int(extent.sum())
    mask = np.ones(n, bool)
    starts = np.concatenate([[0], np.cumsum(extent)])[:-1]
    if "gaps" in kinds:
        for i, (start, length) in enumerate(zip(starts, extent)):
            if length < 6:
                continue
            for _ in range(1 + i % 3):
                at, run = rng.randint(0, length), rng.randint(1, max(2, length // 5))
                mask[start + at : start + min(at + run, length)] = False
            if not mask[start : start + length].any():
                mask[start] = True
    if "tail" in kinds:
        for start, length in zip(starts, extent):
            if length < extent.max():
                mask[start + length - 1] = False
    steps_of = [max(1, min(4, int(length) // 3)) for length in extent]
    ends = [np.sort(np.concatenate([rng.permutation(np.arange(1, length))[: k - 1], [length]])) for k, length in zip(steps_of, extent)]
    old = -rng.exponential(0.9, n) - 0.01
    made: dict[str, Any] = {
        "lengths": extent.astype(np.int64), "groups": groups.astype(np.int64), "mask": mask,
        "outcome": rng.randint(0, 5, count) / 4 + rng.uniform(-0.25, 0.25, count) * (rng.randint(0, 3, count) > 0),
        "functions": np.stack([rng.randint(0, 2, count).astype(float), rng.uniform(-1, 1, count), rng.randint(0, 4, count) / 2], axis=1),
        "baselines": rng.uniform(0, 1, count), "bootstrap": rng.uniform(-1, 1, count),
        "token_rewards": rng.uniform(-1, 1, n) * (rng.uniform(size=n) < 0.3), "values": rng.uniform(-1, 1, n),
        "logp_policy": old, "logp_reference": old + rng.normal(0, 0.3, n), "logp_teacher": old + rng.normal(0.1, 0.5, n),
        "logp_behavior": old + rng.normal(0, 0.4, n), "sum_pi_squared": rng.uniform(0.05, 0.95, n),
        "step_offsets": np.concatenate([[0], np.cumsum(steps_of)]).astype(np.int64), "step_ends": np.concatenate(ends).astype(np.int64),
        "step_scores": rng.randint(-4, 5, sum(steps_of)) / 4 + rng.uniform(-0.1, 0.1, sum(steps_of)),
        "step_keys": rng.randint(0, 3, sum(steps_of)).astype(np.int64),
    }
    far = rng.permutation(n)[: n // 60 if "far" in kinds else 0]
    made["logp_reference"][far] += np.where(np.arange(len(far)) % 2, 14.0, -25.0)
    if edit:
        edit(made)
    for key, value in made.items():
        if value.dtype == np.float64:
            made[key] = _round(value, "bf16" in kinds)
    return Case(name=name, kinds=frozenset(kinds), **made)


def _constant(made: dict[str, Any]) -> None:
    made["outcome"][:4] = 0.2
    made["outcome"][4:8] = 1.0
    made["functions"][4:8] = [1.0, 0.1, 0.5]
    made["step_scores"][: made["step_offsets"][4]] = 0.3


def _absent(made: dict[str, Any]) -> None:
    functions = made["functions"]
    functions[0:4, 1] = np.nan  # not one of its group
    functions[4:7, 2] = np.nan  # but one of its group
    functions[9, :] = np.nan  # a rollout to which nothing applies
    functions[12:15, :] = np.nan  # one rollout is left of its group
    functions[16, 0] = functions[18, 1] = np.nan


def _nan(made: dict[str, Any]) -> None:
    for name in ("values", "logp_policy", "logp_reference"):
        made[name][~made["mask"]] = np.nan


def _residue(made: dict[str, Any]) -> None:
    made["outcome"][:7], made["outcome"][7:14] = 0.7, 0.1


def _empty(made: dict[str, Any]) -> None:
    made["mask"][made["lengths"][:1].sum() : made["lengths"][:2].sum()] = False


def cases() -> dict[str, Case]:
    """All cases, by name."""
    made = [
        _make("even", 1, [8, 8, 8, 8], 24, {"even"}),
        _make("gaps", 2, [4, 4, 4, 4], 40, {"even", "gaps", "far"}),
        _make("uneven", 3, [1, 2, 3, 5, 8, 1], 24, {"uneven", "single", "gaps", "far"}),
        _make("constant", 4, [4, 4, 4], 16, {"even", "constant"}, edit=_constant),
        _make("bf16", 5, [4, 4], 32, {"even", "gaps", "bf16"}),
        _make("long", 6, [2, 2], 512, {"even", "gaps", "far"}, lengths=[512, 200, 129, 33]),
        _make("tiny", 7, [3, 2], 4, {"uneven", "empty"}, lengths=[2, 3, 1, 4, 1], edit=_empty),
        _make("one", 8, [1], 3, {"even", "single", "lone"}, lengths=[3]),
        _make("absent", 9, [4, 4, 4, 4, 4], 8, {"even", "absent"}, edit=_absent),
        _make("tail", 10, [4, 4], 24, {"even", "tail"}),
        _make("nan", 11, [4], 16, {"even", "gaps", "nan"}, shortest=8, edit=_nan),
        _make("residue", 12, [7, 7, 7], 3, {"even", "residue"}, shortest=1, edit=_residue),
    ]
    return {case.name: case for case in made}
