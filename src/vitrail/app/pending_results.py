"""Results that Gradio keeps until a client fetches them: limits of their number and age."""

import time
from collections import Counter, OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, final

from vitrail.app.requests import RefusedError

MAX_PER_SESSION = 16
"""Results of one session that wait in the queue, are computed, or were not fetched yet."""

MAX_UNFETCHED = 64
"""Results of all sessions, beside those in the queue."""


@final
class PendingResults:
    """Limits the results in Gradio's queue.

    Only the thread of the server uses it, except for `drop_old`.

    Args:
        queue: Gradio's `Queue`.
        num_waiting: Number of requests that may wait in the queue.
    """

    def __init__(self, queue: Any, num_waiting: int) -> None:
        self._queue, self._max_pending = queue, num_waiting + MAX_UNFETCHED
        self._last_request: OrderedDict[str, float] = OrderedDict()
        self._fetching = Counter[str]()

    async def make_room(self, session: str | None) -> None:
        """Make room for one more result; the oldest results of sessions that fetch nothing are dropped.

        Args:
            session: The session of the request; None for a request without one.

        Raises:
            RefusedError: There is no room, since all results are being fetched, or are of this session.
        """
        pending = self._queue.pending_event_ids_session
        now = self._add_sessions()
        if session is not None:
            if len(pending.get(session, ())) >= MAX_PER_SESSION:
                raise RefusedError(429, f"{MAX_PER_SESSION} results of this session were not fetched yet; fetch them first")
            self._last_request[session] = now
            self._last_request.move_to_end(session)
        excess = sum(map(len, pending.values())) + 1 - self._max_pending
        for name in list(self._last_request):
            if excess <= 0:
                return
            if name != session and pending.get(name) and not self._fetching[name]:
                excess -= len(pending[name])
                await self._queue.clean_events(session_hash=name)
                self._remove(name)
        if excess > 0:
            raise RefusedError(503, "too many results wait to be fetched; try again in a moment")

    @contextmanager
    def fetching(self, name: str) -> Iterator[None]:
        """Keep the results of a session, or of an event, for the block, in which they are being fetched."""
        name = self._find_session(name)
        self._fetching[name] += 1
        try:
            yield
        finally:
            self._fetching[name] -= 1
            if not self._fetching[name]:
                del self._fetching[name]

    def is_known(self, event: str) -> bool:
        """Return whether there is an event whose result was not fetched yet."""
        return event in self._queue.event_ids_to_events or any(event in events for events in self._list_pending())

    def drop_old(self, keep_seconds: int | float) -> None:
        """Drop the results of requests that are older than some seconds, unless they are being fetched."""
        before = self._add_sessions() - keep_seconds
        for name, time_of_request in list(self._last_request.items()):
            if time_of_request <= before and not self._fetching[name]:
                self._remove(name)

    def _add_sessions(self) -> float:
        """Add sessions that are new in Gradio's queue, and return the present time."""
        now = time.monotonic()
        for name in list(self._queue.pending_event_ids_session):
            self._last_request.setdefault(name, now)
        return now

    def _remove(self, name: str) -> None:
        self._last_request.pop(name, None)
        self._queue.pending_messages_per_session.pop(name, None)
        self._queue.pending_event_ids_session.pop(name, None)

    def _find_session(self, event: str) -> str:
        # Gradio uses the event as the session of a request without one.
        return next((name for name, events in list(self._queue.pending_event_ids_session.items()) if event in events), event)

    def _list_pending(self) -> list[set[str]]:
        return list(self._queue.pending_event_ids_session.values())
