"""Reading rollouts: one JSON object a line, refused by line number."""
from __future__ import annotations

import difflib
import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

KEYS = ("group", "sample", "len", "step_begin", "step_end", "step_score", "signal", "outcome", "format", "format_ok", "tokens")
_STREAMS = ("outcome", "format", "format_ok")
# A file is all of one kind: what its first line has, every line has.
_UNIFORM = ("step_end", "step_begin", "step_score", "signal", *_STREAMS)


class BadLine(Exception):
    """A line that is refused; the text says file, line and the mend."""


@dataclass
class Rollouts:
    """A file's rollouts, packed. `None` for what the file does not have."""

    group: list[int | str]
    sample: list[int | str]
    cu_seqlens: NDArray[np.int64]
    step_offsets: NDArray[np.int64] | None
    step_end: NDArray[np.int64] | None
    step_begin: NDArray[np.int64] | None
    step_score: NDArray[np.float64] | None
    signal: NDArray[np.float32] | None
    outcome: NDArray[np.float64] | None
    format: NDArray[np.float64] | None
    format_ok: NDArray[np.bool_] | None
    tokens: list[list[str]] | None = None
    """Text of each rollout's tokens, where every line has it."""

    def __len__(self) -> int:
        return len(self.group)

    def scope(self) -> NDArray[np.bool_]:
        """Tokens in scope, `[N]`: all, or those in steps where begins are given."""
        inside = np.ones(int(self.cu_seqlens[-1]), dtype=np.bool_)
        if self.step_begin is None or self.step_end is None or self.step_offsets is None:
            return inside
        edges = np.zeros(len(inside) + 1, dtype=np.int64)
        counts = np.diff(self.step_offsets)
        start = np.repeat(self.cu_seqlens[:-1], counts)
        np.add.at(edges, start + self.step_begin, 1)
        np.add.at(edges, start + self.step_end, -1)
        covered = np.cumsum(edges[:-1]) > 0
        without = np.repeat(counts == 0, np.diff(self.cu_seqlens))
        scope: NDArray[np.bool_] = covered | without
        return scope


def _say(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 40 else text[:37] + "..."


class _Line:
    """One line's object with checks; `fail` raises with file and line."""

    def __init__(self, where: str, text: str) -> None:
        self.where = where
        try:
            self.object = json.loads(text)
        except json.JSONDecodeError as fault:
            self.fail(f"is no JSON: {fault.msg} at column {fault.colno}; write one object a line")
        if not isinstance(self.object, dict):
            self.fail(f"is a JSON {type(self.object).__name__}; it must be an object with group, len, step_end and step_score (or signal)")

    def fail(self, sentence: str) -> Any:
        raise BadLine(f"{self.where}: {sentence}")

    def has(self, key: str) -> bool:
        return self.object.get(key) is not None

    def need(self, key: str, what: str) -> Any:
        if self.has(key):
            return self.object[key]
        near = [name for name in difflib.get_close_matches(key, self.object, n=1, cutoff=0.7) if name not in KEYS]
        return self.fail(f'has no "{key}" ({what})' + (f'; did you mean it by "{near[0]}"?' if near else ""))

    def key(self, key: str, value: Any) -> int | str:
        if isinstance(value, bool) or not isinstance(value, (int, str)):
            self.fail(f'"{key}" is {_say(value)}; it must be an integer or a string')
        return value  # type: ignore[no-any-return]

    def number(self, key: str, value: Any) -> float:
        if isinstance(value, bool):
            return float(value)
        if not isinstance(value, (int, float)):
            self.fail(f'"{key}" is {_say(value)}; it must be a number')
        return float(value)

    def numbers(self, key: str, count: int, what: str) -> list[float]:
        value = self.need(key, what)
        if not isinstance(value, list):
            self.fail(f'"{key}" is {_say(value)}; it must be a list, {what}')
        if len(value) != count:
            self.fail(f'"{key}" has {len(value)} elements; it must have {count}, {what}')
        return [math.nan if one is None else self.number(f"{key}[{i}]", one) for i, one in enumerate(value)]

    def texts(self, key: str, count: int) -> list[str]:
        value = self.object[key]
        if not isinstance(value, list) or len(value) != count or not all(isinstance(one, str) for one in value):
            self.fail(f'"{key}" is {_say(value)}; it must be a list of {count} texts, one a token')
        return value  # type: ignore[no-any-return]

    def offsets(self, key: str, length: int) -> list[int]:
        value = self.object[key]
        if not isinstance(value, list):
            self.fail(f'"{key}" is {_say(value)}; it must be a list of token offsets')
        for i, one in enumerate(value):
            if isinstance(one, bool) or not isinstance(one, int):
                self.fail(f'"{key}[{i}]" is {_say(one)}; it must be an integer')
            if not 0 <= one <= length:
                self.fail(f'"{key}[{i}]" is {one}; it must be from 0 to "len", {length}')
            if i and one < value[i - 1]:
                self.fail(f'"{key}[{i}]" is {one} after {value[i - 1]}; offsets do not decrease')
        return value  # type: ignore[no-any-return]


class _Reader:
    def __init__(self) -> None:
        self.group: list[int | str] = []
        self.sample: list[int | str] = []
        self.lengths: list[int] = []
        self.lists: dict[str, list[Any]] = {name: [] for name in ("step_end", "step_begin", "step_score", *_STREAMS)}
        self.counts: list[int] = []
        self.signal: list[NDArray[np.float32]] = []
        self.first: dict[str, bool] = {}
        self.first_where = ""
        self.seen: dict[int | str, int] = {}
        self.tokens: list[list[str]] = []

    def add(self, line: _Line) -> None:
        self.group.append(line.key("group", line.need("group", "the prompt's number or name")))
        sample = line.object.get("sample")
        number = self.seen[self.group[-1]] = self.seen.get(self.group[-1], -1) + 1
        self.sample.append(line.key("sample", sample) if sample is not None else number)
        length = line.need("len", "tokens of the rollout")
        if isinstance(length, bool) or not isinstance(length, int) or length < 0:
            line.fail(f'"len" is {_say(length)}; it must be an integer, 0 or more')
        self.lengths.append(length)
        self._uniform(line)
        if self.first["step_end"]:
            ends = line.offsets("step_end", length)
            self.lists["step_end"].extend(ends)
            self.counts.append(len(ends))
            if self.first["step_begin"]:
                self.lists["step_begin"].extend(self._begins(line, ends, length))
            if self.first["step_score"]:
                self.lists["step_score"].extend(line.numbers("step_score", len(ends), "one a step"))
        if self.first["signal"]:
            self.signal.append(np.array(line.numbers("signal", length, 'one a token, "len" of them'), dtype=np.float32))
        for name in _STREAMS:
            if self.first[name]:
                self.lists[name].append(line.number(name, line.object[name]))
        if line.has("tokens"):
            self.tokens.append(line.texts("tokens", length))

    def _uniform(self, line: _Line) -> None:
        has = {key: line.has(key) for key in _UNIFORM}
        if not self.first:
            self.first, self.first_where = has, line.where
            if has["step_score"] == has["signal"]:
                if has["signal"]:
                    line.fail('has both "step_score" and "signal"; give one of them')
                if not has["outcome"]:
                    line.need("step_score", "a list, one a step; or signal, one a token")
            if (has["step_score"] or has["step_begin"]) and not has["step_end"]:
                line.need("step_end", "a list, the exclusive end of each step in tokens")
            if has["format_ok"] and not has["format"]:
                line.need("format", "the format reward, which format_ok goes with")
        for key in _UNIFORM:
            if has[key] != self.first[key]:
                if self.first[key]:
                    line.need(key, f"{self.first_where} has it")
                line.fail(f'has "{key}" and {self.first_where} has not; every line has the same keys')

    def _begins(self, line: _Line, ends: list[int], length: int) -> list[int]:
        begins = line.offsets("step_begin", length)
        if len(begins) != len(ends):
            line.fail(f'"step_begin" has {len(begins)} elements; it must have {len(ends)}, one a step')
        for i, (begin, end) in enumerate(zip(begins, ends)):
            if begin > end:
                line.fail(f'"step_begin[{i}]" is {begin} and "step_end[{i}]" {end}; a step begins before its end')
            if i and begin < ends[i - 1]:
                line.fail(f'"step_begin[{i}]" is {begin} and "step_end[{i - 1}]" {ends[i - 1]}; steps do not overlap')
        return begins

    def done(self) -> Rollouts:
        def array(name: str, dtype: Any) -> Any:
            return np.array(self.lists[name], dtype=dtype) if self.first.get(name) else None

        form = array("format", np.float64)
        ok = array("format_ok", np.bool_)
        if ok is None and form is not None:
            ok = form != 0
        return Rollouts(
            group=self.group, sample=self.sample,
            cu_seqlens=np.concatenate([[0], np.cumsum(self.lengths)]).astype(np.int64),
            step_offsets=np.concatenate([[0], np.cumsum(self.counts)]).astype(np.int64) if self.first.get("step_end") else None,
            step_end=array("step_end", np.int64), step_begin=array("step_begin", np.int64), step_score=array("step_score", np.float64),
            signal=np.concatenate(self.signal) if self.first.get("signal") else None,
            outcome=array("outcome", np.float64), format=form, format_ok=ok,
            tokens=self.tokens if len(self.tokens) == len(self.group) else None,
        )


def read(path: Path, progress: Callable[[int], None] | None = None) -> Rollouts:
    """Reads a file; `progress` is told the bytes read so far. Errors: `BadLine`."""
    reader = _Reader()
    seen = 0
    with path.open("rb") as file:
        for number, raw in enumerate(file, 1):
            seen += len(raw)
            where = f"{path.name}, line {number}"
            try:
                text = raw.decode()
            except UnicodeDecodeError as fault:
                raise BadLine(f"{where}: is no UTF-8 text (byte {fault.start})") from None
            if text.strip():
                reader.add(_Line(where, text))
            if progress is not None and number % 64 == 0:
                progress(seen)
    if not reader.group:
        raise BadLine(f"{path.name}: has no rollouts; write one JSON object a line")
    return reader.done()
