"""Reading a data set through a `DataLoader`: the share of each process, and independence from the user's torch state."""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch.utils.data import Sampler

T = TypeVar("T")


@dataclass(frozen=True)
class ProcessShare(Sampler[int]):
    """Every `world_size`-th image, starting with `rank`: all processes together read each image exactly once.

    Unlike torch's `DistributedSampler`, no image is repeated to give all processes equally many, so results over all shares are exact.
    Shares differ by at most one image.

    Args:
        num_images: Size of the data set.
        rank: This process, from 0.
        world_size: Number of processes.
    """

    num_images: int
    rank: int = 0
    world_size: int = 1

    def __len__(self) -> int:
        return max(math.ceil((self.num_images - self.rank) / self.world_size), 0)

    def __iter__(self) -> Iterator[int]:
        return iter(range(self.rank, self.num_images, self.world_size))


def read_on_cpu(loader: Iterable[T]) -> Iterator[T]:
    """Iterate over a loader with the CPU as default device, whatever `torch.set_default_device` says.

    Between batches, the user's default device is active.
    """
    with torch.device("cpu"):  # Starts the workers, too.
        batches = iter(loader)
    while True:
        with torch.device("cpu"):
            try:
                batch = next(batches)
            except StopIteration:
                return
        yield batch


def fixed_generator() -> torch.Generator:
    """Return a generator for loaders that do not shuffle: they draw one number anyway, which would advance the user's generator."""
    return torch.Generator().manual_seed(0)
