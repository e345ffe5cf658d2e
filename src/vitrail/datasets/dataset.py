"""Labeled images: the interface of every data set that is read image by image, and its two common forms, files and arrays."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, TypeVar

import numpy as np
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from vitrail.core.errors import ImageError, InvalidInputError
from vitrail.datasets.image_io import open_image
from vitrail.datasets.mask_files import Mask

NO_LABEL = -1

# Not typing.Self, which jaxtyping's checks at run time do not support.
Images = TypeVar("Images", bound="LabeledImages")

Transform = Callable[[Image.Image], Tensor]

Box = tuple[float, float, float, float]
"""Left, top, right and bottom of a rectangle in the pixels of the opened image; right and bottom are exclusive."""


class Unreadable(NamedTuple):
    """An image that was skipped, and the reason."""

    path: str
    reason: str


class Sample(NamedTuple):
    """One readable image.

    Attributes:
        image: Transformed image, (channels, height, width).
        label: Class index, or `NO_LABEL`.
        path: Path or name of the image.
        ground_truth: Mask of the pixels that decide the class, (height, width), if known.
    """

    image: Tensor
    label: int
    path: str
    ground_truth: Tensor | None = None


class Batch(NamedTuple):
    """Readable images, stacked, and the list of the unreadable ones.

    Images that are smaller than the batch are zero-padded at the bottom and on the right. `padding`, (b, height, width), is True there,
    and None if all images have one size. `vitrail.datasets.collate.collate_by_size` makes batches without padding.
    """

    images: Tensor
    labels: Tensor
    paths: list[str]
    unreadable: list[Unreadable]
    ground_truth: Tensor | None = None
    padding: Tensor | None = None


def file_bytes(name: str | Path) -> int:
    """Return the size of a file; -1 if there is none, or it cannot be read."""
    try:
        return Path(name).stat().st_size
    except (OSError, ValueError):  # A name with a null character is a ValueError.
        return -1


class LabeledImages(ABC, Dataset[Sample | Unreadable]):
    """Images with labels, read one by one. An image that cannot be read becomes an `Unreadable`; it is never replaced by another image.

    A subclass is a frozen dataclass whose fields include the three attributes below. It implements how an image is opened and named,
    and lists its fields with one entry per image. It must be picklable, since data loaders send it to worker processes.

    Attributes:
        labels: Ground-truth class per image, an index into `class_names`, or `NO_LABEL`.
        class_names: One name per class; empty if there are no classes.
        transform: From an opened image to a tensor.
    """

    labels: Sequence[int]
    class_names: Sequence[str]
    transform: Transform
    per_image: ClassVar[tuple[str, ...]] = ("labels",)
    """Fields with one entry per image: sequences, arrays, or other data sets; None where there are none."""
    __dataclass_fields__: ClassVar[dict[str, Any]]

    @abstractmethod
    def open(self, index: int) -> Image.Image:
        """Return an image as 8-bit RGB, before the transform.

        Raises:
            ImageError: The image is missing or damaged.
        """

    @abstractmethod
    def name(self, index: int) -> str:
        """Return the path of an image, or an identifier such as "mnist/test/17" if it has no file of its own."""

    def subset(self: Images, indices: Sequence[int]) -> Images:
        """Return the images at `indices`, in that order."""
        return replace(self, **{name: _select(getattr(self, name), indices) for name in self.per_image})

    def num_bytes(self, index: int) -> int:
        """Return the size of the file of an image, by which changes are noticed; -1 if it is no file, or cannot be read."""
        return file_bytes(self.name(index))

    def box(self, index: int) -> Box | None:
        """Return the box around the labeled object in the opened image, if the data set has boxes."""
        return None

    def ground_truth(self, index: int) -> Mask | None:
        """Return the mask of the pixels that decide the class, in the opened image, if known (see `vitrail.datasets.ground_truth`).

        Raises:
            ImageError: The mask file cannot be read.
        """
        return None

    def with_transform(self: Images, transform: Transform) -> Images:
        """Return the same images with another transform."""
        return replace(self, transform=transform)

    def with_labels(self: Images, labels: Sequence[int]) -> Images:
        """Return the same images with other labels, one per image."""
        return replace(self, labels=labels)

    def subsample(self: Images, limit: int | None) -> Images:
        """Return at most `limit` images, evenly spaced within every class, so that the class proportions are kept.

        Raises:
            InvalidInputError: The limit is below one image.
        """
        if limit is None or limit >= len(self):
            return self
        if limit < 1:
            raise InvalidInputError(f"expected a limit of at least 1 image, got {limit}")
        by_class = sorted(range(len(self)), key=lambda index: self.labels[index])
        return self.subset(sorted(by_class[i * len(self) // limit] for i in range(limit)))

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> Sample | Unreadable:
        return self.read(index)

    def read(self, index: int, context: AbstractContextManager[None] | None = None) -> Sample | Unreadable:
        """Open and transform one image; the transform runs inside `context`, which may seed its random numbers."""
        try:
            image = self.open(index)
            with context or nullcontext():
                return Sample(self.transform(image), self.labels[index], self.name(index))
        except ImageError as error:
            return Unreadable(self.name(index), str(error))


def _select(values: Any, indices: Sequence[int]) -> Any:
    """Select the entries of some images."""
    if values is None or isinstance(values, np.ndarray):
        return None if values is None else values[list(indices)]
    return values.subset(indices) if hasattr(values, "subset") else [values[i] for i in indices]


@dataclass(frozen=True)
class LabeledFiles(LabeledImages):
    """A list of image files with their labels.

    Args:
        paths: Image files.
        labels: Class per file, an index into `class_names`, or `NO_LABEL`.
        class_names: One name per class; empty if there are no classes.
        transform: From an opened image to a tensor.
        boxes: Box around the object in every file, where known.
        crop_to_box: Whether to crop every image to its box.
        trimaps: Trimap of the object in every file (`vitrail.datasets.mask_files.read_trimap`), if there are any.
    """

    paths: Sequence[Path]
    labels: Sequence[int]
    class_names: Sequence[str]
    transform: Transform = field(repr=False)
    boxes: Sequence[Box | None] | None = field(default=None, repr=False)
    crop_to_box: bool = False
    trimaps: Sequence[Path] | None = field(default=None, repr=False)
    per_image: ClassVar[tuple[str, ...]] = ("paths", "labels", "boxes", "trimaps")

    def open(self, index: int) -> Image.Image:
        # A network's preprocessing knows its channels.
        image = open_image(self.paths[index], getattr(self.transform, "num_channels", 3))
        if self.boxes is None or not self.crop_to_box or (box := self.boxes[index]) is None:
            return image
        left, top, right, bottom = (round(edge) for edge in box)
        visible = max(left, 0), max(top, 0), min(right, image.width), min(bottom, image.height)
        if visible[0] >= visible[2] or visible[1] >= visible[3]:
            size = f"{image.width}x{image.height}"
            raise ImageError(f"expected a box within {size} pixels, got {box} for {self.paths[index]}")
        return image.crop(visible)

    def name(self, index: int) -> str:
        return str(self.paths[index])

    def box(self, index: int) -> Box | None:
        # A cropped image shows nothing but its box.
        return None if self.boxes is None or self.crop_to_box else self.boxes[index]


@dataclass(frozen=True, eq=False)
class LabeledArrays(LabeledImages):
    """Images held in memory as one array, for small data sets that are published as a few large files.

    Args:
        pixels: Gray or RGB pixels.
        labels: Class per image, an index into `class_names`, or `NO_LABEL`.
        class_names: One name per class.
        transform: From an opened image to a tensor.
        source: Prefix of the names of the images, such as "mnist/test".
        numbers: Number of every image in its source; 0, 1, ... by default.
    """

    pixels: UInt8[np.ndarray, "images height width"] | UInt8[np.ndarray, "images height width 3"] = field(repr=False)
    labels: Sequence[int] = field(repr=False)
    class_names: Sequence[str]
    transform: Transform = field(repr=False)
    source: str
    numbers: Sequence[int] | None = field(default=None, repr=False)
    per_image: ClassVar[tuple[str, ...]] = ("pixels", "labels")

    def open(self, index: int) -> Image.Image:
        return Image.fromarray(self.pixels[index]).convert("RGB")

    def name(self, index: int) -> str:
        return f"{self.source}/{(range(len(self)) if self.numbers is None else self.numbers)[index]}"

    def subset(self, indices: Sequence[int]) -> "LabeledArrays":
        numbers = range(len(self)) if self.numbers is None else self.numbers
        return replace(super().subset(indices), numbers=[numbers[i] for i in indices])
