"""Ground truth of explanations: masks of the pixels that decide the class, read together with their images.

The masks come from a synthetic data set, from a folder of masks, or from the trimaps or boxes of a named data set.
"""

import logging
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import ClassVar

import numpy as np
from PIL import Image

from vitrail.adapters import Preprocessing
from vitrail.core.errors import ImageError, InvalidInputError
from vitrail.datasets.dataset import Box, LabeledFiles, LabeledImages, Sample, Transform, Unreadable
from vitrail.datasets.mask_files import Mask, masks_by_image, read_mask, read_trimap
from vitrail.datasets.synthetic.generation import has_ground_truth, read_generated_mask

logger = logging.getLogger(__name__)


class GroundTruthImages(LabeledImages):
    """Labeled images with a ground-truth mask each.

    If the transform is a `Preprocessing`, samples contain the mask in the pixels that the network sees. Other transforms may move
    pixels in unknown ways, so their samples come without mask.
    """

    @abstractmethod
    def read_ground_truth(self, index: int, photo: Image.Image) -> Mask:
        """Return the mask of an image that is already open, in its pixels.

        Raises:
            ImageError: The mask cannot be read, or differs from the image in size.
        """

    def ground_truth(self, index: int) -> Mask:
        return self.read_ground_truth(index, self.open(index))

    def __getitem__(self, index: int) -> Sample | Unreadable:
        name = self.name(index)
        try:
            photo = self.open(index)
            mask, image = self.read_ground_truth(index, photo), self.transform(photo)
        except ImageError as error:
            return Unreadable(name, str(error))
        visible_mask = self.transform.region(mask) if isinstance(self.transform, Preprocessing) else None
        return Sample(image, self.labels[index], name, visible_mask)


ReadMask = Callable[[LabeledImages, int, Image.Image], Mask]
"""Reads the mask of the image at an index, which is already open; raises `ImageError` if it cannot."""


@dataclass(frozen=True, eq=False)
class ImagesWithGroundTruth(GroundTruthImages):
    """Images combined with a source of their masks.

    Args:
        images: The images; their own labels and transform are not used.
    """

    labels: Sequence[int]
    class_names: Sequence[str]
    transform: Transform = field(repr=False)
    images: LabeledImages
    reader: ReadMask = field(repr=False)
    per_image: ClassVar[tuple[str, ...]] = ("images", "labels")

    def open(self, index: int) -> Image.Image:
        return self.images.open(index)

    def name(self, index: int) -> str:
        return self.images.name(index)

    def num_bytes(self, index: int) -> int:
        return self.images.num_bytes(index)

    def box(self, index: int) -> Box | None:
        return self.images.box(index)

    def read_ground_truth(self, index: int, photo: Image.Image) -> Mask:
        mask = self.reader(self.images, index, photo)
        if mask.shape != (photo.height, photo.width):
            raise ImageError(
                f"expected a mask as large as its image, {photo.width}x{photo.height} pixels, got "
                f"{mask.shape[1]}x{mask.shape[0]} for {self.name(index)}"
            )
        return mask


def attach_ground_truth(images: LabeledImages, preprocessing: Preprocessing) -> LabeledImages:
    """Return the same images, with their trimaps if their data set has these, or the masks of a synthetic data set beside them.

    Args:
        images: Images of any kind; only files can have masks beside them. Images that have ground truth already keep it.
        preprocessing: The model's preprocessing, the new transform of images with ground truth.

    Raises:
        InvalidInputError: Some images have a mask and some have none.
    """
    if isinstance(images, GroundTruthImages):
        return images.with_transform(preprocessing)
    if not isinstance(images, LabeledFiles):
        return images
    if images.trimaps is not None:
        trimaps = dict(zip(map(str, images.paths), images.trimaps, strict=True))
        return _combine(images, preprocessing, partial(_read_file, read_trimap, trimaps))
    without = [path for path in images.paths if not has_ground_truth(path)]
    if len(without) == len(images):
        return images
    if without:
        raise InvalidInputError(
            f"expected a mask beside every image or beside none, found none for {len(without)} of {len(images)} images, the first "
            f"{without[0]}; generate the data set again with `vitrail generate`, or score copies of the images outside of its folder"
        )
    return _combine(images, preprocessing, _read_generated)


def attach_masks(
    images: LabeledImages, preprocessing: Preprocessing, folder: str | Path, root: str | Path, only_masked: bool = False
) -> LabeledImages:
    """Return the same images with masks from files: the mask of ROOT/a/b.jpg is FOLDER/a/b.png, or FOLDER/a/b with any other suffix.

    `vitrail.datasets.mask_files.read_mask` reads the masks. An image whose mask is damaged, or differs from the upright image in size,
    becomes unreadable.

    Args:
        images: Image files; ground truth that they had is replaced.
        preprocessing: The model's preprocessing, the new transform.
        folder: Folder of the masks, with the same sub-folders as the images.
        root: Folder whose sub-folders `folder` mirrors.
        only_masked: Whether to skip images without a mask, with a warning, instead of raising an error.

    Raises:
        InvalidInputError: The images are not files, or are cropped to their boxes; the folder does not exist or holds no mask of them;
            or some images have no mask and `only_masked` is False.
    """
    files = images.images if isinstance(images, ImagesWithGroundTruth) else images
    if not isinstance(files, LabeledFiles):
        raise InvalidInputError(f"expected image files, whose paths identify their masks, got {type(files).__name__}")
    if files.crop_to_box:
        raise InvalidInputError(
            "expected whole images, as large as their masks, got images cropped to boxes; set crop_to_box to false"
        )
    masks = masks_by_image(files.paths, folder, root)
    without = [path for path in files.paths if path not in masks]
    if len(without) == len(files) > 0:
        raise InvalidInputError(
            f"expected the mask of {without[0]} in {folder}, in the same sub-folder as the image has below {root} and with the same name "
            "before the suffix, found no mask of any image"
        )
    if without and not only_masked:
        raise InvalidInputError(
            f"expected a mask in {folder} for every image, found none for {len(without)} of {len(files)} images, the first {without[0]}; "
            "add the masks, or remove these images from the folder"
        )
    if without:
        logger.warning("skipped %d of %d images, which have no mask in %s", len(without), len(files), folder)
        images = images.subset([index for index, path in enumerate(files.paths) if path in masks])
    return _combine(images, preprocessing, partial(_read_file, read_mask, {str(path): mask for path, mask in masks.items()}))


def attach_boxes(images: LabeledImages, preprocessing: Preprocessing) -> LabeledImages:
    """Return the same images with the filled box around the labeled object as mask.

    A box is clipped to its image; an image whose box has no pixel inside becomes unreadable. Images without a box are skipped, with a
    warning.

    Args:
        images: Images with boxes; ground truth that they had is replaced.
        preprocessing: The model's preprocessing, the new transform.

    Raises:
        InvalidInputError: No image has a box.
    """
    boxed = [index for index in range(len(images)) if images.box(index) is not None]
    if not boxed:
        raise InvalidInputError(
            f"expected boxes around the objects, found none for any of {len(images)} images; choose a data set with "
            "boxes (cub-200-2011, stanford-cars, or the split train of oxford-pets), and do not crop it to them"
        )
    if len(boxed) < len(images):
        logger.warning("skipped %d of %d images, which have no box", len(images) - len(boxed), len(images))
        images = images.subset(boxed)
    return _combine(images, preprocessing, _fill_own_box)


def fill_box(box: Box, height: int, width: int) -> Mask:
    """Return a box as a mask of an image of that size, with edges rounded to whole pixels as in a crop."""
    left, top, right, bottom = (max(round(edge), 0) for edge in box)
    mask = np.zeros((height, width), dtype=bool)
    mask[top:bottom, left:right] = True
    return mask


def _read_generated(images: LabeledImages, index: int, photo: Image.Image) -> Mask:
    return read_generated_mask(images.name(index))


def _read_file(
    read: Callable[[Path], Mask], masks: Mapping[str, Path], images: LabeledImages, index: int, photo: Image.Image
) -> Mask:
    return read(masks[images.name(index)])


def _fill_own_box(images: LabeledImages, index: int, photo: Image.Image) -> Mask:
    box = images.box(index)
    if box is None:
        raise ImageError(f"expected a box around the object, found none for {images.name(index)}")
    mask = fill_box(box, photo.height, photo.width)
    if not mask.any():
        raise ImageError(f"expected a box within {photo.width}x{photo.height} pixels, got {box} for {images.name(index)}")
    return mask


def _combine(images: LabeledImages, preprocessing: Preprocessing, reader: ReadMask) -> ImagesWithGroundTruth:
    plain = images.images if isinstance(images, ImagesWithGroundTruth) else images
    return ImagesWithGroundTruth(images.labels, images.class_names, preprocessing, plain, reader)
