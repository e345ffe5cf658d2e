"""Removing subsets of cells: draw or group them, score the model without them, and correlate the results."""

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from vitrail.core.errors import InvalidInputError
from vitrail.core.float32 import at_least_float32
from vitrail.core.ranking import rank_cells
from vitrail.core.registry import unknown_name
from vitrail.core.types import Relevance, Targets
from vitrail.metrics.base import MetricBatch
from vitrail.metrics.curves import score_logits
from vitrail.metrics.steps import expand_to_patches

TargetScore = Literal["probability", "logit"]
"""Score of the explained class."""


def check_score(score: str) -> None:
    """Check the name of a score.

    Raises:
        UnknownNameError: It is none of `TargetScore`.
    """
    if score not in get_args(TargetScore):
        raise unknown_name("score", score, list(get_args(TargetScore)))


def check_share(name: str, share: float) -> None:
    """Check for a share between 0 and 1, both excluded.

    Raises:
        InvalidInputError: It is outside.
    """
    if not 0 < share < 1:
        raise InvalidInputError(f"expected {name} between 0 and 1, both excluded, got {share}; it is a share of a map's cells")


def check_count(name: str, count: int, least: int) -> None:
    """Check for a whole number of at least `least`.

    Raises:
        InvalidInputError: Anything else.
    """
    if not isinstance(count, int) or isinstance(count, bool) or count < least:
        raise InvalidInputError(f"expected {name} as a whole number of at least {least}, got {count!r}")


def count_cells_of_share(share: float, num_cells: int) -> int:
    """Round a share of the cells to a number of cells: at least one, and never all of several."""
    return max(1, min(round(share * num_cells), num_cells - 1))


@dataclass(frozen=True)
class RandomSubsets:
    """Random subsets of cells, all of the same size. They only depend on these numbers and the grid, not on image or map.

    Attributes:
        num_subsets: Number of subsets.
        share: Share of the cells in each subset.
        seed: Seed; subsets are drawn on the CPU, so that all devices get the same ones.
    """

    num_subsets: int
    share: float
    seed: int

    def cells(self, num_cells: int) -> Int[Tensor, "s size"]:
        """Draw the cell indices of every subset, without replacement, on the CPU."""
        generator = torch.Generator().manual_seed(self.seed)
        noise = torch.rand(self.num_subsets, num_cells, generator=generator, device="cpu", dtype=torch.float64)
        return noise.argsort(dim=1, stable=True)[:, : count_cells_of_share(self.share, num_cells)]

    def sums(self, relevance: Relevance) -> Float[Tensor, "b s"]:
        """Sum relevance over every subset."""
        # Gather instead of multiplying by masks, so that a constant map has exactly equal sums.
        cells = self.cells(relevance[0].numel()).to(relevance.device)
        return at_least_float32(relevance).flatten(1)[:, cells].sum(2)

    def scores_without(
        self, batch: MetricBatch, grid: tuple[int, int], baseline: str, targets: Targets, score: TargetScore
    ) -> Float[Tensor, "b s"]:
        """Return the scores without every subset; computed once per batch for all metrics and methods."""

        def compute() -> Float[Tensor, "b s c"]:
            num_cells = grid[0] * grid[1]
            removed = torch.zeros(self.num_subsets, num_cells, dtype=torch.bool, device="cpu")
            removed.scatter_(1, self.cells(num_cells), True)
            return logits_without_cells(batch, removed.expand(len(batch.images), -1, -1), grid, baseline)

        # The logits of all classes are cached, since methods may explain different ones.
        return target_scores(batch, batch.cached((self, grid, baseline), compute), targets, score)


def group_by_relevance(
    relevance: Relevance, group_of_rank: Int[Tensor, " n"]
) -> tuple[Float[Tensor, "b s"], Bool[Tensor, "b s n"]]:
    """Split the cells into groups by relevance.

    Args:
        relevance: One map per image; ties are taken row by row.
        group_of_rank: The group of the most relevant cell, of the next one, and so on; ascending from 0 without gaps.

    Returns:
        The sum of relevance of every group, and a mask of its cells.
    """
    numbers = torch.arange(int(group_of_rank[-1]) + 1, device=relevance.device)
    members = group_of_rank.to(relevance.device)[rank_cells(relevance)].unsqueeze(1) == numbers[:, None]
    return at_least_float32(relevance).flatten(1).unsqueeze(1).where(members, 0).sum(2), members


def logits_without_cells(
    batch: MetricBatch, removed: Bool[Tensor, "b s n"], grid: tuple[int, int], baseline: str
) -> Float[Tensor, "b s c"]:
    """Return logits with some cells replaced by a baseline, in single precision or better.

    Args:
        batch: The images.
        removed: Mask over the cells of the map, row by row; True = replaced.
        grid: Rows and columns of the map.
        baseline: Name of the baseline.
    """
    keep = expand_to_patches(~removed.to(batch.images.device), grid, batch.patch_grid)
    with batch.classifier.inspecting(), torch.no_grad():
        replacement = batch.classifier.baseline(baseline, batch.images)
        return at_least_float32(batch.classifier.perturbed_logits(batch.images, replacement, keep))


def target_scores(
    batch: MetricBatch, logits: Float[Tensor, "b s c"], targets: Targets, score: TargetScore
) -> Float[Tensor, "b s"]:
    """Return the scores of the explained classes."""
    return score_logits(logits.unsqueeze(1), batch.logits, targets.to(logits.device), score, batch.classifier.output).squeeze(1)


def clean_scores(batch: MetricBatch, targets: Targets, score: TargetScore) -> Float[Tensor, "b 1"]:
    """Return the scores of the explained classes for the unchanged images."""
    return target_scores(batch, batch.logits.unsqueeze(1), targets, score)


def has_variation(values: Float[Tensor, "b s"]) -> Bool[Tensor, " b"]:
    """Return whether the numbers of a row differ by more than rounding in single precision."""
    values = at_least_float32(values)
    spread = values.amax(1) - values.amin(1)
    return spread > 8 * torch.finfo(values.dtype).eps * values.abs().amax(1)


def correlation(first: Float[Tensor, "b s"], second: Float[Tensor, "b s"]) -> Float[Tensor, " b"]:
    """Return the Pearson correlation of every row; NaN if either side does not vary."""
    first, second = at_least_float32(first), at_least_float32(second)
    defined = has_variation(first) & has_variation(second)
    products = _standardize(first) * _standardize(second)
    return products.sum(1).clamp(-1, 1).where(defined, torch.nan)


def _standardize(values: Float[Tensor, "b s"]) -> Float[Tensor, "b s"]:
    """Shift and scale every row to mean 0 and norm 1."""
    # Scale the largest value to 1 first, since squares of tiny or huge numbers leave the range of float32.
    values = values / values.abs().amax(1, keepdim=True)
    centered = values - values.mean(1, keepdim=True)
    return centered / centered.norm(dim=1, keepdim=True)
