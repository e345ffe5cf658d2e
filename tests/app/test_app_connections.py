"""Connections of visitors who do not ask, or do not read, over the wire."""

import socket
import threading
import time
from contextlib import contextmanager

import pytest

from serving import free_port

uvicorn = pytest.importorskip("uvicorn", reason="comes with the extra app")
resource = pytest.importorskip("resource", reason="not on this system")

from vitrail.app import connections  # noqa: E402 (needs uvicorn)

PAGE = b"GET / HTTP/1.1\r\nHost: localhost\r\n"
HEARTBEAT = b"GET /gradio_api/heartbeat/a HTTP/1.1\r\nHost: localhost\r\n\r\n"


async def app(scope, receive, send):
    """A page, a page's heartbeat, and a large file."""
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
def served(monkeypatch, most=5):
    monkeypatch.setattr(connections, "MOST", most)
    monkeypatch.setattr(connections, "SECONDS_TO_ASK", 0.5)
    monkeypatch.setattr(connections, "SECONDS_TO_READ", 0.5)
    port = free_port()
    server = uvicorn.Server(uvicorn.Config(app, port=port, log_level="error", lifespan="off", timeout_graceful_shutdown=1))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    connections.limit_connections(server.config)
    opened = []

    def opened_with(sent):
        one = socket.create_connection(("127.0.0.1", port), timeout=5)
        opened.append(one)
        one.sendall(sent)
        return one

    try:
        yield opened_with
    finally:
        for one in opened:
            one.close()
        server.should_exit = server.force_exit = True
        thread.join(5)


def answer(one):
    """Everything that comes until the other side closes; b"" where it says nothing."""
    got = b""
    try:
        while piece := one.recv(65536):
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
        # ExplainResult, but the rest of what was announced never comes.
        PAGE.replace(b"GET", b"POST") + b"Content-Length: 1000\r\n\r\nx",
        # The second request on a connection.
        PAGE + b"\r\n" + PAGE + b"X: ",
    ],
)
def test_who_never_finishes_is_let_go_however_steadily_it_drips(start, monkeypatch):
    with served(monkeypatch) as opened_with:
        one, begun = opened_with(start), time.monotonic()
        one.settimeout(0.05)
        while time.monotonic() - begun < 4:
            try:
                if start:
                    one.send(b"x")
                if one.recv(1000) == b"":
                    break
            except TimeoutError:
                continue
            except OSError:
                break
        assert 0.3 < time.monotonic() - begun < 3


def test_who_reads_nothing_is_let_go(monkeypatch):
    with served(monkeypatch) as opened_with:
        one = opened_with(b"GET /large HTTP/1.1\r\nHost: localhost\r\n\r\n")
        time.sleep(1.5)
        assert len(answer(one)) < 10_000_000


@pytest.mark.parametrize("start", [b"", PAGE + b"X: ", HEARTBEAT])
def test_who_asks_is_answered_however_many_do_not(start, monkeypatch):
    with served(monkeypatch) as opened_with:
        monkeypatch.setattr(connections, "SECONDS_TO_ASK", 60.0)
        for _ in range(4):
            for _ in range(6):
                opened_with(start)
            assert b"page" in answer(opened_with(PAGE + b"Connection: close\r\n\r\n"))


@pytest.mark.parametrize(("files", "most"), [(None, 1000), (10**6, 1000), (4096, 1000), (1024, 462), (256, 78), (64, 1)])
def test_there_are_fewer_connections_than_files(files, most):
    assert connections.num_connections(files) == most


def test_more_files_may_be_open_where_the_system_allows_it(monkeypatch):
    limits = {"now": (256, 2048)}
    monkeypatch.setattr(resource, "getrlimit", lambda _: limits["now"])
    monkeypatch.setattr(resource, "setrlimit", lambda _, new: limits.update(now=new))
    assert connections.open_files() == 2048
    assert limits["now"] == (2048, 2048)
    limits["now"] = (9000, 9000)
    assert connections.open_files() == 9000
