"""A map cut into a mask: does the network decide the same from it, and is it the right one?"""

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, final

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from vitrail.core.divergence import kl_divergence
from vitrail.core.errors import InvalidInputError
from vitrail.core.outputs import Output, decisions
from vitrail.core.types import Keep, Logits, Relevance
from vitrail.explanation import Explanation
from vitrail.metrics.base import METRICS, Again, ImageMetric, Measure, Replacing, View
from vitrail.metrics.localization import pointing_chance, pointing_hits, touched_cells
from vitrail.metrics.steps import change_ranks, to_patches

Cells = Bool[Tensor, "b rows cols"]
"""A mask on a map's own grid; True = kept."""

MEASURES: Mapping[str, Measure] = MappingProxyType(
    {
        measure.name: measure
        for measure in (
            Measure("kept", None, 0.0, 1.0, "share of the cells that the mask keeps"),
            Measure("agreement", "higher", 0.0, 1.0, "1 where the decision stays when all else is removed, else 0"),
            Measure("kl", "lower", 0.0, math.inf, "KL(image || image under the mask) of all classes' probabilities, in nats"),
            Measure("agreement_own", "higher", 0.0, 1.0, "agreement where the method itself replaces what is removed"),
            Measure("kl_own", "lower", 0.0, math.inf, "KL where the method itself replaces what is removed, in nats"),
            Measure("answer", None, 0.0, 1.0, "share of the cells that the answer touches"),
            Measure("iou", "higher", 0.0, 1.0, "intersection over union of mask and answer"),
            Measure("iou_at_size", "higher", 0.0, 1.0, "the same where the map keeps as many cells as the answer has"),
            Measure("pointing", "higher", 0.0, 1.0, "1 where the largest relevance lies on the answer, else 0"),
            Measure("pointing_chance", None, 0.0, 1.0, "pointing of a cell picked at random"),
        )
    }
)
"""What is measured of every image, in the order of all tables.

An image has NaN where a measure is undefined: the last four where its answer is empty.
"""


def check_threshold(threshold: float) -> None:
    """Refuse what is no threshold.

    Raises:
        InvalidInputError: It lies outside of [0, 1].
    """
    if not 0 <= threshold <= 1:
        raise InvalidInputError(f"expected a threshold between 0 and 1, got {threshold}")


def cut(relevance: Relevance, threshold: float = 0.5, probabilities: bool = False) -> Cells:
    """Keep the cells that reach a threshold.

    Args:
        relevance: One map an image.
        threshold: In [0, 1]; a cell that meets it exactly is kept.
        probabilities: Whether the maps say how probably a cell is to be kept: they are cut as they are. Any other map is first
            brought to [0, 1] by its own smallest and largest value. One that is constant prefers no cell to another, and
            keeps all.

    Raises:
        InvalidInputError: A threshold that is none, or maps that are not finite.
    """
    check_threshold(threshold)
    if not torch.isfinite(relevance).all():
        raise InvalidInputError("expected finite relevance, got NaN or infinite values")
    if probabilities:
        return relevance >= threshold
    low, high = relevance.amin((1, 2), keepdim=True), relevance.amax((1, 2), keepdim=True)
    # Divided, so that the largest value is 1 exactly, and reaches any threshold.
    return (((relevance - low) / (high - low)) >= threshold) | (high == low)


def cut_at_size(relevance: Relevance, sizes: Int[Tensor, " b"]) -> Cells:
    """Keep so many cells per image, those of the largest relevance; of equal ones the first, row by row."""
    kept = change_ranks(relevance) < sizes.to(relevance.device).unsqueeze(1)
    return kept.unflatten(1, relevance.shape[1:])


def overlap(masks: Cells, ground_truth: Cells) -> Float[Tensor, " b"]:
    """Intersection over union per image; NaN where the answer is empty: no mask is right or wrong there."""
    both, either = (found.flatten(1).sum(1).float() for found in (masks & ground_truth, masks | ground_truth))
    return torch.where(ground_truth.flatten(1).any(1), both / either, torch.nan)


def measure_masks(
    relevance: Relevance,
    masks: Cells,
    logits: Logits,
    masked_logits: Logits,
    own_logits: Logits | None = None,
    ground_truth: Bool[Tensor, "b height width"] | None = None,
    output: Output = "softmax",
) -> dict[str, Float[Tensor, " b"]]:
    """Take all of `MEASURES` of a batch.

    Args:
        relevance: One map an image.
        masks: What is kept of them.
        logits: Of the images.
        masked_logits: Of the images under their masks.
        own_logits: The same where the method itself replaces what is removed; None for a method that does not.
        ground_truth: What decides, in the pixels that the maps cover; None where nobody knows. A cell belongs to the answer when
            it holds a pixel of it.
        output: What logits mean, see `Classifier.output`.
    """
    undefined = relevance.new_full((len(relevance),), torch.nan)
    found = dict.fromkeys(MEASURES, undefined) | {"kept": masks.flatten(1).float().mean(1)}
    for ending, changed in (("", masked_logits), ("_own", own_logits)):
        if changed is not None:
            agree = (decisions(changed) == decisions(logits)).float()
            found[f"agreement{ending}"] = agree.where(changed.isfinite().all(-1), torch.nan)
            # Half precision is for networks.
            found[f"kl{ending}"] = kl_divergence(logits.to(relevance.dtype), changed.to(relevance.dtype), output)
    if ground_truth is None:
        return found
    ground_truth = ground_truth.to(relevance.device)
    cells = touched_cells(ground_truth, (relevance.shape[1], relevance.shape[2]))
    sizes, chance = cells.flatten(1).sum(1), pointing_chance(ground_truth, (relevance.shape[1], relevance.shape[2]))
    right = {
        "iou": overlap(masks, cells),
        "iou_at_size": overlap(cut_at_size(relevance, sizes), cells),
        "pointing": pointing_hits(relevance, ground_truth).float().where(sizes > 0, torch.nan),
        "pointing_chance": chance.where(sizes > 0, torch.nan),
    }
    return found | {"answer": chance} | right


@METRICS.register("masks")
@final
class Masks(ImageMetric):
    """A map cut into a mask: does the network decide the same from it, and is it the right one?

    Removed patches are replaced by zero, and for a method that brings something of its own by that too. One forward pass an image,
    and one more for such a method.

    Args:
        threshold: Where maps are cut, see `cut`; maps that are probabilities are cut as they are.

    Source: agreement and KL as Nalmpantis et al. 2023, arXiv:2304.06391, section 4; pointing game, arXiv:1608.00507.
    """

    measures = tuple(MEASURES.values())

    def __init__(self, threshold: float = 0.5, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        check_threshold(threshold)
        self.threshold = threshold

    def measure(self, view: View, explanation: Explanation, again: Again | None = None) -> Float[Tensor, "b measures"]:
        method: Any = again if isinstance(again, Replacing) else None
        probabilities = bool(method and method.gives_probabilities)
        masks = cut(explanation.relevance, self.threshold, probabilities)
        keep = to_patches(masks.flatten(1).unsqueeze(1), explanation.grid, view.patch_grid)
        with view.classifier.inspecting(), torch.no_grad():
            # The whole image goes the same way.
            logits = view.once("masks: the whole image", lambda: self._logits(view, torch.ones_like(keep)))
            masked = self._logits(view, keep)
        own = None if method is None else method.logits_without(view.images, keep[:, 0])
        found = measure_masks(explanation.relevance, masks, logits, masked, own, view.ground_truth, view.classifier.output)
        return torch.stack([found[name].float() for name in MEASURES], 1)

    def _logits(self, view: View, keep: Keep) -> Logits:
        baseline = view.classifier.baseline("zero", view.images)
        return view.classifier.perturbed_logits(view.images, baseline, keep)[:, 0]
