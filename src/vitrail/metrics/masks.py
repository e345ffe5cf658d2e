"""Threshold a map into a mask: does the model predict the same from it, and does it match the ground truth?"""

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, ClassVar, final

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from vitrail.core.divergence import kl_divergence
from vitrail.core.errors import InvalidInputError
from vitrail.core.outputs import Output, has_probabilities, same_decision
from vitrail.core.ranking import rank_cells
from vitrail.core.types import Keep, Logits, Relevance
from vitrail.explanation import Explanation
from vitrail.metrics.base import METRICS, ExplainFunction, ImageMetric, Measure, Measurements, MetricBatch, PatchReplacer
from vitrail.metrics.localization import find_touched_cells, pointing_chance, pointing_hits
from vitrail.metrics.steps import expand_to_patches

Cells = Bool[Tensor, "b rows cols"]
"""A mask over the cells of a map; True = kept."""

MEASURES: Mapping[str, Measure] = MappingProxyType(
    {
        measure.name: measure
        for measure in (
            Measure("kept", None, 0.0, 1.0, "share of the cells that the mask keeps"),
            Measure(
                "agreement", "higher", 0.0, 1.0, "1 if the prediction stays the same when all other cells are removed, else 0"
            ),
            Measure("kl", "lower", 0.0, math.inf, "KL(image || masked image) over all classes, in nats"),
            Measure("agreement_own", "higher", 0.0, 1.0, "agreement with the method's own placeholder"),
            Measure("kl_own", "lower", 0.0, math.inf, "KL with the method's own placeholder, in nats"),
            Measure("ground_truth", None, 0.0, 1.0, "share of the cells on the ground truth"),
            Measure("iou", "higher", 0.0, 1.0, "intersection over union of mask and ground truth"),
            Measure("iou_at_size", "higher", 0.0, 1.0, "iou if the mask keeps as many cells as the ground truth has"),
            Measure("pointing", "higher", 0.0, 1.0, "1 if the strongest cell is on the ground truth, else 0"),
            Measure("pointing_chance", None, 0.0, 1.0, "pointing of a random cell"),
        )
    }
)
"""All measures by name, in the order of all tables. The last four are NaN for images with an empty ground truth, agreement
and KL for outputs without probabilities."""


def check_threshold(threshold: float) -> None:
    """Check for a threshold in [0, 1].

    Raises:
        InvalidInputError: It is outside.
    """
    if not 0 <= threshold <= 1:
        raise InvalidInputError(f"expected a threshold between 0 and 1, got {threshold}")


def threshold_relevance(relevance: Relevance, threshold: float = 0.5, probabilities: bool = False) -> Cells:
    """Keep the cells that reach a threshold.

    Args:
        relevance: One map per image.
        threshold: In [0, 1]; a cell exactly at the threshold is kept.
        probabilities: Whether maps are probabilities of keeping a cell, which are used as they are. All other maps are scaled to
            [0, 1] by their smallest and largest value; a constant map keeps all cells.

    Raises:
        InvalidInputError: A threshold outside of [0, 1], or maps that are not finite.
    """
    check_threshold(threshold)
    if not torch.isfinite(relevance).all():
        raise InvalidInputError("expected finite relevance, got NaN or infinite values")
    if probabilities:
        return relevance >= threshold
    low, high = relevance.amin((1, 2), keepdim=True), relevance.amax((1, 2), keepdim=True)
    # Divide instead of scaling the threshold: the largest value is then exactly 1 and reaches any threshold.
    return (((relevance - low) / (high - low)) >= threshold) | (high == low)


def keep_top_cells(relevance: Relevance, sizes: Int[Tensor, " b"]) -> Cells:
    """Keep the given number of cells per image, the most relevant ones; ties are taken row by row."""
    kept = rank_cells(relevance) < sizes.to(relevance.device).unsqueeze(1)
    return kept.unflatten(1, relevance.shape[1:])


def mask_iou(masks: Cells, ground_truth: Cells) -> Float[Tensor, " b"]:
    """Return the intersection over union per image; NaN if the ground truth is empty."""
    intersection, union = (cells.flatten(1).sum(1).float() for cells in (masks & ground_truth, masks | ground_truth))
    return torch.where(ground_truth.flatten(1).any(1), intersection / union, torch.nan)


def measure_masks(
    relevance: Relevance,
    masks: Cells,
    logits: Logits,
    masked_logits: Logits,
    own_logits: Logits | None = None,
    ground_truth: Bool[Tensor, "b height width"] | None = None,
    output: Output = "softmax",
) -> dict[str, Float[Tensor, " b"]]:
    """Compute all `MEASURES` of a batch.

    Args:
        relevance: One map per image.
        masks: The mask of every map.
        logits: Logits of the images.
        masked_logits: Logits of the masked images.
        own_logits: Logits with the method's own placeholder for removed patches; None if it has none.
        ground_truth: The pixels known to decide, at the size of the images; None if unknown. A cell is on the ground truth if it
            contains one of its pixels.
        output: What logits mean, see `Classifier.output`.
    """
    undefined = relevance.new_full((len(relevance),), torch.nan)
    values = dict.fromkeys(MEASURES, undefined) | {"kept": masks.flatten(1).float().mean(1)}
    for suffix, changed in (("", masked_logits), ("_own", own_logits)):
        if changed is not None:
            agree = same_decision(changed, logits, output).float()
            values[f"agreement{suffix}"] = agree.where(changed.isfinite().all(-1), torch.nan)
        if changed is not None and has_probabilities(output):
            values[f"kl{suffix}"] = kl_divergence(logits.to(relevance.dtype), changed.to(relevance.dtype), output)
    if ground_truth is None:
        return values
    ground_truth = ground_truth.to(relevance.device)
    cells = find_touched_cells(ground_truth, (relevance.shape[1], relevance.shape[2]))
    sizes, chance = cells.flatten(1).sum(1), pointing_chance(ground_truth, (relevance.shape[1], relevance.shape[2]))
    return values | {
        "ground_truth": chance,
        "iou": mask_iou(masks, cells),
        "iou_at_size": mask_iou(keep_top_cells(relevance, sizes), cells),
        "pointing": pointing_hits(relevance, ground_truth).float().where(sizes > 0, torch.nan),
        "pointing_chance": chance.where(sizes > 0, torch.nan),
    }


@METRICS.register("masks")
@final
class Masks(ImageMetric):
    """Threshold a map into a mask: does the model predict the same from it, and does it match the ground truth?

    Removed patches are replaced by zero and, if the method has a placeholder of its own, also by that. Costs one forward pass per
    image, and another one for methods with a placeholder.

    Args:
        threshold: Threshold of the mask, see `threshold_relevance`.

    Source: agreement and KL as Nalmpantis et al. 2023, arXiv:2304.06391, section 4; pointing game, arXiv:1608.00507.
    """

    paper: ClassVar[str] = "Nalmpantis et al. 2023, arXiv:2304.06391; Zhang et al. 2016, arXiv:1608.00507"
    measures = tuple(MEASURES.values())

    def __init__(self, threshold: float = 0.5, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        check_threshold(threshold)
        self.threshold = threshold

    def measure(self, batch: MetricBatch, explanation: Explanation, explainer: ExplainFunction | None = None) -> Measurements:
        method: Any = explainer if isinstance(explainer, PatchReplacer) else None
        probabilities = bool(method and method.gives_probabilities)
        masks = threshold_relevance(explanation.relevance, self.threshold, probabilities)
        keep = expand_to_patches(masks.flatten(1).unsqueeze(1), explanation.grid, batch.patch_grid)
        with batch.classifier.inspecting(), torch.no_grad():
            # The whole image takes the same numerical path.
            logits = batch.cached("masks.whole_image", lambda: self._logits(batch, torch.ones_like(keep)))
            masked = self._logits(batch, keep)
        own_logits = None if method is None else method.placeholder_logits(batch.images, keep[:, 0])
        values = measure_masks(
            explanation.relevance, masks, logits, masked, own_logits, batch.ground_truth, batch.classifier.output
        )
        return torch.stack([values[name].float() for name in MEASURES], 1)

    def _logits(self, batch: MetricBatch, keep: Keep) -> Logits:
        baseline = batch.classifier.baseline("zero", batch.images)
        return batch.classifier.perturbed_logits(batch.images, baseline, keep)[:, 0]
