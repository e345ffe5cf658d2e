"""Photos: uploads, which are opened within limits, and examples."""

import warnings
from collections.abc import Callable, Mapping
from functools import cache
from io import BytesIO
from pathlib import Path

from PIL import Image

from vitrail.app.limits import MEGABYTE, Limits
from vitrail.core.errors import ImageError
from vitrail.core.files import real_path
from vitrail.datasets.image_io import decode_image
from vitrail.datasets.synthetic.birds import Birds

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
"""Formats of photos; MPO is read as JPEG. Pillow decodes some others before their size is known, or starts a program for them."""

BIRD_SIZE, BIRD_CLASSES = 96, 6
BIRDS = (1, 2, 3)


def open_upload(path: str | Path | None, limits: Limits, folder: Path | None = None) -> Image.Image:
    """Open an uploaded photo within limits; errors never contain its path.

    Args:
        path: The file; None if nothing was uploaded.
        limits: Limits of size.
        folder: The folder of uploads; files elsewhere are refused. Any file is opened if None.

    Raises:
        ImageError: No file, a file outside of the folder, another format, a damaged photo, or one that is too large.
    """
    if not path:
        raise ImageError("expected a photo, got none; upload or paste one, or choose an example")
    path = Path(path)
    if folder is not None and not real_path(path).is_relative_to(real_path(folder)):
        raise ImageError("expected an uploaded photo, got a path; upload the file itself")
    try:
        size = path.stat().st_size
        if size > limits.num_bytes:
            largest = limits.num_bytes / MEGABYTE
            raise ImageError(f"expected a photo of at most {largest:g} MB, got {size / MEGABYTE:.1f} MB; scale it down first")
        content = path.read_bytes()
    except OSError as error:
        raise ImageError("the uploaded photo is no longer there; upload it again") from error
    _check_sides(content, limits.num_side)
    return decode_image(content, "the photo", limits.num_pixels, FORMATS)


def _check_sides(content: bytes, max_side: int) -> None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(BytesIO(content), formats=FORMATS) as image:
                width, height = image.size
    except Exception:  # noqa: BLE001 (`decode_image` reports it)
        return
    if max(width, height) > max_side:
        raise ImageError(
            f"expected a photo of at most {max_side:,} pixels a side, got {width:,}x{height:,} pixels; crop it or scale it down first"
        )


def list_examples() -> Mapping[str, Callable[[], Image.Image]]:
    """List functions that make the example photos, by name: a cat if scikit-image is installed, and drawn birds."""
    examples: dict[str, Callable[[], Image.Image]] = {}
    try:
        from skimage.data import chelsea  # noqa: PLC0415 (an extra)
    except ImportError:
        pass
    else:
        examples["cat"] = lambda: Image.fromarray(chelsea())
    return examples | {f"bird {number}": _make_bird(index) for number, index in enumerate(BIRDS, start=1)}


def _make_bird(index: int) -> Callable[[], Image.Image]:
    @cache
    def draw() -> Image.Image:
        return Birds(size=BIRD_SIZE, num_classes=BIRD_CLASSES).draw("test", index).image

    return draw
