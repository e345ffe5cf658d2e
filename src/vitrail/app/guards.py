"""What stands before the kit: which requests reach it, how large they may be, and what every reply tells the browser."""

import logging
from pathlib import Path
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers as Fields
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from vitrail.app.doors import UPLOAD, is_open
from vitrail.app.folders import stored_bytes
from vitrail.app.uploads import MEGABYTE, Limits

logger = logging.getLogger(__name__)

POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self' data:; connect-src 'self'; worker-src 'self' blob:; media-src 'self' blob:; "
    "object-src 'none'; base-uri 'self'; form-action 'self'; frame-ancestors 'none'"
)
HEADERS = {
    "content-security-policy": POLICY,
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}
LARGEST_FORM = MEGABYTE
"""Bytes around an uploaded photo."""

LARGEST_QUESTION = 5 * MEGABYTE
"""Bytes of everything else that is sent; the page sends what it shows of the curves when they are cancelled."""

_LONGEST_LENGTH = 15
"""Digits of a length; more are too many whatever they say."""


class Headers:
    """Adds headers to every reply."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                extra = [(name.encode(), value.encode()) for name, value in HEADERS.items()]
                message = {**message, "headers": [*message.get("headers", []), *extra]}
            await send(message)

        await self._app(scope, receive, send_with_headers)


class Doors:
    """Lets in what the page needs, see `vitrail.app.doors`; the kit never hears of anything else."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan" or (scope["type"] == "http" and is_open(scope["method"], scope["path"])):
            await self._app(scope, receive, send)
        elif scope["type"] == "http":
            await _refuse(404, "there is nothing under this address; the page is at /", scope, receive, send)
        else:
            # Web sockets, which the page does not use.
            await send({"type": "websocket.close", "code": 1000})


class Sizes:
    """Refuses what is sent without its length, what is too long, and photos for which there is no room.

    Args:
        app: What is guarded.
        limits: Of a photo, and of all of them.
        uploads: Where they lie.
    """

    def __init__(self, app: ASGIApp, limits: Limits, uploads: Path) -> None:
        self._app, self._limits, self._uploads = app, limits, uploads
        self._coming = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "POST":
            await self._app(scope, receive, send)
            return
        fields = Fields(scope=scope)
        told = fields.get("content-length", "")
        # Sent in chunks, the length that is told would not count.
        if not told.isdecimal() or "transfer-encoding" in fields:
            await _refuse(411, "expected a content-length, got none; send everything in one piece", scope, receive, send)
            return
        upload = scope["path"] == UPLOAD
        length, most = int(told[:_LONGEST_LENGTH]), self._limits.num_bytes + LARGEST_FORM if upload else LARGEST_QUESTION
        if len(told) > _LONGEST_LENGTH or length > most:
            words = f"expected at most {most / MEGABYTE:g} MB, got more; " + (
                "scale the photo down" if upload else "ask for less"
            )
            await _refuse(413, words, scope, receive, send)
        elif not upload:
            await self._app(scope, receive, send)
        elif await run_in_threadpool(stored_bytes, self._uploads) + self._coming + length > self._limits.num_stored:
            logger.warning("an upload was turned away: all files of visitors may have %d bytes", self._limits.num_stored)
            await _refuse(507, "there is no room for more photos at the moment; try again later", scope, receive, send)
        else:
            # Several that come at once have to find room together.
            self._coming += length
            try:
                await self._app(scope, receive, send)
            finally:
                self._coming -= length


async def _refuse(code: int, words: str, scope: Scope, receive: Receive, send: Send) -> None:
    await PlainTextResponse(words + "\n", code)(scope, receive, send)


def guards(limits: Limits, uploads: Path) -> list[Any]:
    """For the server, the outermost first.

    Args:
        limits: Of what visitors send.
        uploads: Where photos lie.
    """
    return [Middleware(Headers), Middleware(Doors), Middleware(Sizes, limits=limits, uploads=uploads)]
