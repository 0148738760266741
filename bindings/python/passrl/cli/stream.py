"""A file in batches of whole groups, in memory that does not grow with it."""
from __future__ import annotations

import gzip
import os
import sys
import zlib
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any

from tqdm import tqdm

from .lines import BadLine, Line
from .rollouts import Reader, Rollouts

# Tokens of a batch unless told otherwise: some 50 to 100 MB with all that is made of them.
BATCH_TOKENS = 1 << 20
# Seconds before a progress bar shows.
BAR_AFTER = 1.0
# A table by group and position (kl) is kept within this many times the batch's tokens.
_UNEVEN = 4


class Source:
    """A file of rollouts (.jsonl, .jsonl.gz, "-" for standard input) that may be read several times; standard input once."""

    def __init__(self, path: str, quiet: bool = False) -> None:
        self.path, self.quiet = path, quiet
        self.once = path == "-"
        self.name = "standard input" if self.once else Path(path).name
        self._stamp: tuple[int, int] | None = None

    def lines(self, label: str) -> Iterator[Line]:
        """Lines that are not blank, with a progress bar on the terminal where it takes more than a second."""
        with ExitStack() as stack:
            raw: IO[bytes] = sys.stdin.buffer if self.once else stack.enter_context(open(self.path, "rb"))
            total = None
            if not self.once:
                state = os.fstat(raw.fileno())
                total = state.st_size or None
                stamp = (state.st_size, state.st_mtime_ns)
                if self._stamp not in (None, stamp):
                    raise BadLine(f"{self.name}: has changed since it was last read; it is read more than once here and must stay as it is")
                self._stamp = stamp
            packed = self.path.endswith(".gz")
            text: Any = stack.enter_context(gzip.open(raw)) if packed else raw
            off = self.quiet or not sys.stderr.isatty()
            bar = stack.enter_context(tqdm(total=total, desc=label, unit="B", unit_scale=True, disable=off, delay=BAR_AFTER, leave=False))
            number = at = 0
            try:
                for number, line in enumerate(text, 1):
                    if not off:
                        now = raw.tell() if packed else at + len(line)
                        bar.update(now - at)
                        at = now
                    if not line.isspace():
                        yield Line(self.name, number, line)
            except (EOFError, gzip.BadGzipFile, zlib.error) as fault:
                raise BadLine(f"{self.name}, line {number + 1}: the compressed file is damaged or cut short ({fault})") from None


def batches(source: Source, budget: int | None, text: bool = False, label: str = "shaping") -> Iterator[Rollouts]:
    """Whole groups, `budget` tokens a batch (one group may exceed it); None: the whole file as one batch.

    A batch ends where a line begins a new group that no longer fits; a group that comes back after that is refused by line number.
    Kept beyond a batch: each finished group's name with its last line.
    """
    reader = Reader(text)
    finished: dict[int | str, int] = {}
    last: dict[int | str, int] = {}
    for line in source.lines(label):
        group, length = line.group(), line.length()
        if budget is not None:
            if group in finished:
                line.fail(f'group {group!r} comes back after line {finished[group]}, when its batch was finished; sort the file by group, '
                          "or give --whole-file to hold all of it in memory")
            if len(reader) and group not in last:
                uneven = (len(last) + 1) * max(reader.longest, length)
                if reader.cost + length > budget or uneven > _UNEVEN * budget:
                    finished |= last
                    last = {}
                    yield reader.take()
            last[group] = line.number
        reader.add(line)
    if not len(reader):
        raise BadLine(f"{source.name}: has no rollouts; write one JSON object a line")
    yield reader.take()


def read(path: Path | str, text: bool = False) -> Rollouts:
    """A whole file. Errors: `BadLine`."""
    return next(batches(Source(str(path), quiet=True), None, text))
