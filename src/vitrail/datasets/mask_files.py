"""Masks and their files: which file belongs to an image, and which of its pixels belong to the mask."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Bool
from PIL import Image, ImageOps

from vitrail.core.errors import ImageError, InvalidInputError
from vitrail.core.files import real_path
from vitrail.datasets.file_search import images_below
from vitrail.datasets.image_io import read_image

Mask = Bool[np.ndarray, "height width"]
"""True for the pixels of a region, in the pixels of the opened image."""

VOID = 255
"""Palette index of the border that PASCAL VOC draws around objects: neither object nor background."""

PREFERRED_SUFFIXES = (".png",)

OBJECT, BACKGROUND, BORDER = 1, 2, 3
"""Pixels of a trimap, as in Oxford-IIIT Pet."""


def read_mask(path: str | Path) -> Mask:
    """Read a mask, upright: True for pixels above zero.

    Of several channels, one above zero suffices; fully transparent pixels are False whatever their color. In a palette image, the index
    counts instead of the color, and `VOID` is False. In a JPEG, where black is not exactly zero, pixels above half of white are True.

    Raises:
        ImageError: The file is missing, damaged or not an image; or it is a palette image with the indices 0 and `VOID` only, which is
            ambiguous; or a trimap, whose background is not zero.
    """
    return read_image(path, lambda image: _to_mask(image, Path(path)))


def read_trimap(path: str | Path) -> Mask:
    """Read a trimap: True on the object. Its border is as uncertain as `VOID`, and False too.

    Raises:
        ImageError: The file is missing, damaged or not an image, or has other pixels.
    """

    def to_mask(image: Image.Image) -> Mask:
        pixels = np.asarray(ImageOps.exif_transpose(image))
        if not _is_trimap(pixels):
            raise ImageError(
                f"expected a trimap of {OBJECT} (object), {BACKGROUND} and {BORDER} (border), got other pixels in {path}"
            )
        return pixels == OBJECT

    return read_image(path, to_mask)


def masks_by_image(paths: Sequence[Path], folder: str | Path, root: str | Path) -> dict[Path, Path]:
    """Find the masks of images: the mask of ROOT/a/b.jpg is FOLDER/a/b with any suffix of an image, preferably .png.

    Args:
        paths: Images below `root`.
        root: Folder whose sub-folders `folder` mirrors; or the image itself, if there is only one.

    Returns:
        The mask of every image that has one.

    Raises:
        InvalidInputError: The folder of masks does not exist, or an image is not below `root`.
    """
    folder, root = Path(folder), Path(root)
    if not folder.is_dir():
        raise InvalidInputError(f"no such folder of masks: {folder}")
    masks: dict[Path, Path] = {}
    for mask in sorted(images_below(folder), key=lambda path: path.suffix.lower() not in PREFERRED_SUFFIXES):
        masks.setdefault(mask.relative_to(folder).with_suffix(""), mask)
    root = root.parent if root.is_file() else root
    names = {path: _relative_path(path, root).with_suffix("") for path in paths}
    return {path: masks[name] for path, name in names.items() if name in masks}


def _relative_path(path: Path, root: Path) -> Path:
    # Links are resolved only as the last resort: a folder of links to photos elsewhere still is the folder of these photos.
    for image, folder in ((path, root), (path.absolute(), root.absolute()), (real_path(path), real_path(root))):
        if image.is_relative_to(folder):
            return image.relative_to(folder)
    raise InvalidInputError(
        f"expected images below {root}, got {path}; give the folder that contains all images and is mirrored by the folder of masks"
    )


def _to_mask(image: Image.Image, path: Path) -> Mask:
    threshold = 127 if image.format in ("JPEG", "MPO") else 0
    image = ImageOps.exif_transpose(image)
    if image.mode in ("P", "PA"):
        return _palette_to_mask(np.asarray(image if image.mode == "P" else image.getchannel("P")), path)
    visible = (
        np.asarray(image.getchannel("A")) > 0 if "A" in image.getbands() else np.ones((image.height, image.width), dtype=bool)
    )
    if image.mode == "LA":
        image = image.getchannel("L")
    elif len(image.getbands()) > 1:
        image = image.convert("RGB")  # In CMYK, full channels are black.
    if _is_trimap(np.asarray(image)) and (np.asarray(image) == BACKGROUND).any():
        raise ImageError(
            f"expected a mask that is 0 outside of the object, got a trimap, which is {BACKGROUND} there, in {path}; score with --data-set "
            "oxford-pets, which reads trimaps, or save it as a mask"
        )
    pixels = np.asarray(image).reshape(image.height, image.width, -1)
    return (pixels > threshold).any(-1) & visible


def _palette_to_mask(indices: np.ndarray, path: Path) -> Mask:
    if set(np.unique(indices).tolist()) == {0, VOID}:
        raise ImageError(
            f"expected a palette image with objects from 1 to {VOID - 1}, got only 0 and {VOID}, the border around objects in PASCAL VOC, "
            f"in {path}; if {VOID} is the object, save the mask in gray"
        )
    return (indices > 0) & (indices != VOID)


def _is_trimap(pixels: np.ndarray) -> bool:
    return pixels.ndim == 2 and bool(np.isin(pixels, (OBJECT, BACKGROUND, BORDER)).all())
