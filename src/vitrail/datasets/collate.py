"""Images of differing sizes, kept apart by size: nothing that is measured on one may depend on the padding that others bring."""

from collections.abc import Hashable, Sequence

from vitrail.datasets.dataset import Batch, Sample, Unreadable, collate


def group_by_size(sizes: Sequence[Hashable]) -> list[list[int]]:
    """The places of every size, in the order in which sizes and places come."""
    groups: dict[Hashable, list[int]] = {}
    for place, size in enumerate(sizes):
        groups.setdefault(size, []).append(place)
    return list(groups.values())


def collate_by_size(samples: Sequence[Sample | Unreadable]) -> list[Batch]:
    """Stack what could be read, a batch per size, without padding.

    Sizes come in the order of their first images, and the images of each in that of the samples. What could not be read goes with the
    first batch, which is empty where nothing could be.
    """
    read = [sample for sample in samples if isinstance(sample, Sample)]
    unreadable = [sample for sample in samples if isinstance(sample, Unreadable)]
    parts = [[read[place] for place in places] for places in group_by_size([sample.image.shape[-2:] for sample in read])]
    return [collate(part if i else [*part, *unreadable]) for i, part in enumerate(parts or [[]])]
