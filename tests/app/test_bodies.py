"""What is asked of the kit: by which page, under which name, and how the kit hears of it."""

import json

import pytest

pytest.importorskip("starlette", reason="comes with the extra app")

from behind import Kit, Reader, sent_to


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
