"""Reading untrusted JSON and writing standard JSON."""

import json
import math

import pytest

from vitrail.core.errors import InvalidInputError
from vitrail.core.json_io import MAX_NESTING, json_text, parse_json, read_json


@pytest.mark.parametrize("content", [{"a": [1, 2.5, None, "é"]}, [], "text", {"b": {"c": [True]}, "a": 1}, [0.1 + 0.2, 1e300]])
@pytest.mark.parametrize("indent", [None, 2])
def test_finite_content_is_written_unchanged(content, indent):
    assert json_text(content, indent=indent) == json.dumps(content, indent=indent)


def test_what_is_not_finite_becomes_null():
    written = json_text({"a": math.nan, "b": [1.0, math.inf, (-math.inf, 2)], "c": {"d": math.nan}})
    assert json.loads(written, parse_constant=pytest.fail) == {"a": None, "b": [1.0, None, [None, 2]], "c": {"d": None}}


@pytest.mark.parametrize("opening", ["[", '{"a":', '[{"a":'])
@pytest.mark.parametrize("depth", [MAX_NESTING + 2, 3_000, 200_000])
def test_deep_nesting_is_refused(opening, depth):
    closing = "".join({"[": "]", "{": "}"}[mark] for mark in reversed(opening) if mark in "[{")
    with pytest.raises(InvalidInputError, match="expected JSON nested at most 100 levels deep, got more"):
        parse_json(opening * depth + "1" + closing * depth)


def test_ordinary_nesting_is_read():
    text = "[" * MAX_NESTING + "]" * MAX_NESTING
    assert json.dumps(parse_json(text)) == text


@pytest.mark.parametrize("content", [b"{", b"\xff\xfe", b"", b"[1,]"])
def test_invalid_json(tmp_path, content):
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(ValueError):  # noqa: PT011 (the callers say which file)
        read_json(tmp_path / "a.json")
