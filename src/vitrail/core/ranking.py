"""The order of cells by relevance, equal ones row by row, and which of them sampling cannot tell apart."""

from statistics import NormalDist
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from vitrail.core.errors import InvalidInputError
from vitrail.core.types import Relevance

Order = Literal["most", "least"]
"""Which cells come first."""


def rank_cells(relevance: Relevance, order: Order = "most") -> Int[Tensor, "b n"]:
    """Return the position of every cell in the order of change, from 0; ties change row by row.

    Differs: the published code sorts unstably, so maps with ties give different curves from run to run.
    """
    if not torch.isfinite(relevance).all():
        raise InvalidInputError("expected finite relevance, got NaN or infinite values")
    sorted_cells = relevance.flatten(1).argsort(dim=1, descending=order == "most", stable=True)
    return sorted_cells.argsort(dim=1)


def rank_patches(relevance: Float[Tensor, "rows cols"]) -> Int[Tensor, " n"]:
    """Return the indices of patches, the most relevant first; equal ones row by row."""
    return relevance.flatten().argsort(descending=True, stable=True)


def find_ties(
    relevance: Float[Tensor, "rows cols"], standard_error: Float[Tensor, "rows cols"], count: int, level: float
) -> Int[Tensor, " ties"]:
    """Return the patches whose difference from the last of the `count` strongest ones is within the error.

    Errors of patches are taken as independent.

    Args:
        relevance: Of one image.
        standard_error: Of its patches.
        count: How many patches are the strongest.
        level: Confidence level of the differences.
    """
    order = rank_patches(relevance)
    if count < 1:
        return order[:0]
    values, variances = relevance.flatten(), standard_error.flatten() ** 2
    last, others = order[count - 1 : count], order[count:]
    reach = NormalDist().inv_cdf((1 + level) / 2) * (variances[others] + variances[last]).sqrt()
    return others[(reach > 0) & (values[last] - values[others] <= reach)]
