"""Middleware before Gradio: which requests reach it, how large they may be, and which headers every response has."""

import logging
from typing import Any
from urllib.parse import parse_qsl, urlencode

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers, MutableHeaders
from starlette.middleware import Middleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from vitrail.app.allowlist import QUERY_PARAMETERS, UPLOAD, is_allowed
from vitrail.app.error_responses import ErrorResponses, send_error
from vitrail.app.hosts import AllowedHosts, parse_host, parse_origin
from vitrail.app.limits import MEGABYTE, Limits
from vitrail.app.pending_results import PendingResults
from vitrail.app.request_bodies import BodyChecks, TooSlowError, receive_in_time
from vitrail.app.requests import Endpoints, is_identifier
from vitrail.app.temporary_files import TemporaryFolders

logger = logging.getLogger(__name__)

POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self' data:; connect-src 'self'; worker-src 'self' blob:; media-src 'self' blob:; "
    "object-src 'none'; base-uri 'self'; form-action 'self'; frame-ancestors 'none'"
)
SECURITY_HEADERS = {
    "content-security-policy": POLICY,
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}
MAX_FORM_BYTES = MEGABYTE
"""Bytes of a form around an uploaded photo."""

MAX_CALL_BYTES = MEGABYTE // 4
"""Bytes of any other body."""

_MAX_LENGTH_DIGITS = 15
"""Digits of a content length; longer ones are refused without being parsed."""


class SecurityHeaders:
    """Adds security headers to every response."""

    # Not Starlette's `BaseHTTPMiddleware`, which runs the application in a task of its own: streams then outlive their clients.

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(raw=list(message.get("headers", [])))
                for name, value in SECURITY_HEADERS.items():
                    headers.append(name, value)
                message = {**message, "headers": headers.raw}
            await send(message)

        await self._app(scope, receive, send_with_headers)


class HostChecks:
    """Refuses requests for other host names, and requests of pages of other sites.

    Args:
        app: The application behind it.
        hosts: The accepted names.
    """

    # Not Starlette's `TrustedHostMiddleware`: that checks neither X-Forwarded-Host nor Origin, splits IPv6 addresses at their first
    # colon, and cannot accept all IP addresses without accepting all names.

    def __init__(self, app: ASGIApp, hosts: AllowedHosts) -> None:
        self._app, self._hosts = app, hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and (error := self._find_error(Headers(scope=scope))):
            await send_error(*error, scope, receive, send)
        else:
            await self._app(scope, receive, send)

    def _find_error(self, headers: Headers) -> tuple[int, str] | None:
        hosts = [headers.get("host", "")]
        # A proxy passes on the name that the browser used; Gradio builds its links from it.
        hosts += [host.strip() for field in headers.getlist("x-forwarded-host") for host in field.split(",")]
        for host in hosts:
            name = parse_host(host)
            if name is None:
                return 400, "expected a Host header with a host name or an IP address, got something else"
            if not self._hosts.allow(name):
                return (
                    421,
                    f"this server does not answer for the host {name[:80]}; if it is yours, start it with --allow-host {name[:80]}",
                )
        if (origin := headers.get("origin")) is None:
            return None
        if parse_origin(origin) not in {host.lower() for host in hosts}:
            return 403, "expected a request by this page, got one by another page; a proxy has to pass on the name in Host"
        return None


class AllowlistChecks:
    """Refuses requests that the page does not need, see `vitrail.app.allowlist`."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        elif scope["type"] != "http":
            # The page uses no WebSockets.
            await send({"type": "websocket.close", "code": 1000})
        elif not is_allowed(scope["method"], scope["path"]):
            await send_error(404, "there is nothing under this address; the page is at /", scope, receive, send)
        else:
            query = dict(parse_qsl(scope.get("query_string", b"").decode("latin-1")))
            query = {name: query[name] for name in QUERY_PARAMETERS if name in query}
            if not all(map(is_identifier, query.values())):
                names = " and ".join(QUERY_PARAMETERS)
                message = f"expected {names} of at most 64 letters, digits, - and _, got something else"
                await send_error(400, message, scope, receive, send)
                return
            # Gradio fails on lists of ranges.
            headers = [field for field in scope["headers"] if field[0] != b"range" or b"," not in field[1]]
            await self._app({**scope, "headers": headers, "query_string": urlencode(query).encode()}, receive, send)


class SizeChecks:
    """Refuses bodies of unknown length, large bodies, and photos for which there is no room.

    Args:
        app: The application behind it.
        limits: Sizes of one photo and of all files.
        folders: The folders of all files.
    """

    def __init__(self, app: ASGIApp, limits: Limits, folders: TemporaryFolders) -> None:
        self._app, self._limits, self._folders = app, limits, folders
        self._num_arriving = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        field, is_chunked = headers.get("content-length", ""), "transfer-encoding" in headers
        if scope["method"] != "POST":
            if is_chunked or field not in ("", "0"):
                await send_error(400, "expected a request without content; send it by POST", scope, receive, send)
            else:
                await self._app(scope, receive, send)
            return
        # The length of a chunked body is unknown, whatever the header says.
        if is_chunked or not (field.isascii() and field.isdecimal()):
            await send_error(411, "expected a content-length, got none; send everything in one piece", scope, receive, send)
            return
        is_upload = scope["path"] == UPLOAD
        length = int(field[:_MAX_LENGTH_DIGITS])
        max_length = self._limits.num_bytes + MAX_FORM_BYTES if is_upload else MAX_CALL_BYTES
        if len(field) > _MAX_LENGTH_DIGITS or length > max_length:
            remedy = "scale the photo down" if is_upload else "send less"
            message = f"expected at most {max_length / MEGABYTE:g} MB, got more; {remedy}"
            await send_error(413, message, scope, receive, send)
        elif not is_upload:
            await self._app(scope, receive_in_time(receive, length), send)
        elif await run_in_threadpool(self._folders.stored_bytes) + self._num_arriving + length > self._limits.num_stored:
            logger.warning("an upload was refused: all files together may have %d bytes", self._limits.num_stored)
            await send_error(507, "there is no room for more photos at the moment; try again later", scope, receive, send)
        else:
            await self._pass_upload(length, scope, receive, send)

    async def _pass_upload(self, length: int, scope: Scope, receive: Receive, send: Send) -> None:
        # Uploads that arrive at the same time have to fit together.
        self._num_arriving += length
        try:
            await self._app(scope, receive_in_time(receive, length), send)
        except TooSlowError:
            await send_error(408, "expected the photo, got nothing for too long; send it again", scope, receive, send)
        except (AttributeError, LookupError, TypeError, ValueError):
            # Gradio's parser raises these for malformed forms.
            logger.debug("a malformed form", exc_info=True)
            await send_error(400, "expected a form with files, as the page and gradio_client send it", scope, receive, send)
        finally:
            self._num_arriving -= length


def build_middleware(
    limits: Limits, folders: TemporaryFolders, hosts: AllowedHosts, endpoints: Endpoints, pending: PendingResults
) -> list[Any]:
    """Build all middleware, the outermost first.

    Args:
        limits: Limits of what clients send.
        folders: Folders of what they sent.
        hosts: Accepted names of the server.
        endpoints: Functions that may be called.
        pending: Results that were not fetched yet.
    """
    return [
        Middleware(SecurityHeaders),
        Middleware(ErrorResponses),
        Middleware(HostChecks, hosts=hosts),
        Middleware(AllowlistChecks),
        Middleware(SizeChecks, limits=limits, folders=folders),
        Middleware(BodyChecks, endpoints=endpoints, pending=pending),
    ]
