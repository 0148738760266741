"""Groups spread over ranks: threads as ranks over an all-reduce in memory, and processes over pipes."""
from __future__ import annotations

import multiprocessing
import threading
from typing import Any

import numpy as np
import passrl
import pytest

RANKS = 3
LENS = np.array([4, 3, 5, 6, 2, 4, 3, 5])
GROUPS = np.array([0, 1, 0, 1, 2, 2, 0, 2])
OUTCOME = np.float32([1, 0, 0, 1, 1, 0, 1, 0])
FORMAT = np.float32([1, 1, 0, 1, 0, 1, 1, 1])
SIGNAL = np.float32(np.random.default_rng(7).integers(-3, 4, int(LENS.sum())) / 4)
LIMITS = {"rollouts": 8, "groups": 3, "tokens": 64, "rollout_tokens": 8, "steps": 64}


def rows_of(rank: int) -> list[int]:
    """Rank 2 has no data."""
    return [i for i in range(len(LENS)) if i % 2 == rank]


def share(rows: list[int]) -> dict[str, Any]:
    begins = np.concatenate([[0], np.cumsum(LENS)])
    parts = [SIGNAL[begins[i]:begins[i + 1]] for i in rows]
    batch: dict[str, Any] = {"cu_seqlens": np.concatenate([[0], np.cumsum(LENS[rows])]).astype(np.int64), "groups": GROUPS[rows]}
    if rows:
        batch |= {"signal": np.concatenate(parts), "outcome": OUTCOME[rows], "format": FORMAT[rows]}
    return batch


def whole() -> np.ndarray:
    return np.asarray(passrl.Plan("pass", **LIMITS).run(**share(list(range(len(LENS))))).advantages)


class InMemory:
    """An all-reduce of threads."""

    def __init__(self) -> None:
        self.barrier = threading.Barrier(RANKS)
        self.sent: list[np.ndarray] = [np.zeros(0)] * RANKS

    def of(self, rank: int) -> Any:
        def all_reduce(data: np.ndarray, op: str) -> None:
            self.sent[rank] = data.copy()
            self.barrier.wait(20)
            data[:] = {"sum": np.sum, "max": np.max}[op](np.stack(self.sent), axis=0)
            self.barrier.wait(20)

        return all_reduce


def on_threads(work: Any) -> list[Any]:
    found: list[Any] = [None] * RANKS

    def one(rank: int) -> None:
        try:
            found[rank] = work(rank)
        except BaseException as fault:
            found[rank] = fault

    threads = [threading.Thread(target=one, args=(rank,)) for rank in range(RANKS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


def same(found: list[Any]) -> None:
    begins, all_of_it = np.concatenate([[0], np.cumsum(LENS)]), whole()
    for rank, advantages in enumerate(found):
        wanted = [all_of_it[begins[i]:begins[i + 1]] for i in rows_of(rank)]
        assert np.array_equal(advantages, np.concatenate(wanted) if wanted else np.zeros(0)), rank


def test_threads_as_ranks_get_the_bits_of_one_call() -> None:
    wire = InMemory()

    def work(rank: int) -> Any:
        plan = passrl.Plan("pass", comm=passrl.Collective(wire.of(rank), rank, RANKS), **LIMITS)
        assert f"ranks: rank {rank} of 3; 2 reductions a run" in repr(plan)
        plan.run(**share(rows_of(rank)))
        return np.asarray(plan.run(**share(rows_of(rank))).advantages)

    same(on_threads(work))


def test_limits_that_differ_are_refused_on_every_rank() -> None:
    wire = InMemory()
    found = on_threads(lambda rank: passrl.Plan("pass", comm=passrl.Collective(wire.of(rank), rank, RANKS), **(LIMITS | {"groups": 3 + rank})))
    for fault in found:
        assert isinstance(fault, passrl.CollectiveError) and "limits.groups is 3 on some rank and 5 on another" in str(fault)


def test_an_exception_in_the_callback_is_the_cause() -> None:
    def all_reduce(data: np.ndarray, op: str) -> None:
        raise RuntimeError("the network is down")

    with pytest.raises(passrl.CollectiveError, match="all_reduce returned -1 on rank 0 of 1") as caught:
        passrl.Plan("pass", comm=passrl.Collective(all_reduce, 0, 1), **LIMITS)
    assert "the network is down" in str(caught.value.__cause__)


def test_what_is_no_collective_is_refused() -> None:
    with pytest.raises(passrl.Error, match=r"comm is a str; it must be a passrl\.Collective"):
        passrl.Plan("pass", comm="gloo", **LIMITS)  # type: ignore[arg-type]
    with pytest.raises(passrl.NotServedError, match="shape takes no comm"):
        passrl.shape("pass", comm=object())


def _process(rank: int, pipes: Any, result: Any) -> None:
    def all_reduce(data: np.ndarray, op: str) -> None:
        if rank == 0:
            parts = [data.copy()] + [pipe.recv() for pipe in pipes]
            data[:] = {"sum": np.sum, "max": np.max}[op](np.stack(parts), axis=0)
            for pipe in pipes:
                pipe.send(data)
        else:
            pipes.send(data)
            data[:] = pipes.recv()

    plan = passrl.Plan("pass", comm=passrl.Collective(all_reduce, rank, RANKS), **LIMITS)
    result.send(np.asarray(plan.run(**share(rows_of(rank))).advantages))


def test_processes_over_pipes_get_the_bits_of_one_call() -> None:
    context = multiprocessing.get_context("spawn")
    ends = [context.Pipe() for _ in range(1, RANKS)]
    results = [context.Pipe(duplex=False) for _ in range(RANKS)]
    mine: list[Any] = [[a for a, _ in ends]] + [b for _, b in ends]
    processes = [context.Process(target=_process, args=(rank, mine[rank], results[rank][1])) for rank in range(RANKS)]
    for process in processes:
        process.start()
    found = [receiver.recv() if receiver.poll(60) else None for receiver, _ in results]
    for process in processes:
        process.join(20)
    same(found)
