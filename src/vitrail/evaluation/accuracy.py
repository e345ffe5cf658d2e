"""How often a model is right."""

import logging
from dataclasses import dataclass, field

import torch
from torchmetrics import MeanMetric
from torchmetrics.classification import MulticlassAccuracy

from vitrail.adapters import Classifier
from vitrail.core.distributed import gather, rank, world_size
from vitrail.core.errors import InvalidInputError
from vitrail.core.outputs import ranking
from vitrail.datasets.dataset import NO_LABEL, LabeledImages, Unreadable
from vitrail.datasets.sampler import ProcessShare
from vitrail.datasets.workers import AGAIN, explain_killed_workers
from vitrail.evaluation.batches import expect_readable, in_order, read_batches

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Evaluation:
    """How a classifier does on labeled images.

    Attributes:
        top1: Share of images whose label is the most probable class.
        top5: Share of images whose label is among the five most probable.
        confidence: Mean probability of the most probable class; of a multi-label model, of that class by itself.
        num_images: Images read.
        unreadable: Files left out.
    """

    top1: float
    top5: float
    confidence: float
    num_images: int
    unreadable: list[Unreadable] = field(default_factory=list)


@explain_killed_workers(AGAIN)
def evaluate(classifier: Classifier, images: LabeledImages, batch_size: int = 64, num_workers: int = 0) -> Evaluation:
    """Measure accuracy on a folder with one sub-folder per class.

    Inside `vitrail.core.distributed.process_group`, each process takes its share of the images, and all get the same figures: those
    of one process, since no image is taken twice.

    Raises:
        InvalidInputError: No labels, classes that the model does not have, a model that has but one, or logits that are not finite.
        ImageError: Not one image could be read.
        ProcessError: A process that reads images was killed.
    """
    num_classes = expect_several_classes(classifier)
    images = with_model_labels(images, classifier)
    top1, top5 = (MulticlassAccuracy(num_classes, top_k=k, average="micro") for k in (1, min(5, num_classes)))
    # In double precision, the sum of so few digits is the same in any order.
    confidence, unreadable, count = MeanMetric().set_dtype(torch.float64), list[Unreadable](), 0
    share = ProcessShare(len(images), rank(), world_size())
    with classifier.inspecting(), torch.no_grad():
        for batch in read_batches(classifier, images, share, batch_size, num_workers, "testing", unreadable):
            logits = classifier.check_logits(classifier.logits(batch.images)).float()
            ordered = ranking(logits, classifier.output).cpu()
            top1.update(ordered, batch.labels)
            top5.update(ordered, batch.labels)
            confidence.update(classifier.probabilities(logits).amax(-1).cpu())
            count += len(batch.images)
    count, unreadable = sum(gather([count])), in_order(gather(unreadable), images)
    expect_readable(count, images, unreadable)
    # The metrics add up over processes by themselves.
    return Evaluation(float(top1.compute()), float(top5.compute()), float(confidence.compute()), count, unreadable)


def expect_several_classes(classifier: Classifier) -> int:
    """Return the number of classes.

    Raises:
        InvalidInputError: It is one: a yes or no, of which no label says what it is to be.
    """
    if classifier.num_classes < 2:
        raise InvalidInputError(
            f"expected a model of at least two classes, got {classifier.name} with one logit: folders do not tell which of them "
            "means yes, nor from which probability on; compare Classifier.probabilities with your labels instead"
        )
    return classifier.num_classes


def with_model_labels(images: LabeledImages, classifier: Classifier) -> LabeledImages:
    """Express a folder's labels as the model's classes: by name, else, where there are as many, by order.

    Raises:
        InvalidInputError: No labels, classes that the model does not have, or a name that several of its classes have.
    """
    if not images.class_names:
        raise InvalidInputError("expected one sub-folder of images per class, found photos without a class")
    found = classifier.class_indices(images.class_names)
    missing = [name for name, classes in zip(images.class_names, found, strict=True) if not classes]
    several = [name for name, classes in zip(images.class_names, found, strict=True) if len(classes) > 1]
    if several:
        raise InvalidInputError(
            f"expected folders named like one class each, got {', '.join(map(repr, several[:8]))}: several classes of {classifier.name} "
            "have that name, and nothing tells which is meant; rename the folders, or give the model names of one class each"
        )
    if not missing:
        order = [index for [index] in found]
    elif len(missing) == len(images.class_names) == classifier.num_classes:
        order = list(range(classifier.num_classes))
        if classifier.class_names:
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
