"""The Ray example: a driver shards a batch to actors."""
from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

for module in ("ray", "torch"):
    pytest.importorskip(module, reason=f"SKIPPED: {module} is not installed, the Ray example was not run; make frameworks runs it")

EXAMPLE = Path(__file__).resolve().parents[1] / "examples" / "ray_ranks.py"


@pytest.mark.parametrize("actors", [1, 3])
def test_actors_get_the_bits_of_one_call(actors: int) -> None:
    quiet = os.environ | {"RAY_AUTH_MODE": "disabled"}
    done = subprocess.run([sys.executable, EXAMPLE, "--actors", str(actors)], capture_output=True, text=True, timeout=300, env=quiet)
    if "timed out during startup" in done.stderr:
        pytest.skip("SKIPPED: Ray did not start within its own 30 s; this machine is busy")
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{actors} actors, 256 rollouts in 32 groups across them: every advantage that of one call" in done.stdout
