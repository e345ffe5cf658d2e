"""Which cells or pixels are the image's at every point of a curve, and what the model says of it."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from vitrail.adapters import Classifier, ViTAdapter
from vitrail.core.errors import InvalidInputError, UnsupportedModelError
from vitrail.core.types import Images, Keep, Relevance
from vitrail.metrics.protocols import REMOVED, Direction, Order, Protocol


def change_ranks(relevance: Relevance, order: Order = "most") -> Int[Tensor, "b n"]:
    """When every cell changes: 0 first. Equal relevance changes in the order of the cells, row by row.

    Differs: the published code sorts unstably, so tied maps give different curves from run to run.
    """
    if not torch.isfinite(relevance).all():
        raise InvalidInputError("expected finite relevance, got NaN or infinite values")
    sorted_cells = relevance.flatten(1).argsort(dim=1, descending=order == "most", stable=True)
    return sorted_cells.argsort(dim=1)


def changed_cells(ranks: Int[Tensor, "b n"], thresholds: Float[Tensor, " s"]) -> Bool[Tensor, "b s n"]:
    """Which cells have changed at each point of a curve: those whose rank lies below its threshold."""
    return ranks.unsqueeze(1) < thresholds.to(ranks.device)[:, None]


def to_patches(cells: Bool[Tensor, "b s cells"], grid: tuple[int, int], patch_grid: tuple[int, int]) -> Keep:
    """Spread a mask over a map's own cells onto the patches under them.

    Raises:
        InvalidInputError: The map's cells are no blocks of patches.
    """
    if grid == patch_grid:
        return cells
    if patch_grid[0] % grid[0] or patch_grid[1] % grid[1]:
        raise InvalidInputError(
            f"expected a map whose cells are blocks of the {patch_grid[0]}x{patch_grid[1]} patches, got a {grid[0]}x{grid[1]} map"
        )
    blocks = cells.unflatten(2, grid).repeat_interleave(patch_grid[0] // grid[0], 2)
    return blocks.repeat_interleave(patch_grid[1] // grid[1], 3).flatten(2)


def pixel_ranks(relevance: Relevance, size: tuple[int, int], order: Order, smooth: bool) -> Int[Tensor, "b height width"]:
    """When every pixel of the enlarged map changes: 0 first; equal ones row by row.

    Args:
        relevance: One map an image.
        size: Height and width in pixels.
        order: Which pixels change first.
        smooth: Whether the map is enlarged bilinearly, or every pixel has the value of its cell.
    """
    how = {"mode": "bilinear", "align_corners": False} if smooth else {"mode": "nearest"}
    enlarged = torch.nn.functional.interpolate(relevance.unsqueeze(1), size=size, **how).squeeze(1)
    return change_ranks(enlarged, order).unflatten(1, size)


@dataclass(frozen=True)
class Steps:
    """The curves of a protocol for one baseline: a curve an order and direction, and their points.

    Where a protocol's curves do not reach from the image to the baseline, the two are measured beside them if anything asks for
    them.

    Attributes:
        protocol: What is measured.
        baseline: One of its baselines.
        directions: Those of its directions that this baseline is measured in.
    """

    protocol: Protocol
    baseline: str
    directions: Sequence[Direction]

    @property
    def num_curves(self) -> int:
        """Curves of one score."""
        return len(self.protocol.orders) * len(self.directions)

    @property
    def has_ends(self) -> bool:
        """Whether the first and the last point of every curve are image and baseline."""
        return self.protocol.has_ends or self._adds_ends

    @property
    def _adds_ends(self) -> bool:
        asked = any(curve.normalized or curve.score == "kl" for curve in self.protocol.curves)
        return asked and not self.protocol.has_ends

    @property
    def on_curve(self) -> slice:
        """The points that belong to the curves."""
        return slice(1, -1) if self._adds_ends else slice(None)

    @property
    def clean(self) -> tuple[int, int]:
        """A curve and a point where nothing has changed."""
        return (self.directions.index("deletion"), 0) if "deletion" in self.directions else (0, -1)

    def logits(self, classifier: Classifier, images: Images, relevance: Relevance) -> Float[Tensor, "b curves s c"]:
        """What the model says at every point of every curve.

        Raises:
            UnsupportedModelError: Patches are to be taken out of a network that has none.
        """
        take = self._of_pixels if self.protocol.unit == "pixels" else self._of_cells
        return take(classifier, images, relevance).unflatten(1, (self.num_curves, -1))

    def ends(self, measured: Float[Tensor, "b curves s"]) -> Float[Tensor, "b curves 2"]:
        """Per curve the score of the image, and that of the baseline; NaN where they were not measured, or do not exist."""
        deletes = torch.tensor([side == "deletion" for side in self.directions] * len(self.protocol.orders))
        first, last = (measured[..., at] for at in (0, -1))
        deletes = deletes.to(measured.device)
        ends = torch.stack([torch.where(deletes, first, last), torch.where(deletes, last, first)], -1)
        exist = torch.tensor([self.has_ends, self.has_ends and self.baseline != REMOVED], device=ends.device)
        return ends.masked_fill(~exist, torch.nan)

    def _thresholds(self, num_items: int) -> Float[Tensor, " s"]:
        thresholds = self.protocol.thresholds(num_items)
        if not self._adds_ends:
            return thresholds
        return torch.cat([thresholds.new_zeros(1), thresholds, thresholds.new_full((1,), num_items)])

    def masks(self, relevance: Relevance, patch_grid: tuple[int, int]) -> Keep:
        """Which patches are the image's at every point, all points of a curve behind each other; only of cells."""
        grid = (relevance.shape[1], relevance.shape[2])
        num_cells = grid[0] * grid[1]
        # No patches at all are nothing to classify: where they are taken out, one is left.
        least, most = (1, num_cells - 1) if self.baseline == REMOVED else (0, num_cells)
        thresholds, steps = self._thresholds(num_cells), list[Tensor]()
        for order in self.protocol.orders:
            ranks = change_ranks(relevance, order)
            for direction in self.directions:
                if direction == "insertion":
                    steps.append(changed_cells(ranks, thresholds.clamp(min=least)))
                else:
                    steps.append(~changed_cells(ranks, thresholds.clamp(max=most)))
        return to_patches(torch.cat(steps, 1), grid, patch_grid)

    def masked_logits(self, classifier: Classifier, images: Images, keep: Keep) -> Float[Tensor, "b s c"]:
        """What the model says of the image under masks.

        Raises:
            UnsupportedModelError: Patches are to be taken out of a network that has none.
        """
        if self.baseline != REMOVED:
            return classifier.perturbed_logits(images, classifier.baseline(self.baseline, images), keep)
        if not isinstance(classifier, ViTAdapter):
            raise UnsupportedModelError(
                f"expected a Vision Transformer, whose patches can be taken out, got {classifier.name}; choose a protocol with a baseline"
            )
        return classifier.kept_logits(images, keep)

    def _of_cells(self, classifier: Classifier, images: Images, relevance: Relevance) -> Float[Tensor, "b s c"]:
        return self.masked_logits(classifier, images, self.masks(relevance, classifier.grid_size(images)))

    def _of_pixels(self, classifier: Classifier, images: Images, relevance: Relevance) -> Float[Tensor, "b s c"]:
        size = (images.shape[2], images.shape[3])
        thresholds, found = self._thresholds(size[0] * size[1]), list[Tensor]()
        keep_low = torch.tensor([side == "insertion" for side in self.directions]).repeat_interleave(len(thresholds))
        replacement = classifier.baseline(self.baseline, images)
        for order in self.protocol.orders:
            ranks = pixel_ranks(relevance, size, order, self.protocol.smooth)
            repeated = thresholds.repeat(len(self.directions))
            found.append(classifier.perturbed_pixel_logits(images, replacement, ranks, repeated, keep_low))
        return torch.cat(found, 1)
