"""Groups by any key: their dense numbers."""
from __future__ import annotations

import ctypes
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from . import _ffi, arrays
from .errors import ERR_SHAPE, ERR_VALUE, refuse


def group_index(keys: Any) -> tuple[NDArray[np.int64], list[Any]]:
    """Dense group numbers of keys, in order of first appearance.

    keys: `[R]` integers or strings (list, NumPy, torch). Returns `[R]` i64 and the keys of the groups, `G` of them. Refused: None, floats
    and NaN, which name no group.
    """
    found = arrays.host(keys, "groups")
    if found.ndim != 1:
        refuse(ERR_SHAPE, f"passrl: groups has {found.ndim} dimensions; it must have 1, a key a rollout")
    index = np.empty(len(found), dtype=np.int64)
    if found.size == 0:
        # An empty list has no type of its own.
        return index, []
    if found.dtype.kind in "iub":
        numbers = np.ascontiguousarray(found).astype(np.int64, copy=False)
        count = ctypes.c_int64()
        _ffi.call("group_index", ctypes.byref(arrays.from_numpy(numbers, "groups").view),
                  ctypes.byref(arrays.from_numpy(index, "index").view), ctypes.byref(count))
        first = np.unique(index, return_index=True)[1]
        return index, [key.item() for key in found[first]]
    # (A list of integers of more than 63 bits becomes one of floats, and is read as it stands.)
    if found.dtype.kind == "f" and (arrays.is_array(keys) or not all(isinstance(key, int) for key in keys)):
        refuse(ERR_VALUE, f"passrl: groups is of {found.dtype}; group keys are integers or strings")
    listed = found.tolist() if isinstance(keys, np.ndarray) else list(keys)
    seen: dict[Any, int] = {}
    try:
        index[:] = [seen.setdefault(key, len(seen)) for key in listed]
    except TypeError:
        # One of them has no hash.
        _no_key(listed)
    if not all(map(_is_key, seen)):
        _no_key(listed)
    return index, list(seen)


def _is_key(key: Any) -> bool:
    """Whether a key names a group: None, NaN and the like say that the name is missing, and would make one group of what has none."""
    try:
        hash(key)
        return key is not None and not isinstance(key, (float, np.floating)) and bool(key == key)
    except TypeError:
        return False


def _no_key(keys: list[Any]) -> NoReturn:
    place, key = next((place, key) for place, key in enumerate(keys) if not _is_key(key))
    refuse(ERR_VALUE, f"passrl: groups[{place}] is {key!r}, a {type(key).__name__}; group keys are integers or strings: give each rollout its prompt's number or name "
                      "(a rollout without one a name of its own)")
