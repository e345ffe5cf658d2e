"""Randomness as a function of where a run is, so that nothing random has to be saved to resume it.

Lightning restores neither the random state nor the place within an epoch. Here every random decision is seeded by its
place: the order of an epoch by (seed, epoch), the augmentation of an image by (seed, epoch, place in the epoch), dropout and
label mixing by (seed, epoch, batch, process). A run that was killed and resumed, with any number of worker processes, makes
the decisions that it would have made.
"""

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch


def derive(*place: int) -> int:
    """A seed for a place: 63 bits, unrelated for places that differ."""
    low, high = np.random.SeedSequence(place).generate_state(2, np.uint32).tolist()
    return low | (high & 0x7FFFFFFF) << 32


def seed_all(seed: int) -> None:
    """Seed Python, numpy and torch, on every device in use.

    CUDA is left alone while nothing runs on it: a seed would wait there, and be found by whoever uses it first.
    """
    random.seed(seed)
    np.random.seed(seed & 0xFFFFFFFF)  # timm's transforms and label mixing draw from numpy's global state
    torch.default_generator.manual_seed(seed)
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed_all(seed)
    if torch.backends.mps.is_available():
        torch.mps.manual_seed(seed)


@contextmanager
def random_state_kept(on_cuda: bool = False) -> Iterator[None]:
    """Put the random state of Python, numpy and torch back on leaving.

    Args:
        on_cuda: Whether CUDA may come into use within the block: it is initialized before, since only then it has a state.
    """
    put_back = _cpu_state()
    if on_cuda and torch.cuda.is_available():
        torch.cuda.init()
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else []
    mps = torch.mps.get_rng_state() if torch.backends.mps.is_available() else None
    with torch.random.fork_rng(devices=devices):
        try:
            yield
        finally:
            put_back()
            if mps is not None:
                torch.mps.set_rng_state(mps)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Draw on the CPU from a seed of one's own; on leaving, the random state is what it was."""
    put_back = _cpu_state()
    random.seed(seed)
    np.random.seed(seed & 0xFFFFFFFF)
    torch.default_generator.manual_seed(seed)
    try:
        yield
    finally:
        put_back()


def _cpu_state() -> Callable[[], None]:
    """Remember the random state on the CPU; what is returned puts it back."""
    python, numpy, state = random.getstate(), np.random.get_state(), torch.get_rng_state()

    def put_back() -> None:
        random.setstate(python)
        np.random.set_state(numpy)
        torch.set_rng_state(state)

    return put_back
