"""The endpoints and the server, over HTTP."""

import signal
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from app_requests import draw_bird, explain_bird
from server_process import find_free_port, start_server

from vitrail.adapters import build, save
from vitrail.app.server import serving
from vitrail.core.errors import VitrailError

pytest_plugins = ("tiny",)

gradio_client = pytest.importorskip("gradio_client", reason="needs the extra app")


@pytest.fixture(scope="module")
def client(server):
    return gradio_client.Client(server.url, verbose=False)


@pytest.fixture
def bird_file(tmp_path):
    draw_bird().save(tmp_path / "bird.png")
    return tmp_path / "bird.png"


@pytest.fixture
def slow_model_file(tmp_path):
    """A model for which RISE takes minutes."""
    save(build("timm:vit_small_patch8_224", num_classes=2), tmp_path / "slow.safetensors")
    return tmp_path / "slow.safetensors"


def test_models_and_methods(client):
    assert client.predict(api_name="/models") == ["vitrail:hit-cifar10", "vitrail:vit-birds", "vitrail:intr-birds"]
    offered = client.predict(model="vitrail:intr-birds", api_name="/methods")
    assert offered["methods"][0] == "intr"
    assert len(offered["classes"]) == 9


def test_explain_returns_raw_relevance(client, bird_file):
    result = client.predict(
        photo=gradio_client.handle_file(bird_file),
        model="vitrail:vit-birds",
        methods=["rollout", "diffmask"],
        target="0",
        api_name="/explain",
    )
    expected = explain_bird("vit-birds", "rollout", "diffmask", target="0")
    assert result["target"] == expected.target
    for entry in result["maps"]:
        flat = [value for row in entry["relevance"] for value in row]
        assert flat == pytest.approx(expected.explanations[entry["method"]].relevance.flatten().tolist(), rel=1e-4, abs=1e-6)


def test_curves(client, bird_file):
    curves = client.predict(
        photo=gradio_client.handle_file(bird_file),
        model="vitrail:vit-birds",
        methods=["rollout"],
        protocol="tokens",
        api_name="/curves",
    )
    assert len(curves["rollout"]["fractions"]) == 21
    assert 0 <= curves["rollout"]["areas"]["insertion_removed"] <= 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": "timm:vit_tiny_patch16_224"}, "unknown model"),
        ({"model": "/etc/passwd"}, "unknown model"),
        ({"methods": ["nonsense"]}, "unknown method"),
        ({"target": "unicorn"}, "unknown class"),
        ({"photo": {"path": "/etc/passwd"}}, "expected an uploaded photo"),
    ],
)
def test_bad_requests_are_refused_with_a_message(client, bird_file, change, message):
    arguments = {"photo": gradio_client.handle_file(bird_file), "model": "vitrail:hit-cifar10", "methods": ["hit"], **change}
    with pytest.raises(Exception, match=f"(?i){message}") as caught:
        client.predict(**arguments, api_name="/explain")
    assert "Traceback" not in str(caught.value)
    assert "root:" not in str(caught.value)


@pytest.mark.parametrize("fields", [{}, {"meta": {"_type": "gradio.FileData"}}])
def test_no_file_of_the_server_is_opened(server, bird_file, fields):
    """A client that is not `gradio_client`, which would upload the file."""
    httpx = pytest.importorskip("httpx", reason="comes with the extra app")
    call = f"{server.url.rstrip('/')}/gradio_api/call/explain"
    body = {"data": [{"path": str(bird_file), **fields}, "vitrail:hit-cifar10", ["hit"], None]}
    event = httpx.post(call, json=body, timeout=60).json()["event_id"]
    assert httpx.get(f"{call}/{event}", timeout=60).text.startswith("event: error")
    assert httpx.get(f"{server.url.rstrip('/')}/gradio_api/file={bird_file}", timeout=60).status_code == 403


def test_no_address_is_fetched(server, client):
    with socket.socket() as trap:
        trap.bind(("127.0.0.1", 0))
        trap.listen()
        trap.settimeout(0.5)
        address = f"http://127.0.0.1:{trap.getsockname()[1]}/photo.png"
        photo = {"path": address, "url": address, "meta": {"_type": "gradio.FileData"}}
        with pytest.raises(Exception, match=r"(?i)address|path|uploaded"):
            client.predict(photo=photo, model="vitrail:hit-cifar10", methods=["hit"], api_name="/explain")
        httpx = pytest.importorskip("httpx", reason="comes with the extra app")
        for form in (address, address.upper(), address.replace(":", "%253A"), address.removeprefix("http:")):
            response = httpx.get(f"{server.url.rstrip('/')}/gradio_api/file={form}", timeout=60)
            assert (response.status_code, "nothing under this address" in response.text) == (404, True)
        with pytest.raises(TimeoutError):
            trap.accept()


def test_calls_cannot_skip_the_queue(server, client):
    httpx = pytest.importorskip("httpx", reason="comes with the extra app")
    base = f"{server.url.rstrip('/')}/gradio_api"
    data = [{"path": "x"}, "vitrail:hit-cifar10", ["hit"], None]
    assert httpx.post(f"{base}/run/explain", json={"data": data}, timeout=60).status_code == 404
    # Direct calls by the page are not possible for functions that wait in the queue.
    numbers = [one["id"] for one in client.config["dependencies"] if one["api_name"] == "explain"]
    response = httpx.post(f"{base}/run/predict", json={"data": data, "fn_index": numbers[0]}, timeout=60)
    assert response.status_code == 404
    assert "join the queue" in response.text


def test_uploads_have_a_limit_as_a_whole(server):
    httpx = pytest.importorskip("httpx", reason="comes with the extra app")
    url = f"{server.url.rstrip('/')}/gradio_api/upload"
    several = [("files", (f"{index}.png", b"\0" * 1_000_000)) for index in range(4)]
    assert httpx.post(url, files=several[:2], timeout=60).status_code == 200
    response = httpx.post(url, files=several, timeout=60)
    assert (response.status_code, "expected at most 3 MB" in response.text) == (413, True)

    def pieces():
        yield b"\0"

    assert httpx.post(url, content=pieces(), timeout=60).status_code == 411


@pytest.mark.slow
def test_concurrent_clients_get_their_own_results(server, tmp_path):
    requests = [(index, target) for index in range(1, 4) for target in (0, 1)] * 2
    for index in range(1, 4):
        draw_bird(index).save(tmp_path / f"{index}.png")

    def send(request):
        index, target = request
        return gradio_client.Client(server.url, verbose=False).predict(
            photo=gradio_client.handle_file(tmp_path / f"{index}.png"),
            model="vitrail:vit-birds",
            methods=["chefer"],
            target=str(target),
            api_name="/explain",
        )

    with ThreadPoolExecutor(6) as pool:
        results = list(pool.map(send, requests))
    for (index, target), result in zip(requests, results, strict=True):
        expected = explain_bird("vit-birds", "chefer", target=str(target), index=index).explanations["chefer"]
        flat = [value for row in result["maps"][0]["relevance"] for value in row]
        assert flat == pytest.approx(expected.relevance.flatten().tolist(), rel=1e-3, abs=1e-6)


@pytest.mark.slow
def test_temporary_files_are_removed_and_a_taken_port_is_reported(tmp_path, bird_file, run_vitrail):
    with start_server(tmp_path, "--model", "vitrail:hit-cifar10", "--max-waiting", "1") as running:
        client = gradio_client.Client(running.url, verbose=False)
        client.predict(photo=gradio_client.handle_file(bird_file), api_name="/explain")
        assert list(tmp_path.glob("vitrail-serve-*/uploads/*/*.png"))
        port = running.url.rstrip("/").rpartition(":")[2]
        code, _, error = run_vitrail("serve", "--port", port, "--model", "vitrail:hit-cifar10")
        assert code == 2
        assert "choose another --port" in error
        listening = Path("/proc/net/tcp")
        if listening.exists():  # The server listens on the loopback only.
            addresses = [line.split()[1] for line in listening.read_text().splitlines()[1:] if line.split()[3] == "0A"]
            assert [address for address in addresses if address.endswith(f":{int(port):04X}")] == [f"0100007F:{int(port):04X}"]
        running.process.send_signal(signal.SIGINT)
        running.process.wait(30)
    assert not list(tmp_path.glob("vitrail-serve-*"))
    assert "Traceback" not in "".join(running.lines)


@pytest.mark.slow
def test_requests_beyond_the_queue_are_refused(tmp_path, bird_file):
    with start_server(tmp_path, "--model", "vitrail:vit-birds", "--max-waiting", "1") as running:
        clients = [gradio_client.Client(running.url, verbose=False) for _ in range(10)]

        def send(client):
            try:
                return client.predict(photo=gradio_client.handle_file(bird_file), methods=["rise"], api_name="/explain")
            except Exception as error:  # noqa: BLE001 (checked below)
                return error

        with ThreadPoolExecutor(len(clients)) as pool:
            results = list(pool.map(send, clients))
        refused = [str(result) for result in results if isinstance(result, Exception)]
        assert 0 < len(refused) < len(clients)
        assert all("full" in message and "Traceback" not in message for message in refused)
        assert send(clients[0])["maps"]  # The server still works.


@pytest.mark.slow
def test_sigterm_stops_it_cleanly(tmp_path):
    with start_server(tmp_path, "--model", "vitrail:hit-cifar10") as running:
        running.process.send_signal(signal.SIGTERM)
        running.process.wait(30)
    assert not list(tmp_path.glob("vitrail-serve-*"))
    assert "Traceback" not in "".join(running.lines)


@pytest.mark.slow
def test_it_stops_soon_while_it_works(tmp_path, slow_model_file, bird_file):
    httpx = pytest.importorskip("httpx", reason="comes with the extra app")
    photo = bird_file.read_bytes()
    with start_server(tmp_path, "--model", str(slow_model_file)) as running:
        base = f"{running.url.rstrip('/')}/gradio_api"
        [path] = httpx.post(f"{base}/upload", files={"files": ("bird.png", photo)}, timeout=60).json()
        data = [{"path": path, "meta": {"_type": "gradio.FileData"}}, slow_model_file.name, ["rise"], None]
        events = [httpx.post(f"{base}/call/explain", json={"data": data}, timeout=60).json()["event_id"] for _ in range(3)]
        # No response yet: it is being worked on.
        with pytest.raises(httpx.ReadTimeout):
            httpx.get(f"{base}/call/explain/{events[0]}", timeout=4)
        start = time.monotonic()
        running.process.send_signal(signal.SIGTERM)
        time.sleep(0.3)
        running.process.send_signal(signal.SIGINT)  # Further signals change nothing.
        running.process.send_signal(signal.SIGTERM)
        assert running.process.wait(30) == 143
        assert time.monotonic() - start < 10
    assert not list(tmp_path.glob("vitrail-serve-*"))
    output = "".join(running.lines)
    assert "Traceback" not in output
    assert output.endswith("stopped\n")


@pytest.mark.slow
def test_it_serves_behind_a_proxy(tmp_path, monkeypatch):
    httpx = pytest.importorskip("httpx", reason="comes with the extra app")
    for name in ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    with start_server(tmp_path, "--model", "vitrail:hit-cifar10") as running, httpx.Client(trust_env=False) as direct:
        assert direct.get(running.url, timeout=60).status_code == 200


def test_failed_launch_is_reported(monkeypatch):
    gr = pytest.importorskip("gradio", reason="needs the extra app")

    def refuse(*_, **__):
        raise ValueError("localhost is not accessible")

    monkeypatch.setattr(gr.Blocks, "launch", refuse)
    raised = pytest.raises(VitrailError, match=r"cannot serve on 127.0.0.1.*localhost is not accessible.*--host")
    with raised, serving(["vitrail:hit-cifar10"], port=find_free_port()):
        pass


def test_bad_arguments_are_reported(run_vitrail):
    code, _, error = run_vitrail("serve", "--model", "vitrail:nonsense")
    assert code == 2
    assert "unknown bundled model" in error
    assert run_vitrail("serve", "--model", "a,,b")[0] == 2
    code, _, error = run_vitrail("serve", "--model", "vitrail:hit-cifar10", "--allow-host", "http://a")
    assert code == 2
    assert "expected a host name or an IP address for --allow-host, got 'http://a'" in " ".join(error.split())


@pytest.mark.parametrize(
    ("second", "message"),
    [
        ("vitrail:nonsense", "unknown bundled model 'nonsense'"),
        ("/no/such/file", "no such model: '/no/such/file'"),
        ("nonsense:hit", "unknown source of models 'nonsense'"),
    ],
)
def test_unknown_models_are_reported_at_the_start(run_vitrail, second, message):
    code, _, error = run_vitrail("serve", "--model", f"vitrail:hit-cifar10,{second}")
    assert code == 2
    assert message in error
