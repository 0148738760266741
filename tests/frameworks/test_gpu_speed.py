"""What `tests/gpu/check` times on a device, on the CPU: the workloads run, and those written in torch have the library's answer."""
from __future__ import annotations

import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "gpu"))
import passrl  # the whole package before the check's own bare one
import driver
import speed


def test_workloads() -> None:
    assert passrl.__version__
    context = driver._context(driver.ffi.CPU, 0)
    compared = 0
    for work in speed.workloads(torch, "cpu", rows=16, width=200):
        bound = speed.Bound(torch, work, context, "cpu", 0, None)
        bound.run()
        assert torch.isfinite(bound.results[0]).all() and bound.results[0].abs().max() > 0, work.name
        if work.reference is not None:
            wanted = work.reference()
            for found, theirs in zip(bound.results, wanted if isinstance(wanted, tuple) else (wanted,)):
                torch.testing.assert_close(found.view(16, 200), theirs, rtol=2e-5, atol=2e-5, msg=lambda said: f"{work.name}: {said}")
            compared += 1
    assert compared == 4
    # A copy of as many bytes: 16 x 200 tokens of f32 in and out.
    dense = next(work for work in speed.workloads(torch, "cpu", 16, 200) if work.name == "PRM dense, packed, f32")
    assert speed.Bound(torch, dense, context, "cpu", 0, None).bytes == 16 * 200 * 8 + 16 * 4
