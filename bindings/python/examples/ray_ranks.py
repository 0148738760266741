"""A Ray driver shards a batch to actors; groups lie across them, and every advantage has the bits of one call on the whole batch.

    pip install ray torch          # torch: Ray's collectives on the CPU are gloo's
    python ray_ranks.py --actors 3

Each actor gets its rollouts alone. Between the actors go the statistics of the groups, by Ray's own all-reduce.
"""
from __future__ import annotations

import argparse
from typing import Any

import numpy as np
import passrl
import ray
from numpy.typing import NDArray
from ray.util import collective

OPERATORS = {"sum": collective.types.ReduceOp.SUM, "max": collective.types.ReduceOp.MAX}


class Worker:
    """One rank."""

    def __init__(self, rank: int, size: int) -> None:
        self.rank, self.size = rank, size

    def join(self) -> None:
        """Every worker at the same time."""
        collective.init_collective_group(self.size, self.rank, backend="gloo")
        self.comm = passrl.Collective(lambda data, op: collective.allreduce(data, op=OPERATORS[op]), self.rank, self.size)

    def shape(self, share: dict[str, Any]) -> NDArray[Any]:
        """Every worker at the same time, each with its share."""
        return np.asarray(passrl.shape("pass", comm=self.comm, **share).advantages)


def batch_of(rollouts: int, groups: int) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    lengths = rng.integers(1, 200, rollouts)
    return {"lengths": lengths, "signal": np.float32(rng.integers(-4, 5, int(lengths.sum())) / 4), "groups": rng.integers(0, groups, rollouts),
            "outcome": np.float32(rng.integers(0, 2, rollouts))}


def share_of(batch: dict[str, Any], rows: NDArray[Any]) -> dict[str, Any]:
    ends = np.cumsum(batch["lengths"])
    tokens = np.concatenate([np.arange(ends[i] - batch["lengths"][i], ends[i]) for i in rows])
    return {"lengths": batch["lengths"][rows], "signal": batch["signal"][tokens], "groups": batch["groups"][rows], "outcome": batch["outcome"][rows]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--actors", type=int, default=3)
    size = parser.parse_args().actors
    ray.init(num_cpus=1, include_dashboard=False, log_to_driver=True)
    batch = batch_of(256, 32)
    rows = [np.arange(rank, 256, size) for rank in range(size)]
    actor: Any = ray.remote(num_cpus=0)(Worker)
    workers = [actor.remote(rank, size) for rank in range(size)]
    ray.get([worker.join.remote() for worker in workers])
    shares = ray.get([worker.shape.remote(share_of(batch, mine)) for worker, mine in zip(workers, rows)])
    ray.shutdown()

    whole = np.asarray(passrl.shape("pass", **batch).advantages)
    begins = np.concatenate([[0], np.cumsum(batch["lengths"])])
    for share, mine in zip(shares, rows):
        wanted = np.concatenate([whole[begins[i]:begins[i + 1]] for i in mine])
        assert np.array_equal(share, wanted), "an advantage differs from that of one call on the whole batch"
    print(f"{size} actors, {len(batch['lengths'])} rollouts in 32 groups across them: every advantage that of one call")


if __name__ == "__main__":
    main()
