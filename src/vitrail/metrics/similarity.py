"""How alike two maps of an image are, whatever their scales."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from vitrail.core.errors import InvalidInputError
from vitrail.core.types import Relevance
from vitrail.metrics.masks import cut_at_size, overlap


def spearman(first: Relevance, second: Relevance) -> Float[Tensor, " b"]:
    """Rank correlation per image, in [-1, 1]; equal cells share the mean of their ranks.

    NaN where a map is constant, and so ranks nothing, or is not finite.
    """
    # Whole numbers add up to the same in any order: of a batch, of an image alone, and on every device.
    first_ranks, second_ranks = _centered_ranks(first), _centered_ranks(second)
    together = (first_ranks * second_ranks).sum(1)
    kind = torch.promote_types(torch.promote_types(first.dtype, second.dtype), torch.float32)
    # Two quotients and not one: maps of the same order then give 1 exactly.
    shares = [together.to(kind) / ranks.square().sum(1).to(kind) for ranks in (first_ranks, second_ranks)]
    return (together.sign() * (shares[0] * shares[1]).sqrt()).where(_ranking(first) & _ranking(second), torch.nan)


def top_overlap(first: Relevance, second: Relevance, share: float = 0.1) -> Float[Tensor, " b"]:
    """Intersection over union of the cells of largest relevance, in [0, 1].

    NaN where a map is constant, and so has no such cells, or is not finite.

    Args:
        first: One map an image.
        second: Maps on the same grid.
        share: How many of the cells count as the largest, rounded, at least one; of equal ones the first, row by row.

    Raises:
        InvalidInputError: A share that is none.
    """
    check_share(share)
    num_cells = first[0].numel() if len(first) else 1
    sizes = torch.full((len(first),), max(1, round(share * num_cells)), device=first.device)
    found = overlap(*(cut_at_size(each.nan_to_num(), sizes) for each in (first, second)))
    return found.where(_ranking(first) & _ranking(second), torch.nan)


def check_share(share: float) -> None:
    """Refuse what is no share of the cells.

    Raises:
        InvalidInputError: It is not above 0, or above 1.
    """
    if not 0 < share <= 1:
        raise InvalidInputError(f"expected a share of the cells above 0 and up to 1, got {share}")


def _ranking(relevance: Relevance) -> Bool[Tensor, " b"]:
    """Whether a map says that one cell matters more than another."""
    cells = relevance.flatten(1)
    return cells.isfinite().all(1) & (cells.amax(1) > cells.amin(1))


def _centered_ranks(relevance: Relevance) -> Int[Tensor, "b n"]:
    """Twice the rank of every cell, less its mean."""
    cells = relevance.flatten(1)
    ordered = cells.sort(1).values
    # From the first to the last place that cells of this relevance take.
    lowest, beyond = (torch.searchsorted(ordered, cells.contiguous(), right=right) for right in (False, True))
    return lowest + beyond - cells.shape[1]
