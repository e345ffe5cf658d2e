"""Host names, origins, query parameters and bodies: what is refused, and what is passed on to Gradio."""

import json

import pytest

pytest.importorskip("starlette", reason="comes with the extra app")

from fake_gradio import FakeGradio, ReadingGradio, request


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({}, 200),
        ({"host": b"localhost:7860", "origin": b"http://localhost:7860"}, 200),
        ({"host": b"LOCALHOST:7860", "origin": b"http://localhost:7860"}, 200),
        ({"host": b"127.0.0.1:1", "x_forwarded_host": b"vitrail.example", "origin": b"https://vitrail.example"}, 200),
        ({"host": b"VITRAIL.example.", "origin": b"https://vitrail.example."}, 200),
        ({"host": b"[::1]:7860", "origin": b"http://[::1]:7860"}, 200),
        # DNS rebinding: a foreign name that points here.
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
def test_other_hosts_and_origins_are_refused(method, path, fields, code, tmp_path):
    gradio = FakeGradio()
    status, text, _ = request(gradio, tmp_path, method, path, **fields)
    assert (status, gradio.num_requests) == (code, code == 200)
    assert code == 200 or text.endswith("\n")


@pytest.mark.parametrize("query", [b"session_hash=" + b"x" * 65, b"session_hash=%00", b"session_hash=a%2Fb", b"upload_id=%FF"])
def test_bad_query_parameters_are_refused(query, tmp_path):
    gradio = FakeGradio()
    code, text, _ = request(gradio, tmp_path, "GET", "/gradio_api/upload_progress", query=query)
    assert (code, gradio.num_requests) == (400, 0)
    assert "session_hash and upload_id of at most 64 letters" in text


def test_other_query_parameters_are_removed(tmp_path):
    class Kept(FakeGradio):
        async def __call__(self, scope, receive, send) -> None:
            self.query = scope["query_string"]
            await super().__call__(scope, receive, send)

    gradio = Kept()
    request(gradio, tmp_path, "GET", "/", query=b"page=x&deep_link=%00&upload_id=abc&" + b"a=1&" * 2000)
    assert gradio.query == b"upload_id=abc"


@pytest.mark.parametrize(
    ("path", "code", "words"),
    [
        ("/gradio_api/call/explain/nope", 404, "no such event"),
        ("/gradio_api/call/v2/explain/nope", 404, "no such event"),
        ("/gradio_api/call/explain/abc", 200, "gradio"),
    ],
)
def test_unknown_events_are_refused(path, code, words, tmp_path):
    status, text, _ = request(FakeGradio(), tmp_path, "GET", path)
    assert status == code
    assert words in text


def test_fetching_needs_a_session(tmp_path):
    code, text, _ = request(FakeGradio(), tmp_path, "GET", "/gradio_api/queue/data", query=b"x=1")
    assert (code, "expected the query parameter session_hash" in text) == (400, True)


@pytest.mark.parametrize("fields", [{"content_length": b"5"}, {"transfer_encoding": b"chunked"}, {"content_length": b"-1"}])
def test_only_posts_have_content(fields, tmp_path):
    gradio = FakeGradio()
    code, text, _ = request(gradio, tmp_path, "GET", "/", **fields)
    assert (code, gradio.num_requests) == (400, 0)
    assert "without content" in text


class Failing(FakeGradio):
    """Fails before or after its response started."""

    def __init__(self, error, kind=None) -> None:
        super().__init__()
        self.error, self.kind = error, kind

    async def __call__(self, scope, receive, send) -> None:
        if self.kind:
            await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", self.kind)]})
        raise self.error


@pytest.mark.parametrize("error", [KeyError(None), AttributeError("filename"), ValueError("boundary"), LookupError("utf-99")])
def test_malformed_forms_are_refused(error, tmp_path, caplog):
    code, text, _ = request(Failing(error), tmp_path, "POST", "/gradio_api/upload")
    assert (code, "expected a form with files" in text) == (400, True)
    assert not caplog.records


def test_failures_of_gradio_are_reported_and_logged(tmp_path, caplog):
    code, text, _ = request(Failing(RuntimeError("inside")), tmp_path, "GET", "/config")
    assert (code, "inside" in text) == (500, False)
    assert "GET /config" in caplog.text


def test_interrupted_streams_end_without_an_error(tmp_path, caplog):
    gradio = Failing(RuntimeError("gone"), b"text/event-stream; charset=utf-8")
    assert request(gradio, tmp_path, "GET", "/gradio_api/queue/data")[0] == 200
    assert not caplog.records
    with pytest.raises(RuntimeError):  # A partial file must not look complete.
        request(Failing(RuntimeError("gone"), b"image/png"), tmp_path, "GET", "/gradio_api/file=/tmp/a.png")


def test_gradio_gets_the_checked_fields_only(tmp_path):
    gradio = ReadingGradio()
    body = '{"data": ["\u00e9", {"a": [1.5]}], "fn_index": 0, "session_hash": "abc", "trigger_id": 4, "batched": true}'.encode()
    assert (
        request(gradio, tmp_path, "POST", "/gradio_api/queue/join", body=body, content_type=b"text/plain; charset=utf-99")[0]
        == 200
    )
    body = json.loads(gradio.message["body"])
    expected = {"data": ["\u00e9", {"a": [1.5]}], "fn_index": 0, "session_hash": "abc", "trigger_id": 4, "event_data": None}
    assert body == expected
    assert gradio.fields[b"content-length"] == str(len(gradio.message["body"])).encode()
    assert gradio.fields[b"content-type"] == b"application/json"


def test_lists_of_ranges_are_removed(tmp_path):
    class Kept(FakeGradio):
        async def __call__(self, scope, receive, send) -> None:
            self.names = [name for name, _ in scope["headers"]]
            await super().__call__(scope, receive, send)

    gradio = Kept()
    request(gradio, tmp_path, "GET", "/gradio_api/file=/tmp/a.png", range=b"bytes=0-0,1-1")
    assert b"range" not in gradio.names
    request(gradio, tmp_path, "GET", "/gradio_api/file=/tmp/a.png", range=b"bytes=0-1")
    assert b"range" in gradio.names
