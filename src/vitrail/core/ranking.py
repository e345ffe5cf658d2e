"""The order of patches by relevance, and which of them sampling cannot tell apart."""

from statistics import NormalDist

from jaxtyping import Float, Int
from torch import Tensor


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
