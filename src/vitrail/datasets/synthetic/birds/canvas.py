"""A picture that knows whose each of its pixels is."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
from jaxtyping import Float
from PIL import Image, ImageChops, ImageDraw

from vitrail.datasets.synthetic.base import Mask
from vitrail.datasets.synthetic.birds.anatomy import PARTS, Part
from vitrail.datasets.synthetic.birds.geometry import Points

Owner = Part | Literal["scene", "body", "cue"]
Color = tuple[int, int, int]

FINE = 4
"""Every pixel is drawn as this many by this many, and averaged at the end: smooth edges."""

_OWNERS: tuple[Owner, ...] = ("scene", "cue", "body", *PARTS)
_NUMBER = {owner: number for number, owner in enumerate(_OWNERS)}


class Canvas:
    """Polygons painted one over the other on a background, each for an owner; what is visible at last is the owner's.

    Args:
        background: The picture to paint on, at its final size.
    """

    def __init__(self, background: Image.Image) -> None:
        fine = (background.width * FINE, background.height * FINE)
        self._picture = background.resize(fine, Image.Resampling.BILINEAR)
        self._owners = Image.new("L", fine, _NUMBER["scene"])
        self._pen, self._owner_pen = ImageDraw.Draw(self._picture), ImageDraw.Draw(self._owners)

    def fill(self, outline: Points, color: Color, owner: Owner) -> None:
        """Paint a polygon, in pixels of the final picture."""
        corners = (outline * FINE).ravel().tolist()
        self._pen.polygon(corners, fill=color)
        self._owner_pen.polygon(corners, fill=_NUMBER[owner])

    def fill_over(self, outlines: Sequence[Points], color: Color, owner: Owner, over: Owner) -> None:
        """Paint only that much of some polygons as lies over what is visible of another owner (or of itself)."""
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
        """The picture at its final size, 0 to 255."""
        return np.asarray(self._picture.reduce(FINE), dtype=np.float64)

    def share(self, owner: Owner | Literal["bird"]) -> Float[np.ndarray, "height width"]:
        """How much of each pixel is an owner's, 0 to 1; "bird" is its body and parts together."""
        owners = np.asarray(self._owners)
        chosen = owners >= _NUMBER["body"] if owner == "bird" else owners == _NUMBER[owner]
        # The mean of an 8-bit image is rounded; of multiples of FINE**2 it is exact, and half a pixel is half.
        full = 255 // FINE**2 * FINE**2
        return np.asarray(Image.fromarray(chosen * np.uint8(full)).reduce(FINE), dtype=np.float64) / full

    def mask(self, owner: Owner | Literal["bird"]) -> Mask:
        """The pixels of which an owner has more than half."""
        return self.share(owner) > 0.5


def _stencil(chosen: Mask) -> Image.Image:
    return Image.fromarray(chosen * np.uint8(255))
