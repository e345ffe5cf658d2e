"""A whole folder of images through a model: how often it is right, and whether its explanations are true."""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader
from torchmetrics import MeanMetric
from torchmetrics.classification import MulticlassAccuracy

from vitrail.adapters import Classifier
from vitrail.data.labelled import NO_LABEL, Batch, LabelledImages, Unreadable, collate
from vitrail.data.sharing import OwnShare
from vitrail.distributed import gather, rank, world_size
from vitrail.errors import ImageError, InvalidInputError
from vitrail.explainers import Explainer
from vitrail.metrics import Curves, InsertionDeletion, Protocol
from vitrail.progress import progress
from vitrail.types import Targets

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Evaluation:
    """How a classifier does on labelled images.

    Attributes:
        top1: Share of images whose label is the most probable class.
        top5: Share of images whose label is among the five most probable.
        confidence: Mean probability of the most probable class.
        num_images: Images read.
        unreadable: Files left out.
    """

    top1: float
    top5: float
    confidence: float
    num_images: int
    unreadable: list[Unreadable] = field(default_factory=list)


@dataclass(frozen=True)
class Scores:
    """Insertion and deletion of several methods on the same images.

    Attributes:
        curves: Per method.
        targets: The explained class of every image: the predicted one.
        paths: File of every image.
        completeness: Per method that accounts for the whole logit: the largest completeness error met.
        unreadable: Files left out.
    """

    curves: dict[str, Curves]
    targets: Targets
    paths: list[str]
    completeness: dict[str, float]
    unreadable: list[Unreadable]


def evaluate(classifier: Classifier, images: LabelledImages, batch_size: int = 64, num_workers: int = 0) -> Evaluation:
    """Measure accuracy on a folder with one sub-folder per class.

    Inside `vitrail.distributed.process_group`, each process takes its share of the images, and all get the same figures: those
    of one process, since no image is taken twice.

    Raises:
        InvalidInputError: No labels, or classes that the model does not have.
        ImageError: Not one image could be read.
    """
    images = with_model_labels(images, classifier)
    num_classes = classifier.num_classes
    top1, top5 = (MulticlassAccuracy(num_classes, top_k=k, average="micro") for k in (1, min(5, num_classes)))
    # In double precision, the sum of so few digits is the same in any order.
    confidence, unreadable, count = MeanMetric().set_dtype(torch.float64), list[Unreadable](), 0
    share = OwnShare(len(images), rank(), world_size())
    with classifier.inspecting(), torch.no_grad():
        for batch in _batches(classifier, images, share, batch_size, num_workers, "testing", unreadable):
            probabilities = classifier.logits(batch.images).float().softmax(-1).cpu()
            top1.update(probabilities, batch.labels)
            top5.update(probabilities, batch.labels)
            confidence.update(probabilities.amax(-1))
            count += len(batch.images)
    count, unreadable = sum(gather([count])), _in_order(gather(unreadable), images)
    _expect_readable(count, images, unreadable)
    # The metrics add up over processes by themselves.
    return Evaluation(float(top1.compute()), float(top5.compute()), float(confidence.compute()), count, unreadable)


def score(
    classifier: Classifier,
    images: LabelledImages,
    explainers: Sequence[Explainer],
    protocol: Protocol,
    batch_size: int = 16,
    num_workers: int = 0,
) -> Scores:
    """Explain the predicted class of every image by every method, and measure whether the score follows.

    Raises:
        InvalidInputError: A method twice; or maps of several grids, where points of a curve are counted in cells.
        ImageError: Not one image could be read.
    """
    names = [explainer.name for explainer in explainers]
    if not names or len(set(names)) < len(names):
        raise InvalidInputError(f"expected at least one method, each once, got {', '.join(names) or 'none'}")
    metrics = [InsertionDeletion(protocol) for _ in explainers]
    targets, paths, unreadable = list[Tensor](), list[str](), list[Unreadable]()
    completeness: dict[str, float] = {}
    for batch in _batches(classifier, images, OwnShare(len(images)), batch_size, num_workers, "scoring", unreadable):
        for explainer, metric in zip(explainers, metrics, strict=True):
            explanation = explainer.explain(batch.images)
            metric.update(classifier, batch.images, explanation)
            error = explanation.completeness_error()
            if error is not None:
                completeness[explanation.method] = max(error, completeness.get(explanation.method, 0.0))
        if len({int(metric.num_cells) for metric in metrics}) > 1:
            grids = ", ".join(f"{name} {int(metric.num_cells)}" for name, metric in zip(names, metrics, strict=True))
            raise InvalidInputError(f"expected methods whose maps have as many cells, got {grids}; score them apart")
        targets.append(explanation.targets.cpu())
        paths += batch.paths
    _expect_readable(len(paths), images, unreadable)
    curves = {name: metric.curves() for name, metric in zip(names, metrics, strict=True)}
    return Scores(curves, torch.cat(targets), paths, completeness, unreadable)


def with_model_labels(images: LabelledImages, classifier: Classifier) -> LabelledImages:
    """Express a folder's labels as the model's classes: by name, else, where there are as many, by order.

    Raises:
        InvalidInputError: No labels, or classes that the model does not have.
    """
    if not images.class_names:
        raise InvalidInputError("expected one sub-folder of images per class, found photos without a class")
    known = {name: index for index, name in enumerate(classifier.class_names)}
    missing = [name for name in images.class_names if name not in known]
    if not missing:
        order = [known[name] for name in images.class_names]
    elif len(missing) == len(images.class_names) == classifier.num_classes:
        order = list(range(classifier.num_classes))
        if known:
            logger.warning(
                "no folder is named like a class of the model, so they are taken in order: %s is %s, ..., %s is %s",
                *(images.class_names[0], classifier.class_name(0), images.class_names[-1], classifier.class_name(order[-1])),
            )
    else:
        raise InvalidInputError(
            f"expected folders named like the model's classes, or {classifier.num_classes} folders in the order of its classes; "
            f"unknown among {len(images.class_names)}: {', '.join(missing[:8])}"
        )
    if NO_LABEL in images.labels:
        count = sum(label == NO_LABEL for label in images.labels)
        raise InvalidInputError(
            f"expected a class for every image, found {count} of {len(images)} without one; choose a split that has labels"
        )
    return images.with_labels([order[label] for label in images.labels])


def _batches(
    classifier: Classifier,
    images: LabelledImages,
    share: OwnShare,
    batch_size: int,
    num_workers: int,
    what: str,
    unreadable: list[Unreadable],
) -> Iterator[Batch]:
    loader: DataLoader[Any] = DataLoader(images, batch_size, sampler=share, num_workers=num_workers, collate_fn=collate)
    for batch in progress(loader, len(loader), what) if share.rank == 0 else loader:
        unreadable += batch.unreadable
        if len(batch.images):
            yield batch._replace(images=batch.images.to(classifier.device, classifier.dtype))


def _expect_readable(count: int, images: LabelledImages, unreadable: list[Unreadable]) -> None:
    if not count:
        raise ImageError(f"not one of {len(images)} images could be read; the first: {unreadable[0].reason}")


def _in_order(unreadable: list[Unreadable], images: LabelledImages) -> list[Unreadable]:
    """As one process meets them."""
    if len(unreadable) < 2:
        return unreadable
    place = {images.name(index): index for index in range(len(images))}
    return sorted(unreadable, key=lambda file: place[file.path])
