"""Opening a photo of any kind without surprises."""

import re
import stat
import warnings
from collections.abc import Callable, Sequence
from io import BufferedReader, BytesIO
from pathlib import Path
from typing import TypeVar

from PIL import Image, UnidentifiedImageError

from vitrail.core.errors import ImageError
from vitrail.datasets.formats import FORMATS
from vitrail.datasets.image_limits import MAX_BYTES, MEGA, Bounds, default_bounds
from vitrail.datasets.rgb import to_rgb
from vitrail.datasets.truncation import load_complete

__all__ = ["decode_image", "open_image", "read_image", "to_rgb"]

T = TypeVar("T")

_KINDS = (
    (stat.S_ISDIR, "the folder"),
    (stat.S_ISFIFO, "the named pipe"),
    (stat.S_ISSOCK, "the socket"),
    (stat.S_ISCHR, "the device"),
    (stat.S_ISBLK, "the device"),
)


def open_image(path: str | Path) -> Image.Image:
    """Open a photo as 8-bit RGB, upright.

    EXIF rotation is applied; transparency is laid over white; palettes, CMYK, gray-scale and 16-bit samples are converted.
    Of an animation, the first frame.

    Raises:
        ImageError: The file is missing, no regular file, empty, damaged, truncated, of no format in `vitrail.datasets.formats`, larger
            than `vitrail.datasets.image_limits` allows, or holds samples whose range nobody knows.
    """
    return read_image(path, to_rgb)


def read_image(path: str | Path, convert: Callable[[Image.Image], T]) -> T:
    """Open an image file and make something else than a photo of it, under the same guard.

    Args:
        path: The file.
        convert: From the decoded image, as it lies in the file, to what is wanted.

    Raises:
        ImageError: As for `open_image`.
    """
    path, bounds = Path(path), default_bounds()
    try:
        about = path.stat()
        # Anything else may never come to an end, or wait for somebody who writes.
        if not stat.S_ISREG(about.st_mode):
            kind = next((words for is_kind, words in _KINDS if is_kind(about.st_mode)), "something else:")
            raise ImageError(f"expected an image file, got {kind} {path}")
        if about.st_size == 0:
            raise ImageError(f"expected an image file, got an empty one (0 bytes): {path}")
        if about.st_size > MAX_BYTES:
            raise ImageError(
                f"expected an image file of at most {MAX_BYTES // MEGA:,} MB, got {about.st_size / MEGA:,.0f} MB: {path}; scale it down "
                "first"
            )
        with path.open("rb") as file:
            return _decode(file, str(path), convert, bounds, FORMATS)
    except FileNotFoundError:
        raise ImageError(f"no such image file: {path}") from None
    except (OSError, ValueError) as error:  # A name with a null character is a ValueError.
        raise ImageError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from error


def decode_image(content: bytes, name: str, max_pixels: int | None = None, formats: Sequence[str] = FORMATS) -> Image.Image:
    """Open a photo that lies in memory, by the rules of `open_image`.

    Args:
        content: The bytes of an image file.
        name: What the photo is called in messages.
        max_pixels: Larger ones are refused before they are decoded; if None, the bound of files holds.
        formats: Pillow's names of the formats that may be tried: some of `vitrail.datasets.formats.FORMATS`.

    Raises:
        ImageError: As for `open_image`.
    """
    if not content:
        raise ImageError(f"expected an image file, got an empty one (0 bytes): {name}")
    bounds = default_bounds() if max_pixels is None else Bounds(max_pixels)
    return _decode(BytesIO(content), name, to_rgb, bounds, formats)


def _decode(
    file: BufferedReader | BytesIO, name: str, convert: Callable[[Image.Image], T], bounds: Bounds, formats: Sequence[str]
) -> T:
    def content() -> bytes:
        file.seek(0)
        return file.read()

    size = ""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's warnings about size and metadata: the size is checked here.
            with Image.open(file, formats=tuple(formats)) as image:
                size = f" ({image.width}x{image.height} pixels)"
                bounds.check(image, name)
                return convert(load_complete(image, content))
    except ImageError as error:
        if name in str(error):
            raise
        raise ImageError(f"cannot use {name}: {error}") from error
    except UnidentifiedImageError:
        raise ImageError(f"expected an image file ({', '.join(formats)}), got something else: {name}") from None
    except Image.DecompressionBombError as error:
        found = re.search(r"\d+ pixels", str(error))
        raise bounds.too_large(name, found[0] if found else "far more") from error
    except MemoryError as error:
        raise ImageError(f"not enough memory for {name}{size}; scale it down first") from error
    except Exception as error:  # Decoders raise OSError, ValueError, SyntaxError, struct.error, ...: all mean a damaged file.
        raise ImageError(f"damaged or truncated image {name}: {error}; download or export it again") from error
