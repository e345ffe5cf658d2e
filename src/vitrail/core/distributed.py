"""Cooperating processes: rank, world size, process group, and gathering of results.

Processes are started by `torchrun` (`python -m torch.distributed.run`), or by SLURM's `srun`. In a single process these functions do
nothing.
"""

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

from vitrail.core.interrupts import end_within, stop_seconds
from vitrail.core.peers import Peers

T = TypeVar("T")

TORCHRUN = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
"""Environment variables that torchrun sets."""

FIRST_PORT, NUM_PORTS = 15_000, 15_000
"""Ports for the processes of srun: below those that systems give to outgoing connections."""


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
    """Return the number of processes that torchrun or srun started, before a group exists; 1 for a single process."""
    size = _started_variables().get("WORLD_SIZE", "1")
    return int(size) if size.isdecimal() else 1


@contextmanager
def process_group() -> Iterator[None]:
    """Join the processes that torchrun or srun started into a group, and leave it on exit.

    The processes of srun get the environment variables of torchrun. `MASTER_ADDR` and `MASTER_PORT`, where the first process listens,
    are taken from SLURM unless they are set.

    Each process takes the CUDA device of its local rank; if there are more processes than devices, they share them. When one fails or
    no longer responds, the others end too (`vitrail.core.peers`).

    Raises:
        ProcessError: Another process failed or was lost.
    """
    variables = _started_variables()
    if _group() is not None or not variables:
        yield
        return
    os.environ.update(variables)
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


def _started_variables() -> dict[str, str]:
    """Return the variables of torchrun, from SLURM if need be; none for a process that was started alone.

    A script of sbatch itself is no step of srun, and runs once, whatever the number of tasks of the job.
    """
    if all(name in os.environ for name in TORCHRUN):
        return {name: os.environ[name] for name in TORCHRUN}
    size, own_rank, local_rank = (
        os.environ.get(name, "") for name in ("SLURM_STEP_NUM_TASKS", "SLURM_PROCID", "SLURM_LOCALID")
    )
    if not (size.isdecimal() and own_rank.isdecimal() and int(size) > 1):
        return {}
    nodes = os.environ.get("SLURM_STEP_NODELIST") or os.environ.get("SLURM_JOB_NODELIST", "")
    alone = os.environ.get("SLURM_STEP_NUM_NODES") == "1"
    # Two steps of a job, and two jobs on a machine, must not meet at one port.
    job, step = (
        int(text) if text.isdecimal() else 0 for text in (os.environ.get(f"SLURM_{name}_ID", "") for name in ("JOB", "STEP"))
    )
    return {
        "RANK": own_rank,
        "WORLD_SIZE": size,
        "LOCAL_RANK": local_rank if local_rank.isdecimal() else "0",
        "MASTER_ADDR": os.environ.get("MASTER_ADDR") or ("127.0.0.1" if alone else first_host(nodes)),
        "MASTER_PORT": os.environ.get("MASTER_PORT") or str(FIRST_PORT + (job * 31 + step) % NUM_PORTS),
    }


def first_host(nodes: str) -> str:
    """Return the first host of a list as SLURM writes it: "gpu[007-009,12],login1" begins with gpu007."""
    prefix, bracket, rest = nodes.strip().partition("[")
    if not bracket or "," in prefix:
        return prefix.split(",")[0] or "127.0.0.1"
    numbers, _, suffix = rest.partition("]")
    return prefix + re.split("[-,]", numbers)[0] + (first_host(suffix) if suffix[:1] not in ("", ",") else "")


def _group() -> Any:
    """Return torch.distributed if a process group exists, else None."""
    import torch.distributed  # noqa: PLC0415 (heavy)

    return torch.distributed if torch.distributed.is_available() and torch.distributed.is_initialized() else None
