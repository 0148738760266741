"""A batch of rollouts as frameworks hold it, and what passrl says of the same rollouts packed in NumPy: what every plug-in is held to."""
from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import passrl

# Import stubs, shared with the parity checks.
sys.path.append(str(Path(__file__).resolve().parents[1] / "parity"))


@dataclass
class Rollouts:
    """R responses in order of arrival, groups mixed; holes in `masks` are tool output."""

    groups: list[str]
    masks: list[Any]
    ends: list[Any]
    scores: list[Any]
    outcome: Any
    format: Any

    @property
    def lengths(self) -> Any:
        return np.array([len(mask) for mask in self.masks])

    @property
    def width(self) -> int:
        return int(self.lengths.max()) + 3

    def records(self, **more: Any) -> list[dict[str, Any]]:
        return [{"step_end": e.tolist(), "step_score": s.tolist(), "format": float(f)} | {key: value[i] for key, value in more.items()}
                for i, (e, s, f) in enumerate(zip(self.ends, self.scores, self.format))]

    def pad(self, rows: list[Any], dtype: Any = np.float32) -> Any:
        out = np.zeros((len(rows), self.width), dtype=dtype)
        for row, values in zip(out, rows):
            row[: len(values)] = values
        return out

    def terminal(self) -> Any:
        """The outcome on each response's last token, as frameworks place it, `[R, T]`."""
        out = np.zeros((len(self.masks), self.width), dtype=np.float32)
        out[np.arange(len(out)), self.lengths - 1] = self.outcome
        return out

    def expected(self, preset: str = "pass", rows: Any = None, **fields: Any) -> list[Any]:
        """Advantages of each response, from one packed call."""
        at = list(range(len(self.masks))) if rows is None else list(rows)
        counts = [len(self.ends[i]) for i in at]
        arguments: dict[str, Any] = dict(outcome=self.outcome[at], mask=np.concatenate([self.masks[i] for i in at]))
        if preset in ("pass", "grpo_pooled"):
            arguments |= {"format": self.format[at], "format_ok": self.format[at] != 0}
        if passrl.Config(preset).kind == "prm":
            arguments["steps"] = passrl.Steps(np.concatenate([[0], np.cumsum(counts)]), np.concatenate([self.ends[i] for i in at]),
                                              np.concatenate([self.scores[i] for i in at]))
        shaped = passrl.shape(preset, lengths=self.lengths[at], groups=[self.groups[i] for i in at], **arguments | fields)
        return np.split(shaped.advantages, np.cumsum(self.lengths[at])[:-1])

    def compare(self, padded: Any, expected: list[Any]) -> None:
        """Padded advantages are the expected ones, to the bit, and 0 elsewhere; some are not 0."""
        padded = np.asarray(padded)
        assert any(row.any() for row in expected)
        for i, row in enumerate(expected):
            np.testing.assert_array_equal(padded[i, : len(row)], row, err_msg=f"rollout {i}")
            assert not padded[i, len(row) :].any()


def make(sizes: tuple[int, ...] = (4, 3, 4, 1), seed: int = 0, mixed: bool = True, holes: bool = True) -> Rollouts:
    random = np.random.default_rng(seed)
    groups = [f"q{g}" for g, n in enumerate(sizes) for _ in range(n)]
    if mixed:
        random.shuffle(groups)
    lengths = random.integers(6, 15, len(groups))
    masks = [np.ones(n, dtype=np.int64) for n in lengths]
    if holes:
        for mask in masks[::2]:
            mask[2:4] = 0
    ends = [np.sort(np.append(random.choice(np.arange(1, n), random.integers(1, 4), replace=False), n)) for n in lengths]
    scores = [random.choice([-1.0, 0.0, 1.0, 0.5], len(e)) for e in ends]
    return Rollouts(groups, masks, ends, scores, random.choice([0.0, 1.0], len(groups)), (random.random(len(groups)) < 0.8).astype(np.float64))


@pytest.fixture
def rollouts() -> Rollouts:
    return make()


def standin(name: str, file: str) -> Any:
    """Loads standins/FILE as module `name`, its packages made where they are not there."""
    import importlib.util
    import types

    parts = name.split(".")
    for i in range(1, len(parts)):
        parent = ".".join(parts[:i])
        if parent not in sys.modules:
            sys.modules[parent] = types.ModuleType(parent)
            sys.modules[parent].__path__ = []  # type: ignore[attr-defined]
    spec = importlib.util.spec_from_file_location(name, Path(__file__).parent / "standins" / file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module
