"""Programs under torchrun, as a user starts them: several real processes on the CPU."""

import os
import subprocess
import sys


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
