"""The strongest cells of a map: which they are, and an outline around them."""

import numpy as np
import torch
from jaxtyping import Bool, Float
from PIL import Image, ImageFilter
from torch import Tensor

from vitrail.adapters.cells import expand_cells


def strongest_cells(relevance: Float[Tensor, "rows cols"], share: int | float, signed: bool) -> Bool[Tensor, "rows cols"]:
    """Return the fewest cells that together hold a share of the relevance for the class.

    The relevance for the class is the positive part where relevance has a sign, else what exceeds the smallest value, which all cells
    have in common: it is what the colors show.

    Args:
        relevance: Raw relevance.
        share: Above 0, at most 1.
        signed: Whether relevance has a sign.

    Returns:
        True at these cells; none if nothing speaks for the class.
    """
    values = relevance.detach().cpu().double().flatten()
    mass = (values if signed else values - values.min()).clamp_min(0)
    order = mass.argsort(descending=True, stable=True)
    # The cells before a strongest cell hold less than the share.
    before = mass[order].cumsum(0) - mass[order]
    needed = (before < share * mass.sum() * (1 - 1e-9)) & (mass[order] > 0)
    return torch.zeros_like(mass, dtype=torch.bool).scatter(0, order, needed).reshape(relevance.shape)


def draw_outline(picture: Image.Image, cells: Bool[Tensor, "rows cols"]) -> Image.Image:
    """Draw a white line with a dark rim around the chosen cells of a picture, along the borders of cells."""
    inside = np.pad(expand_cells(cells, (picture.height, picture.width)).numpy(), 3)
    mask = Image.fromarray(inside.astype(np.uint8) * 255)
    core, rim = (np.asarray(mask.filter(ImageFilter.MinFilter(size)), dtype=bool) for size in (5, 7))
    drawn = np.asarray(picture.convert("RGB")).copy()
    trim = (slice(3, -3), slice(3, -3))
    drawn[(core & ~rim)[trim]] = 32
    drawn[(inside & ~core)[trim]] = 255
    return Image.fromarray(drawn)
