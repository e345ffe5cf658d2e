"""Time `import vitrail` and `vitrail --help` against an empty interpreter; both should take less than half a second."""

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


def measure_best_time(command: list[str]) -> float:
    """Measure the seconds of the fastest run, the one that other processes disturbed least."""
    times = []
    for _ in range(RUNS):
        start = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        times.append(time.perf_counter() - start)
    return min(times)


if __name__ == "__main__":
    for name, command in COMMANDS.items():
        print(f"{name:<16} {measure_best_time(command):.3f} s")
