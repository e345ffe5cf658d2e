"""Enlarge relevance from cells to pixels."""

from typing import Literal, get_args

from jaxtyping import Float
from torch import Tensor, nn

from vitrail.adapters.cells import expand_cells
from vitrail.core.registry import unknown_name

Smoothing = Literal["auto", "nearest", "bilinear", "bicubic"]
"""How relevance is enlarged: "nearest" shows the cells as they are, "bilinear" and "bicubic" blend them; "auto" is "bilinear" for grids
of at least `FINE_GRID` cells a side, else "nearest"."""

FINE_GRID = 14
"""Cells a side from which blending shows shapes that are there. Between coarser cells it would invent them."""


def choose_smoothing(grid: tuple[int, int], smoothing: Smoothing) -> Literal["nearest", "bilinear", "bicubic"]:
    """Return how a grid is enlarged.

    Raises:
        UnknownNameError: No such smoothing.
    """
    if smoothing not in get_args(Smoothing):
        raise unknown_name("smoothing", smoothing, list(get_args(Smoothing)))
    if smoothing == "auto":
        return "bilinear" if min(grid) >= FINE_GRID else "nearest"
    return smoothing


def enlarge(
    relevance: Float[Tensor, "rows cols"], size: tuple[int, int], smoothing: Smoothing
) -> Float[Tensor, "height width"]:
    """Enlarge relevance to pixels, within the range of its values.

    Args:
        relevance: Raw relevance.
        size: Height and width in pixels.
        smoothing: See `Smoothing`.
    """
    relevance = relevance.detach().cpu().float()
    chosen = choose_smoothing((relevance.shape[0], relevance.shape[1]), smoothing)
    if chosen == "nearest":
        return expand_cells(relevance, size)
    pixels = nn.functional.interpolate(relevance[None, None], size=size, mode=chosen, align_corners=False)[0, 0]
    # Bicubic curves overshoot: they would show a strength, or a sign, that no cell has.
    return pixels.clamp(relevance.min(), relevance.max())
