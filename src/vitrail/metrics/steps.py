"""The points of insertion and deletion curves: which cells or pixels are kept at each, and the model's logits."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from vitrail.adapters import Classifier, ViTAdapter
from vitrail.adapters.cells import expand_cells
from vitrail.core.errors import InvalidInputError, UnsupportedModelError
from vitrail.core.imputation import Imputer, impute
from vitrail.core.ranking import Order, rank_cells
from vitrail.core.types import Baseline, Images, Keep, Relevance
from vitrail.metrics.protocol import IMPUTED, REMOVED, Direction, Protocol


def select_changed(ranks: Int[Tensor, "b n"], thresholds: Float[Tensor, " s"]) -> Bool[Tensor, "b s n"]:
    """Return which cells have changed at every point of a curve: those with a rank below its threshold."""
    return ranks.unsqueeze(1) < thresholds.to(ranks.device)[:, None]


def expand_to_patches(cells: Bool[Tensor, "b s cells"], grid: tuple[int, int], patch_grid: tuple[int, int]) -> Keep:
    """Expand a mask over the cells of a map to the patches of each cell.

    Raises:
        InvalidInputError: Cells are not rectangles of whole patches.
    """
    if grid == patch_grid:
        return cells
    if patch_grid[0] % grid[0] or patch_grid[1] % grid[1]:
        raise InvalidInputError(
            f"expected a map whose cells are rectangles of the {patch_grid[0]}x{patch_grid[1]} patches, got a {grid[0]}x{grid[1]} map"
        )
    return expand_cells(cells.unflatten(2, grid), patch_grid).flatten(2)


def rank_pixels(relevance: Relevance, size: tuple[int, int], order: Order, smooth: bool) -> Int[Tensor, "b height width"]:
    """Return the position of every pixel of the enlarged map in the order of change, from 0; ties change row by row.

    Args:
        relevance: One map per image.
        size: Height and width in pixels.
        order: Which pixels change first.
        smooth: Enlarge the map bilinearly; otherwise every pixel has the value of its cell.
    """
    options = {"mode": "bilinear", "align_corners": False} if smooth else {"mode": "nearest"}
    enlarged = torch.nn.functional.interpolate(relevance.unsqueeze(1), size=size, **options).squeeze(1)
    return rank_cells(enlarged, order).unflatten(1, size)


@dataclass(frozen=True)
class Steps:
    """The points of a protocol's curves for one baseline, one curve per order and direction.

    If the curves do not include the unchanged image and the baseline but a score needs them, they are measured as additional points.

    Attributes:
        protocol: The measured protocol.
        baseline: One of its baselines.
        directions: The directions that are measured with this baseline.
    """

    protocol: Protocol
    baseline: str
    directions: Sequence[Direction]

    @property
    def num_curves(self) -> int:
        """Number of curves per score."""
        return len(self.protocol.orders) * len(self.directions)

    @property
    def has_ends(self) -> bool:
        """Whether the first and last point of every curve are the image and the baseline."""
        return self.protocol.has_ends or self._adds_ends

    @property
    def _adds_ends(self) -> bool:
        needs_ends = any(curve.normalized or curve.score == "kl" for curve in self.protocol.curves)
        return needs_ends and not self.protocol.has_ends

    @property
    def on_curve(self) -> slice:
        """The points that belong to the curves, without additional ones."""
        return slice(1, -1) if self._adds_ends else slice(None)

    @property
    def clean(self) -> tuple[int, int]:
        """Index of a curve and of a point where nothing has changed."""
        return (self.directions.index("deletion"), 0) if "deletion" in self.directions else (0, -1)

    def logits(self, classifier: Classifier, images: Images, relevance: Relevance) -> Float[Tensor, "b curves s c"]:
        """Return the model's logits at every point of every curve.

        Raises:
            UnsupportedModelError: The baseline "removed" with a network that is no Vision Transformer.
        """
        compute = self._pixel_logits if self.protocol.unit == "pixels" else self._cell_logits
        return compute(classifier, images, relevance).unflatten(1, (self.num_curves, -1))

    def ends(self, scores: Float[Tensor, "b curves s"]) -> Float[Tensor, "b curves 2"]:
        """Return the scores of image and baseline for every curve; NaN if not measured, or without a baseline."""
        deletes = torch.tensor([direction == "deletion" for direction in self.directions] * len(self.protocol.orders))
        first, last = scores[..., 0], scores[..., -1]
        deletes = deletes.to(scores.device)
        ends = torch.stack([torch.where(deletes, first, last), torch.where(deletes, last, first)], -1)
        measured = torch.tensor([self.has_ends, self.has_ends and self.baseline != REMOVED], device=ends.device)
        return ends.masked_fill(~measured, torch.nan)

    def _thresholds(self, num_items: int) -> Float[Tensor, " s"]:
        thresholds = self.protocol.thresholds(num_items)
        if not self._adds_ends:
            return thresholds
        return torch.cat([thresholds.new_zeros(1), thresholds, thresholds.new_full((1,), num_items)])

    def masks(self, relevance: Relevance, patch_grid: tuple[int, int]) -> Keep:
        """Return the kept patches at every point, curve after curve; only for protocols of cells."""
        grid = (relevance.shape[1], relevance.shape[2])
        num_cells = grid[0] * grid[1]
        # A network cannot classify without patches, so if tokens are removed, one is kept.
        least, most = (1, num_cells - 1) if self.baseline == REMOVED else (0, num_cells)
        thresholds, steps = self._thresholds(num_cells), list[Tensor]()
        for order in self.protocol.orders:
            ranks = rank_cells(relevance, order)
            for direction in self.directions:
                if direction == "insertion":
                    steps.append(select_changed(ranks, thresholds.clamp(min=least)))
                else:
                    steps.append(~select_changed(ranks, thresholds.clamp(max=most)))
        return expand_to_patches(torch.cat(steps, 1), grid, patch_grid)

    def masked_logits(self, classifier: Classifier, images: Images, keep: Keep) -> Float[Tensor, "b s c"]:
        """Return the logits of masked images; where a step changes no cell, those of the step before, without running the network.

        Raises:
            UnsupportedModelError: The baseline "removed" with a network that is no Vision Transformer.
        """
        changes = torch.ones(keep.shape[1], dtype=torch.bool, device=keep.device)
        changes[1:] = (keep[:, 1:] != keep[:, :-1]).any(2).any(0)
        return self._changed_logits(classifier, images, keep[:, changes])[:, changes.cumsum(0) - 1]

    def _changed_logits(self, classifier: Classifier, images: Images, keep: Keep) -> Float[Tensor, "b s c"]:
        if self.baseline != REMOVED:
            return classifier.perturbed_logits(images, self._replacement(classifier, images), keep)
        if not isinstance(classifier, ViTAdapter):
            raise UnsupportedModelError(
                f"expected a Vision Transformer, to remove patch tokens, got {classifier.name}; choose another protocol, or "
                "other baselines than removed, e.g. zero and imputed"
            )
        return classifier.kept_logits(images, keep)

    def _replacement(self, classifier: Classifier, images: Images) -> Baseline | Imputer:
        return impute if self.baseline == IMPUTED else classifier.baseline(self.baseline, images)

    def _cell_logits(self, classifier: Classifier, images: Images, relevance: Relevance) -> Float[Tensor, "b s c"]:
        return self.masked_logits(classifier, images, self.masks(relevance, classifier.grid_size(images)))

    def _pixel_logits(self, classifier: Classifier, images: Images, relevance: Relevance) -> Float[Tensor, "b s c"]:
        size = (images.shape[2], images.shape[3])
        thresholds, logits = self._thresholds(size[0] * size[1]), list[Tensor]()
        keep_low = torch.tensor([direction == "insertion" for direction in self.directions]).repeat_interleave(len(thresholds))
        replacement = self._replacement(classifier, images)
        for order in self.protocol.orders:
            ranks = rank_pixels(relevance, size, order, self.protocol.smooth)
            repeated = thresholds.repeat(len(self.directions))
            logits.append(classifier.perturbed_pixel_logits(images, replacement, ranks, repeated, keep_low))
        return torch.cat(logits, 1)
