"""Size limits of images, checked in one place before any memory is allocated for pixels."""

import math
import os
from dataclasses import dataclass

from PIL import Image

from vitrail.core.errors import ImageError, InvalidInputError

MEGA = 1_000_000

VARIABLE = "VITRAIL_MAX_MEGAPIXELS"
"""Environment variable that replaces `MAX_PIXELS`, in millions of pixels."""

MAX_PIXELS = 120 * MEGA
"""Default limit. A few kilobytes can decompress to many gigabytes; a photo of this size takes about 1 GB during conversion."""

PILLOW_MAX_PIXELS = 178_956_970
"""Pillow's own limit, the largest value that `VARIABLE` may set."""

MAX_SIDE = 65_535
"""Longest side in pixels, as in a JPEG."""

MAX_ASPECT = 10_000
"""Longer side over shorter side. Preprocessing has a stricter limit: `vitrail.adapters.resizing.refuse_thin`."""

MAX_BYTES = 1000 * MEGA
"""Largest image file."""

MAX_TEXT_PIXELS = 4 * MEGA
"""Limit for images whose pixels are written as text (PPM), which take a hundred times as long to read."""

_TILE_WIDTH, _TILE_HEIGHT = 322, 323


class ImageSize(Image.Image):
    """An image without pixels, to check its size before there are any."""

    def __init__(self, width: int, height: int) -> None:
        super().__init__()
        self._size = width, height


@dataclass(frozen=True)
class Bounds:
    """The largest image that is opened.

    Attributes:
        num_pixels: Maximum of width times height.
        remedy: What the error message recommends for a larger image.
    """

    num_pixels: int = MAX_PIXELS
    remedy: str = "scale it down first"

    def check(self, image: Image.Image, name: str) -> None:
        """Check the size of an image that is opened but not decoded.

        Raises:
            ImageError: It has too many pixels, or is too long or too thin.
        """
        width, height = image.size
        size = f"{width}x{height} pixels"
        if width * height > self.num_pixels:
            raise self.too_large(name, size)
        if max(width, height) > MAX_SIDE:
            raise ImageError(
                f"expected an image of at most {MAX_SIDE:,} pixels a side, got {name} ({size}); crop or scale it down first"
            )
        if max(width, height) > MAX_ASPECT * min(width, height):
            raise ImageError(
                f"expected an image whose longer side is at most {MAX_ASPECT:,} times the shorter one, got {name} ({size}); crop it first"
            )
        # A TIFF decoder allocates whole tiles, however small the image is.
        tags = getattr(image, "tag_v2", {})
        tile = [tags.get(tag) or 0 for tag in (_TILE_WIDTH, _TILE_HEIGHT)]
        if all(isinstance(side, int) for side in tile) and (math.prod(tile) > self.num_pixels or max(tile) > MAX_SIDE):
            raise self.too_large(name, f"tiles of {tile[0]}x{tile[1]} pixels")
        if width * height > MAX_TEXT_PIXELS and any(tile[0].endswith("_plain") for tile in getattr(image, "tile", [])):
            raise ImageError(
                f"expected at most {MAX_TEXT_PIXELS:,} pixels in an image that is written as text, got {name} ({size}); save it as PNG"
            )

    def too_large(self, name: str, size: str) -> ImageError:
        """Return the error for an image with too many pixels."""
        return ImageError(f"expected an image of at most {self.num_pixels:,} pixels, got {name} ({size}); {self.remedy}")


def default_bounds() -> Bounds:
    """Return the limit set by the environment variable `VARIABLE`, or else `MAX_PIXELS`.

    Raises:
        InvalidInputError: `VARIABLE` is not a positive number up to Pillow's own limit.
    """
    text = os.environ.get(VARIABLE, "").strip()
    if not text:
        return Bounds(remedy=f"scale it down first, or set {VARIABLE}")
    try:
        num_pixels = float(text) * MEGA
    except ValueError:
        num_pixels = math.nan
    if not 1 <= num_pixels <= PILLOW_MAX_PIXELS:
        raise InvalidInputError(
            f"expected {VARIABLE} to be a number between 0.000001 and {PILLOW_MAX_PIXELS / MEGA:.2f}, got {text!r}"
        )
    return Bounds(int(num_pixels))
