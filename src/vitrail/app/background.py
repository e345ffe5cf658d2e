"""Run work in a thread of its own, which reports its progress and can be stopped."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from threading import Event
from typing import NamedTuple, TypeVar

from vitrail.core.progress import reporting

T = TypeVar("T")

INTERVAL = 0.5
"""Seconds between two reports."""


class Progress(NamedTuple):
    """Number of steps that are done, and their total number."""

    done: int
    total: int


class _Stopped(BaseException):
    """Ends the work; no error, so that nothing on the way handles it."""


def run_with_progress(function: Callable[[], T]) -> Iterator[Progress | T]:
    """Run a function in a thread, which is stopped where it next reports progress if the iterator is closed.

    Yields:
        Progress in percent every `INTERVAL`, and at the end what the function returns.
    """
    share, stopped = 0.0, Event()

    def move(value: float) -> None:
        nonlocal share
        if stopped.is_set():
            raise _Stopped
        share = max(share, value)

    def work() -> T:
        with reporting(move):
            return function()

    executor = ThreadPoolExecutor(1)
    future = executor.submit(work)
    try:
        while not wait([future], INTERVAL).done:
            yield Progress(int(100 * share), 100)
        yield future.result()
    finally:
        stopped.set()
        executor.shutdown(wait=False)
