"""Decoded photos: scaled down to a shorter side, and kept in memory, for training that reads them many times."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, final

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader

from vitrail.adapters.resizing import resize_within
from vitrail.core.errors import InvalidInputError
from vitrail.core.progress import progress
from vitrail.datasets.dataset import LabeledImages, Transform, Unreadable

GIGA = 1 << 30

FIRST_ESTIMATE = 64
"""Photos to decode before their mean size counts as the size of all."""


@final
@dataclass(frozen=True)
class DecodedPixels:
    """The pixels of many photos of different sizes in one array, which worker processes share.

    Args:
        pixels: All photos, one after the other. A tensor, since torch moves tensors to shared memory on their way to a new process.
        sizes: Height and width of every photo; (0, 0) for one that cannot be read.
        starts: Where every photo begins in `pixels`.
    """

    pixels: UInt8[Tensor, " bytes"] = field(repr=False)
    sizes: Sequence[tuple[int, int]]
    starts: Sequence[int]

    @classmethod
    def decode(cls, images: LabeledImages, num_workers: int) -> "DecodedPixels":
        """Read all photos.

        Raises:
            InvalidInputError: They do not fit into the memory that is free now.
        """
        photos, sizes, starts, total, free = list[Tensor](), list[tuple[int, int]](), list[int](), 0, _free_memory()
        # A generator of its own: without one, a loader draws its seed from torch's global random numbers.
        loader: Any = DataLoader(
            images.with_transform(_to_pixels), batch_size=None, num_workers=num_workers, generator=torch.Generator()
        )
        for sample in progress(loader, len(images), "decoding photos"):
            pixels = torch.empty(0, 0, 3, dtype=torch.uint8) if isinstance(sample, Unreadable) else sample.image
            photos.append(pixels.flatten().clone())  # The clone gives up the worker's shared memory.
            sizes.append((pixels.shape[0], pixels.shape[1]))
            starts.append(total)
            total += pixels.numel()
            # Twice, since they are copied into one array at the end.
            needed = 2 * total * (len(images) / len(sizes) if len(sizes) >= FIRST_ESTIMATE else 1)
            if needed > free:
                raise InvalidInputError(
                    f"expected decoded photos that fit into the free memory ({free / GIGA:.1f} GB), got {len(images):,} photos that "
                    f"need about {needed / GIGA:.1f} GB; set data.short_side to fewer pixels, or data.cache to none"
                )
        return cls(torch.cat(photos) if photos else torch.empty(0, dtype=torch.uint8), sizes, starts)

    def open(self, index: int) -> Image.Image | None:
        """Return a photo, or None if it could not be read."""
        (height, width), start = self.sizes[index], self.starts[index]
        size = height * width * 3
        return Image.fromarray(self.pixels[start : start + size].view(height, width, 3).numpy()) if size else None

    def subset(self, indices: Sequence[int]) -> "DecodedPixels":
        """Return the photos at `indices`, which keep sharing the array."""
        return replace(self, sizes=[self.sizes[i] for i in indices], starts=[self.starts[i] for i in indices])


@final
@dataclass(frozen=True)
class DecodedImages(LabeledImages):
    """Images of another data set, scaled down before their transform, and optionally kept in memory.

    Boxes and ground truth of the other data set are not passed on, since they are in pixels of the original size.

    Args:
        images: The other data set.
        short_side: Largest shorter side in pixels, to which larger images are scaled down; None for any size.
        decoded: Their pixels in memory, or None to read the files each time.
    """

    images: LabeledImages
    labels: Sequence[int] = field(repr=False)
    class_names: Sequence[str]
    transform: Transform = field(repr=False)
    short_side: int | None = None
    decoded: DecodedPixels | None = field(default=None, repr=False)
    per_image: ClassVar[tuple[str, ...]] = ("images", "labels", "decoded")

    @classmethod
    def wrap(cls, images: LabeledImages, short_side: int | None = None) -> "DecodedImages":
        """Return the same images, scaled down."""
        return cls(images, images.labels, images.class_names, images.transform, short_side)

    def keep_in_memory(self, num_workers: int = 0) -> "DecodedImages":
        """Read all images now and keep their pixels.

        Args:
            num_workers: Processes that read them.

        Raises:
            InvalidInputError: They do not fit into the memory that is free now.
        """
        return replace(self, decoded=DecodedPixels.decode(self, num_workers))

    def open(self, index: int) -> Image.Image:
        if self.decoded is not None and (image := self.decoded.open(index)) is not None:
            return image
        # Also an image that could not be read before, which raises its error again.
        image = self.images.open(index)
        if self.short_side is None or min(image.size) <= self.short_side:
            return image
        height, width = resize_within(image.height, image.width, self.short_side)
        return image.resize((width, height), Image.Resampling.BICUBIC)

    def name(self, index: int) -> str:
        return self.images.name(index)


def _to_pixels(image: Image.Image) -> UInt8[Tensor, "height width 3"]:
    return torch.from_numpy(np.array(image))


def _free_memory() -> float:
    """Return the bytes that are free now, as far as the system tells."""
    try:
        with Path("/proc/meminfo").open(
            encoding="ascii"
        ) as file:  # Unlike sysconf, it counts what the file cache would give back.
            return 1024 * next(float(line.split()[1]) for line in file if line.startswith("MemAvailable:"))
    except (OSError, StopIteration, ValueError):
        pass
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2
    except (ValueError, OSError, AttributeError):  # Not available on every system.
        return float("inf")
