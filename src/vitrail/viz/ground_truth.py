"""Contact sheets of images beside the pixels that decide their class."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float
from matplotlib.figure import Figure
from PIL import Image

from vitrail.core.files import atomic_write

MAX_PAIRS = 24
"""Largest number of images on a sheet."""

PAIRS_PER_LINE = 4


class GroundTruthExample(NamedTuple):
    """An image with its ground truth.

    Attributes:
        image: 8-bit RGB.
        mask: True at the pixels that decide the class.
        title: Text above the image.
    """

    image: Image.Image
    mask: Bool[np.ndarray, "height width"]
    title: str


def ground_truth_sheet(examples: Sequence[GroundTruthExample], path: str | Path) -> None:
    """Draw the first `MAX_PAIRS` images, each beside a copy in which everything outside of its mask is faded."""
    examples = examples[:MAX_PAIRS]
    num_lines = -(-len(examples) // PAIRS_PER_LINE)
    figure = Figure(figsize=(3.2 * PAIRS_PER_LINE, 1.85 * num_lines), layout="constrained")
    cells = figure.subplots(num_lines, 2 * PAIRS_PER_LINE, squeeze=False)
    for axes in cells.flat:
        axes.axis("off")
    for (left, right), example in zip(cells.reshape(-1, 2), examples, strict=False):
        left.imshow(example.image)
        left.set_title(example.title, fontsize=9)
        right.imshow(fade_outside(example.image, example.mask))
        right.set_title("ground truth" if example.mask.any() else "ground truth: none", fontsize=9, color="0.4")
    with atomic_write(path) as partial:
        figure.savefig(partial, dpi=110)


def fade_outside(image: Image.Image, keep: Bool[np.ndarray, "height width"] | Float[np.ndarray, "height width"]) -> Image.Image:
    """Fade the pixels of an image that are not kept, by degrees where `keep` is between 0 and 1."""
    gray = image.convert("L").convert("RGB")
    faded = Image.blend(gray, Image.new("RGB", gray.size, "white"), 0.7)
    return Image.composite(image, faded, Image.fromarray((keep * 255.0).round().astype(np.uint8)))
