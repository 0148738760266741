"""torch.distributed as a collective: gloo over 1 to 4 processes, each given its own rollouts."""
from __future__ import annotations

import datetime
import multiprocessing
import os
from pathlib import Path
from typing import Any

import numpy as np
import passrl
import pytest

pytest.importorskip("torch", reason="SKIPPED: torch is not installed, passrl.torch was not run; make frameworks runs it")

SPAWN = multiprocessing.get_context("spawn")
RNG = np.random.default_rng(3)
LENS = RNG.integers(1, 9, 24)
GROUPS = RNG.integers(0, 5, 24)
OUTCOME = np.float32(RNG.integers(0, 3, 24))
SIGNAL = np.float32(RNG.integers(-3, 4, int(LENS.sum())) / 4)
BEGINS = np.concatenate([[0], np.cumsum(LENS)])


def share(rows: Any) -> dict[str, Any]:
    tokens = np.concatenate([np.arange(BEGINS[i], BEGINS[i + 1]) for i in rows]) if len(rows) else np.zeros(0, int)
    return {"signal": SIGNAL[tokens], "lengths": LENS[rows], "groups": GROUPS[rows], "outcome": OUTCOME[rows]}


def rows_of(rank: int, size: int) -> Any:
    """The last of several ranks has nothing."""
    return np.arange(rank, 24, max(size - 1, 1)) if rank < max(size - 1, 1) else np.zeros(0, int)


def group(store: str, rank: int, size: int, seconds: float = 60) -> Any:
    import torch.distributed as dist

    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=size, timeout=datetime.timedelta(seconds=seconds))
    import passrl.torch

    return passrl.torch.collective()


def shapes(store: str, rank: int, size: int, result: Any) -> None:
    comm = group(store, rank, size)
    one = passrl.shape("pass", comm=comm, **share(rows_of(rank, size))).advantages
    plan = passrl.Plan("pass", whiten="tokens", rollouts=24, groups=5, tokens=200, comm=comm)
    import torch

    batch = share(rows_of(rank, size))
    batch["signal"] = torch.from_numpy(batch["signal"])
    other = plan.run(**batch).advantages
    assert isinstance(other, torch.Tensor)
    result.send((np.asarray(one), other.numpy()))


def dies(store: str, rank: int, size: int, result: Any) -> None:
    comm = group(store, rank, size, 5)
    calls = 0
    inner = comm._all_reduce

    def all_reduce(data: Any, op: str) -> None:
        nonlocal calls
        calls += 1
        if rank == 1 and calls == 3:
            os._exit(1)
        inner(data, op)

    out = np.full(int(LENS[rows_of(rank, size)].sum()), 7.0, np.float32)
    try:
        comm = passrl.Collective(all_reduce, rank, size)
        # Plan (1), first message (2); the sums (3) never come.
        passrl.Plan("pass", rollouts=24, groups=5, tokens=200, comm=comm).run(out=out, **share(rows_of(rank, size)))
    except passrl.CollectiveError as fault:
        result.send((str(fault), type(fault.__cause__).__name__, bool((out == 7).all())))
    # No farewell to the engine: it would wait for the dead.
    os._exit(0)


def on_processes(work: Any, size: int, folder: Path) -> list[Any]:
    ends = [SPAWN.Pipe(duplex=False) for _ in range(size)]
    processes = [SPAWN.Process(target=work, args=(str(folder / "store"), rank, size, ends[rank][1])) for rank in range(size)]
    for process in processes:
        process.start()
    for _, sender in ends:
        sender.close()
    found = []
    for receiver, _ in ends:
        try:
            found.append(receiver.recv() if receiver.poll(120) else None)
        except EOFError:
            found.append(None)
    for process in processes:
        process.join(60)
    return found


@pytest.mark.parametrize("size", [1, 2, 3, 4])
def test_gloo_has_the_bits_of_one_process(size: int, tmp_path: Path) -> None:
    everything = share(np.arange(24))
    wholes = [passrl.shape("pass", **everything).advantages,
              passrl.Plan("pass", whiten="tokens", rollouts=24, groups=5, tokens=200).run(**everything).advantages]
    for rank, found in enumerate(on_processes(shapes, size, tmp_path)):
        assert found is not None, f"rank {rank} gave nothing"
        for got, whole in zip(found, wholes):
            wanted = [whole[BEGINS[i]:BEGINS[i + 1]] for i in rows_of(rank, size)]
            assert np.array_equal(got, np.concatenate(wanted) if wanted else whole[:0]), rank


def test_a_rank_that_dies_is_a_collective_error_on_the_others(tmp_path: Path) -> None:
    found = on_processes(dies, 3, tmp_path)
    assert found[1] is None
    for sentence, cause, untouched in (found[0], found[2]):
        assert "all_reduce returned -1" in sentence and "nothing was written" in sentence and cause and untouched


def test_what_is_no_group_of_the_cpu_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch.distributed as dist

    import passrl.torch

    with pytest.raises(passrl.ArgumentError, match="no process group yet"):
        passrl.torch.collective()
    for name, answer in (("is_initialized", True), ("get_rank", 0), ("get_backend_config", "cuda:nccl")):
        monkeypatch.setattr(dist, name, lambda *_, answer=answer: answer)
    with pytest.raises(passrl.DeviceError, match="cuda:nccl, which takes no host memory"):
        passrl.torch.collective()
