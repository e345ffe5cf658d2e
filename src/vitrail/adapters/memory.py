"""How much fits: batches as large as the device can hold, and smaller ones where it could not after all."""

import os
from collections.abc import Callable

import torch
from torch import Tensor

CPU_BUDGET = 1 << 28
"""On a CPU larger batches are slower, since they leave the caches: stay within a quarter of a gigabyte."""

CUDA_LIMIT = 65_535
"""Most items of a batch on CUDA, however much memory there is.

Attention kernels (flash and memory-efficient) have one axis of their grid for the batch and another for the heads, and CUDA's axes end
here. Beyond, they fail with "invalid configuration argument", which says nothing of memory, so that no smaller batch would be tried.
"""

OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "_status_alloc_failed", "invalid buffer size")
"""What devices say, in small letters: CUDA, MPS and XLA; the CPU; cuBLAS and cuDNN; MPS of a tensor larger than it has."""


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
    most = min(total, CUDA_LIMIT) if device.type == "cuda" else total
    size = max(1, min(most, memory_budget(device) // max(bytes_each, 1)))
    results: list[Tensor] = []
    start = 0
    while start < total:
        try:
            results.append(function(slice(start, min(start + size, total))))
            start += size
            continue
        except RuntimeError as error:
            if size == 1 or not is_out_of_memory(error):
                raise
        # Outside the handler, which still holds the tensors of the batch that failed.
        size //= 2
        if device.type == "cuda":
            torch.cuda.empty_cache()
    return torch.cat(results)


def is_out_of_memory(error: Exception) -> bool:
    """Whether an error says that a device has no memory left; torch has several kinds."""
    said = str(error).lower()
    return isinstance(error, torch.OutOfMemoryError) or any(words in said for words in OUT_OF_MEMORY)
