"""What verl's entry point group `verl.plugins` loads: `passrl.plugins.verl`, or, where that cannot be loaded, estimators that say why.

A module of its own because `import passrl` already loads the library, and verl passes over a plug-in that fails without a word: a run would end in
"Unknown advantage estimator". So a failure is logged here as a warning, and whoever asks for one of the names is told the reason.
"""
from __future__ import annotations

import logging
from typing import Any

_NAMES = ("pass", "grpo_process", "grpo_pooled")


def _tell(fault: Exception) -> None:
    from verl.trainer.ppo import core_algos

    reason = f"passrl could not be loaded, so that its advantage estimators are not there: {type(fault).__name__}: {fault}"
    logging.getLogger(__name__).warning("%s", reason)

    def refuse(*_: Any, **__: Any) -> Any:
        raise ImportError(reason) from fault

    for name in _NAMES:
        core_algos.register_adv_est(name)(refuse)
    theirs = core_algos.get_adv_estimator_fn

    def get_adv_estimator_fn(name_or_enum: Any) -> Any:
        try:
            return theirs(name_or_enum)
        except ValueError as unknown:
            # A preset's name has a dot; none of verl's own has.
            if "." in str(name_or_enum):
                raise ImportError(reason) from fault
            raise unknown

    core_algos.get_adv_estimator_fn = get_adv_estimator_fn


try:
    import passrl.plugins.verl  # noqa: F401
except Exception as fault:
    _tell(fault)
