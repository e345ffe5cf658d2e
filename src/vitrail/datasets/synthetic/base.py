"""Tasks with a known answer: generated images, each with the mask of what decides its class."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool
from PIL import Image

from vitrail.core.registry import Registry

Mask = Bool[np.ndarray, "height width"]

ANSWER = "answer"
"""The mask that every sample has: the pixels that decide its class."""


class SyntheticSample(NamedTuple):
    """One generated image and what is known of it.

    Attributes:
        image: 8-bit RGB.
        label: Its class.
        masks: Named regions in the image's own pixels; `ANSWER` is the region that decides the class.
    """

    image: Image.Image
    label: int
    masks: Mapping[str, Mask]


@dataclass(frozen=True)
class SyntheticDataset(ABC):
    """A classification task that is drawn, not collected: any number of images, with the evidence of each.

    A sample depends on the task's fields, the split and the index alone: the same on every machine, in any order, in any
    process.

    Args:
        seed: Another seed, other images.
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
        """The random numbers of one sample."""
        return np.random.default_rng([self.seed, *split.encode(), index])


SYNTHETIC: Registry[type[SyntheticDataset]] = Registry("task")
"""Generated tasks by name."""
