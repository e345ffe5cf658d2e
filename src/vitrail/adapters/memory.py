"""Run work in batches as large as the device can hold, and in smaller ones where memory runs out."""

import os
from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor

from vitrail.core.progress import advance

T = TypeVar("T")

CPU_BUDGET = 1 << 28
"""Bytes of a batch on a CPU: larger batches leave the caches and are slower."""

CPU_GRAPHS = 1 << 31
"""Bytes of the graphs of a batch on a CPU, a fixed number so that batches do not depend on other programs while memory is free."""

CUDA_LIMIT = 65_535
"""Largest batch on CUDA, regardless of memory.

Attention kernels (flash and memory-efficient) use one grid axis for the batch, and CUDA limits its length. Beyond it they fail with
"invalid configuration argument", an error that does not mention memory and would not trigger a smaller batch.
"""

OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "_status_alloc_failed", "invalid buffer size")
"""Messages of memory errors, in lower case: CUDA, MPS and XLA; the CPU; cuBLAS and cuDNN; MPS for an oversized tensor."""


def free_memory(device: torch.device) -> int:
    """Return the bytes that are free on the device now."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    if device.type == "mps":
        return torch.mps.recommended_max_memory() - torch.mps.current_allocated_memory()
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError, AttributeError):  # Not available on every system.
        return 2 * CPU_BUDGET


def memory_budget(device: torch.device) -> int:
    """Return the bytes that a batch may work on: half of the memory that is free on the device now, on a CPU what its caches hold."""
    budget = free_memory(device) // 2
    return min(budget, CPU_BUDGET) if device.type == "cpu" else budget


def choose_batch_size(total: int, bytes_each: int, device: torch.device, bytes_kept: int = 0) -> int:
    """Return how many of the `total` items to run at once, at least one.

    A rule and no measurement: rounding depends on the size of a batch, and results must not depend on how busy the machine is.

    Args:
        total: Number of items.
        bytes_each: Estimated memory of one item that a pass works on.
        device: Device that runs the batch.
        bytes_kept: Estimated memory of one item that stays until the end of the batch, such as a graph.
    """
    bytes_all = max(bytes_each + bytes_kept, 1)
    if device.type == "cpu":
        # What is kept needs memory, but not the caches.
        graphs = min(free_memory(device) // 2, CPU_GRAPHS) // bytes_all if bytes_kept else total
        size = min(memory_budget(device) // max(bytes_each, 1), graphs)
    else:
        size = memory_budget(device) // bytes_all
    return max(1, min(size, total, CUDA_LIMIT if device.type == "cuda" else total))


def split_into_batches(
    function: Callable[[slice], T], total: int, bytes_each: int, device: torch.device, bytes_kept: int = 0
) -> list[T]:
    """Return `function(slice)` for batches that fit into memory; on a memory error, halve the batch and retry.

    Args:
        function: Computes the results of a slice of the `total` items.
        total: Number of items.
        bytes_each: Estimated memory of one item that a pass works on.
        device: Device that runs `function`.
        bytes_kept: Estimated memory of one item that stays until the end of the batch, such as a graph.
    """
    size = choose_batch_size(total, bytes_each, device, bytes_kept)
    results: list[T] = []
    start = 0
    while start < total:
        try:
            results.append(function(slice(start, min(start + size, total))))
            start += size
            advance(start / total)
            continue
        except RuntimeError as error:
            if size == 1 or not is_out_of_memory(error):
                raise
        # Outside of the handler, which keeps the tensors of the failed batch alive.
        size //= 2
        if device.type == "cuda":
            torch.cuda.empty_cache()
    return results


def run_in_batches(
    function: Callable[[slice], Tensor], total: int, bytes_each: int, device: torch.device, bytes_kept: int = 0
) -> Tensor:
    """Concatenate the results of `split_into_batches`."""
    return torch.cat(split_into_batches(function, total, bytes_each, device, bytes_kept))


def is_out_of_memory(error: Exception) -> bool:
    """Return whether an error means that a device ran out of memory."""
    message = str(error).lower()
    return isinstance(error, torch.OutOfMemoryError) or any(words in message for words in OUT_OF_MEMORY)
