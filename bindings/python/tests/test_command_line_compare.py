"""passrl compare: its numbers against NumPy on the results of passrl.shape."""
from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from command_line import SAMPLE, command, reference, sample_rows, write

PRESETS: dict[str, dict[str, Any]] = {"pass": {}, "pass:k=0,gamma=0.9": {"k": 0, "gamma": 0.9}, "grpo_process": {}, "pass:whiten=tokens": {"whiten": "tokens"}}


def wanted(rows: list[dict[str, Any]]) -> dict[tuple[str, int | None], dict[str, Any]]:
    """The records, slowly: masks over all tokens."""
    scope = np.concatenate([np.array([any(b <= t < e for b, e in zip(row["step_begin"], row["step_end"])) for t in range(row["len"])]) for row in rows])
    group = np.repeat([row["group"] for row in rows], [row["len"] for row in rows])
    results = {name: reference(rows, name.partition(":")[0], **fields).advantages.astype(np.float64) for name, fields in PRESETS.items()}
    first = results["pass"]
    found = {}
    for name, own in results.items():
        for key in (*range(20), None):
            here = scope if key is None else scope & (group == key)
            a, b = first[here], own[here]
            either = (a != 0) | (b != 0)
            keys = range(20) if key is None else [key]
            found[name, key] = {
                "rollouts": sum(row["group"] in keys for row in rows), "tokens": len(a), "mean_abs": np.abs(b).mean(), "zero_share": (b == 0).mean(),
                "dead": sum(not own[scope & (group == one)].any() for one in keys),
                "sign_agreement": (np.sign(a) == np.sign(b))[either].mean() if either.any() else None,
                "correlation": np.corrcoef(a, b)[0, 1] if a.std() > 0 and b.std() > 0 else None, "largest_difference": np.abs(a - b).max(),
            }
    return found


def compare(path: Path, *size: Any) -> str:
    done = command("compare", SAMPLE, "--presets", ",".join(PRESETS), "--out", path, *size)
    assert done.exit_code == 0, done.output
    return done.output


def test_numbers(tmp_path: Path) -> None:
    compare(tmp_path / "c.json", "--batch-tokens", 300)
    read = json.loads((tmp_path / "c.json").read_text())
    records = {(one["preset"], one["group"]): one for one in read["groups"] + read["presets"]}
    should = wanted(sample_rows())
    assert set(records) == set(should) and len(records) == 4 * 21 == len(read["groups"]) + len(read["presets"])
    for key, fields in should.items():
        for name, value in fields.items():
            assert records[key][name] == (value if value is None else pytest.approx(value, rel=1e-9, abs=1e-12)), (key, name)
    assert records["pass", None]["dead"] == 5 and records["grpo_process", None]["dead"] == 4


def test_the_numbers_do_not_depend_on_the_batches_or_the_format(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet", reason="SKIPPED: pyarrow is not installed, .parquet was not written")
    texts = {compare(tmp_path / f"{n}.json", *size).replace(f"{n}.json", "") for n, size in enumerate((["--batch-tokens", 1], ["--batch-tokens", 900], ["--whole-file"]))}
    assert len({(tmp_path / f"{n}.json").read_text() for n in range(3)}) == 1 and len(texts) == 1
    compare(tmp_path / "c.csv")
    compare(tmp_path / "c.parquet")
    read = json.loads((tmp_path / "0.json").read_text())
    records = read["groups"] + read["presets"]
    for one in records:
        one["group"] = None if one["group"] is None else str(one["group"])
    assert parquet.read_table(tmp_path / "c.parquet").to_pylist() == records
    with (tmp_path / "c.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert rows == [{name: "" if value is None else str(value) for name, value in one.items()} for one in records]


def test_text_and_picture(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="SKIPPED: matplotlib is not installed, the picture was not drawn")
    done = command("compare", SAMPLE, "--presets", "pass,pass:k=0", "--presets", "grpo_pooled", "--plot", tmp_path / "c.png", "--group", "2")
    assert done.exit_code == 0, done.output
    rows = {line.split("│")[1].strip(): [cell.strip() for cell in line.split("│")[2:-1]] for line in done.output.splitlines() if line.count("│") == 9}
    assert list(rows) == ["pass", "pass:k=0", "grpo_pooled"]
    assert rows["pass"][2:] == ["5", "", "", "", ""] and rows["pass:k=0"][3] == "100.0 %"
    assert "20 groups, 105 rollouts, 3,965 tokens in scope" in done.output and "picture of group 2 (as asked)" in done.output
    assert (tmp_path / "c.png").read_bytes().startswith(b"\x89PNG")


def test_one_preset_and_groups_without_scope(tmp_path: Path) -> None:
    file = write(tmp_path / "r.jsonl", [{"group": g, "len": 0 if g else 2, "signal": [] if g else [1, 2]} for g in range(2)])
    done = command("compare", file, "--presets", "pass", "--out", tmp_path / "c.json")
    assert done.exit_code == 0, done.output
    read = json.loads((tmp_path / "c.json").read_text())
    assert read["groups"][1] == {"preset": "pass", "group": 1, "rollouts": 1, "tokens": 0, "mean_abs": None, "zero_share": None, "dead": 1,
                                 "sign_agreement": None, "correlation": None, "largest_difference": 0.0}


@pytest.mark.parametrize(("arguments", "sentence"), [
    (["--presets", "pass,pas"], 'preset "pas" is unknown; nearest: pass'),
    (["--presets", "pass,pass"], "--presets has pass twice"),
    (["--presets", "k=1"], "begins with a setting; write name or name:key=value,key=value"),
    (["--presets", ""], "--presets is empty"),
    (["--presets", "pass:kk=1"], 'key "kk" is unknown'),
    (["--presets", "pass:whiten=tokens:tokens"], "tokens:tokens"),
    (["--out", "x.npz"], "--out x.npz: the file's name must end in .json, .csv or .parquet"),
])
def test_bad_options(arguments: list[str], sentence: str) -> None:
    done = command("compare", SAMPLE, *arguments)
    assert done.exit_code == 2 and done.output.startswith("passrl: ") and sentence in done.output, done.output
