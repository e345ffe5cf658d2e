"""Conversion of decoded images, of any mode and sample depth, to upright 8-bit RGB."""

from collections.abc import Callable
from functools import partial

import numpy as np
from PIL import Image, ImageChops, ImageOps

from vitrail.adapters.spectral_photo import SpectralPhoto
from vitrail.core.errors import ImageError
from vitrail.datasets.windowing import add_note, stretch

_16_BIT_MODES = ("I;16", "I;16L", "I;16B", "I;16N")
_16_BIT_FORMATS = ("PNG", "PPM")
"""Formats whose samples have at most 16 bits, although Pillow opens some of them in the 32-bit mode "I"."""

_ORIENTATION, _BITS_PER_SAMPLE, _PHOTOMETRIC = 0x0112, 258, 262

_DEPTH = 16

_BAND = 1 << 22
"""Pixels that are converted at a time, since conversions in several steps need several copies in memory."""


def to_rgb(image: Image.Image) -> Image.Image:
    """Return a decoded image as upright 8-bit RGB, by the rules of `vitrail.datasets.image_io.open_image`; a spectral photo as it is.

    Gray samples of 16 bits are windowed by their range, since scanners and microscopes use a small part of it: the darkest one becomes
    black and the brightest one white. The log and `vitrail.datasets.windowing.read_note` say so.

    Raises:
        ImageError: Samples are floating-point numbers outside [0, 1], or 32-bit integers, whose white level is unknown.
    """
    if isinstance(image, SpectralPhoto):
        return image
    convert, note = _choose_conversion(image)
    converted = _convert_upright(image, convert)
    if note:
        add_note(converted, note)
    return converted


def _convert_upright(image: Image.Image, convert: Callable[[Image.Image], Image.Image]) -> Image.Image:
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


def _choose_conversion(image: Image.Image) -> tuple[Callable[[Image.Image], Image.Image], str]:
    """Return a function that converts any band of rows of an image to 8-bit RGB, and a note about its window, if it has one."""
    num_bits = max(getattr(image, "tag_v2", {}).get(_BITS_PER_SAMPLE, (_DEPTH,)))
    if image.mode in _16_BIT_MODES:
        return _choose_window(image, num_bits)
    if image.mode == "I":
        if image.format in _16_BIT_FORMATS or (image.format == "TIFF" and num_bits <= _DEPTH):
            return _choose_window(image, num_bits)
        raise ImageError(
            "expected samples of 8 or 16 bits, got 32-bit integers, whose white level is unknown; save the image with 8 or 16 bits"
        )
    if image.mode == "F":
        _expect_unit_range(image)
        return _convert_float, ""
    return _blend_over_white if image.has_transparency_data else _convert_opaque, ""


def _choose_window(image: Image.Image, num_bits: int) -> tuple[Callable[[Image.Image], Image.Image], str]:
    samples, depth = np.asarray(image), (0, 2**num_bits - 1)
    span = int(samples.min()), int(samples.max())
    low, high = span if span[0] < span[1] else depth  # A single gray level has no range.
    white_is_zero = getattr(image, "tag_v2", {}).get(_PHOTOMETRIC) == 0
    colors = "white to black" if white_is_zero else "black to white"
    note = f"16-bit gray samples from {low:,} to {high:,}, drawn from {colors}" if (low, high) != depth else ""
    return partial(_convert_16_bit, low=low, high=high, white_is_zero=white_is_zero), note


def _convert_16_bit(image: Image.Image, low: int, high: int, white_is_zero: bool) -> Image.Image:
    # Pillow's own conversion clips at 255 instead of scaling.
    gray = Image.fromarray(stretch(np.asarray(image), low, high))
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
