"""Show the progress of long work: as a bar on a terminal, as lines in a log."""

import logging
import sys
from collections.abc import Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")

logger = logging.getLogger(__name__)


def progress(items: Iterable[T], total: int, description: str) -> Iterator[T]:
    """Yield items and show progress: a bar on standard error if it is a terminal, else about ten log lines."""
    if sys.stderr.isatty():
        from rich.console import Console  # noqa: PLC0415 (heavy)
        from rich.progress import track  # noqa: PLC0415

        yield from track(items, description, total=total, console=Console(stderr=True), transient=True)
        return
    every = max(total // 10, 1)
    for done, item in enumerate(items, 1):
        yield item
        if done % every == 0 and total > 1:
            logger.info("%s %d/%d", description, done, total)
