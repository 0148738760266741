"""A table a reader can see the change in: each group under the baseline and under the preset."""
from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from ..results import GroupFlag, RolloutFlag, Shaped
from .rollouts import Rollouts

FIRST = 20


@dataclass
class Run:
    """One preset's result on the file."""

    name: str
    shaped: Shaped


@dataclass
class GroupRow:
    """What the table and the picture need of one group."""

    number: int
    key: int | str
    rows: NDArray[np.int64]
    tokens: int
    outcome: float | None
    flags: str


def groups(rollouts: Rollouts, run: Run, index: NDArray[np.int64], scope: NDArray[np.bool_]) -> list[GroupRow]:
    """The groups in order of first appearance."""
    cumulative = np.concatenate([[0], np.cumsum(scope)])
    tokens = np.diff(cumulative[rollouts.cu_seqlens])
    order = np.argsort(index, kind="stable")
    parts = np.split(order, np.cumsum(np.bincount(index))[:-1])
    found = []
    for number, rows in enumerate(parts):
        outcome = None if rollouts.outcome is None else float(rollouts.outcome[rows].mean())
        found.append(GroupRow(number, rollouts.group[rows[0]], rows, int(tokens[rows].sum()), outcome, _flags(run.shaped, number, rows)))
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


def mean_abs(run: Run, rollouts: Rollouts, scope: NDArray[np.bool_], rows: NDArray[np.int64]) -> float:
    """Mean |A| over the tokens in scope of some rollouts."""
    total, count = 0.0, 0
    for row in rows:
        span = slice(int(rollouts.cu_seqlens[row]), int(rollouts.cu_seqlens[row + 1]))
        inside = run.shaped.advantages[span][scope[span]]
        total, count = total + float(np.abs(inside, dtype=np.float64).sum()), count + len(inside)
    return total / count if count else 0.0


def best(run: Run, rows: NDArray[np.int64]) -> int | None:
    """The rollout with the largest path score; None where all are equal."""
    scores = run.shaped.path_scores[rows]
    return None if len(rows) < 2 or scores.max() == scores.min() else int(rows[int(np.argmax(scores))])


def show(console: Console, rollouts: Rollouts, runs: list[Run], rows: list[GroupRow], scope: NDArray[np.bool_]) -> None:
    """Prints the first groups, then a summary over all."""
    table = Table(title=" against ".join(run.name for run in reversed(runs)), title_justify="left", header_style="bold")
    table.add_column("group")
    for head in ("rollouts", "tokens\nin scope", "outcome\nmean"):
        table.add_column(head, justify="right")
    for run in runs:
        table.add_column(f"{run.name}\nmean |A|", justify="right")
        table.add_column(f"{run.name}\npath scores", justify="right")
    table.add_column("best\nsample", justify="center")
    table.add_column("notes", overflow="fold")
    for row in rows[:FIRST]:
        cells = [str(row.key), str(len(row.rows)), f"{row.tokens:,}", "" if row.outcome is None else f"{row.outcome:.2f}"]
        for run in runs:
            scores = run.shaped.path_scores[row.rows]
            cells += [f"{mean_abs(run, rollouts, scope, row.rows):.3f}", f"{scores.min():+.2f} … {scores.max():+.2f}"]
        table.add_row(*cells, _best_cell(rollouts, runs, row), row.flags)
    console.print(table)
    if len(rows) > FIRST:
        console.print(f"first {FIRST} of {len(rows)} groups; the summary is of all")
    for line in summary(rollouts, runs, rows, scope):
        console.print(line, highlight=False)


def _best_cell(rollouts: Rollouts, runs: list[Run], row: GroupRow) -> str:
    names = ["-" if (found := best(run, row.rows)) is None else str(rollouts.sample[found]) for run in runs]
    if len(set(names)) == 1:
        return names[0]
    return "[bold]" + " → ".join(names) + "[/bold]"


def summary(rollouts: Rollouts, runs: list[Run], rows: list[GroupRow], scope: NDArray[np.bool_]) -> list[str]:
    """Lines over all groups."""
    everyone = np.arange(len(rollouts))
    tokens = int(scope.sum())
    lines = [f"{len(rows)} groups, {len(rollouts)} rollouts, {tokens:,} tokens in scope of {len(scope):,}"]
    for run in runs:
        path = run.shaped.path_scores
        lines.append(f"  {run.name}: mean |A| {mean_abs(run, rollouts, scope, everyone):.3f}, path scores {path.min():+.2f} … {path.max():+.2f}, "
                     f"{int(run.shaped.num_chunks.sum()):,} chunks")
    if rollouts.outcome is not None:
        mixed = [row for row in rows if np.ptp(rollouts.outcome[row.rows]) > 0]
        if mixed:
            told = []
            for run in runs:
                right = sum(1 for row in mixed if (found := best(run, row.rows)) is not None
                            and rollouts.outcome[found] == rollouts.outcome[row.rows].max())
                told.append(f"{right} under {run.name}")
            lines.append(f"  in the {len(mixed)} groups of mixed outcome, the best-scored rollout has the best outcome in {', '.join(told)}")
    if len(runs) == 2:
        changed = sum(1 for row in rows if best(runs[0], row.rows) != best(runs[1], row.rows))
        lines.append(f"  the best-scored rollout differs in {changed} of {len(rows)} groups")
    for run in runs:
        if run.shaped.status:
            lines.append(f"  {run.name}: {run.shaped.message}")
    return lines


def legible(rollouts: Rollouts, runs: list[Run], rows: list[GroupRow], steps: Any) -> tuple[GroupRow, str]:
    """The group that a picture shows best, and why."""
    def score(row: GroupRow) -> tuple[float, int]:
        points = 0.0
        mixed = rollouts.outcome is not None and np.ptp(rollouts.outcome[row.rows]) > 0
        points += 3.0 * bool(mixed) + 2.0 * (3 <= len(row.rows) <= 10)
        if rollouts.format_ok is not None:
            wrong = int(np.count_nonzero(~rollouts.format_ok[row.rows]))
            points += 1.5 * (0 < wrong < len(row.rows))
            if rollouts.outcome is not None:
                good = rollouts.outcome[row.rows][rollouts.format_ok[row.rows]]
                points += 2.0 * (len(good) > 1 and bool(np.ptp(good) > 0))
        if len(runs) == 2:
            points += 1.0 * (best(runs[0], row.rows) != best(runs[1], row.rows))
        counts = steps[row.rows]
        points += 0.5 * min(float(counts.mean()), 4.0) - 0.4 * max(float(counts.max()) - 7.0, 0.0)
        return points, -row.number

    chosen = max(rows, key=score)
    why = ["mixed outcomes" if rollouts.outcome is not None and np.ptp(rollouts.outcome[chosen.rows]) > 0 else "few long steps"]
    if rollouts.format_ok is not None and 0 < np.count_nonzero(~rollouts.format_ok[chosen.rows]) < len(chosen.rows):
        why.append("mixed format")
    units = "chunks" if rollouts.step_offsets is None else "steps"
    return chosen, f"chosen for {' and '.join(why)}, {len(chosen.rows)} rollouts of at most {int(steps[chosen.rows].max())} {units}"
