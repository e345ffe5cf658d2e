"""Detection of processes from the environment variables of torchrun and SLURM."""

import pytest

from vitrail.core.errors import InvalidInputError
from vitrail.training.sections import EngineConfig

pytest.importorskip("lightning")

from vitrail.training.cluster import detect_placement

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
def test_recipe_sets_the_devices(devices, environment):
    placement = detect_placement(EngineConfig(devices=devices))
    assert (placement.devices, placement.num_nodes, placement.plugins, placement.distributed) == (devices, 1, (), devices == 4)


@pytest.mark.parametrize(("local", "world", "nodes"), [("1", "1", 1), ("2", "2", 1), ("4", "8", 2), ("1", "3", 3)])
def test_torchrun_overrides_the_recipe(local, world, nodes, environment):
    environment(**TORCHRUN, LOCAL_WORLD_SIZE=local, WORLD_SIZE=world)
    placement = detect_placement(EngineConfig(devices=7))
    assert (placement.devices, placement.num_nodes) == (int(local), nodes)
    assert placement.distributed == (world != "1")


@pytest.mark.parametrize(("tasks", "nodes", "devices"), [("8", "2", 4), ("1", "1", 1), ("3", "3", 1)])
def test_slurm_overrides_the_recipe(tasks, nodes, devices, environment):
    environment(**JOB, SLURM_NTASKS=tasks, SLURM_NNODES=nodes, SLURM_NTASKS_PER_NODE=str(devices))
    placement = detect_placement(EngineConfig())
    assert (placement.devices, placement.num_nodes, placement.distributed) == (devices, int(nodes), tasks != "1")
    (plugin,) = placement.plugins
    assert not plugin.auto_requeue


def test_shell_in_a_slurm_job_is_a_single_process(environment):
    environment(SLURM_NTASKS="8", SLURM_NNODES="2", SLURM_JOB_NAME="bash", SLURM_JOB_ID="1")
    assert detect_placement(EngineConfig()).devices == 1


def test_torchrun_takes_precedence_over_slurm(environment):
    environment(**TORCHRUN, LOCAL_WORLD_SIZE="2", WORLD_SIZE="4", SLURM_NTASKS="2", SLURM_NNODES="2", SLURM_JOB_NAME="train")
    assert (detect_placement(EngineConfig()).devices, detect_placement(EngineConfig()).num_nodes) == (2, 2)


@pytest.mark.parametrize(("tasks", "nodes"), [("3", "2"), ("4", "2")])
def test_slurm_tasks_must_be_set_per_node(tasks, nodes, environment):
    environment(**JOB, SLURM_NTASKS=tasks, SLURM_NNODES=nodes)
    with pytest.raises(InvalidInputError, match=f"--ntasks-per-node; got {tasks} tasks on {nodes} nodes"):
        detect_placement(EngineConfig())
