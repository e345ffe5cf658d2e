"""How often a model is right."""

import logging
from dataclasses import dataclass, field

import torch
from torchmetrics import MeanMetric
from torchmetrics.classification import MulticlassAccuracy

from vitrail.adapters import Classifier
from vitrail.data.labelled import NO_LABEL, LabelledImages, Unreadable
from vitrail.data.reading import AGAIN, killed_readers
from vitrail.data.sharing import OwnShare
from vitrail.distributed import gather, rank, world_size
from vitrail.errors import InvalidInputError
from vitrail.evaluation.reading import expect_readable, in_order, read_batches

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


@killed_readers(AGAIN)
def evaluate(classifier: Classifier, images: LabelledImages, batch_size: int = 64, num_workers: int = 0) -> Evaluation:
    """Measure accuracy on a folder with one sub-folder per class.

    Inside `vitrail.distributed.process_group`, each process takes its share of the images, and all get the same figures: those
    of one process, since no image is taken twice.

    Raises:
        InvalidInputError: No labels, classes that the model does not have, or a model that has but one.
        ImageError: Not one image could be read.
        ProcessError: A process that reads images was killed.
    """
    num_classes = classifier.num_classes
    if num_classes < 2:
        raise InvalidInputError(f"expected a model of at least two classes, got {classifier.name} with one: it is always right")
    images = with_model_labels(images, classifier)
    top1, top5 = (MulticlassAccuracy(num_classes, top_k=k, average="micro") for k in (1, min(5, num_classes)))
    # In double precision, the sum of so few digits is the same in any order.
    confidence, unreadable, count = MeanMetric().set_dtype(torch.float64), list[Unreadable](), 0
    share = OwnShare(len(images), rank(), world_size())
    with classifier.inspecting(), torch.no_grad():
        for batch in read_batches(classifier, images, share, batch_size, num_workers, "testing", unreadable):
            probabilities = classifier.logits(batch.images).float().softmax(-1).cpu()
            top1.update(probabilities, batch.labels)
            top5.update(probabilities, batch.labels)
            confidence.update(probabilities.amax(-1))
            count += len(batch.images)
    count, unreadable = sum(gather([count])), in_order(gather(unreadable), images)
    expect_readable(count, images, unreadable)
    # The metrics add up over processes by themselves.
    return Evaluation(float(top1.compute()), float(top5.compute()), float(confidence.compute()), count, unreadable)


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
