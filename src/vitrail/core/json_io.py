"""Read untrusted JSON, and write standard JSON."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vitrail.core.errors import InvalidInputError
from vitrail.core.files import read_text

MAX_NESTING = 100
"""Deepest nesting of lists and objects; deeper nesting could exhaust the stack."""


def parse_json(text: str | bytes) -> Any:
    """Read JSON from a text.

    Raises:
        InvalidInputError: It is not JSON, or nested too deeply; a `ValueError`, as `json.loads` raises.
    """
    try:
        content = json.loads(text)
    except RecursionError:
        raise _too_deep() from None
    except ValueError as error:
        raise InvalidInputError(str(error)) from error
    level, depth = [content], 0
    while level := [part for value in level for part in _parts(value)]:
        depth += 1
        if depth > MAX_NESTING:
            raise _too_deep()
    return content


def read_json(path: str | Path) -> Any:
    """Read a JSON file.

    Raises:
        OSError: It cannot be read, or is not a regular file.
        InvalidInputError: It is not JSON in UTF-8, or nested too deeply; a `ValueError`.
    """
    return parse_json(read_text(path))


def json_text(content: Any, indent: int | None = None) -> str:
    """Write JSON; numbers that are not finite, which JSON cannot represent, become null."""
    try:
        return json.dumps(content, indent=indent, allow_nan=False)
    except ValueError:
        return json.dumps(_finite(content), indent=indent, allow_nan=False)


def _parts(value: Any) -> list[Any]:
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [part for part in parts if isinstance(part, dict | list)]


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(part) for key, part in value.items()}
    return [_finite(part) for part in value] if isinstance(value, list | tuple) else value


def _too_deep() -> InvalidInputError:
    return InvalidInputError(f"expected JSON nested at most {MAX_NESTING} levels deep, got more")
