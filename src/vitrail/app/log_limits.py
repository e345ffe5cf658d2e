"""Log limits: clients cannot fill the log."""

import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import final

LOGGERS = ("asyncio", "uvicorn.error", "vitrail.app.error_responses", "vitrail.app.middleware", "vitrail.app.ui.errors")
"""Loggers whose messages clients can cause."""

MAX_KINDS = 200
"""Kinds of messages that are counted at a time."""


@dataclass
class _Count:
    start: float
    num_written: int = 0
    num_dropped: int = 0


@final
class RateLimit(logging.Filter):
    """Writes a few messages of every kind per period and counts the rest; the next message of the kind reports the count.

    Args:
        num_messages: Messages of one kind, that is of one logger, level and template.
        seconds: Length of the period.
        clock: Returns the time in seconds.
    """

    def __init__(self, num_messages: int = 10, seconds: float = 60.0, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._num_messages, self._seconds, self._clock = num_messages, seconds, clock
        self._kinds: OrderedDict[tuple[str, int, str], _Count] = OrderedDict()

    @property
    def num_kinds(self) -> int:
        """Number of kinds that are counted."""
        return len(self._kinds)

    def filter(self, record: logging.LogRecord) -> bool:
        now, kind = self._clock(), (record.name, record.levelno, str(record.msg).partition("\n")[0])
        count = self._kinds.setdefault(kind, _Count(now))
        if now - count.start >= self._seconds:
            if count.num_dropped:
                record.msg = f"{record.msg} ({count.num_dropped:,} more like this were not written)"
            self._kinds[kind] = count = _Count(now)
        self._kinds.move_to_end(kind)
        if len(self._kinds) > MAX_KINDS:
            self._kinds.popitem(last=False)
        if count.num_written >= self._num_messages:
            count.num_dropped += 1
            return False
        count.num_written += 1
        return True


@contextmanager
def limited_logs(loggers: Sequence[str] = LOGGERS) -> Iterator[None]:
    """Limit the messages per minute of some loggers, by name, for the block."""
    limit = RateLimit()
    for name in loggers:
        logging.getLogger(name).addFilter(limit)
    try:
        yield
    finally:
        for name in loggers:
            logging.getLogger(name).removeFilter(limit)
