"""What Python adds to a call into the library: `python bindings/python/benches/overhead.py`.

The same bound buffers are run from a loop in C (compiled here with `cc`), from ctypes, by a bound `Plan` call, by `Plan.run` and by `passrl.shape`;
answers are checked against a plain NumPy computation first. CPU time of the thread, in many short rounds of every way and of the C loop in turn. Of each counts the
quickest fiftieth of its rounds, since whatever else runs on a processor's core slows what is on it; what a way adds is the difference, and after "+-" stands by how
much the odd rounds and the even ones disagree about it.
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
ROUNDS, SLICE = 1000, 5e5  # rounds a way; nanoseconds that one takes, about
# What each may add, in microseconds.
TARGETS = {"bound Plan call": 1.0, "Plan.run": 15.0, "passrl.shape": 15.0}


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


def quickest(rounds: list[float]) -> float:
    return sorted(rounds)[len(rounds) // 50]


def added(ways: dict[str, Callable[[], object]], in_c: Callable[[int], float]) -> tuple[float, dict[str, tuple[float, float]]]:
    """The C loop's time, and what each way adds to it with how far halves of the rounds disagree about that; nanoseconds a call. All take turns, so that a busy
    neighbour meets all of them."""
    calls = {name: max(int(SLICE / max(nanoseconds(way, 20), 1)), 5) for name, way in ways.items()}
    plain: list[float] = []
    found: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(ROUNDS):
        plain.append(in_c(max(calls.values())))
        for name, way in ways.items():
            found[name].append(nanoseconds(way, calls[name]))
    halves = {name: [quickest(rounds[half::2]) - quickest(plain[half::2]) for half in (1, 0)] for name, rounds in found.items()}
    return quickest(plain), {name: (quickest(rounds) - quickest(plain), abs(halves[name][0] - halves[name][1])) for name, rounds in found.items()}


def measure(rollouts: int, tokens: int, folder: str) -> None:
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
    loop = c_loop(folder)
    if loop is None:
        return
    structs = ctypes.addressof(bound.batch.struct), ctypes.addressof(bound.sinks.struct)
    raw = (ctypes.cast(function, ctypes.c_void_p), plan.handle, *structs, arguments[3], plan.workspace_bytes, None)

    def in_c(calls: int) -> float:
        found = float(loop(*raw, calls))
        return found if found >= 0 else sys.exit("the C loop: the call failed")

    ways: dict[str, Callable[[], object]] = {
        "ctypes alone": lambda: function(*arguments), "bound Plan call": bound, "Plan.run": lambda: plan.run(**given),
        "passrl.shape": lambda: passrl.shape(threads=1, **fields, **given),
    }
    plain, rows = added(ways, in_c)
    check(bound().advantages, given["outcome"], tokens)
    print(f"{rollouts} rollouts of {tokens} tokens, 1 thread, µs of CPU a call (the quickest fiftieth of {ROUNDS} rounds):")
    print(f"  {'C loop':<16}{plain / 1e3:8.2f}")
    for name, (more, spread) in rows.items():
        target = f"   (target: at most {TARGETS[name]:g})" if name in TARGETS else ""
        print(f"  {name:<16}{(plain + more) / 1e3:8.2f}{more / 1e3:+8.2f} +- {spread / 1e3:.2f} over C{target}")


if __name__ == "__main__":
    print(f"passrl {passrl.__version__}, Python {sys.version.split()[0]}")
    with tempfile.TemporaryDirectory() as scratch:
        measure(8, 8, scratch)
        measure(64, 1024, scratch)
