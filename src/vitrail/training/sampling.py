"""Which images make a batch: known from the seed and the place in the run alone, on any number of processes."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch.utils.data import Dataset, Sampler

from vitrail.datasets.dataset import LabeledImages, Sample, Unreadable
from vitrail.training.randomness import derive, seeded


class Draw(NamedTuple):
    """Which image to read, and the seed of its augmentation."""

    image: int
    seed: int


@dataclass(frozen=True)
class ReproducibleImages(Dataset[Sample | Unreadable]):
    """Images whose random transform is seeded by the draw: the same in every process, whatever was read before."""

    images: LabeledImages

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, draw: Draw) -> Sample | Unreadable:
        # What opens an image draws nothing, and may not count where it does, as checks of types do.
        return self.images.read(draw.image, seeded(draw.seed))


@dataclass
class EpochBatches(Sampler[list[Draw]]):
    """Batches of one process, epoch after epoch, from any batch on.

    All processes together take the images of one process with a batch as many times as large: process r of R takes every
    R-th place of the epoch, from place r on.

    Args:
        num_images: Images of the whole set.
        batch_size: Images per process and batch.
        seed: Another seed, another order.
        rank: This process, from 0.
        world_size: Number of processes.
        num_repeats: How often an image occurs within an epoch, each time with another augmentation; an epoch has as many
            places as ever, for fewer images. Source: repeated augmentation, arXiv:1901.09335, dealt out to processes as in
            arXiv:2012.12877.
        batches_done: How many batches the run has behind it; asked whenever an epoch begins.
    """

    num_images: int
    batch_size: int
    seed: int = 0
    rank: int = 0
    world_size: int = 1
    num_repeats: int = 1
    batches_done: Callable[[], int] = lambda: 0

    @property
    def num_places(self) -> int:
        """Images that this process sees in an epoch, but for the last, incomplete batch."""
        # Places that do not fill a round of all processes are dropped, unless there is not even one round.
        return max(self.num_images // self.world_size, 1)

    def __len__(self) -> int:
        # A set that is smaller than a batch makes one small batch.
        return max(self.num_places // self.batch_size, 1)

    def __iter__(self) -> Iterator[list[Draw]]:
        epoch, start = divmod(self.batches_done(), len(self))
        generator = torch.Generator().manual_seed(derive(self.seed, epoch))
        order = torch.randperm(self.num_images, generator=generator, device="cpu").tolist()
        own = range(self.rank, self.num_places * self.world_size, self.world_size)
        for batch in range(start, len(self)):
            places = own[batch * self.batch_size : (batch + 1) * self.batch_size]
            # Repeats stand side by side, so that different processes, or a batch of one, take them.
            images = [order[place % self.num_images // self.num_repeats] for place in places]
            yield [Draw(image, derive(self.seed, epoch, 1, place)) for image, place in zip(images, places, strict=True)]
