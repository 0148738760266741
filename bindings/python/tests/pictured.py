"""Rollouts for the tests of pictures and pages, and the example file's."""
from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

import passrl
from passrl.cli.rollouts import Rollouts
from passrl.cli.stream import read
from passrl.cli.terms import Terms, explain

EXAMPLE = Path(__file__).resolve().parents[1] / "examples" / "arithmetic_rollouts.jsonl"
PAPER = ("grpo_pooled", "grpo_process", "pass")


def example(text: bool = False) -> Rollouts:
    return read(EXAMPLE, text)


def shaped(rollouts: Rollouts, *presets: str, **fields: Any) -> dict[str, passrl.Shaped]:
    found = {}
    for preset in presets or PAPER:
        config = passrl.Config(preset, **fields)
        found[preset] = passrl.shape(config, **rollouts.arguments(config))
    return found


def taken_apart(rollouts: Rollouts, preset: str = "pass", **fields: Any) -> tuple[passrl.Config, passrl.Shaped, Terms]:
    config = passrl.Config(preset, **fields)
    result = passrl.shape(config, **rollouts.arguments(config))
    return config, result, explain(config, rollouts.arguments(config), result, rollouts.scope())


def dense(lengths: list[int], signal: Any = None, groups: list[Any] | None = None, outcome: Any = None, form: Any = None, **more: Any) -> Rollouts:
    """Rollouts of a signal a token, or of an outcome alone."""
    cu = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    form = None if form is None else np.asarray(form, np.float64)
    return Rollouts(
        group=["q"] * len(lengths) if groups is None else groups, sample=list(range(len(lengths))), cu_seqlens=cu, step_offsets=None, step_end=None,
        step_begin=None, step_score=None, signal=None if signal is None else np.asarray(signal, np.float32),
        outcome=None if outcome is None else np.asarray(outcome, np.float64), format=form, format_ok=None if form is None else form != 0, **more)
