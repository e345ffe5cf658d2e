"""Batches of samples: padded to one size, or one batch per image size."""

from collections.abc import Hashable, Sequence

import torch
from torch import Tensor, nn

from vitrail.datasets.dataset import Batch, Sample, Unreadable


def collate(samples: Sequence[Sample | Unreadable]) -> Batch:
    """Stack the readable samples, zero-padded to the largest height and width; the batch may be smaller than requested, or empty."""
    readable = [sample for sample in samples if isinstance(sample, Sample)]
    masks = [sample.ground_truth for sample in readable if sample.ground_truth is not None]
    sizes = [sample.image.shape[-2:] for sample in readable]
    return Batch(
        images=_stack_padded([sample.image for sample in readable]) if readable else torch.empty(0),
        labels=torch.tensor([sample.label for sample in readable], dtype=torch.long),
        paths=[sample.path for sample in readable],
        unreadable=[sample for sample in samples if isinstance(sample, Unreadable)],
        ground_truth=_stack_padded(masks) if masks else None,
        padding=~_stack_padded([torch.ones(size, dtype=torch.bool) for size in sizes]) if len(set(sizes)) > 1 else None,
    )


def collate_by_size(samples: Sequence[Sample | Unreadable]) -> list[Batch]:
    """Stack the readable samples into one batch per image size, so that no result depends on padding.

    Batches follow the order in which their sizes first occur. All unreadable samples are listed in the first batch, which is empty if
    no sample is readable.
    """
    readable = [sample for sample in samples if isinstance(sample, Sample)]
    unreadable = [sample for sample in samples if isinstance(sample, Unreadable)]
    groups = [[readable[i] for i in indices] for indices in group_by_size([sample.image.shape[-2:] for sample in readable])]
    return [collate(group if i else [*group, *unreadable]) for i, group in enumerate(groups or [[]])]


def group_by_size(sizes: Sequence[Hashable]) -> list[list[int]]:
    """Return the indices of each distinct size, in order of first occurrence."""
    groups: dict[Hashable, list[int]] = {}
    for index, size in enumerate(sizes):
        groups.setdefault(size, []).append(index)
    return list(groups.values())


def _stack_padded(tensors: Sequence[Tensor]) -> Tensor:
    """Stack images or masks; smaller ones are zero-padded at the bottom and on the right."""
    sizes = {tensor.shape[-2:] for tensor in tensors}
    if len(sizes) == 1:
        return torch.stack(list(tensors))
    height, width = (max(sides) for sides in zip(*sizes, strict=True))
    margins = [(0, width - tensor.shape[-1], 0, height - tensor.shape[-2]) for tensor in tensors]
    return torch.stack([nn.functional.pad(tensor, margin) for tensor, margin in zip(tensors, margins, strict=True)])
