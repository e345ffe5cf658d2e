"""Run work in batches as large as the device can hold, and in smaller ones where memory runs out."""

import os
from collections.abc import Callable

import torch
from torch import Tensor

from vitrail.core.progress import advance

CPU_BUDGET = 1 << 28
"""Bytes of a batch on a CPU: larger batches leave the caches and are slower."""

CUDA_LIMIT = 65_535
"""Largest batch on CUDA, regardless of memory.

Attention kernels (flash and memory-efficient) use one grid axis for the batch, and CUDA limits its length. Beyond it they fail with
"invalid configuration argument", an error that does not mention memory and would not trigger a smaller batch.
"""

OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "_status_alloc_failed", "invalid buffer size")
"""Messages of memory errors, in lower case: CUDA, MPS and XLA; the CPU; cuBLAS and cuDNN; MPS for an oversized tensor."""


def memory_budget(device: torch.device) -> int:
    """Return the bytes that a batch may take: half of the memory that is free on the device now."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return (free + cached) // 2
    if device.type == "mps":
        return (torch.mps.recommended_max_memory() - torch.mps.current_allocated_memory()) // 2
    try:
        free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError, AttributeError):  # Not available on every system.
        free = 2 * CPU_BUDGET
    return min(free // 2, CPU_BUDGET)


def run_in_batches(function: Callable[[slice], Tensor], total: int, bytes_each: int, device: torch.device) -> Tensor:
    """Concatenate `function(slice)` over batches that fit into memory; on a memory error, halve the batch and retry.

    Args:
        function: Computes the results of a slice of the `total` items.
        total: Number of items.
        bytes_each: Estimated memory of one item.
        device: Device that runs `function`.
    """
    limit = min(total, CUDA_LIMIT) if device.type == "cuda" else total
    size = max(1, min(limit, memory_budget(device) // max(bytes_each, 1)))
    results: list[Tensor] = []
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
    return torch.cat(results)


def is_out_of_memory(error: Exception) -> bool:
    """Return whether an error means that a device ran out of memory."""
    message = str(error).lower()
    return isinstance(error, torch.OutOfMemoryError) or any(words in message for words in OUT_OF_MEMORY)
