"""SaCo: does removing the more relevant of two groups of cells cost more?"""

from typing import Any, ClassVar, final

import torch

from vitrail.core.baselines import check_baseline
from vitrail.explanation import Explanation
from vitrail.metrics.base import METRICS, ExplainFunction, ImageMetric, Measure, Measurements, MetricBatch
from vitrail.metrics.subsets import check_count, group_by_relevance, has_variation, logits_without_cells, target_scores


@METRICS.register("saco")
@final
class SaCo(ImageMetric):
    """Salience-guided faithfulness coefficient: removing the more relevant of two groups of cells should cost more.

    Splits the cells into groups by relevance. Every pair of groups is weighted by its difference in relevance, and counts for the map
    if the probability drops at least as far without the more relevant group, else against it. NaN for a constant map. If removing
    groups does not change the prediction, all pairs are ties and the map scores 1.

    Costs one forward pass per group.

    Args:
        num_groups: Number of groups, at most the number of cells.
        baseline: Name of the baseline that replaces removed cells.

    Raises:
        InvalidInputError: An option outside its range.

    Source: Wu et al. 2024, arXiv:2404.01415, algorithm 1.

    Differs: a group's relevance is its mean instead of its sum, since groups of cells can differ noticeably in size. With groups of
        equal size the coefficient is the same.
    """

    paper: ClassVar[str] = "Wu et al. 2024, arXiv:2404.01415"
    measures = (
        Measure(
            "saco", "higher", -1.0, 1.0, "faithful minus unfaithful pairs of groups, weighted by their difference in relevance"
        ),
    )

    def __init__(self, *, num_groups: int = 10, baseline: str = "mean", **kwargs: Any) -> None:
        check_count("num_groups", num_groups, 2)
        check_baseline(baseline)
        super().__init__(**kwargs)
        self.num_groups, self.baseline = num_groups, baseline

    def measure(self, batch: MetricBatch, explanation: Explanation, explainer: ExplainFunction | None = None) -> Measurements:
        relevance, grid = explanation.relevance, explanation.grid
        num_cells = grid[0] * grid[1]
        group_of_rank = torch.arange(num_cells) * min(self.num_groups, num_cells) // num_cells
        sums, groups = group_by_relevance(relevance, group_of_rank)
        without = target_scores(
            batch, logits_without_cells(batch, groups, grid, self.baseline), explanation.targets, "probability"
        )
        means = sums / groups.sum(2)
        # Scale the largest mean to 1, since tiny differences would underflow.
        means = means / means.abs().amax(1, keepdim=True)
        first, second = torch.triu_indices(means.shape[1], means.shape[1], offset=1, device=means.device)
        weights = means[:, first] - means[:, second]
        # A lower probability without a group is a larger drop.
        signed = torch.where(without[:, first] <= without[:, second], weights, -weights)
        coefficients = signed.sum(1) / weights.abs().sum(1)
        defined = has_variation(relevance.flatten(1)) & without.isfinite().all(1)
        return coefficients.clamp(-1, 1).where(defined, torch.nan).unsqueeze(1)
