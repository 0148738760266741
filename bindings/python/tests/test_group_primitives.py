"""Standardisation in groups and group flags: against plain f64 loops, and against `passrl.shape` bit for bit."""
from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest

import passrl
import reference

# Groups of 4, 1, 3 and 2 rollouts, in mixed order; the last is constant.
KEYS = ["a", "c", "a", "b", "c", "d", "a", "c", "d", "a"]
X = [1.5, -2, 0.25, 3, 0.5, 0.125, 7, 7, 0.125, -1]
GROUPS = {"keys": {"groups": KEYS}, "numbers": {"groups": np.array([9, -1, 9, 2**40, -1, 3, 9, -1, 3, 9])}}
ORDER = ["a", "c", "b", "d"]
OPTIONS: list[dict[str, Any]] = [
    {}, {"ddof": 0, "epsilon": 0.25}, {"epsilon_mode": "add_var", "epsilon": 0.5}, {"epsilon_mode": "floor_std", "epsilon": 2.0},
    {"epsilon_mode": "floor_var", "epsilon": 9.0}, {"standardize": "mean"}, {"standardize": "leave_one_out"}, {"standardize": "abs_max"},
    {"center": "group", "scale": "abs_max"}, {"standardize": "none"}, {"singleton": "passthrough"},
]


def plain(i: int, options: dict[str, Any]) -> float:
    """Element i of X standardised in its group: one loop for each operator."""
    center, scale = {
        "mean": ("group", "none"), "leave_one_out": ("leave_one_out", "none"), "abs_max": ("none", "abs_max"), "none": ("none", "none"),
    }.get(options.get("standardize", ""), (options.get("center", "group"), options.get("scale", "group")))
    pool = [x for x, key in zip(X, KEYS) if key == KEYS[i]]
    n, x, epsilon = len(pool), X[i], options.get("epsilon", 1e-6)
    if (center, scale) == ("none", "none"):
        return x
    if n == 1 and (center, scale) != ("none", "abs_max"):
        return x if options.get("singleton") == "passthrough" else 0.0
    if scale == "group" and len(set(pool)) == 1:
        return 0.0
    mean = sum(pool) / n
    gap = x - {"group": mean, "leave_one_out": (sum(pool) - x) / max(n - 1, 1), "none": 0.0}[center]
    if scale == "abs_max":
        return gap / max(map(abs, pool))
    if scale == "none":
        return gap
    var = sum((p - mean) ** 2 for p in pool) / (n - options.get("ddof", 1))
    return gap / {"add_std": var**0.5 + epsilon, "add_var": (var + epsilon) ** 0.5, "floor_std": max(var**0.5, epsilon),
                  "floor_var": max(var, epsilon) ** 0.5}[options.get("epsilon_mode", "add_std")]


@pytest.mark.parametrize("options", OPTIONS)
def test_standardize_is_the_loop(options: dict[str, Any]) -> None:
    wanted = [plain(i, options) for i in range(len(X))]
    if not options:
        for key in ORDER:
            group = [x for x, k in zip(X, KEYS) if k == key]
            np.testing.assert_allclose([w for w, k in zip(wanted, KEYS) if k == key], reference.standardised(group, group), rtol=1e-15)
    for groups in GROUPS.values():
        found = passrl.group_standardize(X, **groups, **options)
        assert found.dtype == np.float64
        np.testing.assert_allclose(found, wanted, rtol=1e-12, atol=1e-14)
    for dtype in (np.float32, np.float16, ml_dtypes.bfloat16):
        low = passrl.group_standardize(np.array(X).astype(dtype), KEYS, **options)
        assert low.dtype == np.dtype(dtype)
        np.testing.assert_array_equal(low, found.astype(dtype))
        np.testing.assert_array_equal(passrl.group_standardize(np.array(X).astype(dtype), KEYS, dtype="f64", **options), found)


def test_stats_of_groups() -> None:
    values, stats = passrl.group_standardize(X, KEYS, stats=True)
    np.testing.assert_array_equal(values, passrl.group_standardize(X, KEYS))
    for g, key in enumerate(ORDER):
        pool = np.array([x for x, k in zip(X, KEYS) if k == key])
        assert stats.count[g] == len(pool) and stats.absmax[g] == abs(pool).max()
        assert stats.mean[g] == pytest.approx(pool.mean(), rel=1e-15)
        assert stats.std[g] == pytest.approx(pool.std(ddof=1) if len(pool) > 1 else 0.0, rel=1e-14)
    assert stats.count.dtype == np.int64


def test_other_ways_to_say_groups_and_rollouts_outside_the_sets() -> None:
    x = np.float32([1, 0, 0, 2, 5, 5])
    by_key = passrl.group_standardize(x, [0, 0, 1, 1, 2, 2])
    np.testing.assert_array_equal(passrl.group_standardize(x, group_size=2), by_key)
    np.testing.assert_array_equal(passrl.group_standardize(x, group_offsets=[0, 2, 4, 6]), by_key)
    outside = passrl.group_standardize(x, group_size=3, in_stats=[1, 1, 0, 1, 1, 1], absent=[0, 0, 0, 1, 0, 0], dtype="f64")
    np.testing.assert_allclose(outside, [0.5**0.5, -(0.5**0.5), -(0.5**0.5), 0, 0, 0], rtol=1e-5)
    assert passrl.group_standardize(x, group_size=2, out=x) is x
    np.testing.assert_array_equal(x, by_key)


def test_bits_of_shape() -> None:
    x = np.random.default_rng(4).normal(size=len(KEYS)).astype(np.float32)
    for options in OPTIONS:
        row = {("standardize_outcome" if name == "standardize" else f"outcome.{name}"): value for name, value in options.items()}
        shaped = passrl.shape(kind="none", chunk="none", k=0, outcome=x, lengths=[1] * len(x), groups=KEYS, **row)
        found, stats = passrl.group_standardize(x, KEYS, stats=True, **options)
        np.testing.assert_array_equal(found, shaped.advantages)
        for part, whole in zip(stats, shaped.stats["outcome"]):
            np.testing.assert_array_equal(part, whole)


@pytest.mark.parametrize(("change", "status", "sentence"), [
    ({"x": [1.0, np.nan, 2, 3]}, 401, "x of rollout 1, group 0"), ({"x": [1.0, 0, 2, -np.inf]}, 400, "x of rollout 3, group 1"),
    ({"x": [1.0, 0, 2], "groups": [0, 0, 1], "singleton": "refuse"}, 403, "x of group 1"),
])
def test_findings(change: dict[str, Any], status: int, sentence: str) -> None:
    given = {"groups": [0, 0, 1, 1]} | change
    with pytest.warns(passrl.FindingWarning, match=sentence) as told:
        found = passrl.group_standardize(**given)
    assert told[0].message.status == status and told[0].filename == __file__  # type: ignore[union-attr]
    bad = int(sentence.partition("group ")[2])
    for value, group in zip(found, given["groups"]):
        assert (value == 0) == (group == bad)


def test_missing_may_be_allowed() -> None:
    x = [1.0, np.nan, 3, 4]
    np.testing.assert_allclose(passrl.group_standardize(x, group_size=4, missing="zero", standardize="mean"), [-1, -2, 1, 2])
    np.testing.assert_allclose(passrl.group_standardize(x, group_size=4, missing="exclude", standardize="mean")[[0, 2, 3]],
                               np.array([1, 3, 4]) - 8 / 3, rtol=1e-6)


STREAMS: dict[str, Any] = {
    "outcome": [1.0, 1, 0, 1, 0.5, np.nan, 1, 1], "format": [1.0, 1, 1, 0, 0, 0, 1, 1], "format_ok": [1, 1, 1, 0, 0, 0, 1, 1],
    "streams": {"brevity": [0.0, 0, 3, 1, 2, 1, 1, 1]}, "groups": ["p", "p", "q", "q", "r", "r", "s", "s"],
}


def test_group_flags_by_hand() -> None:
    flags = passrl.group_flags(**STREAMS)
    G, R = passrl.GroupFlag, passrl.RolloutFlag
    columns = {name: [G(int(v)) for v in flags.group_flags[:, flags.stream_names.index(name)]] for name in ("process_0", "outcome", "format", "brevity")}
    none, dead, bad = G(0), G.ZERO_VARIANCE, G.BAD
    assert columns["process_0"] == [none, none, bad, none]
    # A NaN that is not allowed is as bad as an infinity.
    assert columns["outcome"] == [dead, none, bad | G.NONFINITE, dead]
    assert columns["format"] == [dead, none, dead | bad | G.ALL_VIOLATING, dead]
    assert columns["brevity"] == [dead, none, bad, dead]
    assert flags.group_keys == ["p", "q", "r", "s"]
    assert [R(int(v)) for v in flags.rollout_flags] == [
        R(0), R(0), R(0), R.FORMAT_VIOLATING, R.FORMAT_VIOLATING | R.IN_BAD_GROUP, R.FORMAT_VIOLATING | R.IN_BAD_GROUP | R.NONFINITE, R(0), R(0)]
    assert flags.status == 401 and flags.findings == passrl.Finding.MISSING and "rollout 5 of group 2" in flags.message
    assert (flags.report.rollouts, flags.report.bad_groups, flags.report.violating_groups) == (8, 1, 1)


def test_group_flags_are_those_of_a_run() -> None:
    for change in ({}, {"in_stats": [1, 0, 1, 1, 1, 1, 1, 1]}, {"absent": [0, 0, 0, 0, 0, 1, 0, 0]}, {"outcome.missing": "exclude"}, {"outcome": None}):
        given = STREAMS | change
        flags = passrl.group_flags(kind="none", **given)
        run = passrl.shape(kind="none", lengths=[1] * 8, **given)
        np.testing.assert_array_equal(flags.group_flags, run.group_flags)
        np.testing.assert_array_equal(flags.rollout_flags, run.rollout_flags)
        assert (flags.status, flags.message.partition(":")[2]) == (run.status, run.message.partition(":")[2])
        assert flags.report.degenerate_groups == run.report.degenerate_groups
    # Nothing to find: no status, no message.
    clean = passrl.group_flags([1.0, 0.0], group_size=2, preset=passrl.Config("pass"))
    assert (clean.status, clean.message, clean.findings, clean.group_keys) == (0, "", passrl.Finding(0), None)
