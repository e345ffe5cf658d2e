"""From an image's own samples, of any kind, to 8-bit RGB."""

from collections.abc import Callable
from functools import partial

import numpy as np
from PIL import Image, ImageChops, ImageOps

from vitrail.core.errors import ImageError

_SIXTEEN_BIT = ("I;16", "I;16L", "I;16B", "I;16N")
_SIXTEEN_BIT_FORMATS = ("PNG", "PPM")
"""Formats whose wide samples hold 16 bits also where Pillow opens them with 32."""

_ORIENTATION, _BITS_PER_SAMPLE, _PHOTOMETRIC = 0x0112, 258, 262

_BAND = 1 << 22
"""Pixels that are converted at once, where that takes several steps: a large photo would be in memory as often."""


def to_rgb(image: Image.Image) -> Image.Image:
    """Return an opened photo as 8-bit RGB, upright, by the rules of `vitrail.datasets.image_io.open_image`.

    Raises:
        ImageError: Floating-point samples outside of [0, 1], or whole ones of 32 bits: nobody knows what is white.
    """
    convert = _conversion(image)
    if image.getexif().get(_ORIENTATION, 1) != 1:
        image = ImageOps.exif_transpose(image)
    rows = max(_BAND // max(image.width, 1), 1)
    if image.height <= rows or convert is _opaque:
        return convert(image)
    converted = Image.new("RGB", image.size)
    for top in range(0, image.height, rows):
        converted.paste(convert(image.crop((0, top, image.width, min(top + rows, image.height)))), (0, top))
    return converted


def _conversion(image: Image.Image) -> Callable[[Image.Image], Image.Image]:
    """What makes any part of an image 8-bit RGB."""
    tags = getattr(image, "tag_v2", {})
    if image.mode in _SIXTEEN_BIT:
        bits = max(tags.get(_BITS_PER_SAMPLE, (16,)))
        return partial(_from_wide, divisor=2 ** (bits - 8), white_is_zero=tags.get(_PHOTOMETRIC) == 0)
    if image.mode == "I":
        if image.format in _SIXTEEN_BIT_FORMATS:
            return partial(_from_wide, divisor=256)
        raise ImageError(
            "expected samples of 8 or 16 bits, got 32-bit integers, of which no file says what is white; save the image with 8 or 16 bits"
        )
    if image.mode == "F":
        _expect_shares(image)
        return _from_shares
    return _over_white if image.has_transparency_data else _opaque


def _from_wide(image: Image.Image, divisor: int, white_is_zero: bool = False) -> Image.Image:
    # Pillow's own conversion clips at 255.
    gray = image.convert("I").point(lambda value: value / divisor).convert("L")
    return (ImageChops.invert(gray) if white_is_zero else gray).convert("RGB")


def _expect_shares(image: Image.Image) -> None:
    samples = np.asarray(image)
    # What is no number lies between no others.
    if not ((samples >= 0) & (samples <= 1)).all():
        raise ImageError(
            "expected floating-point samples between 0 (black) and 1 (white), got some from "
            f"{np.nanmin(samples):g} to {np.nanmax(samples):g}, or no numbers; scale them, or save the image with 8 or 16 bits"
        )


def _from_shares(image: Image.Image) -> Image.Image:
    return Image.fromarray((np.asarray(image) * 255).round().astype(np.uint8)).convert("RGB")


def _over_white(image: Image.Image) -> Image.Image:
    rgba = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")


def _opaque(image: Image.Image) -> Image.Image:
    return image.convert("RGB")
