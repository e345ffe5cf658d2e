"""Photos from strangers: how large they may be, and where they may lie."""

import warnings
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

from PIL import Image

from vitrail.core.errors import ImageError, InvalidInputError
from vitrail.core.files import real_path
from vitrail.datasets.image_io import decode_image
from vitrail.datasets.image_limits import default_bounds

MEGABYTE = 1_000_000

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
"""Of photos; MPO is read as JPEG. Others are not even tried: some are decoded before their size is known, some start a program."""


@dataclass(frozen=True)
class Limits:
    """What a visitor may ask for.

    Attributes:
        num_bytes: Of an uploaded file.
        num_pixels: Of a photo; more are refused before they are decoded.
        num_waiting: Requests that wait at a time; more are turned away.
        num_methods: In one request.
        keep_seconds: How long files and answers are kept that nobody asked for again.
        num_stored: Bytes of all uploads and prepared files together; what would be more is turned away until older ones are gone.
        num_side: Pixels of a photo's longer side; more are refused before they are decoded, since every row takes memory of its own, too.
    """

    num_bytes: int = 20 * MEGABYTE
    num_pixels: int = 50_000_000
    num_waiting: int = 32
    num_methods: int = 8
    keep_seconds: int = 3600
    num_stored: int = 2000 * MEGABYTE
    num_side: int = 16_384

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value < 1:
                raise InvalidInputError(f"expected {name} of at least 1, got {value}")
        most = default_bounds().num_pixels
        if self.num_pixels > most:
            raise InvalidInputError(f"expected num_pixels of at most {most:,}, got {self.num_pixels:,}")


def open_upload(path: str | Path | None, limits: Limits, folder: Path | None = None) -> Image.Image:
    """Open an uploaded photo as `vitrail.datasets.image_io.open_image` does, within limits, and without a word of where it lies.

    Args:
        path: The file; None where nothing was uploaded.
        limits: Of size.
        folder: Where uploads lie: anything else is refused, whatever it is.

    Raises:
        ImageError: No photo, one of another format, a damaged or too large one, or a path that no upload gave.
    """
    if not path:
        raise ImageError("expected a photo, got none; upload or paste one, or choose an example")
    path = Path(path)
    if folder is not None and not real_path(path).is_relative_to(real_path(folder)):
        raise ImageError("expected an uploaded photo, got a path; upload the file itself")
    try:
        size = path.stat().st_size
        if size > limits.num_bytes:
            most = limits.num_bytes / MEGABYTE
            raise ImageError(f"expected a photo of at most {most:g} MB, got {size / MEGABYTE:.1f} MB; scale it down first")
        content = path.read_bytes()
    except OSError as error:
        raise ImageError("the uploaded photo is no longer there; upload it again") from error
    _check_sides(content, limits.num_side)
    return decode_image(content, "the photo", limits.num_pixels, FORMATS)


def _check_sides(content: bytes, most: int) -> None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(BytesIO(content), formats=FORMATS) as image:
                width, height = image.size
    except Exception:  # noqa: BLE001 (whatever it is, it is told when the photo is decoded)
        return
    if max(width, height) > most:
        raise ImageError(
            f"expected a photo of at most {most:,} pixels a side, got {width:,}x{height:,} pixels; crop it or scale it down first"
        )
