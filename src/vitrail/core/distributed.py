"""Cooperating processes: rank, world size, process group, and gathering of results.

Processes are started by `torchrun` (`python -m torch.distributed.run`). In a single process these functions do nothing.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

from vitrail.core.interrupts import end_within, stop_seconds
from vitrail.core.peers import Peers

T = TypeVar("T")

TORCHRUN = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
"""Environment variables that torchrun sets."""


def rank() -> int:
    """Return the rank of this process in the process group, from 0."""
    group = _group()
    return 0 if group is None else int(group.get_rank())


def world_size() -> int:
    """Return the number of processes in the process group; 1 without one."""
    group = _group()
    return 1 if group is None else int(group.get_world_size())


def started_rank() -> int:
    """Return the rank of this process among those that torchrun, SLURM or Lightning started, before a group exists."""
    # LOCAL_RANK is enough for Lightning's own processes (`devices=2` without torchrun): they are all on one machine.
    for name in ("RANK", "SLURM_PROCID", "LOCAL_RANK"):
        if os.environ.get(name, "").isdecimal():
            return int(os.environ[name])
    return 0


def started_together() -> int:
    """Return the number of processes that torchrun started, before a group exists; 1 without torchrun."""
    is_torchrun = all(name in os.environ for name in TORCHRUN) and os.environ["WORLD_SIZE"].isdecimal()
    return int(os.environ["WORLD_SIZE"]) if is_torchrun else 1


@contextmanager
def process_group() -> Iterator[None]:
    """Join the processes that torchrun started into a group, and leave it on exit.

    Each process takes the CUDA device of its local rank; if there are more processes than devices, they share them. When one fails or
    no longer responds, the others end too (`vitrail.core.peers`).

    Raises:
        ProcessError: Another process failed or was lost.
    """
    if _group() is not None or not all(name in os.environ for name in TORCHRUN):
        yield
        return
    import torch  # noqa: PLC0415 (heavy)

    backend = "gloo"
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]) % torch.cuda.device_count())
        # Results are on the CPU, which NCCL does not support.
        backend = "cpu:gloo,cuda:nccl"
    torch.distributed.init_process_group(backend)
    try:
        with Peers() as peers:
            peers.start(rank(), world_size())
            yield
    finally:
        # May wait for other processes forever after a failure.
        limit = end_within(stop_seconds(), "error: the processes did not leave their group in time", 2)
        torch.distributed.destroy_process_group()
        limit.cancel()


def gather(items: Sequence[T]) -> list[T]:
    """Return the items of all processes in the order of ranks. Every process must call it, and gets the same list."""
    group = _group()
    if group is None:
        return list(items)
    gathered: list[Any] = [None] * world_size()
    group.all_gather_object(gathered, list(items))
    return [item for part in gathered for item in part]


def _group() -> Any:
    """Return torch.distributed if a process group exists, else None."""
    import torch.distributed  # noqa: PLC0415 (heavy)

    return torch.distributed if torch.distributed.is_available() and torch.distributed.is_initialized() else None
