"""The interface and the registry of synthetic data sets: generated images whose deciding pixels are known."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from PIL import Image

from vitrail.core.registry import Registry
from vitrail.datasets.mask_files import Mask

GROUND_TRUTH = "ground_truth"
"""Name of the mask of the pixels that decide the class, which every sample has."""


class SyntheticSample(NamedTuple):
    """One generated image with its masks.

    Attributes:
        image: 8-bit RGB.
        label: Class index.
        masks: Regions by name, in the pixels of the image; `GROUND_TRUTH` is the region that decides the class.
    """

    image: Image.Image
    label: int
    masks: Mapping[str, Mask]


@dataclass(frozen=True)
class SyntheticDataset(ABC):
    """A classification data set that is drawn instead of collected: any number of images, each with its ground truth.

    A sample depends only on the fields of the data set, the split and the index, not on the machine, process or order.

    Args:
        seed: Seed of the images.
    """

    seed: int = 0

    @property
    @abstractmethod
    def class_names(self) -> tuple[str, ...]:
        """One name per class."""

    @property
    @abstractmethod
    def image_size(self) -> tuple[int, int]:
        """Height and width in pixels."""

    @abstractmethod
    def draw(self, split: str, index: int) -> SyntheticSample:
        """Draw sample `index` of a split ("train", "val", "test"); classes are balanced over the indices."""

    def random(self, split: str, index: int) -> np.random.Generator:
        """Return the random generator of one sample."""
        return np.random.default_rng([self.seed, *split.encode(), index])


SYNTHETIC: Registry[type[SyntheticDataset]] = Registry("synthetic data set")
"""Synthetic data sets by name."""
