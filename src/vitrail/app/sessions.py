"""What the kit remembers of visitors: it would be kept for ever."""

from datetime import datetime, timedelta
from typing import Any


def drop_idle(holder: Any, keep_seconds: int, now: datetime | None = None) -> None:
    """Forget the visitors who asked for nothing for some time, with the maps that they were shown.

    Args:
        holder: The kit's `StateHolder`.
        keep_seconds: So long are they remembered.
        now: As the kit tells the time.
    """
    before = (datetime.now() if now is None else now) - timedelta(seconds=keep_seconds)
    with holder.lock:
        # One without a time is just being made.
        idle = [name for name in holder.session_data if holder.time_last_used.get(name, datetime.max) <= before]
        # Out of reach first, so that nobody writes to one while it is tidied up.
        dropped = [holder.session_data.pop(name) for name in idle]
        for name in idle:
            holder.time_last_used.pop(name, None)
    for session in dropped:
        for component, value, _ in list(session.state_components):
            component.delete_callback(value)
