"""Rollouts as arrays: what a batch of lines becomes."""
from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..config import Config
from ..steps import Steps
from .lines import BadLine, Line

__all__ = ["BadLine", "Reader", "Rollouts"]

_STREAMS = ("outcome", "format", "format_ok", "baseline", "bootstrap")
_STEP_LISTS = ("step_end", "step_begin", "step_score", "step_group")
_TOKEN_LISTS = ("signal", "logp_policy", "logp_teacher", "logp_base", "logp_reference", "logp_behavior", "sum_pi_squared", "token_ratio",
                "values", "token_rewards")
# What has the policy's log-probabilities beside it, for a reason other than a process signal.
_BESIDE_POLICY = ("logp_reference", "logp_behavior", "sum_pi_squared")
# A file is all of one kind: what its first line has, every line has.
_UNIFORM = (*_STEP_LISTS, *_TOKEN_LISTS, *_STREAMS)


def _elements(offsets: NDArray[np.int64], rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Indices of the elements of some rows of a CSR list, in the rows' order."""
    counts = np.diff(offsets)[rows]
    ends = np.cumsum(counts)
    found: NDArray[np.int64] = np.arange(int(ends[-1]) if len(ends) else 0) + np.repeat(offsets[rows] - (ends - counts), counts)
    return found


def _cumulative(counts: Any) -> NDArray[np.int64]:
    return np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)


@dataclass
class Rollouts:
    """R rollouts, packed: N tokens, S steps. `None` for what the file does not have."""

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
    logp_policy: NDArray[np.float64] | None = None
    logp_teacher: NDArray[np.float64] | None = None
    logp_base: NDArray[np.float64] | None = None
    logp_reference: NDArray[np.float64] | None = None
    logp_behavior: NDArray[np.float64] | None = None
    sum_pi_squared: NDArray[np.float64] | None = None
    token_ratio: NDArray[np.float64] | None = None
    values: NDArray[np.float64] | None = None
    token_rewards: NDArray[np.float64] | None = None
    step_group: NDArray[np.int64] | None = None
    baseline: NDArray[np.float64] | None = None
    bootstrap: NDArray[np.float64] | None = None
    tokens: list[list[str]] | None = None
    """Text of each rollout's tokens, where it was asked for."""
    line: NDArray[np.int64] | None = None
    """Line of the file, from 1."""

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

    def kind(self) -> str:
        """The kind that the file's signal asks for by itself."""
        if self.step_score is not None or self.signal is not None:
            return "prm"
        if self.logp_teacher is None:
            return "none"
        return "kl" if self.step_end is None else "prm"

    def arguments(self, config: Config) -> dict[str, Any]:
        """Batch arguments of `passrl.shape` for a configuration, which picks the process signal. Errors: `BadLine` where the file has none for it."""
        found: dict[str, Any] = {
            "cu_seqlens": self.cu_seqlens, "groups": self.group, "outcome": self.outcome, "format": self.format, "format_ok": self.format_ok,
            "values": self.values, "token_rewards": self.token_rewards, "bootstrap": self.bootstrap, "baselines": self.baseline,
            "logp_reference": self.logp_reference, "logp_behavior": self.logp_behavior}
        if config.token_baseline != "none":
            found |= {"sum_pi_squared": self.sum_pi_squared, "token_ratio": self.token_ratio}
        if config.streams["format"].weight == 0 and config.fusion in ("advantage", "reward_sum"):
            # A configuration without a format reward has no gate either: the estimators of the frameworks.
            found |= {"format": None, "format_ok": None}
        scores = self.step_score
        if config.kind == "kl" or (config.kind == "prm" and scores is None and self.signal is None):
            scores = None
            if self.logp_teacher is not None:
                found |= {"logp_policy": self.logp_policy, "logp_teacher": self.logp_teacher, "logp_base": self.logp_base}
            elif self.signal is None:
                wants = '"signal", or "logp_policy" and "logp_teacher"' if config.kind == "kl" else '"step_end" and "step_score", or "signal"'
                raise BadLine(f"kind is {config.kind} and the file's lines have no signal for it; it needs {wants} in every line")
        if "logp_policy" not in found:
            if any(found.get(name) is not None for name in _BESIDE_POLICY):
                found["logp_policy"] = self.logp_policy
            found["signal"] = self.signal if config.kind != "none" else None
        if self.step_end is not None:
            found["steps"] = Steps(self.step_offsets, self.step_end, scores, self.step_begin, self.step_group)
        self._asked(config, found)
        return found

    def _asked(self, config: Config, found: dict[str, Any]) -> None:
        """Refuses what a configuration asks for and the file has not, by the file's key."""
        for asked, argument, key, what in (
            (config.credit in ("gae", "vtrace"), "values", "values", f"credit = {config.credit}"),
            (config.credit == "vtrace", "logp_behavior", "logp_behavior", "credit = vtrace"),
            (config.token_baseline != "none", "sum_pi_squared", "sum_pi_squared", f"token_baseline = {config.token_baseline}"),
            (config.kl_in_reward != "none" and config.kl_coef != 0, "logp_reference", "logp_reference", f"kl_in_reward = {config.kl_in_reward}"),
            (config.streams["outcome"].center == "given", "baselines", "baseline", "outcome.center = given"),
        ):
            if asked and found.get(argument) is None:
                raise BadLine(f'the configuration has {what} and the file\'s lines have no "{key}"; it needs one in every line')
        if config.step_sets == "step_group" and (self.step_end is None or self.step_group is None):
            missing = "step_end" if self.step_end is None else "step_group"
            raise BadLine(f'the configuration has step_sets = step_group and the file\'s lines have no "{missing}"; it needs one number a step in every line')

    def take(self, rows: NDArray[np.int64]) -> Rollouts:
        """Some of the rollouts, in the order of `rows`."""
        rows = np.asarray(rows, dtype=np.int64)
        slots = _elements(self.cu_seqlens, rows)
        steps = None if self.step_offsets is None else _elements(self.step_offsets, rows)

        picked = {
            name: None if (values := getattr(self, name)) is None else values[of]
            for names, of in ((_STEP_LISTS, steps), (_TOKEN_LISTS, slots), ((*_STREAMS, "line"), rows))
            for name in names
        }
        return Rollouts(
            group=[self.group[i] for i in rows], sample=[self.sample[i] for i in rows], cu_seqlens=_cumulative(np.diff(self.cu_seqlens)[rows]),
            step_offsets=None if self.step_offsets is None else _cumulative(np.diff(self.step_offsets)[rows]),
            tokens=None if self.tokens is None else [self.tokens[i] for i in rows], **picked,
        )


class Reader:
    """Gathers lines into `Rollouts`; `take` gives those so far and begins anew. `text`: keep the tokens' text."""

    def __init__(self, text: bool = False) -> None:
        self.text = text
        self.first: dict[str, bool] = {}
        self.first_where = ""
        # One string a distinct token, however often it is written.
        self._words: dict[str, str] = {}
        self._clear()

    def _clear(self) -> None:
        self.seen: dict[int | str, int] = {}
        self.longest = 0
        self.cost = 0
        self._group: list[int | str] = []
        self._sample: list[int | str] = []
        self._line: list[int] = []
        self._lengths: list[int] = []
        self._counts: list[int] = []
        self._arrays: dict[str, list[NDArray[Any]]] = {name: [] for name in (*_STEP_LISTS, *_TOKEN_LISTS)}
        self._numbers: dict[str, list[float]] = {name: [] for name in _STREAMS}
        self._tokens: list[list[str]] = []

    def __len__(self) -> int:
        return len(self._group)

    def add(self, line: Line) -> None:
        """Checks a line and keeps it."""
        group, length = line.group(), line.length()
        sample = line.object.get("sample")
        number = self.seen[group] = self.seen.get(group, -1) + 1
        self._uniform(line)
        self._group.append(group)
        self._sample.append(line.key("sample", sample) if sample is not None else number)
        self._line.append(line.number)
        self._lengths.append(length)
        if self.first["step_end"]:
            ends = line.offsets("step_end", length)
            self._arrays["step_end"].append(ends)
            self._counts.append(len(ends))
            if self.first["step_begin"]:
                self._arrays["step_begin"].append(_begins(line, ends, length))
            if self.first["step_score"]:
                self._arrays["step_score"].append(line.numbers("step_score", len(ends), "one a step"))
            if self.first["step_group"]:
                self._arrays["step_group"].append(line.integers("step_group", len(ends), "one a step"))
        for name in _TOKEN_LISTS:
            if self.first[name]:
                values = line.numbers(name, length, 'one a token, "len" of them')
                self._arrays[name].append(values.astype(np.float32) if name == "signal" else values)
        for name in _STREAMS:
            if self.first[name]:
                self._numbers[name].append(line.number_of(name, line.object[name]))
        if self.text and line.has("tokens"):
            self._tokens.append([self._words.setdefault(token, token) for token in line.texts(length)])
        self.longest = max(self.longest, length)
        # A rollout costs memory however short it is.
        self.cost += max(length, 32)

    def _uniform(self, line: Line) -> None:
        has = {key: line.has(key) for key in _UNIFORM}
        if not self.first:
            self._understand(line, has)
            self.first, self.first_where = has, line.where
        for key in _UNIFORM:
            if has[key] != self.first[key]:
                if self.first[key]:
                    line.need(key, f"{self.first_where} has it")
                line.fail(f'has "{key}" and {self.first_where} has not; every line has the same keys')

    def _understand(self, line: Line, has: dict[str, bool]) -> None:
        if has["signal"]:
            for other in ("step_score", "logp_teacher"):
                if has[other]:
                    line.fail(f'has both "{other}" and "signal"; give one of them')
        if not any(has[key] for key in ("step_score", "signal", "logp_policy", "logp_teacher", "outcome")):
            line.need("step_score", "a list, one a step; or signal, one a token")
        if (has["step_score"] or has["step_begin"] or has["step_group"]) and not has["step_end"]:
            line.need("step_end", "a list, the exclusive end of each step in tokens")
        if any(has[key] for key in ("logp_policy", "logp_teacher", "logp_base", *_BESIDE_POLICY)):
            line.need("logp_policy", "the policy's log-probability of each token")
            if not any(has[key] for key in _BESIDE_POLICY) or has["logp_base"]:
                line.need("logp_teacher", "the teacher's log-probability of each token")
        if has["format_ok"] and not has["format"]:
            line.need("format", "the format reward, which format_ok goes with")

    def take(self) -> Rollouts:
        """The rollouts gathered so far."""
        def joined(name: str) -> Any:
            return np.concatenate(self._arrays[name]) if self._arrays[name] else None

        def stream(name: str, dtype: Any) -> Any:
            return np.array(self._numbers[name], dtype=dtype) if self._numbers[name] else None

        form, ok = stream("format", np.float64), stream("format_ok", np.bool_)
        found = Rollouts(
            group=self._group, sample=self._sample, cu_seqlens=_cumulative(self._lengths),
            step_offsets=_cumulative(self._counts) if self._arrays["step_end"] else None,
            outcome=stream("outcome", np.float64), format=form, format_ok=form != 0 if ok is None and form is not None else ok,
            baseline=stream("baseline", np.float64), bootstrap=stream("bootstrap", np.float64),
            tokens=self._tokens if len(self._tokens) == len(self._group) else None, line=np.array(self._line, dtype=np.int64),
            **{name: joined(name) for name in self._arrays},
        )
        self._clear()
        return found


def _begins(line: Line, ends: NDArray[np.int64], length: int) -> NDArray[np.int64]:
    begins = line.offsets("step_begin", length, len(ends))
    for i in np.flatnonzero(begins > ends)[:1]:
        line.fail(f'"step_begin[{i}]" is {begins[i]} and "step_end[{i}]" {ends[i]}; a step begins before its end')
    for i in np.flatnonzero(begins[1:] < ends[:-1])[:1] + 1:
        line.fail(f'"step_begin[{i}]" is {begins[i]} and "step_end[{i - 1}]" {ends[i - 1]}; steps do not overlap')
    return begins
