"""Photos for visitors who have none at hand."""

from collections.abc import Callable, Mapping
from functools import cache

from PIL import Image

from vitrail.datasets.synthetic.birds import Birds

BIRD_SIZE, BIRD_CLASSES = 96, 6
BIRDS = (1, 2, 3)


def examples() -> Mapping[str, Callable[[], Image.Image]]:
    """Names, and what makes the photos: a cat where scikit-image is installed, and birds that vitrail draws."""
    found: dict[str, Callable[[], Image.Image]] = {}
    try:
        from skimage.data import chelsea  # noqa: PLC0415 (an extra)
    except ImportError:
        pass
    else:
        found["cat"] = lambda: Image.fromarray(chelsea())
    return found | {f"bird {place}": _bird(index) for place, index in enumerate(BIRDS, start=1)}


def _bird(index: int) -> Callable[[], Image.Image]:
    @cache
    def draw() -> Image.Image:
        return Birds(size=BIRD_SIZE, num_classes=BIRD_CLASSES).draw("test", index).image

    return draw
