"""How much fits: batches as large as the device can hold, and smaller ones where it could not after all."""

import os
from collections.abc import Callable

import torch
from torch import Tensor

CPU_BUDGET = 1 << 28
"""On a CPU larger batches are slower, since they leave the caches: stay within a quarter of a gigabyte."""


def memory_budget(device: torch.device) -> int:
    """Bytes that a batch may take: half of what is free on the device now."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return (free + cached) // 2
    if device.type == "mps":
        return (torch.mps.recommended_max_memory() - torch.mps.current_allocated_memory()) // 2
    try:
        free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError, AttributeError):  # Not every system tells.
        free = 2 * CPU_BUDGET
    return min(free // 2, CPU_BUDGET)


def in_batches(function: Callable[[slice], Tensor], total: int, bytes_each: int, device: torch.device) -> Tensor:
    """Concatenate `function(slice)` over batches that fit into memory; a batch that does not is halved and tried again.

    Args:
        function: Computes the results of some of the `total` items.
        total: Number of items.
        bytes_each: Estimated memory of one item.
        device: Where the work is done.
    """
    size = max(1, min(total, memory_budget(device) // max(bytes_each, 1)))
    results: list[Tensor] = []
    start = 0
    while start < total:
        try:
            results.append(function(slice(start, min(start + size, total))))
            start += size
            continue
        except RuntimeError as error:
            if size == 1 or not _out_of_memory(error):
                raise
        # Outside the handler, which still holds the tensors of the batch that failed.
        size //= 2
        if device.type == "cuda":
            torch.cuda.empty_cache()
    return torch.cat(results)


def _out_of_memory(error: RuntimeError) -> bool:
    return isinstance(error, torch.OutOfMemoryError) or "out of memory" in str(error) or "can't allocate memory" in str(error)
