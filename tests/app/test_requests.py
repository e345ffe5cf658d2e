"""Checks of calls of the functions of the page."""

import json

import pytest

from vitrail.app.requests import Endpoint, Endpoints, RefusedError

JOIN, RUN, CANCEL, RESET = (f"/gradio_api/{name}" for name in ("queue/join", "run/predict", "cancel", "reset"))
CALL, BY_NAME = "/gradio_api/call/explain", "/gradio_api/call/v2/explain"
ENDPOINTS = Endpoints(
    {0: Endpoint(3, True, {"photo": False, "model": True}), 1: Endpoint(1, is_queued=False), 2: Endpoint(0)}, {"explain": 0}
)
GOOD = {
    JOIN: {"session_hash": "a-B_9", "fn_index": 0, "data": [None, "x", {"path": "y"}], "trigger_id": 7},
    RUN: {"session_hash": "a", "fn_index": 1, "data": ["x"]},
    CALL: {"data": [1, "x"]},
    BY_NAME: {"photo": {"path": "x"}},
    CANCEL: {"session_hash": "a", "fn_index": 0, "event_id": "b"},
    RESET: {"event_id": "b"},
}


def make_body(path, **changes):
    fields = {name: value for name, value in {**GOOD[path], **changes}.items() if value != "left out"}
    return json.dumps(fields).encode()


@pytest.mark.parametrize("path", GOOD)
def test_calls_of_the_page_and_of_api_clients_are_passed_on(path):
    body = json.loads(ENDPOINTS.check(path, make_body(path)).body)
    assert {name: body[name] for name in GOOD[path]} == GOOD[path]


def test_calls_may_pass_all_arguments_of_a_function():
    assert json.loads(ENDPOINTS.check(CALL, make_body(CALL, data=[1, 2, 3])).body)["data"] == [1, 2, 3]


def test_session_and_result_are_recognized():
    request = ENDPOINTS.check(JOIN, make_body(JOIN))
    assert (request.session, request.has_result) == ("a-B_9", True)
    assert ENDPOINTS.check(CALL, make_body(CALL)).session is None
    assert not ENDPOINTS.check(RUN, make_body(RUN)).has_result


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "expected JSON"),
        (b"no json", "expected JSON"),
        (b"\xff", "expected JSON"),
        (b'{"data": ["\xff"]}', "expected JSON"),
        ('{"data": []}'.encode("utf-16"), "expected JSON"),
        (b"\xef\xbb\xbf{}", "expected JSON"),
        (b"[" * 100_000, "expected JSON"),
        (b'{"data": [NaN]}', "expected JSON"),
        (b'{"data": [-Infinity]}', "expected JSON"),
        (b'{"data": [' + b"9" * 5000 + b"]}", "expected JSON"),
        (b"[]", "expected a JSON object, got list"),
        (b"null", "expected a JSON object"),
        (b'{"data": [1e999]}', "numbers of at most"),
        (b'{"data": [' + b"9" * 400 + b"]}", "numbers of at most"),
        (b'{"data":' + b"[" * 21 + b"]" * 21 + b"}", "at most 20 lists"),
    ],
)
def test_malformed_json_is_refused(body, message):
    with pytest.raises(RefusedError, match=message) as caught:
        ENDPOINTS.check(JOIN, body)
    assert caught.value.code == 400


@pytest.mark.parametrize("path", GOOD)
def test_json_is_checked_on_every_path(path):
    with pytest.raises(RefusedError, match="expected JSON"):
        ENDPOINTS.check(path, b"no json")


@pytest.mark.parametrize("session", ["", "x" * 65, 5, True, [], {}, "a/b", "a\nb", "a\0", "\ud800", "é"])
def test_bad_sessions_are_refused(session):
    with pytest.raises(RefusedError, match="session_hash of at most 64 letters") as caught:
        ENDPOINTS.check(JOIN, make_body(JOIN, session_hash=session))
    assert caught.value.code == 400


@pytest.mark.parametrize(
    ("path", "changes", "code", "message"),
    [
        (JOIN, {"session_hash": "left out"}, 422, "expected a session_hash"),
        (JOIN, {"fn_index": "left out"}, 422, "expected an fn_index"),
        (JOIN, {"fn_index": "0"}, 422, "expected an fn_index"),
        (JOIN, {"fn_index": True}, 422, "expected an fn_index"),
        (JOIN, {"fn_index": 1.0}, 422, "expected an fn_index"),
        (JOIN, {"fn_index": 2**40}, 422, "expected an fn_index"),
        (JOIN, {"fn_index": -1}, 404, "no function -1"),
        (JOIN, {"fn_index": 3}, 404, "no function 3"),
        (JOIN, {"data": "left out"}, 422, "expected data, a list"),
        (JOIN, {"data": {"a": 1}}, 422, "expected data, a list"),
        (JOIN, {"data": []}, 422, "expected 3 values in data, got 0"),
        (JOIN, {"data": [1, 2, 3, 4]}, 422, "got 4"),
        (JOIN, {"trigger_id": [1]}, 422, "expected a trigger_id"),
        (JOIN, {"trigger_id": 2**50}, 422, "expected a trigger_id"),
        (RUN, {"fn_index": 0, "data": [1, 2, 3]}, 404, "join the queue"),
        (RUN, {"data": [5]}, 422, "expected texts"),
        (RUN, {"data": [["x"]]}, 422, "expected texts"),
        (CALL, {"data": []}, 422, "expected 2 values"),
        (CALL, {"data": None}, 422, "expected data, a list"),
        (BY_NAME, {"photo": "left out"}, 422, "expected the argument 'photo'"),
        (BY_NAME, {"other": 1}, 422, "unknown argument 'other'; the arguments are: photo, model"),
        (BY_NAME, {"": 1}, 422, "unknown argument ''"),
        (CANCEL, {"session_hash": "left out"}, 422, "expected a session_hash"),
        (CANCEL, {"fn_index": None}, 422, "expected an fn_index"),
        (CANCEL, {"event_id": 5}, 422, "expected an event_id"),
        (RESET, {"event_id": "left out"}, 422, "expected an event_id"),
        (RESET, {"event_id": "\ud800"}, 400, "surrogate"),
        (JOIN, {"data": ["\ud800", 1, 2]}, 400, "surrogate"),
    ],
)
def test_wrong_fields_are_refused(path, changes, code, message):
    with pytest.raises(RefusedError, match=message) as caught:
        ENDPOINTS.check(path, make_body(path, **changes))
    assert caught.value.code == code


@pytest.mark.parametrize("name", ["nonsense", "\0", "%ff", "explain%20"])
@pytest.mark.parametrize("path", ["/gradio_api/call/", "/gradio_api/call/v2/"])
def test_unknown_functions_are_refused(path, name):
    with pytest.raises(RefusedError, match="choose one of: explain") as caught:
        ENDPOINTS.check(path + name, b'{"data": []}')
    assert caught.value.code == 404
