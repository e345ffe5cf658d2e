"""What may be asked of the page's functions: everything else is refused in a sentence, before the kit stumbles over it."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite
from typing import Any

from vitrail.core.errors import InvalidInputError

LONGEST_HASH = 64
"""Letters by which a visitor's browser calls itself. The kit remembers it for ever, and its own has eleven."""

DEEPEST = 20
"""Lists and objects inside each other."""

LARGEST_NUMBER = 2**53
"""Beyond it, JSON is not exact."""

_HASH = re.compile(rf"[A-Za-z0-9_-]{{1,{LONGEST_HASH}}}")
_CALL = re.compile(r"/gradio_api/call/(?P<by_name>v2/)?(?P<name>[^/]+)/?")
_JOIN, _RUN, _CANCEL = "/gradio_api/queue/join", "/gradio_api/run/predict", "/gradio_api/cancel"


class RefusedError(InvalidInputError):
    """A question that is not answered.

    Attributes:
        code: Status of HTTP.
    """

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True)
class Function:
    """What a function of the page takes.

    Attributes:
        num_values: As many values the page itself sends.
        waits: Whether it takes its turn in the queue.
        parameters: Names for programs, and whether each may be left out; None where programs cannot call it.
    """

    num_values: int
    waits: bool = True
    parameters: Mapping[str, bool] | None = None


@dataclass(frozen=True)
class Question:
    """A checked question.

    Attributes:
        body: The same as JSON in UTF-8, with nothing but what was checked.
        asker: What the visitor's browser calls itself, where it told.
        joins: Whether an answer will wait to be fetched.
    """

    body: bytes
    asker: str | None = None
    joins: bool = False


@dataclass(frozen=True)
class Questions:
    """Checks what is sent to the page's functions.

    Attributes:
        functions: By the page's own number.
        named: Numbers of those that programs may call.
    """

    functions: Mapping[int, Function] = field(default_factory=dict)
    named: Mapping[str, int] = field(default_factory=dict)

    def check(self, path: str, body: bytes) -> Question:
        """Check what is sent to an address.

        Raises:
            RefusedError: Malformed JSON, a missing or wrong field, or a function that there is not.
        """
        sent = _parsed(body)
        asker = sent.get("session_hash")
        if asker is not None and not is_hash(asker):
            raise RefusedError(400, f"expected a session_hash of at most {LONGEST_HASH} letters, digits, - and _, or none")
        if path == _JOIN:
            _need(asker is not None, "a session_hash")
            return Question(_packed(self._asked(sent) | {"session_hash": asker}), asker, joins=True)
        if path == _RUN:
            return Question(_packed(self._at_once(sent) | {"session_hash": asker}), asker)
        if call := _CALL.fullmatch(path):
            function = self._called(call["name"])
            values = _by_name(sent, function) if call["by_name"] else _in_order(sent, function) | {"session_hash": asker}
            return Question(_packed(values), None if call["by_name"] else asker, joins=True)
        _need(isinstance(sent.get("event_id"), str), "an event_id, a text")
        if path == _CANCEL:
            _need(asker is not None, "a session_hash")
            _need(_is_number(sent.get("fn_index")), "an fn_index, a number")
        return Question(_packed({name: sent.get(name) for name in ("session_hash", "fn_index", "event_id")}), asker)

    def _asked(self, sent: Mapping[str, Any]) -> dict[str, Any]:
        number = sent.get("fn_index")
        if not isinstance(number, int) or not _is_number(number):
            raise RefusedError(422, "expected an fn_index, a number; ask as the page and gradio_client do")
        if number not in self.functions:
            raise RefusedError(404, f"there is no function {number}; reload the page")
        values, trigger = sent.get("data"), sent.get("trigger_id")
        _check_values(values, (self.functions[number].num_values,))
        _need(trigger is None or _is_number(trigger), "a trigger_id, a number, or none")
        return {"data": values, "fn_index": number, "trigger_id": trigger, "event_data": sent.get("event_data")}

    def _at_once(self, sent: Mapping[str, Any]) -> dict[str, Any]:
        asked = self._asked(sent)
        if self.functions[asked["fn_index"]].waits:
            raise RefusedError(404, "this function takes no direct calls; join the queue, as the page and gradio_client do")
        # Nothing else is shown to these functions, and the kit would call their errors its own.
        _need(all(value is None or isinstance(value, str) for value in asked["data"]), "texts as data")
        return asked

    def _called(self, name: str) -> Function:
        if name not in self.named:
            raise RefusedError(404, f"there is no function of this name; choose one of: {', '.join(self.named)}")
        return self.functions[self.named[name]]


def is_hash(value: object) -> bool:
    """Whether something may be what a visitor's browser, or a question, is called."""
    return isinstance(value, str) and _HASH.fullmatch(value) is not None


def _by_name(sent: Mapping[str, Any], function: Function) -> dict[str, Any]:
    parameters = function.parameters or {}
    known = ", ".join(parameters) or "none"
    if unknown := [name for name in sent if name not in parameters]:
        raise RefusedError(422, f"unknown argument {unknown[0][:40]!r}; the arguments are: {known}")
    if missing := [name for name, optional in parameters.items() if not optional and name not in sent]:
        raise RefusedError(422, f"expected the argument {missing[0]!r}, got none; the arguments are: {known}")
    return dict(sent)


def _in_order(sent: Mapping[str, Any], function: Function) -> dict[str, Any]:
    values = sent.get("data")
    _check_values(values, (len(function.parameters or {}), function.num_values))
    return {"data": values}


def _check_values(values: object, numbers: Sequence[int]) -> None:
    _need(isinstance(values, list), "data, a list")
    if isinstance(values, list) and len(values) not in numbers:
        raise RefusedError(422, f"expected {numbers[0]} values in data, got {len(values)}")


def _parsed(body: bytes) -> dict[str, Any]:
    try:
        sent = json.loads(body.decode("utf-8"), parse_constant=_no_number)
    except (ValueError, RecursionError):
        raise RefusedError(400, "expected JSON in UTF-8, got something else") from None
    if not isinstance(sent, dict):
        raise RefusedError(400, f"expected a JSON object, got {type(sent).__name__}")
    _check_parts(sent)
    return sent


def _no_number(name: str) -> float:
    raise ValueError(name)


def _check_parts(sent: dict[str, Any]) -> None:
    level: list[Any] = [sent]
    for _ in range(DEEPEST):
        level = [
            part
            for each in level
            if isinstance(each, dict | list)
            for part in (each.values() if isinstance(each, dict) else each)
        ]
        numbers = [part for part in level if isinstance(part, int | float)]
        if any(not isfinite(part) if isinstance(part, float) else abs(part) > LARGEST_NUMBER for part in numbers):
            raise RefusedError(400, f"expected numbers of at most {LARGEST_NUMBER:,}, got a larger one")
        if not level:
            return
    raise RefusedError(400, f"expected at most {DEEPEST} lists and objects inside each other, got more")


def _packed(values: Mapping[str, Any]) -> bytes:
    try:
        return json.dumps(values, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise RefusedError(400, "expected texts of whole letters, got half of a surrogate pair") from None


def _is_number(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**31


def _need(there: bool, what: str) -> None:
    if not there:
        raise RefusedError(422, f"expected {what}; ask as the page and gradio_client do")
