"""What the console script writes to, and what it must not write there."""
from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from command_line import SAMPLE, command, write
from passrl.cli.lines import printable

ESCAPE = "\x1b[31mred\x1b[0m"
ROWS: list[dict[str, Any]] = [
    {"group": ESCAPE, "sample": "a\x1b[2Jb", "len": 3, "step_end": [3], "step_score": [2], "outcome": 1},
    {"group": ESCAPE, "sample": "c\nd", "len": 3, "step_end": [3], "step_score": [1], "outcome": 0},
]


def script(*arguments: Any, **options: Any) -> Any:
    return subprocess.run([sys.executable, "-m", "passrl", *map(str, arguments)], stderr=subprocess.PIPE, **options)


@pytest.mark.parametrize("arguments", [["shape", SAMPLE], ["compare", SAMPLE], ["presets"], ["presets", "pass"], ["describe"], ["--help"]])
def test_a_full_and_a_closed_standard_output(arguments: list[Any]) -> None:
    with open("/dev/full", "wb") as full:
        done = script(*arguments, stdout=full)
    assert (done.returncode, done.stderr) == (2, b"passrl: standard output: No space left on device\n")
    # Whoever read it has gone away: no word about that.
    reader, writer = os.pipe()
    os.close(reader)
    done = script(*arguments, stdout=writer)
    os.close(writer)
    assert (done.returncode, done.stderr) == (1, b"")


def test_an_output_without_room_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from passrl.cli import output

    def full(*_: Any) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(output.JsonLines, "add", full)
    out = tmp_path / "a.jsonl"
    done = command("shape", SAMPLE, "--out", out)
    assert done.exit_code == 2 and f"passrl: {out}: No space left on device" in done.output, done.output


@pytest.mark.parametrize("name", ["shape", "compare"])
def test_an_encoding_without_the_character(name: str) -> None:
    done = script(name, SAMPLE, stdout=subprocess.PIPE, env=os.environ | {"PYTHONIOENCODING": "ascii"})
    assert done.returncode == 0 and done.stderr == b"", done.stderr
    assert (b"path scores -12.03 \\u2026 +5.90" in done.stdout) == (name == "shape")
    assert done.stdout.isascii()


def test_names_do_not_control_the_terminal(tmp_path: Path) -> None:
    file, picture = write(tmp_path / "r.jsonl", ROWS), tmp_path / "a.png"
    bad = write(tmp_path / "bad.jsonl", [ROWS[0], ROWS[1] | {"step_score": [None]}])
    for arguments in (["shape", file, "--plot", picture], ["compare", file], ["shape", bad], ["shape", bad, "--quiet"], ["compare", bad], ["shape", file, "--plot", picture, "--group", "x"]):
        told = command(*arguments).output
        assert "\x1b" not in told and "c\nd" not in told and r"\x1b[31mred\x1b[0m" in told, told
    # Names that only look foreign stay as they are.
    for name in ("q1", "größer", "質問", "👩\u200d🔬", 7):
        assert printable(name) == str(name)
    assert printable("a\u202eb") == r"a\u202eb"
