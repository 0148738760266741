"""Configurations run over a file, batch by batch; what `shape` and `compare` share."""
from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import Error
from ..groups import group_index
from .lines import printable
from .output import Refused
from .rollouts import Rollouts
from .shaper import Shaper
from .stream import Source, batches
from .table import Choice, GroupRow, Run, groups

PICTURES = (".png", ".svg", ".pdf")


@dataclass
class Shapen:
    """A batch under every configuration; the rest is made where it is asked for."""

    rollouts: Rollouts
    runs: list[Run]

    @cached_property
    def scope(self) -> NDArray[np.bool_]:
        """Tokens in scope, `[N]`."""
        return self.rollouts.scope()

    @cached_property
    def rows(self) -> list[GroupRow]:
        """The batch's groups."""
        return groups(self.rollouts, self.runs[-1], group_index(self.rollouts.group)[0], self.scope)


class Work:
    """Reads the source as often as the configurations need and gives every batch with its results. `text`: with the tokens' text."""

    def __init__(self, source: Source, budget: int | None, plot: Path | None, chosen: str | None, text: bool = False) -> None:
        if plot is not None and plot.suffix not in PICTURES:
            raise Refused(f"--plot {plot}: the file's name must end in {', '.join(PICTURES)}")
        self.source, self.budget, self.text = source, budget, text
        self.shapers: dict[str, Shaper] = {}
        self.choice = None if plot is None else Choice(chosen)
        self.notes: list[str] = []
        self.aside: set[str] = set()
        self._beside: set[str] = set()

    def add(self, name: str, shaper: Shaper, beside: bool = False) -> None:
        """A configuration; one `beside` comes first, is not drawn, and is left out, with a note, where the file does not fit it."""
        self.shapers = {name: shaper} | self.shapers if beside else self.shapers | {name: shaper}
        self._beside |= {name} if beside else set()
        self.aside |= {name} if beside else set()

    def batches(self) -> Iterator[Shapen]:
        """The batches in the file's order. Errors: `BadLine`, `Refused`, `passrl.Error`."""
        passes = max(shaper.passes for shaper in self.shapers.values())
        if passes and self.source.once:
            raise Refused(f"the configuration takes statistics of all groups first, so the file is read {passes + 1} times and standard input cannot be; "
                          "give a file, or --whole-file to hold all of it in memory")
        for number in range(passes):
            for rollouts in batches(self.source, self.budget, label=f"reading, pass {number + 1} of {passes + 1}"):
                for shaper in self.shapers.values():
                    shaper.look(number, rollouts)
        label = f"shaping, pass {passes + 1} of {passes + 1}" if passes else "shaping"
        for rollouts in batches(self.source, self.budget, self.text, label):
            shapen = self._shapen(rollouts)
            if self.choice is not None:
                if self.budget is None:
                    # The picture's group is a part, and takes the statistics of all.
                    for number in range(max(shaper.looks for shaper in self.shapers.values())):
                        for shaper in self.shapers.values():
                            shaper.look(number, rollouts)
                self.choice.add(rollouts, shapen.runs, shapen.rows)
            yield shapen

    def _shapen(self, rollouts: Rollouts, part: bool = False) -> Shapen:
        runs = []
        for name, shaper in list(self.shapers.items()):
            try:
                runs.append(Run(name, shaper.part(rollouts) if part else shaper(rollouts)))
            except Error as fault:
                if name not in self._beside:
                    raise
                del self.shapers[name]
                self.notes.append(f"{name} is not shown: {fault}")
            # What fits one batch fits all: after the first nothing is left out.
            self._beside.discard(name)
        return Shapen(rollouts, runs)

    def picture(self, path: Path, part: Path) -> str:
        """Draws the chosen group to `part`, and says so of `path`. Call it after the last batch."""
        assert self.choice is not None
        if self.choice.found is None:
            raise Refused(self.choice.missing())
        shapen = self._shapen(self.choice.found, part=True)
        try:
            from .picture import compare

            compare(part, shapen.rollouts, {run.name: run.shaped for run in shapen.runs if run.name not in self.aside})
        except ModuleNotFoundError as fault:
            raise Refused(f"--plot needs {fault.name}; install it with: pip install matplotlib") from None
        return f"picture of group {printable(shapen.rows[0].key)} ({self.choice.why}): {path}"
