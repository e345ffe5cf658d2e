"""Whether an explanation points at what is known to decide."""

from typing import Any, final

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from vitrail.core.errors import InvalidInputError
from vitrail.core.types import Relevance
from vitrail.explanation import Explanation
from vitrail.metrics.base import METRICS, Again, Answers, ImageMetric, Measure, View, at_least_float32

CellRelevance = Float[Tensor, "b n"]
"""A map's cells, row by row."""

CellGroundTruth = Int[Tensor, "b n"]
"""How many pixels of every cell belong to the answer."""

CellAreas = Int[Tensor, " n"]
"""How many pixels every cell has."""


def pointing_hits(relevance: Relevance, masks: Bool[Tensor, "b height width"]) -> Bool[Tensor, " b"]:
    """Whether the cell of the largest relevance lies, with at least one pixel, on the mask.

    Args:
        relevance: One map an image.
        masks: The right answer in the pixels that the map covers.

    Source: the pointing game, arXiv:1608.00507, section 4.2.

    Differs: There the strongest pixel is asked, with a tolerance of 15 pixels; here the strongest cell, without.
    """
    touched = touched_cells(masks, (relevance.shape[1], relevance.shape[2])).flatten(1)
    return touched.gather(1, relevance.flatten(1).argmax(1, keepdim=True)).squeeze(1)


def pointing_chance(masks: Bool[Tensor, "b height width"], grid_size: tuple[int, int]) -> Float[Tensor, " b"]:
    """The share of hits of a cell picked at random."""
    return touched_cells(masks, grid_size).flatten(1).float().mean(1)


def touched_cells(masks: Bool[Tensor, "b height width"], grid_size: tuple[int, int]) -> Bool[Tensor, "b rows cols"]:
    """The cells of a grid that a mask reaches into; where cells do not divide the mask, neighbors share pixels."""
    # As torch's adaptive pooling, whose windows on Apple's GPUs miss pixels where cells do not divide the mask.
    return _pixels_reached(_pixels_reached(masks.int(), grid_size[1]).mT, grid_size[0]).mT > 0


def _pixels_reached(pixels: Int[Tensor, "b lines length"], num_cells: int) -> Int[Tensor, "b lines cells"]:
    """Pixels summed along lines, over every cell that they reach into."""
    length, cells = pixels.shape[2], torch.arange(num_cells, device=pixels.device)
    first, beyond = cells * length // num_cells, -(-(cells + 1) * length // num_cells)
    before = nn.functional.pad(pixels.cumsum(2, dtype=torch.int32), (1, 0))
    return before[:, :, beyond] - before[:, :, first]


def ground_truth_pixels(ground_truth: Answers, grid: tuple[int, int]) -> tuple[CellGroundTruth, CellAreas]:
    """Count, in every cell, the pixels of the answer and all pixels. Every pixel is in one cell, as `perturbed_logits` has it.

    Raises:
        InvalidInputError: A grid of more cells than there are pixels.
    """
    (rows, cols), (height, width) = grid, ground_truth.shape[1:]
    if rows > height or cols > width:
        raise InvalidInputError(
            f"expected maps of no more cells than ground_truth have pixels, got {rows}x{cols} cells on {height}x{width} pixels; "
            "give ground_truth in the pixels that the maps cover"
        )
    row_of = torch.arange(height, device=ground_truth.device) * rows // height
    col_of = torch.arange(width, device=ground_truth.device) * cols // width
    # In integers: exact at any size, and the same from run to run.
    inside = torch.zeros(len(ground_truth), rows, width, dtype=torch.int32, device=ground_truth.device)
    inside.index_add_(1, row_of, ground_truth.int())
    inside = inside.new_zeros(len(ground_truth), rows, cols).index_add_(2, col_of, inside)
    areas = row_of.bincount(minlength=rows)[:, None] * col_of.bincount(minlength=cols)
    return inside.flatten(1), areas.flatten()


def widened(ground_truth: Answers, tolerance: int) -> Answers:
    """All pixels whose center is at most `tolerance` pixels from that of a pixel of the answer."""
    if not tolerance:
        return ground_truth
    tolerance = min(tolerance, sum(ground_truth.shape[1:]))  # Farther than that is nothing.
    away = torch.arange(-tolerance, tolerance + 1, device=ground_truth.device) ** 2
    disc = (away[:, None] + away <= tolerance**2).float()
    met = nn.functional.conv2d(ground_truth.float().unsqueeze(1), disc[None, None], padding=tolerance).squeeze(1)
    return met > 0.5  # Counts of pixels, whatever the convolution's rounding.


def mass_accuracy(relevance: CellRelevance, inside: CellGroundTruth, areas: CellAreas) -> Float[Tensor, " b"]:
    """Share of the positive relevance that lies on the answer; NaN where no relevance is positive.

    Source: Arras et al. 2022, arXiv:2003.07258, relevance mass accuracy.
    """
    positive = relevance.clamp_min(0)
    # Over the largest: sums of maps of any scale are finite. Without any this is 0 / 0, and stays NaN.
    positive = positive / positive.amax(1, keepdim=True)
    return (positive * inside).sum(1) / (positive * areas).sum(1)


def rank_accuracy(relevance: CellRelevance, inside: CellGroundTruth, areas: CellAreas) -> Float[Tensor, " b"]:
    """Of the most relevant pixels, as many as the answer has, the share on the answer; NaN where the answer is empty.

    Source: Arras et al. 2022, arXiv:2003.07258, relevance rank accuracy.
    """
    sizes = inside.sum(1, keepdim=True)
    order = relevance.argsort(dim=1, descending=True, stable=True)
    found, room = inside.gather(1, order), areas[order]
    left = sizes - (room.cumsum(1) - room)
    taken = left.clamp_min(0).minimum(room)
    # All pixels of a cell are equally relevant: of a cell that is not wholly taken, in proportion.
    return ((found * taken).to(relevance.dtype) / room).sum(1) / sizes.squeeze(1)


def average_precision(relevance: CellRelevance, inside: CellGroundTruth, areas: CellAreas) -> Float[Tensor, " b"]:
    """Mean precision over the pixels of the answer, each at its own relevance as threshold; NaN where the answer is empty."""
    values, order = relevance.sort(dim=1, descending=True, stable=True)
    found, room = inside.gather(1, order), areas[order]
    # Cells of equal relevance come in together: precision is that at the last of them.
    last = torch.searchsorted(-values, -values, right=True) - 1
    precision = (found.cumsum(1).to(relevance.dtype) / room.cumsum(1)).gather(1, last)
    return (found * precision).sum(1) / inside.sum(1)


def pixel_iou(relevance: CellRelevance, inside: CellGroundTruth, areas: CellAreas, threshold: float) -> Float[Tensor, " b"]:
    """Intersection over union, in pixels, of the answer and the cells that reach a threshold between their smallest and largest.

    A constant map prefers no cell to another, and keeps all.
    """
    low, high = relevance.amin(1, keepdim=True), relevance.amax(1, keepdim=True)
    # Divided, so that the largest value is 1 exactly, and reaches any threshold.
    kept = ((relevance - low) / (high - low) >= threshold) | (high == low)
    both = (kept * inside).sum(1)
    either = (kept * areas).sum(1) + inside.sum(1) - both
    return both.to(relevance.dtype) / either


@METRICS.register("localization")
@final
class Localization(ImageMetric):
    """How well a map finds what is known to decide.

    Maps are compared with ground_truth in pixels, every pixel with the relevance of its cell, as if upsampled by "nearest". A
    constant map has a `mass_accuracy`, `average_precision` and `iou` of `mass_chance`. An image with an empty answer has NaN
    everywhere. No forward passes.

    Args:
        threshold: Where maps are cut for `iou`, in [0, 1] between their smallest and their largest relevance.
        tolerance: How many pixels the strongest cell may miss the answer by in the pointing game.

    Raises:
        InvalidInputError: A threshold or a tolerance that is none; on update, ground_truth that do not fit the maps.

    Source: `pointing`: Zhang et al. 2016, arXiv:1608.00507, section 4.2. `mass_accuracy` and `rank_accuracy`: Arras et al. 2022,
    arXiv:2003.07258; where the answer is a box, `mass_accuracy` is also the energy-based pointing game of Wang et al. 2020
    (Score-CAM), arXiv:1910.01279. `average_precision`: per image, as scikit-learn has it.

    Differs: `pointing` asks whether any pixel of the strongest cell, of equal ones the first, is on or near the answer, where
    the paper asks the strongest pixel; who misses by `tolerance` exactly still hits, and there is no tolerance by default,
    where the paper has 15 pixels. Quantus lets any of equally strong pixels hit. `mass_accuracy` leaves negative relevance out,
    which Quantus counts as negative mass. `rank_accuracy` takes cells whole, equal ones row by row, and of the last one as many
    pixels as are still wanted: what these hold of the answer is its expected value over all orders of the cell's pixels.
    `vitrail.metrics.masks` compares whole cells with ground_truth, not pixels, and lets cells that do not divide the image share
    pixels.
    """

    needs_ground_truth = True
    measures = (
        Measure("pointing", "higher", 0.0, 1.0, "1 where the strongest cell lies on the answer, else 0"),
        Measure("pointing_chance", None, 0.0, 1.0, "that of a cell picked at random"),
        Measure("mass_accuracy", "higher", 0.0, 1.0, "share of the positive relevance on the answer"),
        Measure("mass_chance", None, 0.0, 1.0, "share of the pixels on the answer: what a constant map reaches"),
        Measure("rank_accuracy", "higher", 0.0, 1.0, "share on the answer of as many most relevant pixels as it has"),
        Measure("iou", "higher", 0.0, 1.0, "intersection over union of the cut map and the answer, in pixels"),
        Measure("average_precision", "higher", 0.0, 1.0, "area under precision and recall of pixels ranked by relevance"),
    )

    def __init__(self, threshold: float = 0.5, tolerance: int = 0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if not 0 <= threshold <= 1:
            raise InvalidInputError(f"expected a threshold between 0 and 1, got {threshold}")
        if not float(tolerance).is_integer() or tolerance < 0:
            raise InvalidInputError(f"expected a tolerance of 0, 1, 2, ... pixels, got {tolerance}")
        self.threshold, self.tolerance = threshold, int(tolerance)

    def measure(self, view: View, explanation: Explanation, again: Again | None = None) -> Float[Tensor, "b measures"]:
        relevance, grid = at_least_float32(explanation.relevance).flatten(1), explanation.grid
        ground_truth = _checked(view.ground_truth, len(relevance)).to(relevance.device)
        inside, areas = view.once((ground_truth_pixels, grid), lambda: ground_truth_pixels(ground_truth, grid))
        reached, _ = view.once(
            (ground_truth_pixels, grid, self.tolerance),
            lambda: ground_truth_pixels(widened(ground_truth, self.tolerance), grid),
        )
        near = (reached > 0).to(relevance.dtype)
        sizes = inside.sum(1)
        found = [
            near.gather(1, relevance.argmax(1, keepdim=True)).squeeze(1),
            near.mean(1),
            mass_accuracy(relevance, inside, areas),
            sizes.to(relevance.dtype) / areas.sum(),
            rank_accuracy(relevance, inside, areas),
            pixel_iou(relevance, inside, areas, self.threshold),
            average_precision(relevance, inside, areas),
        ]
        return torch.stack(found, 1).where(sizes[:, None] > 0, torch.nan)


def _checked(ground_truth: Answers | None, count: int) -> Answers:
    if ground_truth is None or ground_truth.ndim != 3 or len(ground_truth) != count or ground_truth.dtype != torch.bool:
        got = "none" if ground_truth is None else f"{tuple(ground_truth.shape)} of {ground_truth.dtype}"
        raise InvalidInputError(
            f"expected ground_truth of shape ({count} images, height, width) that are True where an image decides, got {got}"
        )
    return ground_truth
