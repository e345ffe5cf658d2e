"""Some of a map's cells at a time: which ones, what the model says without them, and how two rows of numbers agree."""

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from vitrail.core.errors import InvalidInputError
from vitrail.core.registry import unknown_name
from vitrail.core.types import Relevance, Targets
from vitrail.metrics.base import View, at_least_float32
from vitrail.metrics.curve_scores import measure
from vitrail.metrics.steps import change_ranks, to_patches

TargetScore = Literal["probability", "logit"]
"""What the model says of the explained class."""


def check_score(score: str) -> None:
    """Refuse what is no `TargetScore`.

    Raises:
        UnknownNameError: It is another name.
    """
    if score not in get_args(TargetScore):
        raise unknown_name("score", score, list(get_args(TargetScore)))


def check_share(name: str, share: float) -> None:
    """Refuse what is no part of the cells, or all of them.

    Raises:
        InvalidInputError: It does not lie between 0 and 1.
    """
    if not 0 < share < 1:
        raise InvalidInputError(f"expected {name} between 0 and 1, both excluded, got {share}; it is a share of a map's cells")


def check_count(name: str, count: int, least: int) -> None:
    """Refuse too few.

    Raises:
        InvalidInputError: It is no whole number, or below the least one that makes sense.
    """
    if not isinstance(count, int) or isinstance(count, bool) or count < least:
        raise InvalidInputError(f"expected {name} as a whole number of at least {least}, got {count!r}")


def cells_of_share(share: float, num_cells: int) -> int:
    """The number of cells nearest to a share of them: at least one, and where there are two, never all."""
    return max(1, min(round(share * num_cells), num_cells - 1))


@dataclass(frozen=True)
class RandomSubsets:
    """Subsets of a map's cells, all of one size. They depend on these numbers and the grid alone, never on image or map.

    Attributes:
        num_subsets: How many.
        share: Share of the cells in each.
        seed: Of the generator that picks them, on the CPU: they are the same on every device.
    """

    num_subsets: int
    share: float
    seed: int

    def cells(self, num_cells: int) -> Int[Tensor, "s size"]:
        """Numbers of the cells of every subset, row by row; drawn without replacement, on the CPU."""
        generator = torch.Generator().manual_seed(self.seed)
        luck = torch.rand(self.num_subsets, num_cells, generator=generator, device="cpu", dtype=torch.float64)
        return luck.argsort(dim=1, stable=True)[:, : cells_of_share(self.share, num_cells)]

    def sums(self, relevance: Relevance) -> Float[Tensor, "b s"]:
        """Relevance summed over every subset."""
        # Gathered, not multiplied by masks: equal addends in equal order, so that a constant map has exactly equal sums.
        cells = self.cells(relevance[0].numel()).to(relevance.device)
        return at_least_float32(relevance).flatten(1)[:, cells].sum(2)

    def scores_without(
        self, view: View, grid: tuple[int, int], baseline: str, targets: Targets, score: TargetScore
    ) -> Float[Tensor, "b s"]:
        """What the model says of the explained classes without every subset; asked once a batch, for all metrics and methods."""

        def compute() -> Float[Tensor, "b s c"]:
            num_cells = grid[0] * grid[1]
            removed = torch.zeros(self.num_subsets, num_cells, dtype=torch.bool, device="cpu")
            removed.scatter_(1, self.cells(num_cells), True)
            return logits_without(view, removed.expand(len(view.images), -1, -1), grid, baseline)

        # All classes are kept: methods may explain different ones.
        return target_scores(view, view.once((self, grid, baseline), compute), targets, score)


def groups_by_relevance(
    relevance: Relevance, group_of_rank: Int[Tensor, " n"]
) -> tuple[Float[Tensor, "b s"], Bool[Tensor, "b s n"]]:
    """Cut the cells, most relevant first, into groups.

    Args:
        relevance: One map an image; equal relevance is taken row by row.
        group_of_rank: The group of the most relevant cell, of the next one, and so on: 0, then upwards, none left out.

    Returns:
        Relevance summed over every group, and the cells of every group.
    """
    numbers = torch.arange(int(group_of_rank[-1]) + 1, device=relevance.device)
    members = group_of_rank.to(relevance.device)[change_ranks(relevance)].unsqueeze(1) == numbers[:, None]
    return at_least_float32(relevance).flatten(1).unsqueeze(1).where(members, 0).sum(2), members


def logits_without(view: View, removed: Bool[Tensor, "b s n"], grid: tuple[int, int], baseline: str) -> Float[Tensor, "b s c"]:
    """What the model says with some of a map's cells replaced, in single precision or better.

    Args:
        view: The batch.
        removed: Over the cells of the map, row by row; True = replaced.
        grid: Rows and columns of the map.
        baseline: By what they are replaced.
    """
    keep = to_patches(~removed.to(view.images.device), grid, view.patch_grid)
    with view.classifier.inspecting(), torch.no_grad():
        replacement = view.classifier.baseline(baseline, view.images)
        return at_least_float32(view.classifier.perturbed_logits(view.images, replacement, keep))


def target_scores(view: View, logits: Float[Tensor, "b s c"], targets: Targets, score: TargetScore) -> Float[Tensor, "b s"]:
    """What logits say of the explained classes."""
    return measure(logits.unsqueeze(1), view.logits, targets.to(logits.device), score, view.classifier.output).squeeze(1)


def clean_scores(view: View, targets: Targets, score: TargetScore) -> Float[Tensor, "b 1"]:
    """What the model says of the explained classes where nothing is replaced."""
    return target_scores(view, view.logits.unsqueeze(1), targets, score)


def varies(values: Float[Tensor, "b s"]) -> Bool[Tensor, " b"]:
    """Whether numbers differ by more than rounding in single precision."""
    values = at_least_float32(values)
    spread = values.amax(1) - values.amin(1)
    return spread > 8 * torch.finfo(values.dtype).eps * values.abs().amax(1)


def correlation(first: Float[Tensor, "b s"], second: Float[Tensor, "b s"]) -> Float[Tensor, " b"]:
    """Pearson's correlation of every row; NaN where a side does not vary."""
    first, second = (at_least_float32(each) for each in (first, second))
    defined = varies(first) & varies(second)
    products = _standardized(first) * _standardized(second)
    return products.sum(1).clamp(-1, 1).where(defined, torch.nan)


def _standardized(values: Float[Tensor, "b s"]) -> Float[Tensor, "b s"]:
    """Of mean 0 and length 1."""
    # First to a largest value of 1: the square of a tiny or huge one is not a number of single precision.
    values = values / values.abs().amax(1, keepdim=True)
    centered = values - values.mean(1, keepdim=True)
    return centered / centered.norm(dim=1, keepdim=True)
