"""A canvas that records which part is visible in every pixel."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
from jaxtyping import Float
from PIL import Image, ImageChops, ImageDraw

from vitrail.datasets.mask_files import Mask
from vitrail.datasets.synthetic.birds.anatomy import PARTS, Part
from vitrail.datasets.synthetic.birds.geometry import Points

Owner = Part | Literal["scene", "body", "cue"]
Color = tuple[int, int, int]

FINE = 4
"""Supersampling factor: the canvas is this many times higher and wider, and averaged at the end for smooth edges."""

_OWNERS: tuple[Owner, ...] = ("scene", "cue", "body", *PARTS)
_NUMBER = {owner: number for number, owner in enumerate(_OWNERS)}


class Canvas:
    """Polygons painted on top of each other, each on behalf of an owner, who owns the pixels where it remains visible.

    Args:
        background: The image to paint on, at its final size.
    """

    def __init__(self, background: Image.Image) -> None:
        fine = (background.width * FINE, background.height * FINE)
        self._picture = background.resize(fine, Image.Resampling.BILINEAR)
        self._owners = Image.new("L", fine, _NUMBER["scene"])
        self._pen, self._owner_pen = ImageDraw.Draw(self._picture), ImageDraw.Draw(self._owners)

    def fill(self, outline: Points, color: Color, owner: Owner) -> None:
        """Paint a polygon, in pixels of the final image."""
        corners = (outline * FINE).ravel().tolist()
        self._pen.polygon(corners, fill=color)
        self._owner_pen.polygon(corners, fill=_NUMBER[owner])

    def fill_over(self, outlines: Sequence[Points], color: Color, owner: Owner, over: Owner) -> None:
        """Paint polygons only where the owner `over` (which may be `owner` itself) is visible."""
        fine = [outline * FINE for outline in outlines]
        corners = np.concatenate(fine)
        left, top = np.maximum(np.floor(corners.min(axis=0)).astype(int), 0).tolist()
        right, bottom = np.minimum(np.ceil(corners.max(axis=0)).astype(int) + 1, self._owners.size).tolist()
        if left >= right or top >= bottom:
            return
        box = (left, top, right, bottom)
        shape = Image.new("L", (right - left, bottom - top))
        pen = ImageDraw.Draw(shape)
        for outline in fine:
            pen.polygon((outline - (left, top)).ravel().tolist(), fill=255)
        stencil = ImageChops.darker(shape, _stencil(np.asarray(self._owners.crop(box)) == _NUMBER[over]))
        self._picture.paste(color, box, stencil)
        if owner != over:
            self._owners.paste(_NUMBER[owner], box, stencil)

    def picture(self) -> Float[np.ndarray, "height width 3"]:
        """Return the image at its final size, from 0 to 255."""
        return np.asarray(self._picture.reduce(FINE), dtype=np.float64)

    def share(self, owner: Owner | Literal["bird"]) -> Float[np.ndarray, "height width"]:
        """Return the share of each pixel that belongs to an owner, from 0 to 1; "bird" is the body and all parts together."""
        owners = np.asarray(self._owners)
        chosen = owners >= _NUMBER["body"] if owner == "bird" else owners == _NUMBER[owner]
        # Means of 8-bit images are rounded, but means over multiples of FINE**2 are exact.
        full = 255 // FINE**2 * FINE**2
        return np.asarray(Image.fromarray(chosen * np.uint8(full)).reduce(FINE), dtype=np.float64) / full

    def mask(self, owner: Owner | Literal["bird"]) -> Mask:
        """Return the pixels of which more than half belongs to an owner."""
        return self.share(owner) > 0.5


def _stencil(chosen: Mask) -> Image.Image:
    return Image.fromarray(chosen * np.uint8(255))
