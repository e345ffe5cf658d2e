"""Cleanup while the page is served: a background thread, and the sessions that Gradio would keep forever."""

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any

logger = logging.getLogger(__name__)

JOIN_SECONDS = 5.0


@contextmanager
def repeat_cleanup(work: Callable[[], None], seconds: int | float) -> Iterator[None]:
    """Repeat some work in a thread for as long as the block lasts.

    Args:
        work: The work; if it fails, the error is logged, and it is tried again.
        seconds: Pause between two runs.
    """
    ended = threading.Event()

    def repeat() -> None:
        while not ended.wait(seconds):
            try:
                work()
            except Exception:
                logger.exception("old files and results could not be removed")

    thread = threading.Thread(target=repeat, name="vitrail-cleanup", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join(JOIN_SECONDS)


def drop_idle_sessions(holder: Any, keep_seconds: int, now: datetime | None = None) -> None:
    """Drop the sessions of clients that sent no request for some time, with their results.

    Args:
        holder: Gradio's `StateHolder`.
        keep_seconds: Largest age of a session.
        now: The time, as Gradio stores it.
    """
    before = (datetime.now() if now is None else now) - timedelta(seconds=keep_seconds)
    with holder.lock:
        # A session without a time is just being created.
        idle = [name for name in holder.session_data if holder.time_last_used.get(name, datetime.max) <= before]
        # Unreachable first, so that no request writes into a session while its callbacks run.
        dropped = [holder.session_data.pop(name) for name in idle]
        for name in idle:
            holder.time_last_used.pop(name, None)
    for session in dropped:
        for component, value, _ in list(session.state_components):
            component.delete_callback(value)
