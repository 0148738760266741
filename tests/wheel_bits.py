"""One hash of what the installed package gives for every preset on packed batches of 2 seeds, with and without each input that some preset asks for; for
`aarch64_wheel.sh`, which runs it on two processors."""
from __future__ import annotations

import hashlib
import platform
from typing import Any

import numpy as np

import passrl

INPUTS = ("outcome", "outcome mask", "outcome format mask", "outcome values mask", "outcome logp_policy logp_reference", "outcome logp_policy sum_pi_squared",
          "token_rewards values", "token_rewards", "logp_policy logp_teacher outcome",
          "token_rewards values logp_policy logp_behavior", "outcome steps")
RESULTS = ("advantages", "returns", "path_scores", "num_chunks", "chunk_ends", "chunk_values", "group_flags", "rollout_flags")


def main() -> None:
    found, runs, refused, served = hashlib.sha256(), 0, 0, set()
    for seed in range(2):
        random = np.random.default_rng(seed)
        lengths = random.integers(1, 40, size=12)
        cu = np.concatenate([[0], np.cumsum(lengths)])
        tokens = int(cu[-1])
        given: dict[str, Any] = {"outcome": random.normal(size=12), "format": (random.random(12) < 0.7).astype(np.float64), "mask": random.random(tokens) < 0.8}
        given |= {name: random.normal(size=tokens).astype(np.float32) for name in ("values", "token_rewards")}
        given |= {name: -random.random(tokens).astype(np.float32) for name in ("logp_policy", "logp_reference", "logp_teacher", "logp_behavior")}
        given["sum_pi_squared"] = random.random(tokens).astype(np.float32)
        # Two steps a rollout, in one of three states.
        given["steps"] = passrl.Steps(np.arange(13) * 2, np.stack([(lengths + 1) // 2, lengths], 1).reshape(-1), groups=random.integers(0, 3, size=24))
        process = random.integers(-2, 3, size=tokens).astype(np.float32)
        for preset in passrl.presets():
            for names in INPUTS:
                for signal in ({}, {"signal": process}):
                    try:
                        shaped = passrl.shape(str(preset), cu_seqlens=cu, group_size=4, **signal, **{name: given[name] for name in names.split()})
                    except passrl.Error:  # the preset asks for something else
                        refused += 1
                        continue
                    runs += 1
                    served.add(str(preset))
                    for name in RESULTS:
                        result = getattr(shaped, name)
                        if result is not None:
                            found.update(np.ascontiguousarray(result).tobytes())
    assert len(served) == len(passrl.presets()), {str(preset) for preset in passrl.presets()} - served
    print(f"{platform.machine()} passrl {passrl.__version__}, {len(served)} of {len(passrl.presets())} presets, {runs} runs ({refused} refused): {found.hexdigest()}")


if __name__ == "__main__":
    main()
