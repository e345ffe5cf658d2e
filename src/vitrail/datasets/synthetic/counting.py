"""Counting data sets: the label is the number of tiles of one kind in a grid, and the ground truth is these tiles."""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple, final

import numpy as np
from jaxtyping import Bool, UInt8
from PIL import Image

from vitrail.core.errors import InvalidInputError
from vitrail.datasets.file_search import images_below
from vitrail.datasets.image_io import open_image
from vitrail.datasets.synthetic.base import GROUND_TRUTH, SYNTHETIC, SyntheticDataset, SyntheticSample

COLORS: tuple[tuple[str, tuple[int, int, int]], ...] = (
    ("red", (255, 0, 0)),
    ("green", (0, 255, 0)),
    ("blue", (0, 0, 255)),
    ("yellow", (255, 255, 0)),
    ("magenta", (255, 0, 255)),
    ("cyan", (0, 255, 255)),
)
"""Colors by class_idx. Black and white are not among them, since removed patches look like that."""

HELD_OUT = 10
"""One in ten training images of each class is used for validation only."""

MAX_SIDE = 4096
"""Largest height and width in pixels."""

Cells = Bool[np.ndarray, "rows cols"]
Tile = UInt8[np.ndarray, "height width 3"]


@dataclass(frozen=True)
class GridCounting(SyntheticDataset):
    """A square grid of tiles, whose label is the number of tiles of the kind `class_idx` (abstract).

    All labels, 0 to grid_size², are equally frequent, and all positions of the counted tiles are equally likely. The ground truth
    consists of the counted tiles. It is empty for the label 0, where no single tile decides; localization metrics skip these images.

    Args:
        grid_size: Tiles along each side.
        class_idx: The kind that is counted.
    """

    grid_size: int = 3
    class_idx: int = 0

    def __post_init__(self) -> None:
        for name, value, minimum in (
            ("seed", self.seed, 0),
            ("grid_size", self.grid_size, 1),
            ("class_idx", self.class_idx, 0),
        ):
            if value < minimum:
                raise InvalidInputError(f"expected {name} to be at least {minimum}, got {value}")
        if not 1 <= self.tile_side <= MAX_SIDE // self.grid_size:
            raise InvalidInputError(
                f"expected images of 1 to {MAX_SIDE} pixels a side, got {self.grid_size} tiles of {self.tile_side} pixels"
            )

    @property
    @abstractmethod
    def tile_side(self) -> int:
        """Side of a tile in pixels."""

    @abstractmethod
    def tile(self, split: str, counted: bool, random: np.random.Generator) -> Tile:
        """Draw a tile of the counted kind, or of another kind."""

    @property
    def class_names(self) -> tuple[str, ...]:
        num_tiles = self.grid_size**2
        # Padded with zeros, so that folders sorted by name are in numeric order.
        return tuple(str(count).zfill(len(str(num_tiles))) for count in range(num_tiles + 1))

    @property
    def image_size(self) -> tuple[int, int]:
        return (self.grid_size * self.tile_side,) * 2

    def draw(self, split: str, index: int) -> SyntheticSample:
        """Draw a grid in which `index` modulo the number of classes tiles are of the counted kind.

        Raises:
            InvalidInputError: There is no such split, or the index is negative.
        """
        if split not in ("train", "val", "test") or index < 0:
            raise InvalidInputError(
                f"expected the split train, val or test and an index of at least 0, got {split!r} and {index}"
            )
        random, label, n = self.random(split, index), index % len(self.class_names), self.grid_size
        counted: Cells = (random.permutation(n * n) < label).reshape(n, n)
        rows = [[self.tile(split, bool(cell), random) for cell in row] for row in counted]
        pixels = np.concatenate([np.concatenate(row, axis=1) for row in rows])
        mask = counted.repeat(self.tile_side, axis=0).repeat(self.tile_side, axis=1)
        return SyntheticSample(Image.fromarray(pixels), label, {GROUND_TRUTH: mask})


@SYNTHETIC.register("counting")
@final
@dataclass(frozen=True)
class ColorCounting(GridCounting):
    """Patches of one color each: how many have the color `class_idx`?

    The other patches have one of the five other colors.

    Args:
        grid_size: Patches along each side.
        class_idx: The color that is counted, an index into `COLORS`.
        patch_size: Side of a patch in pixels.

    Source: toy task of Vision DiffMask (Nikolaou et al. 2022, section 4).

    Differs: without noise, rotation and blur, which belong to the augmentation of training.
    """

    patch_size: int = 16

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.class_idx >= len(COLORS):
            raise InvalidInputError(f"expected class_idx to be one of {len(COLORS)} colors, at most 5, got {self.class_idx}")

    @property
    def tile_side(self) -> int:
        return self.patch_size

    def tile(self, split: str, counted: bool, random: np.random.Generator) -> Tile:
        others = [number for number in range(len(COLORS)) if number != self.class_idx]
        color = self.class_idx if counted else others[int(random.integers(len(others)))]
        return np.full((self.patch_size, self.patch_size, 3), COLORS[color][1], dtype=np.uint8)


class _Photos(NamedTuple):
    """Photos of the counted class, and of all other classes."""

    counted: Sequence[Path]
    others: Sequence[Path]


@SYNTHETIC.register("cifar-counting")
@final
@dataclass(frozen=True)
class CifarCounting(GridCounting):
    """Photos of CIFAR-10: how many show the class `class_idx`?

    "test" uses the test photos; "val" uses one tenth of the training photos of each class, and "train" the others. Any other data set
    with the same folder layout works, too.

    Args:
        grid_size: Photos along each side.
        class_idx: The class that is counted, an index into the sorted names of the class folders.
        root: Folder with one folder per class in each of train/ and test/.
        tile_size: Side of a tile in pixels, to which every photo is resized.

    Source: data set CIFAR10_QA of Vision DiffMask's published code.
    """

    root: Path = Path("data/cifar10")
    tile_size: int = 32

    @property
    def tile_side(self) -> int:
        return self.tile_size

    def tile(self, split: str, counted: bool, random: np.random.Generator) -> Tile:
        if split not in self._photos:
            self._photos[split] = self._list_photos(split)
        photos = self._photos[split]
        paths = photos.counted if counted else photos.others
        photo = open_image(paths[int(random.integers(len(paths)))])
        return np.asarray(photo.resize((self.tile_size, self.tile_size), Image.Resampling.BICUBIC))

    @cached_property
    def _photos(self) -> dict[str, _Photos]:
        return {}

    def _list_photos(self, split: str) -> _Photos:
        """List the photos of a split.

        Raises:
            InvalidInputError: The folder does not exist, or lacks classes or photos.
        """
        folder = self.root / ("test" if split == "test" else "train")
        if not folder.is_dir():
            raise InvalidInputError(
                f"expected CIFAR-10 as folders of images, {folder}/<class>/<image>, found no folder {folder}; set the option "
                "root to the folder of train and test"
            )
        class_folders = sorted(entry for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))
        if self.class_idx >= len(class_folders) or len(class_folders) < 2:
            raise InvalidInputError(
                f"expected class_idx to be one of at least two classes in {folder}, got {self.class_idx} among {len(class_folders)}"
            )
        # Numbered from one, so that a class with fewer images than HELD_OUT keeps all of them for training.
        by_class = [
            [
                path
                for number, path in enumerate(images_below(class_folder), 1)
                if split == "test" or (number % HELD_OUT == 0) == (split == "val")
            ]
            for class_folder in class_folders
        ]
        if empty := [class_folder.name for class_folder, paths in zip(class_folders, by_class, strict=True) if not paths]:
            minimum = HELD_OUT if split == "val" else 1
            raise InvalidInputError(
                f"expected at least {minimum} images of each class in {folder}, got fewer of {', '.join(empty)}"
            )
        counted = by_class.pop(self.class_idx)
        return _Photos(counted, [path for paths in by_class for path in paths])
