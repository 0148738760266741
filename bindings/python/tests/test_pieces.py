"""Rollouts in pieces: Megatron's zigzag over ranks (threads) and over micro-batches has the bits of whole rollouts."""
from __future__ import annotations

from typing import Any

import numpy as np
import passrl
import pytest
from test_ranks import InMemory, RANKS, on_threads

LENS = np.array([70, 3, 41, 0, 128, 33])
GROUPS = np.array([0, 1, 0, 1, 1, 0])
OUTCOME = np.float32([1, 0, 0, 1, 1, 0])
RNG = np.random.default_rng(3)
SIGNAL = [np.float32(RNG.integers(-3, 4, n) / 4) for n in LENS]
ENDS = [np.unique(RNG.integers(1, n + 1, 6)) if n else np.zeros(0, dtype=np.int64) for n in LENS]
SCORES = [np.float32(RNG.integers(-3, 4, len(ends)) / 4) for ends in ENDS]
LIMITS = {"rollouts": 6, "groups": 2, "tokens": 512, "rollout_tokens": 128, "steps": 64}
OF_PIECES = {"pieces": 12, "rollout_pieces": 2 * RANKS}


def steps() -> passrl.Steps:
    return passrl.Steps(np.concatenate([[0], np.cumsum([len(e) for e in ENDS])]), np.concatenate(ENDS), np.concatenate(SCORES))


def whole(kind: str, **fields: Any) -> passrl.Shaped:
    cu = np.concatenate([[0], np.cumsum(LENS)])
    plan = passrl.Plan("pass", kind=kind, **LIMITS, **fields)
    process: dict[str, Any] = {"steps": steps()} if kind == "prm" else {"signal": np.concatenate(SIGNAL)}
    return plan.run(cu_seqlens=cu, groups=GROUPS, outcome=OUTCOME, **process)


def share(kind: str, rank: int) -> dict[str, Any]:
    pieces, cu = passrl.zigzag(LENS, RANKS, rank)
    batch: dict[str, Any] = {"pieces": pieces, "cu_seqlens": cu, "groups": GROUPS, "outcome": OUTCOME}
    if kind == "prm":
        return batch | {"steps": steps()}
    signal = np.full(cu[-1], np.nan, dtype=np.float32)
    for p, (row, begin) in enumerate(zip(pieces.rollout, pieces.begin)):
        part = SIGNAL[row][begin:begin + cu[p + 1] - cu[p]]
        signal[cu[p]:cu[p] + len(part)] = part
    return batch | {"signal": signal}


def put_together(found: list[passrl.Shaped]) -> np.ndarray:
    all_of = [np.full(n, np.nan, dtype=np.float32) for n in LENS]
    for rank, shaped in enumerate(found):
        pieces, cu = passrl.zigzag(LENS, RANKS, rank)
        for p, (row, begin) in enumerate(zip(pieces.rollout, pieces.begin)):
            part = np.asarray(shaped.advantages)[cu[p]:cu[p + 1]]
            inside = max(0, min(len(part), LENS[row] - begin))
            all_of[row][begin:begin + inside] = part[:inside]
            assert not part[inside:].any()
    return np.concatenate(all_of)


@pytest.mark.parametrize("kind,fields", [("prm", {}), ("kl", {"gamma": 0.99}), ("kl", {"whiten": "tokens"})])
def test_zigzag_over_ranks(kind: str, fields: dict[str, Any]) -> None:
    engine, expected = InMemory(), whole(kind, **fields)

    def one(rank: int) -> passrl.Shaped:
        comm = passrl.Collective(engine.of(rank), rank, RANKS)
        return passrl.Plan("pass", kind=kind, comm=comm, **LIMITS, **OF_PIECES, **fields).run(**share(kind, rank))

    found = on_threads(one)
    assert put_together(found).tobytes() == np.asarray(expected.advantages).tobytes()
    for shaped in found:
        assert np.array_equal(shaped.path_scores, expected.path_scores) and np.array_equal(shaped.num_chunks, expected.num_chunks)


def test_zigzag_over_micro_batches() -> None:
    plan = passrl.Plan("pass", **LIMITS, **OF_PIECES)
    partials = passrl.Partials(plan)
    for phase in range(partials.phases):
        for rank in reversed(range(RANKS)):
            partials.add(phase, **share("prm", rank))
    found = [partials.apply(**share("prm", rank)) for rank in range(RANKS)]
    assert put_together(found).tobytes() == np.asarray(whole("prm").advantages).tobytes()


def test_refusals() -> None:
    plan = passrl.Plan("pass", **LIMITS, **OF_PIECES)
    with pytest.raises(passrl.Error, match="every piece must come"):
        plan.run(**share("prm", 0))
    with pytest.raises(passrl.Error, match="batch.piece_rollout is NULL; the plan's limits.pieces is 12"):
        plan.run(cu_seqlens=np.concatenate([[0], np.cumsum(LENS)]), groups=GROUPS, outcome=OUTCOME, steps=steps())
    with pytest.raises(passrl.Error, match="limits.pieces is 0"):
        passrl.Plan("pass", **LIMITS).run(**share("prm", 0))
    with pytest.raises(passrl.Error, match="chunk_ends is given and rollouts come in pieces"):
        plan.run(want="chunks", **share("prm", 0))
    with pytest.raises(passrl.Error, match="rank is 0 to cp - 1"):
        passrl.zigzag(LENS, 2, 2)
    with pytest.raises(passrl.Error, match="it must be a passrl.Pieces"):
        plan.run(**(share("prm", 0) | {"pieces": 3}))
