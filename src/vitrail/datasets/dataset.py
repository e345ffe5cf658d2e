"""Labeled images: what every data set that is read picture by picture looks like to the rest of the package."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, TypeVar

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import Dataset

from vitrail.core.errors import ImageError, InvalidInputError
from vitrail.datasets.image_io import open_image
from vitrail.datasets.synthetic.base import Mask

NO_LABEL = -1

# Not typing.Self, which the checks at run time cannot follow.
Images = TypeVar("Images", bound="LabeledImages")
Files = TypeVar("Files", bound="LabeledFiles")
Arrays = TypeVar("Arrays", bound="LabeledArrays")

Transform = Callable[[Image.Image], Tensor]

Box = tuple[float, float, float, float]
"""Left, top, right and bottom of a rectangle in the pixels of the opened image; right and bottom lie just outside."""


class Unreadable(NamedTuple):
    """An image that was skipped, and why."""

    path: str
    reason: str


class Sample(NamedTuple):
    """One readable image; `label` is `NO_LABEL` where there is no ground truth, and `answer` what decides, where that is known."""

    image: Tensor
    label: int
    path: str
    answer: Tensor | None = None


class Batch(NamedTuple):
    """Readable images, stacked, and what had to be left out.

    Images that are smaller than the batch's height or width are filled up by zeros at the bottom and on the right; `padding` is true
    there, (b, height, width), and None where all images have one size (`vitrail.datasets.collate.collate_by_size` makes a batch per size).
    """

    images: Tensor
    labels: Tensor
    paths: list[str]
    unreadable: list[Unreadable]
    ground_truth: Tensor | None = None
    padding: Tensor | None = None


class LabeledImages(ABC, Dataset[Sample | Unreadable]):
    """Images with labels, read one by one. What cannot be read becomes an `Unreadable`, never another image.

    A concrete set is a frozen dataclass with the three attributes below among its fields, says how an image is opened and
    named, and keeps the parallel lists in step when a subset is taken. It can be pickled, since it travels to the processes
    that load images.

    Attributes:
        labels: Ground truth per image, an index into `class_names`, or `NO_LABEL`.
        class_names: One name per class; empty where there are no classes.
        transform: From an opened image to a tensor.
    """

    labels: Sequence[int]
    class_names: Sequence[str]
    transform: Transform
    __dataclass_fields__: ClassVar[dict[str, Any]]

    @abstractmethod
    def open(self, index: int) -> Image.Image:
        """Return an image as 8-bit RGB, before the transform.

        Raises:
            ImageError: It is missing or damaged.
        """

    @abstractmethod
    def name(self, index: int) -> str:
        """Return an image's path, or what stands for it where it has no file of its own, such as "mnist/test/17"."""

    @abstractmethod
    def subset(self: Images, indices: Sequence[int]) -> Images:
        """Return the images at `indices`, in that order."""

    def box(self, index: int) -> Box | None:
        """Return where the labeled object lies in the opened image, where the set knows that."""
        return None

    def answer(self, index: int) -> Mask | None:
        """Return what decides the class, in the pixels of the opened image, where that is known (`vitrail.datasets.ground_truth`).

        Raises:
            ImageError: It is known to lie in a file that cannot be read.
        """
        return None

    def with_transform(self: Images, transform: Transform) -> Images:
        """Return the same images under another transform."""
        return replace(self, transform=transform)

    def with_labels(self: Images, labels: Sequence[int]) -> Images:
        """Return the same images under other labels, one per image."""
        return replace(self, labels=labels)

    def spread(self: Images, limit: int | None) -> Images:
        """Return at most `limit` images, evenly spread over the classes and within them, so that every class has its share.

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

    def read(self, index: int, varied: AbstractContextManager[None] | None = None) -> Sample | Unreadable:
        """Open and transform one image; the transform runs inside `varied`, where it may be seeded."""
        try:
            opened = self.open(index)
            with varied or nullcontext():
                return Sample(self.transform(opened), self.labels[index], self.name(index))
        except ImageError as error:
            return Unreadable(self.name(index), str(error))


@dataclass(frozen=True)
class LabeledFiles(LabeledImages):
    """A list of image files with their labels.

    Args:
        paths: Image files.
        labels: Ground truth per file, an index into `class_names`, or `NO_LABEL`.
        class_names: One name per class; empty where there are no classes.
        transform: From an opened image to a tensor.
        boxes: Where the object lies in every file, if that is known.
        crop_to_box: Whether to cut every image down to its box.
    """

    paths: Sequence[Path]
    labels: Sequence[int]
    class_names: Sequence[str]
    transform: Transform = field(repr=False)
    boxes: Sequence[Box] | None = field(default=None, repr=False)
    crop_to_box: bool = False

    def open(self, index: int) -> Image.Image:
        image = open_image(self.paths[index])
        if self.boxes is None or not self.crop_to_box:
            return image
        left, top, right, bottom = (round(edge) for edge in self.boxes[index])
        inside = max(left, 0), max(top, 0), min(right, image.width), min(bottom, image.height)
        if inside[0] >= inside[2] or inside[1] >= inside[3]:
            size = f"{image.width}x{image.height}"
            raise ImageError(f"expected a box within {size} pixels, got {self.boxes[index]} for {self.paths[index]}")
        return image.crop(inside)

    def name(self, index: int) -> str:
        return str(self.paths[index])

    def box(self, index: int) -> Box | None:
        # Of a cropped image, the box is all there is.
        return None if self.boxes is None or self.crop_to_box else self.boxes[index]

    def subset(self: Files, indices: Sequence[int]) -> Files:
        return replace(
            self,
            paths=[self.paths[i] for i in indices],
            labels=[self.labels[i] for i in indices],
            boxes=None if self.boxes is None else [self.boxes[i] for i in indices],
        )


@dataclass(frozen=True, eq=False)
class LabeledArrays(LabeledImages):
    """Images that lie in memory as one array: the small sets that come as a few large files.

    Args:
        pixels: Gray or RGB.
        labels: Ground truth per image, an index into `class_names`, or `NO_LABEL`.
        class_names: One name per class.
        transform: From an opened image to a tensor.
        source: What stands before an image's number in its name, such as "mnist/test".
        numbers: An image's number in its source; counted from 0 if left out.
    """

    pixels: UInt8[np.ndarray, "images height width"] | UInt8[np.ndarray, "images height width 3"] = field(repr=False)
    labels: Sequence[int] = field(repr=False)
    class_names: Sequence[str]
    transform: Transform = field(repr=False)
    source: str
    numbers: Sequence[int] | None = field(default=None, repr=False)

    def open(self, index: int) -> Image.Image:
        return Image.fromarray(self.pixels[index]).convert("RGB")

    def name(self, index: int) -> str:
        return f"{self.source}/{(range(len(self)) if self.numbers is None else self.numbers)[index]}"

    def subset(self: Arrays, indices: Sequence[int]) -> Arrays:
        numbers = range(len(self)) if self.numbers is None else self.numbers
        return replace(
            self,
            pixels=self.pixels[list(indices)],
            labels=[self.labels[i] for i in indices],
            numbers=[numbers[i] for i in indices],
        )


def collate(samples: Sequence[Sample | Unreadable]) -> Batch:
    """Stack what could be read, padded to the largest height and width; a batch may be smaller than asked for, or empty."""
    read = [sample for sample in samples if isinstance(sample, Sample)]
    ground_truth = [sample.answer for sample in read if sample.answer is not None]
    sizes = [sample.image.shape[-2:] for sample in read]
    return Batch(
        images=_stack([sample.image for sample in read]) if read else torch.empty(0),
        labels=torch.tensor([sample.label for sample in read], dtype=torch.long),
        paths=[sample.path for sample in read],
        unreadable=[sample for sample in samples if isinstance(sample, Unreadable)],
        ground_truth=_stack(ground_truth) if ground_truth else None,
        padding=~_stack([torch.ones(size, dtype=torch.bool) for size in sizes]) if len(set(sizes)) > 1 else None,
    )


def _stack(parts: Sequence[Tensor]) -> Tensor:
    """Stack images or masks; smaller ones are filled up by zeros at the bottom and on the right."""
    sizes = {part.shape[-2:] for part in parts}
    if len(sizes) == 1:
        return torch.stack(list(parts))
    height, width = (max(sides) for sides in zip(*sizes, strict=True))
    missing = [(0, width - part.shape[-1], 0, height - part.shape[-2]) for part in parts]
    return torch.stack([nn.functional.pad(part, sides) for part, sides in zip(parts, missing, strict=True)])
