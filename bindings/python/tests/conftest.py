"""The batch of the worked examples, in any layout."""
from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import passrl

# Of what is begun in the background a shell has this ignored, which the programs that the tests interrupt would inherit.
signal.signal(signal.SIGINT, signal.default_int_handler)

ROOT = Path(__file__).resolve().parents[3]
DATA = ROOT.parent / "shared" / "data" / "agentprocessbench_hotpotqa.jsonl"

LENGTHS = [4, 3, 5]
MASKS = [[1, 1, 1, 1], [1, 1, 1], [1, 1, 0, 1, 1]]
STEPS = passrl.Steps(np.array([0, 2, 3, 6]), np.array([2, 4, 3, 1, 2, 5]), np.array([1, -1, 0.5, 0.25, 0.25, -0.5]))
PER_ROLLOUT: dict[str, Any] = {
    "groups": ["q"] * 3, "outcome": np.array([1.0, 0, 0]), "format": np.array([1.0, 1, 0]), "format_ok": np.array([True, True, False]),
}


def pad(rows: list[Any], side: str, width: int = 6, fill: float = 0, dtype: Any = np.float32) -> Any:
    """Rows of any length as [R, width]."""
    out = np.full((len(rows), width), fill, dtype=dtype)
    for row, values in zip(out, rows):
        if side == "right":
            row[: len(values)] = values
        else:
            row[width - len(values) :] = values
    return out


def unpad(padded: Any, side: str, lengths: list[int] = LENGTHS) -> Any:
    """[R, T] as one packed row."""
    rows = [row[:n] if side == "right" else row[len(row) - n :] for row, n in zip(np.asarray(padded), lengths)]
    return np.concatenate(rows)


@pytest.fixture(params=["packed", "lengths", "right", "left"])
def example(request: pytest.FixtureRequest) -> Any:
    """Runs the worked example in a layout; gives the advantages packed, and the result."""

    def run(**fields: Any) -> tuple[Any, passrl.Shaped]:
        layout = request.param
        if layout in ("packed", "lengths"):
            extents: dict[str, Any] = {"cu_seqlens": np.array([0, 4, 7, 12], np.int32)} if layout == "packed" else {"lengths": LENGTHS}
            shaped = passrl.shape(steps=STEPS, mask=np.concatenate(MASKS).astype(np.uint8), **extents, **PER_ROLLOUT, **fields)
            return shaped.advantages, shaped
        mask = pad(MASKS, layout, fill=1, dtype=np.bool_)
        shaped = passrl.shape(steps=STEPS, mask=mask, lengths=np.array(LENGTHS), pad_side=layout, **PER_ROLLOUT, **fields)
        assert shaped.advantages.shape == (3, 6)
        inside = pad([[1] * n for n in LENGTHS], layout) != 0
        assert not shaped.advantages[~inside].any()
        return unpad(shaped.advantages, layout), shaped

    return run
