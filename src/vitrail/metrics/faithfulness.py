"""Faithfulness: do cells count for the model as much as the map says, when some are taken out at a time?"""

from typing import Any, Literal, final, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from vitrail.core.baselines import check_baseline
from vitrail.core.registry import unknown_name
from vitrail.explanation import Explanation
from vitrail.metrics.base import METRICS, Again, ImageMetric, Measure, View, check_seed
from vitrail.metrics.subsets import (
    RandomSubsets,
    TargetScore,
    check_count,
    check_score,
    check_share,
    clean_scores,
    correlation,
    groups_by_relevance,
    logits_without,
    target_scores,
    varies,
)

Scale = Literal["optimal", "none"]


@METRICS.register("faithfulness-correlation")
@final
class FaithfulnessCorrelation(ImageMetric):
    """Pearson's correlation between the relevance of random subsets of cells and what the score loses without them.

    NaN where all subsets are equally relevant to the map or to the model. Costs one forward pass a subset, which all methods
    of a batch share, and `Infidelity` of the same options too.

    Args:
        num_subsets: Random subsets.
        subset_share: Share of the cells in each.
        baseline: What replaces removed cells, by name.
        score: The explained class's logit or probability.
        seed: Of the subsets, which depend on it and on the grid alone.

    Raises:
        InvalidInputError: An option that cannot be used.

    Source: Bhatt et al. 2020, arXiv:2005.00631, the measure of faithfulness.

    Differs: Whole cells are removed, not pixels; and all images have the same subsets, so that an image's number does not
        hang on those before it.
    """

    measures = (
        Measure(
            "faithfulness_correlation", "higher", -1.0, 1.0, "correlation of relevance and drop, over random subsets of cells"
        ),
    )

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
        check_baseline(baseline)
        check_score(score)
        super().__init__(**kwargs)
        self.subsets = _random_subsets(num_subsets, subset_share, seed, least=2)
        self.baseline, self.score = baseline, score

    def measure(self, view: View, explanation: Explanation, again: Again | None = None) -> Float[Tensor, "b measures"]:
        without = self.subsets.scores_without(view, explanation.grid, self.baseline, explanation.targets, self.score)
        # The drop is a constant less this; without the constant, rounding is small beside the numbers that it is told from.
        return correlation(self.subsets.sums(explanation.relevance), -without).unsqueeze(1)


@METRICS.register("faithfulness-estimate")
@final
class FaithfulnessEstimate(ImageMetric):
    """Pearson's correlation between the relevance of cells and what the score loses without them, one by one.

    NaN where all cells are equally relevant to the map or to the model. Costs one forward pass a cell, which all methods of a
    batch share; with groups one a group, for every method anew.

    Args:
        cells_per_group: Cells that are removed together, neighbors in the order of relevance; the last group has what is
            left. 1: every cell by itself.
        baseline: What replaces removed cells, by name.
        score: The explained class's probability or logit.

    Raises:
        InvalidInputError: An option that cannot be used.

    Source: Alvarez-Melis and Jaakkola 2018, arXiv:1806.07538, the measure of faithfulness.

    Differs: Whole cells are removed, not pixels. A map that is constant has no order to take groups in: NaN, whatever the size
        of the last group.
    """

    measures = (Measure("faithfulness_estimate", "higher", -1.0, 1.0, "correlation of relevance and drop, over the cells"),)

    def __init__(
        self, *, cells_per_group: int = 1, baseline: str = "zero", score: TargetScore = "probability", **kwargs: Any
    ) -> None:
        check_count("cells_per_group", cells_per_group, 1)
        check_baseline(baseline)
        check_score(score)
        super().__init__(**kwargs)
        self.cells_per_group, self.baseline, self.score = cells_per_group, baseline, score

    def measure(self, view: View, explanation: Explanation, again: Again | None = None) -> Float[Tensor, "b measures"]:
        relevance, grid = explanation.relevance, explanation.grid
        num_cells = grid[0] * grid[1]
        if self.cells_per_group == 1:
            sums = relevance.flatten(1)
            alone = torch.eye(num_cells, dtype=torch.bool).expand(len(relevance), -1, -1)
            key = ("without single cells", grid, self.baseline)
            logits = view.once(key, lambda: logits_without(view, alone, grid, self.baseline))
        else:
            sums, groups = groups_by_relevance(relevance, torch.arange(num_cells) // self.cells_per_group)
            logits = logits_without(view, groups, grid, self.baseline)
        without = target_scores(view, logits, explanation.targets, self.score)
        return correlation(sums, -without).where(varies(relevance.flatten(1)), torch.nan).unsqueeze(1)


@METRICS.register("infidelity")
@final
class Infidelity(ImageMetric):
    """How far the relevance of random subsets of cells is from what the score loses without them: the mean squared error.

    In squared units of the score. Costs one forward pass a subset, which all methods of a batch share, and
    `FaithfulnessCorrelation` of the same options too.

    Args:
        num_subsets: Random subsets.
        subset_share: Share of the cells in each.
        baseline: What replaces removed cells, by name.
        score: The explained class's logit or probability.
        seed: Of the subsets, which depend on it and on the grid alone.
        scale: "optimal": every map times the one factor that serves it best, so that methods of any unit can be compared; the
            factor may be negative, so that a map and its negative are as good. "none": the map as it is, for methods that
            share out the score itself.

    Raises:
        InvalidInputError: An option that cannot be used.

    Source: Yeh et al. 2019, arXiv:1901.09392, equation 1; the optimal scale is that of its published code.

    Differs: Random subsets of cells are removed, wherever they lie; there every square of 1 to 10 pixels a side, one at a time.
        A removed cell counts with its whole relevance: where that is a bare gradient, multiply it by the image first, as there.
    """

    measures = (
        Measure("infidelity", "lower", 0.0, float("inf"), "mean squared error of relevance for drop, in squared scores"),
    )

    def __init__(
        self,
        *,
        num_subsets: int = 100,
        subset_share: float = 0.2,
        baseline: str = "zero",
        score: TargetScore = "logit",
        seed: int = 0,
        scale: Scale = "optimal",
        **kwargs: Any,
    ) -> None:
        check_baseline(baseline)
        check_score(score)
        if scale not in get_args(Scale):
            raise unknown_name("scale", scale, list(get_args(Scale)))
        super().__init__(**kwargs)
        self.subsets = _random_subsets(num_subsets, subset_share, seed, least=1)
        self.baseline, self.score, self.scale = baseline, score, scale

    def measure(self, view: View, explanation: Explanation, again: Again | None = None) -> Float[Tensor, "b measures"]:
        without = self.subsets.scores_without(view, explanation.grid, self.baseline, explanation.targets, self.score)
        drops = clean_scores(view, explanation.targets, self.score) - without
        sums = self.subsets.sums(explanation.relevance)
        if self.scale == "optimal":
            # To a largest sum of 1, whose square neither vanishes nor overflows; a map of zeros has nothing to scale.
            smallest = torch.finfo(sums.dtype).tiny
            sums = sums / sums.abs().amax(1, keepdim=True).clamp_min(smallest)
            sums = sums * (sums * drops).sum(1, keepdim=True) / sums.square().sum(1, keepdim=True).clamp_min(smallest)
        return (sums - drops).square().mean(1, keepdim=True)


@METRICS.register("saco")
@final
class SaCo(ImageMetric):
    """Salience-guided faithfulness coefficient: the more relevant of two groups of cells should cost more when removed.

    The cells are cut into groups by relevance. Every pair of groups weighs as much as the two differ in relevance, and counts
    for the map if the probability falls at least as far without the more relevant one, else against it. NaN for a constant
    map, where nothing differs. A model that does not mind any group leaves every pair undecided, and the map with 1.

    Costs one forward pass a group.

    Args:
        num_groups: Groups of cells; as many as there are cells where that is less.
        baseline: What replaces removed cells, by name.

    Raises:
        InvalidInputError: An option that cannot be used.

    Source: Wu et al. 2024, arXiv:2404.01415, algorithm 1.

    Differs: A group's relevance is its mean, not its sum: groups of cells, unlike those of pixels, may differ in size by a
        noticeable part. Where they do not, that is the same coefficient.
    """

    measures = (
        Measure("saco", "higher", -1.0, 1.0, "share of faithful pairs of groups less the others, weighed by relevance"),
    )

    def __init__(self, *, num_groups: int = 10, baseline: str = "mean", **kwargs: Any) -> None:
        check_count("num_groups", num_groups, 2)
        check_baseline(baseline)
        super().__init__(**kwargs)
        self.num_groups, self.baseline = num_groups, baseline

    def measure(self, view: View, explanation: Explanation, again: Again | None = None) -> Float[Tensor, "b measures"]:
        relevance, grid = explanation.relevance, explanation.grid
        num_cells = grid[0] * grid[1]
        group_of_rank = torch.arange(num_cells) * min(self.num_groups, num_cells) // num_cells
        sums, groups = groups_by_relevance(relevance, group_of_rank)
        without = target_scores(view, logits_without(view, groups, grid, self.baseline), explanation.targets, "probability")
        means = sums / groups.sum(2)
        # To a largest mean of 1: tiny differences would vanish in their sum.
        means = means / means.abs().amax(1, keepdim=True)
        first, second = torch.triu_indices(means.shape[1], means.shape[1], offset=1, device=means.device)
        weights = means[:, first] - means[:, second]
        # The lower the probability without a group, the higher its drop.
        signed = torch.where(without[:, first] <= without[:, second], weights, -weights)
        coefficients = signed.sum(1) / weights.abs().sum(1)
        defined = varies(relevance.flatten(1)) & without.isfinite().all(1)
        return coefficients.clamp(-1, 1).where(defined, torch.nan).unsqueeze(1)


def _random_subsets(num_subsets: int, subset_share: float, seed: int, least: int) -> RandomSubsets:
    """The subsets of two metrics that share their ground_truth, from checked options."""
    check_count("num_subsets", num_subsets, least)
    check_share("subset_share", subset_share)
    check_seed(seed)
    return RandomSubsets(num_subsets, subset_share, seed)
