"""Process rewards as a reward function gives them: a record a rollout, the same for every framework.

A record is a mapping, or JSON text of one (for frameworks that average or pickle what a reward function returns). Its keys are those of the command
line's files; offsets count tokens of the rollout's response, from 0:

    {"step_end": [12, 30, 41], "step_score": [1, -1, 1]}     steps: exclusive ends, and a score each
      "step_begin": [0, 14, 30]                              where steps do not touch: what lies between is out of scope
    {"signal": [0.1, 0.1, -0.3, ...]}                        or a process reward a token, as many as the response has
      "outcome": 1.0                                         the rollout's reward; left out: what the framework calls its reward
      "format": 1.0, "format_ok": true                       the format reward and its indicator (left out: whether the reward is not 0)
      "streams": {"style": 0.3}                              further rewards by name

None (or "null") is a rollout without process rewards: it has no step, and is one chunk.
"""
from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..config import Config
from ..errors import ERR_NULL, ERR_SHAPE, ERR_VALUE, FindingWarning, refuse
from ..results import Shaped
from ..steps import Steps

KEYS = ("step_end", "step_score", "step_begin", "signal", "outcome", "format", "format_ok", "streams")
_STEPS = ("step_end", "step_score", "step_begin")
_LISTS = (*_STEPS, "signal")

Record = Mapping[str, Any]


def read(record: Any, row: int) -> Record:
    """A record as a mapping, checked; an empty one for None."""
    if record is None:
        return {}
    if isinstance(record, (str, bytes)):
        try:
            record = json.loads(record) or {}
        except ValueError as fault:
            refuse(ERR_VALUE, f"passrl: the process record of rollout {row} is text that is no JSON ({fault})")
    if not isinstance(record, Mapping):
        refuse(ERR_VALUE, f"passrl: the process record of rollout {row} is a {type(record).__name__}; it is a mapping with {', '.join(KEYS)}, JSON text of one, or None")
    unknown = [key for key in record if key not in KEYS]
    if unknown:
        refuse(ERR_VALUE, f"passrl: the process record of rollout {row} has the key {unknown[0]!r}; it knows {', '.join(KEYS)}")
    if ("step_end" in record) != ("step_score" in record):
        has, lacks = ("step_end", "step_score") if "step_end" in record else ("step_score", "step_end")
        refuse(ERR_VALUE, f"passrl: the process record of rollout {row} has {has} without {lacks}; a step has both")
    for key in _LISTS:
        if key in record and (not hasattr(record[key], "__len__") or isinstance(record[key], (str, bytes, Mapping))):
            refuse(ERR_VALUE, f"passrl: the process record of rollout {row} has {key} {record[key]!r}; it must be a list, {'one a token' if key == 'signal' else 'one a step'}")
    for key in _STEPS[1:]:
        if key in record and len(record[key]) != len(record["step_end"]):
            refuse(ERR_SHAPE, f"passrl: the process record of rollout {row} has {len(record['step_end'])} step_end and {len(record[key])} {key}; one a step")
    return record


def _steps(found: Sequence[Record]) -> Steps:
    counts = [len(record.get("step_end", ())) for record in found]
    with_steps = [(row, record) for row, record in enumerate(found) if record.get("step_end") is not None]
    begins = {"step_begin" in record for _, record in with_steps if len(record["step_end"])}
    if len(begins) > 1:
        row = next(row for row, record in with_steps if "step_begin" not in record)
        refuse(ERR_VALUE, f"passrl: the process record of rollout {row} has no step_begin and others have; give it in all or in none")

    def joined(key: str, of: Callable[[Any, str, int], NDArray[Any]]) -> NDArray[Any]:
        rows = [of(record[key], key, row) for row, record in with_steps if key in record]
        return np.concatenate(rows) if rows else of([], key, 0)

    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    return Steps(offsets, joined("step_end", _whole), joined("step_score", _numbers), joined("step_begin", _whole) if True in begins else None)


def _signal(found: Sequence[Record], lengths: NDArray[np.int64], width: int | None) -> NDArray[np.float32]:
    """Process rewards a token: `[R, width]` from the left, or packed `[N]`."""
    rows = []
    for row, (record, length) in enumerate(zip(found, lengths)):
        if "signal" not in record:
            rows.append(np.zeros(length, dtype=np.float32))
            continue
        values = _numbers(record["signal"], "signal", row).astype(np.float32)
        # What lies behind a padded row's last token in scope (tool output) may have values or not.
        if len(values) < length or len(values) > (length if width is None else width):
            refuse(ERR_SHAPE, f"passrl: the process record of rollout {row} has a signal of {len(values)} values and its response has {length} tokens; give one a token")
        rows.append(values)
    if width is None:
        return np.concatenate(rows) if rows else np.zeros(0, dtype=np.float32)
    padded = np.zeros((len(rows), width), dtype=np.float32)
    for out, values in zip(padded, rows):
        out[: len(values)] = values
    return padded


def _number(value: Any, key: str, row: int) -> float:
    """A number of a record; None is NaN."""
    try:
        if not isinstance(value, (str, bytes)):
            return np.nan if value is None else float(value)
    except (TypeError, ValueError, OverflowError):
        pass
    refuse(ERR_VALUE, f"passrl: the process record of rollout {row} has {key} {value!r}; it must be a number")


def _numbers(values: Any, key: str, row: int) -> NDArray[np.float64]:
    """A record's list of numbers; None is NaN."""
    try:
        found = np.asarray(values)
    except (TypeError, ValueError, RuntimeError):
        found = np.empty(0, dtype=object)  # Said of the element below.
    if found.ndim == 1 and found.dtype.kind in "iufb":
        return found.astype(np.float64)
    return np.array([_number(one, f"{key}[{i}]", row) for i, one in enumerate(values)], dtype=np.float64)


def _whole(values: Any, key: str, row: int) -> NDArray[np.int64]:
    """A record's list of token offsets."""
    found = _numbers(values, key, row)
    for i in np.flatnonzero((found != np.floor(found)) | (np.abs(found) >= 2.0**53))[:1]:
        refuse(ERR_VALUE, f"passrl: the process record of rollout {row} has {key}[{i}] {found[i]:g}; it must be a whole number, a token offset in the response")
    return found.astype(np.int64)


def arguments(config: Config, given: Sequence[Any], rewards: Any, lengths: Any, *, width: int | None = None, where: str = "the reward function") -> dict[str, Any]:
    """Arguments of `passrl.shape` from R records: `steps` or `signal`, `outcome`, `format`, `format_ok`, `streams`, as the configuration reads them.

    rewards: `[R]`, the outcome of rollouts whose record has none. lengths: `[R]`, tokens of each response (padded: up to the last in scope). width: T
    where the batch's arrays are `[R, T]`; None: packed. where: how the framework calls what gives records, for the sentence that refuses a batch without any.
    Errors: `passrl.ArgumentError` with the rollout and the key.
    """
    found = [read(record, row) for row, record in enumerate(given)]
    result: dict[str, Any] = {}
    if config.kind == "prm":
        has_steps, has_signal = (any(key in record for record in found) for key in ("step_end", "signal"))
        if has_steps and has_signal:
            row = next(row for row, record in enumerate(found) if "signal" in record)
            refuse(ERR_VALUE, f"passrl: the process record of rollout {row} has a signal and others have step_end; give the same in all")
        if not has_steps and not has_signal:
            refuse(ERR_NULL, f"passrl: the configuration asks for process rewards (kind = prm) and no rollout of the batch has a process record; {where} gives them, "
                             "with step_end and step_score or with signal (without process rewards: kind = none, or another preset)")
        if has_signal:
            result["signal"] = _signal(found, np.asarray(lengths), width)
        else:
            result["steps"] = _steps(found)
    told = [_number(record["outcome"], "outcome", row) if "outcome" in record else reward for row, (record, reward) in enumerate(zip(found, np.asarray(rewards, dtype=np.float64)))]
    result["outcome"] = np.array(told, dtype=np.float64)
    # A configuration without a format reward has no gate either: the estimators of the frameworks.
    if config.streams["format"].weight != 0 or config.fusion not in ("advantage", "reward_sum"):
        result |= _format(found)
    names = {name: None for record in found for name in record.get("streams", ())}
    if names:
        result["streams"] = {name: np.array([_number(record.get("streams", {}).get(name), f"streams[{name!r}]", row) for row, record in enumerate(found)]) for name in names}
    return result


def _format(found: Sequence[Record]) -> dict[str, NDArray[Any]]:
    if not any("format" in record for record in found):
        return {}
    for row, record in enumerate(found):
        if "format" not in record:
            refuse(ERR_NULL, f"passrl: the process record of rollout {row} has no format and others have; give it in all or in none")
    rewards = np.array([_number(record["format"], "format", row) for row, record in enumerate(found)])
    return {"format": rewards, "format_ok": np.array([bool(record.get("format_ok", reward != 0)) for record, reward in zip(found, rewards)])}


def told(result: Shaped) -> Shaped:
    """Warns (`passrl.FindingWarning`) where the data has findings: in a training run nobody looks at `status`, and groups with a finding train on 0."""
    if result.status > 0:
        warnings.warn(FindingWarning(result.status, result.message), stacklevel=2)
    return result


def token_ends(texts: Sequence[str], ends: Sequence[int]) -> list[int]:
    """Exclusive token offsets of exclusive character offsets: the tokens whose text begins before the offset.

    texts: what each token of the response decodes to, whose concatenation the offsets count characters of. ends: character offsets, not decreasing.
    A token that lies across an offset belongs to the step before it, and tokens without text behind the last offset too. Errors: an offset beyond the text.
    """
    begins = np.concatenate([[0], np.cumsum([len(text) for text in texts])])
    found: list[int] = []
    for end in ends:
        if not 0 <= end <= begins[-1]:
            refuse(ERR_VALUE, f"passrl: token_ends has the offset {end} in a text of {int(begins[-1])} characters; offsets are from 0 to its length")
        found.append(len(texts) if end == begins[-1] else int(np.searchsorted(begins[:-1], end)))
    return found
