"""Reproducibility: seeds derived from the position in a run, preserved random states, deterministic algorithms.

Lightning restores neither the random state nor the position within an epoch. Here the position seeds every random decision: the
order of an epoch by (seed, epoch), the augmentation of an image by (seed, epoch, position in the epoch), dropout and label mixing
by (seed, epoch, batch, process). A resumed run therefore makes the decisions of an uninterrupted one, with any number of worker
processes, and no random state has to be saved.
"""

import os
import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

CUBLAS_WORKSPACE = "CUBLAS_WORKSPACE_CONFIG"
"""Environment variable that makes cuBLAS sum in a fixed order."""

NOT_DETERMINISTIC = "does not have a deterministic implementation"
"""Part of torch's error message about an operation without a deterministic algorithm."""


def derive_seed(*position: int) -> int:
    """Derive a 63-bit seed from a position; seeds of different positions are unrelated."""
    low, high = np.random.SeedSequence(position).generate_state(2, np.uint32).tolist()
    return low | (high & 0x7FFFFFFF) << 32


def seed_all(seed: int) -> None:
    """Seed Python, numpy and torch, on every device in use.

    Skips CUDA if it is not initialized: torch would apply the seed later, to the first program that uses CUDA.
    """
    random.seed(seed)
    np.random.seed(seed & 0xFFFFFFFF)  # timm's transforms and label mixing draw from numpy's global state
    torch.default_generator.manual_seed(seed)
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed_all(seed)
    if torch.backends.mps.is_available():
        torch.mps.manual_seed(seed)


@contextmanager
def preserve_random_state(on_cuda: bool = False) -> Iterator[None]:
    """Restore the random state of Python, numpy and torch on exit.

    Args:
        on_cuda: Whether the block may use CUDA: it is then initialized first, since only then it has a state to preserve.
    """
    if on_cuda and torch.cuda.is_available():
        torch.cuda.init()
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else []
    mps = torch.mps.get_rng_state() if torch.backends.mps.is_available() else None
    with _preserve_cpu_state(), torch.random.fork_rng(devices=devices):
        try:
            yield
        finally:
            if mps is not None:
                torch.mps.set_rng_state(mps)


@contextmanager
def temporary_seed(seed: int) -> Iterator[None]:
    """Seed the random state of the CPU within the block and restore it on exit."""
    with _preserve_cpu_state():
        random.seed(seed)
        np.random.seed(seed & 0xFFFFFFFF)
        torch.default_generator.manual_seed(seed)
        yield


@contextmanager
def _preserve_cpu_state() -> Iterator[None]:
    python, numpy, state = random.getstate(), np.random.get_state(), torch.get_rng_state()
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
        torch.set_rng_state(state)


@contextmanager
def deterministic_algorithms(enabled: bool) -> Iterator[None]:
    """Restrict torch, cuDNN and cuBLAS to deterministic algorithms within the block; restore the settings on exit.

    Args:
        enabled: If false, change nothing.
    """
    if not enabled:
        yield
        return
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    cudnn = torch.backends.cudnn
    flags, workspace = (cudnn.deterministic, cudnn.benchmark), os.environ.get(CUBLAS_WORKSPACE)
    torch.use_deterministic_algorithms(True)
    cudnn.deterministic, cudnn.benchmark = True, False
    os.environ.setdefault(CUBLAS_WORKSPACE, ":4096:8")
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
        cudnn.deterministic, cudnn.benchmark = flags
        if workspace is None:
            os.environ.pop(CUBLAS_WORKSPACE, None)
