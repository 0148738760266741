"""Several configurations on one file, held against the first: numbers by group and over all."""
from __future__ import annotations

import csv
import heapq
import json
import math
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from .lines import printable
from .output import Refused, arrow, whole
from .rollouts import Rollouts
from .table import GroupRow, Run, inside, located

FIELDS = ("preset", "group", "rollouts", "tokens", "mean_abs", "zero_share", "dead", "sign_agreement", "correlation", "largest_difference")
# Groups shown under the table: those where a configuration is furthest from the first.
WORST = 10
Record = dict[str, Any]


@dataclass
class Moments:
    """Two series' counts, means and sums of squared deviations; a sum over groups is taken group by group, so batches do not matter."""

    n: int = 0
    mean_x: float = 0.0
    mean_y: float = 0.0
    xx: float = 0.0
    yy: float = 0.0
    xy: float = 0.0

    @classmethod
    def of(cls, x: NDArray[np.float64], y: NDArray[np.float64]) -> Moments:
        """Of arrays of one length."""
        if not len(x):
            return cls()
        mean_x, mean_y = float(x.mean()), float(y.mean())
        dx, dy = x - mean_x, y - mean_y
        return cls(len(x), mean_x, mean_y, float((dx * dx).sum()), float((dy * dy).sum()), float((dx * dy).sum()))

    def add(self, other: Moments) -> None:
        """Takes another part in."""
        n = self.n + other.n
        if not other.n:
            return
        dx, dy, share = other.mean_x - self.mean_x, other.mean_y - self.mean_y, self.n * other.n / n
        self.xx, self.yy, self.xy = self.xx + other.xx + dx * dx * share, self.yy + other.yy + dy * dy * share, self.xy + other.xy + dx * dy * share
        self.mean_x, self.mean_y, self.n = self.mean_x + dx * other.n / n, self.mean_y + dy * other.n / n, n

    def correlation(self) -> float | None:
        """Pearson's; None where a series does not vary."""
        if self.xx <= 0 or self.yy <= 0:
            return None
        return max(-1.0, min(1.0, self.xy / math.sqrt(self.xx) / math.sqrt(self.yy)))


@dataclass
class Part:
    """One configuration against the first: of a group, or of all."""

    rollouts: int = 0
    tokens: int = 0
    total: float = 0.0
    zeros: int = 0
    dead: int = 0
    either: int = 0
    agree: int = 0
    largest: float = 0.0
    largest_group: int | str | None = None
    moments: Moments = field(default_factory=Moments)

    @classmethod
    def of(cls, first: NDArray[np.float64], own: NDArray[np.float64], rollouts: int, group: int | str) -> Part:
        """Of a group's tokens in scope."""
        either = (first != 0) | (own != 0)
        same = either & (np.sign(first) == np.sign(own))
        zeros = int(np.count_nonzero(own == 0))
        largest = float(np.abs(own - first).max(initial=0.0))
        return cls(rollouts, len(own), float(np.abs(own).sum()), zeros, int(zeros == len(own)), int(either.sum()), int(same.sum()), largest, group,
                   Moments.of(first, own))

    def add(self, other: Part) -> None:
        """Takes another group in."""
        if other.largest > self.largest or self.largest_group is None:
            self.largest, self.largest_group = other.largest, other.largest_group
        for name in ("rollouts", "tokens", "total", "zeros", "dead", "either", "agree"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.moments.add(other.moments)

    def record(self, preset: str, group: int | str | None) -> Record:
        """The numbers by name; None where there is nothing to divide by."""
        return {
            "preset": preset, "group": group, "rollouts": self.rollouts, "tokens": self.tokens,
            "mean_abs": self.total / self.tokens if self.tokens else None, "zero_share": self.zeros / self.tokens if self.tokens else None,
            "dead": self.dead, "sign_agreement": self.agree / self.either if self.either else None,
            "correlation": self.moments.correlation(), "largest_difference": self.largest,
        }


class Comparison:
    """Batches in; a table, and records for a file, out. `record` is told each group's as it is known."""

    def __init__(self, names: list[str], record: Callable[[Record], None]) -> None:
        self.names, self._record = names, record
        self.all = [Part() for _ in names]
        self.groups = 0
        self.findings: dict[str, str] = {}
        self._worst: list[tuple[float, int, int | str, list[Part]]] = []

    def add(self, rollouts: Rollouts, runs: list[Run], rows: list[GroupRow], scope: NDArray[np.bool_]) -> None:
        """Takes a batch; `runs` in the order of the names."""
        for row in rows:
            own = [inside(run.shaped.advantages, rollouts, scope, row.rows) for run in runs]
            parts = [Part.of(own[0], values, len(row.rows), row.key) for values in own]
            for name, part, whole_file in zip(self.names, parts, self.all):
                whole_file.add(part)
                self._record(part.record(name, row.key))
            self.groups += 1
            heapq.heappush(self._worst, (max(part.largest for part in parts), -self.groups, row.key, parts))
            if len(self._worst) > WORST:
                heapq.heappop(self._worst)
        for run in runs:
            if run.shaped.status:
                self.findings.setdefault(run.name, located(run.shaped.message, rollouts))

    def totals(self) -> list[Record]:
        """A record a configuration over all groups: `group` is None, `dead` the number of dead groups."""
        return [part.record(name, None) for name, part in zip(self.names, self.all)]

    def show(self, console: Console) -> None:
        """Prints the table, and the groups that differ most."""
        first = self.names[0]
        console.print(f"{self.groups} groups, {self.all[0].rollouts} rollouts, {self.all[0].tokens:,} tokens in scope", highlight=False)
        table = Table(header_style="bold")
        table.add_column("preset", overflow="fold")
        for head in ("mean |A|", "A = 0", "dead\ngroups", f"sign as\n{first}", f"correlation\nwith {first}", "largest\ndifference", "in\ngroup"):
            table.add_column(escape(head), justify="right")
        for record, part in zip(self.totals(), self.all):
            against = part is not self.all[0]
            table.add_row(
                escape(record["preset"]), number(record["mean_abs"]), percent(record["zero_share"]), str(record["dead"]),
                percent(record["sign_agreement"]) if against else "", number(record["correlation"]) if against else "",
                number(part.largest) if against else "", escape(printable(part.largest_group)) if against and part.largest else "")
        console.print(table)
        if len(self.names) > 1:
            console.print(f"largest difference from {first} in the groups where it is largest", highlight=False, markup=False)
            table = Table(header_style="bold")
            table.add_column("group")
            for name in self.names[1:]:
                table.add_column(escape(name), justify="right")
            for _, _, key, parts in sorted(self._worst, key=lambda one: one[:2], reverse=True):
                table.add_row(escape(printable(key)), *(number(part.largest) for part in parts[1:]))
            console.print(table)
        console.print("dead: every token in scope has A = 0; sign: of the tokens where either A is not 0", highlight=False)
        for name, sentence in self.findings.items():
            console.print(f"{name}: {sentence}", highlight=False, markup=False)


def number(value: float | None) -> str:
    """Three places; - for what is not defined."""
    return "-" if value is None else f"{value:.3f}"


def percent(value: float | None) -> str:
    """One place; - for what is not defined."""
    return "-" if value is None else f"{100 * value:.1f} %"


class Records:
    """A file of records (.json, .csv, .parquet), written as they come; a context that leaves it whole or not there."""

    def __init__(self, path: Path) -> None:
        if path.suffix not in (".json", ".csv", ".parquet"):
            raise Refused(f"--out {path}: the file's name must end in .json, .csv or .parquet")
        if path.suffix == ".parquet":
            arrow()
        self._path = path
        self._held: list[Record] = []
        self._stack = ExitStack()

    def __enter__(self) -> Records:
        self._stack.__enter__()
        self._part = self._stack.enter_context(whole(self._path))
        self._file: Any = None
        self._parquet: Any = None
        if self._path.suffix != ".parquet":
            self._file = self._stack.enter_context(self._part.open("w", encoding="utf-8", newline=""))
        if self._path.suffix == ".csv":
            self._csv = csv.DictWriter(self._file, FIELDS, lineterminator="\n")
            self._csv.writeheader()
        elif self._file is not None:
            self._file.write('{"groups": [')
            self._comma = "\n"
        return self

    def add(self, record: Record) -> None:
        """One group under one configuration."""
        if self._path.suffix == ".csv":
            self._csv.writerow(record)
        elif self._file is not None:
            self._file.write(self._comma + json.dumps(record))
            self._comma = ",\n"
        else:
            self._held.append(record | {"group": None if record["group"] is None else str(record["group"])})
            if len(self._held) == 4096:
                self._flush()

    def finish(self, totals: list[Record]) -> None:
        """The records over all groups, and the end. In .csv and .parquet they are the rows without a group."""
        if self._path.suffix == ".json":
            self._file.write('],\n"presets": ' + json.dumps(totals) + "}\n")
            return
        for record in totals:
            self.add(record)
        if self._file is None:
            self._flush()
            self._parquet.close()

    def _flush(self) -> None:
        pyarrow, parquet = arrow()
        types = {"preset": pyarrow.string(), "group": pyarrow.string(), "rollouts": pyarrow.int64(), "tokens": pyarrow.int64(), "dead": pyarrow.int64()}
        schema = pyarrow.schema([(name, types.get(name, pyarrow.float64())) for name in FIELDS])
        if self._parquet is None:
            self._parquet = self._stack.enter_context(parquet.ParquetWriter(self._part, schema))
        self._parquet.write_table(pyarrow.Table.from_pylist(self._held, schema=schema))
        self._held = []

    def __exit__(self, *fault: Any) -> None:
        self._stack.__exit__(*fault)
