"""Show the progress of long work: as a bar on a terminal, as lines in a log, with rate and time left."""

import logging
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import TypeVar

T = TypeVar("T")

logger = logging.getLogger(__name__)

NUM_LINES = 10
"""Lines in a log, about."""

MAX_SILENCE = 600.0
"""Seconds after which a line follows anyway."""


def progress(
    items: Iterable[T], total: int, description: str, images: Sequence[int] | None = None, processes: int = 1
) -> Iterator[T]:
    """Yield items and show progress: a bar on standard error if it is a terminal, else about ten log lines.

    Args:
        items: Pieces of work.
        total: Their number.
        description: What is being done.
        images: Number of images of every item, to show images per second.
        processes: Number of processes that do as much at the same time; the rate is that of all of them.
    """
    sizes = [0] * total if images is None else images
    if sys.stderr.isatty():
        yield from _draw_bar(items, sizes, description, processes)
        return
    every, start, last, num_images = max(total // NUM_LINES, 1), time.monotonic(), time.monotonic(), 0
    for done, (item, size) in enumerate(zip(items, sizes, strict=True), 1):
        yield item
        num_images += size * processes
        now = time.monotonic()
        if (done % every == 0 or now - last > MAX_SILENCE) and total > 1:
            last, seconds = now, max(now - start, 1e-9)
            rate = f" ({_format_rate(num_images / seconds)}, {format_seconds(seconds / done * (total - done))} left)"
            logger.info("%s %d/%d%s", description, done, total, rate if num_images else "")


def _draw_bar(items: Iterable[T], sizes: Sequence[int], description: str, processes: int) -> Iterator[T]:
    from rich.console import Console  # noqa: PLC0415 (heavy)
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn  # noqa: PLC0415

    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed}/{task.total}"))
    rate, start, num_images = TextColumn("{task.fields[rate]}"), time.monotonic(), 0
    with Progress(*columns, rate, TimeRemainingColumn(), console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(description, total=len(sizes), rate="")
        for item, size in zip(items, sizes, strict=True):
            yield item
            num_images += size * processes
            speed = _format_rate(num_images / max(time.monotonic() - start, 1e-9)) if num_images else ""
            bar.update(task, advance=1, rate=speed)


def _format_rate(rate: float) -> str:
    return f"{rate:.3g} images/s" if rate < 1000 else f"{rate:,.0f} images/s"


def format_seconds(seconds: float) -> str:
    """Format a duration: "42 s", "7 min", "3.5 h" or "12 days"."""
    for limit, unit, length in ((120, "s", 1), (7200, "min", 60), (172_800, "h", 3600)):
        if seconds < limit:
            return f"{seconds / length:.3g} {unit}"
    return f"{seconds / 86_400:.3g} days"
