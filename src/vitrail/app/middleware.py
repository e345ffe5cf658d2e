"""What stands before the kit: which requests reach it, how large they may be, and what every reply tells the browser."""

import logging
from typing import Any
from urllib.parse import parse_qsl, urlencode

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers as Fields
from starlette.middleware import Middleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from vitrail.app.allowlist import NAMED, UPLOAD, is_open
from vitrail.app.error_responses import Failures
from vitrail.app.hosts import AllowedHosts, host_name, origin_host
from vitrail.app.pending_results import Unread
from vitrail.app.request_bodies import Bodies
from vitrail.app.requests import Questions, is_hash
from vitrail.app.slow_clients import TooSlowError, refuse, steadily
from vitrail.app.temporary_files import Folders
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


class Hosts:
    """Refuses what was asked for under a name that is not this server's, and by pages of other sites.

    Args:
        app: What is guarded.
        hosts: The names.
    """

    def __init__(self, app: ASGIApp, hosts: AllowedHosts) -> None:
        self._app, self._hosts = app, hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and (refused := self._refusal(Fields(scope=scope))):
            await refuse(*refused, scope, receive, send)
        else:
            await self._app(scope, receive, send)

    def _refusal(self, fields: Fields) -> tuple[int, str] | None:
        hosts = [fields.get("host", "")]
        # A server in front tells the name that it was asked for itself; it is the kit's then, too.
        hosts += [host.strip() for told in fields.getlist("x-forwarded-host") for host in told.split(",")]
        for host in hosts:
            name = host_name(host)
            if name is None:
                return 400, "expected a Host header with a host name or an IP address, got something else"
            if not self._hosts.allow(name):
                return (
                    421,
                    f"this server does not answer for the host {name[:80]}; if it is yours, start it with --allow-host {name[:80]}",
                )
        if (origin := fields.get("origin")) is None:
            return None
        if origin_host(origin) not in {host.lower() for host in hosts}:
            return 403, "this was asked by another page; behind another server, let that one pass on the name in Host"
        return None


class Allowlist:
    """Lets in what the page needs, see `vitrail.app.allowlist`; the kit never hears of anything else."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        elif scope["type"] != "http":
            # Web sockets, which the page does not use.
            await send({"type": "websocket.close", "code": 1000})
        elif not is_open(scope["method"], scope["path"]):
            await refuse(404, "there is nothing under this address; the page is at /", scope, receive, send)
        else:
            asked = dict(parse_qsl(scope.get("query_string", b"").decode("latin-1")))
            asked = {name: asked[name] for name in NAMED if name in asked}
            if not all(map(is_hash, asked.values())):
                words = f"expected {' and '.join(NAMED)} of at most 64 letters, digits, - and _, got something else"
                await refuse(400, words, scope, receive, send)
                return
            # Of a list of ranges the kit knows nothing.
            fields = [each for each in scope["headers"] if each[0] != b"range" or b"," not in each[1]]
            await self._app({**scope, "headers": fields, "query_string": urlencode(asked).encode()}, receive, send)


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
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        fields = Fields(scope=scope)
        told, chunks = fields.get("content-length", ""), "transfer-encoding" in fields
        if scope["method"] != "POST":
            # Nobody would read it.
            if chunks or told not in ("", "0"):
                await refuse(400, "expected a request without content; send it by POST", scope, receive, send)
            else:
                await self._app(scope, receive, send)
            return
        # Sent in chunks, the length that is told would not count.
        if chunks or not (told.isascii() and told.isdecimal()):
            await refuse(411, "expected a content-length, got none; send everything in one piece", scope, receive, send)
            return
        upload = scope["path"] == UPLOAD
        length, most = int(told[:_LONGEST_LENGTH]), self._limits.num_bytes + LARGEST_FORM if upload else LARGEST_QUESTION
        if len(told) > _LONGEST_LENGTH or length > most:
            words = f"expected at most {most / MEGABYTE:g} MB, got more; " + (
                "scale the photo down" if upload else "ask for less"
            )
            await refuse(413, words, scope, receive, send)
        elif not upload:
            await self._app(scope, steadily(receive, length), send)
        elif await run_in_threadpool(self._folders.stored_bytes) + self._coming + length > self._limits.num_stored:
            logger.warning("an upload was turned away: all files of visitors may have %d bytes", self._limits.num_stored)
            await refuse(507, "there is no room for more photos at the moment; try again later", scope, receive, send)
        else:
            # Several that come at once have to find room together.
            self._coming += length
            try:
                await self._app(scope, steadily(receive, length), send)
            except TooSlowError:
                await refuse(408, "expected the photo, got nothing for too long; send it again", scope, receive, send)
            except (AttributeError, LookupError, TypeError, ValueError):
                # By these the kit's reader of forms fails on malformed ones.
                logger.debug("a malformed form", exc_info=True)
                await refuse(400, "expected a form with files, as the page and gradio_client send it", scope, receive, send)
            finally:
                self._coming -= length


def build_middleware(limits: Limits, folders: Folders, hosts: AllowedHosts, questions: Questions, unread: Unread) -> list[Any]:
    """For the server, the outermost first.

    Args:
        limits: Of what visitors send.
        folders: Where it lies.
        hosts: Names of the server.
        questions: What may be asked.
        unread: Answers that wait to be fetched.
    """
    return [
        Middleware(Headers),
        Middleware(Failures),
        Middleware(Hosts, hosts=hosts),
        Middleware(Allowlist),
        Middleware(Sizes, limits=limits, folders=folders),
        Middleware(Bodies, questions=questions, unread=unread),
    ]
