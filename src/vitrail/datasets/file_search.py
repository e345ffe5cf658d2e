"""Finding the images below a folder, with a warning about everything that is skipped."""

import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

from vitrail.core.errors import InvalidInputError, failures_as

logger = logging.getLogger(__name__)

SUFFIXES = (
    ".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp",
    ".jpe", ".jfif", ".mpo", ".apng", ".gif", ".dib", ".pbm", ".pnm", ".avif", ".dcm",
)  # fmt: skip
"""Suffixes of image files, in lower case: one of every format in `vitrail.datasets.image_io.FORMATS`, or more, and DICOM."""

ARRAY_SUFFIX = ".npy"
"""Suffix of photos of many channels. Such files may hold anything else, too."""

MAX_LISTED = 8


class Skipped(NamedTuple):
    """A file or folder that was skipped, and the reason."""

    path: Path
    reason: str


@dataclass
class FolderContents:
    """What lies below a folder.

    Attributes:
        paths: Image files, by their suffixes, sorted.
        skipped: Everything else that is not hidden.
        folders: The folders directly in it, sorted.
    """

    paths: list[Path] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)
    folders: list[Path] = field(default_factory=list)

    def warn_about_skipped(self, folder: Path) -> None:
        """Log one warning per reason for which entries of `folder` were skipped."""
        entries = sorted(self.skipped, key=lambda entry: (entry.reason, entry.path))
        for reason, group in groupby(entries, lambda entry: entry.reason):
            names = [str(entry.path.relative_to(folder)) for entry in group]
            more = ", ..." if len(names) > MAX_LISTED else ""
            logger.warning("skipped %d in %s (%s): %s%s", len(names), folder, reason, ", ".join(names[:MAX_LISTED]), more)


class _Folder(NamedTuple):
    """A folder to search.

    Attributes:
        path: As it was reached.
        identity: Device and inode: where it is, whatever links led there.
        parent: The folder in which it was found.
        via_link: Whether a link is among the folders that led there.
    """

    path: Path
    identity: tuple[int, int]
    parent: "_Folder | None"
    via_link: bool

    def is_inside(self, identity: tuple[int, int]) -> bool:
        """Return whether the folder `identity` is this folder or one of its parents."""
        folder: _Folder | None = self
        while folder is not None:
            if folder.identity == identity:
                return True
            folder = folder.parent
        return False


def find_images(folder: Path, num_channels: int | None = 3) -> FolderContents:
    """Find all images below a folder: pictures and, for models of other than three channels, arrays (`.npy`).

    Links are followed, except those that lead back to a parent folder.

    Hidden files and folders are ignored: .ipynb_checkpoints, .thumbnails, the ._ files of macOS.

    Args:
        num_channels: Channels of the model. With three, arrays are skipped, since they may hold anything; if unknown (None), they count
            if there are no pictures.

    Raises:
        InvalidInputError: The folder itself cannot be read.
    """
    contents, arrays = FolderContents(), list[Path]()
    with failures_as(InvalidInputError, f"cannot read the folder {folder}"):
        root = _Folder(folder, _identity(folder.stat()), None, via_link=False)
        next(folder.iterdir(), None)
    # A stack instead of recursion: folders may be nested deeper than Python's recursion limit.
    pending, visited = [root], {root.identity}
    while pending:
        parent = pending.pop()
        for entry in _list_entries(parent, contents):
            path = Path(entry.path)
            try:
                if entry.is_dir():
                    child = _open_child(parent, entry, visited)
                    if child is None:
                        contents.skipped.append(Skipped(path, "links to folders that are searched anyway"))
                        continue
                    pending.append(child)
                    visited.add(child.identity)
                    if parent is root:
                        contents.folders.append(child.path)
                elif not entry.is_file():
                    contents.skipped.append(Skipped(path, "broken links" if entry.is_symlink() else "not regular files"))
                elif is_image_name(path):
                    contents.paths.append(path)
                elif path.suffix.lower() == ARRAY_SUFFIX:
                    arrays.append(path)
                else:
                    phone = path.suffix.lower() in (".heic", ".heif")
                    contents.skipped.append(Skipped(path, "HEIC: export as JPEG" if phone else "no suffix of an image"))
            except OSError as error:
                contents.skipped.append(_unreadable(path, error))
    if num_channels == 3 or (num_channels is None and contents.paths):
        contents.skipped += [Skipped(path, "arrays, which may be no photos; to use them, name the files") for path in arrays]
    else:
        contents.paths += arrays
    contents.paths.sort()
    contents.folders.sort()
    return contents


def images_below(folder: Path, num_channels: int | None = 3) -> list[Path]:
    """Return the image files below a folder, sorted, and warn about everything that is skipped.

    Args:
        num_channels: See `find_images`.

    Raises:
        InvalidInputError: The folder cannot be read.
    """
    contents = find_images(folder, num_channels)
    contents.warn_about_skipped(folder)
    return contents.paths


def is_image_name(path: Path) -> bool:
    """Return whether a file has the suffix of an image; `vitrail.datasets.image_io` decides by content."""
    return path.suffix.lower() in SUFFIXES


def is_folder(path: Path) -> bool:
    """Return whether a path is a folder; False where `Path.is_dir` raises, below a folder without permission."""
    try:
        return path.is_dir()
    except OSError:
        return False


def expect_exists(path: Path) -> None:
    """Check that a path is a file or a folder.

    Raises:
        InvalidInputError: It does not exist, or is something else, such as a pipe or a link to itself.
    """
    with failures_as(InvalidInputError, f"cannot read {path}"):
        if path.is_file() or path.is_dir():
            return
        exists = os.path.lexists(path)
    problem = "expected a file or folder of images, got something else" if exists else "no such file or folder of images"
    raise InvalidInputError(f"{problem}: {path}")


def _list_entries(folder: _Folder, contents: FolderContents) -> Iterator[os.DirEntry[str]]:
    try:
        with os.scandir(folder.path) as entries:
            visible = sorted((entry for entry in entries if not entry.name.startswith(".")), key=lambda entry: entry.name)
    except OSError as error:
        contents.skipped.append(_unreadable(folder.path, error))
        return
    yield from visible


def _open_child(parent: _Folder, entry: os.DirEntry[str], visited: set[tuple[int, int]]) -> _Folder | None:
    """Return a sub-folder; None for a link to a parent folder or, below another link, to any visited folder.

    Without the second rule, a few folders that link to each other would yield an exponential number of paths.
    """
    identity = _identity(entry.stat())
    if entry.is_symlink() and (parent.is_inside(identity) or (parent.via_link and identity in visited)):
        return None
    return _Folder(Path(entry.path), identity, parent, via_link=parent.via_link or entry.is_symlink())


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def _unreadable(path: Path, error: OSError) -> Skipped:
    return Skipped(path, f"cannot be read: {error.strerror or error}")
