"""Several processes that work as one: which of them this is, and what they have found together.

They are started from outside, by `torchrun` (`python -m torch.distributed.run`). In a single process nothing happens here.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

from vitrail.core.interrupts import end_within, stop_seconds
from vitrail.core.peers import Peers

T = TypeVar("T")

TORCHRUN = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
"""What torchrun tells each of its processes."""


def rank() -> int:
    """This process among those that work together, from 0."""
    group = _group()
    return 0 if group is None else int(group.get_rank())


def world_size() -> int:
    """How many processes work together; 1 where nobody brought them together."""
    group = _group()
    return 1 if group is None else int(group.get_world_size())


def started_rank() -> int:
    """This process among all that torchrun, SLURM or Lightning started, before they are brought together."""
    # Lightning's own processes, of `devices=2` without torchrun, are all on one machine.
    for name in ("RANK", "SLURM_PROCID", "LOCAL_RANK"):
        if os.environ.get(name, "").isdecimal():
            return int(os.environ[name])
    return 0


def started_together() -> int:
    """How many processes torchrun started, before they are brought together; 1 without torchrun."""
    told = all(name in os.environ for name in TORCHRUN) and os.environ["WORLD_SIZE"].isdecimal()
    return int(os.environ["WORLD_SIZE"]) if told else 1


@contextmanager
def process_group() -> Iterator[None]:
    """Bring the processes that torchrun started together, and part them on leaving.

    Each takes the CUDA device of its number on the machine; where there are more processes than devices, they share them. When one
    fails, or gives no sign of life any more, the others end too (`vitrail.core.peers`).

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
        # Figures lie on the CPU, which NCCL does not know.
        backend = "cpu:gloo,cuda:nccl"
    torch.distributed.init_process_group(backend)
    try:
        with Peers() as peers:
            peers.start(rank(), world_size())
            yield
    finally:
        # May wait for others for ever after a failure.
        limit = end_within(stop_seconds(), "error: the processes did not part in time", 2)
        torch.distributed.destroy_process_group()
        limit.cancel()


def gather(items: Sequence[T]) -> list[T]:
    """The items of all processes, in the order of their ranks: every process must ask, and gets the same list."""
    group = _group()
    if group is None:
        return list(items)
    found: list[Any] = [None] * world_size()
    group.all_gather_object(found, list(items))
    return [item for some in found for item in some]


def _group() -> Any:
    """torch.distributed where processes were brought together, else None."""
    import torch.distributed  # noqa: PLC0415 (heavy)

    return torch.distributed if torch.distributed.is_available() and torch.distributed.is_initialized() else None
