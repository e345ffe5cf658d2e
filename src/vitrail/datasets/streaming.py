"""Streams: images that are read one after another from large files, without random access."""

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
    """An undecoded image of a stream.

    Attributes:
        content: Bytes of the image file.
        label: Class index, or `NO_LABEL`.
        name: Name in messages and results.
    """

    content: bytes
    label: int
    name: str


class Share(NamedTuple):
    """The part of a stream that one data loader worker of one process reads.

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
    """A source of undecoded images."""

    @abstractmethod
    def records(self, share: Share, seed: int | None) -> Iterator[Record | Unreadable]:
        """Read a share once; all shares together contain each image exactly once.

        Args:
            share: The part of the stream to read.
            seed: Seed of a random order, the same for all shares; None for the order of the files.
        """


@dataclass(frozen=True, eq=False)
class StreamedImages(IterableDataset[Sample | Unreadable]):
    """Images with labels, read one after another. An image that cannot be read becomes an `Unreadable`.

    By default, every image is read once, in the order of the files; `for_training` shuffles.

    Args:
        stream: Source of the images.
        class_names: One name per class.
        transform: From an opened image to a tensor.
        num_images: Number of images of the whole stream, if known.
        rank: This process, from 0.
        world_size: Number of processes that share the stream.
        seed: Seed of the random order; None for the order of the files.
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
        """Return the same images with another transform."""
        return replace(self, transform=transform)

    def share(self, rank: int, world_size: int) -> "StreamedImages":
        """Return the share of one process; shares may differ in size."""
        return replace(self, rank=rank, world_size=world_size)

    def for_training(self, seed: int, rank: int = 0, world_size: int = 1) -> "StreamedImages":
        """Return the images in random order, `num_images` per epoch.

        Every worker of every process yields equally many images, so that no process waits for another. A worker whose share is too
        small starts it again in another order.

        Raises:
            InvalidInputError: `num_images` is unknown.
        """
        if self.num_images is None:
            raise InvalidInputError(
                "expected num_images, the number of images in the stream, which training needs, got none; set the option num_images"
            )
        return replace(self, seed=seed, rank=rank, world_size=world_size)

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch, which determines the random order, also in persistent workers."""
        self.epoch.fill_(epoch)

    def __iter__(self) -> Iterator[Sample | Unreadable]:
        worker = get_worker_info()
        share = Share(self.rank, self.world_size, *((0, 1) if worker is None else (worker.id, worker.num_workers)))
        if self.seed is None or self.num_images is None:
            return map(self._open, self.stream.records(share, None))
        num_records = math.ceil(self.num_images / (share.world_size * share.num_workers))
        return map(self._open, islice(self._repeat(share, self.seed), num_records))

    def _repeat(self, share: Share, seed: int) -> Iterator[Record | Unreadable]:
        repetition = 0
        while True:
            empty = True
            # The seeds of two epochs are so far apart that their repetitions never share one.
            for record in self.stream.records(share, seed + 1_000_003 * int(self.epoch) + repetition):
                empty = False
                yield record
            if empty:
                raise InvalidInputError(
                    f"expected images for worker {share.worker} of {share.num_workers} in process {share.rank} of {share.world_size}, "
                    "found none in its share; use fewer workers, or split the data into more files"
                )
            repetition += 1

    def _open(self, record: Record | Unreadable) -> Sample | Unreadable:
        if isinstance(record, Unreadable):
            return record
        if record.label == NO_LABEL:
            return Unreadable(record.name, f"expected a class for {record.name}, got none")
        if not 0 <= record.label < len(self.class_names):
            return Unreadable(record.name, f"expected a class from 0 to {len(self.class_names) - 1}, got {record.label}")
        try:
            return Sample(self.transform(decode_image(record.content, record.name)), record.label, record.name)
        except ImageError as error:
            return Unreadable(record.name, str(error))
