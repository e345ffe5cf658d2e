"""Counting tasks: how many tiles of a grid are of one kind; the answer is exactly those tiles."""

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
from vitrail.datasets.synthetic.base import ANSWER, SYNTHETIC, SyntheticDataset, SyntheticSample

COLORS: tuple[tuple[str, tuple[int, int, int]], ...] = (
    ("red", (255, 0, 0)),
    ("green", (0, 255, 0)),
    ("blue", (0, 0, 255)),
    ("yellow", (255, 255, 0)),
    ("magenta", (255, 0, 255)),
    ("cyan", (0, 255, 255)),
)
"""By class_idx. Black and white are left out: they are what removed patches look like."""

HELD_OUT = 10
"""One training image in so many is kept for validation."""

MAX_SIDE = 4096
"""Pixels."""

Cells = Bool[np.ndarray, "rows cols"]
Tile = UInt8[np.ndarray, "height width 3"]


@dataclass(frozen=True)
class GridCounting(SyntheticDataset):
    """Abstract: a square grid of tiles, whose label is the number of tiles of the kind `class_idx`.

    All labels, 0 to grid_size², are equally frequent, and all places of the counted tiles equally likely. The answer is the
    counted tiles. Under the label 0 it is empty: no single tile decides, and measures of localization have to leave these
    images out.

    Args:
        seed: Another seed, other images.
        grid_size: Tiles along each side.
        class_idx: The kind that is counted.
    """

    grid_size: int = 3
    class_idx: int = 0

    def __post_init__(self) -> None:
        for name, value, least in (("seed", self.seed, 0), ("grid_size", self.grid_size, 1), ("class_idx", self.class_idx, 0)):
            if value < least:
                raise InvalidInputError(f"expected {name} to be at least {least}, got {value}")
        if not 1 <= self.tile_side <= MAX_SIDE // self.grid_size:
            raise InvalidInputError(
                f"expected images of 1 to {MAX_SIDE} pixels a side, got {self.grid_size} tiles of {self.tile_side} pixels"
            )

    @property
    @abstractmethod
    def tile_side(self) -> int:
        """Pixels along each side of a tile."""

    @abstractmethod
    def tile(self, split: str, counted: bool, random: np.random.Generator) -> Tile:
        """Draw a tile of the counted kind, or of any other."""

    @property
    def class_names(self) -> tuple[str, ...]:
        most = self.grid_size**2
        # Zeros in front: the names of folders are sorted as texts, and that must be the order of the numbers.
        return tuple(str(count).zfill(len(str(most))) for count in range(most + 1))

    @property
    def image_size(self) -> tuple[int, int]:
        return (self.grid_size * self.tile_side,) * 2

    def draw(self, split: str, index: int) -> SyntheticSample:
        """Draw a grid with `index` modulo the number of classes counted tiles.

        Raises:
            InvalidInputError: No such split, or a negative index.
        """
        if split not in ("train", "val", "test") or index < 0:
            raise InvalidInputError(
                f"expected the split train, val or test and an index of at least 0, got {split!r} and {index}"
            )
        random, label, n = self.random(split, index), index % len(self.class_names), self.grid_size
        counted: Cells = (random.permutation(n * n) < label).reshape(n, n)
        rows = [[self.tile(split, bool(cell), random) for cell in row] for row in counted]
        pixels = np.concatenate([np.concatenate(row, axis=1) for row in rows])
        answer = counted.repeat(self.tile_side, axis=0).repeat(self.tile_side, axis=1)
        return SyntheticSample(Image.fromarray(pixels), label, {ANSWER: answer})


@SYNTHETIC.register("counting")
@final
@dataclass(frozen=True)
class ColorCounting(GridCounting):
    """Patches of one color each: how many are of the color `class_idx`?

    The other patches are of the five other colors.

    Args:
        seed: Another seed, other images.
        grid_size: Patches along each side.
        class_idx: The color that is counted, an index into `COLORS`.
        patch_size: Side of a patch in pixels.

    Source: the toy task of Vision DiffMask (Nikolaou et al. 2022, section 4), without its noise, rotation and blur, which
        are augmentations.
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


class _Kinds(NamedTuple):
    """Photos of the counted class, and of all other classes."""

    counted: Sequence[Path]
    others: Sequence[Path]


@SYNTHETIC.register("cifar-counting")
@final
@dataclass(frozen=True)
class CifarCounting(GridCounting):
    """Photos of CIFAR-10: how many show the class `class_idx`?

    "test" draws from the test photos, "train" and "val" from the training photos: "val" from a tenth of each class that "train"
    never sees. Any other data set in the same folders will do.

    Args:
        seed: Another seed, other images.
        grid_size: Photos along each side.
        class_idx: The class that is counted, an index into the sorted names of the class folders.
        root: Folder with one folder per class in each of train/ and test/.
        tile_size: Side in pixels that every photo is brought to.

    Source: the task CIFAR10_QA of Vision DiffMask's published code.
    """

    root: Path = Path("data/cifar10")
    tile_size: int = 32

    @property
    def tile_side(self) -> int:
        return self.tile_size

    def tile(self, split: str, counted: bool, random: np.random.Generator) -> Tile:
        if split not in self._found:
            self._found[split] = self._find(split)
        kinds = self._found[split]
        paths = kinds.counted if counted else kinds.others
        photo = open_image(paths[int(random.integers(len(paths)))])
        return np.asarray(photo.resize((self.tile_size, self.tile_size), Image.Resampling.BICUBIC))

    @cached_property
    def _found(self) -> dict[str, _Kinds]:
        return {}

    def _find(self, split: str) -> _Kinds:
        """List a split's photos.

        Raises:
            InvalidInputError: There is no such folder, or it does not hold what is needed.
        """
        folder = self.root / ("test" if split == "test" else "train")
        if not folder.is_dir():
            raise InvalidInputError(
                f"expected CIFAR-10 as folders of images, {folder}/<class>/<image>, found no folder {folder}; name its place by the "
                "option root"
            )
        names = sorted(entry for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))
        if self.class_idx >= len(names) or len(names) < 2:
            raise InvalidInputError(
                f"expected class_idx to be one of at least two classes in {folder}, got {self.class_idx} among {len(names)}"
            )
        # Counted from one, so that a class of fewer images than that still has some to train on.
        kept = [
            [
                path
                for place, path in enumerate(images_below(name), 1)
                if split == "test" or (place % HELD_OUT == 0) == (split == "val")
            ]
            for name in names
        ]
        if empty := [name.name for name, paths in zip(names, kept, strict=True) if not paths]:
            least = HELD_OUT if split == "val" else 1
            raise InvalidInputError(
                f"expected at least {least} images of each class in {folder}, got fewer of {', '.join(empty)}"
            )
        counted = kept.pop(self.class_idx)
        return _Kinds(counted, [path for paths in kept for path in paths])
