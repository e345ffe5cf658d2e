"""Colors of birds: shared colors vary from bird to bird, and colors that mark a species keep their hue."""

import colorsys
from dataclasses import dataclass

import numpy as np

from vitrail.datasets.synthetic.birds.canvas import Color

BACKS = ((0.58, 0.24, 0.56), (0.2, 0.32, 0.52), (0.08, 0.36, 0.52), (0.6, 0.05, 0.56), (0.47, 0.2, 0.5))
"""Hue, saturation and value of the back: slate, olive, brown, gray, sea green. Muted, to differ from the marks of all species."""


def hsv(hue: float, saturation: float, value: float) -> Color:
    """Convert hue, saturation and value, each from 0 to 1, to 8-bit RGB."""
    red, green, blue = colorsys.hsv_to_rgb(hue % 1.0, min(max(saturation, 0.0), 1.0), min(max(value, 0.0), 1.0))
    return round(255 * red), round(255 * green), round(255 * blue)


def shade(color: Color, factor: float) -> Color:
    """Return a lighter (`factor` above 1) or darker color."""
    red, green, blue = (min(max(round(channel * factor), 0), 255) for channel in color)
    return red, green, blue


def blend(a: Color, b: Color, share: float) -> Color:
    """Return a mix of two colors; `share` is the share of the second."""
    red, green, blue = (round(x + (y - x) * share) for x, y in zip(a, b, strict=True))
    return red, green, blue


@dataclass(frozen=True)
class Plumage:
    """The colors of one bird, independent of its species.

    Attributes:
        vivid: Brightness factor, about 1, of the colors that mark a species.
    """

    back: Color
    wing: Color
    tail: Color
    cap: Color
    cheek: Color
    breast: Color
    horn: Color
    leg: Color
    vivid: float

    @classmethod
    def sample(cls, random: np.random.Generator) -> "Plumage":
        """Draw the colors of one bird."""
        hue, saturation, value = BACKS[int(random.integers(len(BACKS)))]
        hue, saturation, value = (
            hue + random.uniform(-0.03, 0.03),
            saturation + random.uniform(-0.05, 0.05),
            value + random.uniform(-0.06, 0.08),
        )
        return cls(
            back=hsv(hue, saturation, value),
            wing=hsv(hue, saturation * 1.1, value * random.uniform(0.68, 0.78)),
            tail=hsv(hue, saturation, value * random.uniform(0.62, 0.72)),
            cap=hsv(hue, saturation * 0.9, value * random.uniform(0.42, 0.6)),
            cheek=hsv(0.11, random.uniform(0.02, 0.1), random.uniform(0.93, 0.98)),
            breast=hsv(random.uniform(0.1, 0.14), random.uniform(0.12, 0.3), random.uniform(0.9, 0.96)),
            horn=hsv(0.08, random.uniform(0.05, 0.15), random.uniform(0.26, 0.36)),
            leg=hsv(0.07, random.uniform(0.2, 0.3), random.uniform(0.36, 0.46)),
            vivid=random.uniform(0.93, 1.04),
        )

    def mark(self, color: Color) -> Color:
        """Return a color that marks a species, at the brightness of this bird."""
        return shade(color, self.vivid)
