"""Which requests reach the kit, and how large they may be."""

import asyncio

import pytest

from vitrail.app.folders import Folders
from vitrail.app.uploads import MEGABYTE, Limits

pytest.importorskip("starlette", reason="comes with the extra app")

REFUSED = [
    ("GET", "/gradio_api/file=http://example.com/x"),
    ("HEAD", "/gradio_api/file=https://example.com/x"),
    ("GET", "/gradio_api/file=HTTP://example.com/x"),
    ("GET", "/gradio_api/file=//example.com/x"),
    ("GET", "/gradio_api/file=\\\\example.com\\x"),
    ("GET", "/gradio_api/file=ftp:example.com"),
    ("GET", "/gradio_api/file=%68ttp://example.com/x"),
    ("GET", "/gradio_api/file=/%2e%2e/x"),
    ("GET", "/gradio_api/file= http://example.com/x"),
    ("GET", "/gradio_api/file=\nhttp://example.com/x"),
    ("GET", "/gradio_api/file=data:text/plain,x"),
    ("GET", "/gradio_api/file=photo.png"),
    ("GET", "/gradio_api/file="),
    ("GET", "/gradio_api/file/http://example.com/x"),
    ("GET", "/file=http://example.com/x"),
    ("GET", "/gradio_api/proxy=http://example.com/x"),
    ("GET", "/gradio_api/deep_link"),
    ("POST", "/gradio_api/process_recording"),
    ("POST", "/gradio_api/component_server"),
    ("POST", "/gradio_api/component_server/"),
    ("POST", "/gradio_api/stream/abc"),
    ("POST", "/gradio_api/run/explain"),
    ("POST", "/gradio_api/run/predict/more"),
    ("POST", "/gradio_api/api/explain"),
    ("POST", "/gradio_api/api/predict/"),
    ("POST", "/gradio_api/vibe-edit"),
    ("GET", "/gradio_api/vibe-code"),
    ("GET", "/gradio_api/runs"),
    ("GET", "/gradio_api/run-history/records"),
    ("GET", "/gradio_api/custom_component/a/b/c/d"),
    ("GET", "/gradio_api/profiling/traces"),
    ("GET", "/gradio_api/dev/reload"),
    ("GET", "/gradio_api/openapi.json"),
    ("GET", "/monitoring"),
    ("GET", "/monitoring/summary"),
    ("GET", "/svelte/a.js"),
    ("GET", "/pwa_icon"),
    ("POST", "/login"),
    ("GET", "/openapi.json"),
    ("GET", "/docs"),
    ("POST", "/"),
    ("GET", "/gradio_api/queue/join"),
    ("DELETE", "/gradio_api/upload"),
    ("GET", "//"),
    ("GET", ""),
]
OPEN = [
    ("GET", "/"),
    ("HEAD", "/"),
    ("GET", "/assets/index.js"),
    ("GET", "/static/fonts/a.woff2"),
    ("GET", "/theme.css"),
    ("GET", "/favicon.ico"),
    ("GET", "/manifest.json"),
    ("GET", "/robots.txt"),
    ("GET", "/config"),
    ("GET", "/gradio_api/info"),
    ("GET", "/gradio_api/startup-events"),
    ("GET", "/gradio_api/heartbeat/abc"),
    ("GET", "/gradio_api/queue/data"),
    ("GET", "/gradio_api/call/explain/abc"),
    ("GET", "/gradio_api/upload_progress"),
    ("GET", "/gradio_api/file=/tmp/uploads/abc/a photo.png"),
    ("HEAD", "/gradio_api/file=/tmp/uploads/abc/photo.png"),
    ("POST", "/gradio_api/queue/join"),
    ("POST", "/gradio_api/call/explain"),
    ("POST", "/gradio_api/call/v2/explain"),
    ("POST", "/gradio_api/run/predict"),
    ("POST", "/gradio_api/cancel"),
    ("POST", "/gradio_api/reset"),
    ("POST", "/gradio_api/upload"),
]


class Kit:
    """Counts what reaches it; takes its time if it is told to."""

    def __init__(self, pause: float = 0) -> None:
        self.reached, self._pause = 0, pause

    async def __call__(self, scope, receive, send) -> None:
        self.reached += 1
        await asyncio.sleep(self._pause)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"kit"})


def guarded(kit, folder, limits=None):
    from vitrail.app.guards import guards

    app = kit
    folders = Folders(folder / "uploads", folder / "downloads")
    for one in (folders.uploads, folders.downloads):
        one.mkdir(exist_ok=True)
    for one in reversed(guards(limits or Limits(), folders)):
        app = one.cls(app, *one.args, **one.kwargs)
    return app


async def request(app, method, path, length=b"2", body=b"{}", **fields):
    """Status, text and headers of the reply."""
    sent = []

    async def send(message):
        sent.append(message)

    async def receive():
        if body is None:  # Announced, and never sent.
            await asyncio.sleep(60)
        return {"type": "http.request", "body": body, "more_body": False}

    headers = [(name.replace("_", "-").encode(), value) for name, value in fields.items()]
    headers += [(b"content-length", length)] if length is not None else []
    await app({"type": "http", "method": method, "path": path, "headers": headers, "root_path": ""}, receive, send)
    text = b"".join(message.get("body", b"") for message in sent[1:]).decode()
    return sent[0]["status"], text, dict(sent[0]["headers"])


def asked(kit, folder, method, path, limits=None, **fields):
    return asyncio.run(request(guarded(kit, folder, limits), method, path, **fields))


@pytest.mark.parametrize(("method", "path"), REFUSED)
def test_what_the_page_does_not_need_never_reaches_the_kit(method, path, tmp_path):
    kit = Kit()
    code, text, headers = asked(kit, tmp_path, method, path)
    assert (code, kit.reached) == (404, 0)
    assert "there is nothing under this address" in text
    assert b"default-src 'self'" in headers[b"content-security-policy"]


@pytest.mark.parametrize(("method", "path"), OPEN)
def test_what_the_page_needs_does(method, path, tmp_path):
    kit = Kit()
    code, text, headers = asked(kit, tmp_path, method, path)
    assert (code, text, kit.reached) == (200, "kit", 1)
    assert headers[b"x-content-type-options"] == b"nosniff"


def test_web_sockets_are_closed(tmp_path):
    sent, kit = [], Kit()

    async def send(message):
        sent.append(message)

    asyncio.run(guarded(kit, tmp_path)({"type": "websocket", "path": "/"}, None, send))
    assert [message["type"] for message in sent] == ["websocket.close"]
    assert kit.reached == 0


@pytest.mark.parametrize("path", ["/gradio_api/upload", "/gradio_api/queue/join"])
@pytest.mark.parametrize(
    "fields",
    [
        {"length": None},
        {"length": b""},
        {"length": b"-1"},
        {"length": b"2 3"},
        {"length": None, "transfer_encoding": b"chunked"},
        {"length": b"2", "transfer_encoding": b"chunked"},
    ],
)
def test_what_is_sent_without_its_length_is_refused(path, fields, tmp_path):
    kit = Kit()
    code, text, _ = asked(kit, tmp_path, "POST", path, **fields)
    assert (code, kit.reached) == (411, 0)
    assert "expected a content-length" in text


@pytest.mark.parametrize(
    ("path", "most", "told"),
    [("/gradio_api/upload", 3 * MEGABYTE, "3 MB"), ("/gradio_api/queue/join", MEGABYTE // 4, "0.25 MB")],
)
def test_what_is_too_long_is_refused(path, most, told, tmp_path):
    limits, kit = Limits(num_bytes=2 * MEGABYTE), Kit()
    assert asked(kit, tmp_path, "POST", path, limits, length=b"%d" % most)[0] == 200
    for length in (b"%d" % (most + 1), b"9" * 5000):
        code, text, _ = asked(kit, tmp_path, "POST", path, limits, length=length)
        assert code == 413
        assert f"expected at most {told}" in text
    assert kit.reached == 1


def test_photos_find_no_room_where_there_are_too_many(tmp_path):
    limits, kit = Limits(num_stored=1000), Kit()
    # What visitors prepared for themselves counts as well.
    for folder, size in (("uploads", 400), ("downloads", 200)):
        (tmp_path / folder / "abc").mkdir(parents=True)
        (tmp_path / folder / "abc" / "photo.png").write_bytes(b"\0" * size)
    assert asked(kit, tmp_path, "POST", "/gradio_api/upload", limits, length=b"400")[0] == 200
    code, text, _ = asked(kit, tmp_path, "POST", "/gradio_api/upload", limits, length=b"401")
    assert (code, kit.reached) == (507, 1)
    assert "no room for more photos" in text
    # Questions about photos that are there are answered.
    assert asked(kit, tmp_path, "POST", "/gradio_api/queue/join", limits, length=b"401")[0] == 200


def test_photos_that_come_at_once_find_room_together(tmp_path):
    kit = Kit(pause=0.2)

    async def several():
        app = guarded(kit, tmp_path, Limits(num_stored=1000))
        first = await asyncio.gather(*(request(app, "POST", "/gradio_api/upload", b"300") for _ in range(5)))
        return [one[0] for one in first], await request(app, "POST", "/gradio_api/upload", b"300")

    codes, later = asyncio.run(several())
    assert sorted(codes) == [200, 200, 200, 507, 507]
    assert later[0] == 200


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({}, 200),
        ({"host": b"localhost:7860", "origin": b"http://localhost:7860"}, 200),
        ({"host": b"LOCALHOST:7860", "origin": b"http://localhost:7860"}, 200),
        ({"host": b"inside:1", "x_forwarded_host": b"vitrail.example", "origin": b"https://vitrail.example"}, 200),
        ({"host": b"localhost:7860", "origin": b"http://evil.example"}, 403),
        ({"host": b"localhost:7860", "origin": b"http://localhost:8000"}, 403),
        ({"host": b"localhost:7860", "origin": b"null"}, 403),
        ({"origin": b"http://evil.example"}, 403),
    ],
)
@pytest.mark.parametrize(("method", "path"), [("POST", "/gradio_api/upload"), ("GET", "/gradio_api/info")])
def test_no_other_page_asks_through_a_visitors_browser(method, path, fields, code, tmp_path):
    kit = Kit()
    assert asked(kit, tmp_path, method, path, **fields)[0] == code
    assert kit.reached == (code == 200)


@pytest.mark.parametrize(
    "body",
    [
        b'{"session_hash": "' + b"x" * 65 + b'"}',
        b'{"session_hash": 5}',
        b"[" * 100_000,
        b"no json",
        b"\xff",
    ],
)
def test_visitors_are_called_shortly(body, tmp_path):
    kit = Kit()
    code, text, _ = asked(kit, tmp_path, "POST", "/gradio_api/queue/join", body=body)
    assert (code, kit.reached) == (400, 0)
    assert "session_hash of at most 64 letters" in text
    for body in (b'{"session_hash": "abc", "data": []}', b"{}", b"[]", b"", b'{"session_hash": null}'):
        assert asked(kit, tmp_path, "POST", "/gradio_api/queue/join", body=body)[0] == 200
    assert asked(kit, tmp_path, "GET", "/gradio_api/heartbeat/" + "x" * 65)[0] == 404


class Reader(Kit):
    """Reads what it is sent, as the kit does."""

    async def __call__(self, scope, receive, send) -> None:
        self.message = await receive()
        await super().__call__(scope, receive, send)


def test_the_kit_gets_the_question_whole(tmp_path):
    kit = Reader()
    assert asked(kit, tmp_path, "POST", "/gradio_api/queue/join", body=b'{"data": [1]}')[0] == 200
    assert kit.message["body"] == b'{"data": [1]}'


@pytest.mark.parametrize("path", ["/gradio_api/upload", "/gradio_api/queue/join"])
def test_who_sends_nothing_takes_no_room_for_long(path, tmp_path, monkeypatch):
    monkeypatch.setattr("vitrail.app.guards.PATIENCE", 0.2)
    kit = Reader()

    async def several():
        app = guarded(kit, tmp_path, Limits(num_stored=1000))
        slow = await request(app, "POST", path, b"900", body=None)
        return slow, await request(app, "POST", path, b"900")

    (code, text, _), after = asyncio.run(several())
    assert code == 408
    assert "nothing for too long" in text
    assert after[0] == 200


def test_a_list_of_ranges_is_not_passed_on(tmp_path):
    class Kept(Kit):
        async def __call__(self, scope, receive, send) -> None:
            self.names = [name for name, _ in scope["headers"]]
            await super().__call__(scope, receive, send)

    kit = Kept()
    asked(kit, tmp_path, "GET", "/gradio_api/file=/tmp/a.png", range=b"bytes=0-0,1-1")
    assert b"range" not in kit.names
    asked(kit, tmp_path, "GET", "/gradio_api/file=/tmp/a.png", range=b"bytes=0-1")
    assert b"range" in kit.names
