"""Batches of images, one per image size, as an evaluation takes them."""

from collections.abc import Iterator, Sequence

from vitrail.adapters import Classifier
from vitrail.datasets.dataset import Batch, LabeledImages, Unreadable


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
