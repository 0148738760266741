"""Full sequences `[B, S]`, prompt included, with the response somewhere inside: cut to lists, shaped, put back."""
from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from ..config import Config
from ..results import Shaped
from . import lists


def spans(mask: torch.Tensor) -> list[slice]:
    """Of each row: from the first token in scope to the last. What lies between and is masked is tool output; what lies before is the prompt."""
    live = (mask != 0).cpu().numpy()
    found = []
    for row in live:
        at = np.flatnonzero(row)
        found.append(slice(int(at[0]), int(at[-1]) + 1) if len(at) else slice(0, 0))
    return found


def shaped(config: Config, given: Sequence[Any], rewards: Any, mask: torch.Tensor, groups: Any, *, where: str, **tokens: Any) -> tuple[torch.Tensor, torch.Tensor, Shaped]:
    """Advantages and returns `[B, S]` f32 on the mask's device, 0 out of scope, and the result.

    given: B records, offsets from the first token in scope. rewards: `[B]`. mask: `[B, S]`. tokens: token-shaped arguments of `passrl.shape`, `[B, S]`.
    """
    at = spans(mask)

    def cut(values: Any) -> list[Any]:
        return [lists.host(row[span]) for row, span in zip(values, at)]

    advantages, result = lists.shaped(config, given, lists.host(rewards), cut(mask), groups, where=where, **{name: cut(values) for name, values in tokens.items()})
    lengths = np.cumsum([len(row) for row in advantages])[:-1]
    returns = advantages if result.returns is None else np.split(np.asarray(result.returns), lengths)

    def back(rows: Any) -> torch.Tensor:
        out = torch.zeros(mask.shape, dtype=torch.float32)
        for row, span, values in zip(out, at, rows):
            row[span] = torch.from_numpy(np.ascontiguousarray(values))
        return out.to(mask.device)

    return back(advantages), back(returns), result
