"""Read class names, prompts and other lists of texts: from a file, a text with commas, or a list."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vitrail.core.errors import InvalidInputError, failures_as
from vitrail.core.files import is_file, regular_file
from vitrail.core.json_io import read_json

TABLES = ("id2label", "label2id", "class_to_idx", "label_names")
"""Fields of configurations that hold class names."""

ENDINGS = (".txt", ".json", ".csv", ".tsv", ".names", ".labels")


def read_names(given: str | Path | Sequence[str], what: str = "class names") -> tuple[str, ...]:
    """Read a list of names.

    Args:
        given: A list; a text with commas; or a file: one name per line, or JSON (a list, an object from index to name or from name to
            index, or a configuration with `id2label`).
        what: What they name, for messages.

    Raises:
        InvalidInputError: The file cannot be read or is invalid, or there are no names.
    """
    if not isinstance(given, str | Path):
        names = [str(name) for name in given]
    elif isinstance(given, Path) or given.lower().endswith(ENDINGS) or is_file(given):
        names = _read_file(Path(given), what)
    else:
        names = [name.strip() for name in str(given).split(",")]
    if not names or not all(name.strip() for name in names):
        raise InvalidInputError(f"expected {what} that are not empty, got {names[:5] if names else 'none'}")
    return tuple(names)


def _read_file(path: Path, what: str) -> list[str]:
    with failures_as(InvalidInputError, f"cannot read the {what} in {path}", causes=(OSError, ValueError)):
        content = read_json(path) if path.suffix.lower() == ".json" else regular_file(path).read_text(encoding="utf-8-sig")
    if not isinstance(content, str):
        return _from_json(content, path, what)
    lines = [line.strip() for line in content.rstrip().splitlines()]
    blank = next((number for number, line in enumerate(lines, 1) if not line), None)
    if blank is not None:
        raise InvalidInputError(f"expected one of the {what} per line in {path}, got an empty line {blank}")
    return lines


def _from_json(content: Any, path: Path, what: str) -> list[str]:
    if isinstance(content, Mapping):
        content = next((content[field] for field in TABLES if isinstance(content.get(field), list | Mapping)), content)
    if isinstance(content, list) and all(isinstance(name, str) for name in content):
        return content
    if isinstance(content, Mapping):
        by_index = {index: str(name) for key, value in content.items() for index, name in _pairs(key, value)}
        if len(by_index) == len(content) and sorted(by_index) == list(range(len(content))):
            return [by_index[index] for index in range(len(by_index))]
    raise InvalidInputError(
        f"expected {what} in {path}: a list of texts, or an object from every index from 0 to a name or from names to indices"
    )


def _pairs(key: str, value: Any) -> list[tuple[int, str]]:
    """Read an entry of an object: from index to name, or from name to index."""
    if isinstance(value, int) and not isinstance(value, bool):
        return [(value, key)]
    return [(int(key), value)] if isinstance(value, str) and key.isdecimal() and len(key) < 10 else []
