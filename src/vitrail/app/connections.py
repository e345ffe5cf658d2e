"""Limits of connections: their number, and timeouts of requests and responses."""

import asyncio
import logging
from contextlib import suppress
from typing import Any, final

from h11 import IDLE, SEND_RESPONSE, ConnectionClosed, LocalProtocolError
from uvicorn.protocols.http.h11_impl import H11Protocol

logger = logging.getLogger(__name__)

MAX_CONNECTIONS = 1000
"""Connections at a time. An open page has up to six."""

REQUEST_SECONDS = 15.0
"""From the connection, or from the first byte of a further request, until the headers are complete."""

RESPONSE_SECONDS = 60.0
"""Time that a response may be blocked by a client that reads nothing."""

HEARTBEAT = "/gradio_api/heartbeat/"

_OPEN_FILES, _OTHER_FILES = 4096, 100


@final
class LimitedProtocol(H11Protocol):
    """Uvicorn's protocol with timeouts, in which idle connections make room for new ones.

    Uvicorn waits for headers forever, and its limit of connections refuses new ones even if the others are idle.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._idle_since = self.loop.time()
        self._request_timer: asyncio.TimerHandle | None = None
        self._response_timer: asyncio.TimerHandle | None = None

    @property
    def is_idle(self) -> bool:
        """Whether no response is being sent."""
        return self.cycle is None or self.cycle.response_complete

    @property
    def can_be_closed(self) -> bool:
        """Whether closing it interrupts nothing: it is idle, or the heartbeat of an open page, which reconnects by itself."""
        return self.is_idle or self.scope["path"].startswith(HEARTBEAT)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._request_timer = self.loop.call_later(REQUEST_SECONDS, self._close)
        alive = [connection for connection in self.connections if not connection.transport.is_closing()]
        if self.limit_concurrency is not None and len(alive) >= self.limit_concurrency:
            closable = [
                connection
                for connection in alive
                if isinstance(connection, LimitedProtocol) and connection.can_be_closed and connection is not self
            ]
            if closable:
                min(closable, key=lambda connection: (not connection.is_idle, connection._idle_since)).transport.abort()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if not self.is_idle:
            self._stop_request_timer()
        elif self._request_timer is None:
            # Further bytes do not restart it.
            self._request_timer = self.loop.call_later(REQUEST_SECONDS, self._close)

    def send_400_response(self, msg: str) -> None:
        """Answer malformed HTTP, also in the middle of a request, whose own response is then dropped."""
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        if self.conn.our_state in (IDLE, SEND_RESPONSE):
            super().send_400_response(msg)
        else:  # A response has begun.
            self.transport.close()

    def on_response_complete(self) -> None:
        self._idle_since = self.loop.time()
        super().on_response_complete()

    def pause_writing(self) -> None:
        super().pause_writing()
        if self._response_timer is None:
            self._response_timer = self.loop.call_later(RESPONSE_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._stop_response_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._stop_request_timer()
        self._stop_response_timer()

    def _stop_request_timer(self) -> None:
        if self._request_timer is not None:
            self._request_timer.cancel()
            self._request_timer = None

    def _stop_response_timer(self) -> None:
        if self._response_timer is not None:
            self._response_timer.cancel()
            self._response_timer = None

    def _close(self) -> None:
        if not self.transport.is_closing():
            with suppress(LocalProtocolError):
                self.conn.send(ConnectionClosed())
            self.transport.close()


def limit_connections(config: Any) -> None:
    """Limit the connections of a running server.

    Args:
        config: Uvicorn's `Config` of the server, which reads it for every new connection.
    """
    config.http_protocol_class = LimitedProtocol
    config.ws_protocol_class = None
    config.limit_concurrency = compute_max_connections(raise_file_limit())


def compute_max_connections(num_files: int | None) -> int:
    """Return the number of connections for a limit of open files: at most half of it, since many connections may arrive at once."""
    return MAX_CONNECTIONS if num_files is None else max(1, min(MAX_CONNECTIONS, (num_files - _OTHER_FILES) // 2))


def raise_file_limit() -> int | None:
    """Raise the limit of open files to a few thousand if the system allows it, and return it; None if there is no known limit."""
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
