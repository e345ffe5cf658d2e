"""Checks of calls: what clients send to the functions of the page, refused with a message before Gradio fails on it."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite
from typing import Any

from vitrail.core.errors import InvalidInputError

MAX_IDENTIFIER_LENGTH = 64
"""Letters of the session of a browser. Gradio keeps it forever; its own have eleven letters."""

MAX_DEPTH = 20
"""Nested lists and objects."""

MAX_NUMBER = 2**53
"""JSON is not exact beyond it."""

_IDENTIFIER = re.compile(rf"[A-Za-z0-9_-]{{1,{MAX_IDENTIFIER_LENGTH}}}")
_CALL = re.compile(r"/gradio_api/call/(?P<by_name>v2/)?(?P<name>[^/]+)/?")
_JOIN, _RUN, _CANCEL = "/gradio_api/queue/join", "/gradio_api/run/predict", "/gradio_api/cancel"


class RefusedError(InvalidInputError):
    """A request that is refused.

    Attributes:
        code: HTTP status.
    """

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True)
class Endpoint:
    """The inputs of a function of the page.

    Attributes:
        num_values: Number of values that the page sends.
        is_queued: Whether calls wait in the queue.
        parameters: Names of arguments for API clients, and whether each is optional; None if only the page may call it.
    """

    num_values: int
    is_queued: bool = True
    parameters: Mapping[str, bool] | None = None


@dataclass(frozen=True)
class CheckedRequest:
    """A request that passed the checks.

    Attributes:
        body: JSON in UTF-8 with the checked fields only.
        session: Session of the browser, if the request has one.
        has_result: Whether a result will wait to be fetched.
    """

    body: bytes
    session: str | None = None
    has_result: bool = False


@dataclass(frozen=True)
class Endpoints:
    """The functions of the page; checks the calls of them.

    Attributes:
        functions: Functions by the number that Gradio gives them.
        named: Numbers of the functions that API clients may call, by name.
    """

    functions: Mapping[int, Endpoint] = field(default_factory=dict)
    named: Mapping[str, int] = field(default_factory=dict)

    def check(self, path: str, body: bytes) -> CheckedRequest:
        """Check a request.

        Raises:
            RefusedError: Malformed JSON, a missing or wrong field, or an unknown function.
        """
        fields = _parse_json(body)
        session = fields.get("session_hash")
        if session is not None and not is_identifier(session):
            raise RefusedError(
                400, f"expected a session_hash of at most {MAX_IDENTIFIER_LENGTH} letters, digits, - and _, or none"
            )
        if path == _JOIN:
            _require(session is not None, "a session_hash")
            return CheckedRequest(_dump_json(self._check_call(fields) | {"session_hash": session}), session, has_result=True)
        if path == _RUN:
            return CheckedRequest(_dump_json(self._check_direct_call(fields) | {"session_hash": session}), session)
        if call := _CALL.fullmatch(path):
            function = self._find_function(call["name"])
            if call["by_name"]:
                return CheckedRequest(_dump_json(_check_arguments(fields, function)), has_result=True)
            values = _check_positional_values(fields, function) | {"session_hash": session}
            return CheckedRequest(_dump_json(values), session, has_result=True)
        _require(isinstance(fields.get("event_id"), str), "an event_id, a text")
        if path == _CANCEL:
            _require(session is not None, "a session_hash")
            _require(_is_number(fields.get("fn_index")), "an fn_index, a number")
        kept = {name: fields.get(name) for name in ("session_hash", "fn_index", "event_id")}
        return CheckedRequest(_dump_json(kept), session)

    def _check_call(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        number = fields.get("fn_index")
        if not isinstance(number, int) or not _is_number(number):
            raise RefusedError(422, "expected an fn_index, a number; send it as the page and gradio_client do")
        if number not in self.functions:
            raise RefusedError(404, f"there is no function {number}; reload the page")
        values, trigger = fields.get("data"), fields.get("trigger_id")
        _check_values(values, (self.functions[number].num_values,))
        _require(trigger is None or _is_number(trigger), "a trigger_id, a number, or none")
        return {"data": values, "fn_index": number, "trigger_id": trigger, "event_data": fields.get("event_data")}

    def _check_direct_call(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        call = self._check_call(fields)
        if self.functions[call["fn_index"]].is_queued:
            raise RefusedError(404, "this function takes no direct calls; join the queue, as the page and gradio_client do")
        # The page sends nothing but texts to these functions, and Gradio would log a traceback for anything else.
        _require(all(value is None or isinstance(value, str) for value in call["data"]), "texts as data")
        return call

    def _find_function(self, name: str) -> Endpoint:
        if name not in self.named:
            raise RefusedError(404, f"there is no function of this name; choose one of: {', '.join(self.named)}")
        return self.functions[self.named[name]]


def is_identifier(value: object) -> bool:
    """Return whether a value may identify a session or an event."""
    return isinstance(value, str) and _IDENTIFIER.fullmatch(value) is not None


def _check_arguments(fields: Mapping[str, Any], function: Endpoint) -> dict[str, Any]:
    parameters = function.parameters or {}
    names = ", ".join(parameters) or "none"
    if unknown := [name for name in fields if name not in parameters]:
        raise RefusedError(422, f"unknown argument {unknown[0][:40]!r}; the arguments are: {names}")
    if missing := [name for name, optional in parameters.items() if not optional and name not in fields]:
        raise RefusedError(422, f"expected the argument {missing[0]!r}, got none; the arguments are: {names}")
    return dict(fields)


def _check_positional_values(fields: Mapping[str, Any], function: Endpoint) -> dict[str, Any]:
    values = fields.get("data")
    _check_values(values, (len(function.parameters or {}), function.num_values))
    return {"data": values}


def _check_values(values: object, counts: Sequence[int]) -> None:
    _require(isinstance(values, list), "data, a list")
    if isinstance(values, list) and len(values) not in counts:
        raise RefusedError(422, f"expected {counts[0]} values in data, got {len(values)}")


def _parse_json(body: bytes) -> dict[str, Any]:
    try:
        fields = json.loads(body.decode("utf-8"), parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        raise RefusedError(400, "expected JSON in UTF-8, got something else") from None
    if not isinstance(fields, dict):
        raise RefusedError(400, f"expected a JSON object, got {type(fields).__name__}")
    _check_nested(fields)
    return fields


def _refuse_constant(name: str) -> float:
    raise ValueError(name)


def _check_nested(fields: dict[str, Any]) -> None:
    level: list[Any] = [fields]
    for _ in range(MAX_DEPTH):
        level = [
            value
            for parent in level
            if isinstance(parent, dict | list)
            for value in (parent.values() if isinstance(parent, dict) else parent)
        ]
        numbers = [value for value in level if isinstance(value, int | float)]
        if any(not isfinite(value) if isinstance(value, float) else abs(value) > MAX_NUMBER for value in numbers):
            raise RefusedError(400, f"expected numbers of at most {MAX_NUMBER:,}, got a larger one")
        if not level:
            return
    raise RefusedError(400, f"expected at most {MAX_DEPTH} lists and objects inside each other, got more")


def _dump_json(values: Mapping[str, Any]) -> bytes:
    try:
        return json.dumps(values, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise RefusedError(400, "expected complete characters, got half of a surrogate pair") from None


def _is_number(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**31


def _require(condition: bool, expected: str) -> None:
    if not condition:
        raise RefusedError(422, f"expected {expected}; send it as the page and gradio_client do")
