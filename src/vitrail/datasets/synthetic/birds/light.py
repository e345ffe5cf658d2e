"""The light that falls on a finished picture: round bodies, a warm or a cool day, darker corners."""

import numpy as np
from jaxtyping import Float

from vitrail.datasets.synthetic.birds.canvas import Canvas
from vitrail.datasets.synthetic.birds.pose import Skeleton


def lit(canvas: Canvas, skeleton: Skeleton, random: np.random.Generator) -> Float[np.ndarray, "height width 3"]:
    """Return the picture in its light, 0 to 255, not rounded."""
    picture, bird = canvas.picture(), canvas.share("bird")
    size = len(picture)
    rows, columns = np.meshgrid(np.arange(size) + 0.5, np.arange(size) + 0.5, indexing="ij")
    center = skeleton.bird.origin
    scale = np.linalg.norm(skeleton.bird.matrix[:, 0])
    side, power = random.uniform(-0.7, 0.7), random.uniform(0.14, 0.24)
    # A bird is about as round as a ball: the side that faces the sky is brighter, the belly darker.
    facing = (side * (columns - center[0]) - (rows - center[1])) / (0.6 * scale)
    picture = picture * (1 + power * np.clip(facing, -0.6, 1) * bird)[..., None]
    corners = ((rows / size - 0.5) ** 2 + (columns / size - 0.5) ** 2)[..., None]
    brightness, warmth = random.uniform(0.86, 1.1), random.uniform(-0.05, 0.05)
    return picture * brightness * (1 + warmth * np.array([1.0, 0.0, -1.0])) * (1 - 0.3 * corners)
