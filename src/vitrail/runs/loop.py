"""One pass over images in fixed batches: shared among processes, read ahead of the network, resumed from shards."""

import logging
from collections.abc import Callable, Iterator, Sequence, Sized
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Generic, cast

from torch.utils.data import DataLoader, Dataset

from vitrail.core.distributed import gather, rank, world_size
from vitrail.core.errors import InvalidInputError
from vitrail.core.progress import progress
from vitrail.datasets.sampler import fixed_generator, read_on_cpu
from vitrail.datasets.workers import FEWER_WORKERS_HINT, explain_killed_workers
from vitrail.runs.manifest import RUN_FILE
from vitrail.runs.results import expect_readable
from vitrail.runs.shards import S, ShardStore, list_unreadable, remove_shards
from vitrail.runs.timing import Stopwatch

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Batches:
    """A fixed partition of images into batches, and how they are read.

    Every image is computed together with the same others in any process and in a resumed run, so that results have the same bytes.

    Attributes:
        images: Data set of images, by index.
        size: Images per batch.
        collate: Turns the entries of the data set into one batch.
        num_workers: Processes that read images.
        per_shard: Batches whose results make one shard.
    """

    images: Dataset[Any]
    size: int
    collate: Callable[[list[Any]], Any]
    num_workers: int = 0
    per_shard: int = 1

    def __post_init__(self) -> None:
        if self.size < 1 or self.num_workers < 0:
            raise InvalidInputError(
                f"expected a batch_size of at least 1 and num_workers of at least 0, got {self.size} and {self.num_workers}"
            )

    @property
    def num_images(self) -> int:
        """Number of images."""
        return len(cast(Sized, self.images))

    @property
    def num_shards(self) -> int:
        """Number of shards."""
        return -(-self.num_images // (self.size * self.per_shard))

    def indices(self, shard: int) -> list[list[int]]:
        """Return the indices of the images of a shard, by batch."""
        first = shard * self.size * self.per_shard
        end = min(first + self.size * self.per_shard, self.num_images)
        return [list(range(start, min(start + self.size, end))) for start in range(first, end, self.size)]

    def read(self, shards: Sequence[int], description: str, folder: Path | None = None) -> Iterator[tuple[int, Iterator[Any]]]:
        """Read this process's share of some shards, ahead of their use if there are workers; the first process shows the progress.

        Args:
            shards: Numbers of the shards, the same in all processes.
            description: What is being done, for the progress.
            folder: Where the time is recorded at the end, if anywhere.

        Yields:
            The number of a shard and its batches, as `collate` made them. They must be consumed before the next shard.
        """
        own = shards[rank() :: world_size()]
        by_shard = [self.indices(number) for number in own]
        loader: DataLoader[Any] = DataLoader(
            self.images,
            batch_sampler=[batch for batches in by_shard for batch in batches],
            num_workers=self.num_workers,
            collate_fn=self.collate,
            generator=fixed_generator(),
        )
        batches = Stopwatch(read_on_cpu(loader))
        sizes = [len(batch) for batches in by_shard for batch in batches]
        shown = progress(batches, len(sizes), description, sizes, world_size()) if rank() == 0 else batches
        for number, indices in zip(own, by_shard, strict=True):
            yield number, islice(shown, len(indices))
        for _ in shown:  # Ends the progress.
            raise AssertionError("expected no batch after the last shard")
        batches.report(description, sum(sizes), self.num_workers, folder)


@dataclass(frozen=True, eq=False)
class Pass(Generic[S]):
    """A pass that computes shards.

    Attributes:
        batches: The images.
        compute: Computes a shard from its number and its batches.
        description: What is being done, for the progress.
        store: Where shards are kept; None keeps them in memory.
        accept: Whether a shard from an earlier run still counts.
    """

    batches: Batches
    compute: Callable[[int, Iterator[Any]], S]
    description: str
    store: ShardStore[S] | None = None
    accept: Callable[[S], bool] = lambda shard: True

    @explain_killed_workers(FEWER_WORKERS_HINT)
    def run(self) -> list[S]:
        """Compute the shards that are missing; return those of all processes in order, without their bulk where they are stored.

        Raises:
            ImageError: Not a single image could be read.
            OutputError: A shard cannot be written, or processes do not share the folder.
            ProcessError: A process that reads images was killed.
        """
        num_shards = self.batches.num_shards
        finished = {} if self.store is None else self.store.load_finished(num_shards)
        shards = {number: shard for number, shard in finished.items() if self.accept(shard)}
        # Before anything is written: all processes must see the same shards as finished.
        gather([None])
        pending = [number for number in range(num_shards) if number not in shards]
        folder = None if self.store is None else self.store.folder
        try:
            for number, batches in self.batches.read(pending, self.description, folder):
                shard = self.compute(number, batches)
                if self.store is not None:
                    self.store.save(number, shard)
                    shard = shard.without_bulk()
                shards[number] = shard
        except KeyboardInterrupt:
            if rank() == 0 and self.store is not None:
                self._tell_done(self.store)
            raise
        ordered = self._collect(shards, num_shards)
        num_read = sum(shard.num_images for shard in ordered)
        if not num_read and self.store is not None:
            gather([None])  # Every process has read the shards of the others.
            if rank() == 0:
                remove_shards(self.store.folder)  # Nothing to resume from.
        expect_readable(num_read, self.batches.num_images, list_unreadable(ordered))
        return ordered

    def reader(self, shards: Sequence[S]) -> Callable[[], Iterator[S]]:
        """Return a function that reads the shards of a finished run again, with their bulk, one after the other."""
        store, num_shards = self.store, self.batches.num_shards
        if store is None:
            return lambda: iter(shards)
        return lambda: store.read_all(num_shards)  # Without holding the shards in memory.

    def _tell_done(self, store: ShardStore[S]) -> None:
        """Log how many images of a run that resumes are done, by all processes."""
        stored = [number for number in range(self.batches.num_shards) if store.file(number).exists()]
        done = sum(len(batch) for number in stored for batch in self.batches.indices(number))
        if done and (store.folder / RUN_FILE).exists():  # The folder of a dry run is not a run directory.
            logger.info(
                "%s ended after %d of %d images; the same command (without --overwrite) resumes from %s",
                *(self.description, done, self.batches.num_images, store.folder),
            )

    def _collect(self, shards: dict[int, S], num_shards: int) -> list[S]:
        """Return the shards of all processes in order."""
        if self.store is None:
            return [shard for _, shard in sorted(gather(list(shards.items())), key=lambda entry: entry[0])]
        gather([None])  # Wait until the last process has written its last shard.
        return [shards[number] if number in shards else self.store.read(number).without_bulk() for number in range(num_shards)]
