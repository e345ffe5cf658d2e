"""Which requests reach Gradio, and how large they may be."""

import asyncio

import pytest

from vitrail.app.limits import MEGABYTE, Limits

pytest.importorskip("starlette", reason="comes with the extra app")

from fake_gradio import FakeGradio, ReadingGradio, add_middleware, request, send_request

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
ALLOWED = [
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


@pytest.mark.parametrize(("method", "path"), REFUSED)
def test_other_requests_never_reach_gradio(method, path, tmp_path):
    gradio = FakeGradio()
    code, text, headers = request(gradio, tmp_path, method, path)
    assert (code, gradio.num_requests) == (404, 0)
    assert "there is nothing under this address" in text
    assert b"default-src 'self'" in headers[b"content-security-policy"]


@pytest.mark.parametrize(("method", "path"), ALLOWED)
def test_requests_of_the_page_reach_gradio(method, path, tmp_path):
    gradio = FakeGradio()
    code, text, headers = request(gradio, tmp_path, method, path)
    assert (code, text, gradio.num_requests) == (200, "gradio", 1)
    assert headers[b"x-content-type-options"] == b"nosniff"


def test_web_sockets_are_closed(tmp_path):
    sent, gradio = [], FakeGradio()

    async def send(message):
        sent.append(message)

    asyncio.run(add_middleware(gradio, tmp_path)({"type": "websocket", "path": "/"}, None, send))
    assert [message["type"] for message in sent] == ["websocket.close"]
    assert gradio.num_requests == 0


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
def test_bodies_of_unknown_length_are_refused(path, fields, tmp_path):
    gradio = FakeGradio()
    code, text, _ = request(gradio, tmp_path, "POST", path, **fields)
    assert (code, gradio.num_requests) == (411, 0)
    assert "expected a content-length" in text


@pytest.mark.parametrize(
    ("path", "max_length", "size"),
    [("/gradio_api/upload", 3 * MEGABYTE, "3 MB"), ("/gradio_api/queue/join", MEGABYTE // 4, "0.25 MB")],
)
def test_large_bodies_are_refused(path, max_length, size, tmp_path):
    limits, gradio = Limits(num_bytes=2 * MEGABYTE), FakeGradio()
    assert request(gradio, tmp_path, "POST", path, limits, length=b"%d" % max_length)[0] == 200
    for length in (b"%d" % (max_length + 1), b"9" * 5000):
        code, text, _ = request(gradio, tmp_path, "POST", path, limits, length=length)
        assert code == 413
        assert f"expected at most {size}" in text
    assert gradio.num_requests == 1


def test_photos_are_refused_when_all_files_are_too_large(tmp_path):
    limits, gradio = Limits(num_stored=1000), FakeGradio()
    # Downloads count, too.
    for folder, size in (("uploads", 400), ("downloads", 200)):
        (tmp_path / folder / "abc").mkdir(parents=True)
        (tmp_path / folder / "abc" / "photo.png").write_bytes(b"\0" * size)
    assert request(gradio, tmp_path, "POST", "/gradio_api/upload", limits, length=b"400")[0] == 200
    code, text, _ = request(gradio, tmp_path, "POST", "/gradio_api/upload", limits, length=b"401")
    assert (code, gradio.num_requests) == (507, 1)
    assert "no room for more photos" in text
    # Other requests are still accepted.
    assert request(gradio, tmp_path, "POST", "/gradio_api/queue/join", limits, length=b"401")[0] == 200


def test_batches_of_photos_need_one_size(tmp_path):
    gradio = FakeGradio(pause=0.2)

    async def several():
        app = add_middleware(gradio, tmp_path, Limits(num_stored=1000))
        first = await asyncio.gather(*(send_request(app, "POST", "/gradio_api/upload", b"300") for _ in range(5)))
        return [response[0] for response in first], await send_request(app, "POST", "/gradio_api/upload", b"300")

    codes, later = asyncio.run(several())
    assert sorted(codes) == [200, 200, 200, 507, 507]
    assert later[0] == 200


@pytest.mark.parametrize("path", ["/gradio_api/upload", "/gradio_api/queue/join"])
def test_stalled_bodies_time_out(path, tmp_path, monkeypatch):
    monkeypatch.setattr("vitrail.app.request_bodies.STALL_SECONDS", 0.2)
    gradio = ReadingGradio()

    async def several():
        app = add_middleware(gradio, tmp_path, Limits(num_stored=1000))
        slow = await send_request(app, "POST", path, b"900", body=None)
        return slow, await send_request(app, "POST", path, b"900")

    (code, text, _), after = asyncio.run(several())
    assert code == 408
    assert "nothing for too long" in text
    assert after[0] == 200
