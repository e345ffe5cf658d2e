"""Photos in DICOM files, as 8-bit pictures: windowed as the file says, or by their range."""

from importlib import import_module
from io import BytesIO
from math import isfinite
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

from vitrail.core.errors import ImageError, MissingExtraError
from vitrail.datasets.image_limits import Bounds, ImageSize
from vitrail.datasets.windowing import add_note

SUFFIX = ".dcm"
MARK, HEAD_BYTES = b"DICM", 132
"""What a file begins with, after 128 bytes of any content."""

DEFLATED = b"1.2.840.10008.1.2.1.99"
"""Transfer syntax of files that are compressed as a whole: a few kilobytes could fill the memory before any size is known."""

GRAY, COLOR = ("MONOCHROME1", "MONOCHROME2"), ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT")
"""Photometric interpretations that are read; MONOCHROME1 is inverted, since its lowest number is white."""


class Window(NamedTuple):
    """A window of gray values: its center, its width, and the function that maps it to [0, 1] (PS3.3, C.11.2.1.2 and .3)."""

    center: float
    width: float
    function: str

    def apply(self, values: Float[np.ndarray, "height width"]) -> Float[np.ndarray, "height width"]:
        """Map values to [0, 1], from black to white."""
        if self.function == "SIGMOID":
            return 1 / (1 + np.exp(-4 * (values - self.center) / self.width))
        exact = self.function == "LINEAR_EXACT"
        center, width = (self.center, self.width) if exact else (self.center - 0.5, self.width - 1)
        if width == 0:
            return (values > center).astype(values.dtype)
        return np.clip((values - center) / width + 0.5, 0, 1)


def is_dicom(head: bytes) -> bool:
    """Return whether a file begins like a DICOM file.

    Args:
        head: Its first `HEAD_BYTES` bytes.
    """
    return head[HEAD_BYTES - len(MARK) : HEAD_BYTES] == MARK


def read_dicom(content: bytes, bounds: Bounds, name: str) -> Image.Image:
    """Read the picture of a DICOM file: gray or color, of 8 bits.

    Gray values are rescaled by slope and intercept, or the table in their place, and windowed by the first window of the file, or else by
    their range without padding. Names and numbers of patients are not read out.

    Args:
        content: The file.
        bounds: Limits of its size, which are checked before pixels are decoded.
        name: Name of the file in error messages.

    Raises:
        ImageError: No picture, several of them, other colors, or pixels that cannot be decoded; or the extra `medical` is not installed.
    """
    try:
        pydicom: Any = import_module("pydicom")
    except ImportError as error:
        # One file among many is skipped with this reason.
        raise ImageError(str(MissingExtraError("reading DICOM files", "medical"))) from error
    if DEFLATED in content:
        raise ImageError(
            "expected a DICOM file that is not deflated, got a deflated one; export it with another transfer syntax"
        )
    dataset = pydicom.dcmread(BytesIO(content))
    if not all(field in dataset for field in ("PixelData", "Rows", "Columns", "PhotometricInterpretation")):
        raise ImageError("expected a DICOM file with a picture, got one without pixels; export the picture itself")
    if (num_frames := int(dataset.get("NumberOfFrames") or 1)) != 1:
        raise ImageError(
            f"expected a DICOM file of one picture, got {num_frames:,} frames; export the frame to explain as a file of its own"
        )
    if (kind := str(dataset.PhotometricInterpretation)) not in (*GRAY, *COLOR):
        raise ImageError(f"expected a DICOM picture of {', '.join((*GRAY, *COLOR))}, got {kind}; export it as gray or RGB")
    bounds.check(ImageSize(int(dataset.Columns), int(dataset.Rows)), name)
    pixels = _decode_pixels(pydicom, dataset)
    if kind in COLOR:
        if pixels.dtype != np.uint8:
            raise ImageError(f"expected colors of 8 bits in a DICOM file, got {pixels.dtype}; export it with 8 bits")
        return Image.fromarray(pixels)
    values = pydicom.pixels.apply_modality_lut(pixels, dataset).astype(np.float32)
    if not np.isfinite(values).all():
        raise ImageError("expected a finite rescale slope and intercept in a DICOM file, got others; export it again")
    shown, note = _apply_window(values, pixels, dataset)
    if kind == "MONOCHROME1":
        shown, note = 1 - shown, f"{note}, inverted"
    gray: UInt8[np.ndarray, "height width"] = (shown * 255).round().astype(np.uint8)
    picture = Image.fromarray(gray)
    add_note(picture, note)
    return picture


def _decode_pixels(pydicom: Any, dataset: Any) -> np.ndarray:
    syntax = dataset.file_meta.TransferSyntaxUID
    if syntax.is_compressed and "JPEG" in syntax.name:
        _check_frame(pydicom, dataset)
    try:
        return dataset.pixel_array
    except (RuntimeError, NotImplementedError) as error:  # There is no decoder.
        raise ImageError(
            f"expected pixels that pydicom can decode, got {syntax.name}; export the file without compression"
        ) from error


def _check_frame(pydicom: Any, dataset: Any) -> None:
    """Refuse a compressed picture that is larger than the file says: it would take more memory than was checked."""
    frame = next(pydicom.encaps.generate_frames(dataset.PixelData, number_of_frames=1))
    try:
        with Image.open(BytesIO(frame), formats=("JPEG", "JPEG2000")) as image:
            size = image.size
    except OSError:
        return  # JPEG-LS and lossless JPEG, which Pillow does not decode either.
    if size != (int(dataset.Columns), int(dataset.Rows)):
        raise ImageError(
            f"expected a picture of {dataset.Columns}x{dataset.Rows} pixels as the DICOM file says, got {size[0]}x{size[1]}"
        )


def _apply_window(values: Float[np.ndarray, "height width"], pixels: np.ndarray, dataset: Any) -> tuple[np.ndarray, str]:
    """Return gray values in [0, 1], and a note about the window."""
    center, width = (_first_number(dataset.get(field)) for field in ("WindowCenter", "WindowWidth"))
    function = str(dataset.get("VOILUTFunction") or "LINEAR")
    if center is not None and width is not None and width >= (1 if function == "LINEAR" else 1e-6):
        return Window(center, width, function).apply(values), f"DICOM, window of the file: center {center:g}, width {width:g}"
    padding = dataset.get("PixelPaddingValue")
    inside = values if padding is None or (pixels == padding).all() else values[pixels != padding]
    low, high = float(inside.min()), float(inside.max())
    note = f"DICOM without a window: values from {low:,g} to {high:,g}, drawn from black to white"
    return np.clip((values - low) / (high - low), 0, 1) if high > low else np.zeros_like(values), note


def _first_number(value: Any) -> float | None:
    """Return the first of one or several numbers; None if there is none."""
    first = (
        value[0]
        if value is not None and not isinstance(value, str | int | float) and hasattr(value, "__len__") and len(value)
        else value
    )
    try:
        number = float(first)
    except (TypeError, ValueError):
        return None
    return number if isfinite(number) else None
