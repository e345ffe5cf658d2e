"""Answers that wait to be fetched: how many, and for how long."""

import time
from collections import Counter, OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, final

from vitrail.app.requests import RefusedError

MOST_OF_ONE = 16
"""Questions of one visitor that wait, are worked on, or whose answers were not fetched."""

MOST_UNREAD = 64
"""The same of all visitors together, beside those that may wait."""


@final
class Unread:
    """Bounds the answers that the kit keeps until somebody fetches them.

    Used by the server's own thread, but for `forget`.

    Args:
        queue: The kit's `Queue`.
        num_waiting: So many questions may wait.
    """

    def __init__(self, queue: Any, num_waiting: int) -> None:
        self._queue, self._most = queue, num_waiting + MOST_UNREAD
        self._asked: OrderedDict[str, float] = OrderedDict()
        self._fetching = Counter[str]()

    async def make_room(self, asker: str | None) -> None:
        """Have room for one more answer; the answers that wait longest for somebody who does not fetch them go.

        Args:
            asker: The visitor who asks; None for a program that asks once.

        Raises:
            RefusedError: There is none, since they are being fetched, or all are this visitor's.
        """
        pending = self._queue.pending_event_ids_session
        now = self._notice()
        if asker is not None:
            if len(pending.get(asker, ())) >= MOST_OF_ONE:
                raise RefusedError(429, f"{MOST_OF_ONE} answers to you were not fetched yet; fetch them first")
            self._asked[asker] = now
            self._asked.move_to_end(asker)
        excess = sum(map(len, pending.values())) + 1 - self._most
        for name in list(self._asked):
            if excess <= 0:
                return
            if name != asker and pending.get(name) and not self._fetching[name]:
                excess -= len(pending[name])
                await self._queue.clean_events(session_hash=name)
                self._remove(name)
        if excess > 0:
            raise RefusedError(503, "too many answers wait to be fetched; try again in a moment")

    @contextmanager
    def fetching(self, name: str) -> Iterator[None]:
        """For the time of the block, the answers of this visitor, or to this question, are being fetched."""
        name = self._asker(name)
        self._fetching[name] += 1
        try:
            yield
        finally:
            self._fetching[name] -= 1
            if not self._fetching[name]:
                del self._fetching[name]

    def is_known(self, event: str) -> bool:
        """Whether there is a question of this name whose answer was not fetched yet."""
        return event in self._queue.event_ids_to_events or any(event in events for events in self._pending())

    def forget(self, keep_seconds: int | float) -> None:
        """Drop the answers to questions that were asked longer ago, where nobody is fetching them."""
        before = self._notice() - keep_seconds
        for name, asked in list(self._asked.items()):
            if asked <= before and not self._fetching[name]:
                self._remove(name)

    def _notice(self) -> float:
        now = time.monotonic()
        for name in list(self._queue.pending_event_ids_session):
            self._asked.setdefault(name, now)
        return now

    def _remove(self, name: str) -> None:
        self._asked.pop(name, None)
        self._queue.pending_messages_per_session.pop(name, None)
        self._queue.pending_event_ids_session.pop(name, None)

    def _asker(self, event: str) -> str:
        # The kit calls who asked once by the name of the question.
        return next((name for name, events in list(self._queue.pending_event_ids_session.items()) if event in events), event)

    def _pending(self) -> list[set[str]]:
        return list(self._queue.pending_event_ids_session.values())
