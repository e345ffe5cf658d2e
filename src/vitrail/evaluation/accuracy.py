"""Measure the accuracy of a model on labeled images."""

import logging
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from vitrail.adapters import Classifier
from vitrail.core.errors import InvalidInputError
from vitrail.core.files import write_text
from vitrail.core.json_io import json_text
from vitrail.core.outputs import has_probabilities
from vitrail.datasets.dataset import NO_LABEL, LabeledImages, Unreadable
from vitrail.evaluation.predictions import predict
from vitrail.runs.shards import list_unreadable

logger = logging.getLogger(__name__)

MEASURES = ("top1", "top5", "confidence")


@dataclass(frozen=True)
class Evaluation:
    """Accuracy of a classifier on labeled images.

    Attributes:
        top1: Share of images whose label is the most probable class.
        top5: Share of images whose label is among the five most probable classes.
        confidence: Mean probability of the most probable class; NaN for similarities, which have none.
        num_images: Number of images read.
        unreadable: Files that were skipped.
    """

    top1: float
    top5: float
    confidence: float
    num_images: int
    unreadable: list[Unreadable] = field(default_factory=list)


def evaluate(classifier: Classifier, images: LabeledImages, batch_size: int = 64, num_workers: int = 0) -> Evaluation:
    """Measure accuracy on a folder with one sub-folder per class.

    Inside `vitrail.core.distributed.process_group`, the processes share the images and all return the same numbers: those of one process.

    Args:
        classifier: The model.
        images: Images with labels.
        batch_size: Images per batch.
        num_workers: Processes that read images.

    Raises:
        InvalidInputError: No labels, classes that the model does not have, a model with one logit, or logits that are not finite.
        ImageError: Not a single image could be read.
        ProcessError: A process that reads images was killed.
    """
    expect_several_classes(classifier, compared=True)
    return measure_accuracy(classifier, with_model_labels(images, classifier), batch_size, num_workers)


def measure_accuracy(
    classifier: Classifier, images: LabeledImages, batch_size: int, num_workers: int, folder: Path | None = None, key: str = ""
) -> Evaluation:
    """Measure accuracy on images whose labels are the model's classes, of `with_model_labels`; see `evaluate`.

    Args:
        folder: Folder for the results of every batch, shared by all processes; batches with results there are not computed again.
        key: Identifies the run; batches in the folder with another key are computed again.
    """
    shards = predict(classifier, images, batch_size, num_workers, "testing", folder=folder, key=key)
    # In double precision, and in the order of the images.
    means = {name: float(np.concatenate([getattr(shard, name) for shard in shards]).mean()) for name in MEASURES}
    if not has_probabilities(classifier.output):
        means["confidence"] = math.nan
    return Evaluation(**means, num_images=sum(shard.num_images for shard in shards), unreadable=list_unreadable(shards))


def expect_several_classes(classifier: Classifier, compared: bool = False) -> None:
    """Refuse a model without at least two classes.

    Args:
        compared: Whether similarities, of which the largest decides, count as classes.

    Raises:
        InvalidInputError: Its outputs are no classes, or it has one logit: class folders do not say which of them means yes.
    """
    if not has_probabilities(classifier.output) and not (compared and classifier.directions is not None):
        raise InvalidInputError(
            f"expected a classifier, got {classifier.name}, whose outputs are no classes (output {classifier.output!r}), so that there is "
            "no accuracy; compare Classifier.logits with your numbers instead"
        )
    if classifier.num_classes < 2:
        raise InvalidInputError(
            f"expected a model of at least two classes, got {classifier.name} with one logit: class folders do not say which class means "
            "yes, nor from which probability on; compare Classifier.probabilities with your labels instead"
        )


def with_model_labels(images: LabeledImages, classifier: Classifier) -> LabeledImages:
    """Replace folder labels by class indices of the model: by name, or by order if there are as many folders as classes.

    Raises:
        InvalidInputError: No labels, classes that the model does not have, or a name that several of its classes have.
    """
    if not images.class_names:
        raise InvalidInputError("expected one sub-folder of images per class, found photos without a class")
    matches = classifier.class_indices(images.class_names)
    missing = [name for name, classes in zip(images.class_names, matches, strict=True) if not classes]
    ambiguous = [name for name, classes in zip(images.class_names, matches, strict=True) if len(classes) > 1]
    if ambiguous:
        raise InvalidInputError(
            f"expected each folder to be named like one class, got {', '.join(map(repr, ambiguous[:8]))}: several classes of "
            f"{classifier.name} have that name; rename the folders, or give the model distinct class names"
        )
    if not missing:
        order = [index for [index] in matches]
    elif len(missing) == len(images.class_names) == classifier.num_classes:
        order = list(range(classifier.num_classes))
        if classifier.class_names:
            logger.warning(
                "no folder is named like a class of the model; folders are matched to classes by order: %s is %s, ..., %s is %s",
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


def write_accuracy(folder: Path, model: str, result: Evaluation) -> None:
    """Write accuracy.json."""
    write_text(folder / "accuracy.json", json_text(describe_accuracy(model, result), indent=2))


def describe_accuracy(model: str, result: Evaluation) -> dict[str, Any]:
    """Return the accuracy of a model as plain values."""
    return {
        "model": model,
        "top1": result.top1,
        "top5": result.top5,
        "mean_confidence": None if math.isnan(result.confidence) else result.confidence,
        "num_images": result.num_images,
        "unreadable": [file._asdict() for file in result.unreadable],
    }
