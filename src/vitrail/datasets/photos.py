"""Photos named one by one or by their folder."""

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
from vitrail.datasets.file_search import images_below, is_folder
from vitrail.datasets.folder import Unreadable
from vitrail.datasets.image_io import open_image

RESULT_SUFFIXES = (".npz", ".json", ".png")

MAX_NAME = 255
"""Bytes of a file's name, on most file systems."""


@dataclass(frozen=True)
class PhotoFile:
    """A photo on disk.

    Attributes:
        path: Its file.
        label: A name for results, unlike that of every other photo of the call.
        required: Whether the user named this very file: then it must be readable.
    """

    path: Path
    label: str
    required: bool

    def open(self, preprocessing: Preprocessing) -> Image.Image | Unreadable:
        """Open the photo, or say why it has to be skipped.

        Raises:
            ImageError: A required photo cannot be read, or is none that the model can take.
        """
        try:
            image = open_image(self.path)
            preprocessing.check(image)
        except ImageError as error:
            reason = str(error) if str(self.path) in str(error) else f"cannot use {self.path}: {error}"
            if self.required:
                raise ImageError(reason) from error
            return Unreadable(str(self.path), reason)
        return image


def list_photos(
    paths: Sequence[Path], taken: Collection[str] = (), suffixes: Collection[str] = RESULT_SUFFIXES
) -> list[PhotoFile]:
    """List photos: the named files, and the images below the named folders.

    Args:
        paths: Files and folders.
        taken: Labels that no photo may have.
        suffixes: Of the files that are going to be named by the labels.

    Raises:
        InvalidInputError: A folder holds no images.
    """
    used, photos = set(taken), list[PhotoFile]()
    for path in paths:
        found = images_below(path) if is_folder(path) else [path]
        if not found:
            raise InvalidInputError(f"expected images in the folder {path}, found none")
        for file in found:
            candidates = (_short(file.stem if i == 1 else f"{file.stem}-{i}", suffixes) for i in count(1))
            label = next(label for label in candidates if label not in used)
            used.add(label)
            photos.append(PhotoFile(file, label, required=file == path))
    return photos


def relative_name(path: Path, root: Path) -> str:
    """An image's name below the folder that was named, with slashes; of a file that was named itself, its own name."""
    return path.relative_to(root if path != root else path.parent).as_posix()


def result_labels(paths: Sequence[Path], root: Path, suffixes: Collection[str] = RESULT_SUFFIXES) -> dict[Path, str]:
    """Names for results that are unlike each other: an image's name without suffix; with it, where that would not do.

    Args:
        paths: All images below a folder, since a name depends on the others.
        root: The folder.
        suffixes: Of the files that are going to be named so.
    """
    # Some file systems do not tell capitals from small letters.
    shared = Counter(str(path.with_suffix("")).casefold() for path in paths)
    names = {path: relative_name(path, root) for path in paths}
    folders = {name[:place].casefold() for name in names.values() for place, letter in enumerate(name) if letter == "/"}
    used, labels = set[str](), dict[Path, str]()

    def meets_folder(label: str) -> bool:
        return not folders.isdisjoint(f"{label}{suffix}".casefold() for suffix in suffixes)

    for path, name in names.items():
        alone = shared[str(path.with_suffix("")).casefold()] == 1
        begun = name.removesuffix(path.suffix if alone else "")
        begun = name if meets_folder(begun) else begun
        candidates = (_short(begun if i == 1 else f"{begun}-{i}", suffixes) for i in count(1))
        labels[path] = next(label for label in candidates if label.casefold() not in used and not meets_folder(label))
        used.add(labels[path].casefold())
    return labels


def _short(label: str, suffixes: Collection[str]) -> str:
    """A label that leaves room for a suffix; of one that does not, the end is replaced by what tells it from others."""
    folder, slash, name = label.rpartition("/")
    room = MAX_NAME - max(map(len, suffixes))
    encoded = os.fsencode(name)
    if len(encoded) <= room:
        return label
    digest = hashlib.sha256(encoded).hexdigest()[:16]
    # Not amid a letter; bytes that are no letters stay as they are.
    begun = encoded[: room - len(digest) - 1]
    while begun and (encoded[len(begun)] & 0xC0) == 0x80:
        begun = begun[:-1]
    return f"{folder}{slash}{os.fsdecode(begun)}-{digest}"
