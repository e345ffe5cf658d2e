"""Time the start of vitrail, each in a fresh process.

`import vitrail` and `vitrail --help` should take less than half a second, and `vitrail explain` of one photo with a bundled model less than
2.5 s on two idle cores. Most of that is the import of torch; timm, which only its own networks need, takes as long again.
"""

import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

RUNS = 10

COMMANDS = {
    "python -c pass": [sys.executable, "-c", "pass"],
    "import vitrail": [sys.executable, "-c", "import vitrail"],
    "vitrail --help": [sys.executable, "-m", "vitrail", "--help"],
    "import torch": [sys.executable, "-c", "import torch"],
    "import timm": [sys.executable, "-c", "import timm"],
}


def measure_best_time(command: list[str]) -> float:
    """Measure the seconds of the fastest run, the one that other processes disturbed least."""
    times = []
    for _ in range(RUNS):
        start = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        times.append(time.perf_counter() - start)
    return min(times)


def main() -> None:
    """Print the times."""
    with tempfile.TemporaryDirectory() as folder:
        photo = Path(folder) / "photo.png"
        Image.fromarray(np.random.default_rng(0).integers(0, 256, (300, 400, 3), dtype=np.uint8)).save(photo)
        explain = [sys.executable, "-m", "vitrail", "explain", str(photo), "--out", f"{folder}/out", "--overwrite"]
        models = {f"explain {name}": [*explain, "--model", f"vitrail:{name}"] for name in ("hit-cifar10", "vit-cifar10")}
        for name, command in (COMMANDS | models).items():
            print(f"{name:<20} {measure_best_time(command):.3f} s", flush=True)


if __name__ == "__main__":
    main()
