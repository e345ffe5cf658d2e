"""Connections of clients that send no request or read no response."""

import logging
import socket
import threading
import time
from contextlib import contextmanager

import pytest
from server_process import find_free_port

uvicorn = pytest.importorskip("uvicorn", reason="comes with the extra app")
resource = pytest.importorskip("resource", reason="not on this system")

from vitrail.app import connections  # noqa: E402 (needs uvicorn)

PAGE = b"GET / HTTP/1.1\r\nHost: localhost\r\n"
HEARTBEAT = b"GET /gradio_api/heartbeat/a HTTP/1.1\r\nHost: localhost\r\n\r\n"


async def app(scope, receive, send):
    """Serve a page, its heartbeat, and a large file."""
    if scope["type"] != "http":
        return
    size = 10_000_000 if scope["path"] == "/large" else 4
    await send({"type": "http.response.start", "status": 200, "headers": []})
    if "heartbeat" in scope["path"]:
        await send({"type": "http.response.body", "body": b"ALIVE", "more_body": True})
        while (await receive())["type"] != "http.disconnect":
            pass
        return
    await send({"type": "http.response.body", "body": b"page"[:size] * (size // 4)})


@contextmanager
def start_server(monkeypatch, max_connections=5):
    monkeypatch.setattr(connections, "MAX_CONNECTIONS", max_connections)
    monkeypatch.setattr(connections, "REQUEST_SECONDS", 0.5)
    monkeypatch.setattr(connections, "RESPONSE_SECONDS", 0.5)
    port = find_free_port()
    server = uvicorn.Server(uvicorn.Config(app, port=port, log_level="error", lifespan="off", timeout_graceful_shutdown=1))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    connections.limit_connections(server.config)
    opened = []

    def connect(sent):
        connection = socket.create_connection(("127.0.0.1", port), timeout=5)
        opened.append(connection)
        connection.sendall(sent)
        return connection

    try:
        yield connect
    finally:
        for connection in opened:
            connection.close()
        server.should_exit = server.force_exit = True
        thread.join(5)


def read_response(connection):
    """Read until the server closes the connection."""
    got = b""
    try:
        while piece := connection.recv(65536):
            got += piece
    except ConnectionResetError:
        pass
    return got


@pytest.mark.parametrize(
    "start",
    [
        b"",
        b"GET / HT",
        PAGE + b"X: ",
        # The rest of the body never arrives.
        PAGE.replace(b"GET", b"POST") + b"Content-Length: 1000\r\n\r\nx",
        # The second request on a connection.
        PAGE + b"\r\n" + PAGE + b"X: ",
    ],
)
def test_slow_requests_time_out(start, monkeypatch):
    with start_server(monkeypatch) as connect:
        connection, begun = connect(start), time.monotonic()
        connection.settimeout(0.05)
        while time.monotonic() - begun < 4:
            try:
                if start:
                    connection.send(b"x")
                if connection.recv(1000) == b"":
                    break
            except TimeoutError:
                continue
            except OSError:
                break
        assert 0.3 < time.monotonic() - begun < 3


def test_clients_that_read_nothing_are_disconnected(monkeypatch):
    with start_server(monkeypatch) as connect:
        connection = connect(b"GET /large HTTP/1.1\r\nHost: localhost\r\n\r\n")
        time.sleep(1.5)
        assert len(read_response(connection)) < 10_000_000


@pytest.mark.parametrize("start", [b"", PAGE + b"X: ", HEARTBEAT])
def test_idle_connections_make_room_for_requests(start, monkeypatch):
    with start_server(monkeypatch) as connect:
        monkeypatch.setattr(connections, "REQUEST_SECONDS", 60.0)
        for _ in range(4):
            for _ in range(6):
                connect(start)
            assert b"page" in read_response(connect(PAGE + b"Connection: close\r\n\r\n"))


@pytest.mark.parametrize(("files", "expected"), [(None, 1000), (10**6, 1000), (4096, 1000), (1024, 462), (256, 78), (64, 1)])
def test_connections_are_limited_by_open_files(files, expected):
    assert connections.compute_max_connections(files) == expected


def test_limit_of_open_files_is_raised(monkeypatch):
    limits = {"now": (256, 2048)}
    monkeypatch.setattr(resource, "getrlimit", lambda _: limits["now"])
    monkeypatch.setattr(resource, "setrlimit", lambda _, new: limits.update(now=new))
    assert connections.raise_file_limit() == 2048
    assert limits["now"] == (2048, 2048)
    limits["now"] = (9000, 9000)
    assert connections.raise_file_limit() == 9000


@pytest.mark.parametrize("path", ["/", "/gradio_api/heartbeat/a", "/large"])
@pytest.mark.parametrize("pause", [0.0, 0.3], ids=["at once", "when the answer has begun"])
@pytest.mark.parametrize("rest", [b"zz\r\n", b"5\r\nhellothere\r\n"], ids=["no length", "too long"])
def test_malformed_http_within_a_request_is_not_logged_as_an_error(monkeypatch, path, pause, rest):
    failures = list[logging.LogRecord]()
    handler = logging.Handler(logging.ERROR)
    handler.emit = failures.append
    with start_server(monkeypatch) as connect:
        for name in ("uvicorn.error", "asyncio"):
            logging.getLogger(name).addHandler(handler)
        try:
            begun = f"GET {path} HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
            connection = connect(begun if pause else begun + rest)
            if pause:
                time.sleep(pause)
                connection.sendall(rest)
            assert read_response(connection).startswith(b"HTTP/1.1 200" if pause else b"HTTP/1.1 400")
            assert connect(PAGE + b"\r\n").recv(100).startswith(b"HTTP/1.1 200")
        finally:
            for name in ("uvicorn.error", "asyncio"):
                logging.getLogger(name).removeHandler(handler)
    assert not [record.getMessage() for record in failures]
