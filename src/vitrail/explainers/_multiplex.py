"""Attention as a multiplex network: patches are nodes, and every block is a layer of weighted, directed arcs."""

import math
from collections.abc import Callable, Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from vitrail.core.errors import InvalidInputError

Series = Float[Tensor, "*b l n"]
"""A centrality of every patch in every layer."""

HEAD_REDUCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "min": lambda attentions: attentions.amin(1),
    "max": lambda attentions: attentions.amax(1),
    "sum": lambda attentions: attentions.sum(1),
}
"""Ways to reduce the attention of all heads to arcs."""


def degree_centralities(
    attentions: Float[Tensor, "b h n n"], head_reductions: Sequence[str], min_cut: float
) -> Float[Tensor, "b reductions 2 n"]:
    """Compute in- and out-degree of every patch in one block, for every reduction of the heads.

    Args:
        attentions: Attention from patch (query) to patch (key), without prefix tokens.
        head_reductions: Names in `HEAD_REDUCTIONS`.
        min_cut: Arcs weaker than this share of the strongest arc are removed.
    """
    degrees = []
    for name in head_reductions:
        arcs = HEAD_REDUCTIONS[name](attentions)
        arcs = arcs.masked_fill(arcs < min_cut * arcs.amax((1, 2), keepdim=True), 0)
        degrees.append(torch.stack([arcs.sum(1), arcs.sum(2)], 1))
    return torch.stack(degrees, 1)


def entropy(series: Series) -> Float[Tensor, "*b n"]:
    """Entropy of a centrality over the layers (the paper's coherence); 0 for a patch without arcs."""
    shares = (series / series.sum(-2, keepdim=True)).nan_to_num(0.0)
    return torch.special.entr(shares).sum(-2)


def deviation(series: Series) -> Float[Tensor, "*b n"]:
    """Unbiased standard deviation over layers; NaN for a single layer."""
    return series.std(-2) if series.shape[-2] > 1 else torch.full_like(series[..., 0, :], torch.nan)


def central_moments(series: Series) -> tuple[Tensor, Tensor, Tensor]:
    """Biased variance, third and fourth central moment over layers; NaN where a series is constant up to rounding."""
    mean = series.mean(-2, keepdim=True)
    deviations = series - mean
    variance = (deviations**2).mean(-2)
    rounding = (torch.finfo(series.dtype).eps * mean.squeeze(-2)) ** 2
    variance = torch.where(variance <= rounding, torch.nan, variance)
    return variance, (deviations**3).mean(-2), (deviations**4).mean(-2)


def skewness(series: Series) -> Float[Tensor, "*b n"]:
    """Biased third standardized moment over layers."""
    variance, third, _ = central_moments(series)
    return third / variance**1.5


def kurtosis(series: Series) -> Float[Tensor, "*b n"]:
    """Biased fourth standardized moment over layers, minus 3."""
    variance, _, fourth = central_moments(series)
    return fourth / variance**2 - 3


def sum_over_deviation(series: Series) -> Float[Tensor, "*b n"]:
    """Sum over standard deviation: large if a patch is central in every layer."""
    return series.sum(-2) / (deviation(series) + 1e-8)


STATISTICS: dict[str, Callable[[Series], Tensor]] = {
    "entropy": entropy,
    "max": lambda series: series.amax(-2),
    "min": lambda series: series.amin(-2),
    "sum": lambda series: series.sum(-2),
    "std": deviation,
    "sum_over_std": sum_over_deviation,
    "median": lambda series: series.median(-2).values,  # the lower median of an even number of layers
    "skewness": skewness,
    "kurtosis": kurtosis,
}
"""Statistics of a centrality over the layers, one number per patch, in the paper's order."""


def keep_strongest(values: Float[Tensor, "*b n"], token_ratio: float) -> Bool[Tensor, "*b n"]:
    """Discard the share `token_ratio` of the patches with the smallest values; patches tied at the threshold are kept.

    NaN sorts as the largest value. A threshold that is NaN keeps nothing.
    """
    rank = max(math.ceil(values.shape[-1] * token_ratio) - 1, 0)
    return values >= values.sort(-1).values[..., rank : rank + 1]


def check_names(kind: str, names: Sequence[str], known: Sequence[str]) -> None:
    """Check for one or more distinct, known names.

    Raises:
        InvalidInputError: Anything else.
    """
    if (
        not isinstance(names, list | tuple)
        or not names
        or not all(isinstance(name, str) for name in names)
        or len(set(names)) < len(names)
        or not set(names) <= set(known)
    ):
        raise InvalidInputError(f"expected some of the {kind} {', '.join(known)}, each once, got {names!r}")
