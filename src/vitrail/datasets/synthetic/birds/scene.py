"""The scene around a bird: the blurred background, and the light on the finished image."""

import numpy as np
from jaxtyping import Float
from PIL import Image, ImageDraw, ImageFilter

from vitrail.datasets.synthetic.birds.canvas import Canvas, Color
from vitrail.datasets.synthetic.birds.foliage import LEAF, Foliage
from vitrail.datasets.synthetic.birds.geometry import Frame, bend, ribbon
from vitrail.datasets.synthetic.birds.plumage import blend
from vitrail.datasets.synthetic.birds.pose import Skeleton

SKIES: tuple[tuple[Color, Color], ...] = (
    ((158, 202, 236), (232, 238, 214)),
    ((158, 192, 132), (222, 228, 168)),
    ((206, 214, 216), (236, 232, 216)),
    ((112, 146, 122), (182, 198, 148)),
    ((232, 214, 172), (204, 202, 154)),
    ((176, 196, 226), (240, 226, 198)),
)
"""Colors at the top and at the bottom: a clear day, a green wood, mist, a dark wood, autumn, a morning."""

SUN, BARK = (255, 252, 230), (96, 82, 66)


def paint_background(size: int, random: np.random.Generator) -> Image.Image:
    """Paint a square background of sky, trees, spots of light, leaves and twigs; nearer objects are less blurred."""
    top, bottom = SKIES[int(random.integers(len(SKIES)))]
    rows = np.linspace(0, 1, size)[:, None, None]
    sky = np.broadcast_to((1 - rows) * np.array(top) + rows * np.array(bottom), (size, size, 3))
    picture = Image.fromarray(sky.round().astype(np.uint8))
    foliage = Foliage.sample(random)

    pen = ImageDraw.Draw(picture, "RGBA")
    for x, y, across, value in random.random((9, 4)).tolist():
        _paint_disc(pen, size * x, size * y, size * (0.08 + 0.16 * across), foliage.leaf(0.3 + 0.4 * value), 150)
    picture = picture.filter(ImageFilter.GaussianBlur(size * 0.045))

    pen = ImageDraw.Draw(picture, "RGBA")
    for x, y, across, light in random.random((11, 4)).tolist():
        color = blend(foliage.leaf(0.6), SUN, 0.35 + 0.6 * light)
        _paint_disc(pen, size * x, size * y, size * (0.02 + 0.06 * across**2), color, 60 + round(60 * light))
    for x, y, angle, value in random.random((10, 4)).tolist():
        leaf = Frame().joint(size * x, size * y, 2 * np.pi * angle)(LEAF * size * (0.1 + 0.08 * value))
        pen.polygon(leaf.ravel().tolist(), fill=(*foliage.leaf(0.35 + 0.3 * value), 190))
    for start, end, bow in random.random((2, 3)).tolist():
        twig = bend((-0.1, start), (0.5, (start + end) / 2 + 0.4 * (bow - 0.5)), (1.1, end), corners=14)
        pen.polygon((size * ribbon(twig, 0.012, 0.03)).ravel().tolist(), fill=(*BARK, 170))
    return picture.filter(ImageFilter.GaussianBlur(size * 0.012))


def apply_light(canvas: Canvas, skeleton: Skeleton, random: np.random.Generator) -> Float[np.ndarray, "height width 3"]:
    """Return the finished image, from 0 to 255 and not rounded, with shading of the bird, warm or cool light and darker corners."""
    picture, bird = canvas.picture(), canvas.share("bird")
    size = len(picture)
    rows, columns = np.meshgrid(np.arange(size) + 0.5, np.arange(size) + 0.5, indexing="ij")
    center = skeleton.bird.origin
    scale = np.linalg.norm(skeleton.bird.matrix[:, 0])
    side, power = random.uniform(-0.7, 0.7), random.uniform(0.14, 0.24)
    # The bird is shaded like a sphere: brighter towards the sky, darker at the belly.
    facing = (side * (columns - center[0]) - (rows - center[1])) / (0.6 * scale)
    picture = picture * (1 + power * np.clip(facing, -0.6, 1) * bird)[..., None]
    corners = ((rows / size - 0.5) ** 2 + (columns / size - 0.5) ** 2)[..., None]
    brightness, warmth = random.uniform(0.86, 1.1), random.uniform(-0.05, 0.05)
    return picture * brightness * (1 + warmth * np.array([1.0, 0.0, -1.0])) * (1 - 0.3 * corners)


def _paint_disc(pen: ImageDraw.ImageDraw, x: float, y: float, radius: float, color: Color, opacity: int) -> None:
    pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=(*color, opacity))
