"""DETR's geometric augmentation: the whole image or a random part of it, with its aspect ratio, at a random size.

Source: Carion et al. 2020, arXiv:2005.12872, appendix A.4, with the numbers of the published code.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from PIL import Image
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import Compose, RandomChoice, RandomCrop, RandomHorizontalFlip
from torchvision.transforms.v2.functional import resize

from vitrail.adapters.resizing import refuse_thin, resize_within

SIDES = (480, 512, 544, 576, 608, 640, 672, 704, 736, 768, 800)
"""Choices for the shorter side of the result."""

SIDES_BEFORE_CROP = (400, 500, 600)
"""Choices for the shorter side before a random crop."""

CROP_RANGE = (384, 600)
"""Smallest and largest side of that crop."""

SHORTER_SIDE = 800
"""The shorter side of DETR's images in evaluation, to which the numbers above refer."""


def detr_geometry(
    size: tuple[int, int], interpolation: InterpolationMode, horizontal_flip: float
) -> Callable[[Image.Image], Image.Image]:
    """Return a transform that flips a photo at random and resizes it, or with probability 1/2 a random crop of it, to a random size.

    All of DETR's numbers are scaled to the given limit of the shorter side, and rounded.

    Args:
        size: Limits of the two sides in evaluation, in any order; DETR uses 800 and 1333.
        interpolation: Interpolation for resizing.
        horizontal_flip: Probability of a flip.
    """

    def scale_to_size(pixels: int) -> int:
        return max(round(pixels * min(size) / SHORTER_SIDE), 1)

    resize_randomly = RandomShorterSide([scale_to_size(side) for side in SIDES], max(size), interpolation)
    resize_before_crop = RandomShorterSide([scale_to_size(side) for side in SIDES_BEFORE_CROP], None, interpolation)
    crop = RandomSizeCrop(scale_to_size(CROP_RANGE[0]), scale_to_size(CROP_RANGE[1]))
    return Compose(
        [
            RandomHorizontalFlip(horizontal_flip),
            RandomChoice([resize_randomly, Compose([resize_before_crop, crop, resize_randomly])]),
        ]
    )


@dataclass(frozen=True)
class RandomShorterSide:
    """Resize a photo, with its aspect ratio, to a random choice of the shorter side.

    Not torchvision's `RandomShortestSize`, which rounds differently from the preprocessing in evaluation, and rounds the shorter side of
    a thin photo to zero.
    """

    sides: Sequence[int]
    longest: int | None
    interpolation: InterpolationMode

    def __call__(self, image: Image.Image) -> Image.Image:
        side = self.sides[int(torch.randint(len(self.sides), ()))]
        size = resize_within(image.height, image.width, side, self.longest)
        refuse_thin(image, size)
        return resize(image, list(size), self.interpolation)


@dataclass(frozen=True)
class RandomSizeCrop:
    """Crop a photo to a random part; both sides are drawn independently, up to the size of the photo."""

    smallest: int
    largest: int

    def __call__(self, image: Image.Image) -> Image.Image:
        return RandomCrop((self._draw_side(image.height), self._draw_side(image.width)))(image)

    def _draw_side(self, side: int) -> int:
        largest = min(self.largest, side)
        return int(torch.randint(min(self.smallest, largest), largest + 1, ()))
