"""Masks that were drawn by hand or by another program: which file belongs to an image, and what in it is meant."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from vitrail.core.errors import ImageError, InvalidInputError
from vitrail.core.files import real_path
from vitrail.datasets.file_search import images_below
from vitrail.datasets.image_io import read_image
from vitrail.datasets.synthetic.base import Mask

VOID = 255
"""Index of the border that PASCAL VOC draws around objects: neither object nor background."""

PREFERRED = (".png",)


def read_mask(path: str | Path) -> Mask:
    """Read a mask from an image file, upright: True where a pixel is above zero.

    Of several channels any one suffices; what is wholly transparent is not meant, whatever its color. In a palette image the index
    counts, not its color, and `VOID` is not meant. JPEG does not keep black black: there, pixels above half of white are meant.

    Raises:
        ImageError: The file is missing, damaged or no image; or a palette image of 0 and `VOID` alone, which can be read in two ways.
    """
    return read_image(path, lambda image: _meant(image, Path(path)))


def masks_by_image(paths: Sequence[Path], folder: str | Path, root: str | Path) -> dict[Path, Path]:
    """Find the masks of images: to ROOT/a/b.jpg belongs FOLDER/a/b of any suffix; a PNG comes before others.

    Args:
        paths: The images, all below `root`.
        folder: The masks.
        root: What the folders of images and of masks have in common is counted from here; or the image itself, if it is but one.

    Returns:
        The mask of every image that has one.

    Raises:
        InvalidInputError: No such folder of masks, or an image that is not below `root`.
    """
    folder, root = Path(folder), Path(root)
    if not folder.is_dir():
        raise InvalidInputError(f"no such folder of masks: {folder}")
    masks: dict[Path, Path] = {}
    for mask in sorted(images_below(folder), key=lambda path: path.suffix.lower() not in PREFERRED):
        masks.setdefault(mask.relative_to(folder).with_suffix(""), mask)
    root = root.parent if root.is_file() else root
    places = {path: _below(path, root).with_suffix("") for path in paths}
    return {path: masks[place] for path, place in places.items() if place in masks}


def _below(path: Path, root: Path) -> Path:
    # Links are followed only where the names alone do not tell: a folder of links to photos elsewhere is a folder of photos.
    for one, other in ((path, root), (path.absolute(), root.absolute()), (real_path(path), real_path(root))):
        if one.is_relative_to(other):
            return one.relative_to(other)
    raise InvalidInputError(
        f"expected images below {root}, got {path}; give the folder that lies above all images, as the masks' folder does"
    )


def _meant(image: Image.Image, path: Path) -> Mask:
    threshold = 127 if image.format in ("JPEG", "MPO") else 0
    image = ImageOps.exif_transpose(image)
    if image.mode in ("P", "PA"):
        return _meant_by_index(np.asarray(image if image.mode == "P" else image.getchannel("P")), path)
    opaque = (
        np.asarray(image.getchannel("A")) > 0 if "A" in image.getbands() else np.ones((image.height, image.width), dtype=bool)
    )
    if image.mode == "LA":
        image = image.getchannel("L")
    elif len(image.getbands()) > 1:
        image = image.convert("RGB")  # Of CMYK, full channels are black.
    pixels = np.asarray(image).reshape(image.height, image.width, -1)
    return (pixels > threshold).any(-1) & opaque


def _meant_by_index(indices: np.ndarray, path: Path) -> Mask:
    if set(np.unique(indices).tolist()) == {0, VOID}:
        raise ImageError(
            f"expected a palette image of objects from 1 to {VOID - 1}, got but 0 and {VOID}, the border around objects in PASCAL VOC, "
            f"in {path}; if white is meant, save the mask in gray"
        )
    return (indices > 0) & (indices != VOID)
