"""Similarity of two maps of the same image, independent of their scales."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from vitrail.core.errors import InvalidInputError
from vitrail.core.types import Relevance
from vitrail.metrics.masks import keep_top_cells, mask_iou


def spearman(first: Relevance, second: Relevance) -> Float[Tensor, " b"]:
    """Return the rank correlation per image, in [-1, 1]; equal cells share the mean of their ranks.

    NaN if a map is constant or not finite.
    """
    # Sums of integers do not depend on the order of summation, and so not on batch or device.
    first_ranks, second_ranks = _centered_ranks(first), _centered_ranks(second)
    products = (first_ranks * second_ranks).sum(1)
    dtype = torch.promote_types(torch.promote_types(first.dtype, second.dtype), torch.float32)
    # With two quotients instead of one, maps with the same order give exactly 1.
    quotients = [products.to(dtype) / ranks.square().sum(1).to(dtype) for ranks in (first_ranks, second_ranks)]
    correlation = products.sign() * (quotients[0] * quotients[1]).sqrt()
    return correlation.where(_has_order(first) & _has_order(second), torch.nan)


def top_overlap(first: Relevance, second: Relevance, share: float = 0.1) -> Float[Tensor, " b"]:
    """Return the intersection over union of the most relevant cells, in [0, 1].

    NaN if a map is constant or not finite.

    Args:
        first: One map per image.
        second: Maps on the same grid.
        share: Share of the cells that count as most relevant, rounded, at least one; ties are taken row by row.

    Raises:
        InvalidInputError: A share outside of (0, 1].
    """
    check_share(share)
    num_cells = first[0].numel() if len(first) else 1
    sizes = torch.full((len(first),), max(1, round(share * num_cells)), device=first.device)
    iou = mask_iou(*(keep_top_cells(relevance.nan_to_num(), sizes) for relevance in (first, second)))
    return iou.where(_has_order(first) & _has_order(second), torch.nan)


def check_share(share: float) -> None:
    """Check for a share of the cells in (0, 1].

    Raises:
        InvalidInputError: It is outside.
    """
    if not 0 < share <= 1:
        raise InvalidInputError(f"expected a share of the cells above 0 and up to 1, got {share}")


def _has_order(relevance: Relevance) -> Bool[Tensor, " b"]:
    """Return whether maps are finite and not constant."""
    cells = relevance.flatten(1)
    return cells.isfinite().all(1) & (cells.amax(1) > cells.amin(1))


def _centered_ranks(relevance: Relevance) -> Int[Tensor, "b n"]:
    """Return twice the rank of every cell, minus its mean."""
    cells = relevance.flatten(1)
    ordered = cells.sort(1).values
    # The first position of cells with this relevance in the order, and the first position after them.
    start, end = (torch.searchsorted(ordered, cells.contiguous(), right=right) for right in (False, True))
    return start + end - cells.shape[1]
