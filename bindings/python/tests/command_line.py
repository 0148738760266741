"""What the tests of the command line share: files of rollouts, the command in this process, results read back."""
from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import passrl

pytest.importorskip("click", reason="SKIPPED: the extra cli is not installed, the command line was not tested")
pytest.importorskip("rich", reason="SKIPPED: the extra cli is not installed, the command line was not tested")
pytest.importorskip("tqdm", reason="SKIPPED: the extra cli is not installed, the command line was not tested")

from click.testing import CliRunner, Result

from passrl.cli.commands import commands

from conftest import ROOT

SAMPLE = ROOT / "bindings/python/examples/arithmetic_rollouts.jsonl"
ARRAYS = ("advantages", "cu_seqlens", "group", "sample", "path_scores", "num_chunks", "chunk_offsets", "chunk_ends", "chunk_values")


def command(*arguments: Any, given: bytes | None = None) -> Result:
    """Runs the command here; `given`: standard input."""
    return CliRunner().invoke(commands, [str(one) for one in arguments], input=given)


def write(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


def sample_rows() -> list[dict[str, Any]]:
    return [json.loads(line) for line in SAMPLE.read_text().splitlines()]


def arrays(path: Path) -> dict[str, Any]:
    with np.load(path) as found:
        return {name: found[name] for name in found.files}


def reference(rows: list[dict[str, Any]], preset: str = "pass", **fields: Any) -> passrl.Shaped:
    """`passrl.shape` on all rows at once, without the command line's reading."""
    def flat(key: str, dtype: Any) -> Any:
        return np.array([np.nan if value is None else value for row in rows for value in row[key]], dtype=dtype) if key in rows[0] else None

    batch: dict[str, Any] = {name: np.array([row[name] for row in rows], np.float64) for name in ("outcome", "format") if name in rows[0]}
    if "." in preset:
        # The estimators of the frameworks know no format reward, and the command line gives them none.
        batch.pop("format", None)
    if "format" in batch:
        batch["format_ok"] = np.array([row.get("format_ok", row["format"]) for row in rows]) != 0
    kl = fields.get("kind") == "kl"
    if kl and "logp_policy" in rows[0]:
        batch |= {name: flat(name, np.float64) for name in ("logp_policy", "logp_teacher")}
    elif "signal" in rows[0]:
        batch["signal"] = flat("signal", np.float32)
    if "step_end" in rows[0]:
        offsets = np.concatenate([[0], np.cumsum([len(row["step_end"]) for row in rows])])
        scores = None if kl or "step_score" not in rows[0] else flat("step_score", np.float64)
        batch["steps"] = passrl.Steps(offsets, flat("step_end", np.int64), scores, flat("step_begin", np.int64))
    return passrl.shape(preset, lengths=[row["len"] for row in rows], groups=[f"g{row['group']}" for row in rows], **batch, **fields)
