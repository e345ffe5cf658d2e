"""Localization: compare maps with ground truth."""

from typing import Any, ClassVar, final

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from vitrail.adapters.cells import count_pixels, sum_cells
from vitrail.core.errors import InvalidInputError
from vitrail.core.float32 import at_least_float32
from vitrail.core.types import Relevance
from vitrail.explanation import Explanation
from vitrail.metrics.base import METRICS, ExplainFunction, GroundTruthMasks, ImageMetric, Measure, Measurements, MetricBatch

CellRelevance = Float[Tensor, "b n"]
"""Relevance of the cells, row by row."""

CellGroundTruth = Int[Tensor, "b n"]
"""Number of ground-truth pixels in every cell."""

CellSizes = Int[Tensor, " n"]
"""Number of pixels of every cell."""


def pointing_hits(relevance: Relevance, masks: Bool[Tensor, "b height width"]) -> Bool[Tensor, " b"]:
    """Return whether the cell with the largest relevance contains a pixel of the mask.

    Args:
        relevance: One map per image.
        masks: Ground truth at the size of the images.

    Source: the pointing game, Zhang et al. 2016, arXiv:1608.00507, section 4.2.

    Differs: uses the cell with the largest relevance, without tolerance; the paper uses the pixel, with a tolerance of 15 pixels.
    """
    touched = find_touched_cells(masks, (relevance.shape[1], relevance.shape[2])).flatten(1)
    return touched.gather(1, relevance.flatten(1).argmax(1, keepdim=True)).squeeze(1)


def pointing_chance(masks: Bool[Tensor, "b height width"], grid_size: tuple[int, int]) -> Float[Tensor, " b"]:
    """Return the probability of a hit for a random cell."""
    return find_touched_cells(masks, grid_size).flatten(1).float().mean(1)


def find_touched_cells(masks: Bool[Tensor, "b height width"], grid_size: tuple[int, int]) -> Bool[Tensor, "b rows cols"]:
    """Find the cells with at least one mask pixel; if cells do not divide the mask evenly, neighbors share border pixels."""
    # Same windows as torch's adaptive pooling, which on Apple's GPUs misses pixels if cells do not divide the mask.
    return _count_pixels(_count_pixels(masks.int(), grid_size[1]).mT, grid_size[0]).mT > 0


def _count_pixels(pixels: Int[Tensor, "b lines length"], num_cells: int) -> Int[Tensor, "b lines cells"]:
    """Count the mask pixels of every cell along lines; border pixels count for both neighbors."""
    length, cells = pixels.shape[2], torch.arange(num_cells, device=pixels.device)
    start, end = cells * length // num_cells, -(-(cells + 1) * length // num_cells)
    sums = nn.functional.pad(pixels.cumsum(2, dtype=torch.int32), (1, 0))
    return sums[:, :, end] - sums[:, :, start]


def count_ground_truth_pixels(ground_truth: GroundTruthMasks, grid: tuple[int, int]) -> tuple[CellGroundTruth, CellSizes]:
    """Count the ground-truth pixels and all pixels of every cell; every pixel belongs to one cell, as in `perturbed_logits`.

    Raises:
        InvalidInputError: A grid with more cells than pixels.
    """
    (rows, cols), (height, width) = grid, ground_truth.shape[1:]
    if rows > height or cols > width:
        raise InvalidInputError(
            f"expected at most as many cells as ground_truth has pixels, got {rows}x{cols} cells on {height}x{width} pixels; "
            "give ground_truth at the size of the images"
        )
    # Integers are exact at any size, and deterministic.
    counts = sum_cells(ground_truth.int(), grid)
    return counts.flatten(1), count_pixels((height, width), grid, ground_truth.device).flatten()


def dilate(ground_truth: GroundTruthMasks, tolerance: int) -> GroundTruthMasks:
    """Add all pixels whose center is at most `tolerance` pixels from that of a ground-truth pixel."""
    if not tolerance:
        return ground_truth
    tolerance = min(tolerance, sum(ground_truth.shape[1:]))  # nothing is farther away
    squares = torch.arange(-tolerance, tolerance + 1, device=ground_truth.device) ** 2
    disc = (squares[:, None] + squares <= tolerance**2).float()
    counts = nn.functional.conv2d(ground_truth.float().unsqueeze(1), disc[None, None], padding=tolerance).squeeze(1)
    return counts > 0.5  # robust to the rounding of the convolution


def mass_accuracy(relevance: CellRelevance, ground_truth: CellGroundTruth, num_pixels: CellSizes) -> Float[Tensor, " b"]:
    """Return the share of the positive relevance on the ground truth; NaN if no relevance is positive.

    Source: Arras et al. 2022, arXiv:2003.07258, relevance mass accuracy.
    """
    positive = relevance.clamp_min(0)
    # Scale by the largest, so that sums are finite at any scale; 0 / 0 gives NaN.
    positive = positive / positive.amax(1, keepdim=True)
    return (positive * ground_truth).sum(1) / (positive * num_pixels).sum(1)


def rank_accuracy(relevance: CellRelevance, ground_truth: CellGroundTruth, num_pixels: CellSizes) -> Float[Tensor, " b"]:
    """Return the precision of the k most relevant pixels, where k is the size of the ground truth; NaN if that is 0.

    Source: Arras et al. 2022, arXiv:2003.07258, relevance rank accuracy.
    """
    sizes = ground_truth.sum(1, keepdim=True)
    order = relevance.argsort(dim=1, descending=True, stable=True)
    hits, cell_sizes = ground_truth.gather(1, order), num_pixels[order]
    remaining = sizes - (cell_sizes.cumsum(1) - cell_sizes)
    taken = remaining.clamp_min(0).minimum(cell_sizes)
    # All pixels of a cell are equally relevant, so a cell that is taken in part counts in proportion.
    return ((hits * taken).to(relevance.dtype) / cell_sizes).sum(1) / sizes.squeeze(1)


def average_precision(relevance: CellRelevance, ground_truth: CellGroundTruth, num_pixels: CellSizes) -> Float[Tensor, " b"]:
    """Return the mean precision over the ground-truth pixels, each with its relevance as threshold; NaN if there are none."""
    values, order = relevance.sort(dim=1, descending=True, stable=True)
    hits, cell_sizes = ground_truth.gather(1, order), num_pixels[order]
    # Cells with equal relevance pass a threshold together, so they share the precision at the last of them.
    last = torch.searchsorted(-values, -values, right=True) - 1
    precision = (hits.cumsum(1).to(relevance.dtype) / cell_sizes.cumsum(1)).gather(1, last)
    return (hits * precision).sum(1) / ground_truth.sum(1)


def pixel_iou(
    relevance: CellRelevance, ground_truth: CellGroundTruth, num_pixels: CellSizes, threshold: float
) -> Float[Tensor, " b"]:
    """Return the intersection over union, in pixels, of the ground truth and the map scaled to [0, 1] and thresholded.

    A constant map keeps all cells.
    """
    low, high = relevance.amin(1, keepdim=True), relevance.amax(1, keepdim=True)
    # Divide instead of scaling the threshold: the largest value is then exactly 1 and reaches any threshold.
    kept = ((relevance - low) / (high - low) >= threshold) | (high == low)
    intersection = (kept * ground_truth).sum(1)
    union = (kept * num_pixels).sum(1) + ground_truth.sum(1) - intersection
    return intersection.to(relevance.dtype) / union


@METRICS.register("localization")
@final
class Localization(ImageMetric):
    """How well a map locates the ground truth.

    Compares maps with ground truth pixel by pixel; every pixel has the relevance of its cell. A constant map has a `mass_accuracy`,
    `average_precision` and `iou` equal to `mass_chance`. Images with an empty ground truth score NaN. No forward passes.

    Args:
        threshold: Threshold for `iou`, in [0, 1] between the smallest and the largest relevance of a map.
        tolerance: Largest distance, in pixels, between the strongest cell and the ground truth that counts as a hit.

    Raises:
        InvalidInputError: A threshold or tolerance outside its range; on update, ground truth that does not fit the maps.

    Source: `pointing`: Zhang et al. 2016, arXiv:1608.00507, section 4.2. `mass_accuracy` and `rank_accuracy`: Arras et al. 2022,
    arXiv:2003.07258; with boxes as ground truth, `mass_accuracy` is also the energy-based pointing game of Wang et al. 2020
    (Score-CAM), arXiv:1910.01279. `average_precision`: per image, as in scikit-learn.

    Differs: `pointing` checks all pixels of the strongest cell (the first of equal ones) and has no tolerance by default; the paper
    checks the strongest pixel with a tolerance of 15 pixels, and Quantus any of equally strong pixels. A distance of exactly
    `tolerance` is a hit. `mass_accuracy` ignores negative relevance, which Quantus counts as negative mass. `rank_accuracy` takes
    whole cells, equal ones row by row, and the expected share of the last cell. `vitrail.metrics.masks` compares whole cells
    instead of pixels, and lets neighbors share pixels if cells do not divide the image evenly.
    """

    paper: ClassVar[str] = (
        "Zhang et al. 2016, arXiv:1608.00507; Arras et al. 2022, arXiv:2003.07258; Wang et al. 2020, arXiv:1910.01279"
    )
    needs_ground_truth = True
    measures = (
        Measure("pointing", "higher", 0.0, 1.0, "1 if the strongest cell is on the ground truth, else 0"),
        Measure("pointing_chance", None, 0.0, 1.0, "pointing of a random cell"),
        Measure(
            "mass_accuracy", "higher", 0.0, 1.0, "share of the positive relevance on the ground truth", depends_on_scale=True
        ),
        Measure("mass_chance", None, 0.0, 1.0, "share of the pixels on the ground truth: the score of a constant map"),
        Measure(
            "rank_accuracy", "higher", 0.0, 1.0, "precision of the k most relevant pixels, k being the size of the ground truth"
        ),
        Measure(
            "iou",
            "higher",
            0.0,
            1.0,
            "intersection over union of the thresholded map and the ground truth, in pixels",
            depends_on_scale=True,
        ),
        Measure("average_precision", "higher", 0.0, 1.0, "area under the precision-recall curve of pixels ranked by relevance"),
    )

    def __init__(self, threshold: float = 0.5, tolerance: int = 0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if not 0 <= threshold <= 1:
            raise InvalidInputError(f"expected a threshold between 0 and 1, got {threshold}")
        if not float(tolerance).is_integer() or tolerance < 0:
            raise InvalidInputError(f"expected a tolerance of 0, 1, 2, ... pixels, got {tolerance}")
        self.threshold, self.tolerance = threshold, int(tolerance)

    def measure(self, batch: MetricBatch, explanation: Explanation, explainer: ExplainFunction | None = None) -> Measurements:
        relevance, grid = at_least_float32(explanation.relevance).flatten(1), explanation.grid
        ground_truth = _check_ground_truth(batch.ground_truth, len(relevance)).to(relevance.device)
        counts, num_pixels = batch.cached(
            (count_ground_truth_pixels, grid), lambda: count_ground_truth_pixels(ground_truth, grid)
        )
        near_counts, _ = batch.cached(
            (count_ground_truth_pixels, grid, self.tolerance),
            lambda: count_ground_truth_pixels(dilate(ground_truth, self.tolerance), grid),
        )
        near = (near_counts > 0).to(relevance.dtype)
        sizes = counts.sum(1)
        values = [
            near.gather(1, relevance.argmax(1, keepdim=True)).squeeze(1),
            near.mean(1),
            mass_accuracy(relevance, counts, num_pixels),
            sizes.to(relevance.dtype) / num_pixels.sum(),
            rank_accuracy(relevance, counts, num_pixels),
            pixel_iou(relevance, counts, num_pixels, self.threshold),
            average_precision(relevance, counts, num_pixels),
        ]
        return torch.stack(values, 1).where(sizes[:, None] > 0, torch.nan)


def _check_ground_truth(ground_truth: GroundTruthMasks | None, count: int) -> GroundTruthMasks:
    if ground_truth is None or ground_truth.ndim != 3 or len(ground_truth) != count or ground_truth.dtype != torch.bool:
        got = "none" if ground_truth is None else f"{tuple(ground_truth.shape)} of {ground_truth.dtype}"
        raise InvalidInputError(f"expected ground_truth as booleans of shape ({count} images, height, width), got {got}")
    return ground_truth
