"""Conversion of decoded images, of any mode and sample depth, to upright 8-bit RGB."""

from collections.abc import Callable
from functools import partial

import numpy as np
from PIL import Image, ImageChops, ImageOps

from vitrail.adapters.spectral_photo import SpectralPhoto
from vitrail.core.errors import ImageError

_16_BIT_MODES = ("I;16", "I;16L", "I;16B", "I;16N")
_16_BIT_FORMATS = ("PNG", "PPM")
"""Formats whose samples have at most 16 bits, although Pillow opens some of them in the 32-bit mode "I"."""

_ORIENTATION, _BITS_PER_SAMPLE, _PHOTOMETRIC = 0x0112, 258, 262

_BAND = 1 << 22
"""Pixels that are converted at a time, since conversions in several steps need several copies in memory."""


def to_rgb(image: Image.Image) -> Image.Image:
    """Return a decoded image as upright 8-bit RGB, by the rules of `vitrail.datasets.image_io.open_image`; a spectral photo as it is.

    Raises:
        ImageError: Samples are floating-point numbers outside [0, 1], or 32-bit integers, whose white level is unknown.
    """
    if isinstance(image, SpectralPhoto):
        return image
    convert = _choose_conversion(image)
    if image.getexif().get(_ORIENTATION, 1) != 1:
        image = ImageOps.exif_transpose(image)
    num_rows = max(_BAND // max(image.width, 1), 1)
    if image.height <= num_rows or convert is _convert_opaque:
        return convert(image)
    converted = Image.new("RGB", image.size)
    for top in range(0, image.height, num_rows):
        band = image.crop((0, top, image.width, min(top + num_rows, image.height)))
        converted.paste(convert(band), (0, top))
    return converted


def _choose_conversion(image: Image.Image) -> Callable[[Image.Image], Image.Image]:
    """Return a function that converts any band of rows of an image to 8-bit RGB."""
    tags = getattr(image, "tag_v2", {})
    if image.mode in _16_BIT_MODES:
        num_bits = max(tags.get(_BITS_PER_SAMPLE, (16,)))
        return partial(_convert_16_bit, divisor=2 ** (num_bits - 8), white_is_zero=tags.get(_PHOTOMETRIC) == 0)
    if image.mode == "I":
        if image.format in _16_BIT_FORMATS:
            return partial(_convert_16_bit, divisor=256)
        raise ImageError(
            "expected samples of 8 or 16 bits, got 32-bit integers, whose white level is unknown; save the image with 8 or 16 bits"
        )
    if image.mode == "F":
        _expect_unit_range(image)
        return _convert_float
    return _blend_over_white if image.has_transparency_data else _convert_opaque


def _convert_16_bit(image: Image.Image, divisor: int, white_is_zero: bool = False) -> Image.Image:
    # Pillow's own conversion clips at 255 instead of scaling.
    gray = image.convert("I").point(lambda value: value / divisor).convert("L")
    return (ImageChops.invert(gray) if white_is_zero else gray).convert("RGB")


def _expect_unit_range(image: Image.Image) -> None:
    samples = np.asarray(image)
    # Written so that NaN is refused too.
    if not ((samples >= 0) & (samples <= 1)).all():
        raise ImageError(
            "expected floating-point samples between 0 (black) and 1 (white), got values from "
            f"{np.nanmin(samples):g} to {np.nanmax(samples):g}, or NaN; scale them, or save the image with 8 or 16 bits"
        )


def _convert_float(image: Image.Image) -> Image.Image:
    return Image.fromarray((np.asarray(image) * 255).round().astype(np.uint8)).convert("RGB")


def _blend_over_white(image: Image.Image) -> Image.Image:
    rgba = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")


def _convert_opaque(image: Image.Image) -> Image.Image:
    return image.convert("RGB")
