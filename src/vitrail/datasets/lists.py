"""Lists of images: text files with one path a line, or standard input."""

import os
import sys
from functools import cache
from pathlib import Path

from vitrail.core.distributed import gather, rank
from vitrail.core.errors import InvalidInputError, failures_as
from vitrail.core.files import regular_file
from vitrail.datasets.dataset import NO_LABEL, LabeledFiles, Transform
from vitrail.datasets.file_search import MAX_LISTED, logger

STANDARD_INPUT = Path("-")
"""As a path: the list comes from standard input."""

LIST_SUFFIXES = (".txt", ".lst", ".list")


def is_list(path: Path) -> bool:
    """Return whether a path stands for a list of images."""
    return path == STANDARD_INPUT or (path.suffix.lower() in LIST_SUFFIXES and path.is_file())


def read_list(path: Path, transform: Transform) -> LabeledFiles:
    """Read a list of images, without classes.

    Paths are relative to the folder of the list; in standard input, to the current folder. Empty lines are ignored. A list with null
    characters, as from `find -print0`, is split there instead. A file that is missing, or is no image, becomes unreadable when it is read.

    Args:
        path: The list, or `STANDARD_INPUT`.

    Raises:
        InvalidInputError: The list cannot be read, or is empty.
    """
    with failures_as(InvalidInputError, f"cannot read the list {path}"):
        content = _read_standard_input() if path == STANDARD_INPUT else regular_file(path).read_bytes()
    content = content.removeprefix(b"\xef\xbb\xbf")  # Windows marks UTF-8 this way.
    lines = content.split(b"\0") if b"\0" in content else [line.removesuffix(b"\r") for line in content.split(b"\n")]
    # By the path without detours, since an image that counts twice would weigh double.
    listed = dict[str, Path]()
    repeated = list[str]()
    for line in map(os.fsdecode, lines):
        if not line.strip():
            continue
        file = path.parent / line
        place = os.path.normpath(file)
        if place in listed:
            repeated.append(line)
        listed.setdefault(place, file)
    source = "standard input" if path == STANDARD_INPUT else path
    if not listed:
        raise InvalidInputError(f"expected the paths of images, one per line, got an empty list: {source}")
    if repeated and rank() == 0:
        more = ", ..." if len(repeated) > MAX_LISTED else ""
        logger.warning("skipped %d repeated lines of %s: %s%s", len(repeated), source, ", ".join(repeated[:MAX_LISTED]), more)
    return LabeledFiles(list(listed.values()), [NO_LABEL] * len(listed), [], transform)


@cache
def _read_standard_input() -> bytes:
    """Read standard input in the first process, for all: it can be read only once."""
    return b"".join(gather([sys.stdin.buffer.read()] if rank() == 0 else []))
