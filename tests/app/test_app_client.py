"""The functions for programs, and the server's manners, over the wire."""

import signal
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from asked import ask, bird

from serving import free_port, served
from vitrail.adapters import build, save
from vitrail.app.server import serving
from vitrail.core.errors import VitrailError

pytest_plugins = ("tiny",)

gradio_client = pytest.importorskip("gradio_client", reason="needs the extra app")


@pytest.fixture(scope="module")
def client(server):
    return gradio_client.Client(server.url, verbose=False)


@pytest.fixture
def feathers(tmp_path):
    bird().save(tmp_path / "bird.png")
    return tmp_path / "bird.png"


@pytest.fixture
def slow_model_file(tmp_path):
    """A network that RISE needs minutes for."""
    save(build("timm:vit_small_patch8_224", num_classes=2), tmp_path / "slow.safetensors")
    return tmp_path / "slow.safetensors"


def test_models_and_methods(client):
    assert client.predict(api_name="/models") == ["vitrail:hit-cifar10", "vitrail:vit-birds", "vitrail:intr-birds"]
    offered = client.predict(model="vitrail:intr-birds", api_name="/methods")
    assert offered["methods"][0] == "intr"
    assert len(offered["classes"]) == 9


def test_explain_gives_the_raw_numbers(client, feathers):
    found = client.predict(
        photo=gradio_client.handle_file(feathers),
        model="vitrail:vit-birds",
        methods=["rollout", "diffmask"],
        target="0",
        api_name="/explain",
    )
    expected = ask("vit-birds", "rollout", "diffmask", target="0")
    assert found["target"] == expected.target
    for entry in found["maps"]:
        flat = [value for row in entry["relevance"] for value in row]
        assert flat == pytest.approx(expected.explanations[entry["method"]].relevance.flatten().tolist(), rel=1e-4, abs=1e-6)


def test_curves(client, feathers):
    found = client.predict(
        photo=gradio_client.handle_file(feathers),
        model="vitrail:vit-birds",
        methods=["rollout"],
        protocol="tokens",
        api_name="/curves",
    )
    assert len(found["rollout"]["fractions"]) == 21
    assert 0 <= found["rollout"]["areas"]["insertion_removed"] <= 1


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"model": "timm:vit_tiny_patch16_224"}, "unknown model"),
        ({"model": "/etc/passwd"}, "unknown model"),
        ({"methods": ["nonsense"]}, "unknown method"),
        ({"target": "unicorn"}, "unknown class"),
        ({"photo": {"path": "/etc/passwd"}}, "expected an uploaded photo"),
    ],
)
def test_bad_questions_are_told_in_a_sentence(client, feathers, change, words):
    asked = {"photo": gradio_client.handle_file(feathers), "model": "vitrail:hit-cifar10", "methods": ["hit"], **change}
    with pytest.raises(Exception, match=f"(?i){words}") as caught:
        client.predict(**asked, api_name="/explain")
    assert "Traceback" not in str(caught.value)
    assert "root:" not in str(caught.value)


@pytest.mark.parametrize("told", [{}, {"meta": {"_type": "gradio.FileData"}}])
def test_no_file_of_the_server_is_opened(server, feathers, told):
    """As a visitor asks who does not use the client, which would upload the file."""
    httpx = pytest.importorskip("httpx", reason="comes with the extra app")
    call = f"{server.url.rstrip('/')}/gradio_api/call/explain"
    asked = {"data": [{"path": str(feathers), **told}, "vitrail:hit-cifar10", ["hit"], None]}
    event = httpx.post(call, json=asked, timeout=60).json()["event_id"]
    assert httpx.get(f"{call}/{event}", timeout=60).text.startswith("event: error")
    assert httpx.get(f"{server.url.rstrip('/')}/gradio_api/file={feathers}", timeout=60).status_code == 403


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
            found = httpx.get(f"{server.url.rstrip('/')}/gradio_api/file={form}", timeout=60)
            assert (found.status_code, "nothing under this address" in found.text) == (404, True)
        with pytest.raises(TimeoutError):
            trap.accept()


def test_nobody_skips_the_queue(server, client):
    httpx = pytest.importorskip("httpx", reason="comes with the extra app")
    base = f"{server.url.rstrip('/')}/gradio_api"
    data = [{"path": "x"}, "vitrail:hit-cifar10", ["hit"], None]
    assert httpx.post(f"{base}/run/explain", json={"data": data}, timeout=60).status_code == 404
    # The page's own way for what need not wait takes no function that does.
    numbers = [one["id"] for one in client.config["dependencies"] if one["api_name"] == "explain"]
    found = httpx.post(f"{base}/run/predict", json={"data": data, "fn_index": numbers[0]}, timeout=60)
    assert found.status_code == 404
    assert "join the queue" in found.text


def test_uploads_have_a_limit_as_a_whole(server):
    httpx = pytest.importorskip("httpx", reason="comes with the extra app")
    url = f"{server.url.rstrip('/')}/gradio_api/upload"
    several = [("files", (f"{index}.png", b"\0" * 1_000_000)) for index in range(4)]
    assert httpx.post(url, files=several[:2], timeout=60).status_code == 200
    found = httpx.post(url, files=several, timeout=60)
    assert (found.status_code, "expected at most 3 MB" in found.text) == (413, True)

    def pieces():
        yield b"\0"

    assert httpx.post(url, content=pieces(), timeout=60).status_code == 411


def test_many_clients_get_their_own_answers(server, tmp_path):
    questions = [(index, target) for index in range(1, 4) for target in (0, 1)] * 2
    for index in range(1, 4):
        bird(index).save(tmp_path / f"{index}.png")

    def answered(question):
        index, target = question
        return gradio_client.Client(server.url, verbose=False).predict(
            photo=gradio_client.handle_file(tmp_path / f"{index}.png"),
            model="vitrail:vit-birds",
            methods=["chefer"],
            target=str(target),
            api_name="/explain",
        )

    with ThreadPoolExecutor(6) as pool:
        found = list(pool.map(answered, questions))
    for (index, target), one in zip(questions, found, strict=True):
        expected = ask("vit-birds", "chefer", target=str(target), index=index).explanations["chefer"]
        flat = [value for row in one["maps"][0]["relevance"] for value in row]
        assert flat == pytest.approx(expected.relevance.flatten().tolist(), rel=1e-3, abs=1e-6)


@pytest.mark.slow
def test_temporary_files_are_gone_after_the_end_and_a_taken_port_is_told(tmp_path, feathers, run_vitrail):
    with served(tmp_path, "--model", "vitrail:hit-cifar10", "--max-waiting", "1") as running:
        one = gradio_client.Client(running.url, verbose=False)
        one.predict(photo=gradio_client.handle_file(feathers), api_name="/explain")
        assert list(tmp_path.glob("vitrail-serve-*/uploads/*/*.png"))
        port = running.url.rstrip("/").rpartition(":")[2]
        code, _, told = run_vitrail("serve", "--port", port, "--model", "vitrail:hit-cifar10")
        assert code == 2
        assert "choose another --port" in told
        listening = Path("/proc/net/tcp")
        if listening.exists():  # Only the loopback is listened on.
            places = [line.split()[1] for line in listening.read_text().splitlines()[1:] if line.split()[3] == "0A"]
            assert [place for place in places if place.endswith(f":{int(port):04X}")] == [f"0100007F:{int(port):04X}"]
        running.process.send_signal(signal.SIGINT)
        running.process.wait(30)
    assert not list(tmp_path.glob("vitrail-serve-*"))
    assert "Traceback" not in "".join(running.lines)


@pytest.mark.slow
def test_more_than_may_wait_are_turned_away_in_a_sentence(tmp_path, feathers):
    with served(tmp_path, "--model", "vitrail:vit-birds", "--max-waiting", "1") as running:
        clients = [gradio_client.Client(running.url, verbose=False) for _ in range(10)]

        def answered(client):
            try:
                return client.predict(photo=gradio_client.handle_file(feathers), methods=["rise"], api_name="/explain")
            except Exception as error:  # noqa: BLE001 (whatever it is, it is looked at)
                return error

        with ThreadPoolExecutor(len(clients)) as pool:
            found = list(pool.map(answered, clients))
        refused = [str(one) for one in found if isinstance(one, Exception)]
        assert 0 < len(refused) < len(clients)
        assert all("full" in words and "Traceback" not in words for words in refused)
        assert answered(clients[0])["maps"]  # And it goes on.


@pytest.mark.slow
def test_a_service_manager_ends_it_cleanly(tmp_path):
    with served(tmp_path, "--model", "vitrail:hit-cifar10") as running:
        running.process.send_signal(signal.SIGTERM)
        running.process.wait(30)
    assert not list(tmp_path.glob("vitrail-serve-*"))
    assert "Traceback" not in "".join(running.lines)


@pytest.mark.slow
def test_it_is_gone_soon_also_while_it_works(tmp_path, slow_model_file, feathers):
    httpx = pytest.importorskip("httpx", reason="comes with the extra app")
    photo = feathers.read_bytes()
    with served(tmp_path, "--model", str(slow_model_file)) as running:
        base = f"{running.url.rstrip('/')}/gradio_api"
        [path] = httpx.post(f"{base}/upload", files={"files": ("bird.png", photo)}, timeout=60).json()
        data = [{"path": path, "meta": {"_type": "gradio.FileData"}}, slow_model_file.name, ["rise"], None]
        events = [httpx.post(f"{base}/call/explain", json={"data": data}, timeout=60).json()["event_id"] for _ in range(3)]
        # Nothing comes: it is being worked on.
        with pytest.raises(httpx.ReadTimeout):
            httpx.get(f"{base}/call/explain/{events[0]}", timeout=4)
        start = time.monotonic()
        running.process.send_signal(signal.SIGTERM)
        time.sleep(0.3)
        running.process.send_signal(signal.SIGINT)  # Somebody is impatient.
        running.process.send_signal(signal.SIGTERM)
        assert running.process.wait(30) == 143
        assert time.monotonic() - start < 10
    assert not list(tmp_path.glob("vitrail-serve-*"))
    told = "".join(running.lines)
    assert "Traceback" not in told
    assert told.endswith("stopped\n")


@pytest.mark.slow
def test_it_serves_behind_a_proxy(tmp_path, monkeypatch):
    httpx = pytest.importorskip("httpx", reason="comes with the extra app")
    for name in ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    with served(tmp_path, "--model", "vitrail:hit-cifar10") as running, httpx.Client(trust_env=False) as direct:
        assert direct.get(running.url, timeout=60).status_code == 200


def test_a_launch_that_fails_is_told_in_a_sentence(monkeypatch):
    gr = pytest.importorskip("gradio", reason="needs the extra app")

    def refuse(*_, **__):
        raise ValueError("localhost is not accessible")

    monkeypatch.setattr(gr.Blocks, "launch", refuse)
    told = pytest.raises(VitrailError, match=r"cannot serve on 127.0.0.1.*localhost is not accessible.*--host")
    with told, serving(["vitrail:hit-cifar10"], port=free_port()):
        pass


def test_serve_tells_bad_arguments(run_vitrail):
    code, _, told = run_vitrail("serve", "--model", "vitrail:nonsense")
    assert code == 2
    assert "unknown bundled model" in told
    assert run_vitrail("serve", "--model", "a,,b")[0] == 2
    code, _, told = run_vitrail("serve", "--model", "vitrail:hit-cifar10", "--allow-host", "http://a")
    assert code == 2
    assert "expected a host name or an IP address for --allow-host, got 'http://a'" in " ".join(told.split())


@pytest.mark.parametrize(
    ("second", "words"),
    [
        ("vitrail:nonsense", "unknown bundled model 'nonsense'"),
        ("/no/such/file", "no such model: '/no/such/file'"),
        ("nonsense:hit", "unknown source of models 'nonsense'"),
    ],
)
def test_a_model_that_there_is_not_is_told_at_the_start(run_vitrail, second, words):
    code, _, told = run_vitrail("serve", "--model", f"vitrail:hit-cifar10,{second}")
    assert code == 2
    assert words in told
