"""Programs in a process of their own, and a batch that is large enough for the library's threads."""
from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import numpy as np

PRELUDE = """
import atexit, ctypes, gc, os, signal, sys, threading, time, weakref
sys.path.insert(0, {here!r})
import numpy as np
import passrl
from guest_helpers import *
"""


def batch(rollouts: int = 64, tokens: int = 512, seed: int = 0) -> dict[str, Any]:
    """A padded batch in groups of 8, of one process signal and an outcome: arguments of `passrl.shape` and `Plan.run`."""
    random = np.random.default_rng(seed)
    signal = np.repeat(random.integers(-3, 4, (rollouts, tokens // 8)).astype(np.float32), 8, axis=1)
    return {"signal": signal, "lengths": random.integers(1, tokens + 1, rollouts), "group_size": 8,
            "outcome": random.integers(0, 2, rollouts).astype(np.float32)}


def threads_here() -> int:
    """Threads of this process."""
    return len(os.listdir("/proc/self/task"))


def join_child(pid: int) -> None:
    """Waits for a forked child; it must have ended with 0 (14: its alarm found it hanging)."""
    _, status = os.waitpid(pid, 0)
    assert status == 0, f"child: status {status:#x}"


def program(code: str, *arguments: str, environment: dict[str, str] | None = None, seconds: float = 60) -> str:
    """Runs Python code in a new process, NumPy without threads of its own: exit status 0 and nothing on stderr; gives what it printed."""
    text = PRELUDE.format(here=os.path.dirname(os.path.abspath(__file__))) + code
    done = subprocess.run([sys.executable, "-X", "faulthandler", "-c", text, *arguments], capture_output=True, text=True, timeout=seconds,
                          env=os.environ | {"OPENBLAS_NUM_THREADS": "1"} | (environment or {}))
    assert done.returncode == 0 and done.stderr == "", f"exit status {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout
