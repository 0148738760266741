"""What the caller's arguments mean, and the sentences that refuse them."""
from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import passrl

SIGNAL = np.array([1, 1, -1, -1, 0.5, 0.5, 0.5], np.float32)
BATCH: dict[str, Any] = {"signal": SIGNAL, "lengths": [4, 3], "group_size": 2, "outcome": np.array([1.0, 0.0])}


@pytest.mark.parametrize("ends", [
    ([0, 2, 3], [2, 4, 3]), (np.array([0, 2, 3]), np.array([2, 4, 3])), (np.array([0, 2, 3], np.int32), [2, 4, 3]),
    [[2, 4], [3]], [np.array([2, 4]), np.array([3])], ([2, 4], [3]), (np.array([2, 4]), np.array([3])), ((2, 4), (3,)),
])
def test_a_pair_of_step_ends_is_offsets_and_ends_where_it_can_be(ends: Any) -> None:
    shaped = passrl.shape(**BATCH, step_ends=ends)
    assert shaped.status == 0 and shaped.chunk_ends.tolist() == [2, 4, 3]
    chunks = passrl.chunk(SIGNAL, step_ends=ends, lengths=[4, 3])
    assert chunks.offsets.tolist() == [0, 2, 3] and chunks.ends.tolist() == [2, 4, 3]


def test_a_list_of_step_ends_is_a_list_a_rollout() -> None:
    # As a tuple it would be offsets and ends.
    listed = passrl.chunk(np.zeros(6, np.float32), step_ends=[[0, 1, 2], [1, 2]], lengths=[3, 3])
    assert listed.offsets.tolist() == [0, 2, 4]
    one = passrl.chunk(SIGNAL, step_ends=([0, 2], [2, 7]), lengths=[7])
    assert one.ends.tolist() == [2, 4, 7]
