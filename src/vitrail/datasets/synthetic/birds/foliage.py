"""Leaves, and the greens of one image."""

from dataclasses import dataclass

import numpy as np

from vitrail.datasets.synthetic.birds.canvas import Color
from vitrail.datasets.synthetic.birds.geometry import ribbon, smooth
from vitrail.datasets.synthetic.birds.plumage import hsv

LEAF = smooth((0.0, 0.0), (0.25, -0.18), (0.6, -0.19), (1.0, 0.0), (0.6, 0.19), (0.25, 0.18), per_knot=5)
LEAF_SHADE = np.concatenate([LEAF[:1], LEAF[15:]])
LEAF_RIB = ribbon(np.array([[0.0, 0.0], [0.5, 0.0], [0.95, 0.0]]), 0.045, 0.01)
"""Outlines of a leaf, from the stalk at (0, 0) to the tip at (1, 0)."""


@dataclass(frozen=True, eq=False)
class Foliage:
    """The greens of one image.

    Args:
        hue: Mean hue of the leaves.
        random: Source of the variation from leaf to leaf.
    """

    hue: float
    random: np.random.Generator

    @classmethod
    def sample(cls, random: np.random.Generator) -> "Foliage":
        """Draw a hue between olive and deep green."""
        return cls(random.uniform(0.16, 0.36), random)

    def leaf(self, value: float) -> Color:
        """Return the color of one leaf of about this brightness."""
        hue, saturation, light = self.random.uniform(-1.0, 1.0, 3).tolist()
        return hsv(self.hue + 0.035 * hue, 0.45 + 0.12 * saturation, value + 0.1 * light)
