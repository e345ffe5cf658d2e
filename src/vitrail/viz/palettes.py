"""Colors of relevance, safe for color-blind readers."""

from typing import Literal, NamedTuple, get_args

import matplotlib
import numpy as np
from jaxtyping import Float, UInt8

from vitrail.core.registry import unknown_name

Palette = Literal["color", "gray", "photo"]
"""Colors of a heatmap.

- "color": red for and blue against the class; dark to bright for unsigned relevance.
- "gray": light for, dark against the class; dark to light for unsigned relevance.
- "photo": magenta for and green against the class, magenta for unsigned relevance; a photo keeps its colors where relevance is weak.
"""


class _Colors(NamedTuple):
    signed: str
    unsigned: str
    photo: float
    """How much of its color a photo keeps below the heatmap."""


_PALETTES: dict[str, _Colors] = {
    "color": _Colors("RdBu_r", "inferno", 0.25),
    "gray": _Colors("gray", "gray", 0.25),
    "photo": _Colors("PiYG_r", "RdPu", 1.0),
}

_HALF = 0.3
"""Relevance of this share of the largest gets about half of the opacity."""

_PALE = {"RdBu_r": 0.5, "PiYG_r": 0.5, "gray": 0.0}
"""Share of each half of a signed color map that is skipped: the middle of these maps is white, and half-transparent white would draw a
pale seam wherever the sign changes."""

_END = 0.84
"""The ends of the signed color maps are nearly black: stop before them."""


def check_palette(palette: str) -> None:
    """Refuse an unknown palette.

    Raises:
        UnknownNameError: No such palette.
    """
    if palette not in get_args(Palette):
        raise unknown_name("palette", palette, list(get_args(Palette)))


def photo_colors(palette: Palette) -> float:
    """Return how much of its color a photo keeps where relevance is weak, from 0 to 1."""
    return _PALETTES[palette].photo


def colorize(
    strength: Float[np.ndarray, "height width"], signed: bool, palette: Palette
) -> UInt8[np.ndarray, "height width 4"]:
    """Color relevance: transparent at zero, opaque at full strength.

    Opacity is flat at zero, so that it leaves no line where the sign changes.

    Args:
        strength: From -1 to 1.
        signed: Whether negative relevance has a color of its own.
        palette: See `Palette`.

    Returns:
        RGBA.
    """
    name = _PALETTES[palette].signed if signed else _PALETTES[palette].unsigned
    magnitude = np.abs(strength)
    if signed:
        pale = _PALE[name]
        positions = 0.5 + 0.5 * np.sign(strength) * (pale + (_END - pale) * magnitude)
    else:
        # The lower end of the pale ramp is white.
        positions = 0.35 + 0.5 * strength if palette == "photo" else strength
    colors = matplotlib.colormaps[name](positions)
    colors[..., 3] = (1 + _HALF**2) * magnitude**2 / (magnitude**2 + _HALF**2)
    return (colors * 255).round().astype(np.uint8)


def colorize_opaque(
    strength: Float[np.ndarray, "height width"], signed: bool, palette: Palette
) -> UInt8[np.ndarray, "height width 3"]:
    """Color relevance without a photo below it; see `colorize`.

    Returns:
        RGB.
    """
    name = _PALETTES[palette].signed if signed else _PALETTES[palette].unsigned
    colors = matplotlib.colormaps[name](0.5 + 0.5 * _END * strength if signed else strength)
    return (colors[..., :3] * 255).round().astype(np.uint8)
