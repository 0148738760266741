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

from command_line import SAMPLE, arrays, command, reference, sample_rows, write

ROWS: list[dict[str, Any]] = [
    {"group": "q1", "sample": 0, "len": 4, "step_end": [2, 4], "step_score": [1, -1], "outcome": 1, "format": 1},
    {"group": "q1", "sample": 1, "len": 3, "step_end": [3], "step_score": [0.5], "outcome": 0, "format": 1},
    {"group": "q1", "sample": 2, "len": 5, "step_end": [1, 2, 5], "step_score": [0.25, 0.25, -0.5], "outcome": 0, "format": 0},
    {"group": "q2", "sample": 0, "len": 2, "step_end": [2], "step_score": [1], "outcome": 1, "format": 1},
]


def test_presets() -> None:
    done = subprocess.run([sys.executable, "-m", "passrl", "presets"], capture_output=True, text=True)
    assert done.returncode == 0 and done.stderr == "", done.stderr
    for preset in passrl.presets():
        assert preset in done.stdout
    assert "2606.29296" in done.stdout
    done = command("presets", "grpo_process")
    assert done.exit_code == 0 and "2606.29296" in done.output and "  fusion = reward_shaping (default advantage)\n" in done.output, done.output
    told = command("presets", "grpo").output
    assert "grpo_pooled" in told and "grpo_process" in told and "pass " not in told
    done = command("presets", "grpo_proces_")
    assert done.exit_code == 2 and 'preset "grpo_proces_" is unknown; nearest: grpo_process' in done.output


def test_shape(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="SKIPPED: matplotlib is not installed, the picture was not drawn")
    out, plot = tmp_path / "made" / "advantages.npz", tmp_path / "made" / "credit.png"
    done = command("shape", write(tmp_path / "r.jsonl", ROWS), "--preset", "pass", "--set", "k=0", "--out", out, "--plot", plot)
    assert done.exit_code == 0, done.output
    assert "pass against grpo_process" in done.output and "2 groups, 4 rollouts, 14 tokens in scope of 14" in done.output
    assert "picture of group q1" in done.output
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
    done = command("shape", write(tmp_path / "b.jsonl", begins))
    assert done.exit_code == 0 and "11 tokens in scope of 14" in done.output, done.output
    dense = [{"group": row["group"], "len": row["len"], "signal": [0.5 * i for i in range(row["len"])]} for row in ROWS]
    done = command("shape", write(tmp_path / "s.jsonl", dense), "--set", "kind=kl", "--group", "q2")
    assert done.exit_code == 0, done.output
    nan = [dict(ROWS[0], step_score=[None, 1])] + ROWS[1:]
    done = command("shape", write(tmp_path / "n.jsonl", nan))
    assert done.exit_code == 0 and "BAD" in done.output
    assert "pass: done, with findings: line 1, sample 0 of group q1 has a NaN where missing = error" in done.output
    assert "1 group(s) have advantage 0" in done.output
    outcomes = [{"group": 0, "len": 3, "outcome": i} for i in range(3)]
    done = command("shape", write(tmp_path / "o.jsonl", outcomes))
    assert done.exit_code == 0, done.output


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
    (dict(ROWS[1], group=2**63), '"group" is 9223372036854775808; an integer has 64 bits at most'),
    (dict(ROWS[1], step_score=[10**400]), "it is too large for a double"),
    (dict(ROWS[1], step_end=[10**30]), 'it must be from 0 to "len", 3'),
    (dict(ROWS[1], step_end=[True]), '"step_end[0]" is true; it must be an integer'),
    (dict(ROWS[1], step_score=["1"]), '"step_score[0]" is "1"; it must be a number'),
    (dict(ROWS[1], logp_policy=[0, 0, 0]), 'has "logp_policy" and r.jsonl, line 1 has not'),
    (b"\xff\xfe", "is no UTF-8 text (byte 0)"),
    ("[" * 100_000, "is not read"),
    (dict(ROWS[1], signal=[1, 2, 3]), 'has "signal" and r.jsonl, line 1 has not'),
])
def test_bad_lines_are_refused_by_number(tmp_path: Path, bad: Any, sentence: str) -> None:
    file = write(tmp_path / "r.jsonl", [ROWS[0], "" if isinstance(bad, bytes) else bad, ROWS[2]])
    if isinstance(bad, bytes):
        file.write_bytes(file.read_bytes().replace(b"\n\n", b"\n" + bad + b"\n"))
    done = command("shape", file)
    assert done.exit_code == 2
    assert done.output.startswith("passrl: r.jsonl, line 2: ") and done.output.count("\n") == 1 and sentence in done.output, done.output


@pytest.mark.parametrize(("arguments", "sentence"), [
    (["--preset", "pas"], 'preset "pas" is unknown; nearest: pass'),
    (["--set", "k"], "write KEY=VALUE"),
    (["--set", "kk=1"], 'key "kk" is unknown; nearest: k'),
    (["--plot", "x.png", "--group", "q9"], "the file has no such group; its 2 groups are q1, q2"),
    (["--plot", "x.gif"], "--plot x.gif: the file's name must end in .png, .svg, .pdf"),
    (["--out", "x.csv"], "--out x.csv: the file's name must end in .npz, .jsonl or .parquet"),
    (["--kind", "kl"], 'it needs "signal", or "logp_policy" and "logp_teacher" in every line'),
    (["--set", "strict=1", "--set", "singleton=refuse"], "strict"),
])
def test_bad_options(tmp_path: Path, arguments: list[str], sentence: str) -> None:
    done = command("shape", write(tmp_path / "r.jsonl", ROWS), *arguments)
    assert done.exit_code == 2 and sentence in done.output, done.output


def test_first_line_says_what_every_line_has(tmp_path: Path) -> None:
    for row, sentence in (
        ({"group": 1, "len": 1}, 'has no "step_score" (a list, one a step; or signal, one a token)'),
        ({"group": 1, "len": 1, "step_score": [1]}, 'has no "step_end"'),
        ({"group": 1, "len": 1, "logp_policy": [0]}, 'has no "logp_teacher"'),
        ({"group": 1, "len": 1, "signal": [0], "step_end": [1], "step_score": [1]}, 'has both "step_score" and "signal"'),
        ({"group": 1, "len": 2, "signal": [0, 1], "tokens": ["a"]}, '"tokens" has 1 elements; it must have 2'),
        ({"group": 1, "len": 1, "signal": [0], "tokens": [None]}, '"tokens[0]" is null; it must be text or an id'),
        ({"group": 1, "len": 1, "outcome": 1, "format_ok": True}, 'has no "format"'),
    ):
        done = command("shape", write(tmp_path / "r.jsonl", [row]), "--page", tmp_path / "p.html")
        assert done.exit_code == 2 and sentence in done.output, done.output


def test_empty_files(tmp_path: Path) -> None:
    for text in ("", "\n \n"):
        (tmp_path / "r.jsonl").write_text(text)
        done = command("shape", tmp_path / "r.jsonl", "--out", tmp_path / "a.npz")
        assert done.exit_code == 2 and "r.jsonl: has no rollouts" in done.output and not (tmp_path / "a.npz").exists()


def test_log_probabilities(tmp_path: Path) -> None:
    """--kind kl takes them although the lines have step scores; alone with steps they are sums over each step, without steps kl."""
    rows = sample_rows()
    done = command("shape", SAMPLE, "--kind", "kl", "--out", tmp_path / "a.npz")
    assert done.exit_code == 0, done.output
    wanted = reference(rows, kind="kl")
    assert arrays(tmp_path / "a.npz")["advantages"].tobytes() == wanted.advantages.tobytes() != reference(rows).advantages.tobytes()
    sums = [{key: value for key, value in row.items() if key != "step_score"} for row in rows]
    done = command("shape", write(tmp_path / "sums.jsonl", sums), "--out", tmp_path / "a.npz")
    assert done.exit_code == 0, done.output
    offsets = np.concatenate([[0], np.cumsum([len(row["step_end"]) for row in rows])])
    flat = {key: np.array([np.nan if one is None else one for row in rows for one in row[key]]) for key in ("logp_policy", "logp_teacher")}
    steps = passrl.Steps(offsets, *(np.array([one for row in rows for one in row[key]]) if key else None for key in ("step_end", "", "step_begin")))
    wanted = passrl.shape(steps=steps, lengths=[row["len"] for row in rows], groups=[row["group"] for row in rows], **flat,
                          **{name: np.array([row[name] for row in rows], np.float64) for name in ("outcome", "format")},
                          format_ok=np.array([row["format"] for row in rows]) != 0)
    assert arrays(tmp_path / "a.npz")["advantages"].tobytes() == wanted.advantages.tobytes()
    alone = [{"group": row["group"], "len": 3, "logp_policy": row["logp_policy"][:3], "logp_teacher": row["logp_teacher"][:3]} for row in rows]
    done = command("shape", write(tmp_path / "alone.jsonl", alone), "--out", tmp_path / "a.npz")
    assert done.exit_code == 0, done.output
    assert arrays(tmp_path / "a.npz")["advantages"].tobytes() == reference(alone, kind="kl").advantages.tobytes()


def test_a_picture_of_a_part_takes_the_statistics_of_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The group drawn is shaped again by itself: its advantages are those of the file, also where the batch is whitened."""
    pytest.importorskip("matplotlib", reason="SKIPPED: matplotlib is not installed, the picture was not drawn")
    from passrl.cli.rollouts import Rollouts
    from passrl.cli.work import Work

    wanted = reference(sample_rows(), whiten="tokens").advantages
    begin = sum(row["len"] for row in sample_rows() if row["group"] < 4)
    seen: list[Any] = []
    shapen = Work._shapen

    def kept(self: Work, rollouts: Rollouts, part: bool = False) -> Any:
        found = shapen(self, rollouts, part)
        seen.extend([found] if part else [])
        return found

    monkeypatch.setattr(Work, "_shapen", kept)
    for size in (["--batch-tokens", 500], ["--whole-file"]):
        done = command("shape", SAMPLE, *size, "--set", "whiten=tokens", "--plot", tmp_path / "p.png", "--group", "4")
        assert done.exit_code == 0, done.output
        assert (tmp_path / "p.png").read_bytes().startswith(b"\x89PNG")
        drawn = seen.pop()
        assert drawn.rollouts.group == [4] * 6 and drawn.runs[-1].name == "pass"
        own = drawn.runs[-1].shaped.advantages
        assert own.tobytes() == wanted[begin : begin + len(own)].tobytes() and np.count_nonzero(own)


def test_tokens_are_kept_where_asked_for() -> None:
    from passrl.cli.stream import read

    found = read(SAMPLE, text=True)
    assert found.tokens == [row["tokens"] for row in sample_rows()] and read(SAMPLE).tokens is None
    rows = np.array([7, 100, 3])
    assert found.take(rows).tokens == [sample_rows()[i]["tokens"] for i in rows]
    assert found.line is not None and found.take(rows).line.tolist() == [8, 101, 4]  # type: ignore[union-attr]


def test_parquet_without_pyarrow(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    for arguments in (["shape"], ["compare"]):
        done = command(*arguments, SAMPLE, "--out", tmp_path / "a.parquet")
        assert done.exit_code == 2 and "pip install pyarrow" in done.output, done.output


def test_describe(tmp_path: Path) -> None:
    done = command("describe", "--preset", "grpo_process", "--set", "k=0.5", "--rollouts", 64, "--groups", 8, "--rollout-tokens", 100, "--threads", 1)
    assert done.exit_code == 0, done.output
    plan = passrl.Plan(passrl.Config("grpo_process", k=0.5), threads=1, rollouts=64, groups=8, tokens=6400, rollout_tokens=100, group_rollouts=8,
                       group_elements=800)
    assert done.output.endswith(str(plan).rstrip() + "\n")
    fields = [line.split(" (default")[0] for line in done.output.splitlines() if line.startswith("  ") and " = " in line]
    assert fields == ["  fusion = reward_shaping", "  chunk = step", "  k = 0.5", "  outcome.weight = 0.0", "  format.weight = 0.0"]
    assert command("describe").output.splitlines()[1] == "all fields are the defaults"
    done = command("describe", SAMPLE, "--kind", "kl")
    assert "limits: 105 rollouts, 20 groups, 4343 tokens, 89 a rollout, 556 steps" in done.output and "kind = kl" in done.output
    done = command("describe", SAMPLE, "--tokens", 5000)
    assert "limits: 105 rollouts, 20 groups, 5000 tokens" in done.output
    told = command("describe", "--set", "ddof=0", "--set", "outcome.epsilon=0.5").output
    assert "  ddof (all streams) = 0 (default 1)\n  outcome.epsilon = 0.5 (default 1e-06)\n" in told or \
        "  outcome.epsilon = 0.5 (default 1e-06)\n  ddof (all streams) = 0 (default 1)\n" in told, told
    done = command("describe", "--set", "k=9")
    assert done.exit_code == 2 and done.output.startswith("passrl: ") and "k is 9" in done.output, done.output


@pytest.mark.parametrize("page", ["", "shape", "compare", "describe", "presets"])
def test_examples_of_the_help_run(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("matplotlib", reason="SKIPPED: matplotlib is not installed, the examples of the help were not run")
    pytest.importorskip("pyarrow", reason="SKIPPED: pyarrow is not installed, the examples of the help were not run")
    import gzip

    monkeypatch.chdir(tmp_path)
    sample = tmp_path / "bindings/python/examples/arithmetic_rollouts.jsonl"
    sample.parent.mkdir(parents=True)
    for path in (sample, tmp_path / "rollouts.jsonl"):
        path.write_bytes(SAMPLE.read_bytes())
    (tmp_path / "rollouts.jsonl.gz").write_bytes(gzip.compress(SAMPLE.read_bytes()))
    told = command(*[page] * bool(page), "--help").output
    examples = [line.split() for line in told.splitlines() if line.strip().startswith("passrl ")]
    assert examples
    for example in examples:
        done = command(*example[1:])
        assert done.exit_code == 0, (example, done.output)
    lines = [line.strip() for line in told.splitlines() if line.strip().startswith("{")]
    assert len(lines) == (page in ("shape", "compare"))
    for line in lines:
        assert command("shape", write(tmp_path / "line.jsonl", [json.loads(line)])).exit_code == 0


def test_no_output_is_the_input_or_another_output(tmp_path: Path) -> None:
    file = write(tmp_path / "in.jsonl", ROWS)
    before = file.read_bytes()
    for options, says in ((("--out", file), "--out"), (("--out", tmp_path / "a.npz", "--page", tmp_path / "a.npz"), "--page")):
        done = command("shape", file, *options, "--quiet")
        assert done.exit_code != 0 and f"{says} " in done.output and "would be lost" in done.output, done.output
    assert file.read_bytes() == before and not (tmp_path / "a.npz").exists()
