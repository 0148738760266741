"""Token-shaped test data in every layout, and back."""
from __future__ import annotations

from typing import Any

import numpy as np

LENGTHS = [4, 1, 0, 7, 70, 3]
# One hole in the middle, one at an end, a rollout without any scope.
SCOPES = [[True] * n for n in LENGTHS]
SCOPES[0][2] = SCOPES[3][0] = SCOPES[3][6] = False
SCOPES[4][10:40] = [False] * 30
SCOPES[5] = [False] * 3
LAYOUTS = ["packed", "lengths", "right", "left", "mask"]
Rows = list[list[float]]


def data(seed: int) -> Rows:
    """Multiples of 1/8 below 8: exact in every float type."""
    random = np.random.default_rng(seed)
    return [list(random.integers(-63, 64, n) / 8) for n in LENGTHS]


def in_scope(rows: Rows) -> Rows:
    """The in-scope values of each rollout."""
    return [[v for v, inside in zip(row, scope) if inside] for row, scope in zip(rows, SCOPES)]


def out_of_scope(rows: Rows) -> Rows:
    """In-scope values back at their tokens, 0 between."""
    found = []
    for row, scope in zip(rows, SCOPES):
        values = iter(row)
        found.append([next(values) if inside else 0.0 for inside in scope])
    return found


class Place:
    """A layout: `put` rows into an array, `extent` the arguments that say it, `take` rows out of a result."""

    def __init__(self, layout: str) -> None:
        self.layout = layout
        self._width = max(LENGTHS) + 3
        self.extent: dict[str, Any] = {"mask": self.put(SCOPES, np.bool_, fill=layout != "mask")}
        if layout == "packed":
            self.extent["cu_seqlens"] = np.concatenate([[0], np.cumsum(LENGTHS)]).astype(np.int32)
        elif layout != "mask":
            self.extent["lengths"] = LENGTHS
        if layout == "left":
            self.extent["pad_side"] = "left"

    def put(self, rows: Any, dtype: Any, fill: Any = np.nan) -> Any:
        """Rows as an array of a type; `fill` in the padding, which nothing may read."""
        if self.layout in ("packed", "lengths"):
            return np.array([v for row in rows for v in row], dtype=dtype)
        out = np.full((len(rows), self._width), fill).astype(dtype)
        for row, values in zip(out, rows):
            row[self._slots(len(values))] = values
        return out

    def _slots(self, length: int) -> slice:
        begin = {"left": self._width - length, "mask": 2}.get(self.layout, 0)
        return slice(begin, begin + length)

    def take(self, found: Any) -> list[Any]:
        """Rows of a result; padding must be 0."""
        found = np.asarray(found)
        if found.ndim == 1:
            return np.split(found, np.cumsum(LENGTHS)[:-1])
        padding = np.ones(found.shape, np.bool_)
        for row, n in zip(padding, LENGTHS):
            row[self._slots(n)] = False
        assert not found[padding].any()
        return [row[self._slots(n)] for row, n in zip(found, LENGTHS)]
