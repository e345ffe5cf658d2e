"""Batch sampling that depends only on the seed and the position in the run, for any number of processes."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple, final

import torch
from torch.utils.data import Dataset, Sampler

from vitrail.datasets.dataset import LabeledImages, Sample, Unreadable
from vitrail.training.reproducibility import derive_seed, temporary_seed


class Draw(NamedTuple):
    """Index of an image and the seed of its augmentation."""

    image: int
    seed: int


@final
@dataclass(frozen=True)
class ReproducibleImages(Dataset[Sample | Unreadable]):
    """Images whose random transform is seeded by the draw, so that it does not depend on what a worker read before."""

    images: LabeledImages

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, draw: Draw) -> Sample | Unreadable:
        # Only the transform is seeded: code that opens files may draw random numbers too, for instance to sample type checks.
        return self.images.read(draw.image, temporary_seed(draw.seed))


@final
@dataclass
class EpochBatches(Sampler[list[Draw]]):
    """Batches of one process, epoch after epoch, starting at any batch.

    All processes together draw the images that a single process would draw with a batch `world_size` times as large: process r
    takes every `world_size`-th position of the epoch, starting at r.

    Args:
        num_images: Number of images in the whole set.
        batch_size: Images per process and batch.
        seed: Seed of the order.
        rank: Index of this process.
        world_size: Number of processes.
        num_repeats: How many times an image occurs within an epoch, each time with another augmentation; the epoch keeps its
            length and sees fewer images. Source: repeated augmentation, arXiv:1901.09335, distributed over processes as in
            arXiv:2012.12877.
        batches_done: Returns how many batches the run has completed; called at the start of every epoch.
    """

    num_images: int
    batch_size: int
    seed: int = 0
    rank: int = 0
    world_size: int = 1
    num_repeats: int = 1
    batches_done: Callable[[], int] = lambda: 0

    @property
    def num_positions(self) -> int:
        """Positions of an epoch that this process takes, counting an incomplete last batch, which is dropped."""
        # Positions that do not fill a round of all processes are dropped, unless there is not even one round.
        return max(self.num_images // self.world_size, 1)

    def __len__(self) -> int:
        # A set that is smaller than a batch makes one small batch.
        return max(self.num_positions // self.batch_size, 1)

    def __iter__(self) -> Iterator[list[Draw]]:
        epoch, start = divmod(self.batches_done(), len(self))
        generator = torch.Generator().manual_seed(derive_seed(self.seed, epoch))
        order = torch.randperm(self.num_images, generator=generator, device="cpu").tolist()
        local = range(self.rank, self.num_positions * self.world_size, self.world_size)
        for batch in range(start, len(self)):
            positions = local[batch * self.batch_size : (batch + 1) * self.batch_size]
            # Repeats are neighbors, so that they fall to different processes or batches.
            images = [order[position % self.num_images // self.num_repeats] for position in positions]
            yield [
                Draw(image, derive_seed(self.seed, epoch, 1, position))
                for image, position in zip(images, positions, strict=True)
            ]
