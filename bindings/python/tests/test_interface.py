"""Configuration, errors, plans, partials."""
from __future__ import annotations

import copy
import pickle
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import passrl
from passrl.config import CHOICES, FIELDS, STREAM_CHOICES, STREAM_NAMES

BATCH: dict[str, Any] = {
    "signal": np.array([1, 1, -1, -1, 0.5, 0.5, 0.5], np.float32), "cu_seqlens": np.array([0, 4, 7]), "outcome": np.array([1.0, 0.0]),
}


def test_choices_are_the_librarys() -> None:
    for field, values in CHOICES.items():
        for number, value in enumerate(values):
            config = passrl.Config(**{field: value})
            assert getattr(config._raw, field) == number and getattr(config, field) == value
    for field, values in STREAM_CHOICES.items():
        for number, value in enumerate(values):
            row = passrl.Config(**{"outcome." + field: value}).streams["outcome"]
            assert getattr(row._row(), field) == number and getattr(row, field) == value
    for name, row in passrl.Config().streams.items():
        assert row.name == name
    assert len(STREAM_NAMES) == 16 and "k" in FIELDS


def test_config() -> None:
    config = passrl.Config("pass", k=0.5, standardize="abs_max", w_outcome=2, outcome={"ddof": 0}, strict=True, clip=np.float32(3))
    assert (config.k, config.strict, config.clip, config.streams["outcome"].weight) == (0.5, True, 3.0, 2.0)
    assert [config.streams[name].scale for name in ("process_0", "outcome")] == ["abs_max", "abs_max"]
    assert (config.streams["outcome"].ddof, config.streams["format"].ddof) == (0, 1)
    config.gamma = 0.9
    config.streams["format"].weight = 0.5
    assert (config.gamma, config.streams["format"].weight) == (0.9, 0.5)
    for again in (copy.copy(config), copy.deepcopy(config), pickle.loads(pickle.dumps(config)), config.replace()):
        assert again == config and again.told == config.told
    assert config.replace(k=0) != config and config.k == 0.5
    assert repr(passrl.Config("pass", k=0.5)) == "Config(k=0.5)"
    assert passrl.Config("grpo_process").chunk == "step"
    assert [str(preset) for preset in passrl.presets()][:3] == ["pass", "grpo_process", "grpo_pooled"]
    preset = passrl.presets()[0]
    assert "2606.29296" in preset.source
    for same in (copy.copy(preset), copy.deepcopy(preset), *(pickle.loads(pickle.dumps(preset, protocol)) for protocol in range(pickle.HIGHEST_PROTOCOL + 1))):
        assert type(same) is passrl.Preset and (same, same.source) == (preset, preset.source)


@pytest.mark.parametrize(("change", "kind", "status", "sentence"), [
    ({"gama": 0.9}, passrl.UnknownNameError, -103, 'key "gama" is unknown; nearest: gamma'),
    ({"outcom": [1, 0]}, passrl.UnknownNameError, -103, "or the argument outcome"),
    ({"preset": "pas"}, passrl.UnknownNameError, -103, 'preset "pas" is unknown; nearest: pass'),
    ({"chunk": "by_valu"}, passrl.ArgumentError, -101, "chunk is \"by_valu\""),
    ({"k": 9}, passrl.ArgumentError, -101, "config.k is 9.0; it must be from 0.0 to 8.0"),
    ({"credit": "gae"}, passrl.ArgumentError, -104, "set k = 0"),
    ({"group_size": None}, passrl.ArgumentError, -100, "group_index, batch.group_offsets and batch.group_size"),
    ({"group_size": 3}, passrl.ShapeError, -200, "leaves 2 rollouts over"),
    ({"outcome": np.ones(3)}, passrl.ShapeError, -200, "batch.outcome has 3 elements; it must have 2"),
    ({"outcome": np.ones(2, np.int32)}, passrl.DtypeError, -201, "outcome has dtype int32; it must be a float type: give outcome.astype(np.float32)"),
    ({"signal": np.ones(7)}, passrl.DtypeError, -201, "signal has dtype float64; a process signal is float32, bfloat16 or float16: give signal.astype(np.float32)"),
    ({"signal": np.ones(7, np.int16)}, passrl.DtypeError, -201, "signal has dtype int16"),
    ({"signal": np.ones((1, 1, 7), np.float32)}, passrl.ShapeError, -200, "signal has 3 dimensions"),
    ({"signal": "text"}, passrl.ArgumentError, -101, "signal is a str; it must be an array"),
    ({"signal": None}, passrl.ArgumentError, -100, "give exactly one, or set kind = none"),
    ({"cu_seqlens": None}, passrl.ArgumentError, -100, "neither cu_seqlens"),
    ({"cu_seqlens": np.array([0, 4, 8])}, passrl.ShapeError, -205, "batch.cu_seqlens[2] is 8; there are 7 elements"),
    ({"signal": None, "kind": "none", "cu_seqlens": np.array([0, 4, -7])}, passrl.ShapeError, -205, "batch.cu_seqlens[2] is -7 after 4"),
    ({"group_size": None, "group_offsets": np.array([0, 2**40, 2])}, passrl.ShapeError, -205, "batch.group_offsets[2] is 2 after 1099511627776"),
    ({"format_ok": [1, 0]}, passrl.ArgumentError, -104, "format_ok is given without batch.format"),
    ({"stats_in": b"x" * 64}, passrl.NotServedError, -105, "batch.stats_in"),
    ({"comm": object()}, passrl.ArgumentError, -101, "comm is a object"),
    ({"backend": "tpu"}, passrl.ArgumentError, -101, "backend is 'tpu'"),
    ({"pad_side": "up"}, passrl.ArgumentError, -101, "pad_side is 'up'"),
    ({"out": np.zeros(7, np.int32)}, passrl.DtypeError, -201, "outputs.advantages has dtype i32"),
    ({"out": np.zeros(6, np.float32)}, passrl.ShapeError, -200, "outputs.advantages has 6 elements; it must have 7"),
    ({"dtype": "int7"}, passrl.DtypeError, -201, "dtype is 'int7'"),
    ({"threads": "x"}, passrl.ArgumentError, -101, "threads is 'x'; it must be a whole number"),
    ({"threads": 1.5}, passrl.ArgumentError, -101, "threads is 1.5"),
    ({"group_size": "2"}, passrl.ArgumentError, -101, "group_size is '2'; it must be a whole number"),
    ({"group_size": 1.5}, passrl.ArgumentError, -101, "group_size is 1.5"),
    ({"mask": ["False"] * 7}, passrl.ArgumentError, -101, "mask is a list that is no array of bool (an element is text)"),
    ({"outcome": np.ma.array([1.0, 9], mask=[0, 1])}, passrl.ArgumentError, -101, "outcome is a masked array with 1 elements masked; give outcome.filled"),
    ({"streams": {1: [1.0, 2]}}, passrl.ArgumentError, -101, "streams has the name 1, a int"),
    ({"step_ends": [[2.5, 4], [3]]}, passrl.ArgumentError, -101, "step_ends has rows of float64; an end is a whole number"),
    ({"step_ends": ["ab", "c"]}, passrl.ArgumentError, -101, "step_ends is a list; give (offsets [R+1], ends [S]), a list"),
])
def test_errors(change: dict[str, Any], kind: type[passrl.Error], status: int, sentence: str) -> None:
    with pytest.raises(passrl.Error) as caught:
        passrl.shape(**(BATCH | {"group_size": 2} | change))
    assert type(caught.value) is kind and caught.value.status == status, caught.value
    assert sentence in str(caught.value)
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


def test_findings_are_told_and_strict_refuses() -> None:
    bad = BATCH | {"signal": np.array([1, np.inf, -1, -1, 0.5, 0.5, 0.5], np.float32), "group_size": 1}
    shaped = passrl.shape(**bad)
    assert shaped.status == 400 and "rollout 0 of group 0 has a value that is not finite" in shaped.message
    assert shaped.findings == passrl.Finding.NONFINITE and not shaped.advantages[:4].any()
    assert shaped.rollout_flags[0] & passrl.RolloutFlag.IN_BAD_GROUP
    assert shaped.group_flags[0, 0] & passrl.GroupFlag.NONFINITE
    with pytest.raises(passrl.DataError, match="not finite") as caught:
        passrl.shape(strict=True, **bad)
    assert caught.value.status == -400
    both = shaped.report + passrl.shape(group_size=2, **BATCH).report
    assert both.rollouts == 4 and both.nonfinite_values == 1 and both.status == 400
    assert pickle.loads(pickle.dumps(both)) == both


def test_gae_gives_returns() -> None:
    values = np.linspace(0, 1, 7, dtype=np.float32)
    rewards = np.array([0, 0, 0, 1, 0, 0, 2], np.float32)
    shaped = passrl.shape(kind="none", credit="gae", k=0, gamma=0.9, lam=0.8, token_rewards=rewards, values=values,
                          cu_seqlens=BATCH["cu_seqlens"], dtype="f64")
    wanted = np.zeros(7)
    for begin, end in ((0, 4), (4, 7)):
        carry = 0.0
        for t in reversed(range(begin, end)):
            after = float(values[t + 1]) if t + 1 < end else 0.0
            carry = float(rewards[t]) + 0.9 * after - float(values[t]) + 0.9 * 0.8 * carry
            wanted[t] = carry
    np.testing.assert_allclose(shaped.advantages, wanted, atol=1e-12)
    np.testing.assert_allclose(shaped.returns, wanted + values, atol=1e-12)


def test_plan_is_run_again_on_new_values() -> None:
    plan = passrl.Plan("pass", k=0.5, rollouts=8, tokens=100, groups=4)
    assert "divide: k 0.5" in repr(plan) and plan.config.k == 0.5
    signal = BATCH["signal"].copy()
    call = plan.bind(**(BATCH | {"signal": signal}), group_size=2)
    first = call().advantages.copy()
    np.testing.assert_array_equal(first, passrl.shape(k=0.5, group_size=2, **BATCH).advantages)
    signal[:2] = -3
    second = call().advantages
    np.testing.assert_array_equal(second, passrl.shape(k=0.5, group_size=2, **(BATCH | {"signal": signal})).advantages)
    assert (first != second).any()
    with pytest.raises(passrl.ShapeError, match="limits.rollouts allows 0 to 8"):
        plan.run(signal=np.zeros(9, np.float32), lengths=[1] * 9, group_size=9)
    with pytest.raises(passrl.UnknownNameError, match='"signl" is unknown; nearest: signal'):
        plan.run(signl=1)
    with pytest.raises(passrl.ArgumentError, match="a plan's weights"):
        plan.run(**BATCH, group_size=2, streams={"x": (np.ones(2), 0.5)})


def test_plan_from_many_threads() -> None:
    plan = passrl.Plan(rollouts=2, tokens=7)
    wanted = passrl.shape(group_size=2, **BATCH).advantages
    wrong: list[Any] = []

    def work() -> None:
        for _ in range(200):
            if not np.array_equal(plan.run(group_size=2, **BATCH).advantages, wanted):
                wrong.append(1)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@pytest.mark.parametrize("fields", [{}, {"kind": "kl"}, {"whiten": "tokens"}])
def test_partials_equal_one_call(fields: dict[str, Any], tmp_path: Path) -> None:
    random = np.random.default_rng(5)
    lengths = random.integers(1, 9, 12)
    signal = [np.round(random.normal(size=n).astype(np.float32), 1) for n in lengths]
    groups, outcome = random.permutation(np.repeat(np.arange(3), 4)), random.normal(size=12)
    index, keys = passrl.group_index(groups)
    whole = passrl.shape(signal=np.concatenate(signal), lengths=lengths, groups=groups, outcome=outcome, **fields)
    assert len(keys) == 3

    def part(rows: Any) -> dict[str, Any]:
        return {"signal": np.concatenate([signal[i] for i in rows]), "lengths": lengths[rows], "groups": index[rows], "outcome": outcome[rows]}

    plan = passrl.Plan(passrl.Config(**fields), rollouts=12, groups=3, tokens=200, rollout_tokens=16)
    micro = [part(rows) for rows in ([3, 1, 7, 11], [0, 2], [10, 9, 8, 6, 5, 4])]
    one, other = passrl.Partials(plan), passrl.Partials(plan)
    assert one.phases == (4 if "whiten" in fields else 2)
    for phase in range(one.phases):
        one.add(phase, **micro[0])
        one.add(phase, **micro[2])
        other.add(phase, **micro[1])
        # Two processes: all-reduce by hand over the sections of the phase.
        for mine, theirs in zip(one.sections(phase), other.sections(phase)):
            both = mine.data + theirs.data if mine.op == "sum" else np.maximum(mine.data, theirs.data)
            mine.data[:] = theirs.data[:] = both
    assert one.to_bytes() == other.to_bytes()
    one.save(tmp_path / "partials")
    loaded = passrl.Partials.load(plan, tmp_path / "partials")
    assert loaded.to_bytes() == one.to_bytes()
    begins = np.concatenate([[0], np.cumsum(lengths)])
    for rows, batch in zip(([3, 1, 7, 11], [0, 2], [10, 9, 8, 6, 5, 4]), micro):
        wanted = np.concatenate([whole.advantages[begins[i] : begins[i + 1]] for i in rows])
        np.testing.assert_array_equal(loaded.apply(**batch).advantages, wanted)


FIRST = {"signal": BATCH["signal"][:4], "lengths": [4], "groups": [0], "outcome": [1.0]}
SECOND = {"signal": BATCH["signal"][4:], "lengths": [3], "groups": [0], "outcome": [0.0]}


@pytest.mark.parametrize("whiten", ["none", "tokens"])
def test_partials_merge_after_each_phase(whiten: str) -> None:
    """Each process adds its micro-batches, one merges, and all go on with copies of what that came to."""
    plan = passrl.Plan(rollouts=2, groups=1, tokens=7, whiten=whiten)
    one, other = passrl.Partials(plan), passrl.Partials(plan)
    for phase in range(one.phases):
        one.add(phase, **FIRST)
        other.add(phase, **SECOND)
        one.merge(other)
        other = passrl.Partials.from_bytes(plan, one.to_bytes())
    whole = passrl.shape(group_size=2, whiten=whiten, **BATCH).advantages
    np.testing.assert_array_equal(np.concatenate([one.apply(**FIRST).advantages, other.apply(**SECOND).advantages]), whole)
    before = one.to_bytes()
    other.clear()
    other.add(0, **FIRST)
    with pytest.raises(passrl.ArgumentError, match="into and from differ in phase 0, and a later phase has begun"):
        one.merge(other)
    assert one.to_bytes() == before


def test_partials_of_another_plan_are_refused() -> None:
    one = passrl.Partials(passrl.Plan(rollouts=2, groups=1, tokens=7))
    with pytest.raises(passrl.ShapeError, match="configuration, limits and version must be the same") as caught:
        passrl.Partials.from_bytes(passrl.Plan(k=0.1, rollouts=2, groups=1, tokens=7), one.to_bytes())
    assert caught.value.status == -207


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ([], "none of the 2 phases has been given anything, and this slice has 1 rollout"),
        ([(1, FIRST)], "phase 1 is given 1 rollout\\(s\\) and phase 0 has been given none"),
        ([(0, FIRST), (0, SECOND)], "phase 0 has been given 2 rollout\\(s\\) and phase 1 0"),
        ([(0, FIRST), (1, FIRST), (0, SECOND)], "phase 0 is given 1 rollout\\(s\\) after phase 1 has been given 1"),
        ([(0, FIRST), (0, SECOND), (1, SECOND)], "phase 0 has been given 2 rollout\\(s\\) and phase 1 1"),
        ([(0, FIRST), (1, FIRST), (1, FIRST)], "phase 0 has been given 1 rollout\\(s\\) and phase 1 2"),
    ],
)
def test_phases_that_are_not_in_order_are_refused(given: list[tuple[int, dict[str, Any]]], told: str) -> None:
    partials = passrl.Partials(passrl.Plan(rollouts=2, groups=1, tokens=7))
    with pytest.raises(passrl.ArgumentError, match=told):
        for phase, batch in given:
            partials.add(phase, **batch)
        partials.apply(**FIRST)


def test_a_plan_is_pickled_and_copied_as_a_plan_of_its_own() -> None:
    plan = passrl.Plan("pass", k=0.25, rollouts=2, groups=1, tokens=7, threads=1)
    whole = plan.run(group_size=2, **BATCH).advantages
    others = [pickle.loads(pickle.dumps(plan)), copy.copy(plan), copy.deepcopy({"plan": plan})["plan"]]
    for other in others:
        assert other.handle.value != plan.handle.value and repr(other) == repr(plan) and other.config == plan.config
    del plan
    for other in others:
        np.testing.assert_array_equal(other.run(group_size=2, **BATCH).advantages, whole)
    with_ranks = passrl.Plan("pass", rollouts=2, groups=1, tokens=7, comm=passrl.Collective(lambda *_: None, 0, 1))
    for again in (pickle.dumps, copy.copy):
        with pytest.raises(passrl.ArgumentError, match="each rank makes its own"):
            again(with_ranks)


def test_a_stream_has_no_other_rows_name() -> None:
    one, two = np.float32([1, 0]), np.float32([0, 1])
    for streams in ({"outcome": two}, {"process_0": two}, {"format": two}, {"extra_1": two}, {"judge": two, "extra_0": one}):
        with pytest.raises(passrl.ArgumentError, match="another row's of the stream table"):
            passrl.shape(group_size=2, streams=streams, **BATCH)
    stats = passrl.shape(group_size=2, streams={"extra_0": two, "extra_1": one}, **BATCH).stats
    assert stats["extra_1"].count[0] == 2 and {"extra_0", "extra_1", "outcome"} <= set(stats)


def test_library_path_and_types() -> None:
    assert passrl.library_path.exists() and passrl.__version__.startswith("0.1.") and passrl.numerics_version >= 1
    pytest.importorskip("mypy", reason="SKIPPED: mypy is not installed, types were not checked")
    root = Path(__file__).resolve().parents[1]
    done = subprocess.run([sys.executable, "-m", "mypy", "--strict", "passrl"], cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
