"""Which requests reach the kit, and how large they may be."""

import asyncio
import json

import pytest

from vitrail.app.folders import Folders
from vitrail.app.hosts import allowed_hosts
from vitrail.app.questions import Function, Questions
from vitrail.app.unread import Unread
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
    ("GET", "/assets/" + "a" * 201),
    ("GET", "/static/" + "a/" * 9),
    ("GET", "/gradio_api/heartbeat/a.b"),
    ("GET", "/gradio_api/call/explain/a b"),
    ("POST", "/gradio_api/call/" + "a" * 65),
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


class Queue:
    """As much of the kit's queue as the guards know; one question waits to be fetched."""

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
    from vitrail.app.guards import guards

    app = kit
    folders = Folders(folder / "uploads", folder / "downloads")
    for one in (folders.uploads, folders.downloads):
        one.mkdir(exist_ok=True)
    hosts, questions = allowed_hosts("127.0.0.1", ["vitrail.example"]), Questions(FUNCTIONS, {"explain": 0})
    for one in reversed(guards(limits or Limits(), folders, hosts, questions, Unread(Queue(), 32))):
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


@pytest.mark.parametrize(("method", "path"), REFUSED)
def test_what_the_page_does_not_need_never_reaches_the_kit(method, path, tmp_path):
    kit = Kit()
    code, text, headers = sent_to(kit, tmp_path, method, path)
    assert (code, kit.reached) == (404, 0)
    assert "there is nothing under this address" in text
    assert b"default-src 'self'" in headers[b"content-security-policy"]


@pytest.mark.parametrize(("method", "path"), OPEN)
def test_what_the_page_needs_does(method, path, tmp_path):
    kit = Kit()
    code, text, headers = sent_to(kit, tmp_path, method, path)
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
    code, text, _ = sent_to(kit, tmp_path, "POST", path, **fields)
    assert (code, kit.reached) == (411, 0)
    assert "expected a content-length" in text


@pytest.mark.parametrize(
    ("path", "most", "told"),
    [("/gradio_api/upload", 3 * MEGABYTE, "3 MB"), ("/gradio_api/queue/join", MEGABYTE // 4, "0.25 MB")],
)
def test_what_is_too_long_is_refused(path, most, told, tmp_path):
    limits, kit = Limits(num_bytes=2 * MEGABYTE), Kit()
    assert sent_to(kit, tmp_path, "POST", path, limits, length=b"%d" % most)[0] == 200
    for length in (b"%d" % (most + 1), b"9" * 5000):
        code, text, _ = sent_to(kit, tmp_path, "POST", path, limits, length=length)
        assert code == 413
        assert f"expected at most {told}" in text
    assert kit.reached == 1


def test_photos_find_no_room_where_there_are_too_many(tmp_path):
    limits, kit = Limits(num_stored=1000), Kit()
    # What visitors prepared for themselves counts as well.
    for folder, size in (("uploads", 400), ("downloads", 200)):
        (tmp_path / folder / "abc").mkdir(parents=True)
        (tmp_path / folder / "abc" / "photo.png").write_bytes(b"\0" * size)
    assert sent_to(kit, tmp_path, "POST", "/gradio_api/upload", limits, length=b"400")[0] == 200
    code, text, _ = sent_to(kit, tmp_path, "POST", "/gradio_api/upload", limits, length=b"401")
    assert (code, kit.reached) == (507, 1)
    assert "no room for more photos" in text
    # Questions about photos that are there are answered.
    assert sent_to(kit, tmp_path, "POST", "/gradio_api/queue/join", limits, length=b"401")[0] == 200


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
        ({"host": b"127.0.0.1:1", "x_forwarded_host": b"vitrail.example", "origin": b"https://vitrail.example"}, 200),
        ({"host": b"VITRAIL.example.", "origin": b"https://vitrail.example."}, 200),
        ({"host": b"[::1]:7860", "origin": b"http://[::1]:7860"}, 200),
        # Another name that leads here, by which a page elsewhere reads what is answered.
        ({"host": b"evil.example:7860", "origin": b"http://evil.example:7860"}, 421),
        ({"host": b"evil.example"}, 421),
        ({"host": b"localhost.evil.example"}, 421),
        ({"host": b"192.168.1.5:7860"}, 421),
        ({"host": b"127.0.0.1:1", "x_forwarded_host": b"evil.example", "origin": b"https://evil.example"}, 421),
        ({"host": b"127.0.0.1:1", "x_forwarded_host": b"vitrail.example, evil.example"}, 421),
        ({"host": b""}, 400),
        ({"host": b"[::1"}, 400),
        ({"host": b"[x]"}, 400),
        ({"host": b"localhost:99999"}, 400),
        ({"host": b"localhost:x"}, 400),
        ({"host": b"localhost@evil"}, 400),
        ({"host": b"local host"}, 400),
        ({"host": b"\xff"}, 400),
        ({"host": b"localhost", "x_forwarded_host": b"a:b"}, 400),
        ({"host": b"localhost", "x_forwarded_host": b"["}, 400),
        ({"host": b"localhost:7860", "origin": b"http://["}, 403),
        ({"host": b"localhost:7860", "origin": b"http://[::1"}, 403),
        ({"host": b"localhost:7860", "origin": b"http://[x]:1"}, 403),
        ({"host": b"localhost:7860", "origin": b"\xff"}, 403),
        ({"host": b"localhost:7860", "origin": b""}, 403),
        ({"host": b"localhost:7860", "origin": b"http://localhost:7860@evil.example"}, 403),
        ({"host": b"localhost:7860", "origin": b"http://evil.example"}, 403),
        ({"host": b"localhost:7860", "origin": b"http://localhost:8000"}, 403),
        ({"host": b"localhost:7860", "origin": b"null"}, 403),
        ({"origin": b"http://evil.example"}, 403),
    ],
)
@pytest.mark.parametrize(("method", "path"), [("POST", "/gradio_api/upload"), ("GET", "/gradio_api/info")])
def test_no_other_page_asks_through_a_visitors_browser(method, path, fields, code, tmp_path):
    kit = Kit()
    found, text, _ = sent_to(kit, tmp_path, method, path, **fields)
    assert (found, kit.reached) == (code, code == 200)
    assert code == 200 or text.endswith("\n")


@pytest.mark.parametrize("query", [b"session_hash=" + b"x" * 65, b"session_hash=%00", b"session_hash=a%2Fb", b"upload_id=%FF"])
def test_bad_names_behind_an_address_are_refused(query, tmp_path):
    kit = Kit()
    code, text, _ = sent_to(kit, tmp_path, "GET", "/gradio_api/upload_progress", query=query)
    assert (code, kit.reached) == (400, 0)
    assert "session_hash and upload_id of at most 64 letters" in text


def test_nothing_else_behind_an_address_is_passed_on(tmp_path):
    class Kept(Kit):
        async def __call__(self, scope, receive, send) -> None:
            self.query = scope["query_string"]
            await super().__call__(scope, receive, send)

    kit = Kept()
    sent_to(kit, tmp_path, "GET", "/", query=b"page=x&deep_link=%00&upload_id=abc&" + b"a=1&" * 2000)
    assert kit.query == b"upload_id=abc"


@pytest.mark.parametrize(
    ("path", "code", "words"),
    [
        ("/gradio_api/call/explain/nope", 404, "no such question"),
        ("/gradio_api/call/v2/explain/nope", 404, "no such question"),
        ("/gradio_api/call/explain/abc", 200, "kit"),
    ],
)
def test_an_answer_that_there_is_not_is_told(path, code, words, tmp_path):
    found, text, _ = sent_to(Kit(), tmp_path, "GET", path)
    assert found == code
    assert words in text


def test_who_fetches_answers_tells_whose(tmp_path):
    code, text, _ = sent_to(Kit(), tmp_path, "GET", "/gradio_api/queue/data", query=b"x=1")
    assert (code, "expected a session_hash" in text) == (400, True)


@pytest.mark.parametrize("fields", [{"content_length": b"5"}, {"transfer_encoding": b"chunked"}, {"content_length": b"-1"}])
def test_only_posts_have_content(fields, tmp_path):
    kit = Kit()
    code, text, _ = sent_to(kit, tmp_path, "GET", "/", **fields)
    assert (code, kit.reached) == (400, 0)
    assert "without content" in text


class Failing(Kit):
    """Fails, before or after it began to answer."""

    def __init__(self, error, kind=None) -> None:
        super().__init__()
        self.error, self.kind = error, kind

    async def __call__(self, scope, receive, send) -> None:
        if self.kind:
            await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", self.kind)]})
        raise self.error


@pytest.mark.parametrize("error", [KeyError(None), AttributeError("filename"), ValueError("boundary"), LookupError("utf-99")])
def test_a_malformed_form_is_told(error, tmp_path, caplog):
    code, text, _ = sent_to(Failing(error), tmp_path, "POST", "/gradio_api/upload")
    assert (code, "expected a form with files" in text) == (400, True)
    assert not caplog.records


def test_what_fails_in_the_kit_is_told_and_logged(tmp_path, caplog):
    code, text, _ = sent_to(Failing(RuntimeError("inside")), tmp_path, "GET", "/config")
    assert (code, "inside" in text) == (500, False)
    assert "GET /config" in caplog.text


def test_a_stream_that_breaks_off_ends_quietly(tmp_path, caplog):
    kit = Failing(RuntimeError("gone"), b"text/event-stream; charset=utf-8")
    assert sent_to(kit, tmp_path, "GET", "/gradio_api/queue/data")[0] == 200
    assert not caplog.records
    with pytest.raises(RuntimeError):  # Half a file must not look like a whole one.
        sent_to(Failing(RuntimeError("gone"), b"image/png"), tmp_path, "GET", "/gradio_api/file=/tmp/a.png")


class Reader(Kit):
    """Reads what it is sent, as the kit does."""

    async def __call__(self, scope, receive, send) -> None:
        self.message, self.fields = await receive(), dict(scope["headers"])
        await super().__call__(scope, receive, send)


def test_the_kit_gets_the_question_whole(tmp_path):
    kit = Reader()
    body = '{"data": ["\u00e9", {"a": [1.5]}], "fn_index": 0, "session_hash": "abc", "trigger_id": 4, "batched": true}'.encode()
    assert (
        sent_to(kit, tmp_path, "POST", "/gradio_api/queue/join", body=body, content_type=b"text/plain; charset=utf-99")[0]
        == 200
    )
    told = json.loads(kit.message["body"])
    # Nothing but what was checked.
    kept = {"data": ["\u00e9", {"a": [1.5]}], "fn_index": 0, "session_hash": "abc", "trigger_id": 4, "event_data": None}
    assert told == kept
    assert kit.fields[b"content-length"] == str(len(kit.message["body"])).encode()
    assert kit.fields[b"content-type"] == b"application/json"


@pytest.mark.parametrize("path", ["/gradio_api/upload", "/gradio_api/queue/join"])
def test_who_sends_nothing_takes_no_room_for_long(path, tmp_path, monkeypatch):
    monkeypatch.setattr("vitrail.app.receiving.PATIENCE", 0.2)
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
    sent_to(kit, tmp_path, "GET", "/gradio_api/file=/tmp/a.png", range=b"bytes=0-0,1-1")
    assert b"range" not in kit.names
    sent_to(kit, tmp_path, "GET", "/gradio_api/file=/tmp/a.png", range=b"bytes=0-1")
    assert b"range" in kit.names
