"""ms-swift 4.6.0 from PyPI: its own `compute_advantages` and `compute_advantages_dynamic` in float64 (the latter keeps means in float32)."""
from __future__ import annotations

import logging
import sys
import types
from collections.abc import Callable
from typing import Any

import numpy as np

import stubs
from cases import WEIGHTS, Case
from entry import Entry, F64

stubs.stub("modelscope", "transformers", "datasets", "accelerate", "peft", "json_repair", "tqdm", "requests", "safetensors", "matplotlib", "pandas",
           "huggingface_hub", "dacite", "PIL", "trl", "simplejson", "torchvision", "sentencepiece")
_logs = types.ModuleType("modelscope.utils.logger")
_logger = logging.getLogger("modelscope")
_logger.addHandler(logging.NullHandler())
_logs.get_logger = lambda *a, **k: _logger  # type: ignore[attr-defined]
sys.modules["modelscope.utils.logger"] = _logs

import torch  # noqa: E402
from swift.rl_core.advantage import compute_advantages, compute_advantages_dynamic  # noqa: E402

SOURCE = "ms-swift 4.6.0 swift/rl_core/advantage.py:"


def _run(estimator: str, scale: str, *, kl_coef: float = 0.0, dynamic: bool = False) -> Callable[[Case], F64]:
    def run(case: Case) -> F64:
        more: dict[str, Any] = {"advantage_estimator": estimator, "scale_rewards": scale}
        if kl_coef:
            ratio = np.where(case.mask, case.logp_policy - case.logp_reference, 0.0)
            more |= {"kl_in_reward": True, "beta": kl_coef, "kl_values": torch.tensor(np.array([row.sum() for row in case.rows(ratio)]))}
        functions, weights = torch.tensor(case.functions), torch.tensor(WEIGHTS, dtype=torch.float64)
        if dynamic:
            # Its own buffers are torch.zeros: they follow the default type.
            torch.set_default_dtype(torch.float64)
            found, _ = compute_advantages_dynamic(functions, weights, [str(g) for g in case.groups], [str(i) for i in range(case.rollouts)], **more)
            torch.set_default_dtype(torch.float32)
        else:
            found, _ = compute_advantages(functions, weights, case.group_size, **more)
        return found.double().numpy()

    return run


def entries() -> list[Entry]:
    even = frozenset({"even"})

    def entry(preset: str, estimator: str, scale: str, variant: str = "", needs: frozenset[str] = even, inputs: tuple[str, ...] = ("functions",),
              config: dict[str, Any] | None = None, refuses: frozenset[str] = frozenset(),
              exceptions: dict[str, str] | None = None, **more: Any) -> Entry:
        function = "compute_advantages_dynamic" if more.get("dynamic") else "compute_advantages"
        return Entry(preset=f"ms_swift.{preset}", variant=variant, source=SOURCE + function, run=_run(estimator, scale, **more), inputs=inputs, needs=needs,
                     refuses=refuses, config=config or {}, exceptions=exceptions or {})

    kl = ("functions", "no_outcome", "logp_policy", "logp_reference")
    absent = even | {"absent"}
    return [
        Entry(preset="ms_swift.gdpo", variant="compat_refused", source=SOURCE + "compute_advantages", run=_run("grpo", "gdpo"), inputs=("functions",),
              needs=even | {"single"}, exceptions={"one": "refused"}, config={"compat": True}),
        entry("grpo", "grpo", "group"), entry("grpo_batch", "grpo", "batch"), entry("grpo", "grpo", "none", "no_std", config={"scale": "none"}),
        entry("gdpo", "grpo", "gdpo", refuses=frozenset({"single"})), entry("gdpo", "grpo", "gdpo", "absent", needs=absent, exceptions={"absent": "set"}), entry("grpo", "grpo", "group", "absent", needs=absent),
        entry("rloo", "rloo", "group"), entry("rloo", "rloo", "none", "no_std", config={"scale": "none"}),
        entry("reinforce_plus_plus", "reinforce_plus_plus", "batch"),
        entry("reinforce_plus_plus", "reinforce_plus_plus", "group", "group", config={"scale": "group", "whiten": "none"}),
        entry("grpo", "grpo", "group", "kl", kl_coef=0.04, inputs=kl, config={"kl_in_reward": "k1", "kl_coef": 0.04}),
        entry("grpo", "grpo", "group", "dynamic", needs=frozenset({"uneven"}), dynamic=True),
        entry("rloo", "rloo", "none", "dynamic", needs=frozenset({"uneven"}), dynamic=True, config={"scale": "none"}),
    ]
