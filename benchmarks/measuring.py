"""Time and memory, measured in the same way by every benchmark."""

import multiprocessing
import os
import re
import resource
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import torch

Task = Callable[[], object]
Figures = dict[str, float]


def machine(device: str) -> str:
    """What a run's figures hang on: for the first line that a benchmark prints."""
    name = torch.cuda.get_device_name() if device.startswith("cuda") else f"{os.cpu_count()} cores"
    return f"torch {torch.__version__}, {device} ({name}), {torch.get_num_threads()} threads"


def synchronizer(device: str) -> Callable[[], None]:
    """What waits until the device has done its work."""
    return torch.cuda.synchronize if device.startswith("cuda") else lambda: None


def seconds(function: Callable[[], object], repeats: int, synchronize: Callable[[], None], *, warm_up: bool = True) -> float:
    """Median time of some runs, after one that warms up."""
    times = []
    for _ in range(repeats + warm_up):
        synchronize()
        started = time.perf_counter()
        function()
        synchronize()
        times.append(time.perf_counter() - started)
    return statistics.median(times[warm_up:])


def peak_memory(device: str) -> int:
    """Bytes at the highest point so far: of the GPU's allocator, or of the process."""
    if device.startswith("cuda"):
        return torch.cuda.max_memory_allocated()
    status = Path("/proc/self/status")
    if status.exists():
        # Linux: the figure of `getrusage` begins with the size of the process that started this one.
        return int(re.findall(r"VmHWM:\s+(\d+)", status.read_text(encoding="utf-8"))[0]) * 1024
    usage = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return usage if sys.platform == "darwin" else usage * 1024


def in_own_process(task: Callable[..., dict[str, float]], *arguments: Any) -> dict[str, float]:
    """Run a measurement where nothing ran before; what fails there fails here."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(task, *arguments).result()


def in_turns(tasks: Sequence[Task], yardstick: Task, repeats: int, device: str) -> list[Figures]:
    """Time tasks, each run right after one of a yardstick, so that a change of the machine's speed meets both.

    Returns:
        Per task the medians: `seconds`, those of the yardstick `before`, and the `ratio` of the two.
    """
    synchronize = synchronizer(device)
    taken: list[list[tuple[float, float]]] = [[] for _ in tasks]
    for task in (yardstick, *tasks):
        task()  # warms up
    for _ in range(repeats):
        for task, pairs in zip(tasks, taken, strict=True):
            before = seconds(yardstick, 1, synchronize, warm_up=False)
            pairs.append((before, seconds(task, 1, synchronize, warm_up=False)))
    return [
        {
            "seconds": statistics.median(after for _, after in pairs),
            "before": statistics.median(before for before, _ in pairs),
            "ratio": statistics.median(after / before for before, after in pairs),
        }
        for pairs in taken
    ]
