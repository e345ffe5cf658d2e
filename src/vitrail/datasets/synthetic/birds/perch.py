"""The branch below a bird, with its leaves and berries."""

import numpy as np

from vitrail.datasets.synthetic.birds.canvas import Canvas
from vitrail.datasets.synthetic.birds.foliage import LEAF, LEAF_RIB, LEAF_SHADE, Foliage
from vitrail.datasets.synthetic.birds.geometry import Frame, Points, bend, ellipse, ribbon, shift
from vitrail.datasets.synthetic.birds.plumage import hsv, shade
from vitrail.datasets.synthetic.birds.pose import Skeleton

# Nearly black, like sloes: a bright berry would look like the mark of a species.
BERRY, SHINE, STALK = (64, 54, 78), (150, 144, 160), (92, 78, 60)


def paint_perch(canvas: Canvas, skeleton: Skeleton, size: int, random: np.random.Generator) -> None:
    """Paint a branch below the feet, from edge to edge. It must be painted before the bird, so that it hides no part."""
    foliage = Foliage.sample(random)
    scale = float(np.linalg.norm(skeleton.bird.matrix[:, 0]))
    middle = skeleton.bird(skeleton.feet).mean(axis=0)
    along = Frame(skeleton.bird.matrix / scale, middle).joint(0.0, 0.0, float(np.arctan(skeleton.slope)))
    thick = scale * random.uniform(0.15, 0.2)
    bark = hsv(random.uniform(0.06, 0.1), random.uniform(0.22, 0.4), random.uniform(0.34, 0.48))
    left, right = random.uniform(-0.15, 0.25, 2).tolist()
    # Straight below the bird, then drooping or rising towards the edges of the image.
    before = bend((-1.6 * size, left * size), (-0.5 * scale, 0.0), (0.0, 0.0))
    after = bend((0.0, 0.0), (0.5 * scale, 0.0), (1.6 * size, right * size))
    spine = along(shift(np.concatenate([before[:-1], after]), 0.0, 0.045 * scale + thick / 2))
    _paint_leaves(canvas, spine, scale, foliage, random)
    canvas.fill(ribbon(spine, thick * 0.8, thick * 1.1), bark, "scene")
    canvas.fill(ribbon(shift(spine, 0.0, 0.28 * thick), thick * 0.3, thick * 0.42), shade(bark, 0.78), "scene")
    canvas.fill(ribbon(shift(spine, 0.0, -0.33 * thick), thick * 0.1, thick * 0.2), shade(bark, 1.22), "scene")


def _paint_leaves(canvas: Canvas, spine: Points, scale: float, foliage: Foliage, random: np.random.Generator) -> None:
    for position, angle, value, kind in random.random((13, 4)).tolist():
        x, y = (spine[2 + round(position * (len(spine) - 5))] + scale * random.uniform(-0.15, 0.15, 2)).tolist()
        stalk = Frame().joint(x, y, 2 * np.pi * angle)
        if kind < 0.25:
            _paint_berry(canvas, stalk, scale)
        else:
            length, color = scale * (0.34 + 0.2 * value), foliage.leaf(0.42 + 0.3 * value)
            canvas.fill(stalk(LEAF * length), color, "scene")
            canvas.fill(stalk(LEAF_SHADE * length), shade(color, 0.84), "scene")
            canvas.fill(stalk(LEAF_RIB * length), shade(color, 1.25), "scene")


def _paint_berry(canvas: Canvas, stalk: Frame, scale: float) -> None:
    x, y = stalk.at(0.25 * scale, 0.0).tolist()
    radius = 0.065 * scale
    canvas.fill(stalk(scale * ribbon(np.array([[0.0, 0.0], [0.125, 0.0], [0.25, 0.0]]), 0.03, 0.02)), STALK, "scene")
    canvas.fill(ellipse(x, y, radius, radius, corners=20), BERRY, "scene")
    canvas.fill(ellipse(x - radius / 3, y - radius / 3, radius / 3, radius / 3, corners=10), SHINE, "scene")
