"""Photos named one by one or by their folder."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from PIL import Image

from vitrail.data.folders import Unreadable, images_below
from vitrail.data.images import open_image
from vitrail.errors import ImageError, InvalidInputError


@dataclass(frozen=True)
class Photo:
    """An opened photo.

    Attributes:
        path: Its file.
        label: A name for results, unlike that of every other photo of the call.
        image: Upright, 8-bit RGB.
    """

    path: Path
    label: str
    image: Image.Image


def open_photos(paths: Sequence[Path]) -> tuple[list[Photo], list[Unreadable]]:
    """Open photos. A file named by the user must be readable; unreadable files found in a folder are skipped and returned.

    Raises:
        ImageError: A named file cannot be read, or nothing could be.
        InvalidInputError: A folder holds no images.
    """
    opened: list[tuple[Path, Image.Image]] = []
    unreadable: list[Unreadable] = []
    for path in paths:
        if not path.is_dir():
            opened.append((path, open_image(path)))
            continue
        found_here = images_below(path)
        if not found_here:
            raise InvalidInputError(f"expected images in the folder {path}, found none")
        for found in found_here:
            try:
                opened.append((found, open_image(found)))
            except ImageError as error:
                unreadable.append(Unreadable(str(found), str(error)))
    if not opened:
        raise ImageError(f"not one of {len(unreadable)} images could be read; the first: {unreadable[0].reason}")
    labels: list[str] = []
    for path, _ in opened:
        candidates = (path.stem if i == 1 else f"{path.stem}-{i}" for i in count(1))
        labels.append(next(label for label in candidates if label not in labels))
    return [Photo(path, label, image) for (path, image), label in zip(opened, labels, strict=True)], unreadable
