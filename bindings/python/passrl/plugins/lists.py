"""Responses as lists of ragged arrays, for frameworks that hold them so: packed once, shaped in one call, cut again."""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..config import Config
from ..errors import ERR_NULL, refuse
from ..results import Shaped
from ..shape import shape
from . import records


def needed(config: Config) -> list[str]:
    """Token-shaped arguments beside the rewards that a configuration reads."""
    found: list[str] = []
    if config.credit in ("gae", "vtrace"):
        found.append("values")
    if config.kind == "kl":
        found += ["logp_policy", "logp_teacher"]
    if config.kl_in_reward != "none" and config.kl_coef:
        found += ["logp_policy", "logp_reference"]
    if config.credit == "vtrace":
        found += ["logp_policy", "logp_behavior"]
    if config.token_baseline != "none":
        found += ["logp_policy", "sum_pi_squared"]
    return list(dict.fromkeys(found))


def wanted(config: Config, has: Mapping[str, Any], options: Mapping[str, str]) -> dict[str, Any]:
    """What a configuration reads of what a framework has (None: has not). Errors: the argument, and the framework's option that makes it."""
    found = {}
    for name in needed(config):
        if has.get(name) is None:
            refuse(ERR_NULL, f"passrl: the configuration reads {name} and the batch has none; {options.get(name, 'the framework does not give it here: take another preset')}")
        found[name] = has[name]
    return found


def host(values: Any, dtype: Any = np.float64) -> NDArray[Any]:
    """One response's numbers as a NumPy array: of a list, or of a tensor of any framework, type and device."""
    if hasattr(values, "detach"):
        values = values.detach().cpu()
        values = values.double().numpy() if values.is_floating_point() else values.numpy()
    return np.asarray(values, dtype=dtype)


def shaped(config: Config, given: Sequence[Any], rewards: Any, masks: Sequence[Any], groups: Any, *, in_stats: Any = None, where: str = "the reward function",
           **tokens: Sequence[Any]) -> tuple[list[NDArray[np.float32]], Shaped]:
    """Advantages of each response, f32, and the result.

    given: R records (see `records`). rewards: `[R]`. masks: R arrays, nonzero where the policy wrote the token; their lengths are the extents.
    groups: R keys. tokens: token-shaped arguments of `passrl.shape`, R arrays each.
    """
    scope = [host(mask, np.float32) != 0 for mask in masks]
    lengths = np.array([len(mask) for mask in scope], dtype=np.int64)
    if not len(scope):
        return [], shape(config, lengths=lengths, groups=[], kind="none", outcome=np.zeros(0))
    arguments = records.arguments(config, given, rewards, lengths, where=where)
    arguments |= {name: np.concatenate([host(row) for row in rows]) for name, rows in tokens.items()}
    result = records.told(shape(config, lengths=lengths, groups=groups, mask=np.concatenate(scope), in_stats=in_stats, **arguments))
    return np.split(result.advantages, np.cumsum(lengths)[:-1]), result
