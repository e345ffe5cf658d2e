"""Processes of a run, as started by torchrun, SLURM or the recipe."""

import os
from dataclasses import dataclass
from typing import Any, final

from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment

from vitrail.core.errors import InvalidInputError
from vitrail.training.sections import RunConfig


@final
@dataclass(frozen=True)
class Placement:
    """Devices and machines of a run.

    Attributes:
        devices: Number of devices on this machine, or "auto".
        num_nodes: Number of machines.
        plugins: Plugins for the Lightning trainer.
    """

    devices: int | str
    num_nodes: int = 1
    plugins: tuple[Any, ...] = ()

    @property
    def distributed(self) -> bool:
        """Whether torchrun or SLURM started several processes."""
        return isinstance(self.devices, int) and self.devices * self.num_nodes > 1


def detect_placement(engine: RunConfig) -> Placement:
    """Detect the processes that torchrun or SLURM started, or take the devices of the recipe.

    Raises:
        InvalidInputError: SLURM did not start one process per device on every machine.
    """
    if TorchElasticEnvironment.detect():
        local, world = int(os.environ["LOCAL_WORLD_SIZE"]), int(os.environ["WORLD_SIZE"])
        return Placement(local, world // local)
    if SLURMEnvironment.detect():
        tasks, nodes = int(os.environ["SLURM_NTASKS"]), int(os.environ.get("SLURM_NNODES", "1"))
        # Lightning reads the number of tasks per node, not their total.
        if tasks % nodes or (tasks > 1 and "SLURM_NTASKS_PER_NODE" not in os.environ):
            raise InvalidInputError(
                f"expected one SLURM task per device and the same number on every node, set by --ntasks-per-node; got {tasks} tasks on "
                f"{nodes} nodes"
            )
        # A job that SLURM requeues runs the same command again, with --resume.
        return Placement(tasks // nodes, nodes, (SLURMEnvironment(auto_requeue=False),))
    return Placement(engine.devices)
