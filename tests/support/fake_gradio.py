"""A stand-in for Gradio that counts the requests that pass the middleware of the page."""

import asyncio

from vitrail.app.hosts import list_allowed_hosts
from vitrail.app.limits import Limits
from vitrail.app.pending_results import PendingResults
from vitrail.app.requests import Endpoint, Endpoints
from vitrail.app.temporary_files import TemporaryFolders


class FakeGradio:
    """Counts requests; pauses before it responds."""

    def __init__(self, pause: float = 0) -> None:
        self.num_requests, self._pause = 0, pause

    async def __call__(self, scope, receive, send) -> None:
        self.num_requests += 1
        await asyncio.sleep(self._pause)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"gradio"})


class FakeQueue:
    """The part of Gradio's queue that the middleware uses; one result waits to be fetched."""

    def __init__(self) -> None:
        self.pending_event_ids_session, self.event_ids_to_events = {"abc": {"abc"}}, {}
        self.pending_messages_per_session = {"abc": None}


FUNCTIONS = {0: Endpoint(2, True, {"photo": False, "model": True}), 1: Endpoint(1, False)}
JOIN = b'{"session_hash": "abc", "fn_index": 0, "data": [null, null]}'
BODIES = {
    "/gradio_api/queue/join": JOIN,
    "/gradio_api/run/predict": b'{"session_hash": "abc", "fn_index": 1, "data": ["x"]}',
    "/gradio_api/call/explain": b'{"data": [null, null]}',
    "/gradio_api/call/v2/explain": b'{"photo": null}',
    "/gradio_api/cancel": b'{"session_hash": "abc", "fn_index": 0, "event_id": "abc"}',
    "/gradio_api/reset": b'{"event_id": "abc"}',
}
"""Default body of a request, by path."""


def add_middleware(app, folder, limits=None):
    """Wrap an application in the middleware of the page."""
    from vitrail.app.middleware import build_middleware

    folders = TemporaryFolders(folder / "uploads", folder / "downloads")
    for path in (folders.uploads, folders.downloads):
        path.mkdir(exist_ok=True)
    hosts, endpoints = list_allowed_hosts("127.0.0.1", ["vitrail.example"]), Endpoints(FUNCTIONS, {"explain": 0})
    pending = PendingResults(FakeQueue(), 32)
    for middleware in reversed(build_middleware(limits or Limits(), folders, hosts, endpoints, pending)):
        app = middleware.cls(app, *middleware.args, **middleware.kwargs)
    return app


async def send_request(app, method, path, length=b"2", body=b"", query=b"", **fields):
    """Return status, text and headers of the response."""
    sent = []
    if method != "POST":
        length = None
    if body == b"":
        body = BODIES.get(path, b"{}")
    if path == "/gradio_api/queue/data":
        query = query or b"session_hash=abc"

    async def send(message):
        sent.append(message)

    async def receive():
        if body is None:  # Announced but never sent.
            await asyncio.sleep(60)
        return {"type": "http.request", "body": body, "more_body": False}

    headers = [(name.replace("_", "-").encode(), value) for name, value in fields.items()]
    headers += [(b"content-length", length)] if length is not None else []
    headers += [] if "host" in fields else [(b"host", b"localhost:7860")]
    scope = {"type": "http", "method": method, "path": path, "headers": headers, "root_path": "", "query_string": query}
    await app(scope, receive, send)
    text = b"".join(message.get("body", b"") for message in sent[1:]).decode()
    return sent[0]["status"], text, dict(sent[0]["headers"])


def request(app, folder, method, path, limits=None, **fields):
    """Send one request through the middleware; see `send_request`."""
    return asyncio.run(send_request(add_middleware(app, folder, limits), method, path, **fields))


class ReadingGradio(FakeGradio):
    """Reads the body, as Gradio does."""

    async def __call__(self, scope, receive, send) -> None:
        self.message, self.fields = await receive(), dict(scope["headers"])
        await super().__call__(scope, receive, send)
