"""Photos in any form that Python programs hold them in: files, URLs, bytes, arrays, tensors, and collections of these."""

import logging
from collections.abc import Iterable, Iterator, Mapping
from numbers import Number
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from PIL import Image
from torch import Tensor

from vitrail.adapters import Preprocessing
from vitrail.adapters.spectral_photo import SpectralPhoto
from vitrail.core.errors import ImageError, InvalidInputError
from vitrail.datasets.file_search import is_folder
from vitrail.datasets.image_io import decode_image, open_image
from vitrail.datasets.image_limits import MAX_BYTES
from vitrail.datasets.photo_urls import download_photo, is_url
from vitrail.datasets.rgb import to_rgb

logger = logging.getLogger(__name__)


@runtime_checkable
class BinaryFile(Protocol):
    """An open file, or what reads like one."""

    def read(self, size: int = ..., /) -> bytes:
        """Read up to this number of bytes."""
        ...


Photo = str | Path | Image.Image | np.ndarray | Tensor | bytes | BinaryFile
"""A file, a URL, an opened photo, pixels (uint8: arrays (height, width, channels), tensors (channels, height, width); uint16: gray arrays),
a normalized image (a tensor of floats), or the content of a file; arrays and tensors also in batches."""

FORMS = (
    "a file, a URL, an opened photo, an array of uint8 (height, width, channels), a normalized tensor (b, channels, height, width), "
    "or a list, generator or DataLoader of these"
)
BRIGHTEST = 5.0
"""Pixels of a normalized image lie between 0 (black) and 1 (white), or somewhat beyond after a change of the image."""


class SourcedPhoto(NamedTuple):
    """A photo and where it is from: its file or URL, or nothing."""

    photo: Image.Image
    source: str


def open_photos(photos: Any, preprocessing: Preprocessing) -> Iterator[SourcedPhoto | Tensor]:
    """Open photos of any form one by one.

    Args:
        photos: One photo, or any iterable of photos or batches. A pair is a batch with its labels, as data loaders give them, and a mapping
            has its batch as "pixel_values"; labels are ignored.
        preprocessing: Of the network.

    Yields:
        A photo, or a normalized batch (b, channels, height, width).

    Raises:
        ImageError: A photo cannot be read.
        InvalidInputError: Something that is no photo, floats that are not normalized, or pixels of another layout.
    """
    if isinstance(photos, Tensor):
        yield from _open_tensor(photos, preprocessing)
    elif isinstance(photos, np.ndarray):
        yield from _open_array(photos, preprocessing.num_channels)
    elif is_photo(photos):
        yield _open_file(photos, preprocessing.num_channels)
    elif isinstance(photos, Mapping):
        if "pixel_values" not in photos:
            raise InvalidInputError(
                f"expected a batch with the key 'pixel_values', got the keys {', '.join(map(repr, photos))}"
            )
        yield from open_photos(photos["pixel_values"], preprocessing)
    elif isinstance(photos, Iterable) or hasattr(photos, "__getitem__"):  # Data sets of torch have no __iter__.
        for item in photos:
            yield from open_photos(item[0] if _is_labeled(item) else item, preprocessing)
    else:
        raise InvalidInputError(f"expected {FORMS}, got {type(photos).__name__}")


def is_photo(photo: Any) -> bool:
    """Return whether an object is the file, the URL or the content of one photo, or one opened photo."""
    return isinstance(photo, str | Path | Image.Image | bytes) or hasattr(photo, "read")


def _is_labeled(item: Any) -> bool:
    """Return whether an item of a data loader or data set is an image, or a batch, followed by labels."""
    if not isinstance(item, tuple | list) or len(item) < 2:
        return False
    image, *labels = item
    # Texts beside a text are more files.
    kinds = (Number, Mapping) if isinstance(image, str | Path) else (Number, Mapping, str)
    return (isinstance(image, Tensor | np.ndarray) or is_photo(image)) and all(
        label is None or isinstance(label, kinds) or getattr(label, "ndim", 9) < 2 or _is_text_list(label) for label in labels
    )


def _is_text_list(label: Any) -> bool:
    return isinstance(label, tuple | list) and all(isinstance(name, str) for name in label)


def _open_file(photo: Any, num_channels: int) -> SourcedPhoto:
    if isinstance(photo, Image.Image):
        return SourcedPhoto(to_rgb(photo), "")
    if isinstance(photo, str) and is_url(photo):
        return SourcedPhoto(decode_image(download_photo(photo), photo), photo)
    if isinstance(photo, str | Path):
        if is_folder(Path(photo)):
            raise ImageError(
                f"expected a photo, got the folder {photo}; explain its photos by vitrail.explain_files([folder], ...), or a large folder "
                "by vitrail.explain_folder"
            )
        return SourcedPhoto(open_image(photo, num_channels), str(photo))
    content = photo if isinstance(photo, bytes) else photo.read(MAX_BYTES + 1)
    if not isinstance(content, bytes):
        raise InvalidInputError(f"expected a file opened in binary mode, got {type(photo).__name__}, which reads text")
    if len(content) > MAX_BYTES:
        raise InvalidInputError(
            f"expected the content of a photo of at most {MAX_BYTES:,} bytes, got more; scale it down first"
        )
    name = getattr(photo, "name", "")
    return SourcedPhoto(decode_image(content, name if isinstance(name, str) and name else type(photo).__name__), str(name))


def _open_array(pixels: np.ndarray, num_channels: int) -> Iterator[SourcedPhoto]:
    """Open pixels (height, width), (height, width, channels), or a batch of the latter."""
    is_gray = pixels.ndim == 2 or (pixels.ndim in (3, 4) and pixels.shape[-1] == 1)
    if pixels.dtype != np.uint8 and not (pixels.dtype == np.uint16 and is_gray):
        span = f" from {pixels.min():g} to {pixels.max():g}" if pixels.size and pixels.dtype.kind in "fiu" else ""
        raise InvalidInputError(
            f"expected an array of pixels as uint8, from 0 to 255, or uint16 if it is gray, got {pixels.dtype}{span}; convert it by "
            "array.astype('uint8'), or (255 * array).round().astype('uint8') if white is 1; give normalized images as a torch.Tensor"
        )
    if pixels.ndim == 4:
        for one in pixels:
            yield from _open_array(one, num_channels)
        return
    channels = pixels.shape[2] if pixels.ndim == 3 else 1
    if pixels.ndim not in (2, 3) or channels not in (1, 3, 4, num_channels) or not pixels.size:
        raise InvalidInputError(
            f"expected an array of pixels (height, width, channels) with 1, 3 or 4 channels, got {pixels.shape}"
            + (
                "; move the channels last by array.transpose(1, 2, 0)"
                if pixels.ndim == 3 and pixels.shape[0] in (1, 3, 4)
                else ""
            )
        )
    if num_channels not in (1, 3) and channels == num_channels:
        yield SourcedPhoto(SpectralPhoto((pixels.astype(np.float32) / 255).transpose(2, 0, 1)), "")
    else:
        yield SourcedPhoto(
            to_rgb(Image.fromarray(np.ascontiguousarray(pixels.squeeze(2) if pixels.ndim == 3 and channels == 1 else pixels))),
            "",
        )


def _open_tensor(images: Tensor, preprocessing: Preprocessing) -> Iterator[SourcedPhoto | Tensor]:
    """Open pixels (channels, height, width) of uint8, or normalized images of floats, or a batch of either."""
    if images.ndim not in (3, 4):
        raise InvalidInputError(
            f"expected a batch of images (b, channels, height, width) or one image, got a tensor {tuple(images.shape)}"
        )
    batch = images if images.ndim == 4 else images[None]
    if not images.is_floating_point():
        pixels = batch.cpu().numpy()
        if pixels.dtype == np.uint8 and pixels.shape[1] not in (1, 3, 4, preprocessing.num_channels):
            raise InvalidInputError(
                f"expected a tensor of pixels (channels, height, width), got {tuple(images.shape)}; move the channels by "
                f"permute({'2, 0, 1' if images.ndim == 3 else '0, 3, 1, 2'})"
            )
        if pixels.dtype != np.uint8:
            raise InvalidInputError(f"expected a normalized batch of floats, or pixels of torch.uint8, got {images.dtype}")
        yield from _open_array(pixels.transpose(0, 2, 3, 1), preprocessing.num_channels)
        return
    _refuse_pixels(batch, preprocessing)
    yield batch


def _refuse_pixels(images: Tensor, preprocessing: Preprocessing) -> None:
    """Refuse floats from 0 to 255, which a network takes for blinding light; warn of those from 0 to 1, which it takes for haze."""
    if not images.numel() or images.shape[1] != preprocessing.num_channels or images.min() < 0:
        return
    if 0 < images.max() <= 1 and min(preprocessing.mean) > 0:  # Above the mean everywhere: no photo is so bright.
        logger.warning(
            "images from %g to %g look like pixels that are not normalized; give them as uint8, or normalize them with the mean and std of "
            "model.preprocessing",
            float(images.min()),
            float(images.max()),
        )
    std, mean = max(preprocessing.std), max(preprocessing.mean)
    if float(images.max()) * std + mean > BRIGHTEST:
        raise InvalidInputError(
            f"expected a normalized batch, got floats from {float(images.min()):g} to {float(images.max()):g}, which look like pixels; "
            "give pixels as uint8 (images.to(torch.uint8)), or normalize them with the mean and std of model.preprocessing"
        )
