"""Finding the images below a folder, and saying what was left out."""

import logging
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

from vitrail.core.errors import InvalidInputError
from vitrail.datasets.formats import is_image_name

logger = logging.getLogger(__name__)

NOT_IMAGES = "not images by their endings"

MAX_NAMED = 8


class LeftOut(NamedTuple):
    """What lies in a folder and was not taken, and why."""

    path: Path
    reason: str


@dataclass
class Found:
    """What lies below a folder.

    Attributes:
        paths: Image files, by their endings, sorted.
        left_out: Everything else that is not hidden.
        folders: The folders directly in it.
    """

    paths: list[Path] = field(default_factory=list)
    left_out: list[LeftOut] = field(default_factory=list)
    folders: list[Path] = field(default_factory=list)

    def warn(self, folder: Path) -> None:
        """Say what was left out, if anything was."""
        for reason, entries in groupby(
            sorted(self.left_out, key=lambda each: (each.reason, each.path)), lambda each: each.reason
        ):
            names = [str(each.path.relative_to(folder)) for each in entries]
            more = ", ..." if len(names) > MAX_NAMED else ""
            logger.warning("left out %d in %s (%s): %s%s", len(names), folder, reason, ", ".join(names[:MAX_NAMED]), more)


class _Folder(NamedTuple):
    """A folder to look into: where it truly is, those above it, and whether a link led there."""

    path: Path
    identity: tuple[int, int]
    above: "_Folder | None"
    linked: bool

    def leads_back(self, identity: tuple[int, int]) -> bool:
        folder: _Folder | None = self
        while folder is not None:
            if folder.identity == identity:
                return True
            folder = folder.above
        return False


def find_images(folder: Path) -> Found:
    """Find all images below a folder. Links are followed; a link that leads back is left out.

    Hidden files and folders are passed over: .ipynb_checkpoints, .thumbnails, the ._ files of macOS.

    Raises:
        InvalidInputError: The folder itself cannot be read.
    """
    found = Found()
    try:
        first = _Folder(folder, _identity(folder.stat()), None, linked=False)
        next(folder.iterdir(), None)
    except OSError as error:
        raise InvalidInputError(f"cannot read the folder {folder}: {error.strerror or error}") from error
    # Not by recursion: folders may be nested deeper than Python's calls.
    pending, seen = [first], {first.identity}
    while pending:
        where = pending.pop()
        for entry in _entries(where, found):
            try:
                if entry.is_dir():
                    deeper = _deeper(where, entry, seen)
                    if deeper is None:
                        found.left_out.append(LeftOut(Path(entry.path), "links to folders read already"))
                        continue
                    pending.append(deeper)
                    seen.add(deeper.identity)
                    if where is first:
                        found.folders.append(deeper.path)
                elif not entry.is_file():
                    reason = "links that lead nowhere" if entry.is_symlink() else "no regular files"
                    found.left_out.append(LeftOut(Path(entry.path), reason))
                elif is_image_name(Path(entry.name)):
                    found.paths.append(Path(entry.path))
                else:
                    found.left_out.append(LeftOut(Path(entry.path), NOT_IMAGES))
            except OSError as error:
                found.left_out.append(LeftOut(Path(entry.path), f"cannot be read: {error.strerror or error}"))
    found.paths.sort()
    found.folders.sort()
    return found


def images_below(folder: Path) -> list[Path]:
    """Image files below a folder, sorted; what is left out is said.

    Raises:
        InvalidInputError: The folder cannot be read.
    """
    found = find_images(folder)
    found.warn(folder)
    return found.paths


def expect_exists(path: Path) -> None:
    """Refuse what is neither a file nor a folder.

    Raises:
        InvalidInputError: There is nothing, or something else, such as a pipe or a link that leads back to itself.
    """
    try:
        if path.is_file() or path.is_dir():
            return
        there = os.path.lexists(path)
    except OSError as error:
        raise InvalidInputError(f"cannot read {path}: {error.strerror or error}") from error
    kind = "expected a file or folder of images, got something else" if there else "no such file or folder of images"
    raise InvalidInputError(f"{kind}: {path}")


def is_folder(path: Path) -> bool:
    """As `Path.is_dir`, which fails where a folder above may not be entered."""
    try:
        return path.is_dir()
    except OSError:
        return False


def _entries(folder: _Folder, found: Found) -> Iterator[os.DirEntry[str]]:
    try:
        with os.scandir(folder.path) as entries:
            listed = sorted((entry for entry in entries if not entry.name.startswith(".")), key=lambda entry: entry.name)
    except OSError as error:
        found.left_out.append(LeftOut(folder.path, f"cannot be read: {error.strerror or error}"))
        return
    yield from listed


def _deeper(where: _Folder, entry: os.DirEntry[str], seen: set[tuple[int, int]]) -> _Folder | None:
    """A folder in a folder; None for a link that leads back to one above it, or, behind another link, to any that was read.

    Otherwise a few folders that link to each other would make paths without number.
    """
    identity = _identity(entry.stat())
    if entry.is_symlink() and (where.leads_back(identity) or (where.linked and identity in seen)):
        return None
    return _Folder(Path(entry.path), identity, where, linked=where.linked or entry.is_symlink())


def _identity(about: os.stat_result) -> tuple[int, int]:
    return about.st_dev, about.st_ino


def unreadable_folders(found: Found) -> Sequence[LeftOut]:
    """Those of the folders directly in a folder that could not be read."""
    return [each for each in found.left_out if each.path in found.folders]
