"""The spurious cue: a flower beside the bird, whose color is correlated with the class."""

import numpy as np

from vitrail.datasets.synthetic.birds.anatomy import SPECIES
from vitrail.datasets.synthetic.birds.canvas import Canvas
from vitrail.datasets.synthetic.birds.geometry import Frame, ellipse, shift
from vitrail.datasets.synthetic.birds.plumage import hsv, shade
from vitrail.datasets.synthetic.birds.pose import Skeleton

PETAL = ellipse(0.6, 0.0, 0.4, 0.27, corners=16)
HEART = ellipse(0.0, 0.0, 0.34, 0.34, corners=16)


def choose_cue(label: int, num_classes: int, spurious: float, random: np.random.Generator) -> int:
    """Return the class that the flower indicates: `label` with probability `spurious`, else a random other class."""
    agrees, step = random.random() < spurious, 1 + int(random.random() * (num_classes - 1))
    return label if agrees else (label + step) % num_classes


def paint_cue(canvas: Canvas, cue: int | None, skeleton: Skeleton, size: int, random: np.random.Generator) -> None:
    """Paint the flower of class `cue` away from the bird, or nothing for None; both use the same number of random numbers."""
    radius, turn = size * random.uniform(0.085, 0.105), random.uniform(0.0, 1.0)
    centers = random.uniform(1.1 * radius, size - 1.1 * radius, (12, 2))
    if cue is None:
        return
    # The first center that is far enough from the bird, or else the farthest.
    distances = np.linalg.norm(centers[:, None] - skeleton.reach()[None], axis=2).min(axis=1)
    x, y = centers[int(np.argmax(np.minimum(distances, 1.4 * radius)))].tolist()
    petals = hsv(cue / len(SPECIES), 0.75, 0.95)
    for petal in range(5):
        frame = Frame().joint(x, y, 2 * np.pi * (petal + turn) / 5)
        canvas.fill(frame(PETAL * radius), shade(petals, 0.9 + 0.05 * (petal % 3)), "cue")
    canvas.fill(shift(HEART * radius, x, y), (92, 58, 30), "cue")
