"""What a map is by itself: how few cells it names, and whether it accounts for the whole logit."""

from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from vitrail.explanation import Explanation
from vitrail.metrics.base import METRICS, Again, ImageMetric, Measure, View, at_least_float32


def magnitude_shares(explanation: Explanation) -> Float[Tensor, "b n"]:
    """What every cell has of the sum of |relevance|; NaN for a map of zeros, which has nothing to share."""
    # Over the largest first: sums of maps of any scale are finite.
    magnitudes = at_least_float32(explanation.relevance).flatten(1).abs()
    magnitudes = magnitudes / magnitudes.amax(1, keepdim=True)
    return magnitudes / magnitudes.sum(1, keepdim=True)


@METRICS.register("sparseness")
@final
class Sparseness(ImageMetric):
    """How unevenly relevance is spread over the cells: the Gini index of its magnitudes.

    0 where all cells are alike, 1 - 1/n where one of n cells has all. NaN for a map of zeros. It says nothing of whether the
    cells are the right ones, and compares maps of one grid only: coarser maps reach less. No forward passes.

    Source: Chalasani et al. 2020, arXiv:1810.06583, sparseness by the Gini index.

    Differs: over the cells of the map, not over pixels. Quantus adds 1e-7 to every magnitude, by which a map of zeros has 0.
    """

    measures = (Measure("sparseness", "higher", 0.0, 1.0, "Gini index of |relevance| over the cells"),)

    def measure(self, view: View, explanation: Explanation, again: Again | None = None) -> Float[Tensor, "b measures"]:
        shares = magnitude_shares(explanation).sort(1).values
        num_cells = shares.shape[1]
        weights = torch.arange(1 - num_cells, num_cells, 2, device=shares.device).to(shares.dtype) / num_cells
        # Rounding may leave equal shares a hair below 0.
        return (weights * shares).sum(1, keepdim=True).clamp(0, 1)


@METRICS.register("complexity")
@final
class Complexity(ImageMetric):
    """Over how many cells relevance is spread: the entropy of the cells' shares of its magnitudes, in nats.

    0 where one cell has all, ln n where n cells are alike: exp(complexity) is a number of cells. NaN for a map of zeros. It
    says nothing of whether the cells are the right ones, and compares maps of one grid only. No forward passes.

    Source: Bhatt et al. 2020, arXiv:2005.00631, complexity: the entropy of fractional contributions.

    Differs: over the cells of the map, not over pixels. Quantus adds 1e-12 to every share within the logarithm.
    """

    measures = (Measure("complexity", "lower", 0.0, torch.inf, "entropy of the cells' shares of |relevance|, in nats"),)

    def measure(self, view: View, explanation: Explanation, again: Again | None = None) -> Float[Tensor, "b measures"]:
        return torch.special.entr(magnitude_shares(explanation)).sum(1, keepdim=True)


@METRICS.register("completeness")
@final
class Completeness(ImageMetric):
    """How far a map is from accounting for the whole logit: |sum of relevance + bias - logit| over the largest |logit|.

    NaN where the method promises no sum (`Explanation.bias` is None). The logits are those that came with the map, as in
    `Explanation.completeness_error`, which is the largest of a batch. No forward passes.

    Source: the axiom: Sundararajan et al. 2017, arXiv:1703.01365, section 3 (completeness); with a bias: Jeanneret et al. 2025
    (HiT), arXiv:2502.17196.

    Differs: the axiom asks for the difference from a baseline's logit; here what belongs to no patch is the bias that the
    method names. The error is relative to the largest logit of the image, so that logits of any scale compare.
    """

    measures = (Measure("completeness", "lower", 0.0, torch.inf, "|sum of relevance + bias - logit| / max |logit|"),)

    def measure(self, view: View, explanation: Explanation, again: Again | None = None) -> Float[Tensor, "b measures"]:
        relevance = at_least_float32(explanation.relevance)
        if explanation.bias is None:
            return relevance.new_full((len(relevance), 1), torch.nan)
        missing = (relevance.sum((1, 2)) + explanation.bias - explanation.target_logits()).abs()
        return (missing / explanation.logits.abs().amax(1).clamp_min(1e-12)).unsqueeze(1)
