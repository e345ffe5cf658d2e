"""How long `import vitrail` and `vitrail --help` take, against an empty interpreter; both stay under half a second."""

import subprocess
import sys
import time

RUNS = 10

COMMANDS = {
    "python -c pass": [sys.executable, "-c", "pass"],
    "import vitrail": [sys.executable, "-c", "import vitrail"],
    "vitrail --help": [sys.executable, "-m", "vitrail", "--help"],
    "import torch": [sys.executable, "-c", "import torch"],
}


def best_time(command: list[str]) -> float:
    """Seconds of the fastest of some runs: the others waited for something else."""
    times = []
    for _ in range(RUNS):
        started = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        times.append(time.perf_counter() - started)
    return min(times)


if __name__ == "__main__":
    for name, command in COMMANDS.items():
        print(f"{name:<16} {best_time(command):.3f} s")
