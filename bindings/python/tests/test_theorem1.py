"""The length experiment of `make train-demo` in small: a biased step signal draws rollouts out with k = 0 and does not with k = 1."""
from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "examples" / "train_demo"))

import theorem1  # noqa: E402


def test_a_biased_signal_inflates_length_unless_it_is_divided(tmp_path: Path) -> None:
    found = {k: theorem1.lengths(k, "abs_max", updates=60, seed=1) for k in theorem1.KS}
    begin = {k: run[:5].mean() for k, run in found.items()}
    end = {k: run[-10:].mean() for k, run in found.items()}
    assert all(8 < length < 12 for length in begin.values())
    assert end[0.0] > 2 * begin[0.0]
    assert end[0.0] > 1.5 * end[0.7] > 1.5 * end[1.0]
    assert abs(end[1.0] - begin[1.0]) < 2
    # Centred scores have no bias left.
    assert abs(theorem1.lengths(0.0, "mean_std", updates=60, seed=1)[-10:].mean() - begin[0.0]) < 2


def test_the_picture_and_the_table(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    found = theorem1.curves(12, 2)
    assert len(theorem1.table(found).splitlines()) == 1 + len(theorem1.OPERATORS) * len(theorem1.KS)
    theorem1.draw(found, tmp_path / "picture.png")
    assert (tmp_path / "picture.png").stat().st_size > 10_000
