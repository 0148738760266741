"""One pair in a process of its own: `one.py NAME SIZES THREADS` prints a line of JSON a size and thread count. run.py starts it with the allocator tuned."""
from __future__ import annotations

import ctypes
import json
import sys
import time
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "bindings" / "python"))
warnings.filterwarnings("ignore")

import torch  # noqa: E402

import batch  # noqa: E402
from pairs import PAIRS, Pair, Tensors  # noqa: E402

# Seconds of a pair's calls; a call of theirs above SLOW runs once.
BUDGET, SLOW, MOST = 2.0, 4.0, 25


def seconds(work: Callable[[], object]) -> float:
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


class Floor:
    """Copies `bytes` in all, half read, half written, by as many threads: libc's memmove on parts, or torch's copy, the faster."""

    def __init__(self, moved: int, threads: int) -> None:
        self.source, self.target = torch.ones(max(moved // 8, 1)), torch.ones(max(moved // 8, 1))
        self.pool = ThreadPoolExecutor(threads)
        part = -(-len(self.source) // threads)
        self.parts = [(self.target[i:].data_ptr(), self.source[i:].data_ptr(), 4 * len(self.source[i : i + part])) for i in range(0, len(self.source), part)]

    def seconds(self) -> float:
        own, *others = self.parts

        def parts() -> None:
            waiting = [self.pool.submit(ctypes.memmove, *part) for part in others]
            ctypes.memmove(*own)
            for one in waiting:
                one.result()

        return min(seconds(parts), seconds(lambda: self.target.copy_(self.source)))


def agree(pair: Pair, theirs: Tensors, ours: Tensors) -> float:
    """The largest difference, of the largest value."""
    worst = 0.0
    for a, b in zip(theirs, ours, strict=True):
        a, b = (torch.as_tensor(x).double() for x in (a, b))
        a, b = (x if pair.where is None else x[pair.where] for x in (a, b))
        worst = max(worst, float((a - b).abs().max() / b.abs().max()))
    # Not `>`: a NaN is a disagreement.
    if not worst <= pair.tolerance:
        sys.exit(f"the two differ by {worst:.2g} of the largest value; {pair.tolerance:.0g} is admitted, and nothing is timed")
    return worst


def measure(name: str, size: str, threads: int, prepared: dict[str, batch.Batch]) -> dict[str, object]:
    torch.set_num_threads(threads)
    if size not in prepared:
        prepared[size] = batch.make(size)
    b = prepared[size]
    pair = PAIRS[name](b, threads)
    with torch.no_grad():
        found: list[Tensors] = []
        first = seconds(lambda: found.append(pair.theirs()))
        error = agree(pair, found.pop(), pair.ours())
        floor = Floor(pair.bytes, threads)
        floor.seconds()
        theirs, ours, floors = ([first] if first > SLOW and "compiled" not in name else []), [], []
        while len(ours) < 3 or (sum(theirs) + sum(ours) < BUDGET and len(ours) < MOST):
            floors.append(floor.seconds())
            if not (theirs and theirs[0] > SLOW):
                theirs.append(seconds(pair.theirs))
            ours.append(seconds(pair.ours))
    return {"name": name, "size": size, "threads": threads, "theirs_ms": median(theirs) * 1e3, "ours_ms": median(ours) * 1e3, "floor_ms": median(floors) * 1e3,
            "times": median(theirs) / median(ours), "bytes": pair.bytes, "difference": error, "tolerance": pair.tolerance, "rounds": len(theirs)}


if __name__ == "__main__":
    prepared: dict[str, batch.Batch] = {}
    for size in sys.argv[2].split(","):
        for threads in map(int, sys.argv[3].split(",")):
            print(json.dumps(measure(sys.argv[1], size, threads, prepared)), flush=True)
