"""What Python adds to a call into the library: `python bindings/python/benches/overhead.py`.

The same bound buffers are run from a loop in C (compiled here with `cc`), from ctypes, by a bound `Plan` call, by `Plan.run` and by `passrl.shape`;
answers are checked against a plain NumPy computation first. CPU time of the thread, best of several rounds taken in turn, so that a busy machine disturbs little and all alike.
"""
from __future__ import annotations

import ctypes
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import passrl

C_LOOP = """
#include <stddef.h>
#include <stdint.h>
#include <time.h>
typedef int32_t (*run_fn)(void *, void *, void *, void *, size_t, void *);
double loop(run_fn run, void *plan, void *batch, void *outputs, void *workspace, size_t bytes, void *stream, long calls) {
    struct timespec a, b;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &a);
    for (long i = 0; i < calls; i++)
        if (run(plan, batch, outputs, workspace, bytes, stream) != 0) return -1;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &b);
    return ((b.tv_sec - a.tv_sec) * 1e9 + (b.tv_nsec - a.tv_nsec)) / calls;
}
"""
ROUNDS, CALLS = 15, 2000


def c_loop(folder: str) -> Any:
    """The compiled loop, or None with a word about why not."""
    if shutil.which("cc") is None:
        print("no cc: the C call is not timed, and neither is what Python adds to it")
        return None
    source, library = Path(folder) / "loop.c", Path(folder) / "loop.so"
    source.write_text(C_LOOP)
    subprocess.run(["cc", "-O2", "-shared", "-fPIC", "-o", str(library), str(source)], check=True)
    function = ctypes.CDLL(str(library)).loop
    function.restype, function.argtypes = ctypes.c_double, [ctypes.c_void_p] * 5 + [ctypes.c_size_t, ctypes.c_void_p, ctypes.c_long]
    return function


def batch(rollouts: int, tokens: int) -> dict[str, Any]:
    """Outcome rewards alone, one group: an answer that one line of NumPy gives."""
    random = np.random.default_rng(1)
    return {"outcome": random.normal(size=rollouts).astype(np.float32), "cu_seqlens": np.arange(rollouts + 1) * tokens, "group_size": rollouts}


def check(advantages: Any, outcome: Any, tokens: int) -> None:
    """Refuses to time a wrong answer."""
    x = outcome.astype(np.float64)
    wanted = np.repeat((x - x.mean()) / (x.std(ddof=1) + 1e-6), tokens)
    np.testing.assert_allclose(advantages, wanted, rtol=0, atol=1e-6)


def nanoseconds(work: Callable[[], object], calls: int) -> float:
    """Mean CPU time of a call."""
    begin = time.thread_time_ns()
    for _ in range(calls):
        work()
    return (time.thread_time_ns() - begin) / calls


def measure(rollouts: int, tokens: int, folder: str, calls: int) -> None:
    """One row a way of calling."""
    given = batch(rollouts, tokens)
    fields: dict[str, Any] = {"kind": "none", "chunk": "none"}
    plan = passrl.Plan("pass", rollouts=rollouts, tokens=rollouts * tokens, groups=1, threads=1, **fields)
    bound = plan.bind(**given)
    check(bound().advantages, given["outcome"], tokens)
    check(plan.run(**given).advantages, given["outcome"], tokens)
    check(passrl.shape(threads=1, **fields, **given).advantages, given["outcome"], tokens)

    # New values in the same buffers are what a bound call is for.
    given["outcome"] += np.arange(rollouts, dtype=np.float32)
    check(bound().advantages, given["outcome"], tokens)

    function, arguments = bound._function, bound._arguments
    ways: dict[str, Callable[[], float]] = {}
    loop = c_loop(folder)
    if loop is not None:
        address = ctypes.cast(function, ctypes.c_void_p)
        structs = ctypes.addressof(bound.batch.struct), ctypes.addressof(bound.sinks.struct)
        raw = (address, plan.handle, *structs, arguments[3], plan.workspace_bytes, None)
        ways["C loop"] = lambda: float(loop(*raw, calls))
    ways["ctypes alone"] = lambda: nanoseconds(lambda: function(*arguments), calls)
    ways["bound Plan call"] = lambda: nanoseconds(bound, calls)
    ways["Plan.run"] = lambda: nanoseconds(lambda: plan.run(**given), calls // 20)
    ways["passrl.shape"] = lambda: nanoseconds(lambda: passrl.shape(threads=1, **fields, **given), calls // 20)
    best = dict.fromkeys(ways, float("inf"))
    for _ in range(ROUNDS):
        for name, way in ways.items():
            found = way()
            if found < 0:
                sys.exit(f"{name}: the call failed")
            best[name] = min(best[name], found)
    check(bound().advantages, given["outcome"], tokens)
    print(f"{rollouts} rollouts of {tokens} tokens, 1 thread, µs of CPU a call (best of {ROUNDS} rounds of {calls}):")
    for name, found in best.items():
        added = f"{(found - best['C loop']) / 1e3:+9.2f} over C" if "C loop" in best and name != "C loop" else ""
        print(f"  {name:<16}{found / 1e3:10.2f}{added}")


if __name__ == "__main__":
    print(f"passrl {passrl.__version__}, Python {sys.version.split()[0]}")
    with tempfile.TemporaryDirectory() as scratch:
        measure(8, 8, scratch, CALLS)
        measure(64, 1024, scratch, CALLS // 10)
