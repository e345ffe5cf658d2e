"""Faithfulness: compare the relevance of removed cells with the drop of the score."""

from typing import Any, ClassVar, Literal, final, get_args

import torch

from vitrail.core.baselines import check_baseline
from vitrail.core.registry import unknown_name
from vitrail.explanation import Explanation
from vitrail.metrics.base import METRICS, ExplainFunction, ImageMetric, Measure, Measurements, MetricBatch, check_seed
from vitrail.metrics.subsets import (
    RandomSubsets,
    TargetScore,
    check_count,
    check_score,
    check_share,
    clean_scores,
    correlation,
    group_by_relevance,
    has_variation,
    logits_without_cells,
    target_scores,
)

Scale = Literal["optimal", "none"]


class _SubsetMetric(ImageMetric):
    """Abstract: compares the relevance of random subsets of cells with the score without them."""

    least_subsets: ClassVar[int] = 1

    def __init__(
        self,
        *,
        num_subsets: int = 100,
        subset_share: float = 0.2,
        baseline: str = "zero",
        score: TargetScore = "logit",
        seed: int = 0,
        **kwargs: Any,
    ) -> None:
        check_count("num_subsets", num_subsets, self.least_subsets)
        check_share("subset_share", subset_share)
        check_seed(seed)
        check_baseline(baseline)
        check_score(score)
        super().__init__(**kwargs)
        self.subsets = RandomSubsets(num_subsets, subset_share, seed)
        self.baseline, self.score = baseline, score


@METRICS.register("faithfulness-correlation")
@final
class FaithfulnessCorrelation(_SubsetMetric):
    """Pearson correlation between the relevance of random subsets of cells and the drop of the score without them.

    NaN if all subsets are equally relevant to the map or to the model. Costs one forward pass per subset, shared by all methods of
    a batch and with `Infidelity` if their options are equal.

    Args:
        num_subsets: Number of random subsets.
        subset_share: Share of the cells in each subset.
        baseline: Name of the baseline that replaces removed cells.
        score: Logit or probability of the explained class.
        seed: Seed of the subsets, which only depend on it and the grid.

    Raises:
        InvalidInputError: An option outside its range.

    Source: Bhatt et al. 2020, arXiv:2005.00631, the measure of faithfulness.

    Differs: removes whole cells instead of pixels. All images share the subsets, so an image's number does not depend on other
        images.
    """

    paper: ClassVar[str] = "Bhatt et al. 2020, arXiv:2005.00631"
    measures = (
        Measure(
            "faithfulness_correlation",
            "higher",
            -1.0,
            1.0,
            "correlation of relevance and score drop, over random subsets of cells",
        ),
    )
    least_subsets: ClassVar[int] = 2

    def measure(self, batch: MetricBatch, explanation: Explanation, explainer: ExplainFunction | None = None) -> Measurements:
        without = self.subsets.scores_without(batch, explanation.grid, self.baseline, explanation.targets, self.score)
        # The drop differs from the negative score by a constant, which would only add rounding errors.
        return correlation(self.subsets.sums(explanation.relevance), -without).unsqueeze(1)


@METRICS.register("faithfulness-estimate")
@final
class FaithfulnessEstimate(ImageMetric):
    """Pearson correlation between the relevance of single cells and the drop of the score without them.

    NaN if all cells are equally relevant to the map or to the model. Costs one forward pass per cell, shared by all methods of a
    batch; with groups, one per group and method.

    Args:
        cells_per_group: Number of cells removed together, consecutive in the order of relevance; the last group may be smaller.
            1 removes every cell by itself.
        baseline: Name of the baseline that replaces removed cells.
        score: Probability or logit of the explained class.

    Raises:
        InvalidInputError: An option outside its range.

    Source: Alvarez-Melis and Jaakkola 2018, arXiv:1806.07538, the measure of faithfulness.

    Differs: removes whole cells instead of pixels. A constant map does not order cells into groups and scores NaN.
    """

    paper: ClassVar[str] = "Alvarez-Melis and Jaakkola 2018, arXiv:1806.07538"
    measures = (
        Measure("faithfulness_estimate", "higher", -1.0, 1.0, "correlation of relevance and score drop, over the cells"),
    )

    def __init__(
        self, *, cells_per_group: int = 1, baseline: str = "zero", score: TargetScore = "probability", **kwargs: Any
    ) -> None:
        check_count("cells_per_group", cells_per_group, 1)
        check_baseline(baseline)
        check_score(score)
        super().__init__(**kwargs)
        self.cells_per_group, self.baseline, self.score = cells_per_group, baseline, score

    def measure(self, batch: MetricBatch, explanation: Explanation, explainer: ExplainFunction | None = None) -> Measurements:
        relevance, grid = explanation.relevance, explanation.grid
        num_cells = grid[0] * grid[1]
        if self.cells_per_group == 1:
            sums = relevance.flatten(1)
            single_cells = torch.eye(num_cells, dtype=torch.bool).expand(len(relevance), -1, -1)
            key = ("without single cells", grid, self.baseline)
            logits = batch.cached(key, lambda: logits_without_cells(batch, single_cells, grid, self.baseline))
        else:
            sums, groups = group_by_relevance(relevance, torch.arange(num_cells) // self.cells_per_group)
            logits = logits_without_cells(batch, groups, grid, self.baseline)
        without = target_scores(batch, logits, explanation.targets, self.score)
        return correlation(sums, -without).where(has_variation(relevance.flatten(1)), torch.nan).unsqueeze(1)


@METRICS.register("infidelity")
@final
class Infidelity(_SubsetMetric):
    """Mean squared error between the relevance of random subsets of cells and the drop of the score without them.

    In squared units of the score. Costs one forward pass per subset, shared by all methods of a batch and with
    `FaithfulnessCorrelation` if their options are equal.

    Args:
        scale: "optimal" multiplies every map by the factor with the smallest error, so that methods with any unit are comparable;
            the factor may be negative, so a map and its negative score the same. "none" leaves the map unscaled, for methods whose
            relevance has the unit of the score.
        options: Those of `FaithfulnessCorrelation`.

    Raises:
        InvalidInputError: An option outside its range.

    Source: Yeh et al. 2019, arXiv:1901.09392, equation 1; the optimal scale is that of its published code.

    Differs: removes random subsets of cells; the published code removes every square of 1 to 10 pixels a side, one at a time. A
        removed cell counts with its full relevance: multiply plain gradients by the image first, as the published code does.
    """

    paper: ClassVar[str] = "Yeh et al. 2019, arXiv:1901.09392"
    measures = (
        Measure(
            "infidelity",
            "lower",
            0.0,
            float("inf"),
            "mean squared error of relevance against the score drop, in squared scores",
        ),
    )

    def __init__(self, *, scale: Scale = "optimal", **options: Any) -> None:
        if scale not in get_args(Scale):
            raise unknown_name("scale", scale, list(get_args(Scale)))
        super().__init__(**options)
        self.scale = scale

    def measure(self, batch: MetricBatch, explanation: Explanation, explainer: ExplainFunction | None = None) -> Measurements:
        without = self.subsets.scores_without(batch, explanation.grid, self.baseline, explanation.targets, self.score)
        drops = clean_scores(batch, explanation.targets, self.score) - without
        sums = self.subsets.sums(explanation.relevance)
        if self.scale == "optimal":
            # Scale the largest sum to 1 first, so that squares neither underflow nor overflow; a map of zeros stays as it is.
            smallest = torch.finfo(sums.dtype).tiny
            sums = sums / sums.abs().amax(1, keepdim=True).clamp_min(smallest)
            sums = sums * (sums * drops).sum(1, keepdim=True) / sums.square().sum(1, keepdim=True).clamp_min(smallest)
        return (sums - drops).square().mean(1, keepdim=True)
