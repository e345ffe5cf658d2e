"""Keys of images, by which results are found again, and the names of their result files."""

import os
from collections.abc import Collection, Sequence
from pathlib import Path

from vitrail.core.files import PARTIAL
from vitrail.datasets.photos import MAX_NAME_BYTES, RESULT_SUFFIXES, result_names

PARENT = "__"
"""Stands for `..` in the name of a result file, which must stay below the output folder."""

MAX_KEY_BYTES = 3000
"""Of longer keys, no file system holds the whole path: the outer folders are left out."""


def image_key(name: str, root: Path) -> str:
    """Return the key of an image: its name relative to the folder `root`, with slashes; its whole name if it is not below.

    The key of an image that is `root` itself is its file name.
    """
    path = Path(name)
    if path == root:
        return path.name
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else name


def name_results(keys: Sequence[str], suffixes: Collection[str] = RESULT_SUFFIXES) -> list[str]:
    """Choose a unique name for the results of every image: its key, without suffix unless that would be ambiguous.

    Names stay below the folder of the results, whatever the keys.

    Args:
        keys: Keys of all images, since each name depends on the others.
        suffixes: Suffixes of the result files.
    """
    paths, used = list[Path](), set[Path]()
    for key in keys:
        path, count = _safe_path(key), 1
        while path in used:
            count += 1
            path = path.with_name(f"{_safe_path(key).stem}-{count}{path.suffix}")
        paths.append(path)
        used.add(path)
    return list(result_names(paths, Path(), suffixes).values())


def _safe_path(key: str) -> Path:
    """Return a relative path without `..` and without names that vitrail gives to files in progress."""
    parts = list[str]()
    for part in key.replace("\0", "_").split("/"):
        if part not in ("", "."):
            name = PARENT if part == ".." else f"_{part}" if part.startswith(PARTIAL) else part
            parts.append(name)
    if len(os.fsencode(key)) > MAX_KEY_BYTES:
        parts = parts[-4:]
    # Names of files are shortened by `result_names`, with room for their suffixes.
    folders = [part if len(os.fsencode(part)) <= MAX_NAME_BYTES else part[: MAX_NAME_BYTES // 4] for part in parts[:-1]]
    return Path(*folders, *parts[-1:]) if parts else Path("_")
