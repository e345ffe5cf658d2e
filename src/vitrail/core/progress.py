"""Show the progress of long work: as a bar on a terminal, as lines in a log, with rate and time left."""

import logging
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeVar

T = TypeVar("T")

logger = logging.getLogger(__name__)

NUM_LINES = 10
"""Lines in a log, about."""

MAX_SILENCE = 60.0
"""Seconds after which a line follows anyway; in long work, a tenth of the time so far."""


_move: ContextVar[Callable[[float], None] | None] = ContextVar("move", default=None)
"""Moves the bar that is shown to a share of the current item, from 0 to 1."""


def progress(
    items: Iterable[T], total: int, description: str, images: Sequence[int] | None = None, processes: int = 1
) -> Iterator[T]:
    """Yield items and show progress: a bar on standard error if it is a terminal, else about ten log lines.

    While an item is in use, `advance` moves the bar within it.

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
    yield from _log_lines(items, sizes, description, processes)


def advance(share: float) -> None:
    """Report how much of the current item, or of the current `portion` of it, is done; without a bar, nothing happens."""
    move = _move.get()
    if move is not None:
        move(min(max(share, 0.0), 1.0))


@contextmanager
def reporting(move: Callable[[float], None]) -> Iterator[None]:
    """Call a function with the share that is done, whenever the block reports it by `advance`; what the function raises ends the block."""
    token = _move.set(move)
    try:
        yield
    finally:
        _move.reset(token)


@contextmanager
def portion(index: int, count: int) -> Iterator[None]:
    """Make `advance` in the block count for one of several equal portions of the item; at its end, the portion is done."""
    with stretch(index / count, (index + 1) / count):
        yield


@contextmanager
def stretch(begin: float, end: float) -> Iterator[None]:
    """Make `advance` in the block count for a stretch of the item, given as shares; at its end, the stretch is done."""
    outer = _move.get()
    if outer is None:
        yield
        return
    with reporting(lambda share: outer(begin + share * (end - begin))):
        yield
    outer(end)


def _log_lines(items: Iterable[T], sizes: Sequence[int], description: str, processes: int) -> Iterator[T]:
    total, start, num_images = len(sizes), time.monotonic(), 0
    every, last, outer = max(total // NUM_LINES, 1), start, _move.get()

    def tell(done: float, words: str, *, due: bool) -> None:
        nonlocal last
        now = time.monotonic()
        if due or now - last > max(MAX_SILENCE, (now - start) / 10):
            last, seconds = now, max(now - start, 1e-9)
            details = [_format_rate(num_images / seconds)] if num_images else []
            details += [f"{format_seconds(seconds / done * (total - done))} left"] if done and any(sizes) else []
            logger.info("%s %s%s", description, words, f" ({', '.join(details)})" if details else "")

    try:
        for done, (item, size) in enumerate(zip(items, sizes, strict=True)):
            _move.set(lambda share, done=done: tell(done + share, f"{(done + share) / total:.0%}", due=False))  # type: ignore[misc]
            yield item
            num_images += size * processes
            if total > 1:
                tell(done + 1.0, f"{done + 1}/{total}", due=(done + 1) % every == 0)
    finally:
        _move.set(outer)


def _draw_bar(items: Iterable[T], sizes: Sequence[int], description: str, processes: int) -> Iterator[T]:
    from rich.console import Console  # noqa: PLC0415 (heavy)
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn  # noqa: PLC0415

    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[done]}/{task.total:.0f}"))
    rate, start, num_images = TextColumn("{task.fields[rate]}"), time.monotonic(), 0
    with Progress(*columns, rate, TimeRemainingColumn(), console=Console(stderr=True), transient=True) as bar:
        task, furthest = bar.add_task(description, total=len(sizes), rate="", done=0), 0.0

        def move_to(done: float) -> None:
            nonlocal furthest
            if done > furthest:  # Work that is done in several rounds does not move the bar back.
                furthest = done
                speed = _format_rate(num_images / max(time.monotonic() - start, 1e-9)) if num_images else ""
                bar.update(task, completed=done, done=int(done), rate=speed)

        outer = _move.get()
        try:
            for done, (item, size) in enumerate(zip(items, sizes, strict=True)):
                _move.set(lambda share, done=done: move_to(done + share))  # type: ignore[misc]
                yield item
                num_images += size * processes
                move_to(done + 1.0)
        finally:
            _move.set(outer)


def _format_rate(rate: float) -> str:
    return f"{rate:.3g} images/s" if rate < 1000 else f"{rate:,.0f} images/s"


def format_seconds(seconds: float) -> str:
    """Format a duration: "42 s", "7 min", "3.5 h" or "12 days"."""
    for limit, unit, length in ((120, "s", 1), (7200, "min", 60), (172_800, "h", 3600)):
        if seconds < limit:
            return f"{seconds / length:.3g} {unit}"
    return f"{seconds / 86_400:.3g} days"
