"""Whether an explanation points at what is known to decide."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from vitrail.types import Relevance


def pointing_hits(relevance: Relevance, masks: Bool[Tensor, "b height width"]) -> Bool[Tensor, " b"]:
    """Whether the cell of the largest relevance lies, with at least one pixel, on the mask.

    Args:
        relevance: One map an image.
        masks: The right answer in the pixels that the map covers.

    Source: the pointing game, arXiv:1608.00507, section 4.2.

    Differs: There the strongest pixel is asked, with a tolerance of 15 pixels; here the strongest cell, without.
    """
    touched = touched_cells(masks, (relevance.shape[1], relevance.shape[2])).flatten(1)
    return touched.gather(1, relevance.flatten(1).argmax(1, keepdim=True)).squeeze(1)


def pointing_chance(masks: Bool[Tensor, "b height width"], grid_size: tuple[int, int]) -> Float[Tensor, " b"]:
    """The share of hits of a cell picked at random."""
    return touched_cells(masks, grid_size).flatten(1).float().mean(1)


def touched_cells(masks: Bool[Tensor, "b height width"], grid_size: tuple[int, int]) -> Bool[Tensor, "b rows cols"]:
    """The cells of a grid that a mask reaches into."""
    return torch.nn.functional.adaptive_max_pool2d(masks.float().unsqueeze(1), grid_size).squeeze(1) > 0
