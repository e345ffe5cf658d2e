"""How long a pass took, and which share of it the network waited for images."""

import logging
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeVar

from vitrail.core.distributed import gather, rank
from vitrail.core.files import write_text
from vitrail.core.json_io import json_text
from vitrail.core.progress import format_seconds

T = TypeVar("T")

logger = logging.getLogger(__name__)

TIMING_FILE = "timing.json"
"""The only file of a run directory that differs between two runs of the same settings."""

SLOW_SHARE = 0.2
"""Share of waiting from which more reading processes are recommended."""


@dataclass(frozen=True)
class Timing:
    """The time of a pass, averaged over the processes; written to `TIMING_FILE`.

    Attributes:
        description: What was done.
        images: Number of images that were read, by all processes.
        processes: Number of processes.
        workers: Processes that read images, per process.
        seconds: Duration.
        waiting_seconds: Time in which a process had no images to work on; without workers, the time of reading them.
    """

    description: str
    images: int
    processes: int
    workers: int
    seconds: float
    waiting_seconds: float

    @property
    def waiting_share(self) -> float:
        """Share of the time in which a process had no images to work on."""
        return self.waiting_seconds / max(self.seconds, 1e-9)

    def report(self, folder: Path | None) -> None:
        """Log the time, and write it into a run directory."""
        hint = f"; more --workers (now {self.workers}) read ahead" if self.waiting_share > SLOW_SHARE else ""
        logger.info(
            "%s took %s for %d images (%.3g images/s); %.0f%% of it was waiting for images%s",
            *(self.description, format_seconds(self.seconds), self.images, self.images / max(self.seconds, 1e-9)),
            *(100 * self.waiting_share, hint),
        )
        if folder is not None:
            numbers = {key: round(value, 6) if isinstance(value, float) else value for key, value in asdict(self).items()}
            numbers |= {
                "waiting_share": round(self.waiting_share, 6),
                "images_per_second": self.images / max(self.seconds, 1e-9),
            }
            write_text(folder / TIMING_FILE, json_text(numbers, indent=2))


@dataclass
class Stopwatch(Iterator[T]):
    """Measures how long the items of an iterator are waited for.

    Attributes:
        items: The iterator.
        waiting: Seconds of waiting.
    """

    items: Iterator[T]
    waiting: float = 0.0

    def __post_init__(self) -> None:
        self.start = time.perf_counter()

    def __next__(self) -> T:
        before = time.perf_counter()
        try:
            return next(self.items)
        finally:
            self.waiting += time.perf_counter() - before

    def report(self, description: str, images: int, workers: int, folder: Path | None) -> None:
        """Report the time of all processes, each of which must call this."""
        parts = gather([(images, time.perf_counter() - self.start, self.waiting)])
        totals = [sum(column) for column in zip(*parts, strict=True)]
        if rank() == 0 and totals[0] > 1:
            count = len(parts)
            Timing(description, int(totals[0]), count, workers, totals[1] / count, totals[2] / count).report(folder)
