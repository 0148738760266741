"""What the plug-ins share: records of process rewards, and configurations as text. The frameworks themselves are met in tests/frameworks."""
from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import passrl
from passrl.plugins import records, settings

STEPS: list[dict[str, Any]] = [{"step_end": [2, 4], "step_score": [1, -1], "format": 1}, {"step_end": [3], "step_score": [0.5], "format": 1}, {"step_end": [1, 2, 5], "step_score": [0.25, 0.25, -0.5], "format": 0}]
WORKED = [1.9896688, 1.9896688, 0.2248985, 0.2248985, 0.5796728, 0.5796728, 0.5796728, -4.816441, -4.264802, 0, -3.4640956, -3.4640956]


def test_records_give_the_worked_example() -> None:
    arguments = records.arguments(passrl.Config(), STEPS, [1, 0, 0], [4, 3, 5])
    shaped = passrl.shape(cu_seqlens=np.array([0, 4, 7, 12]), mask=np.array([1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 1, 1], bool), group_size=3, **arguments)
    np.testing.assert_allclose(shaped.advantages, WORKED, rtol=0, atol=5e-7)


def test_records_as_text_and_with_begins() -> None:
    with_begins = [row | {"step_begin": [0, *row["step_end"][:-1]]} for row in STEPS]
    found = records.arguments(passrl.Config(), [json.dumps(row) for row in with_begins], [1, 0, 0], [4, 3, 5])
    np.testing.assert_array_equal(found["steps"].begins, [0, 2, 0, 0, 1, 2])
    np.testing.assert_array_equal(found["steps"].offsets, [0, 2, 3, 6])


def test_a_rollout_without_process_rewards_is_one_chunk() -> None:
    rows = [{"step_end": [2, 4], "step_score": [1, -1]}, None, "null"]
    shaped = passrl.shape(lengths=[4, 3, 5], group_size=3, **records.arguments(passrl.Config(), rows, [1, 0, 1], [4, 3, 5]))
    assert list(shaped.num_chunks) == [2, 1, 1]


@pytest.mark.parametrize("width", [None, 6])
def test_a_process_reward_a_token(width: int | None) -> None:
    rows = [{"signal": [1, 1, 2]}, {"signal": [3, 4]}]
    found = records.arguments(passrl.Config(), rows, [1, 0], [3, 2], width=width)["signal"]
    np.testing.assert_array_equal(found, [1, 1, 2, 3, 4] if width is None else [[1, 1, 2, 0, 0, 0], [3, 4, 0, 0, 0, 0]])


def test_further_streams_and_outcomes() -> None:
    found = records.arguments(passrl.Config("trl.grpo"), [{"outcome": 2, "streams": {"a": 1}}, None], [5, 7], [3, 2])
    np.testing.assert_array_equal(found["outcome"], [2, 7])
    np.testing.assert_array_equal(found["streams"]["a"], [1, np.nan])
    # An estimator without a format reward has no gate.
    assert "format" not in records.arguments(passrl.Config("trl.grpo"), [{"format": 0}], [1], [3])


@pytest.mark.parametrize("rows, told", [
    ([None, None], "no rollout of the batch has a process record; compute_score gives them"),
    ([{"step_end": [3]}, None], "rollout 0 has step_end without step_score"),
    ([None, {"step_end": [1, 2], "step_score": [1]}], "rollout 1 has 2 step_end and 1 step_score"),
    ([{"step_end": [1], "step_score": [1]}, {"signal": [1, 2]}], "rollout 1 has a signal and others have step_end"),
    ([{"signal": [1, 2]}, None], "a signal of 2 values and its response has 3 tokens"),
    ([{"steps": [1]}, None], "rollout 0 has the key 'steps'; it knows step_end"),
    ([3, None], "rollout 0 is a int"),
    (["{", None], "rollout 0 is text that is no JSON"),
    ([{"step_end": [1], "step_score": [1], "format": 1}, None], "rollout 1 has no format and others have"),
    ([{"step_end": [1], "step_score": [1], "step_begin": [0]}, {"step_end": [1], "step_score": [1]}], "rollout 1 has no step_begin"),
    ([{"step_end": [1], "step_score": ["x"]}, None], r"rollout 0 has step_score\[0\] 'x'; it must be a number"),
    ([None, {"step_end": [1, 2.5], "step_score": [1, 1]}], r"rollout 1 has step_end\[1\] 2.5; it must be a whole number"),
    ([{"step_end": [1], "step_score": 1}, None], "rollout 0 has step_score 1; it must be a list, one a step"),
    ([None, {"signal": [1, [2]]}], r"rollout 1 has signal\[1\] \[2\]; it must be a number"),
    ([{"signal": [1, 2, 3], "outcome": "high"}, None], "rollout 0 has outcome 'high'"),
    ([{"signal": [1, 2, 3], "streams": {"a": "b"}}, None], r"rollout 0 has streams\['a'\] 'b'"),
])
def test_bad_records_are_named(rows: list[object], told: str) -> None:
    with pytest.raises(passrl.Error, match=told):
        records.arguments(passrl.Config(), rows, [1, 0], [3, 2], where="compute_score")


def test_configurations_as_text(monkeypatch: pytest.MonkeyPatch) -> None:
    assert settings.configured("pass:k=0.5, outcome.ddof=0") == passrl.Config("pass", k=0.5, **{"outcome.ddof": 0})
    assert settings.configured("verl.grpo", {"scale": "none"}) == passrl.Config("verl.grpo", scale="none")
    assert settings.from_environment() == passrl.Config("pass")
    monkeypatch.setenv("PASSRL_PRESET", "grpo_process:k=0.2")
    assert settings.from_environment() == passrl.Config("grpo_process", k=0.2)
    assert settings.from_environment("pass") == passrl.Config("pass")
    with pytest.raises(passrl.ArgumentError, match="write NAME:KEY=VALUE"):
        settings.configured("pass:k")
    with pytest.raises(passrl.UnknownNameError, match="nearest"):
        settings.configured("pas")


def test_the_package_imports_numpy_alone() -> None:
    program = "import sys, passrl, passrl.plugins.records, passrl.plugins.settings; print([m for m in ('torch', 'verl', 'trl', 'jax') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.strip() == "[]"


def test_findings_are_told() -> None:
    from passrl.plugins import lists

    rows = [{"step_end": [9], "step_score": [1]}, {"step_end": [2], "step_score": [0]}]
    with pytest.warns(passrl.FindingWarning, match="rollout 0"):
        found, _ = lists.shaped(passrl.Config(), rows, [1, 0], [[1, 1], [1, 1]], ["a", "b"])
    assert [row.tolist() for row in found] == [[0, 0], [0, 0]]


def test_token_offsets_of_character_offsets() -> None:
    texts = ["Step", " one", "\n", "Step two", ".", ""]
    assert records.token_ends(texts, [9, 17, 18]) == [3, 4, 6]
    # A token across the offset is the earlier step's.
    assert records.token_ends(texts, [6, 18]) == [2, 6]
    assert records.token_ends([], [0]) == [0]
    with pytest.raises(passrl.ArgumentError, match="offset 19 in a text of 18 characters"):
        records.token_ends(texts, [19])


def test_the_guides_record_block_runs() -> None:
    guide = (Path(__file__).resolve().parents[3] / "docs" / "plugins.md").read_text("utf-8")
    exec(compile(guide.split("```python\n")[1].split("```")[0], "docs/plugins.md", "exec"), {})


def test_the_guide_names_every_plug_in() -> None:
    guide = (Path(__file__).resolve().parents[3] / "docs" / "plugins.md").read_text("utf-8")
    shared = {"__init__", "records", "settings", "lists", "spans", "imports", "verl"}
    for file in (Path(passrl.__file__).parent / "plugins").glob("*.py"):
        assert file.stem in shared or f"passrl.plugins.{file.stem}" in guide or file.stem == "deepspeed_chat", file.stem


@pytest.mark.parametrize("dtype", [object, str])
def test_groups_that_are_arrays_of_text(dtype: Any) -> None:
    # verl's uid; called again and again, as a trainer does.
    groups = np.array(["b", "a", "b", "a"], dtype=dtype)
    for outcome in ([1.0, 2, 3, 5], [4.0, 0, 3, 5]):
        given = np.array(outcome)
        mask, lengths = np.ones((4, 3), dtype=bool), np.array([3, 2, 3, 1])
        shaped = passrl.shape("verl.grpo", outcome=given, groups=groups, mask=mask, lengths=lengths)
        wanted = passrl.shape("verl.grpo", outcome=outcome, groups=[1, 0, 1, 0], mask=mask, lengths=lengths)
        np.testing.assert_array_equal(shaped.advantages, wanted.advantages)
        assert shaped.group_keys == ["b", "a"]
