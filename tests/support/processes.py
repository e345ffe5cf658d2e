"""Programs under torchrun, as a user starts them: several real processes on the CPU."""

import multiprocessing
import os
import socket
import subprocess
import sys
import tempfile
from pathlib import Path


def run_together(*arguments, processes=2, timeout=240):
    """Run `python -m torch.distributed.run ... ARGUMENTS`; a program that hangs fails the test.

    Returns exit code, standard output and standard error of all processes together.
    """
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
    run = subprocess.run(
        [*launcher, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        timeout=timeout,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    return run.returncode, run.stdout, run.stderr


def fork_together(*arguments, processes=2, timeout=240):
    """Run `vitrail ARGUMENTS` in forks of this process, as torchrun would start it; they have imported everything already.

    Returns exit code, standard output and standard error of all processes together.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {"WORLD_SIZE": processes, "LOCAL_WORLD_SIZE": processes, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    shared |= {"TORCHELASTIC_RUN_ID": "test", "TORCHELASTIC_RESTART_COUNT": 0, "TORCHELASTIC_MAX_RESTARTS": 0, "GROUP_RANK": 0}
    with tempfile.TemporaryDirectory() as folder:
        forks = [
            multiprocessing.get_context("fork").Process(
                target=_run_fork, args=(arguments, shared | {"RANK": rank, "LOCAL_RANK": rank}, Path(folder))
            )
            for rank in range(processes)
        ]
        for fork in forks:
            fork.start()
        for fork in forks:
            fork.join(timeout)
        hanging = [fork.kill() for fork in forks if fork.is_alive()]
        assert not hanging, f"{len(hanging)} processes hang"
        out, err = ("".join(path.read_text() for path in sorted(Path(folder).glob(f"{name}-*"))) for name in ("out", "err"))
    return max(abs(fork.exitcode) for fork in forks), out, err


def _run_fork(arguments, environment, folder):
    from vitrail.cli.main import main

    os.environ |= {name: str(value) for name, value in environment.items()}
    sys.argv = ["vitrail", *map(str, arguments)]
    rank = environment["RANK"]
    with (folder / f"out-{rank}").open("w") as sys.stdout, (folder / f"err-{rank}").open("w") as sys.stderr:
        main()
