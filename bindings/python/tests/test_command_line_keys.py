"""Every preset from one file that has all keys; what a preset asks for and the file has not is refused by the file's key."""
from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import passrl

from command_line import arrays, command, write

PRESETS = [str(name) for name in passrl.presets()]
TOKENS = ("logp_policy", "logp_reference", "logp_behavior", "values", "sum_pi_squared", "token_ratio")


def _rows() -> list[dict[str, Any]]:
    """5 groups of 4 rollouts with every key that does not exclude another."""
    rng = np.random.default_rng(7)
    rows = []
    for i in range(20):
        length, ends = int(rng.integers(4, 12)), sorted({int(e) for e in rng.integers(1, 12, 3)})
        ends = [end for end in ends if end < length] + [length]
        row = {"group": f"q{i // 4}", "sample": i % 4, "len": length, "step_end": ends, "step_score": rng.normal(size=len(ends)).round(2).tolist(),
               "step_group": rng.integers(0, 3, len(ends)).tolist(), "outcome": float(rng.integers(0, 2)), "baseline": 0.25, "bootstrap": 0.5}
        row |= {name: (-rng.random(length)).tolist() for name in ("logp_policy", "logp_reference", "logp_behavior")}
        row |= {name: rng.random(length).tolist() for name in ("values", "sum_pi_squared", "token_ratio")}
        rows.append(row)
    return rows


ROWS = _rows()


def _shaped(preset: str) -> passrl.Shaped:
    """`passrl.shape` with what the preset asks for."""
    config = passrl.Config(preset)
    flat = {key: np.concatenate([np.array(row[key]) for row in ROWS]) for key in TOKENS}
    beside = ["logp_reference", "logp_behavior", "values"] + (["sum_pi_squared", "token_ratio"] if config.token_baseline != "none" else [])
    counts = np.cumsum([0] + [len(row["step_end"]) for row in ROWS])
    ends, scores, groups = (np.array([one for row in ROWS for one in row[key]]) for key in ("step_end", "step_score", "step_group"))
    return passrl.shape(
        config, lengths=[row["len"] for row in ROWS], groups=[row["group"] for row in ROWS],
        steps=passrl.Steps(counts, ends, scores if config.kind == "prm" else None, groups=groups),
        logp_policy=flat["logp_policy"], **{name: flat[name] for name in beside},
        **{argument: np.array([row[key] for row in ROWS]) for argument, key in (("outcome", "outcome"), ("baselines", "baseline"), ("bootstrap", "bootstrap"))})


@pytest.mark.parametrize("preset", [name for name in PRESETS if passrl.Config(name).kind != "kl"])
def test_every_preset_from_a_file_with_all_keys(tmp_path: Path, preset: str) -> None:
    done = command("shape", write(tmp_path / "r.jsonl", ROWS), "--preset", preset, "--out", tmp_path / "a.npz")
    assert done.exit_code == 0, (preset, done.output)
    assert arrays(tmp_path / "a.npz")["advantages"].tobytes() == _shaped(preset).advantages.tobytes()


@pytest.mark.parametrize(("setting", "key", "sentence"), [
    ("credit=gae", "values", 'credit = gae and the file\'s lines have no "values"'),
    ("credit=vtrace", "logp_behavior", 'credit = vtrace and the file\'s lines have no "logp_behavior"'),
    ("outcome.center=given", "baseline", 'outcome.center = given and the file\'s lines have no "baseline"'),
    ("step_sets=step_group", "step_group", 'step_sets = step_group and the file\'s lines have no "step_group"'),
    ("kl_in_reward=k1,kl_coef=0.1", "logp_reference", 'kl_in_reward = k1 and the file\'s lines have no "logp_reference"'),
    ("token_baseline=token,chunk=token", "sum_pi_squared", 'token_baseline = token and the file\'s lines have no "sum_pi_squared"'),
])
def test_what_is_missing_is_said_by_the_files_key(tmp_path: Path, setting: str, key: str, sentence: str) -> None:
    rows = [{name: value for name, value in row.items() if name != key} for row in ROWS]
    settings = [part for one in setting.split(",") for part in ("--set", one)]
    done = command("shape", write(tmp_path / "r.jsonl", rows), "--set", "k=0", *settings)
    assert done.exit_code == 2 and sentence in done.output, done.output


def test_sets_without_partials_and_a_batch_of_all_need_the_whole_file(tmp_path: Path) -> None:
    file = write(tmp_path / "r.jsonl", ROWS)
    for setting in (["--preset", "verl_agent.gigpo"], ["--preset", "verl.optimal_token_baseline"]):
        done = command("shape", file, *setting, "--set", "whiten=tokens")
        assert done.exit_code == 2 and "give --whole-file" in done.output, done.output
        done = command("shape", file, *setting, "--set", "whiten=tokens", "--whole-file")
        assert done.exit_code == 0, done.output


@pytest.mark.parametrize(("change", "sentence"), [
    ({"len": 2**63}, '"len" is 9223372036854775808; a rollout has 2147483647 tokens at most'),
    ({"group": "\ud800"}, 'which has half of a surrogate pair'),
    ({"step_group": [0.5] * 9}, '"step_group"'),
])
def test_odd_lines(tmp_path: Path, change: dict[str, Any], sentence: str) -> None:
    done = command("shape", write(tmp_path / "r.jsonl", [ROWS[0] | change]))
    assert done.exit_code == 2 and sentence in done.output and done.output.count("\n") == 1, done.output


def test_a_byte_order_mark_is_passed_over(tmp_path: Path) -> None:
    file = write(tmp_path / "r.jsonl", ROWS)
    file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes())
    done = command("shape", file)
    assert done.exit_code == 0 and "5 groups, 20 rollouts" in done.output, done.output


def test_quiet_tells_bad_data_on_standard_error(tmp_path: Path) -> None:
    file = write(tmp_path / "r.jsonl", [ROWS[0] | {"outcome": float("nan")}, *ROWS[1:]])
    done = command("shape", file, "--quiet", "--out", tmp_path / "a.npz")
    assert done.exit_code == 0 and done.stdout == "" and "line 1, sample 0 of group q0" in done.stderr, done.output
    done = command("shape", write(tmp_path / "r.jsonl", ROWS), "--quiet")
    assert done.exit_code == 0 and done.output == ""


def test_a_library_that_is_named_and_not_there_is_an_error() -> None:
    done = subprocess.run([sys.executable, "-c", "import passrl"], env=os.environ | {"PASSRL_LIBRARY": "/nowhere/libpassrl.so"}, capture_output=True, text=True)
    assert done.returncode != 0 and "PASSRL_LIBRARY is /nowhere/libpassrl.so, where there is no file" in done.stderr
