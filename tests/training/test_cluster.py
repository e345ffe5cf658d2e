"""Where processes are, by what torchrun and SLURM say in the environment."""

import pytest

from vitrail.core.errors import InvalidInputError
from vitrail.training.sections import EngineConfig

pytest.importorskip("lightning")

from vitrail.training.cluster import placement

TORCHRUN = {
    "RANK": "5",
    "LOCAL_RANK": "1",
    "GROUP_RANK": "1",
    "TORCHELASTIC_RUN_ID": "x",
    "MASTER_ADDR": "a",
    "MASTER_PORT": "1",
}

JOB = {"SLURM_JOB_NAME": "train", "SLURM_JOB_ID": "1", "SLURM_PROCID": "0"}


@pytest.fixture
def environment(monkeypatch):
    """A function that sets variables; there are none of torchrun and SLURM otherwise."""
    import os

    for name in list(os.environ):
        if name.startswith(("SLURM_", "TORCHELASTIC_")) or name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE"):
            monkeypatch.delenv(name)

    def set_all(**variables):
        for name, value in variables.items():
            monkeypatch.setenv(name, value)

    return set_all


@pytest.mark.parametrize("devices", [1, 4, "auto"])
def test_alone_the_recipe_decides(devices, environment):
    placed = placement(EngineConfig(devices=devices))
    assert (placed.devices, placed.num_nodes, placed.plugins, placed.distributed) == (devices, 1, (), devices == 4)


@pytest.mark.parametrize(("local", "world", "nodes"), [("1", "1", 1), ("2", "2", 1), ("4", "8", 2), ("1", "3", 3)])
def test_under_torchrun_its_processes_decide(local, world, nodes, environment):
    environment(**TORCHRUN, LOCAL_WORLD_SIZE=local, WORLD_SIZE=world)
    placed = placement(EngineConfig(devices=7))
    assert (placed.devices, placed.num_nodes) == (int(local), nodes)
    assert placed.distributed == (world != "1")


@pytest.mark.parametrize(("tasks", "nodes", "devices"), [("8", "2", 4), ("1", "1", 1), ("3", "3", 1)])
def test_under_slurm_its_tasks_decide(tasks, nodes, devices, environment):
    environment(**JOB, SLURM_NTASKS=tasks, SLURM_NNODES=nodes, SLURM_NTASKS_PER_NODE=str(devices))
    placed = placement(EngineConfig())
    assert (placed.devices, placed.num_nodes, placed.distributed) == (devices, int(nodes), tasks != "1")
    (plugin,) = placed.plugins
    assert not plugin.auto_requeue


def test_a_shell_within_slurm_is_a_machine_like_others(environment):
    environment(SLURM_NTASKS="8", SLURM_NNODES="2", SLURM_JOB_NAME="bash", SLURM_JOB_ID="1")
    assert placement(EngineConfig()).devices == 1


def test_torchrun_within_slurm_comes_first(environment):
    environment(**TORCHRUN, LOCAL_WORLD_SIZE="2", WORLD_SIZE="4", SLURM_NTASKS="2", SLURM_NNODES="2", SLURM_JOB_NAME="train")
    assert (placement(EngineConfig()).devices, placement(EngineConfig()).num_nodes) == (2, 2)


@pytest.mark.parametrize(("tasks", "nodes"), [("3", "2"), ("4", "2")])
def test_tasks_that_are_not_given_by_node_are_refused(tasks, nodes, environment):
    environment(**JOB, SLURM_NTASKS=tasks, SLURM_NNODES=nodes)
    with pytest.raises(InvalidInputError, match=f"--ntasks-per-node; got {tasks} on {nodes}"):
        placement(EngineConfig())
