"""The functions for programs, and the server's manners, over the wire."""

import signal
import socket
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from asked import ask, bird

from serving import served

pytest_plugins = ("tiny",)

gradio_client = pytest.importorskip("gradio_client", reason="needs the extra app")


@pytest.fixture(scope="module")
def client(server):
    return gradio_client.Client(server.url, verbose=False)


@pytest.fixture
def feathers(tmp_path):
    bird().save(tmp_path / "bird.png")
    return tmp_path / "bird.png"


def test_models_and_methods(client):
    offered = client.predict(api_name="/models")
    assert list(offered) == ["vitrail:hit-cifar10", "vitrail:vit-birds", "vitrail:intr-birds"]
    assert offered["vitrail:intr-birds"][0] == "intr"


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


def test_no_address_is_fetched(client):
    with socket.socket() as trap:
        trap.bind(("127.0.0.1", 0))
        trap.listen()
        trap.settimeout(0.5)
        address = f"http://127.0.0.1:{trap.getsockname()[1]}/photo.png"
        photo = {"path": address, "url": address, "meta": {"_type": "gradio.FileData"}}
        with pytest.raises(Exception, match=r"(?i)address|path|uploaded"):
            client.predict(photo=photo, model="vitrail:hit-cifar10", methods=["hit"], api_name="/explain")
        with pytest.raises(TimeoutError):
            trap.accept()


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


def test_serve_tells_bad_arguments(run_vitrail):
    code, _, told = run_vitrail("serve", "--model", "vitrail:nonsense")
    assert code == 2
    assert "unknown bundled model" in told
    assert run_vitrail("serve", "--model", "a,,b")[0] == 2
