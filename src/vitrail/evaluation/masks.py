"""Maps cut into masks, of several methods on the same images."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from vitrail.adapters import Classifier, Preprocessing
from vitrail.data.answered import AnsweredImages, with_answers
from vitrail.data.labelled import Batch, LabelledImages, Unreadable
from vitrail.data.sharing import OwnShare
from vitrail.distributed import gather, rank, world_size
from vitrail.evaluation.reading import expect_readable, in_order, places, read_batches
from vitrail.explainers import Explainer, distinct_names
from vitrail.explanation import Explanation
from vitrail.metrics.masks import MEASURES, Cells, check_threshold, cut, mean_defined, measure_masks
from vitrail.metrics.steps import to_patches
from vitrail.types import Keep, Targets
from vitrail.viz.sheet import SheetRow

NUM_SHOWN = 12
"""Images of a contact sheet: enough to see, and little to scroll."""


@dataclass(frozen=True)
class MaskScores:
    """Masks of several methods on the same images.

    Attributes:
        per_image: Per method and measure (`vitrail.metrics.masks.MEASURES`), a number an image; NaN where it is undefined.
        targets: The explained class of every image: the predicted one.
        paths: File of every image.
        answered: Whether answers lay beside the images.
        shown: Some images, spread over the classes, with the masks of all methods.
        unreadable: Files left out.
    """

    per_image: Mapping[str, Mapping[str, Float[Tensor, " b"]]]
    targets: Targets
    paths: Sequence[str]
    answered: bool
    shown: Sequence[SheetRow]
    unreadable: Sequence[Unreadable]

    @property
    def num_empty(self) -> int:
        """Images whose answer is empty, as the model sees them: no mask is right or wrong there."""
        return int((next(iter(self.per_image.values()))["answer"] == 0).sum())

    def means(self) -> dict[str, dict[str, float]]:
        """Per method and measure the mean over the images where it is defined; NaN where it is nowhere."""
        return {method: {name: mean_defined(each[name]) for name in each} for method, each in self.per_image.items()}


class _Found(NamedTuple):
    """What is known of one image: its explained class, a row of measures per method; map and mask of each, if shown."""

    path: str
    target: int
    rows: Float[Tensor, "methods measures"]
    columns: list[tuple[Explanation, Float[Tensor, "rows cols"]]]


def score_masks(
    classifier: Classifier,
    images: LabelledImages,
    explainers: Sequence[Explainer],
    threshold: float = 0.5,
    batch_size: int = 16,
    num_workers: int = 0,
) -> MaskScores:
    """Explain the predicted class of every image by every method, cut the maps into masks, and measure these.

    Removed patches are replaced by zero, and for a method that brings something of its own by that too. Where answers lie
    beside the images, as `vitrail.data.generating.write_task` puts them, or the set brings its own (`vitrail.data.answered`), masks
    are compared with them.

    Inside `vitrail.distributed.process_group`, each process takes its share of the images, and all get the same scores.

    Raises:
        InvalidInputError: No threshold, a method twice, or answers of some images only.
        ImageError: Not one image could be read.
    """
    check_threshold(threshold)
    names = distinct_names(explainers)
    images = with_answers(images, classifier.preprocessing)
    some = images.spread(NUM_SHOWN)
    shown = {some.name(index): index for index in range(len(some))}
    share, found, unreadable = OwnShare(len(images), rank(), world_size()), list[_Found](), list[Unreadable]()
    for batch in read_batches(classifier, images, share, batch_size, num_workers, "scoring", unreadable):
        explanations = [explainer.explain(batch.images) for explainer in explainers]
        masks = [
            cut(explanation.relevance, threshold, explainer.gives_probabilities)
            for explainer, explanation in zip(explainers, explanations, strict=True)
        ]
        rows = _measure(classifier, batch, explainers, explanations, masks).cpu()
        for i, (path, target) in enumerate(zip(batch.paths, explanations[0].targets.tolist(), strict=True)):
            columns = zip(explanations, masks, strict=True) if path in shown else ()
            found.append(_Found(path, target, rows[i], [(_on_cpu(one[i]), mask[i].float().cpu()) for one, mask in columns]))
    place = places(images)
    found = sorted(gather(found), key=lambda one: place[one.path])
    unreadable = in_order(gather(unreadable), images)
    expect_readable(len(found), images, unreadable)
    measured = torch.stack([one.rows for one in found])
    return MaskScores(
        per_image={name: dict(zip(MEASURES, measured[:, i].unbind(1), strict=True)) for i, name in enumerate(names)},
        targets=torch.tensor([one.target for one in found]),
        paths=[one.path for one in found],
        answered=isinstance(images, AnsweredImages),
        shown=[_row(some, shown[one.path], classifier, one) for one in found if one.columns],
        unreadable=unreadable,
    )


def _measure(
    classifier: Classifier,
    batch: Batch,
    explainers: Sequence[Explainer],
    explanations: Sequence[Explanation],
    masks: Sequence[Cells],
) -> Float[Tensor, "b methods measures"]:
    """Measure what all methods found in a batch."""
    images, patch_grid = batch.images, classifier.grid_size(batch.images)
    keep = [_on_patches(mask, patch_grid) for mask in masks]
    with classifier.inspecting(), torch.no_grad():
        # The whole image goes the same way, and all in one call: an adapter may share work between them.
        all_kept = torch.ones_like(keep[0])
        logits = classifier.perturbed_logits(images, classifier.baseline("zero", images), torch.cat([all_kept, *keep], 1))
    rows = []
    for i, (explainer, explanation) in enumerate(zip(explainers, explanations, strict=True)):
        own = explainer.logits_without(images, keep[i][:, 0])
        values = measure_masks(explanation.relevance, masks[i], logits[:, 0], logits[:, i + 1], own, batch.answers)
        rows.append(torch.stack([values[name].float() for name in MEASURES], 1))
    return torch.stack(rows, 1)


def _on_patches(mask: Cells, patch_grid: tuple[int, int]) -> Keep:
    return to_patches(mask.flatten(1).unsqueeze(1), (mask.shape[1], mask.shape[2]), patch_grid)


def _on_cpu(explanation: Explanation) -> Explanation:
    """A copy that keeps no batch, and nothing on a device."""
    bias = None if explanation.bias is None else explanation.bias.cpu().clone()
    tensors = {name: getattr(explanation, name).cpu().clone() for name in ("relevance", "targets", "logits")}
    return replace(explanation, **tensors, bias=bias)


def _row(images: LabelledImages, index: int, classifier: Classifier, found: _Found) -> SheetRow:
    photo, name = images.open(index), images.name(index)
    # Some sets are not cropped as the model's photos are, such as mosaics.
    preprocessing = images.transform if isinstance(images.transform, Preprocessing) else classifier.preprocessing
    box = preprocessing.visible_box(photo.height, photo.width)
    maps, kept = [one for one, _ in found.columns], {one.method: mask for one, mask in found.columns}
    return SheetRow(photo, box, maps, "/".join(Path(name).parts[-2:]), images.answer(index), kept).reduced()
