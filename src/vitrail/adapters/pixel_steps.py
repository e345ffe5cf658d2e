"""The images at the points of insertion and deletion curves over pixels, each drawn from the one before it."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from vitrail.core.errors import InvalidInputError
from vitrail.core.types import Baseline, Images


class PixelStep(NamedTuple):
    """A point of a curve.

    Attributes:
        inserts: Whether changed pixels show the image, and the others the baseline; or the other way around.
        num_changed: Number of changed pixels.
    """

    inserts: bool
    num_changed: int


def distinct_steps(
    thresholds: Float[Tensor, " s"], keep_low: Bool[Tensor, " s"], num_pixels: int
) -> tuple[list[PixelStep], list[int]]:
    """Return the points whose images differ, and the index of each given point among them.

    Insertion ends, and deletion begins, with the whole image.

    Args:
        thresholds: Number of pixels that have changed at every point; may be fractional.
        keep_low: Whether changed pixels show the image (insertion), or the others (deletion).
        num_pixels: Number of pixels of an image.
    """
    counts = thresholds.double().cpu().ceil().clamp(0, num_pixels).long().tolist()
    steps = dict[PixelStep, int]()
    index = []
    for inserts, count in zip(keep_low.tolist(), counts, strict=True):
        step = PixelStep(inserts, count)
        if not inserts and count in (0, num_pixels):
            step = PixelStep(True, num_pixels - count)
        index.append(steps.setdefault(step, len(steps)))
    return list(steps), index


class PixelSteps:
    """Draws the images at the points of curves: a copy of the image before, in which only some pixels change.

    Args:
        images: A normalized batch.
        baseline: What replaces removed pixels: one per image, or a batch of one for all.
        ranks: Order in which the pixels change: a permutation from 0 for every image.
        steps: The points of the curves of every image.

    Raises:
        InvalidInputError: `ranks` has ties or gaps.
    """

    def __init__(
        self, images: Images, baseline: Baseline, ranks: Int[Tensor, "b height width"], steps: Sequence[PixelStep]
    ) -> None:
        self.images, self.baseline, self.steps = images, baseline.expand_as(images), steps
        self.order = ranks.flatten(1).argsort(1)
        places = torch.arange(self.order.shape[1], device=ranks.device)
        if not (ranks.flatten(1).gather(1, self.order) == places).all():
            raise InvalidInputError(
                f"expected ranks that are a permutation of 0 to {len(places) - 1} for every image, got others; break ties by argsort"
            )

    def draw(self, pairs: slice) -> Images:
        """Draw some of all pairs of image and point, which are numbered image by image."""
        drawn = self.images.new_empty(pairs.stop - pairs.start, *self.images.shape[1:])
        for position, pair in enumerate(range(pairs.start, pairs.stop)):
            image, number = divmod(pair, len(self.steps))
            step, before = self.steps[number], self.steps[number - 1]
            changed, start = (self.images, self.baseline) if step.inserts else (self.baseline, self.images)
            continues = position and number and before.inserts == step.inserts and before.num_changed <= step.num_changed
            canvas = drawn[position].copy_(drawn[position - 1] if continues else start[image])
            pixels = self.order[image, before.num_changed if continues else 0 : step.num_changed]
            canvas.flatten(1).index_copy_(1, pixels, changed[image].flatten(1).index_select(1, pixels))
        return drawn
