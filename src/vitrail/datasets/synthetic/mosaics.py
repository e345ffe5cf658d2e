"""Mosaics of images of distinct classes, the data of the grid pointing game.

The relevance for a class should lie in the cell that shows it. Relevance that is the same for all classes is no better than chance on
average over the cells of a mosaic.

Source: Böhle, Fritz and Schiele 2021, "Convolutional Dynamic Alignment Networks", section 5.1, arXiv:2104.00032; also Rao, Böhle and
Schiele 2022, "Towards better understanding attribution methods", arXiv:2205.10435.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar, NamedTuple

import numpy as np
from PIL import Image
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as transforms

from vitrail.adapters import Preprocessing
from vitrail.core.errors import ImageError, InvalidInputError, failures_as
from vitrail.datasets.dataset import NO_LABEL, Box, LabeledImages, Transform
from vitrail.datasets.ground_truth import GroundTruthImages, fill_box
from vitrail.datasets.mask_files import Mask

MAX_NAME = 16
"""Characters of each image's name that the name of a mosaic contains."""


class Mosaic(NamedTuple):
    """The images of a mosaic, and the cell to explain.

    Attributes:
        number: Number of the mosaic, from 0; there is one entry for each of its cells.
        members: Indices of the images in their data set, row by row.
        target_cell: The cell whose class is explained, counted row by row from 0.
    """

    number: int
    members: tuple[int, ...]
    target_cell: int


@dataclass(frozen=True, eq=False)
class Mosaics(GroundTruthImages):
    """Labeled mosaics: the label is the class of the target cell, and the ground truth is that cell.

    A mosaic has the network's input size and is not cropped. Its cells are equal in size up to one pixel. Each shows what the network
    would see of that image alone, but smaller: resized and cropped by the network's preprocessing. A mosaic with an unreadable image is
    unreadable.

    Args:
        labels: Class of the target cell of every mosaic.
        class_names: One name per class.
        transform: From a mosaic to a tensor, without cropping.
        images: Data set of the members.
        mosaics: One entry per mosaic and target cell.
        cells: Cells per row, and per column.
        preprocessing: The network's preprocessing, for the members.
    """

    labels: Sequence[int]
    class_names: Sequence[str]
    transform: Transform = field(repr=False)
    images: LabeledImages
    mosaics: Sequence[Mosaic] = field(repr=False)
    cells: int
    preprocessing: Preprocessing = field(repr=False)
    per_image: ClassVar[tuple[str, ...]] = ("mosaics", "labels")

    def open(self, index: int) -> Image.Image:
        height, width = mosaic_size(self.preprocessing)
        mosaic = Image.new("RGB", (width, height))
        for cell, member in enumerate(self.mosaics[index].members):
            left, top, right, bottom = self._cell_box(cell)
            with failures_as(ImageError, f"cannot make a mosaic with {self.images.name(member)}", causes=(ImageError,)):
                photo = _preprocess_member(self.images.open(member), self.preprocessing, (bottom - top, right - left))
            mosaic.paste(photo, (left, top))
        return mosaic

    def name(self, index: int) -> str:
        """Return number, target cell and members, such as "mosaic-000012/cell-2-of-crow+jay+wren+owl"."""
        number, members, target_cell = self.mosaics[index]
        stems = "+".join(Path(self.images.name(i)).stem[-MAX_NAME:] for i in members)
        return f"mosaic-{number:06d}/cell-{target_cell}-of-{stems}"

    def box(self, index: int) -> Box:
        left, top, right, bottom = self._cell_box(self.mosaics[index].target_cell)
        return float(left), float(top), float(right), float(bottom)

    def ground_truth(self, index: int) -> Mask:
        # Does not need to open the members.
        return fill_box(self.box(index), *mosaic_size(self.preprocessing))

    def read_ground_truth(self, index: int, photo: Image.Image) -> Mask:
        return self.ground_truth(index)

    def with_transform(self, transform: Transform) -> "Mosaics":
        """Return the same mosaics with another transform; a `Preprocessing` crops the members, but not the mosaic."""
        if isinstance(transform, Preprocessing):
            _check_size(transform, self.cells)
            return replace(self, transform=without_cropping(transform), preprocessing=transform)
        return replace(self, transform=transform)

    def _cell_box(self, cell: int) -> tuple[int, int, int, int]:
        """Return left, top, right and bottom of a cell; if the size is not divisible, cells differ by one pixel."""
        (row, column), (height, width) = divmod(cell, self.cells), mosaic_size(self.preprocessing)
        top, bottom = (edge * height // self.cells for edge in (row, row + 1))
        left, right = (edge * width // self.cells for edge in (column, column + 1))
        return left, top, right, bottom


def make_mosaics(
    images: LabeledImages, cells: int = 2, count: int | None = None, seed: int = 0, usable: Sequence[int] | None = None
) -> Mosaics:
    """Make mosaics of `cells` x `cells` images of distinct classes, with one entry per mosaic and target cell.

    For each mosaic, classes are drawn at random from those with unused images, and the next image of each is used, so that no image
    occurs in two mosaics. The mosaics depend only on the labels, on `usable` and on the seed; a larger `count` adds mosaics at the end.

    Args:
        images: Labeled images whose transform is the model's `Preprocessing`.
        cells: Cells per row, and per column.
        count: Maximum number of entries; all possible ones by default.
        seed: Seed of the random choice.
        usable: Indices of the images to use, in order of preference, such as the result of
            `vitrail.evaluation.confident_images.confident_images`; all images in their order by default.

    Raises:
        InvalidInputError: A number is out of range, the transform is not a `Preprocessing`, an image has no label, or there are too few
            classes.

    Source: as for this module; the published code uses the images that `confident_images` selects.

    Differs: In the published code, every cell is as large as an image, and the network gets a larger input. A ViT with a fixed input size
        cannot process that, so cells are smaller here, as with an option of the authors' later code. It needs images of
        one class more than a mosaic has cells; here, as many classes as cells suffice.
    """
    preprocessing = images.transform
    if not isinstance(preprocessing, Preprocessing):
        raise InvalidInputError(
            "expected the model's Preprocessing as the images' transform; use images.with_transform(model.preprocessing)"
        )
    if cells < 2 or seed < 0 or (count is not None and count < 1):
        raise InvalidInputError(f"expected cells >= 2, count >= 1 and seed >= 0, got cells {cells}, count {count}, seed {seed}")
    _check_size(preprocessing, cells)
    queues = _queue_by_class(images, range(len(images)) if usable is None else usable)
    if len(queues) < cells**2:
        raise InvalidInputError(
            f"expected images of at least {cells**2} classes for mosaics of {cells} x {cells} cells, got {len(queues)}; use fewer cells, "
            "or images of more classes" + ("" if usable is None else ", or a lower threshold for usable images")
        )
    entries = list[Mosaic]()
    random = np.random.default_rng(seed)
    while len(queues) >= cells**2 and (count is None or len(entries) < count):
        drawn = random.choice(sorted(queues), cells**2, replace=False).tolist()
        members = tuple(queues[label].pop() for label in drawn)
        entries += [Mosaic(len(entries) // cells**2, members, target_cell) for target_cell in range(cells**2)]
        queues = {label: queue for label, queue in queues.items() if queue}
    entries = entries[:count]
    labels = [images.labels[mosaic.members[mosaic.target_cell]] for mosaic in entries]
    return Mosaics(labels, images.class_names, without_cropping(preprocessing), images, entries, cells, preprocessing)


def mosaic_size(preprocessing: Preprocessing) -> tuple[int, int]:
    """Return height and width of a mosaic: the network's input size, or a square of the shorter side if the input size varies."""
    return preprocessing.size if preprocessing.fixed else (min(preprocessing.size), min(preprocessing.size))


def without_cropping(preprocessing: Preprocessing) -> Preprocessing:
    """Return the same preprocessing without resizing and cropping, for an image that already has the size of a mosaic."""
    return replace(preprocessing, size=mosaic_size(preprocessing), crop_mode="squash", crop_fraction=1.0)


def _check_size(preprocessing: Preprocessing, cells: int) -> None:
    height, width = mosaic_size(preprocessing)
    if min(height, width) < cells:
        raise InvalidInputError(
            f"expected at least one pixel per cell, got {cells} x {cells} cells in {width}x{height} pixels; use fewer cells"
        )


def _queue_by_class(images: LabeledImages, usable: Sequence[int]) -> dict[int, list[int]]:
    """Return the usable images of each class, in reverse order of preference, to be popped from the end."""
    if len(set(usable)) < len(usable) or not set(usable) <= set(range(len(images))):
        raise InvalidInputError(f"expected usable images between 0 and {len(images) - 1}, each once")
    queues: dict[int, list[int]] = {}
    for index in reversed(usable):
        queues.setdefault(images.labels[index], []).append(index)
    if NO_LABEL in queues:
        raise InvalidInputError(
            f"expected a label for every image, found {len(queues[NO_LABEL])} of {len(usable)} without one; choose labeled images"
        )
    return queues


def _preprocess_member(photo: Image.Image, preprocessing: Preprocessing, size: tuple[int, int]) -> Image.Image:
    """Return what the network sees of a photo, at another height and width."""
    smaller = replace(preprocessing, size=size, crop_mode=preprocessing.crop_mode if preprocessing.fixed else "center")
    smaller.check(photo)
    resized = transforms.resize(
        photo,
        list(smaller.resized_size(photo.height, photo.width)),
        InterpolationMode(preprocessing.interpolation),
        antialias=True,
    )
    return transforms.center_crop(resized, list(size))
