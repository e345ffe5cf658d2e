"""Insertion and deletion of several methods on the same images."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from vitrail.adapters import Classifier
from vitrail.data.labelled import LabelledImages, Unreadable
from vitrail.data.sharing import OwnShare
from vitrail.errors import InvalidInputError
from vitrail.evaluation.reading import expect_readable, places, read_batches
from vitrail.explainers import Explainer, distinct_names
from vitrail.metrics import Curves, InsertionDeletion, Protocol
from vitrail.types import Targets


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
    names = distinct_names(explainers)
    metrics = [InsertionDeletion(protocol) for _ in explainers]
    targets, paths, unreadable = list[Tensor](), list[str](), list[Unreadable]()
    completeness: dict[str, float] = {}
    for batch in read_batches(classifier, images, OwnShare(len(images)), batch_size, num_workers, "scoring", unreadable):
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
    expect_readable(len(paths), images, unreadable)
    place = places(images)
    # Images of differing sizes came grouped by size.
    order = sorted(range(len(paths)), key=lambda read: place[paths[read]])
    measured = [metric.curves() for metric in metrics]
    curves = {name: replace(each, scores=each.scores[order]) for name, each in zip(names, measured, strict=True)}
    return Scores(curves, torch.cat(targets)[order], [paths[read] for read in order], completeness, unreadable)
