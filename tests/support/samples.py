"""Photos and names that several suites share."""

import numpy as np
from PIL import Image

CLASS_NAMES = ("amber", "blue", "crimson", "denim", "ecru", "fawn", "green")


def noisy_photo(seed: int, size: tuple[int, int] = (20, 24)) -> Image.Image:
    """A photo of coarse colored noise, (width, height) pixels, another for every seed."""
    generator = np.random.default_rng(seed)
    coarse = Image.fromarray(generator.integers(0, 256, (4, 4, 3), dtype=np.uint8))
    return coarse.resize(size, Image.Resampling.NEAREST)
