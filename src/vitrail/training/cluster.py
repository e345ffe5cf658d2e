"""Where a run's processes are: one, those of torchrun, or those of SLURM."""

import os
from dataclasses import dataclass
from typing import Any

from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment

from vitrail.core.errors import InvalidInputError
from vitrail.training.sections import RunConfig


@dataclass(frozen=True)
class Placement:
    """How Lightning is to place a run.

    Attributes:
        devices: On this machine; a number, or "auto".
        num_nodes: Machines.
        plugins: For the trainer.
    """

    devices: int | str
    num_nodes: int = 1
    plugins: tuple[Any, ...] = ()

    @property
    def distributed(self) -> bool:
        """Whether several processes were started from outside."""
        return isinstance(self.devices, int) and self.devices * self.num_nodes > 1


def placement(engine: RunConfig) -> Placement:
    """Read the number of processes off what started them; else it is the recipe's.

    Raises:
        InvalidInputError: SLURM started other processes than one per device on every machine.
    """
    if TorchElasticEnvironment.detect():
        local, world = int(os.environ["LOCAL_WORLD_SIZE"]), int(os.environ["WORLD_SIZE"])
        return Placement(local, world // local)
    if SLURMEnvironment.detect():
        tasks, nodes = int(os.environ["SLURM_NTASKS"]), int(os.environ.get("SLURM_NNODES", "1"))
        # Lightning does without the total, and wants the number of each node.
        if tasks % nodes or (tasks > 1 and "SLURM_NTASKS_PER_NODE" not in os.environ):
            raise InvalidInputError(
                f"expected as many SLURM tasks on every node, one a device, said by --ntasks-per-node; got {tasks} on {nodes}"
            )
        # Resuming is ours: a job that SLURM requeues runs the same command with --resume.
        return Placement(tasks // nodes, nodes, (SLURMEnvironment(auto_requeue=False),))
    return Placement(engine.devices)
