"""Opening image files of any kind, also DICOM, as upright 8-bit RGB or with any number of channels, with one kind of error for all."""

import re
import stat
import warnings
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from io import BufferedReader, BytesIO
from pathlib import Path
from typing import TypeVar

from PIL import Image, UnidentifiedImageError

from vitrail.core.errors import ImageError
from vitrail.core.files import name_kind
from vitrail.datasets.dicom import HEAD_BYTES, SUFFIX, is_dicom, read_dicom
from vitrail.datasets.image_limits import MAX_BYTES, MEGA, Bounds, default_bounds
from vitrail.datasets.rgb import to_rgb
from vitrail.datasets.spectral import read_array, read_pages
from vitrail.datasets.truncation import load_complete

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", *(("AVIF",) if find_spec("PIL.AvifImagePlugin") else ()))
"""Formats that are decoded, by Pillow's names, whatever the suffix of a file. Other formats are not safe: EPS starts a program, ICO
decodes before its size is known. MPO is read as JPEG. The suffixes are in `vitrail.datasets.file_search.SUFFIXES`."""

HEIC = re.compile(rb".{4}ftyphe(ic|ix|im|is|vc|vx)", re.DOTALL)
"""Beginning of files in the format of phones."""

HEIC_FOUND = "HEIC, as phones store photos (export it as JPEG)"

T = TypeVar("T")


def open_image(path: str | Path, num_channels: int = 3) -> Image.Image:
    """Open an image file as upright 8-bit RGB, or as a `SpectralPhoto` of any number of channels.

    EXIF rotation is applied, transparent pixels are blended over white, and palette, CMYK, gray-scale and 16-bit images are converted.
    Gray photos of 16 bits are windowed by their range, and DICOM files by their window (`vitrail.datasets.dicom`); the log says so.
    An animation yields its first frame. Arrays (`.npy`) are spectral photos, and so are TIFF files for a network that takes neither one nor
    three channels, which have a page per channel.

    Args:
        path: The file.
        num_channels: Number of channels that the network takes.

    Raises:
        ImageError: The file is missing, not a regular file, empty, damaged, truncated, of a format that is not in `FORMATS`, larger than
            `vitrail.datasets.image_limits` allows, or has samples of unknown range; or a DICOM file without the extra `medical`.
    """
    bounds = default_bounds()
    if Path(path).suffix.lower() == ".npy":
        return _read(Path(path), lambda file: read_array(Path(path), bounds))
    return read_image(path, _converter(path, num_channels, bounds))


def read_image(path: str | Path, convert: Callable[[Image.Image], T]) -> T:
    """Open an image file with the checks of `open_image` and convert it.

    Args:
        path: The file.
        convert: From the decoded image, in its own mode, to the result.

    Raises:
        ImageError: As for `open_image`.
    """
    path, bounds = Path(path), default_bounds()
    return _read(path, lambda file: _decode(file, str(path), convert, bounds, FORMATS))


def _read(path: Path, decode: Callable[[BufferedReader], T]) -> T:
    try:
        status = path.stat()
        # Reading anything but a regular file may block, or never end.
        if not stat.S_ISREG(status.st_mode):
            raise ImageError(f"expected an image file, got the {name_kind(status.st_mode)} {path}")
        if status.st_size == 0:
            raise ImageError(f"expected an image file, got an empty one (0 bytes): {path}")
        if status.st_size > MAX_BYTES:
            raise ImageError(
                f"expected an image file of at most {MAX_BYTES // MEGA:,} MB, got {status.st_size / MEGA:,.0f} MB: {path}; scale it down "
                "first"
            )
        with path.open("rb") as file:
            return decode(file)
    except FileNotFoundError:
        raise ImageError(f"no such image file: {path}") from None
    except (OSError, ValueError) as error:  # A path with a null character is a ValueError.
        raise ImageError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from error


def _converter(path: str | Path, num_channels: int, bounds: Bounds) -> Callable[[Image.Image], Image.Image]:
    if num_channels in (1, 3) or Path(path).suffix.lower() not in (".tif", ".tiff"):
        return to_rgb
    return lambda image: read_pages(image, num_channels, bounds)


def decode_image(
    content: bytes, name: str, max_pixels: int | None = None, formats: Sequence[str] = FORMATS, num_channels: int = 3
) -> Image.Image:
    """Decode an image in memory, by the rules of `open_image`.

    Args:
        content: The bytes of an image file.
        name: Name of the image in error messages.
        max_pixels: Largest number of pixels; the limit for files by default.
        formats: Formats that may be decoded, a subset of `FORMATS`.
        num_channels: Number of channels that the network takes.

    Raises:
        ImageError: As for `open_image`.
    """
    if not content:
        raise ImageError(f"expected an image file, got an empty one (0 bytes): {name}")
    bounds = default_bounds() if max_pixels is None else Bounds(max_pixels)
    return _decode(BytesIO(content), name, _converter(name, num_channels, bounds), bounds, formats)


def _decode(
    file: BufferedReader | BytesIO, name: str, convert: Callable[[Image.Image], T], bounds: Bounds, formats: Sequence[str]
) -> T:
    def read_content() -> bytes:
        file.seek(0)
        return file.read()

    size = ""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns about sizes, which are checked here, and about metadata.
            head = file.read(HEAD_BYTES)
            file.seek(0)
            if is_dicom(head):
                return convert(read_dicom(file.read(), bounds, name))
            with Image.open(file, formats=tuple(formats)) as image:
                size = f" ({image.width}x{image.height} pixels)"
                bounds.check(image, name)
                return convert(load_complete(image, read_content))
    except ImageError as error:
        if name in str(error):
            raise
        raise ImageError(f"cannot use {name}: {error}") from error
    except UnidentifiedImageError:
        hint = ", or DICOM with the letters DICM after 128 bytes" if name.lower().endswith(SUFFIX) else ""
        found = HEIC_FOUND if HEIC.match(head) else "something else"
        raise ImageError(f"expected an image file ({', '.join(formats)}{hint}), got {found}: {name}") from None
    except Image.DecompressionBombError as error:
        num_pixels = re.search(r"\d+ pixels", str(error))
        raise bounds.too_large(name, num_pixels[0] if num_pixels else "far more") from error
    except MemoryError as error:
        raise ImageError(f"not enough memory for {name}{size}; scale it down first") from error
    except Exception as error:  # Decoders of damaged files raise OSError, ValueError, SyntaxError, struct.error and more.
        raise ImageError(f"damaged or truncated image {name}: {error}; download or export it again") from error
