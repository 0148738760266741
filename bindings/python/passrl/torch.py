"""torch.distributed as a collective: `comm=passrl.torch.collective(group)`."""
from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray

from .collective import Collective
from .errors import ERR_CONFLICT, ERR_NO_DEVICE, refuse

_OPERATORS = {"sum": dist.ReduceOp.SUM, "max": dist.ReduceOp.MAX}


def collective(group: Any = None) -> Collective:
    """A process group as a `Collective`: each message is one `all_reduce` on the library's own memory (`torch.from_numpy`, no copy).

    group: a process group whose ranks hold the rollouts; None: the default group. Replicas of the same rollouts (tensor parallelism) are not in it.
    The messages lie in host memory, so the group needs an engine for the CPU; beside an NCCL group make a second one,
    `torch.distributed.new_group(ranks, backend="gloo")`. Not a collective call. How long a rank waits for one that does not come is the group's
    `timeout`; what torch raises then is the `__cause__` of a `CollectiveError`.
    """
    if not dist.is_available() or not dist.is_initialized():
        refuse(ERR_CONFLICT, "passrl.torch.collective: torch.distributed has no process group yet; call torch.distributed.init_process_group first")
    rank = dist.get_rank(group)
    if rank < 0:
        refuse(ERR_CONFLICT, "passrl.torch.collective: this process is not in the group; a rank outside makes no plan over it")
    engines = str(dist.get_backend_config(group))
    if "cpu:" not in engines:
        refuse(ERR_NO_DEVICE, f"passrl.torch.collective: the group's engine is {engines}, which takes no host memory; "
                              'make a group beside it with torch.distributed.new_group(ranks, backend="gloo")')

    def all_reduce(data: NDArray[Any], op: str) -> None:
        dist.all_reduce(torch.from_numpy(np.asarray(data)), op=_OPERATORS[op], group=group)

    return Collective(all_reduce, rank, dist.get_world_size(group))
