"""Read the images of an evaluation in batches."""

from collections.abc import Iterator
from typing import Any

from torch.utils.data import DataLoader

from vitrail.adapters import Classifier
from vitrail.core.progress import progress
from vitrail.datasets.collate import collate_by_size
from vitrail.datasets.dataset import Batch, LabeledImages, Unreadable
from vitrail.datasets.sampler import ProcessShare, fixed_generator, read_on_cpu


def read_batches(
    classifier: Classifier,
    images: LabeledImages,
    share: ProcessShare,
    batch_size: int,
    num_workers: int,
    description: str,
    unreadable: list[Unreadable],
) -> Iterator[Batch]:
    """Read this process's share of the images, moved to the model's device; append unreadable files to `unreadable`.

    Each batch holds images of one size. Where sizes differ, the images of a loader's batch are grouped by size; `index_by_name` restores
    their order.
    """
    loader: DataLoader[Any] = DataLoader(
        images, batch_size, sampler=share, num_workers=num_workers, collate_fn=collate_by_size, generator=fixed_generator()
    )
    batches_by_size = read_on_cpu(loader)
    for batches in progress(batches_by_size, len(loader), description) if share.rank == 0 else batches_by_size:
        for batch in batches:
            unreadable += batch.unreadable
            if len(batch.images):
                yield batch._replace(images=batch.images.to(classifier.device, classifier.dtype))


def index_by_name(images: LabeledImages) -> dict[str, int]:
    """Return the index of every image by its name."""
    return {images.name(index): index for index in range(len(images))}


def sort_unreadable(unreadable: list[Unreadable], images: LabeledImages) -> list[Unreadable]:
    """Sort unreadable files of several processes by their index in the data set."""
    if len(unreadable) < 2:
        return unreadable
    indices = index_by_name(images)
    return sorted(unreadable, key=lambda file: indices[file.path])
