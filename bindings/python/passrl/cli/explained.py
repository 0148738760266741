"""`passrl shape --page` and `--distributions`: the file's first batch taken apart, and written."""
from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

from ..config import Config
from .output import Refused, whole
from .table import GroupRow, Run
from .rollouts import Rollouts
from .terms import explain


class Explained:
    """Holds the first batch, counts the groups of the others; `write` makes the files."""

    def __init__(self, page: Path | None, distributions: Path | None, threads: int) -> None:
        if distributions is not None and distributions.suffix not in (".png", ".svg", ".pdf"):
            raise Refused(f"--distributions {distributions}: the file's name must end in .png, .svg, .pdf")
        self.page, self.distributions, self.threads = page, distributions, threads
        self._first: tuple[Rollouts, Run] | None = None
        self._groups = 0

    @property
    def wanted(self) -> bool:
        """Whether there is anything to write."""
        return self.page is not None or self.distributions is not None

    def add(self, rollouts: Rollouts, run: Run, rows: list[GroupRow]) -> None:
        """A batch and its result."""
        self._groups += len(rows)
        if self.wanted and self._first is None:
            self._first = rollouts, run

    def write(self, config: Config, stack: ExitStack) -> list[str]:
        """Writes what was asked for, whole when `stack` ends; returns a sentence a file. config: the run's, with its kind. Errors: `Refused`."""
        if self._first is None:
            return []
        rollouts, run = self._first
        arguments = rollouts.arguments(config)
        terms = explain(config, arguments, run.shaped, rollouts.scope(), self.threads)
        held, told = len(set(rollouts.group)), []
        beyond = f" of the file's first {held:,} of {self._groups:,} groups (the first batch; --whole-file takes all)" if held < self._groups else ""
        if self.distributions is not None:
            try:
                from .distributions import plot

                plot(stack.enter_context(whole(self.distributions)), rollouts, run.name, run.shaped, terms)
            except ModuleNotFoundError as fault:
                raise Refused(f"--distributions needs {fault.name}; install it with: pip install matplotlib") from None
            told.append(f"distributions{beyond}: {self.distributions}")
        if self.page is not None:
            from .page import TooLarge, write

            try:
                cut = write(stack.enter_context(whole(self.page)), rollouts, run.name, config, run.shaped, terms, groups=self._groups)
            except TooLarge as fault:
                raise Refused(f"--page: {fault}") from None
            told.append(f"page{beyond}: {self.page}" + (f" ({cut.rstrip('.')})" if cut and not beyond else ""))
        return told
