"""Photos given one by one or by folder, and the names of the result files of each."""

import hashlib
import os
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from PIL import Image

from vitrail.adapters import Preprocessing
from vitrail.core.errors import ImageError, InvalidInputError
from vitrail.datasets.dataset import Unreadable, file_bytes
from vitrail.datasets.file_search import images_below, is_folder
from vitrail.datasets.image_io import open_image

RESULT_SUFFIXES = (".npz", ".json", ".png")

MAX_NAME_BYTES = 255
"""Longest file name on most file systems."""


@dataclass(frozen=True)
class PhotoFile:
    """A photo on disk.

    Attributes:
        path: The image file.
        result_name: Name of its result files, without suffix; different for every photo of a call.
        required: Whether the user named this file itself: then it must be readable.
    """

    path: Path
    result_name: str
    required: bool

    @property
    def num_bytes(self) -> int:
        """Size of the file; -1 if it cannot be read."""
        return file_bytes(self.path)

    def open(self, preprocessing: Preprocessing) -> Image.Image | Unreadable:
        """Open the photo, or return why it is skipped.

        Raises:
            ImageError: The photo is required, and cannot be read or is not suitable for the model.
        """
        try:
            image = open_image(self.path, preprocessing.num_channels)
            preprocessing.check(image)
        except ImageError as error:
            reason = str(error) if str(self.path) in str(error) else f"cannot use {self.path}: {error}"
            if self.required:
                raise ImageError(reason) from error
            return Unreadable(str(self.path), reason)
        return image


def list_photos(
    paths: Sequence[Path],
    taken: Collection[str] = (),
    suffixes: Collection[str] = RESULT_SUFFIXES,
    num_channels: int | None = None,
) -> list[PhotoFile]:
    """List the given files, and the images below the given folders.

    Args:
        paths: Files and folders.
        taken: Result names that no photo may get.
        suffixes: Suffixes of the result files.
        num_channels: Channels of the model, which decide about arrays in folders, see `find_images`.

    Raises:
        InvalidInputError: A folder holds no images.
    """
    used, photos = set(taken), list[PhotoFile]()
    for path in paths:
        files = images_below(path, num_channels) if is_folder(path) else [path]
        if not files:
            raise InvalidInputError(f"expected images in the folder {path}, found none")
        for file in files:
            candidates = (_shorten(file.stem if i == 1 else f"{file.stem}-{i}", suffixes) for i in count(1))
            name = next(name for name in candidates if name not in used)
            used.add(name)
            photos.append(PhotoFile(file, name, required=file == path))
    return photos


def relative_name(path: Path, root: Path) -> str:
    """Return the path of an image relative to the folder `root`, with slashes; its file name if the image is `root` itself."""
    return path.relative_to(root if path != root else path.parent).as_posix()


def result_names(paths: Sequence[Path], root: Path, suffixes: Collection[str] = RESULT_SUFFIXES) -> dict[Path, str]:
    """Choose a unique name for the results of every image: its relative path, without suffix unless that would be ambiguous.

    Args:
        paths: All images below a folder, since each name depends on the others.
        root: The folder.
        suffixes: Suffixes of the result files.
    """
    # Some file systems do not distinguish upper and lower case.
    num_stems = Counter(str(path.with_suffix("")).casefold() for path in paths)
    names = {path: relative_name(path, root) for path in paths}
    folders = {name[:index].casefold() for name in names.values() for index, letter in enumerate(name) if letter == "/"}
    used, results = set[str](), dict[Path, str]()

    def is_folder_name(name: str) -> bool:
        return not folders.isdisjoint(f"{name}{suffix}".casefold() for suffix in suffixes)

    for path, name in names.items():
        unique = num_stems[str(path.with_suffix("")).casefold()] == 1
        base = name.removesuffix(path.suffix if unique else "")
        base = name if is_folder_name(base) else base
        candidates = (_shorten(base if i == 1 else f"{base}-{i}", suffixes) for i in count(1))
        results[path] = next(name for name in candidates if name.casefold() not in used and not is_folder_name(name))
        used.add(results[path].casefold())
    return results


def _shorten(name: str, suffixes: Collection[str]) -> str:
    """Return a name that leaves room for a suffix; the end of a longer file name is replaced by a hash of it."""
    folder, slash, file_name = name.rpartition("/")
    max_bytes = MAX_NAME_BYTES - max(map(len, suffixes))
    encoded = os.fsencode(file_name)
    if len(encoded) <= max_bytes:
        return name
    digest = hashlib.sha256(encoded).hexdigest()[:16]
    # Cut at the end of a UTF-8 character; bytes that are not UTF-8 stay as they are.
    start = encoded[: max_bytes - len(digest) - 1]
    while start and (encoded[len(start)] & 0xC0) == 0x80:
        start = start[:-1]
    return f"{folder}{slash}{os.fsdecode(start)}-{digest}"
