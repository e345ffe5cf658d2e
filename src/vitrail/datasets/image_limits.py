"""How large an image may be: checked in one place, before anything is allocated for its pixels."""

import math
import os
from dataclasses import dataclass

from PIL import Image

from vitrail.core.errors import ImageError, InvalidInputError

MEGA = 1_000_000

VARIABLE = "VITRAIL_MAX_MEGAPIXELS"
"""Environment variable: the largest number of pixels, in millions, instead of `MAX_PIXELS`."""

MAX_PIXELS = 120 * MEGA
"""A few kilobytes can unpack to many gigabytes. A photo of this size takes about 1 GB while it is converted."""

MOST_PIXELS = 178_956_970
"""Pillow's own limit, which `VARIABLE` cannot lift."""

MAX_SIDE = 65_535
"""Pixels; what a JPEG can hold."""

MAX_ASPECT = 10_000
"""Longer side over shorter side. What a network sees bounds it further: `vitrail.adapters.preprocessing.refuse_thin`."""

MAX_BYTES = 1000 * MEGA
"""Of an image file."""

MAX_TEXT_PIXELS = 4 * MEGA
"""Of an image whose pixels are written as text (PPM): reading it takes a hundred times as long."""


@dataclass(frozen=True)
class Bounds:
    """The largest image that is opened.

    Attributes:
        num_pixels: Width times height.
        remedy: What to do about a larger one.
    """

    num_pixels: int = MAX_PIXELS
    remedy: str = "scale it down first"

    def check(self, image: Image.Image, name: str) -> None:
        """Refuse an image that is open but not decoded.

        Raises:
            ImageError: It has too many pixels, or is too long or too thin.
        """
        width, height = image.size
        size = f"{width}x{height} pixels"
        if width * height > self.num_pixels:
            raise self.too_large(name, size)
        if max(width, height) > MAX_SIDE:
            raise ImageError(
                f"expected an image of at most {MAX_SIDE:,} pixels a side, got {name} ({size}); cut or scale it down first"
            )
        if max(width, height) > MAX_ASPECT * min(width, height):
            raise ImageError(
                f"expected an image whose longer side is at most {MAX_ASPECT:,} times the shorter one, got {name} ({size}); crop it first"
            )
        # A decoder allocates whole tiles, however small the image is.
        tags = getattr(image, "tag_v2", {})
        tile = [tags.get(tag) or 0 for tag in (322, 323)]
        if all(isinstance(side, int) for side in tile) and (math.prod(tile) > self.num_pixels or max(tile) > MAX_SIDE):
            raise self.too_large(name, f"tiles of {tile[0]}x{tile[1]} pixels")
        if width * height > MAX_TEXT_PIXELS and any(tile[0].endswith("_plain") for tile in getattr(image, "tile", [])):
            raise ImageError(
                f"expected at most {MAX_TEXT_PIXELS:,} pixels in an image that is written as text, got {name} ({size}); save it as PNG"
            )

    def too_large(self, name: str, size: str) -> ImageError:
        """The error for an image with too many pixels."""
        return ImageError(f"expected an image of at most {self.num_pixels:,} pixels, got {name} ({size}); {self.remedy}")


def default_bounds() -> Bounds:
    """What holds where nothing else is asked for: `MAX_PIXELS`, or what the environment says.

    Raises:
        InvalidInputError: `VARIABLE` is no number between 0 and Pillow's own limit.
    """
    text = os.environ.get(VARIABLE, "").strip()
    if not text:
        return Bounds(remedy=f"scale it down first, or set {VARIABLE}")
    try:
        count = float(text) * MEGA
    except ValueError:
        count = math.nan
    if not 1 <= count <= MOST_PIXELS:
        raise InvalidInputError(
            f"expected {VARIABLE} to be a number between 0.000001 and {MOST_PIXELS / MEGA:.2f}, got {text!r}"
        )
    return Bounds(int(count))
