"""Properties of a map by itself: how concentrated it is, and whether it accounts for the whole logit."""

from typing import ClassVar, final

import torch
from jaxtyping import Float
from torch import Tensor

from vitrail.core.float32 import at_least_float32
from vitrail.explanation import Explanation
from vitrail.metrics.base import METRICS, ExplainFunction, ImageMetric, Measure, Measurements, MetricBatch


def compute_magnitude_shares(explanation: Explanation) -> Float[Tensor, "b n"]:
    """Divide |relevance| of every cell by its sum; NaN for a map of zeros."""
    # Scale by the largest first, so that sums are finite at any scale.
    magnitudes = at_least_float32(explanation.relevance).flatten(1).abs()
    magnitudes = magnitudes / magnitudes.amax(1, keepdim=True)
    return magnitudes / magnitudes.sum(1, keepdim=True)


@METRICS.register("sparseness")
@final
class Sparseness(ImageMetric):
    """The Gini index of |relevance| over the cells.

    0 if all cells are equal, 1 - 1/n if one of n cells has all relevance, NaN for a map of zeros. It does not tell whether the cells
    are the right ones, and is only comparable between maps of the same grid. No forward passes.

    Source: Chalasani et al. 2020, arXiv:1810.06583, sparseness by the Gini index.

    Differs: over the cells of the map instead of pixels. Quantus adds 1e-7 to every magnitude, so a map of zeros scores 0 there.
    """

    paper: ClassVar[str] = "Chalasani et al. 2020, arXiv:1810.06583"
    measures = (Measure("sparseness", "higher", 0.0, 1.0, "Gini index of |relevance| over the cells"),)

    def measure(self, batch: MetricBatch, explanation: Explanation, explainer: ExplainFunction | None = None) -> Measurements:
        shares = compute_magnitude_shares(explanation).sort(1).values
        num_cells = shares.shape[1]
        weights = torch.arange(1 - num_cells, num_cells, 2, device=shares.device).to(shares.dtype) / num_cells
        # Rounding may push equal shares slightly below 0.
        return (weights * shares).sum(1, keepdim=True).clamp(0, 1)


@METRICS.register("complexity")
@final
class Complexity(ImageMetric):
    """The entropy of the cells' shares of |relevance|, in nats.

    0 if one cell has all relevance, ln n if n cells are equal, so exp(complexity) is a number of cells. NaN for a map of zeros. It
    does not tell whether the cells are the right ones, and is only comparable between maps of the same grid. No forward passes.

    Source: Bhatt et al. 2020, arXiv:2005.00631, complexity: the entropy of fractional contributions.

    Differs: over the cells of the map instead of pixels. Quantus adds 1e-12 to every share inside the logarithm.
    """

    paper: ClassVar[str] = "Bhatt et al. 2020, arXiv:2005.00631"
    measures = (Measure("complexity", "lower", 0.0, torch.inf, "entropy of the cells' shares of |relevance|, in nats"),)

    def measure(self, batch: MetricBatch, explanation: Explanation, explainer: ExplainFunction | None = None) -> Measurements:
        return torch.special.entr(compute_magnitude_shares(explanation)).sum(1, keepdim=True)


@METRICS.register("completeness")
@final
class Completeness(ImageMetric):
    """|sum of relevance + bias - logit| over the largest |logit|: the part of the logit that the map does not account for.

    NaN if the method does not decompose the logit (`Explanation.bias` is None). Uses the logits stored in the explanation, like
    `Explanation.completeness_error`, which is the largest error of a batch. No forward passes.

    Source: the axiom: Sundararajan et al. 2017, arXiv:1703.01365, section 3 (completeness); with a bias: Jeanneret et al. 2025
    (HiT), arXiv:2502.17196.

    Differs: the axiom concerns the difference from a baseline's logit; here the method reports the part that belongs to no patch
    as its bias. The error is relative to the largest logit of the image, so that models with any scale of logits are comparable.
    """

    paper: ClassVar[str] = "Sundararajan et al. 2017, arXiv:1703.01365; Jeanneret et al. 2025, arXiv:2502.17196"
    measures = (Measure("completeness", "lower", 0.0, torch.inf, "|sum of relevance + bias - logit| / max |logit|"),)

    def measure(self, batch: MetricBatch, explanation: Explanation, explainer: ExplainFunction | None = None) -> Measurements:
        relevance = at_least_float32(explanation.relevance)
        if explanation.bias is None:
            return relevance.new_full((len(relevance), 1), torch.nan)
        missing = (relevance.sum((1, 2)) + explanation.bias - explanation.target_logits()).abs()
        return (missing / explanation.logits.abs().amax(1).clamp_min(1e-12)).unsqueeze(1)
