"""Where an advantage comes from: each stream's term of F, then G, D and A, a chunk and a token.

Nothing is recomputed by formulas of this module's own. F is linear in the weights, so a stream's term is what the library gives with the
other weights at 0; G and D are a run without whatever comes after the division.
"""
from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..batch import Arguments
from ..config import Config
from ..results import RolloutFlag, Shaped
from ..shape import shape

# Name of the one term where the streams were summed before they were standardised: it has no parts.
JOINT = "reward"


@dataclass
class Terms:
    """R rollouts, C chunks, N tokens, packed.

    names: the streams that have a term. parts: `[len(names), C]` f64, which add up to fused: `[C]` f64, F. chunk_rollout, number, count:
    `[C]` i64: the chunk's rollout, its j (from 1) and K. chunk: `[N]` i64, the token's chunk, -1 out of scope. returns, divided,
    advantages: `[N]` f64: G, D, and A as it was given back.
    """

    names: list[str]
    parts: NDArray[np.float64]
    fused: NDArray[np.float64]
    chunk_rollout: NDArray[np.int64]
    number: NDArray[np.int64]
    count: NDArray[np.int64]
    chunk: NDArray[np.int64]
    returns: NDArray[np.float64]
    divided: NDArray[np.float64]
    advantages: NDArray[np.float64]

    @property
    def residual(self) -> NDArray[np.int64]:
        """`[C]` i64: chunks from this one to the last, K - j + 1; what D divides by (to the power k)."""
        return self.count - self.number + 1


def _streams(config: Config, batch: dict[str, Any]) -> dict[str, str]:
    """Streams of a batch: their name, and the row of the stream table."""
    given = Arguments(**batch)
    found = {}
    if config.kind != "none":
        scores: tuple[int, ...] = () if given.steps is None or given.steps.scores is None else np.shape(given.steps.scores)
        several = len(given.signals()) or (scores[0] if len(scores) == 2 else 1)
        found = {("process" if several == 1 else f"process {p}"): f"process_{p}" for p in range(several)}
    found |= {name: name for name in ("outcome", "format") if batch.get(name) is not None}
    return found | {name: f"extra_{x}" for x, (name, _, _) in enumerate(given.extra())}


def explain(config: Config, batch: dict[str, Any], shaped: Shaped, scope: NDArray[np.bool_], threads: int = 0) -> Terms:
    """Takes a result apart. config, batch: what `shape` was given (packed, by cu_seqlens); scope: `[N]` bool. One run a stream, and one more."""
    cu, offsets = np.asarray(batch["cu_seqlens"]), np.asarray(shaped.chunk_offsets)
    counts = np.diff(offsets)
    owner = np.repeat(np.arange(len(counts)), counts)
    plain = shape(config.replace(temperature=1.0, whiten="none", clip=float("inf")), threads=threads, dtype="f64", returns=True, **batch)
    fused = np.asarray(shaped.chunk_values, dtype=np.float64)
    names, parts = _parts(config, batch, fused, threads)
    if config.fusion == "advantage" and "format" in names:
        # A wrong format's F is the format's term alone, with all the weights (eq. 4).
        wrong = (np.asarray(shaped.rollout_flags) & RolloutFlag.FORMAT_VIOLATING != 0)[owner]
        parts[:, wrong] = 0.0
        parts[names.index("format"), wrong] = fused[wrong]
    return Terms(
        names, parts, fused, owner, np.arange(len(owner)) - np.repeat(offsets[:-1], counts) + 1, counts[owner], _chunk_of(cu, owner, shaped, scope),
        np.asarray(plain.returns, dtype=np.float64), np.asarray(plain.advantages), np.asarray(shaped.advantages, dtype=np.float64))


def _parts(config: Config, batch: dict[str, Any], fused: NDArray[np.float64], threads: int) -> tuple[list[str], NDArray[np.float64]]:
    rows, table = _streams(config, batch), config.streams
    counted = [name for name, row in rows.items() if table[row].weight != 0 or (name == "format" and config.fusion == "advantage")]
    if len(counted) == 1:
        return counted, fused[None].copy()
    # Other fusions sum the rewards first.
    if config.fusion not in ("advantage", "pooled") or not counted:
        return [JOINT], fused[None].copy()
    alone = []
    for name in counted:
        others = {f"{row}.weight": 0.0 for other, row in rows.items() if other != name}
        alone.append(np.asarray(shape(config.replace(**others), threads=threads, **batch).chunk_values, dtype=np.float64))
    return counted, np.stack(alone)


def _chunk_of(cu: NDArray[Any], owner: NDArray[np.int64], shaped: Shaped, scope: NDArray[np.bool_]) -> NDArray[np.int64]:
    """The first chunk that ends after a token; none where that is another rollout's (a token that left the scope behind its last chunk)."""
    tokens = np.arange(len(scope))
    ends = np.asarray(shaped.chunk_ends, dtype=np.int64) + cu[owner]
    found = np.searchsorted(ends, tokens, side="right")
    rollout = np.repeat(np.arange(len(cu) - 1), np.diff(cu))
    inside = scope & (found < len(ends))
    inside[inside] = owner[found[inside]] == rollout[inside]
    return np.where(inside, found, -1)
