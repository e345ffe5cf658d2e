"""Reading photos of any number of channels: arrays of numpy, and TIFF files with a page per channel."""

from pathlib import Path

import numpy as np
from jaxtyping import Float, Shaped
from PIL import Image

from vitrail.adapters.spectral_photo import SpectralPhoto
from vitrail.core.errors import ImageError, failures_as
from vitrail.datasets.image_limits import MAX_BYTES, MEGA, Bounds, ImageSize

WHITE = {"u1": 255, "u2": 65_535}
"""White level of integer samples, by kind and bytes."""


def read_array(path: Path, bounds: Bounds) -> SpectralPhoto:
    """Read a `.npy` file, whose channels are the shorter one of the first and the last axis.

    Raises:
        ImageError: It holds no photo, has too many pixels, or samples of unknown range.
    """
    remedy = "; save it again by numpy.save, without objects"
    with failures_as(ImageError, f"damaged or truncated array {path}", remedy, (ValueError, EOFError)):
        # Mapped, so that a header that claims too much allocates nothing.
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    shape = array.shape
    if array.ndim not in (2, 3) or 0 in shape or (array.ndim == 3 and shape[0] == shape[2]):
        raise ImageError(
            f"expected an array (height, width), (height, width, channels) or (channels, height, width) with fewer channels than rows or "
            f"columns, got shape {shape}: {path}; transpose it"
        )
    if array.ndim == 2:
        array = array[None]
    elif shape[2] < shape[0]:
        array = array.transpose(2, 0, 1)
    bounds.check(ImageSize(array.shape[2], array.shape[1]), str(path))
    return _to_photo(array, str(path))


def read_pages(image: Image.Image, num_channels: int, bounds: Bounds) -> SpectralPhoto:
    """Read a file with one page per channel.

    Raises:
        ImageError: It has another number of pages, or pages of different sizes or kinds.
    """
    num_pages = getattr(image, "n_frames", 1)
    if num_pages != num_channels:
        raise ImageError(f"expected a file of {num_channels} pages, one per channel of the network, got {num_pages}")
    pages = list[Shaped[np.ndarray, "height width"]]()
    for index in range(num_pages):
        image.seek(index)
        bounds.check(image, f"page {index}")
        _expect_memory(num_pages * image.width * image.height, f"{num_pages} pages")
        pages.append(np.asarray(image))
        if pages[-1].shape != pages[0].shape or pages[-1].dtype != pages[0].dtype or pages[-1].ndim != 2:
            raise ImageError(
                f"expected gray pages of one size and kind, got others from page {index}; save one page per channel"
            )
    return _to_photo(np.stack(pages), f"{num_pages} pages")


def _to_photo(samples: Shaped[np.ndarray, "channels height width"], name: str) -> SpectralPhoto:
    _expect_memory(samples.size, name)
    kind = samples.dtype.str[1:]
    if samples.dtype.kind == "f":
        unit: Float[np.ndarray, "channels height width"] = np.array(samples, dtype=np.float32)
        # Written so that NaN is refused too.
        if not bool(((unit >= 0) & (unit <= 1)).all()):
            raise ImageError(f"expected floating-point samples between 0 (black) and 1 (white), got others: {name}; scale them")
    elif kind in WHITE:
        unit = np.array(samples, dtype=np.float32) / np.float32(WHITE[kind])
    else:
        raise ImageError(
            f"expected samples of 8 or 16 bits without sign, or floating-point ones between 0 and 1, got {samples.dtype}: {name}; "
            "convert them"
        )
    return SpectralPhoto(unit)


def _expect_memory(num_samples: int, name: str) -> None:
    if 4 * num_samples > MAX_BYTES:
        raise ImageError(
            f"expected at most {MAX_BYTES // (4 * MEGA):,} million samples, got {num_samples / MEGA:,.0f} million: {name}; scale it "
            "down first"
        )
