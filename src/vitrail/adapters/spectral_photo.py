"""Photos of any number of channels."""

from typing import Any, final

import numpy as np
from jaxtyping import Float
from PIL import Image


@final
class SpectralPhoto(Image.Image):
    """A photo of any number of channels; whatever draws it sees a picture of its first three channels, or of its first one.

    Pictures made from it (`crop`, `resize`, `convert`, ...) are ordinary ones, without its samples.

    Args:
        samples: Values from 0 to 1.
    """

    def __init__(self, samples: Float[np.ndarray, "channels height width"]) -> None:
        shown = samples[:3] if len(samples) >= 3 else samples[[0, 0, 0]]
        picture = Image.fromarray((shown * 255).round().astype(np.uint8).transpose(1, 2, 0))
        super().__setstate__(picture.__getstate__())
        self.samples = samples

    def __getstate__(self) -> Any:
        return self.samples

    def __setstate__(self, state: Any) -> None:
        self.__init__(state)
