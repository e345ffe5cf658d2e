"""The images of an evaluation, batch by batch, where the model is."""

from collections.abc import Iterator
from typing import Any

from torch.utils.data import DataLoader

from vitrail.adapters import Classifier
from vitrail.core.errors import ImageError
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
    what: str,
    unreadable: list[Unreadable],
) -> Iterator[Batch]:
    """Read a share of the images; what cannot be read is added to `unreadable`.

    Each batch holds images of one size. Where they differ, images of a loader's batch come grouped by size: `places` tells where they
    belong.
    """
    loader: DataLoader[Any] = DataLoader(
        images, batch_size, sampler=share, num_workers=num_workers, collate_fn=collate_by_size, generator=fixed_generator()
    )
    read = read_on_cpu(loader)
    for batches in progress(read, len(loader), what) if share.rank == 0 else read:
        for batch in batches:
            unreadable += batch.unreadable
            if len(batch.images):
                yield batch._replace(images=batch.images.to(classifier.device, classifier.dtype))


def expect_readable(count: int, images: LabeledImages, unreadable: list[Unreadable]) -> None:
    """Refuse a folder of which nothing could be read.

    Raises:
        ImageError: Not one image.
    """
    if not count:
        raise ImageError(f"not one of {len(images)} images could be read; the first: {unreadable[0].reason}")


def places(images: LabeledImages) -> dict[str, int]:
    """Where each image stands in its set, by its name."""
    return {images.name(index): index for index in range(len(images))}


def in_order(unreadable: list[Unreadable], images: LabeledImages) -> list[Unreadable]:
    """What several processes could not read, as one process meets it."""
    if len(unreadable) < 2:
        return unreadable
    place = places(images)
    return sorted(unreadable, key=lambda file: place[file.path])
