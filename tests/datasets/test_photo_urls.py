"""Photos from a server on this machine."""

import threading
import time
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO

import numpy as np
import pytest
from samples import noisy_photo

from vitrail.adapters import Preprocessing
from vitrail.core.errors import ImageError
from vitrail.datasets.photo_objects import open_photos
from vitrail.datasets.photo_urls import download_photo, is_url

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch):
    monkeypatch.setenv("no_proxy", "*")


@contextmanager
def serve(answer):
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            with suppress(OSError):
                answer(self)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/cat.png"
    finally:
        server.shutdown()
        server.server_close()


def send(content, status=200, **headers):
    def answer(handler):
        handler.send_response(status)
        for name, value in headers.items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(content)

    return answer


def encode(photo):
    buffer = BytesIO()
    photo.save(buffer, "png")
    return buffer.getvalue()


def test_a_url_is_a_photo_and_its_source():
    photo = noisy_photo(0)
    with serve(send(encode(photo))) as url:
        (opened,) = open_photos([url], Preprocessing((16, 16)))
    assert opened.source == url
    assert (np.asarray(opened.photo) == np.asarray(photo)).all()


def test_only_addresses_of_the_web_are_urls():
    assert is_url("https://example.org/cat.jpg")
    assert is_url("HTTP://example.org/cat.jpg")
    assert not is_url("https.jpg")
    assert not is_url("ftp://example.org/cat.jpg")
    assert not is_url("file:///etc/hosts")


def test_what_is_no_photo_is_refused():
    with serve(send(b"<html>")) as url, pytest.raises(ImageError, match="expected an image file"):
        list(open_photos(url, Preprocessing((16, 16))))


def test_a_server_that_refuses_is_named_with_its_answer():
    with (
        serve(send(b"", 404)) as url,
        pytest.raises(ImageError, match=f"cannot download {url}: the server answered 404 Not Found"),
    ):
        download_photo(url)


def test_a_file_that_is_too_large_is_not_read_to_its_end():
    sent = []

    def answer(handler):
        handler.send_response(200)
        handler.end_headers()
        for _ in range(1000):
            handler.wfile.write(bytes(100_000))
            sent.append(100_000)

    with serve(answer) as url, pytest.raises(ImageError, match=r"of at most 0\.2 MB, got a larger file"):
        download_photo(url, max_bytes=200_000)
    assert sum(sent) < 50_000_000


def test_a_slow_server_is_given_up():
    def answer(handler):
        handler.send_response(200)
        handler.end_headers()
        for _ in range(100):
            handler.wfile.write(b"x")
            handler.wfile.flush()
            time.sleep(0.05)

    start = time.monotonic()
    with serve(answer) as url, pytest.raises(ImageError, match=r"within 0\.2 seconds"):
        download_photo(url, max_seconds=0.2)
    assert time.monotonic() - start < 4


def test_a_silent_server_is_given_up():
    with serve(lambda handler: time.sleep(1)) as url, pytest.raises(ImageError, match="timed out"):
        download_photo(url, max_seconds=0.2)


def test_redirects_stay_on_the_web(tmp_path):
    secret = tmp_path / "secret.png"
    noisy_photo(0).save(secret)
    for location in (secret.as_uri(), "ftp://127.0.0.1/cat.png"):
        with serve(send(b"", 302, Location=location)) as url, pytest.raises(ImageError, match="cannot download"):
            download_photo(url)


def test_redirects_are_followed():
    photo = encode(noisy_photo(0))

    def answer(handler):
        send(b"", 302, Location="/other.png")(handler) if handler.path == "/cat.png" else send(photo)(handler)

    with serve(answer) as url:
        assert download_photo(url) == photo


@pytest.mark.parametrize("url", ["http://", "http://127.0.0.1:1/cat.png", "http://[/cat.png", "http://127.0.0.1:x/"])
def test_urls_that_lead_nowhere_are_refused(url):
    with pytest.raises(ImageError):
        download_photo(url, max_seconds=2.0)
