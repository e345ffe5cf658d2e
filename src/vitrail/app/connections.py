"""Limits on client connections: their number, and how long one may stay open without a request."""

import asyncio
import logging
from contextlib import suppress
from typing import Any, final

from h11 import ConnectionClosed, LocalProtocolError
from uvicorn.protocols.http.h11_impl import H11Protocol

logger = logging.getLogger(__name__)

MOST = 1000
"""Connections at a time. A page that is open in a browser has up to six."""

SECONDS_TO_ASK = 15.0
"""From the connection, or from the first byte of a further request, until the headers are there."""

SECONDS_TO_READ = 60.0
"""How long an answer may wait for a visitor who reads nothing of it."""

HEARTBEAT = "/gradio_api/heartbeat/"

_OPEN_FILES, _OTHER_FILES = 4096, 100


@final
class PatientProtocol(H11Protocol):
    """Uvicorn's, for visitors who do not ask, and for too many of them.

    Uvicorn waits for headers without end. It can limit connections, but not those from which no request came; the oldest of those, and
    of pages that are only open, make room for new ones here, so that nobody who asks is kept out by who does not.
    """

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._since = self.loop.time()
        self._asking: asyncio.TimerHandle | None = None
        self._reading: asyncio.TimerHandle | None = None

    @property
    def is_idle(self) -> bool:
        """Whether nothing is being answered."""
        return self.cycle is None or self.cycle.response_complete

    @property
    def can_go(self) -> bool:
        """Whether nobody misses it: it asks nothing, or only shows that a page is open, which begins anew by itself."""
        return self.is_idle or self.scope["path"].startswith(HEARTBEAT)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._asking = self.loop.call_later(SECONDS_TO_ASK, self._close)
        alive = [each for each in self.connections if not each.transport.is_closing()]
        if self.limit_concurrency is not None and len(alive) >= self.limit_concurrency:
            others = [each for each in alive if isinstance(each, PatientProtocol) and each.can_go and each is not self]
            if others:
                min(others, key=lambda each: (not each.is_idle, each._since)).transport.abort()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if not self.is_idle:
            self._asked()
        elif self._asking is None:
            # Not begun anew by every byte.
            self._asking = self.loop.call_later(SECONDS_TO_ASK, self._close)

    def on_response_complete(self) -> None:
        self._since = self.loop.time()
        super().on_response_complete()

    def pause_writing(self) -> None:
        super().pause_writing()
        if self._reading is None:
            self._reading = self.loop.call_later(SECONDS_TO_READ, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._read()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._asked()
        self._read()

    def _asked(self) -> None:
        if self._asking is not None:
            self._asking.cancel()
            self._asking = None

    def _read(self) -> None:
        if self._reading is not None:
            self._reading.cancel()
            self._reading = None

    def _close(self) -> None:
        if not self.transport.is_closing():
            with suppress(LocalProtocolError):
                self.conn.send(ConnectionClosed())
            self.transport.close()


def limit_connections(config: Any) -> None:
    """Have a server that was just started limit its connections.

    Args:
        config: Uvicorn's `Config` of that server, which is asked anew for every connection.
    """
    config.http_protocol_class = PatientProtocol
    config.ws_protocol_class = None
    config.limit_concurrency = num_connections(open_files())


def num_connections(num_files: int | None) -> int:
    """So many connections at a time as there are files for; half of those that may be open, since connections arrive in crowds."""
    return MOST if num_files is None else max(1, min(MOST, (num_files - _OTHER_FILES) // 2))


def open_files() -> int | None:
    """How many files may be open, which is brought to a few thousand where the system allows it; None where nobody knows."""
    try:
        import resource  # noqa: PLC0415 (not on every system)
    except ImportError:
        return None
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return None
    wanted = _OPEN_FILES if hard == resource.RLIM_INFINITY else min(_OPEN_FILES, hard)
    if soft < wanted:
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]
