"""Rollouts in pieces (context parallelism): what the pieces of a call are of."""
from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import arrays
from .errors import ERR_VALUE, integer, refuse


@dataclass(frozen=True)
class Pieces:
    """The pieces of a call, P of them, of R rollouts; for plans with `pieces`. Packed: `cu_seqlens` is `[P+1]`, token-shaped arrays hold the pieces.

    rollout: `[P]` i32/i64, row of the per-rollout arrays. begin: `[P]`, index of the piece's first token in its rollout. index: `[P]`, its number among
    the rollout's pieces, from the rollout's begin. lengths: `[R]`, tokens of the whole rollouts; slots of a piece beyond are padding. rollout_index: `[R]`, numbers
    of the rollouts in the whole batch (None: their rows). Per-rollout arrays and steps are those of the whole rollouts, the same with every piece.
    """

    rollout: Any
    begin: Any
    index: Any
    lengths: Any
    rollout_index: Any = None


def zigzag(lengths: Any, cp: int, rank: int, rollout_index: Any = None) -> tuple[Pieces, NDArray[np.int64]]:
    """Megatron-LM's pieces of a rank: each rollout padded to a multiple of 2 cp and cut into 2 cp equal pieces, of which the rank has `rank` and `2 cp - 1 - rank`.

    lengths: `[R]` tokens of the whole rollouts, without padding. Returns the rank's pieces, two a rollout one after the other, and their `cu_seqlens` `[2 R + 1]`.
    """
    cp, rank = integer(cp, "cp"), integer(rank, "rank")
    if cp < 1 or not 0 <= rank < cp:
        refuse(ERR_VALUE, f"passrl: cp is {cp} and rank {rank}; rank is 0 to cp - 1")
    whole = arrays.extents(lengths, "lengths")
    slots = -(-whole // (2 * cp))
    index = np.tile(np.array([rank, 2 * cp - 1 - rank], dtype=np.int64), len(whole))
    twice = np.repeat(slots, 2)
    cu = np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(twice)])
    return Pieces(np.repeat(np.arange(len(whole), dtype=np.int64), 2), index * twice, index, whole, rollout_index), cu
