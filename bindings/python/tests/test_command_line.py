"""The console script, end to end."""
from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import passrl

pytest.importorskip("click", reason="SKIPPED: the extra cli is not installed, the command line was not tested")
pytest.importorskip("rich", reason="SKIPPED: the extra cli is not installed, the command line was not tested")

ROWS: list[dict[str, Any]] = [
    {"group": "q1", "sample": 0, "len": 4, "step_end": [2, 4], "step_score": [1, -1], "outcome": 1, "format": 1},
    {"group": "q1", "sample": 1, "len": 3, "step_end": [3], "step_score": [0.5], "outcome": 0, "format": 1},
    {"group": "q1", "sample": 2, "len": 5, "step_end": [1, 2, 5], "step_score": [0.25, 0.25, -0.5], "outcome": 0, "format": 0},
    {"group": "q2", "sample": 0, "len": 2, "step_end": [2], "step_score": [1], "outcome": 1, "format": 1},
]


def write(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


def passrl_command(*arguments: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "passrl", *map(str, arguments)], capture_output=True, text=True)


def test_presets() -> None:
    done = passrl_command("presets")
    assert done.returncode == 0 and "grpo_process" in done.stdout and "2606.29296" in done.stdout


def test_shape(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="SKIPPED: matplotlib is not installed, the picture was not drawn")
    out, plot = tmp_path / "made" / "advantages.npz", tmp_path / "made" / "credit.png"
    done = passrl_command("shape", write(tmp_path / "r.jsonl", ROWS), "--preset", "pass", "--set", "k=0", "--out", out, "--plot", plot)
    assert done.returncode == 0, done.stderr
    assert "pass against grpo_process" in done.stdout and "2 groups, 4 rollouts, 14 tokens in scope of 14" in done.stdout
    assert "picture of group q1" in done.stdout
    assert plot.read_bytes().startswith(b"\x89PNG")
    found = np.load(out)
    wanted = passrl.shape(k=0, steps=passrl.Steps([0, 2, 3, 6, 7], [2, 4, 3, 1, 2, 5, 2], [1, -1, 0.5, 0.25, 0.25, -0.5, 1]), lengths=[4, 3, 5, 2],
                          groups=["q1"] * 3 + ["q2"], outcome=[1, 0, 0, 1], format=[1, 1, 0, 1], format_ok=[1, 1, 0, 1])
    np.testing.assert_array_equal(found["advantages"], wanted.advantages)
    assert found["cu_seqlens"].tolist() == [0, 4, 7, 12, 14] and found["group"].tolist() == ["q1"] * 3 + ["q2"]
    assert found["chunk_ends"].tolist() == [2, 4, 3, 1, 2, 5, 2] and found["num_chunks"].tolist() == [2, 1, 3, 1]
    np.testing.assert_array_equal(found["path_scores"], wanted.path_scores)


def test_scope_signal_and_missing_values(tmp_path: Path) -> None:
    begins = [dict(row, step_begin=[0] * len(row["step_end"]), step_end=[1] + row["step_end"][1:]) for row in ROWS]
    for row in begins:
        row["step_begin"][1:] = row["step_end"][:-1]
    done = passrl_command("shape", write(tmp_path / "b.jsonl", begins))
    assert done.returncode == 0 and "11 tokens in scope of 14" in done.stdout, done.stdout + done.stderr
    dense = [{"group": row["group"], "len": row["len"], "signal": [0.5 * i for i in range(row["len"])]} for row in ROWS]
    done = passrl_command("shape", write(tmp_path / "s.jsonl", dense), "--set", "kind=kl", "--group", "q2")
    assert done.returncode == 0, done.stderr
    nan = [dict(ROWS[0], step_score=[None, 1])] + ROWS[1:]
    done = passrl_command("shape", write(tmp_path / "n.jsonl", nan))
    assert done.returncode == 0 and "NaN where missing = error" in done.stdout and "BAD" in done.stdout
    outcomes = [{"group": 0, "len": 3, "outcome": i} for i in range(3)]
    done = passrl_command("shape", write(tmp_path / "o.jsonl", outcomes))
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(("bad", "sentence"), [
    ("{not json", "is no JSON"),
    ("[1]", "is a JSON list; it must be an object"),
    (dict(ROWS[1], step_end=[4]), '"step_end[0]" is 4; it must be from 0 to "len", 3'),
    (dict(ROWS[1], step_score=[1, 2]), '"step_score" has 2 elements; it must have 1, one a step'),
    (dict(ROWS[2], step_end=[2, 1, 5]), '"step_end[1]" is 1 after 2; offsets do not decrease'),
    (dict(ROWS[1], len=-3), '"len" is -3; it must be an integer, 0 or more'),
    (dict(ROWS[1], group=1.5), '"group" is 1.5; it must be an integer or a string'),
    (dict(ROWS[1], outcome="good"), '"outcome" is "good"; it must be a number'),
    ({key: value for key, value in ROWS[1].items() if key != "outcome"}, 'has no "outcome" (r.jsonl, line 1 has it)'),
    ({("step_scores" if key == "step_score" else key): value for key, value in ROWS[1].items()}, 'did you mean it by "step_scores"?'),
    (dict(ROWS[1], signal=[1, 2, 3]), 'has "signal" and r.jsonl, line 1 has not'),
])
def test_bad_lines_are_refused_by_number(tmp_path: Path, bad: Any, sentence: str) -> None:
    done = passrl_command("shape", write(tmp_path / "r.jsonl", [ROWS[0], bad, ROWS[2]]))
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith("passrl: r.jsonl, line 2: ") and sentence in done.stderr, done.stderr


@pytest.mark.parametrize(("arguments", "sentence"), [
    (["--preset", "pas"], 'preset "pas" is unknown; nearest: pass'),
    (["--set", "k"], "write KEY=VALUE"),
    (["--set", "kk=1"], 'key "kk" is unknown; nearest: k'),
    (["--plot", "x.png", "--group", "q9"], "the file has no such group; its 2 groups are q1, q2"),
])
def test_bad_options(tmp_path: Path, arguments: list[str], sentence: str) -> None:
    done = passrl_command("shape", write(tmp_path / "r.jsonl", ROWS), *arguments)
    assert done.returncode == 2 and sentence in done.stderr, done.stderr
