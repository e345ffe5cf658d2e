"""Tasks of noise that suites of generated data share; the processes that draw import little else."""

from dataclasses import dataclass

import numpy as np
from PIL import Image

from vitrail.core.errors import InvalidInputError
from vitrail.datasets.synthetic.base import GROUND_TRUTH, SyntheticDataset, SyntheticSample


@dataclass(frozen=True)
class Striped(SyntheticDataset):
    """Two classes, and more regions than a byte has bits; some overlap."""

    num_parts: int = 11

    @property
    def class_names(self) -> tuple[str, ...]:
        return ("zebra", "ape")

    @property
    def image_size(self) -> tuple[int, int]:
        return 6, 8

    def draw(self, split: str, index: int) -> SyntheticSample:
        random = self.random(split, index)
        regions = random.random((self.num_parts + 1, 6, 8)) < 0.5
        image = Image.fromarray(random.integers(0, 256, (6, 8, 3), dtype=np.uint8))
        named = {f"region {number}": region for number, region in enumerate(regions[1:])}
        return SyntheticSample(image, index % 2, {GROUND_TRUTH: regions[0], **named})


@dataclass(frozen=True)
class Failing(Striped):
    """Draws ten images and no more."""

    def draw(self, split: str, index: int) -> SyntheticSample:
        if index == 10:
            raise InvalidInputError("enough drawn")
        return super().draw(split, index)
