"""Batches of images, one per image size, as an evaluation takes them."""

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import numpy as np

from vitrail.adapters import Classifier
from vitrail.datasets.collate import collate_by_size
from vitrail.datasets.dataset import Batch, LabeledImages, Sample, Unreadable
from vitrail.runs.shards import Shard

S = TypeVar("S", bound=Shard)

Columns = tuple[np.ndarray, ...]
"""One entry per image each, the first with the indices of the images."""


FEW_IMAGES = 4
"""How many images are tried to find one that can be read."""


def read_first(images: LabeledImages) -> Sequence[Batch]:
    """Return a batch of one image, the first of a few that can be read; nothing if none of them can."""
    samples = map(images.__getitem__, range(min(FEW_IMAGES, len(images))))
    sample = next((sample for sample in samples if isinstance(sample, Sample)), None)
    return () if sample is None else collate_by_size([sample])


def move_readable(batches: Sequence[Batch], classifier: Classifier) -> Iterator[Batch]:
    """Yield the batches that hold images, moved to the model's device and precision."""
    for batch in batches:
        if len(batch.images):
            ground_truth = None if batch.ground_truth is None else batch.ground_truth.to(classifier.device)
            yield batch._replace(images=batch.images.to(classifier.device, classifier.dtype), ground_truth=ground_truth)


def unreadable_files(batches: Sequence[Batch]) -> tuple[Unreadable, ...]:
    """Return the files of some batches that were skipped."""
    return tuple(file for batch in batches for file in batch.unreadable)


def index_by_name(images: LabeledImages) -> dict[str, int]:
    """Return the index of every image by its name."""
    return {images.name(index): index for index in range(len(images))}


def measure_shard(
    kind: type[S], empty: Columns, measure: Callable[[Batch], Columns], batches: Sequence[Batch], classifier: Classifier
) -> S:
    """Measure batches of several image sizes, and merge their columns into one shard, in the order of the images.

    Args:
        kind: The shard, whose fields are the columns.
        empty: The columns without images.
        measure: Measures a batch that is on the model's device.
    """
    measured = [measure(batch) for batch in move_readable(batches, classifier)]
    columns = [np.concatenate(parts) for parts in zip(empty, *measured, strict=True)]
    order = columns[0].argsort(kind="stable")
    return kind(*(column[order] for column in columns), unreadable=unreadable_files(batches))
