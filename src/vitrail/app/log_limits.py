"""A log that strangers cannot fill."""

import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import final

LOGGERS = ("asyncio", "uvicorn.error", "vitrail.app.error_responses", "vitrail.app.middleware", "vitrail.app.ui.errors")
"""Those that write what a request brings about."""

_KINDS = 200


@dataclass
class _Seen:
    since: float
    passed: int = 0
    dropped: int = 0


@final
class Seldom(logging.Filter):
    """Lets a few messages of a kind pass, and counts the rest: the next one says how many there were.

    Args:
        most: Messages of one kind, that is of one logger and one template.
        seconds: In so much time.
        clock: Tells the time in seconds.
    """

    def __init__(self, most: int = 10, seconds: float = 60.0, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._most, self._seconds, self._clock = most, seconds, clock
        self._kinds: OrderedDict[tuple[str, int, str], _Seen] = OrderedDict()

    @property
    def num_kinds(self) -> int:
        """Of messages that are remembered."""
        return len(self._kinds)

    def filter(self, record: logging.LogRecord) -> bool:
        now, kind = self._clock(), (record.name, record.levelno, str(record.msg).partition("\n")[0])
        seen = self._kinds.setdefault(kind, _Seen(now))
        if now - seen.since >= self._seconds:
            if seen.dropped:
                record.msg = f"{record.msg} ({seen.dropped:,} more like this were not written)"
            self._kinds[kind] = seen = _Seen(now)
        self._kinds.move_to_end(kind)
        if len(self._kinds) > _KINDS:
            self._kinds.popitem(last=False)
        if seen.passed >= self._most:
            seen.dropped += 1
            return False
        seen.passed += 1
        return True


@contextmanager
def seldom(loggers: Sequence[str] = LOGGERS) -> Iterator[None]:
    """Write only a few messages of a kind a minute, for the time of the block.

    Args:
        loggers: Their names.
    """
    seldom = Seldom()
    for name in loggers:
        logging.getLogger(name).addFilter(seldom)
    try:
        yield
    finally:
        for name in loggers:
            logging.getLogger(name).removeFilter(seldom)
