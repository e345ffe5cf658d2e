"""Contact sheets of images beside what is known to decide their class."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float
from matplotlib.figure import Figure
from PIL import Image

from vitrail.core.files import atomic_write

MAX_PAIRS = 24
"""A sheet of more is cut here."""

PAIRS_PER_LINE = 4


class GroundTruthExample(NamedTuple):
    """An image and what decides its class.

    Attributes:
        image: 8-bit RGB.
        answer: True where the class is decided.
        title: Above the image.
    """

    image: Image.Image
    answer: Bool[np.ndarray, "height width"]
    title: str


def ground_truth_sheet(examples: Sequence[GroundTruthExample], path: str | Path) -> None:
    """Draw images, the first `MAX_PAIRS` of them, each beside itself with all but the answer faded."""
    examples = examples[:MAX_PAIRS]
    num_lines = -(-len(examples) // PAIRS_PER_LINE)
    figure = Figure(figsize=(3.2 * PAIRS_PER_LINE, 1.85 * num_lines), layout="constrained")
    cells = figure.subplots(num_lines, 2 * PAIRS_PER_LINE, squeeze=False)
    for axes in cells.flat:
        axes.axis("off")
    for (left, right), example in zip(cells.reshape(-1, 2), examples, strict=False):
        left.imshow(example.image)
        left.set_title(example.title, fontsize=9)
        right.imshow(faded_beside(example.image, example.answer))
        right.set_title("answer" if example.answer.any() else "answer: nowhere", fontsize=9, color="0.4")
    with atomic_write(path) as partial:
        figure.savefig(partial, dpi=110)


def faded_beside(image: Image.Image, kept: Bool[np.ndarray, "height width"] | Float[np.ndarray, "height width"]) -> Image.Image:
    """The image with all but what is kept faded; by degrees where numbers between 0 and 1 say how far."""
    gray = image.convert("L").convert("RGB")
    faded = Image.blend(gray, Image.new("RGB", gray.size, "white"), 0.7)
    return Image.composite(image, faded, Image.fromarray((kept * 255.0).round().astype(np.uint8)))
