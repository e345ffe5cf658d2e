"""What may be asked of the page's functions."""

import json

import pytest

from vitrail.app.requests import Function, Questions, RefusedError

JOIN, RUN, CANCEL, RESET = (f"/gradio_api/{name}" for name in ("queue/join", "run/predict", "cancel", "reset"))
CALL, BY_NAME = "/gradio_api/call/explain", "/gradio_api/call/v2/explain"
QUESTIONS = Questions(
    {0: Function(3, True, {"photo": False, "model": True}), 1: Function(1, waits=False), 2: Function(0)}, {"explain": 0}
)
GOOD = {
    JOIN: {"session_hash": "a-B_9", "fn_index": 0, "data": [None, "x", {"path": "y"}], "trigger_id": 7},
    RUN: {"session_hash": "a", "fn_index": 1, "data": ["x"]},
    CALL: {"data": [1, "x"]},
    BY_NAME: {"photo": {"path": "x"}},
    CANCEL: {"session_hash": "a", "fn_index": 0, "event_id": "b"},
    RESET: {"event_id": "b"},
}


def packed(path, **changes):
    asked = {name: value for name, value in {**GOOD[path], **changes}.items() if value != "left out"}
    return json.dumps(asked).encode()


@pytest.mark.parametrize("path", GOOD)
def test_what_the_page_and_programs_send_is_passed_on(path):
    found = json.loads(QUESTIONS.check(path, packed(path)).body)
    assert {name: found[name] for name in GOOD[path]} == GOOD[path]


def test_all_values_of_a_function_may_be_given_in_a_call():
    assert json.loads(QUESTIONS.check(CALL, packed(CALL, data=[1, 2, 3])).body)["data"] == [1, 2, 3]


def test_it_is_known_who_asks_and_whether_an_answer_will_wait():
    found = QUESTIONS.check(JOIN, packed(JOIN))
    assert (found.asker, found.joins) == ("a-B_9", True)
    assert QUESTIONS.check(CALL, packed(CALL)).asker is None
    assert not QUESTIONS.check(RUN, packed(RUN)).joins


@pytest.mark.parametrize("path", GOOD)
@pytest.mark.parametrize(
    ("body", "words"),
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
def test_malformed_json_is_refused(path, body, words):
    with pytest.raises(RefusedError, match=words) as caught:
        QUESTIONS.check(path, body)
    assert caught.value.code == 400


@pytest.mark.parametrize("asker", ["", "x" * 65, 5, True, [], {}, "a/b", "a\nb", "a\0", "\ud800", "é"])
@pytest.mark.parametrize("path", [JOIN, RUN, CALL, CANCEL])
def test_visitors_are_called_shortly(path, asker):
    with pytest.raises(RefusedError, match="session_hash of at most 64 letters") as caught:
        QUESTIONS.check(path, packed(path, session_hash=asker))
    assert caught.value.code == 400


@pytest.mark.parametrize(
    ("path", "changes", "code", "words"),
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
def test_wrong_fields_are_refused(path, changes, code, words):
    with pytest.raises(RefusedError, match=words) as caught:
        QUESTIONS.check(path, packed(path, **changes))
    assert caught.value.code == code


@pytest.mark.parametrize("name", ["nonsense", "\0", "%ff", "explain%20"])
@pytest.mark.parametrize("path", ["/gradio_api/call/", "/gradio_api/call/v2/"])
def test_functions_that_there_are_not_are_refused(path, name):
    with pytest.raises(RefusedError, match="choose one of: explain") as caught:
        QUESTIONS.check(path + name, b'{"data": []}')
    assert caught.value.code == 404
