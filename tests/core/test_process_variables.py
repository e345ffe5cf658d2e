"""Processes of torchrun and of SLURM, by the environment variables that these set."""

import pytest

from vitrail.core.distributed import (
    FIRST_PORT,
    NUM_PORTS,
    TORCHRUN,
    _started_variables,
    first_host,
    process_group,
    rank,
    started_rank,
    started_together,
    world_size,
)

BATCH = {
    "SLURM_JOB_ID": "77",
    "SLURM_NTASKS": "8",
    "SLURM_PROCID": "0",
    "SLURM_LOCALID": "0",
    "SLURM_JOB_NODELIST": "gpu[07-08]",
}
STEP = BATCH | {
    "SLURM_STEP_ID": "3",
    "SLURM_STEP_NUM_TASKS": "8",
    "SLURM_STEP_NUM_NODES": "2",
    "SLURM_STEP_NODELIST": "gpu[07-08]",
    "SLURM_PROCID": "5",
    "SLURM_LOCALID": "1",
}


@pytest.fixture
def pretend(monkeypatch):
    """A function that sets the variables of a launcher, and no others."""

    def set_all(variables):
        for name in (*TORCHRUN, *STEP):
            monkeypatch.delenv(name, raising=False)
        for name, value in variables.items():
            monkeypatch.setenv(name, value)

    return set_all


def test_a_step_of_srun(pretend):
    pretend(STEP)
    started = _started_variables()
    port = int(started.pop("MASTER_PORT"))
    assert started == {"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "MASTER_ADDR": "gpu07"}
    assert FIRST_PORT <= port < FIRST_PORT + NUM_PORTS
    assert (started_rank(), started_together()) == (5, 8)
    pretend(STEP | {"SLURM_STEP_ID": "4"})
    assert _started_variables()["MASTER_PORT"] != str(port)
    pretend(STEP | {"SLURM_STEP_NUM_NODES": "1"})
    assert _started_variables()["MASTER_ADDR"] == "127.0.0.1"
    pretend(STEP | {"MASTER_ADDR": "10.0.0.1", "MASTER_PORT": "29500"})
    assert _started_variables() == started | {"MASTER_ADDR": "10.0.0.1", "MASTER_PORT": "29500"}


@pytest.mark.parametrize(
    "variables",
    [{}, BATCH, STEP | {"SLURM_STEP_NUM_TASKS": "1"}, STEP | {"SLURM_STEP_NUM_TASKS": ""}, STEP | {"SLURM_PROCID": "x"}],
)
def test_single_processes(variables, pretend):
    pretend(variables)
    assert started_together() == 1
    with process_group():  # Waits for no others.
        assert (rank(), world_size()) == (0, 1)


def test_torchrun_within_srun_counts_its_own_processes(pretend):
    torchrun = {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1", "MASTER_ADDR": "host", "MASTER_PORT": "29500"}
    pretend(STEP | torchrun)
    assert _started_variables() == torchrun
    assert (started_rank(), started_together()) == (1, 2)


@pytest.mark.parametrize(
    ("nodes", "first"),
    [
        ("localhost", "localhost"),
        ("gpu[007-009,12],login1", "gpu007"),
        ("login1,gpu[1-2]", "login1"),
        ("a[3,5]-ib,b", "a3-ib"),
        ("r[1-2]n[3-4],c", "r1n3"),
        ("", "127.0.0.1"),
    ],
)
def test_the_first_host(nodes, first):
    assert first_host(nodes) == first
