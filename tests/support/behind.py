"""A kit that counts who reaches it, behind the build_middleware of the page."""

import asyncio

from vitrail.app.hosts import allowed_hosts
from vitrail.app.pending_results import Unread
from vitrail.app.requests import Function, Questions
from vitrail.app.temporary_files import Folders
from vitrail.app.uploads import Limits


class Kit:
    """Counts what reaches it; takes its time if it is told to."""

    def __init__(self, pause: float = 0) -> None:
        self.reached, self._pause = 0, pause

    async def __call__(self, scope, receive, send) -> None:
        self.reached += 1
        await asyncio.sleep(self._pause)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"kit"})


class Queue:
    """As much of the kit's queue as the build_middleware know; one question waits to be fetched."""

    def __init__(self) -> None:
        self.pending_event_ids_session, self.event_ids_to_events = {"abc": {"abc"}}, {}
        self.pending_messages_per_session = {"abc": None}


FUNCTIONS = {0: Function(2, True, {"photo": False, "model": True}), 1: Function(1, False)}
JOIN = b'{"session_hash": "abc", "fn_index": 0, "data": [null, null]}'
BODIES = {
    "/gradio_api/queue/join": JOIN,
    "/gradio_api/run/predict": b'{"session_hash": "abc", "fn_index": 1, "data": ["x"]}',
    "/gradio_api/call/explain": b'{"data": [null, null]}',
    "/gradio_api/call/v2/explain": b'{"photo": null}',
    "/gradio_api/cancel": b'{"session_hash": "abc", "fn_index": 0, "event_id": "abc"}',
    "/gradio_api/reset": b'{"event_id": "abc"}',
}
"""What is sent to an address, where nothing else is said."""


def guarded(kit, folder, limits=None):
    from vitrail.app.middleware import build_middleware

    app = kit
    folders = Folders(folder / "uploads", folder / "downloads")
    for one in (folders.uploads, folders.downloads):
        one.mkdir(exist_ok=True)
    hosts, questions = allowed_hosts("127.0.0.1", ["vitrail.example"]), Questions(FUNCTIONS, {"explain": 0})
    for one in reversed(build_middleware(limits or Limits(), folders, hosts, questions, Unread(Queue(), 32))):
        app = one.cls(app, *one.args, **one.kwargs)
    return app


async def request(app, method, path, length=b"2", body=b"", query=b"", **fields):
    """Status, text and headers of the reply."""
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
        if body is None:  # Announced, and never sent.
            await asyncio.sleep(60)
        return {"type": "http.request", "body": body, "more_body": False}

    headers = [(name.replace("_", "-").encode(), value) for name, value in fields.items()]
    headers += [(b"content-length", length)] if length is not None else []
    headers += [] if "host" in fields else [(b"host", b"localhost:7860")]
    scope = {"type": "http", "method": method, "path": path, "headers": headers, "root_path": "", "query_string": query}
    await app(scope, receive, send)
    text = b"".join(message.get("body", b"") for message in sent[1:]).decode()
    return sent[0]["status"], text, dict(sent[0]["headers"])


def sent_to(kit, folder, method, path, limits=None, **fields):
    return asyncio.run(request(guarded(kit, folder, limits), method, path, **fields))


class Reader(Kit):
    """Reads what it is sent, as the kit does."""

    async def __call__(self, scope, receive, send) -> None:
        self.message, self.fields = await receive(), dict(scope["headers"])
        await super().__call__(scope, receive, send)
