"""A table a reader can see the change in: each group under the baseline and under the preset, gathered batch by batch."""
from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ..results import GroupFlag, RolloutFlag, Shaped
from .lines import printable
from .rollouts import Rollouts

FIRST = 20


@dataclass
class Run:
    """One preset's result on a batch."""

    name: str
    shaped: Shaped


@dataclass
class GroupRow:
    """What the table and the picture need of one group: `number` and `rows` are the batch's."""

    number: int
    key: int | str
    rows: NDArray[np.int64]
    tokens: int
    outcome: float | None
    shaped: Shaped

    @property
    def flags(self) -> str:
        """What is odd about the group, in words."""
        return _flags(self.shaped, self.number, self.rows)


def groups(rollouts: Rollouts, run: Run, index: NDArray[np.int64], scope: NDArray[np.bool_]) -> list[GroupRow]:
    """The groups in order of first appearance."""
    cumulative = np.concatenate([[0], np.cumsum(scope)])
    tokens = np.diff(cumulative[rollouts.cu_seqlens])
    order = np.argsort(index, kind="stable")
    parts = np.split(order, np.cumsum(np.bincount(index))[:-1])
    found = []
    for number, rows in enumerate(parts):
        outcome = None if rollouts.outcome is None else float(rollouts.outcome[rows].mean())
        found.append(GroupRow(number, rollouts.group[rows[0]], rows, int(tokens[rows].sum()), outcome, run.shaped))
    return found


def _flags(shaped: Shaped, group: int, rows: NDArray[np.int64]) -> str:
    found: list[str] = []
    names = shaped.stream_names
    words = {GroupFlag.ZERO_VARIANCE: "all equal", GroupFlag.SINGLE: "single", GroupFlag.NONFINITE: "infinite", GroupFlag.MISSING: "missing"}
    given = set(shaped.stats or ())
    for flag, word in words.items():
        columns = [name.replace("process_0", "process") for column, name in enumerate(names)
                   if name in given and int(shaped.group_flags[group, column]) & flag]
        if columns:
            found.append(f"{word}: {', '.join(columns)}")
    together = GroupFlag(int(np.bitwise_or.reduce(shaped.group_flags[group])))
    if together & GroupFlag.ALL_VIOLATING:
        found.append("format: all wrong")
    else:
        wrong = int(np.count_nonzero(shaped.rollout_flags[rows] & RolloutFlag.FORMAT_VIOLATING))
        if wrong:
            found.append(f"format: {wrong} wrong")
    if together & GroupFlag.BAD:
        found.append("BAD (advantage 0)")
    return "; ".join(found)


def best(run: Run, rows: NDArray[np.int64]) -> int | None:
    """The rollout with the largest path score; None where all are equal."""
    scores = run.shaped.path_scores[rows]
    return None if len(rows) < 2 or scores.max() == scores.min() else int(rows[int(np.argmax(scores))])


@dataclass
class _Sum:
    """One run over what has been seen: a group, or all."""

    total: float = 0.0
    low: float = np.inf
    high: float = -np.inf
    chunks: int = 0
    right: int = 0
    bad: int = 0
    finding: str = ""

    def add(self, other: _Sum) -> None:
        self.total, self.chunks = self.total + other.total, self.chunks + other.chunks
        self.low, self.high = min(self.low, other.low), max(self.high, other.high)


def inside(values: NDArray[Any], rollouts: Rollouts, scope: NDArray[np.bool_], rows: NDArray[np.int64]) -> NDArray[np.float64]:
    """A token array's elements in scope of some rollouts, f64."""
    bounds = [(int(rollouts.cu_seqlens[row]), int(rollouts.cu_seqlens[row + 1])) for row in rows]
    found: NDArray[np.float64] = np.concatenate([values[begin:end][scope[begin:end]] for begin, end in bounds]).astype(np.float64)
    return found


def _mean(total: float, count: int) -> float:
    return total / count if count else 0.0


class Tally:
    """Batches in, the first groups and a summary over all out. Sums are a group's own, then added in the file's order: the same for any batches."""

    def __init__(self, names: list[str]) -> None:
        self.names = names
        self.all = [_Sum() for _ in names]
        self.cells: list[list[str]] = []
        self.groups = self.rollouts = self.tokens = self.slots = self.mixed = self.changed = 0
        self.has_outcome = False

    def add(self, rollouts: Rollouts, runs: list[Run], rows: list[GroupRow], scope: NDArray[np.bool_]) -> None:
        """Takes a batch; `runs` in the order of the names."""
        for row in rows:
            sums = [self._group(rollouts, run, row, scope) for run in runs]
            if len(self.cells) < FIRST:
                self.cells.append(self._cells(rollouts, runs, row, sums))
            for one, whole in zip(sums, self.all):
                whole.add(one)
            self._outcomes(rollouts, runs, row)
        self.groups, self.rollouts = self.groups + len(rows), self.rollouts + len(rollouts)
        self.tokens, self.slots = self.tokens + int(scope.sum()), self.slots + len(scope)
        for run, whole in zip(runs, self.all):
            whole.bad += run.shaped.report.bad_groups
            if run.shaped.status and not whole.finding:
                whole.finding = located(run.shaped.message, rollouts)

    @staticmethod
    def _group(rollouts: Rollouts, run: Run, row: GroupRow, scope: NDArray[np.bool_]) -> _Sum:
        scores = run.shaped.path_scores[row.rows]
        total = float(np.abs(inside(run.shaped.advantages, rollouts, scope, row.rows)).sum())
        return _Sum(total, float(scores.min()), float(scores.max()), int(run.shaped.num_chunks[row.rows].sum()))

    @staticmethod
    def _cells(rollouts: Rollouts, runs: list[Run], row: GroupRow, sums: list[_Sum]) -> list[str]:
        cells = [escape(printable(row.key)), str(len(row.rows)), f"{row.tokens:,}", "" if row.outcome is None else f"{row.outcome:.2f}"]
        for one in sums:
            cells += [f"{_mean(one.total, row.tokens):.3f}", f"{one.low:+.2f} … {one.high:+.2f}"]
        names = ["-" if (found := best(run, row.rows)) is None else escape(printable(rollouts.sample[found])) for run in runs]
        return [*cells, names[0] if len(set(names)) == 1 else "[bold]" + " → ".join(names) + "[/bold]", escape(row.flags)]

    def _outcomes(self, rollouts: Rollouts, runs: list[Run], row: GroupRow) -> None:
        winners = [best(run, row.rows) for run in runs]
        self.changed += len(set(winners)) > 1
        if rollouts.outcome is None:
            return
        self.has_outcome = True
        outcomes = rollouts.outcome[row.rows]
        if np.ptp(outcomes) > 0:
            self.mixed += 1
            for whole, found in zip(self.all, winners):
                whole.right += found is not None and rollouts.outcome[found] == outcomes.max()

    def show(self, console: Console) -> None:
        """Prints the first groups, then a summary over all."""
        table = Table(title=" against ".join(reversed(self.names)), title_justify="left", header_style="bold")
        table.add_column("group")
        for head in ("rollouts", "tokens\nin scope", "outcome\nmean"):
            table.add_column(head, justify="right")
        for name in self.names:
            table.add_column(f"{name}\nmean |A|", justify="right")
            table.add_column(f"{name}\npath scores", justify="right")
        table.add_column("best\nsample", justify="center")
        table.add_column("notes", overflow="fold")
        for cells in self.cells:
            table.add_row(*cells)
        console.print(table)
        if self.groups > FIRST:
            console.print(f"first {FIRST} of {self.groups} groups; the summary is of all")
        for line in self.summary():
            console.print(line, highlight=False, markup=False)

    def summary(self) -> list[str]:
        """Lines over all groups."""
        lines = [f"{self.groups} groups, {self.rollouts} rollouts, {self.tokens:,} tokens in scope of {self.slots:,}"]
        for name, one in zip(self.names, self.all):
            lines.append(f"  {name}: mean |A| {_mean(one.total, self.tokens):.3f}, path scores {one.low:+.2f} … {one.high:+.2f}, {one.chunks:,} chunks")
        if self.has_outcome and self.mixed:
            told = ", ".join(f"{one.right} under {name}" for name, one in zip(self.names, self.all))
            lines.append(f"  in the {self.mixed} groups of mixed outcome, the best-scored rollout has the best outcome in {told}")
        if len(self.names) == 2:
            lines.append(f"  the best-scored rollout differs in {self.changed} of {self.groups} groups")
        for name, one in zip(self.names, self.all):
            if one.finding:
                lines.append(f"  {name}: {one.finding}; {one.bad} group(s) have advantage 0")
        return lines


def located(message: str, rollouts: Rollouts) -> str:
    """The library's sentence of a finding, its rollout and group said as the file says them."""
    def named(found: re.Match[str]) -> str:
        i = int(found[1])
        line = "" if rollouts.line is None else f"line {rollouts.line[i]}, "
        return f"{line}sample {printable(rollouts.sample[i])} of group {printable(rollouts.group[i])}"

    sentence = re.sub(r"rollout (\d+) of group \d+", named, message.removeprefix("passrl_report_status: "), count=1)
    return re.sub(r"; \d+ group\(s\) have advantage 0$", "", sentence)


class Choice:
    """The group that a picture shows: the one asked for, or the most legible seen; held as rollouts of its own."""

    def __init__(self, asked: str | None) -> None:
        self.asked = asked
        self.found: Rollouts | None = None
        self.why = ""
        self._points = -np.inf
        self._keys: list[str] = []
        self._count = 0

    def add(self, rollouts: Rollouts, runs: list[Run], rows: list[GroupRow]) -> None:
        """Looks at a batch."""
        self._count += len(rows)
        self._keys += [str(row.key) for row in rows[: max(5 - len(self._keys), 0)]]
        steps = np.diff(rollouts.step_offsets) if rollouts.step_offsets is not None else runs[-1].shaped.num_chunks
        for row in rows:
            if self.asked is None:
                points = _legible(rollouts, runs, row, steps)
                if points > self._points:
                    self._points, self.found, self.why = points, rollouts.take(row.rows), _why(rollouts, row, steps)
            elif str(row.key) == self.asked and self.found is None:
                self.found, self.why = rollouts.take(row.rows), "as asked"

    def missing(self) -> str:
        """What to say where the group asked for is not in the file."""
        more = ", ..." if self._count > len(self._keys) else ""
        return f"--group {self.asked}: the file has no such group; its {self._count} groups are {', '.join(self._keys)}{more}"


def _legible(rollouts: Rollouts, runs: list[Run], row: GroupRow, steps: Any) -> float:
    points = 0.0
    mixed = rollouts.outcome is not None and np.ptp(rollouts.outcome[row.rows]) > 0
    points += 3.0 * bool(mixed) + 2.0 * (3 <= len(row.rows) <= 10)
    if rollouts.format_ok is not None:
        wrong = int(np.count_nonzero(~rollouts.format_ok[row.rows]))
        points += 1.5 * (0 < wrong < len(row.rows))
        if rollouts.outcome is not None:
            good = rollouts.outcome[row.rows][rollouts.format_ok[row.rows]]
            points += 2.0 * (len(good) > 1 and bool(np.ptp(good) > 0))
    points += 1.0 * (len({best(run, row.rows) for run in runs}) > 1)
    counts = steps[row.rows]
    return points + 0.5 * min(float(counts.mean()), 4.0) - 0.4 * max(float(counts.max()) - 7.0, 0.0)


def _why(rollouts: Rollouts, row: GroupRow, steps: Any) -> str:
    why = ["mixed outcomes" if rollouts.outcome is not None and np.ptp(rollouts.outcome[row.rows]) > 0 else "few long steps"]
    if rollouts.format_ok is not None and 0 < np.count_nonzero(~rollouts.format_ok[row.rows]) < len(row.rows):
        why.append("mixed format")
    units = "chunks" if rollouts.step_offsets is None else "steps"
    return f"chosen for {' and '.join(why)}, {len(row.rows)} rollouts of at most {int(steps[row.rows].max())} {units}"
