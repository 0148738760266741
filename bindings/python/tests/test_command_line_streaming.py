"""A file in batches gives the bits of one call, in memory that does not grow with it; whole or not at all."""
from __future__ import annotations

import gzip
import io
import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from command_line import ARRAYS, SAMPLE, arrays, command, reference, sample_rows, write
from conftest import DATA


def dense_rows() -> list[dict[str, Any]]:
    """A value a token; groups of 1 to 5 rollouts of 0 to 40 tokens."""
    draw = random.Random(5)
    return [{"group": f"g{g}", "len": n, "signal": [draw.choice([0.25, -1.0, draw.random()]) for _ in range(n)], "outcome": draw.random(),
             "format": draw.choice([0, 1, 1])} for g in range(40) for n in [draw.randrange(41) for _ in range(1 + draw.randrange(5))]]


CASES: list[tuple[str, dict[str, Any]]] = [
    ("pass", {}),
    ("grpo_process", {"k": 0.3}),
    ("grpo_pooled", {"whiten": "tokens"}),
    ("pass", {"whiten": "tokens"}),
    ("pass", {"whiten": "rollouts", "clip": 1.5}),
    ("pass", {"kind": "kl"}),
    ("pass", {"kind": "kl", "whiten": "tokens", "whiten_shift": False}),
    ("pass", {"kind": "none", "whiten": "tokens"}),
    ("pass", {"center": "batch", "scale": "batch"}),
    ("pass", {"outcome.center": "batch", "format.center": "runner_up", "whiten": "rollouts"}),
    ("verl.reinforce_plus_plus_baseline", {}),
]


@pytest.mark.parametrize(("preset", "fields"), CASES)
@pytest.mark.parametrize("form", ["steps", "dense"])
def test_every_batch_size_gives_the_bits_of_one_call(tmp_path: Path, form: str, preset: str, fields: dict[str, Any]) -> None:
    rows = sample_rows() if form == "steps" else dense_rows()
    wanted = reference(rows, preset, **fields)
    file = SAMPLE if form == "steps" else write(tmp_path / "dense.jsonl", rows)
    settings = [part for name, value in fields.items() for part in ("--set", f"{name}={value}")]
    for number, size in enumerate((["--batch-tokens", "1"], ["--batch-tokens", "700"], ["--whole-file"])):
        out = tmp_path / f"{number}.npz"
        done = command("shape", file, "--preset", preset, *settings, *size, "--out", out, "--quiet")
        assert done.exit_code == 0 and done.output == "", done.output
        found = arrays(out)
        assert tuple(found) == ARRAYS
        for name in ("advantages", "path_scores", "num_chunks", "chunk_offsets", "chunk_ends", "chunk_values"):
            value = getattr(wanted, name)
            assert found[name].dtype == value.dtype and found[name].tobytes() == value.tobytes(), (name, size)
        assert found["group"].tolist() == [row["group"] for row in rows]
        assert found["cu_seqlens"].tolist() == np.cumsum([0] + [row["len"] for row in rows]).tolist()
    assert np.count_nonzero(wanted.advantages) > 100


def test_the_same_bits_in_every_form_of_output(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet", reason="SKIPPED: pyarrow is not installed, .parquet was not written")
    rows, wanted = sample_rows(), reference(sample_rows())
    for suffix in ("jsonl", "parquet"):
        done = command("shape", SAMPLE, "--batch-tokens", 900, "--out", tmp_path / f"a.{suffix}")
        assert done.exit_code == 0 and f"advantages: {tmp_path / f'a.{suffix}'}" in done.output, done.output
    lines = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text().splitlines()]
    table = parquet.read_table(tmp_path / "a.parquet").to_pylist()
    for found in (lines, table):
        assert [list(one) for one in found] == [["group", "sample", "advantages", "path_score", "num_chunks"]] * len(rows)
        assert [(one["group"], one["sample"], len(one["advantages"])) for one in found] == [(row["group"], row["sample"], row["len"]) for row in rows]
        assert np.array([a for one in found for a in one["advantages"]], np.float32).tobytes() == wanted.advantages.tobytes()
        assert [one["path_score"] for one in found] == wanted.path_scores.tolist() and [one["num_chunks"] for one in found] == wanted.num_chunks.tolist()


def test_the_text_does_not_depend_on_the_batches() -> None:
    told = {command("shape", SAMPLE, *size).output for size in (["--batch-tokens", 1], ["--batch-tokens", 1000], ["--whole-file"])}
    assert len(told) == 1 and "20 groups, 105 rollouts, 3,965 tokens in scope of 4,343" in told.pop()


def test_real_rollouts(tmp_path: Path) -> None:
    if not DATA.exists():
        pytest.skip(f"SKIPPED, REAL DATA ABSENT: {DATA.name} is not at <repository>/../shared/data; nothing here was compared with it")
    rows = [json.loads(line) for line in DATA.read_text().splitlines()]
    for setting in ("whiten=none", "whiten=tokens"):
        done = command("shape", DATA, "--batch-tokens", 40_000, "--set", setting, "--out", tmp_path / "a.npz", "--quiet")
        assert done.exit_code == 0, done.output
        assert arrays(tmp_path / "a.npz")["advantages"].tobytes() == reference(rows, whiten=setting[7:]).advantages.tobytes()


def test_compressed_files_and_standard_input(tmp_path: Path) -> None:
    wanted = reference(sample_rows()).advantages.tobytes()
    packed = tmp_path / "r.jsonl.gz"
    packed.write_bytes(gzip.compress(SAMPLE.read_bytes()))
    for arguments, given in (([packed], None), (["-"], SAMPLE.read_bytes())):
        done = command("shape", *arguments, "--batch-tokens", 500, "--out", tmp_path / "a.npz", "--quiet", given=given)
        assert done.exit_code == 0, done.output
        assert arrays(tmp_path / "a.npz")["advantages"].tobytes() == wanted
    packed.write_bytes(packed.read_bytes()[:-500])
    done = command("shape", packed, "--quiet")
    assert done.exit_code == 2 and "r.jsonl.gz, line " in done.output and "damaged or cut short" in done.output


def test_standard_input_is_read_once(tmp_path: Path) -> None:
    text = SAMPLE.read_bytes()
    done = command("shape", "-", "--set", "whiten=tokens", given=text)
    assert done.exit_code == 2 and "standard input cannot be; give a file, or --whole-file" in done.output
    done = command("shape", "-", "--set", "whiten=tokens", "--whole-file", "--out", tmp_path / "a.npz", "--quiet", given=text)
    assert done.exit_code == 0, done.output
    assert arrays(tmp_path / "a.npz")["advantages"].tobytes() == reference(sample_rows(), whiten="tokens").advantages.tobytes()
    done = command("shape", "-", given=b'{"group": 1, "len": 1}\n')
    assert done.exit_code == 2 and done.output.startswith('passrl: standard input, line 1: has no "step_score"')


def test_a_group_that_comes_back(tmp_path: Path) -> None:
    rows = [dict(row, group=f"q{n % 3}") for n, row in enumerate(sample_rows()[:12])]
    file, out = write(tmp_path / "r.jsonl", rows), tmp_path / "a.npz"
    done = command("shape", file, "--batch-tokens", 1, "--out", out)
    assert done.exit_code == 2 and done.output == (
        "passrl: r.jsonl, line 4: group 'q0' comes back after line 1, when its batch was finished; sort the file by group, "
        "or give --whole-file to hold all of it in memory\n")
    assert list(tmp_path.iterdir()) == [file]
    wanted = reference(rows).advantages.tobytes()
    # In one batch, asked for or because it fits, groups may lie anywhere.
    for size in (["--whole-file", "--batch-tokens", 1], []):
        done = command("shape", file, *size, "--out", out, "--quiet")
        assert done.exit_code == 0 and arrays(out)["advantages"].tobytes() == wanted, done.output


def test_names_of_any_kind(tmp_path: Path) -> None:
    rows = [dict(row, group=name, sample=f"[b]{n}") for name in (7, "7", "é[x]") for n, row in enumerate(sample_rows()[:3])]
    done = command("shape", write(tmp_path / "r.jsonl", rows), "--out", tmp_path / "a.npz", "--batch-tokens", 1)
    assert done.exit_code == 0 and "é[x]" in done.output, done.output
    assert arrays(tmp_path / "a.npz")["group"].tolist() == ["7"] * 6 + ["é[x]"] * 3
    assert "3 groups, 9 rollouts" in done.output
    pytest.importorskip("pyarrow", reason="SKIPPED: pyarrow is not installed, .parquet was not written")
    done = command("shape", tmp_path / "r.jsonl", "--out", tmp_path / "a.parquet", "--batch-tokens", 1)
    assert done.exit_code == 2 and 'line 4: "group" is the text \'7\' and was a number in the lines before' in done.output
    assert not (tmp_path / "a.parquet").exists()


def test_nothing_is_half_written(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="SKIPPED: matplotlib is not installed, the picture was not drawn")
    bad = write(tmp_path / "r.jsonl", [*sample_rows(), dict(sample_rows()[0], group=99, outcome="good")])
    for suffix in ("npz", "jsonl", "parquet"):
        out = tmp_path / f"a.{suffix}"
        out.write_text("as it was")
        done = command("shape", bad, "--batch-tokens", 500, "--out", out, "--plot", tmp_path / "p.png")
        assert done.exit_code == 2 and 'r.jsonl, line 106: "outcome" is "good"' in done.output, done.output
        assert out.read_text() == "as it was"
        done = command("shape", SAMPLE, "--out", out, "--plot", tmp_path / "p.png", "--group", "q9")
        assert done.exit_code == 2 and "its 20 groups are 0, 1, 2, 3, 4, ..." in done.output
        assert out.read_text() == "as it was"
        out.unlink()
    done = command("compare", bad, "--batch-tokens", 500, "--out", tmp_path / "c.json")
    assert done.exit_code == 2 and list(tmp_path.iterdir()) == [bad], list(tmp_path.iterdir())


@pytest.mark.parametrize(("sent", "status", "word"), [(signal.SIGINT, 130, b"interrupted"), (signal.SIGTERM, 143, b"terminated")])
def test_an_interruption_leaves_nothing(tmp_path: Path, sent: signal.Signals, status: int, word: bytes) -> None:
    """A signal while the command waits for more of its input: by then batches have been written to the partial file."""
    out = tmp_path / "a.npz"
    arguments = [sys.executable, "-m", "passrl", "shape", "-", "--batch-tokens", "200", "--out", str(out), "--quiet"]
    running = subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert running.stdin is not None
    running.stdin.write(SAMPLE.read_bytes())
    running.stdin.flush()
    def gathered() -> int:
        return sum(file.stat().st_size for file in tmp_path.glob(".a.npz.*.part/*"))

    until = time.monotonic() + 60
    while not gathered() and time.monotonic() < until and running.poll() is None:
        time.sleep(0.02)
    partial = gathered()
    running.send_signal(sent)
    told = running.communicate(timeout=60)
    assert partial > 0, told
    assert running.returncode == status and told == (b"", b"passrl: %s; nothing was written\n" % word)
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_changes_between_passes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from passrl.cli import shaper

    file = write(tmp_path / "r.jsonl", sample_rows())
    look = shaper.Shaper.look

    def touched(self: Any, number: int, rollouts: Any) -> None:
        look(self, number, rollouts)
        if number == 1:
            with file.open("a") as more:
                more.write("\n")

    monkeypatch.setattr(shaper.Shaper, "look", touched)
    done = command("shape", file, "--set", "whiten=tokens", "--out", tmp_path / "a.npz")
    assert done.exit_code == 2 and "r.jsonl: has changed since it was last read" in done.output
    assert list(tmp_path.iterdir()) == [file]


def test_the_progress_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    from passrl.cli import stream

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr(stream, "BAR_AFTER", 0.0)
    told = {}
    for quiet, kind in ((False, Terminal), (True, Terminal), (False, io.StringIO)):
        with monkeypatch.context() as patched:
            patched.setattr(sys, "stderr", kind())
            batches = sum(1 for _ in stream.batches(stream.Source(str(SAMPLE), quiet), 1, label="pass 1 of 3"))
            told[quiet, kind] = sys.stderr.getvalue()  # type: ignore[attr-defined]
        assert batches == 20
    assert "pass 1 of 3" in told.pop((False, Terminal)) and set(told.values()) == {""}


PEAK = """
import sys
from passrl.cli.commands import commands
commands(sys.argv[1:], standalone_mode=False)
print(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1])
"""


def peak(*arguments: Any) -> float:
    """Largest resident memory of the command, MiB."""
    done = subprocess.run([sys.executable, "-c", PEAK, *map(str, arguments)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return int(done.stdout.split()[-1]) / 1024


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="SKIPPED: no /proc here, peak memory was not measured")
def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    """1.6 million tokens: in batches within 12 MiB of a file of one rollout, where holding all of it takes over 30 more."""
    line = '{"group": %d, "len": 4000, "signal": [' + ",".join(["0.5", "1.25", "-1", "0.75"] * 1000) + "]}\n"
    file = tmp_path / "r.jsonl"
    arguments = ("shape", file, "--batch-tokens", 20_000, "--out", tmp_path / "a.npz", "--quiet", "--threads", 1)
    file.write_text(line % 0)
    small = peak(*arguments)
    with file.open("w") as out:
        for n in range(400):
            out.write(line % (n // 4))
    streamed, whole = peak(*arguments) - small, peak(*arguments, "--whole-file") - small
    print(f"one rollout {small:.0f} MiB; {file.stat().st_size / 1e6:.0f} MB of rollouts: {streamed:+.1f} MiB in batches, {whole:+.1f} MiB whole")
    assert streamed < 12 and whole > 30, (small, streamed, whole)
