"""The same bits on a GPU too, where that is asked for."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

WORKSPACE = "CUBLAS_WORKSPACE_CONFIG"
"""Environment variable without which cuBLAS may add up in another order every time."""

REFUSED = "does not have a deterministic implementation"
"""What torch says of an operation that cannot be done so."""


@contextmanager
def determinism(wanted: bool) -> Iterator[None]:
    """Let torch, cuDNN and cuBLAS use algorithms alone that give the same bits every time; on leaving, all is as it was.

    Args:
        wanted: Whether to; else nothing is changed.
    """
    if not wanted:
        yield
        return
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    cudnn = torch.backends.cudnn
    flags, workspace = (cudnn.deterministic, cudnn.benchmark), os.environ.get(WORKSPACE)
    torch.use_deterministic_algorithms(True)
    cudnn.deterministic, cudnn.benchmark = True, False
    os.environ.setdefault(WORKSPACE, ":4096:8")
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
        cudnn.deterministic, cudnn.benchmark = flags
        if workspace is None:
            os.environ.pop(WORKSPACE, None)
