"""Mosaics of images of distinct classes: whoever is asked for the class of one cell knows where the answer lies.

This is the data of the grid pointing game. A map of a class should lie in the cell that shows it, and no map that is the same for all
classes can do better, over the cells of a mosaic, than chance.

Source: Böhle, Fritz and Schiele 2021, "Convolutional Dynamic Alignment Networks", section 5.1, arXiv:2104.00032; also Rao, Böhle and
Schiele 2022, "Towards better understanding attribution methods", arXiv:2205.10435.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as transforms

from vitrail.adapters import Preprocessing
from vitrail.core.errors import ImageError, InvalidInputError
from vitrail.datasets.dataset import NO_LABEL, Box, LabeledImages, Transform
from vitrail.datasets.ground_truth import GroundTruthImages, filled
from vitrail.datasets.synthetic.base import Mask

MAX_NAME = 16
"""Characters that a mosaic's name takes of each image's."""


class Mosaic(NamedTuple):
    """Which images stand where, and which of them is asked for.

    Attributes:
        number: Of the picture, from 0; each picture is asked for every one of its cells.
        members: Places of the images in their set, row by row.
        asked: The cell that is asked for, counted row by row from 0.
    """

    number: int
    members: tuple[int, ...]
    asked: int


@dataclass(frozen=True, eq=False)
class Mosaics(GroundTruthImages):
    """Labeled mosaics: the label is the class of the asked cell, and the answer is that cell.

    A mosaic is as large as what the network eats, and is seen whole. Its cells are alike up to a pixel, and each shows what the
    network sees of that image alone, smaller: resized and cropped by the network's own preprocessing. A mosaic with a member that
    cannot be read is unreadable.

    Args:
        labels: Class of the asked cell of every mosaic.
        class_names: One name per class.
        transform: From a mosaic to a tensor; nothing is cropped.
        images: Where the members come from.
        mosaics: One entry a mosaic and asked cell.
        cells: Cells in a row, and in a column.
        preprocessing: Of the network, for the members.
    """

    labels: Sequence[int]
    class_names: Sequence[str]
    transform: Transform = field(repr=False)
    images: LabeledImages
    mosaics: Sequence[Mosaic] = field(repr=False)
    cells: int
    preprocessing: Preprocessing = field(repr=False)

    def open(self, index: int) -> Image.Image:
        height, width = network_size(self.preprocessing)
        mosaic = Image.new("RGB", (width, height))
        for cell, member in enumerate(self.mosaics[index].members):
            left, top, right, bottom = self._cell(cell)
            try:
                photo = _as_seen(self.images.open(member), self.preprocessing, (bottom - top, right - left))
            except ImageError as error:
                raise ImageError(f"cannot make a mosaic with {self.images.name(member)}: {error}") from error
            mosaic.paste(photo, (left, top))
        return mosaic

    def name(self, index: int) -> str:
        """Number, asked cell and members, such as "mosaic-000012/cell-2-of-crow+jay+wren+owl"."""
        number, members, asked = self.mosaics[index]
        return f"mosaic-{number:06d}/cell-{asked}-of-{'+'.join(Path(self.images.name(i)).stem[-MAX_NAME:] for i in members)}"

    def box(self, index: int) -> Box:
        left, top, right, bottom = self._cell(self.mosaics[index].asked)
        return float(left), float(top), float(right), float(bottom)

    def answer(self, index: int) -> Mask:
        # Known without opening the members.
        return filled(self.box(index), *network_size(self.preprocessing))

    def read_ground_truth(self, index: int, photo: Image.Image) -> Mask:
        return self.answer(index)

    def subset(self, indices: Sequence[int]) -> "Mosaics":
        return replace(self, mosaics=[self.mosaics[i] for i in indices], labels=[self.labels[i] for i in indices])

    def with_transform(self, transform: Transform) -> "Mosaics":
        """Return the same mosaics under another transform; a `Preprocessing` crops the members only, not the whole."""
        if isinstance(transform, Preprocessing):
            _check_size(transform, self.cells)
            return replace(self, transform=uncropped(transform), preprocessing=transform)
        return replace(self, transform=transform)

    def _cell(self, cell: int) -> tuple[int, int, int, int]:
        """Left, top, right and bottom of a cell; where the size cannot be divided, cells differ by a pixel."""
        (row, column), (height, width) = divmod(cell, self.cells), network_size(self.preprocessing)
        top, bottom = (place * height // self.cells for place in (row, row + 1))
        left, right = (place * width // self.cells for place in (column, column + 1))
        return left, top, right, bottom


def mosaics(
    images: LabeledImages, cells: int = 2, count: int | None = None, seed: int = 0, usable: Sequence[int] | None = None
) -> Mosaics:
    """Make mosaics of `cells` x `cells` images of distinct classes, each asked for every one of its cells in turn.

    For each picture some classes are drawn of those that have images left, and of each the next image is taken, so that no image is
    in two pictures. They depend on the labels, on `usable` and on the seed alone, and more mosaics begin with the same ones.

    Args:
        images: With labels, and the model's `Preprocessing` as their transform.
        cells: Cells in a row, and in a column.
        count: At most so many mosaics; each cell that is asked for counts. All that there are if left out.
        seed: Another seed, other mosaics.
        usable: Places of the images to take, those first that are to be used first, such as
            `vitrail.evaluation.confident_images.confident_images` gives them; all, in their order, if left out.

    Raises:
        InvalidInputError: Numbers that cannot be used, another transform, images without a label, or too few classes.

    Source: as of this module; the images that the published code takes are those of `confident_images`.

    Differs: There every cell is as large as an image, and the network eats a larger one; a ViT that is bound to its size cannot, so cells
        are smaller, as an option of the authors' later code has it. There one class more than a mosaic shows must be left; here as many
        suffice.
    """
    preprocessing = images.transform
    if not isinstance(preprocessing, Preprocessing):
        raise InvalidInputError(
            "expected the model's Preprocessing as the images' transform; take images.with_transform(model.preprocessing)"
        )
    if cells < 2 or seed < 0 or (count is not None and count < 1):
        raise InvalidInputError(f"expected cells >= 2, count >= 1 and seed >= 0, got cells {cells}, count {count}, seed {seed}")
    _check_size(preprocessing, cells)
    queues = _by_class(images, range(len(images)) if usable is None else usable)
    if len(queues) < cells**2:
        raise InvalidInputError(
            f"expected images of at least {cells**2} classes for mosaics of {cells} x {cells} cells, got {len(queues)}; take fewer cells, "
            "or images of more classes" + ("" if usable is None else ", or a lower threshold of what is usable")
        )
    made = list[Mosaic]()
    random = np.random.default_rng(seed)
    while len(queues) >= cells**2 and (count is None or len(made) < count):
        drawn = random.choice(sorted(queues), cells**2, replace=False).tolist()
        members = tuple(queues[label].pop() for label in drawn)
        made += [Mosaic(len(made) // cells**2, members, asked) for asked in range(cells**2)]
        queues = {label: queue for label, queue in queues.items() if queue}
    made = made[:count]
    labels = [images.labels[mosaic.members[mosaic.asked]] for mosaic in made]
    return Mosaics(labels, images.class_names, uncropped(preprocessing), images, made, cells, preprocessing)


def network_size(preprocessing: Preprocessing) -> tuple[int, int]:
    """Height and width of a mosaic: what the network eats, or a square of the shorter side where it eats photos of any shape."""
    return preprocessing.size if preprocessing.fixed else (min(preprocessing.size), min(preprocessing.size))


def uncropped(preprocessing: Preprocessing) -> Preprocessing:
    """The same preprocessing for an image that has the network's size already: nothing is resized, nothing cut off."""
    return replace(preprocessing, size=network_size(preprocessing), crop_mode="squash", crop_fraction=1.0)


def _check_size(preprocessing: Preprocessing, cells: int) -> None:
    height, width = network_size(preprocessing)
    if min(height, width) < cells:
        raise InvalidInputError(
            f"expected a pixel a cell or more, got {cells} x {cells} cells in {width}x{height} pixels; take fewer cells"
        )


def _by_class(images: LabeledImages, usable: Sequence[int]) -> dict[int, list[int]]:
    """The usable images of each class, the first one last, where it is taken from."""
    if len(set(usable)) < len(usable) or not set(usable) <= set(range(len(images))):
        raise InvalidInputError(f"expected usable images between 0 and {len(images) - 1}, each once")
    queues: dict[int, list[int]] = {}
    for index in reversed(usable):
        queues.setdefault(images.labels[index], []).append(index)
    if NO_LABEL in queues:
        raise InvalidInputError(
            f"expected a class for every image, found {len(queues[NO_LABEL])} of {len(usable)} without one; choose images that have labels"
        )
    return queues


def _as_seen(photo: Image.Image, preprocessing: Preprocessing, size: tuple[int, int]) -> Image.Image:
    """What the network sees of a photo, at another size of height and width."""
    smaller = replace(preprocessing, size=size, crop_mode=preprocessing.crop_mode if preprocessing.fixed else "center")
    smaller.check(photo)
    resized = transforms.resize(
        photo,
        list(smaller.resized_size(photo.height, photo.width)),
        InterpolationMode(preprocessing.interpolation),
        antialias=True,
    )
    return transforms.center_crop(resized, list(size))
