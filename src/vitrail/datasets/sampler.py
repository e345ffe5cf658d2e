"""Which images of a set a process takes where several look at it together."""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch.utils.data import Sampler

T = TypeVar("T")


def read_on_cpu(loader: Iterable[T]) -> Iterator[T]:
    """What a loader gives, read on the CPU, also where the user has another default device (`torch.set_default_device`).

    The default is the user's again between the batches.
    """
    with torch.device("cpu"):  # Workers start here too.
        batches = iter(loader)
    while True:
        with torch.device("cpu"):
            try:
                batch = next(batches)
            except StopIteration:
                return
        yield batch


def fixed_generator() -> torch.Generator:
    """What a loader draws from that does not shuffle: it draws one number even so, which must not be the user's."""
    return torch.Generator().manual_seed(0)


@dataclass(frozen=True)
class ProcessShare(Sampler[int]):
    """Every `world_size`-th image, from `rank` on: each image once over all processes, none twice to fill up.

    Figures of an evaluation are exact then. Processes may have one image more or less than others.

    Args:
        num_images: Images of the whole set.
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
