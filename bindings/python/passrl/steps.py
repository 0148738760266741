"""Steps of rollouts: as arrays, and from the forms in which their ends may be given."""
from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from . import arrays
from .errors import ERR_VALUE, refuse


@dataclass(frozen=True)
class Steps:
    """Steps in CSR form.

    offsets: `[R+1]` i32/i64, steps of rollout i are `offsets[i] .. offsets[i+1]`. ends: `[S]` i32/i64, exclusive end of each step in
    tokens of its rollout. scores: `[S]` or `[P, S]` for P process streams, f32, bf16, f16 or f64 (None beside a signal or
    log-probabilities). begins: `[S]`; given, tokens outside steps are out of scope. groups: `[S]` integers, steps of a
    group with equal numbers share statistics (`step_sets="step_group"`).
    """

    offsets: Any
    ends: Any
    scores: Any = None
    begins: Any = None
    groups: Any = None


def ragged(rows: Any) -> Steps:
    """Steps from a sequence of R sequences of ends."""
    counts = [len(row) for row in rows]
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    ends = np.array([end for row in rows for end in row] or np.zeros(0, dtype=np.int64))
    if ends.ndim != 1 or ends.dtype.kind not in "iu":
        refuse(ERR_VALUE, f"passrl: step_ends has rows of {ends.dtype}; an end is a whole number")
    return Steps(offsets, ends.astype(np.int64, copy=False))


def _many(value: Any) -> bool:
    """An array or a list."""
    return arrays.is_array(value) or (hasattr(value, "__len__") and not isinstance(value, (str, bytes)))


def _offsets(first: Any, second: Any, rollouts: int) -> bool:
    """Whether a pair's first part can be the offsets of the second: R+1 numbers, from 0 to the second's length."""
    if arrays.cuda_device(first) is not None or (arrays.is_array(first) and not hasattr(first, "__array__")):
        # What is on a device, or is known by its memory alone, is not read for this.
        return True
    try:
        found = arrays.host(first, "step_ends")
        return found.shape == (rollouts + 1,) and found.dtype.kind in "iu" and int(found[0]) == 0 and int(found[-1]) == len(second)
    except (ValueError, TypeError):
        return False


def from_ends(value: Any, rollouts: int) -> Steps:
    """Steps from `step_ends=`: a tuple (offsets, ends), or R sequences of ends. Of a tuple of two for two rollouts the first part tells which it is."""
    if isinstance(value, Steps):
        return value
    if isinstance(value, tuple) and len(value) == 2 and all(map(_many, value)) and (rollouts != 2 or _offsets(*value, rollouts)):
        return Steps(*value)
    if isinstance(value, (list, tuple)) and all(map(_many, value)):
        return ragged(value)
    refuse(ERR_VALUE, f"passrl: step_ends is a {type(value).__name__}; give (offsets [R+1], ends [S]), a list of R lists of ends, or marks a token as step_marks")
