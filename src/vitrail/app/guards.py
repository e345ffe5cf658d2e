"""What stands before the kit: which requests reach it, how large they may be, and what every reply tells the browser."""

import asyncio
import json
import logging
from typing import Any
from urllib.parse import urlsplit

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers as Fields
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from vitrail.app.doors import UPLOAD, is_open
from vitrail.app.folders import Folders
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

LARGEST_QUESTION = MEGABYTE // 4
"""Bytes of everything else that is sent."""

LONGEST_HASH = 64
"""Letters by which a visitor's browser calls itself. The kit remembers it for ever, and its own has eleven."""

PATIENCE = 15.0
"""Seconds without a single byte of what is being sent."""

SLOWEST = 25_000
"""Bytes a second: who sends more slowly takes the room of others."""

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
        if scope["type"] == "http":
            fields = Fields(scope=scope)
            if not _of_this_page(fields):
                words = "this was asked by another page; behind another server, let that one pass on the name in Host"
                await _refuse(403, words, scope, receive, send)
                return
            # Of a list of ranges the kit knows nothing.
            scope = {**scope, "headers": [each for each in scope["headers"] if each[0] != b"range" or b"," not in each[1]]}
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
        folders: Where they lie.
    """

    def __init__(self, app: ASGIApp, limits: Limits, folders: Folders) -> None:
        self._app, self._limits, self._folders = app, limits, folders
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
            await self._ask(scope, receive, send, length)
        elif await run_in_threadpool(self._folders.stored_bytes) + self._coming + length > self._limits.num_stored:
            logger.warning("an upload was turned away: all files of visitors may have %d bytes", self._limits.num_stored)
            await _refuse(507, "there is no room for more photos at the moment; try again later", scope, receive, send)
        else:
            # Several that come at once have to find room together.
            self._coming += length
            try:
                await self._app(scope, _steadily(receive, length), send)
            except _TooSlowError:
                await _refuse(408, "expected the photo, got nothing for too long; send it again", scope, receive, send)
            finally:
                self._coming -= length

    async def _ask(self, scope: Scope, receive: Receive, send: Send, length: int) -> None:
        steadily, body = _steadily(receive, length), b""
        try:
            while True:
                message = await steadily()
                if message["type"] != "http.request":
                    return
                body += message.get("body", b"")
                if not message.get("more_body"):
                    break
        except _TooSlowError:
            await _refuse(408, "expected a question, got nothing for too long; ask again", scope, receive, send)
            return
        if not _is_called_shortly(body):
            words = f"expected JSON with a session_hash of at most {LONGEST_HASH} letters, or none"
            await _refuse(400, words, scope, receive, send)
            return
        read = False

        async def again() -> Message:
            nonlocal read
            if read:
                return await receive()
            read = True
            return {"type": "http.request", "body": body, "more_body": False}

        await self._app(scope, again, send)


class _TooSlowError(Exception):
    pass


def _steadily(receive: Receive, length: int) -> Receive:
    """Receive so many bytes, but not from somebody who never sends them."""
    loop = asyncio.get_running_loop()
    end, whole = loop.time() + PATIENCE + length / SLOWEST, False

    async def next_message() -> Message:
        nonlocal whole
        if whole:
            return await receive()
        try:
            message = await asyncio.wait_for(receive(), max(min(PATIENCE, end - loop.time()), 0))
        except TimeoutError as error:
            raise _TooSlowError from error
        whole = not message.get("more_body")
        return message

    return next_message


def _is_called_shortly(body: bytes) -> bool:
    try:
        asked = json.loads(body) if body.strip() else {}
    except (ValueError, RecursionError):
        return False
    name = asked.get("session_hash") if isinstance(asked, dict) else None
    return name is None or (isinstance(name, str) and len(name) <= LONGEST_HASH)


def _of_this_page(fields: Fields) -> bool:
    """Whether no other site asks through the browser of somebody who may come in here."""
    origin = fields.get("origin")
    if origin is None:
        return True
    return urlsplit(origin).netloc.lower() in {fields.get(name, "").lower() for name in ("host", "x-forwarded-host")} - {""}


async def _refuse(code: int, words: str, scope: Scope, receive: Receive, send: Send) -> None:
    await PlainTextResponse(words + "\n", code)(scope, receive, send)


def guards(limits: Limits, folders: Folders) -> list[Any]:
    """For the server, the outermost first.

    Args:
        limits: Of what visitors send.
        folders: Where it lies.
    """
    return [Middleware(Headers), Middleware(Doors), Middleware(Sizes, limits=limits, folders=folders)]
