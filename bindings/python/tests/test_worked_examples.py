"""The worked examples of the specification, through `passrl.shape`, in every layout."""
from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import passrl

DEFAULTS = [1.989668793] * 2 + [0.224898493] * 2 + [0.579672813] * 3 + [-4.816441028, -4.264801964, 0, -3.464095615, -3.464095615]
TABLE: list[tuple[dict[str, Any], list[float]]] = [
    ({}, DEFAULTS),
    ({"k": 0}, [3.232226490] * 2 + [0.224898493] * 2 + [0.579672813] * 3 + [-10.392286845, -6.928191230, 0, -3.464095615, -3.464095615]),
    ({"merge_equal_steps": True}, DEFAULTS[:7] + [-4.264801964, -4.264801964, 0, -3.464095615, -3.464095615]),
    ({"standardize": "abs_max"}, [2.462288827] * 2 + [1] * 2 + [1.5] * 3 + [0] * 5),
]


@pytest.mark.parametrize(("fields", "wanted"), TABLE)
def test_prm(example: Any, fields: dict[str, Any], wanted: list[float]) -> None:
    found, _ = example(dtype="f64", **fields)
    np.testing.assert_allclose(found, wanted, atol=1e-8, rtol=0)
    found, _ = example(**fields)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, wanted, atol=1e-6, rtol=0)


def test_outputs(example: Any) -> None:
    _, shaped = example()
    np.testing.assert_allclose(shaped.path_scores, [1.989668793, 0.579672813, -4.816441028], atol=1e-8)
    assert shaped.num_chunks.tolist() == [2, 1, 3]
    assert shaped.chunk_offsets.tolist() == [0, 2, 3, 6]
    assert shaped.chunk_ends.tolist() == [2, 4, 3, 1, 2, 5]
    assert shaped.chunk_values[1] == pytest.approx(0.224898493)
    assert list(shaped.stats) == ["process_0", "outcome", "format"]
    assert shaped.stats["process_0"].count.tolist() == [6]
    assert shaped.stats["outcome"].std[0] == pytest.approx(3**-0.5)
    assert shaped.rollout_flags.tolist() == [0, 0, passrl.RolloutFlag.FORMAT_VIOLATING]
    assert (shaped.status, shaped.message, shaped.findings) == (0, "", passrl.Finding(0))
    assert shaped.report.tokens == 11 and shaped.report.chunks == 6
    assert shaped.returns is None and shaped.group_keys == ["q"]


@pytest.mark.parametrize(("standardize", "a", "b"), [
    ("mean_std", [0.633453658] * 3 + [-0.833546453], [-1.349044212] * 3),
    ("abs_max", [1.692823568] * 3 + [1], [0.25] * 3),
])
def test_kl(standardize: str, a: list[float], b: list[float]) -> None:
    signal = np.array([-0.5, -0.25, -0.25, -1.0, -0.5, -0.75, -0.75], np.float32)
    shaped = passrl.shape(kind="kl", signal=signal, lengths=[4, 3], group_size=2, outcome=[1, 0], format=[1, 1], format_ok=[1, 1],
                          standardize=standardize)
    np.testing.assert_allclose(shaped.advantages, a + b, atol=1e-6)
    # The same from log-probabilities: without steps the kind is kl.
    teacher, policy = signal.astype(np.float64) - 1, np.full(7, -1.0)
    opd = passrl.shape(logp_policy=policy, logp_teacher=teacher, lengths=[4, 3], group_size=2, outcome=[1, 0], format=[1, 1],
                       standardize=standardize)
    np.testing.assert_array_equal(opd.advantages, shaped.advantages)


def test_dense_and_sparse_forms_equal_steps() -> None:
    per_rollout: dict[str, Any] = {"cu_seqlens": np.array([0, 4, 7]), "group_size": 2, "outcome": [1, 0], "format": [1, 1]}
    ends = passrl.Steps(np.array([0, 2, 3]), np.array([2, 4, 3]), np.array([1, -1, 0.5]))
    by_steps = passrl.shape(steps=ends, **per_rollout).advantages
    dense = np.array([1, 1, -1, -1, 0.5, 0.5, 0.5], np.float32)
    np.testing.assert_array_equal(passrl.shape(signal=dense, step_ends=[[2, 4], [3]], **per_rollout).advantages, by_steps)
    np.testing.assert_array_equal(passrl.shape(signal=dense, step_ends=(ends.offsets, ends.ends), **per_rollout).advantages, by_steps)
    np.testing.assert_array_equal(passrl.shape(signal=dense, **per_rollout).advantages, by_steps)
    sparse, marks = np.array([0, 1, 0, -1, 0, 0, 0.5], np.float32), np.array([0, 1, 0, 1, 0, 0, 1], np.bool_)
    np.testing.assert_array_equal(passrl.shape(signal=sparse, step_marks=marks, **per_rollout).advantages, by_steps)
    given = passrl.shape(signal=dense, chunk_ends=marks, **per_rollout)
    assert given.num_chunks.tolist() == [2, 1]


def test_two_process_streams_and_a_further_one() -> None:
    batch: dict[str, Any] = {"lengths": [4, 4], "group_size": 2}
    one, two = np.array([1, 1, 0, 0, 2, 2, 2, 2], np.float32), np.array([0, 0, 5, 5, 1, 1, 1, 1], np.float32)
    extra = np.array([1.0, 3.0], np.float32)
    shaped = passrl.shape(signal=[one, two], streams={"brevity": (extra, 0.5)}, **batch)
    assert list(shaped.stats) == ["process_0", "process_1", "brevity"]
    assert shaped.stats["brevity"].mean.tolist() == [2.0]
    without = passrl.shape(signal=[one, two], streams={"brevity": (extra, 0.0)}, **batch)
    assert (shaped.advantages != without.advantages).all()
    scores = np.array([[1, 0, 2], [0, 5, 1]], np.float32)
    csr = passrl.shape(steps=passrl.Steps([0, 2, 3], [2, 4, 4], scores), streams={"brevity": (extra, 0.5)}, **batch)
    np.testing.assert_array_equal(csr.advantages, shaped.advantages)
