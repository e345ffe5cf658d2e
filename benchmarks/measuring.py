"""Shared measurements of time and memory."""

import ctypes
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
from torch import nn

Task = Callable[[], object]
Figures = dict[str, float]


def describe_machine(device: str) -> str:
    """Describe torch, device and threads, for the first line of a benchmark."""
    name = torch.cuda.get_device_name() if device.startswith("cuda") else f"{os.cpu_count()} cores"
    return f"torch {torch.__version__}, {device} ({name}), {torch.get_num_threads()} threads"


def synchronizer(device: str) -> Callable[[], None]:
    """Return a function that waits for the device."""
    return torch.cuda.synchronize if device.startswith("cuda") else lambda: None


def seconds(
    function: Callable[[], object],
    repeats: int,
    synchronize: Callable[[], None],
    *,
    warm_up: bool = True,
    clock: Callable[[], float] = time.perf_counter,
) -> float:
    """Measure the median time of several runs, after a warm-up run."""
    times = []
    for _ in range(repeats + warm_up):
        synchronize()
        start = clock()
        function()
        synchronize()
        times.append(clock() - start)
    return statistics.median(times[warm_up:])


def peak_memory(device: str) -> int:
    """Return the peak memory in bytes, of the GPU's allocator or of the process."""
    if device.startswith("cuda"):
        return torch.cuda.max_memory_allocated()
    status = Path("/proc/self/status")
    if status.exists():
        # On Linux, `getrusage` includes the size of the parent process.
        return int(re.findall(r"VmHWM:\s+(\d+)", status.read_text(encoding="utf-8"))[0]) * 1024
    usage = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return usage if sys.platform == "darwin" else usage * 1024


def reset_peak_memory(device: str) -> int:
    """Forget the peak so far, where the system can, and return what is used now."""
    if device.startswith("cuda"):
        torch.cuda.reset_peak_memory_stats()
    elif (counter := Path("/proc/self/clear_refs")).exists():
        library = ctypes.CDLL(None)
        if hasattr(library, "malloc_trim"):  # Else what was freed still counts.
            library.malloc_trim(0)
        counter.write_text("5", encoding="utf-8")
    return peak_memory(device)


def in_own_process(task: Callable[..., dict[str, float]], *arguments: Any) -> dict[str, float]:
    """Run a measurement in a fresh process and propagate its errors."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(task, *arguments).result()


@torch.no_grad()
def add_noise(network: nn.Module) -> None:
    """Add random numbers to all weights: those that networks set to zero at first would hide work and differences."""
    for parameter in network.parameters():
        parameter.add_(torch.randn_like(parameter) * 0.02)


class CachedTask:
    """Task that keeps its last result, so that comparing results needs no further run."""

    result: Any = None

    def __init__(self, task: Task) -> None:
        self.task = task

    def __call__(self) -> None:
        self.result = self.task()


def time_pairs(
    tasks: Sequence[Task], reference: Task, repeats: int, device: str, clock: Callable[[], float] = time.perf_counter
) -> list[list[tuple[float, float]]]:
    """Time every task right after a reference task, so that changes of the machine's speed affect both.

    Returns:
        Per task and repeat: the seconds of the reference and of the task.
    """
    synchronize = synchronizer(device)
    times: list[list[tuple[float, float]]] = [[] for _ in tasks]
    for task in (reference, *tasks):
        task()  # warm up
    for _ in range(repeats):
        for task, pairs in zip(tasks, times, strict=True):
            before = seconds(reference, 1, synchronize, warm_up=False, clock=clock)
            pairs.append((before, seconds(task, 1, synchronize, warm_up=False, clock=clock)))
    return times


def time_alternating(tasks: Sequence[Task], reference: Task, repeats: int, device: str) -> list[Figures]:
    """Summarize `time_pairs`.

    Returns:
        Per task: medians of its `seconds`, of those of the reference `before` it, and of their `ratio`, which goes from `low` to `high`.
    """
    times = time_pairs(tasks, reference, repeats, device)
    ratios = [[after / before for before, after in pairs] for pairs in times]
    return [
        {
            "seconds": statistics.median(after for _, after in pairs),
            "before": statistics.median(before for before, _ in pairs),
            "ratio": statistics.median(each),
            "low": min(each),
            "high": max(each),
        }
        for pairs, each in zip(times, ratios, strict=True)
    ]


def write_section(page: Path, name: str, text: str) -> None:
    """Replace the text between the markers `<!-- table of NAME -->` and `<!-- end of the table -->` of a page."""
    begin, end = f"<!-- table of {name} -->\n", "<!-- end of the table -->\n"
    before, after = page.read_text(encoding="utf-8").split(begin)
    page.write_text(before + begin + text + end + after.partition(end)[2], encoding="utf-8")
