"""Which images make a batch: known from the seed and the place in the run alone, on any number of processes."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from timm.data.distributed_sampler import RepeatAugSampler
from torch.utils.data import Dataset, DistributedSampler, Sampler

from vitrail.data.labelled import LabelledImages, Sample, Unreadable
from vitrail.training.randomness import derive, seeded


class Draw(NamedTuple):
    """Which image to read, and the seed of its augmentation."""

    image: int
    seed: int


@dataclass(frozen=True)
class ReproducibleImages(Dataset[Sample | Unreadable]):
    """Images whose random transform is seeded by the draw: the same in every process, whatever was read before."""

    images: LabelledImages

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, draw: Draw) -> Sample | Unreadable:
        with seeded(draw.seed):
            return self.images[draw.image]


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
            places as ever, for fewer images. Source: repeated augmentation, arXiv:1901.09335, in timm's form.
        batches_done: How many batches the run has behind it; asked whenever an epoch begins.
    """

    num_images: int
    batch_size: int
    seed: int = 0
    rank: int = 0
    world_size: int = 1
    num_repeats: int = 1
    batches_done: Callable[[], int] = lambda: 0
    _order: "RepeatAugSampler | DistributedSampler[int]" = field(init=False, repr=False)

    def __post_init__(self) -> None:
        everything: Dataset[int] = range(self.num_images)  # type: ignore[assignment]  # of which only the length is asked
        if self.num_repeats > 1:
            self._order = RepeatAugSampler(everything, self.world_size, self.rank, num_repeats=self.num_repeats)
        else:
            # Places that do not fill a round of all processes are dropped, unless there is not even one round.
            whole = self.num_images >= self.world_size
            self._order = DistributedSampler(everything, self.world_size, self.rank, drop_last=whole)

    @property
    def num_places(self) -> int:
        """Images that this process sees in an epoch, but for the last, incomplete batch."""
        return len(self._order)

    def __len__(self) -> int:
        # A set that is smaller than a batch makes one small batch.
        return max(self.num_places // self.batch_size, 1)

    def __iter__(self) -> Iterator[list[Draw]]:
        epoch, start = divmod(self.batches_done(), len(self))
        self._order.set_epoch(derive(self.seed, epoch) % 2**62)  # a sampler adds its own seed
        indices = list(self._order)
        for batch in range(start, len(self)):
            places = range(batch * self.batch_size, min((batch + 1) * self.batch_size, len(indices)))
            yield [Draw(indices[place], derive(self.seed, epoch, 1, place * self.world_size + self.rank)) for place in places]
