"""Images of differing sizes, kept apart by size: nothing that is measured on one may depend on the padding that others bring."""

from collections.abc import Hashable, Sequence

from vitrail.data.labelled import Batch


def same_size(sizes: Sequence[Hashable]) -> list[list[int]]:
    """The places of every size, in the order in which sizes and places come."""
    groups: dict[Hashable, list[int]] = {}
    for place, size in enumerate(sizes):
        groups.setdefault(size, []).append(place)
    return list(groups.values())


def by_size(batch: Batch) -> list[Batch]:
    """Take a batch apart into batches of images of one size, their padding cut off.

    Sizes come in the order of their first images, and the images of each in that of the batch. What could not be read goes with the
    first. A batch without padding comes back as it is.
    """
    if batch.padding is None:
        return [batch]
    # A row or a column belongs to an image where any of it does.
    heights = (~batch.padding).any(2).sum(1).tolist()
    widths = (~batch.padding).any(1).sum(1).tolist()
    parts = list[Batch]()
    for places in same_size(list(zip(heights, widths, strict=True))):
        height, width = heights[places[0]], widths[places[0]]
        part = Batch(
            images=batch.images[places, ..., :height, :width].contiguous(),
            labels=batch.labels[places],
            paths=[batch.paths[place] for place in places],
            unreadable=[] if parts else batch.unreadable,
            answers=None if batch.answers is None else batch.answers[places, :height, :width].contiguous(),
        )
        parts.append(part)
    return parts
