"""Show the progress of long work: as a bar on a terminal, as lines in a log."""

import logging
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeVar

T = TypeVar("T")

logger = logging.getLogger(__name__)

_move: ContextVar[Callable[[float], None] | None] = ContextVar("move", default=None)
"""Moves the bar that is shown to a share of the current item, from 0 to 1."""


def progress(items: Iterable[T], total: int, description: str) -> Iterator[T]:
    """Yield items and show progress: a bar on standard error if it is a terminal, else about ten log lines.

    While an item is in use, `advance` moves the bar within it.
    """
    if sys.stderr.isatty():
        yield from _show_bar(items, total, description)
        return
    every = max(total // 10, 1)
    for done, item in enumerate(items, 1):
        yield item
        if done % every == 0 and total > 1:
            logger.info("%s %d/%d", description, done, total)


def advance(share: float) -> None:
    """Report how much of the current item, or of the current `portion` of it, is done; without a bar, nothing happens."""
    move = _move.get()
    if move is not None:
        move(min(max(share, 0.0), 1.0))


@contextmanager
def portion(index: int, count: int) -> Iterator[None]:
    """Make `advance` in the block count for one of several equal portions of the item; at its end, the portion is done."""
    outer = _move.get()
    if outer is None:
        yield
        return
    token = _move.set(lambda share: outer((index + share) / count))
    try:
        yield
    finally:
        _move.reset(token)
    outer((index + 1) / count)


def _show_bar(items: Iterable[T], total: int, description: str) -> Iterator[T]:
    from rich.console import Console  # noqa: PLC0415 (heavy)
    from rich.progress import Progress  # noqa: PLC0415

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task, furthest = bar.add_task(description, total=total), 0.0

        def move_to(done: float) -> None:
            nonlocal furthest
            if done > furthest:  # Work that is done in several rounds does not move the bar back.
                furthest = done
                bar.update(task, completed=done)

        outer = _move.get()
        try:
            for done, item in enumerate(items):
                _move.set(lambda share, done=done: move_to(done + share))  # type: ignore[misc]
                yield item
                move_to(done + 1.0)
        finally:
            _move.set(outer)
