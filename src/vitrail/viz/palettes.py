"""Colors of relevance, safe for color-blind readers."""

from typing import Literal, NamedTuple, get_args

import numpy as np
from jaxtyping import Float, UInt8

from vitrail.core.registry import unknown_name

Palette = Literal["color", "gray", "photo"]
"""Colors of a heatmap.

- "color": orange for and blue against the class; red to yellow for unsigned relevance.
- "gray": light for, dark against the class; dark to light for unsigned relevance.
- "photo": magenta for and green against the class, magenta for unsigned relevance; a photo keeps its colors where relevance is weak.
"""

_Ramp = tuple[str, ...]
"""Colors at equal distances, as hexadecimal RGB, from weak to strong."""


class _Colors(NamedTuple):
    """The colors of a palette.

    Attributes:
        positive: For the class, where relevance has a sign.
        negative: Against the class.
        unsigned: Relevance without a sign, over a photo.
        opaque: The same without a photo, where zero has a color too.
        middle: Zero without a photo, where relevance has a sign.
        photo: How much of its color a photo keeps below the heatmap.
    """

    positive: _Ramp
    negative: _Ramp
    unsigned: _Ramp
    opaque: _Ramp
    middle: str
    photo: float


# No color over a photo is white: half transparent, it would leave a pale seam wherever the sign changes. Orange and blue stay apart from
# gray, and stronger relevance further apart than weaker, for all readers; red and green become gray to those who lack one of them.
_PALETTES: dict[str, _Colors] = {
    "color": _Colors(
        positive=("#fdae61", "#ff6a00"),
        negative=("#4393c3", "#1a3fbf"),
        unsigned=("#d1495b", "#f08a24", "#ffd23f"),
        opaque=("#000004", "#51127c", "#b73779", "#fc8961", "#fcfdbf"),
        middle="#f7f7f7",
        photo=0.0,
    ),
    "gray": _Colors(
        positive=("#808080", "#ebebeb"),
        negative=("#808080", "#141414"),
        unsigned=("#000000", "#ffffff"),
        opaque=("#000000", "#ffffff"),
        middle="#808080",
        photo=0.0,
    ),
    "photo": _Colors(
        positive=("#e000b0", "#7a0177"),
        negative=("#7fbc41", "#276419"),
        unsigned=("#f040c8", "#6a0166"),
        opaque=("#fff7f3", "#f768a1", "#7a0177"),
        middle="#f7f7f7",
        photo=1.0,
    ),
}

_HALF = 0.3
"""Relevance of this share of the largest gets about half of the opacity."""


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
    colors, magnitude = _PALETTES[palette], np.abs(strength)
    if signed:
        rgb = np.where(strength[..., None] < 0, _blend(colors.negative, magnitude), _blend(colors.positive, magnitude))
    else:
        rgb = _blend(colors.unsigned, strength)
    alpha = (1 + _HALF**2) * magnitude**2 / (magnitude**2 + _HALF**2)
    return np.concatenate([rgb, 255 * alpha[..., None]], -1).round().astype(np.uint8)


def colorize_opaque(
    strength: Float[np.ndarray, "height width"], signed: bool, palette: Palette
) -> UInt8[np.ndarray, "height width 3"]:
    """Color relevance without a photo below it; see `colorize`.

    Returns:
        RGB.
    """
    colors = _PALETTES[palette]
    if signed:
        both = (*reversed(colors.negative), colors.middle, *colors.positive)
        return _blend(both, 0.5 + 0.5 * strength).round().astype(np.uint8)
    return _blend(colors.opaque, strength).round().astype(np.uint8)


def _blend(ramp: _Ramp, positions: Float[np.ndarray, "height width"]) -> Float[np.ndarray, "height width 3"]:
    """Return the colors at positions of a ramp, from 0 to 1."""
    stops = np.array([list(bytes.fromhex(color[1:])) for color in ramp], dtype=float)
    return np.stack([np.interp(positions, np.linspace(0, 1, len(ramp)), channel) for channel in stops.T], -1)
