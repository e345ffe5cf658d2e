"""Opening a photo of any kind without surprises."""

import re
import warnings
from collections.abc import Callable, Sequence
from io import BytesIO
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from vitrail.errors import ImageError

MAX_PIXELS = 178_956_970
"""Pillow's own limit. Larger images are refused before they are decoded: a few kilobytes can unpack to many gigabytes."""

T = TypeVar("T")

_SIXTEEN_BIT = ("I;16", "I;16L", "I;16B", "I;16N")


def open_image(path: str | Path) -> Image.Image:
    """Open a photo as 8-bit RGB, upright.

    EXIF rotation is applied; transparency is laid over white; palettes, CMYK, gray-scale and 16-bit samples are converted.
    Of an animation, the first frame.

    Raises:
        ImageError: The file is missing, empty, damaged, truncated, no image, or has more than 178 million pixels.
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
    path = Path(path)
    try:
        if path.is_dir():
            raise ImageError(f"expected an image file, got the folder {path}")
        if path.stat().st_size == 0:
            raise ImageError(f"expected an image file, got an empty one (0 bytes): {path}")
    except FileNotFoundError:
        raise ImageError(f"no such image file: {path}") from None
    except OSError as error:
        raise ImageError(f"cannot read {path}: {error.strerror}") from error
    return _decode(path, str(path), convert)


def decode_image(content: bytes, name: str, max_pixels: int = MAX_PIXELS, formats: Sequence[str] | None = None) -> Image.Image:
    """Open a photo that lies in memory, by the rules of `open_image`.

    Args:
        content: The bytes of an image file.
        name: What the photo is called in messages.
        max_pixels: Larger ones are refused before they are decoded.
        formats: Pillow's names of the formats that may be tried, where the bytes are a stranger's; all that it knows if None. Some of
            them decode before the size is known (ICO), or start a program (EPS).

    Raises:
        ImageError: The bytes are empty, damaged, truncated, no image of these formats, or have more pixels than that.
    """
    if not content:
        raise ImageError(f"expected an image file, got an empty one (0 bytes): {name}")
    return _decode(BytesIO(content), name, to_rgb, _Accepted(max_pixels, None if formats is None else tuple(formats)))


class _Accepted(NamedTuple):
    """The largest number of pixels, and Pillow's names of formats; all that it knows if None."""

    max_pixels: int = MAX_PIXELS
    formats: tuple[str, ...] | None = None


def _decode(
    file: Path | BytesIO,
    name: str,
    convert: Callable[[Image.Image], T],
    accepted: _Accepted = _Accepted(),  # noqa: B008 (never changes)
) -> T:
    max_pixels, formats = accepted
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's warnings about size and metadata: the size is checked here.
            with Image.open(file, formats=formats) as image:
                if image.width * image.height > max_pixels:
                    raise ImageError(_too_large(name, f"{image.width}x{image.height} pixels", max_pixels))
                image.load()
                return convert(image)
    except ImageError:
        raise
    except UnidentifiedImageError:
        known = "JPEG, PNG, WebP, ..." if formats is None else ", ".join(formats)
        raise ImageError(f"expected an image file ({known}), got something else: {name}") from None
    except Image.DecompressionBombError as error:
        size = re.search(r"\d+ pixels", str(error))
        raise ImageError(_too_large(name, size[0] if size else "far more", max_pixels)) from error
    except Exception as error:  # Decoders raise OSError, ValueError, SyntaxError, struct.error, ...: all mean a damaged file.
        raise ImageError(f"damaged or truncated image {name}: {error}; download or export it again") from error


def _too_large(name: str, size: str, max_pixels: int) -> str:
    return f"expected an image of at most {max_pixels:,} pixels, got {name} ({size}); scale it down first"


def to_rgb(image: Image.Image) -> Image.Image:
    """Return an opened photo as 8-bit RGB, upright, by the rules of `open_image`."""
    return _to_rgb(ImageOps.exif_transpose(image))


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode in _SIXTEEN_BIT:
        # Pillow's own conversion clips at 255; these files hold 16 bits.
        return image.convert("I").point(lambda value: value / 256).convert("L").convert("RGB")
    if image.mode in ("F", "I"):
        samples = np.nan_to_num(np.asarray(image))
        # Floating-point samples are in [0, 1] by convention, in [0, 255] by habit; whole ones hold 8 bits, or 16.
        scale = 255 if image.mode == "F" and samples.max() <= 1 else 1 / 256 if image.mode == "I" and samples.max() > 255 else 1
        return Image.fromarray((samples * scale).clip(0, 255).round().astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
    return image.convert("RGB")
