"""Requests that neither the page nor `gradio_client` sends, over HTTP."""

import pytest

httpx = pytest.importorskip("httpx", reason="comes with the extra app")
gradio_client = pytest.importorskip("gradio_client", reason="needs the extra app")


@pytest.fixture(scope="module")
def client(server):
    return gradio_client.Client(server.url, verbose=False)


def test_malformed_requests_are_refused_without_a_traceback(server, client):
    base, num_lines = server.url.rstrip("/"), len(server.lines)
    numbers = {one["api_name"]: one["id"] for one in client.config["dependencies"]}
    posts = [
        ("queue/join", b'{"data": [NaN], "fn_index": 0, "session_hash": "s"}'),
        ("queue/join", b'{"data": [], "fn_index": 99999, "session_hash": "s"}'),
        ("queue/join", b'{"data": [], "fn_index": 9' + b"9" * 400 + b', "session_hash": "s"}'),
        ("run/predict", b'{"data": []}'),
        ("run/predict", b'{"data": [5], "fn_index": %d}' % numbers["stop"]),
        ("call/explain", b'{"data": [], "session_hash": ""}'),
        ("call/v2/explain", b'{"nonsense": 1}'),
        ("call/nonsense", b'{"data": []}'),
        ("cancel", b'{"session_hash": "\\ud800", "fn_index": 0, "event_id": "x"}'),
        ("upload", b"--b\r\nContent-Disposition: form-data; name=\"files\"; filename*=utf-99''x\r\n\r\nx\r\n--b--\r\n"),
    ]
    form = {"content-type": "multipart/form-data; boundary=b"}
    responses = [
        httpx.post(f"{base}/gradio_api/{path}", content=body, headers=form if path == "upload" else {}, timeout=60)
        for path, body in posts
    ]
    responses += [httpx.get(f"{base}{path}", timeout=60) for path in ("/assets/" + "a" * 999, "/gradio_api/call/explain/nope")]
    responses += [
        httpx.get(base, headers=headers, timeout=60)
        for headers in ({"host": "evil.example"}, {"host": "["}, {"origin": "http://["}, {"x-forwarded-host": "a:b"})
    ]
    assert [response.status_code for response in responses if response.status_code // 100 != 4] == []
    assert all(response.text.strip() for response in responses)
    assert httpx.post(f"{base}/gradio_api/run/predict", json={"data": [None], "fn_index": numbers["stop"]}).status_code == 200
    assert "Traceback" not in "".join(server.lines[num_lines:])


SLOW = [pytest.param(value, marks=pytest.mark.slow) for value in (5, "x", [[]])]


@pytest.mark.parametrize("wrong", [None, *SLOW, {"path": "/etc/passwd", "meta": {"_type": "gradio.FileData"}}])
def test_impossible_values_are_refused_without_a_traceback(server, client, wrong):
    base, num_lines = f"{server.url.rstrip('/')}/gradio_api", len(server.lines)
    for one in client.config["dependencies"]:
        if one["queue"] and one["backend_fn"] and one["api_name"] not in ("models", "methods"):
            body = {"data": [wrong] * len(one["inputs"]), "fn_index": one["id"], "session_hash": f"wrong{one['id']}"}
            assert httpx.post(f"{base}/queue/join", json=body, timeout=60).status_code == 200
            text = httpx.get(f"{base}/queue/data", params={"session_hash": body["session_hash"]}, timeout=60).text
            assert '"success":true' in text or "expected " in text
    assert "Traceback" not in "".join(server.lines[num_lines:])


def test_unfetched_results_are_limited(server, client):
    numbers = {one["api_name"]: one["id"] for one in client.config["dependencies"]}
    body = {"data": [], "fn_index": numbers["models"], "session_hash": "unread"}
    url = f"{server.url.rstrip('/')}/gradio_api/queue"
    codes = [httpx.post(f"{url}/join", json=body, timeout=60).status_code for _ in range(20)]
    assert codes == [200] * 16 + [429] * 4
    text = httpx.get(f"{url}/data", params={"session_hash": "unread"}, timeout=60).text
    assert text.count("process_completed") == 16
    assert httpx.post(f"{url}/join", json=body, timeout=60).status_code == 200
