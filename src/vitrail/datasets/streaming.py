"""Images that come one after another from large files, too many to be picked one by one."""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.data import IterableDataset, get_worker_info

from vitrail.core.errors import ImageError, InvalidInputError
from vitrail.datasets.dataset import NO_LABEL, Sample, Transform, Unreadable
from vitrail.datasets.image_io import decode_image


class Record(NamedTuple):
    """An image as it lies in the stream."""

    content: bytes
    label: int
    name: str


class Share(NamedTuple):
    """Which part of a stream to read: processes of a run share it, and within each the workers of its loader.

    Attributes:
        rank: This process, from 0.
        world_size: Number of processes.
        worker: The worker within the process, from 0.
        num_workers: Workers per process, at least 1.
    """

    rank: int = 0
    world_size: int = 1
    worker: int = 0
    num_workers: int = 1


class ImageStream(ABC):
    """Where a stream comes from."""

    @abstractmethod
    def records(self, share: Share, seed: int | None) -> Iterator[Record | Unreadable]:
        """Read a share once; all shares together are the whole stream, each image once.

        Args:
            share: Of the stream.
            seed: Of a random order, the same for all shares; None for the order of the files.
        """


@dataclass(frozen=True, eq=False)
class StreamedImages(IterableDataset[Sample | Unreadable]):
    """Images with labels, read one after another. What cannot be read becomes an `Unreadable`, never another image.

    Read as it is, every image comes once, in the order of the files. `for_training` shuffles.

    Args:
        stream: Where the images come from.
        class_names: One name per class.
        transform: From an opened image to a tensor.
        num_images: Images of the whole stream, if that is known.
        rank: This process, from 0.
        world_size: Number of processes that share the stream.
        seed: Of the random order; None for the order of the files.
        epoch: Changes the random order; in shared memory, since loaders copy this object to their workers.
    """

    stream: ImageStream
    class_names: Sequence[str]
    transform: Transform = field(repr=False)
    num_images: int | None = None
    rank: int = 0
    world_size: int = 1
    seed: int | None = None
    epoch: Tensor = field(default_factory=lambda: torch.zeros((), dtype=torch.long).share_memory_(), repr=False)

    def with_transform(self, transform: Transform) -> "StreamedImages":
        """Return the same images under another transform."""
        return replace(self, transform=transform)

    def share(self, rank: int, world_size: int) -> "StreamedImages":
        """Return the part of one of several processes; processes may have unlike numbers of images."""
        return replace(self, rank=rank, world_size=world_size)

    def for_training(self, seed: int, rank: int = 0, world_size: int = 1) -> "StreamedImages":
        """Return the images in random order, `num_images` an epoch.

        Every worker of every process gets equally many, so that no process waits for another one: a worker begins again
        with its own share, in another order, where that is too small.

        Raises:
            InvalidInputError: It is not known how many images there are.
        """
        if self.num_images is None:
            raise InvalidInputError(
                "expected num_images, the number of images of the stream, to train on it; give it as an option"
            )
        return replace(self, seed=seed, rank=rank, world_size=world_size)

    def set_epoch(self, epoch: int) -> None:
        """Say which epoch comes next, also to workers that live on: each has an order of its own."""
        self.epoch.fill_(epoch)

    def __iter__(self) -> Iterator[Sample | Unreadable]:
        worker = get_worker_info()
        share = Share(self.rank, self.world_size, *((0, 1) if worker is None else (worker.id, worker.num_workers)))
        if self.seed is None or self.num_images is None:
            return map(self._open, self.stream.records(share, None))
        count = math.ceil(self.num_images / (share.world_size * share.num_workers))
        return map(self._open, islice(self._endless(share, self.seed), count))

    def _endless(self, share: Share, seed: int) -> Iterator[Record | Unreadable]:
        turn = 0
        while True:
            empty = True
            # Epochs are far from each other, so that no turn of one is the first turn of another.
            for record in self.stream.records(share, seed + 1_000_003 * int(self.epoch) + turn):
                empty = False
                yield record
            if empty:
                raise InvalidInputError(
                    f"expected images for worker {share.worker} of {share.num_workers} in process {share.rank} of {share.world_size}, "
                    "found none in its share; take fewer workers, or cut the data into more files"
                )
            turn += 1

    def _open(self, record: Record | Unreadable) -> Sample | Unreadable:
        if isinstance(record, Unreadable):
            return record
        if record.label == NO_LABEL:
            return Unreadable(record.name, f"expected a class for {record.name}, found none")
        if not 0 <= record.label < len(self.class_names):
            return Unreadable(record.name, f"expected a class from 0 to {len(self.class_names) - 1}, got {record.label}")
        try:
            return Sample(self.transform(decode_image(record.content, record.name)), record.label, record.name)
        except ImageError as error:
            return Unreadable(record.name, str(error))
