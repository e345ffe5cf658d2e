"""DETR's geometry of training images: whole or in part, in their own proportions, at a random size.

Source: Carion et al. 2020, arXiv:2005.12872, appendix A.4, in the numbers of its code.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from PIL import Image
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import Compose, RandomChoice, RandomCrop, RandomHorizontalFlip
from torchvision.transforms.v2.functional import resize

from vitrail.adapters.preprocessing import refuse_thin, resize_within

SIDES = (480, 512, 544, 576, 608, 640, 672, 704, 736, 768, 800)
"""What the shorter side may become."""

SIDES_TO_CUT = (400, 500, 600)
"""What the shorter side may become before a part is cut out."""

PART = (384, 600)
"""Smallest and largest side of that part."""

SHORTER_SIDE = 800
"""The shorter side of DETR's images in evaluation, for which these numbers are meant."""


def detr_geometry(
    size: tuple[int, int], interpolation: InterpolationMode, horizontal_flip: float
) -> Callable[[Image.Image], Image.Image]:
    """Flip a photo, and bring the whole of it, or as often a random part, to a random size.

    All numbers are scaled by the limit of the shorter side, and rounded.

    Args:
        size: The limits of the two sides in evaluation, in any order; DETR's are 800 and 1333.
        interpolation: Of resizing.
        horizontal_flip: Probability.
    """

    def scaled(pixels: int) -> int:
        return max(round(pixels * min(size) / SHORTER_SIDE), 1)

    resized = RandomShorterSide([scaled(side) for side in SIDES], max(size), interpolation)
    before = RandomShorterSide([scaled(side) for side in SIDES_TO_CUT], None, interpolation)
    part = RandomPart(scaled(PART[0]), scaled(PART[1]))
    geometry: Callable[[Image.Image], Image.Image] = Compose(
        [
            RandomHorizontalFlip(horizontal_flip),
            RandomChoice([resized, Compose([before, part, resized])]),
        ]
    )
    return geometry


@dataclass(frozen=True)
class RandomShorterSide:
    """Resizes a photo in its own proportions, to one of several shorter sides.

    torchvision's `RandomShortestSize` rounds otherwise than images of evaluation are rounded, and a thin photo down to nothing.
    """

    sides: Sequence[int]
    longest: int | None
    interpolation: InterpolationMode

    def __call__(self, image: Image.Image) -> Image.Image:
        side = self.sides[int(torch.randint(len(self.sides), ()))]
        size = resize_within(image.height, image.width, side, self.longest)
        refuse_thin(image, size)
        resized: Image.Image = resize(image, list(size), self.interpolation)
        return resized


@dataclass(frozen=True)
class RandomPart:
    """Cuts out a random part of a photo; each of its sides is drawn by itself, and is at most the photo's."""

    smallest: int
    largest: int

    def __call__(self, image: Image.Image) -> Image.Image:
        part: Image.Image = RandomCrop((self._side(image.height), self._side(image.width)))(image)
        return part

    def _side(self, side: int) -> int:
        largest = min(self.largest, side)
        return int(torch.randint(min(self.smallest, largest), largest + 1, ()))
