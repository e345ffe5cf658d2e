"""Request bodies: received in time, checked as a whole, and passed on to Gradio."""

import asyncio
from urllib.parse import parse_qs

from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from vitrail.app.allowlist import CALL, DATA, UPLOAD
from vitrail.app.error_responses import send_error
from vitrail.app.pending_results import PendingResults
from vitrail.app.requests import CheckedRequest, Endpoints, RefusedError

STALL_SECONDS = 15.0
"""Time without a single byte of a body."""

MIN_BYTES_PER_SECOND = 25_000
"""Slower bodies time out: they take the room of other clients."""


class TooSlowError(Exception):
    """A body did not arrive in time."""


def receive_in_time(receive: Receive, length: int) -> Receive:
    """Limit the time in which a body has to arrive.

    Args:
        receive: Channel of the request.
        length: Bytes of the body.

    Raises:
        TooSlowError: By the returned function.
    """
    loop = asyncio.get_running_loop()
    end, complete = loop.time() + STALL_SECONDS + length / MIN_BYTES_PER_SECOND, False

    async def receive_message() -> Message:
        nonlocal complete
        if complete:
            return await receive()
        try:
            message = await asyncio.wait_for(receive(), max(min(STALL_SECONDS, end - loop.time()), 0))
        except TimeoutError as error:
            raise TooSlowError from error
        complete = not message.get("more_body")
        return message

    return receive_message


class BodyChecks:
    """Middleware that passes on checked calls of functions, and keeps track of who fetches results.

    Args:
        app: The application behind it.
        endpoints: The functions that may be called.
        pending: Results that were not fetched yet.
    """

    def __init__(self, app: ASGIApp, endpoints: Endpoints, pending: PendingResults) -> None:
        self._app, self._endpoints, self._pending = app, endpoints, pending

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] == UPLOAD:
            await self._app(scope, receive, send)
        elif scope["method"] == "POST":
            await self._call(scope, receive, send)
        elif match := CALL.fullmatch(scope["path"]):
            if self._pending.is_known(match["event"]):
                await self._fetch(match["event"], scope, receive, send)
            else:
                message = "there is no such event, or its result was fetched already; send the request again"
                await send_error(404, message, scope, receive, send)
        elif scope["path"] == DATA:
            session = parse_qs(scope["query_string"].decode()).get("session_hash")
            if session:
                await self._fetch(session[0], scope, receive, send)
            else:
                await send_error(400, "expected the query parameter session_hash, got none", scope, receive, send)
        else:
            await self._app(scope, receive, send)

    async def _fetch(self, name: str, scope: Scope, receive: Receive, send: Send) -> None:
        with self._pending.fetching(name):
            await self._app(scope, receive, send)

    async def _call(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            request = self._endpoints.check(scope["path"], await Request(scope, receive).body())
            if request.has_result:
                await self._pending.make_room(request.session)
        except TooSlowError:
            await send_error(408, "expected a request, got nothing for too long; send it again", scope, receive, send)
        except RefusedError as error:
            await send_error(error.code, str(error), scope, receive, send)
        else:
            await self._app(_replace_headers(scope, request), _replay(request.body, receive), send)


def _replace_headers(scope: Scope, request: CheckedRequest) -> Scope:
    # Gradio has to read the checked body, whatever the headers of the client say.
    headers = [field for field in scope["headers"] if field[0] not in (b"content-type", b"content-length", b"content-encoding")]
    headers += [(b"content-type", b"application/json"), (b"content-length", str(len(request.body)).encode())]
    return {**scope, "headers": headers}


def _replay(body: bytes, receive: Receive) -> Receive:
    sent = False

    async def receive_message() -> Message:
        nonlocal sent
        if sent:
            return await receive()
        sent = True
        return {"type": "http.request", "body": body, "more_body": False}

    return receive_message
