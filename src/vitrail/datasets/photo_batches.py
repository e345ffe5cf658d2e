"""Batches of photos for the network, with small copies for pictures."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

from vitrail.adapters import Preprocessing
from vitrail.datasets.photo_objects import open_photos

KEPT_SIDE = 336
"""Shorter side of kept photos in pixels, at most: 0.3 MB for a square photo."""


class PhotoBatch(NamedTuple):
    """Images that are explained together.

    Attributes:
        images: Normalized images (channels, height, width); sizes may differ.
        sources: The file or URL of every image; "" for a photo without; None for a normalized image.
        photos: Small copies of what the network sees, or None where they are not kept.
    """

    images: list[Tensor]
    sources: list[str | None]
    photos: list[UInt8[np.ndarray, "height width 3"] | None]


def read_batches(photos: Any, preprocessing: Preprocessing, size: int, keep_photos: bool) -> Iterator[PhotoBatch]:
    """Open photos and preprocess them, batch by batch; normalized batches stay as they are given.

    Args:
        photos: See `vitrail.datasets.photo_objects.open_photos`.
        preprocessing: Of the network.
        size: Photos per batch.
        keep_photos: Whether to make small copies.
    """
    batch = PhotoBatch([], [], [])
    for photo in open_photos(photos, preprocessing):
        single = not isinstance(photo, Tensor)
        if batch.images and (not single or len(batch.images) == size):
            yield batch
            batch = PhotoBatch([], [], [])
        if isinstance(photo, Tensor):
            kept = [copy_image(image, preprocessing) if keep_photos else None for image in photo]
            yield PhotoBatch(list(photo), [None] * len(photo), kept)
        else:
            batch.images.append(preprocessing(photo.photo))
            batch.sources.append(photo.source)
            batch.photos.append(copy_photo(photo.photo, preprocessing) if keep_photos else None)
    if batch.images:
        yield batch


def copy_photo(photo: Image.Image, preprocessing: Preprocessing) -> UInt8[np.ndarray, "height width 3"]:
    """Return a small copy of the part of a photo that the network sees, in its own proportions."""
    box = preprocessing.visible_box(photo.height, photo.width)
    width, height = box[2] - box[0], box[3] - box[1]
    factor = min(1.0, KEPT_SIDE / min(width, height), 4 * KEPT_SIDE / max(width, height))
    size = max(round(width * factor), 1), max(round(height * factor), 1)
    return np.array(photo.convert("RGB").resize(size, Image.Resampling.LANCZOS, box))


def copy_image(
    image: Float[Tensor, "channels height width"], preprocessing: Preprocessing
) -> UInt8[np.ndarray, "height width 3"] | None:
    """Return a small copy of a normalized image as pixels of three channels; None for one that the network refuses."""
    if len(image) != preprocessing.num_channels or not torch.isfinite(image).all():
        return None  # The method refuses it.
    pixels = preprocessing.denormalize(image.detach().float().cpu()[None])[0]
    shown = (pixels[:3] if len(pixels) >= 3 else pixels[[0, 0, 0]]).mul(255).round().byte()
    picture = Image.fromarray(shown.permute(1, 2, 0).contiguous().numpy())
    factor = min(1.0, KEPT_SIDE / min(picture.size))
    if factor < 1:
        picture = picture.resize((round(picture.width * factor), round(picture.height * factor)), Image.Resampling.LANCZOS)
    return np.array(picture)
