"""Photos: uploads, which are opened within limits, and examples."""

import tempfile
import warnings
from collections.abc import Callable, Collection, Mapping
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from vitrail.app.limits import MEGABYTE, Limits
from vitrail.app.temporary_files import stored_bytes
from vitrail.core.errors import ImageError
from vitrail.core.files import real_path
from vitrail.datasets.dicom import HEAD_BYTES, is_dicom
from vitrail.datasets.image_io import decode_image
from vitrail.datasets.synthetic.birds import Birds
from vitrail.datasets.windowing import NOTE, read_note

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
"""Formats of photos; MPO is read as JPEG. Pillow decodes some others before their size is known, or starts a program for them."""

PREVIEW_SUFFIX = ".preview.png"
"""End of the names of converted photos, which users do not see."""

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
        raise ImageError("there is no photo yet: upload or paste one, or choose an example")
    path = Path(path)
    _check_folder(path, folder)
    try:
        size = path.stat().st_size
        if size > limits.num_bytes:
            largest = limits.num_bytes / MEGABYTE
            raise ImageError(f"expected a photo of at most {largest:g} MB, got {size / MEGABYTE:.1f} MB; scale it down first")
        content = path.read_bytes()
    except OSError as error:
        raise ImageError("the uploaded photo is no longer there; upload it again") from error
    # The sides of a DICOM file have 16 bits, and are checked below.
    notes = [] if is_dicom(content[:HEAD_BYTES]) else _check_header(content, limits.num_side)
    photo = decode_image(content, path.name, limits.num_pixels, FORMATS)
    if notes:
        photo.info[NOTE] = "; ".join(filter(None, [read_note(photo), *notes]))
    return photo


def _check_folder(path: Path, folder: Path | None) -> None:
    if folder is not None and not real_path(path).is_relative_to(real_path(folder)):
        raise ImageError("expected an uploaded photo, got a path; upload the file itself")


def _check_header(content: bytes, max_side: int) -> list[str]:
    """Check the sides of a photo, and return what users need to know about its conversion, apart from its window."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(BytesIO(content), formats=FORMATS) as image:
                width, height = image.size
                notes = {
                    # The other pictures of an MPO file, as cameras write them, are views of the same photo.
                    "only the first picture of this file is used": getattr(image, "is_animated", False)
                    and image.format != "MPO",
                    "transparent parts are shown, and explained, as white": image.has_transparency_data,
                    "floating-point samples, drawn from 0 (black) to 1 (white)": image.mode == "F",
                }
    except Exception:  # noqa: BLE001 (`decode_image` reports it)
        return []
    if max(width, height) > max_side:
        raise ImageError(
            f"expected a photo of at most {max_side:,} pixels a side, got {width:,}x{height:,} pixels; crop it or scale it down first"
        )
    return [note for note, applies in notes.items() if applies]


def needs_preview(path: str | Path, folder: Path) -> bool:
    """Return whether browsers cannot show an uploaded file as it is explained: DICOM, TIFF, or gray of 16 bits.

    Args:
        path: The file.
        folder: The folder of uploads.

    Raises:
        ImageError: The file is elsewhere.
    """
    _check_folder(Path(path), folder)
    try:
        with Path(path).open("rb") as file:
            if is_dicom(file.read(HEAD_BYTES)):
                return True
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(path, formats=FORMATS) as image:
                return image.format == "TIFF" or image.mode.startswith("I")
    except Exception:  # noqa: BLE001 (`open_upload` reports it)
        return False


def describe_samples(photo: Image.Image) -> str:
    """Return the note about the window of a photo; that it has none if all its pixels are equal; empty for others without a note."""
    flat = all(channel.getextrema()[0] == channel.getextrema()[1] for channel in photo.split())
    return read_note(photo) or ("All its pixels have the same value" if flat else "")


def write_preview(photo: Image.Image, name: str, folder: Path, limits: Limits) -> Path | None:
    """Write an opened photo as PNG into a new folder; None if the file would be larger than an upload may be.

    Args:
        photo: With its note, which the file keeps.
        name: Name of the file.
        folder: An existing folder.
        limits: Limits of size.
    """
    content, details = BytesIO(), PngInfo()
    if note := read_note(photo):
        details.add_text(NOTE, note)
    photo.save(content, "PNG", pnginfo=details)
    if content.tell() > limits.num_bytes or stored_bytes(folder) + content.tell() > limits.num_stored:
        return None
    path = Path(tempfile.mkdtemp(dir=folder)) / name
    path.write_bytes(content.getvalue())
    return path


class Example(NamedTuple):
    """An example photo.

    Attributes:
        make: Makes it.
        models: Models that know what it shows, the best first.
    """

    make: Callable[[], Image.Image]
    models: tuple[str, ...]

    def choose_model(self, current: str, offered: Collection[str]) -> str:
        """Return the model for the photo: the current one if it fits, or else the first that is offered; the current one if none is."""
        if current in self.models:
            return current
        return next((name for name in self.models if name in offered), current)


CATS, FINCHES = (
    tuple(f"vitrail:{name}" for name in ("hit-pets", "hit-cifar10", "vit-cifar10")),
    tuple(f"vitrail:{name}-birds" for name in ("hit", "vit", "intr")),
)
"""Bundled models that know cats, and drawn birds."""


def list_examples() -> Mapping[str, Example]:
    """List the example photos by name: a cat if scikit-image is installed, and drawn birds."""
    examples: dict[str, Example] = {}
    try:
        from skimage.data import chelsea  # noqa: PLC0415 (an extra)
    except ImportError:
        pass
    else:
        examples["cat"] = Example(lambda: Image.fromarray(chelsea()), CATS)
    return examples | {f"bird {number}": Example(_make_bird(index), FINCHES) for number, index in enumerate(BIRDS, start=1)}


def _make_bird(index: int) -> Callable[[], Image.Image]:
    @cache
    def draw() -> Image.Image:
        return Birds(size=BIRD_SIZE, num_classes=BIRD_CLASSES).draw("test", index).image

    return draw
