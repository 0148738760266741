"""Groups spread over ranks: threads as ranks over an all-reduce in memory, and processes over pipes."""
from __future__ import annotations

import multiprocessing
import os
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
    with pytest.raises(passrl.Error, match=r"comm is a object; it must be a passrl\.Collective"):
        passrl.shape("pass", comm=object())


def of_shape(rows: list[int]) -> dict[str, Any]:
    """As `share`, with empty arrays where there are no rollouts."""
    return share(rows) | {"signal": share(rows).get("signal", SIGNAL[:0]), "outcome": OUTCOME[rows], "format": FORMAT[rows]}


def test_shape_over_ranks_has_the_bits_of_one_call() -> None:
    wire = InMemory()

    def work(rank: int) -> Any:
        comm = passrl.Collective(wire.of(rank), rank, RANKS)
        for _ in range(2):
            shaped = passrl.shape("pass", comm=comm, **of_shape(rows_of(rank)))
        assert len(comm.plans) == 1
        assert shaped.stats["outcome"].count.tolist() == [3, 2, 3]
        # Another configuration is another plan, and the first is still there.
        passrl.shape("pass", k=0.25, comm=comm, **of_shape(rows_of(rank)))
        assert len(comm.plans) == 2
        return np.asarray(passrl.shape("pass", comm=comm, **of_shape(rows_of(rank))).advantages)

    same(on_threads(work))


@pytest.mark.parametrize("edit, message", [
    ({"gama": 1}, 'key "gama" is unknown'), ({"group_size": 2, "groups": None}, "group_size 2 with comm"), ({"out": np.zeros(3, np.int32)}, "dtype"),
    ({"groups": np.int64([7, -1, 0, 0])}, "group"), ({"returns": "yes"}, "returns"),
])
def test_what_one_rank_has_refused_every_rank_is_told(edit: dict[str, Any], message: str) -> None:
    for call in ("shape", "run"):
        wire = InMemory()

        def work(rank: int) -> Any:
            comm = passrl.Collective(wire.of(rank), rank, RANKS)
            batch = of_shape(rows_of(rank)) | (edit if rank == 1 else {})
            if call == "shape":
                return passrl.shape("pass", comm=comm, **batch)
            return passrl.Plan("pass", comm=comm, **LIMITS).run(**(batch if rank != 2 else share([])))

        found = on_threads(work)
        if call == "run" and "group_size" in edit:
            message = "group_size is 2 with a collective"
        if call == "run" and "gama" in edit:
            message = 'argument "gama" is unknown'
        assert isinstance(found[1], passrl.Error | TypeError | ValueError) and message in str(found[1]), found[1]
        for rank in (0, 2):
            assert isinstance(found[rank], passrl.CollectiveError) and "the arguments of rank 1 are refused" in str(found[rank]), found[rank]


def test_a_plan_that_one_rank_is_refused_no_rank_gets() -> None:
    wire = InMemory()

    def work(rank: int) -> Any:
        fields = {"chunk": "stepp"} if rank == 0 else {}
        return passrl.Plan("pass", comm=passrl.Collective(wire.of(rank), rank, RANKS), **LIMITS, **fields)

    found = on_threads(work)
    assert isinstance(found[0], passrl.ArgumentError) and "stepp" in str(found[0])
    assert all(isinstance(fault, passrl.CollectiveError) and "rank 0 are refused" in str(fault) for fault in found[1:]), found


def test_configurations_that_differ_are_named() -> None:
    for call in ("shape", "plan"):
        wire = InMemory()

        def work(rank: int) -> Any:
            comm, k = passrl.Collective(wire.of(rank), rank, RANKS), 0.5 + rank / 4
            return passrl.shape("pass", k=k, comm=comm, **of_shape(rows_of(rank))) if call == "shape" else passrl.Plan("pass", k=k, comm=comm, **LIMITS)

        for fault in on_threads(work):
            assert isinstance(fault, passrl.CollectiveError) and "config.k differs: 0.5 on some rank and 1.0 on another" in str(fault), fault


def test_maxima_alone_take_one_reduction() -> None:
    wire = InMemory()

    def work(rank: int) -> Any:
        calls: list[str] = []

        def counted(data: np.ndarray, op: str) -> None:
            calls.append(f"{op} {data.dtype}")
            wire.of(rank)(data, op)

        plan = passrl.Plan("pass", standardize="abs_max", comm=passrl.Collective(counted, rank, RANKS), **LIMITS)
        calls.clear()
        advantages = np.asarray(plan.run(want="path_scores", **share(rows_of(rank))).advantages)
        assert calls == ["max int32"]
        calls.clear()
        assert np.array_equal(np.asarray(plan.run(**share(rows_of(rank))).advantages), advantages)
        assert calls == ["max int32", "sum int64"]
        return advantages

    found = on_threads(work)
    assert not any(isinstance(one, BaseException) for one in found), found
    whole = np.asarray(passrl.Plan("pass", standardize="abs_max", **LIMITS).run(**share(list(range(len(LENS))))).advantages)
    begins = np.concatenate([[0], np.cumsum(LENS)])
    for rank in (0, 1):
        assert np.array_equal(found[rank], np.concatenate([whole[begins[i]:begins[i + 1]] for i in rows_of(rank)]))


def test_micro_batches_within_ranks_have_the_bits_of_one_call() -> None:
    wire = InMemory()

    def work(rank: int) -> Any:
        comm, plan = passrl.Collective(wire.of(rank), rank, RANKS), passrl.Plan("pass", **LIMITS)
        partials = passrl.Partials(plan)
        micro = [rows_of(rank)[:1], rows_of(rank)[1:]] if rows_of(rank) else []
        for phase in range(partials.phases):
            for rows in micro:
                partials.add(phase, **share(rows))
            partials.reduce(phase, comm)
        return np.concatenate([np.asarray(partials.apply(**share(rows)).advantages) for rows in micro] or [np.zeros(0)])

    same(on_threads(work))

    def apart(rank: int) -> Any:
        passrl.Partials(passrl.Plan("pass", k=rank / 4, **LIMITS)).reduce(0, passrl.Collective(wire.of(rank), rank, RANKS))

    for fault in on_threads(apart):
        assert isinstance(fault, passrl.CollectiveError) and "partials of different plans" in str(fault)


def _process(rank: int, pipes: Any, result: Any, dies: bool) -> None:
    calls = 0

    def all_reduce(data: np.ndarray, op: str) -> None:
        nonlocal calls
        calls += 1
        if dies and rank == 1 and calls == 3:
            os._exit(9)
        if rank == 0:
            parts = [data.copy()] + [pipe.recv() for pipe in pipes]
            data[:] = {"sum": np.sum, "max": np.max}[op](np.stack(parts), axis=0)
            for pipe in pipes:
                pipe.send(data)
        else:
            pipes.send(data)
            data[:] = pipes.recv()

    plan = passrl.Plan("pass", comm=passrl.Collective(all_reduce, rank, RANKS), **LIMITS)
    out = np.full(int(LENS[rows_of(rank)].sum()), 7, np.float32)
    try:
        result.send(np.asarray(plan.run(out=out, **share(rows_of(rank))).advantages))
    except passrl.CollectiveError as fault:
        result.send((str(fault), type(fault.__cause__).__name__, bool((out == 7).all())))


def over_pipes(dies: bool) -> list[Any]:
    context = multiprocessing.get_context("spawn")
    ends = [context.Pipe() for _ in range(1, RANKS)]
    results = [context.Pipe(duplex=False) for _ in range(RANKS)]
    mine: list[Any] = [[a for a, _ in ends]] + [b for _, b in ends]
    processes = [context.Process(target=_process, args=(rank, mine[rank], results[rank][1], dies)) for rank in range(RANKS)]
    for process in processes:
        process.start()
    # The ends that the children have are theirs alone: a dead one's close.
    for _, end in ends:
        end.close()
    for end in mine[0]:
        end.close()
    for _, sender in results:
        sender.close()
    found = [received(receiver) for receiver, _ in results]
    for process in processes:
        process.join(20)
    return found


def received(receiver: Any) -> Any:
    try:
        return receiver.recv() if receiver.poll(60) else None
    except EOFError:
        return None


def test_processes_over_pipes_get_the_bits_of_one_call() -> None:
    same(over_pipes(dies=False))


def test_a_process_that_dies_is_a_collective_error_on_the_others() -> None:
    found = over_pipes(dies=True)
    assert found[1] is None
    for rank in (0, 2):
        sentence, cause, untouched = found[rank]
        assert f"all_reduce returned -1 on rank {rank} of 3" in sentence and cause in ("EOFError", "ConnectionResetError", "BrokenPipeError") and untouched


def slices(plan: passrl.Plan, batch: dict[str, Any], cuts: list[slice]) -> tuple[passrl.Partials, list[dict[str, Any]]]:
    """Partials of a batch of rollouts of 2 tokens, all phases of which have come in slices; and the slices."""
    parts = [{name: array[2 * cut.start : 2 * cut.stop] if name == "values" else array[cut] for name, array in batch.items()} for cut in cuts]
    partials = passrl.Partials(plan)
    for phase in range(partials.phases):
        for part in parts:
            partials.add(phase, **part)
    return partials, parts


def test_strict_partials_refuse_a_slice_with_findings() -> None:
    batch = {"outcome": np.float32([1, 0, np.inf, 2]), "lengths": np.full(4, 2), "groups": np.array([0, 0, 1, 1])}
    plan = passrl.Plan("trl.grpo", strict=True, rollouts=4, groups=2, tokens=8, rollout_tokens=2)
    partials, parts = slices(plan, batch, [slice(0, 2), slice(2, 3), slice(3, 4)])
    assert partials.apply(**parts[0]).status == 0
    for part in parts[1:]:  # The second has the infinity, the third a rollout of its group.
        out = np.full(2 * len(part["outcome"]), 7, np.float32)
        with pytest.raises(passrl.DataError, match="strict: .*group 1 has a value that is not finite"):
            partials.apply(**part, out=out)
        assert (out == 7).all()


def test_an_empty_set_whitens_alike_on_every_way() -> None:
    random = np.random.default_rng(3)
    batch = {"outcome": random.standard_normal(8).astype(np.float32), "values": random.standard_normal(16).astype(np.float32), "lengths": np.full(8, 2),
             "groups": np.arange(8) // 4, "in_stats": np.zeros(8, bool)}
    plan = passrl.Plan("verl.gae", lam=0.95, gamma=0.99, whiten="tokens", rollouts=8, groups=2, tokens=16, rollout_tokens=2)
    whole = plan.run(**batch, dtype="float64").advantages.copy()
    partials, parts = slices(plan, batch, [slice(0, 3), slice(3, 8)])
    assert (np.concatenate([partials.apply(**part, dtype="float64").advantages for part in parts]) == whole).all()
    assert (whole == whole.astype(np.float32)).all() and whole.any()
