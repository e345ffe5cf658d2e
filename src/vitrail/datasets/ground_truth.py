"""Images whose answer is known: photo and answer, both as the network sees them.

The answer of an image, the region that decides its class, comes from a generated task, from a folder of masks, or from the box around
the labeled object.
"""

import logging
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from PIL import Image

from vitrail.adapters import Preprocessing
from vitrail.core.errors import ImageError, InvalidInputError
from vitrail.datasets.dataset import Box, LabeledFiles, LabeledImages, Sample, Transform, Unreadable
from vitrail.datasets.mask_files import masks_by_image, read_mask
from vitrail.datasets.synthetic.base import Mask
from vitrail.datasets.synthetic.generation import has_ground_truth, read_generated_mask

logger = logging.getLogger(__name__)


class GroundTruthImages(LabeledImages):
    """Labeled images that know the answer of each.

    A sample has its answer in the pixels that the network sees, if the transform is a `Preprocessing`; of any other transform it is
    not known where it puts a photo's pixels, and samples come without.
    """

    @abstractmethod
    def read_ground_truth(self, index: int, photo: Image.Image) -> Mask:
        """Return the answer of an image that is open already, in its pixels.

        Raises:
            ImageError: It cannot be read, or is not as large as the image.
        """

    def answer(self, index: int) -> Mask:
        return self.read_ground_truth(index, self.open(index))

    def __getitem__(self, index: int) -> Sample | Unreadable:
        name = self.name(index)
        try:
            photo = self.open(index)
            answer, image = self.read_ground_truth(index, photo), self.transform(photo)
        except ImageError as error:
            return Unreadable(name, str(error))
        seen = self.transform.region(answer) if isinstance(self.transform, Preprocessing) else None
        return Sample(image, self.labels[index], name, seen)


class GroundTruthSource(ABC):
    """Where the ground_truth of a set come from."""

    @abstractmethod
    def read(self, images: LabeledImages, index: int, photo: Image.Image) -> Mask:
        """Return the answer of the image at `index`, which is open already.

        Raises:
            ImageError: It cannot be read.
        """


@dataclass(frozen=True)
class GeneratedGroundTruth(GroundTruthSource):
    """What `vitrail.datasets.synthetic.generation.write_synthetic` wrote beside its images."""

    def read(self, images: LabeledImages, index: int, photo: Image.Image) -> Mask:
        return read_generated_mask(images.name(index))


@dataclass(frozen=True)
class MaskGroundTruth(GroundTruthSource):
    """Files of masks.

    Args:
        masks: The mask of every image, by the image's name.
    """

    masks: Mapping[str, Path] = field(repr=False)

    def read(self, images: LabeledImages, index: int, photo: Image.Image) -> Mask:
        return read_mask(self.masks[images.name(index)])


@dataclass(frozen=True)
class BoxGroundTruth(GroundTruthSource):
    """The boxes that a set knows."""

    def read(self, images: LabeledImages, index: int, photo: Image.Image) -> Mask:
        box = images.box(index)
        if box is None:
            raise ImageError(f"expected a box around the object, found none for {images.name(index)}")
        mask = filled(box, photo.height, photo.width)
        if not mask.any():
            raise ImageError(f"expected a box within {photo.width}x{photo.height} pixels, got {box} for {images.name(index)}")
        return mask


@dataclass(frozen=True, eq=False)
class ImagesWithGroundTruth(GroundTruthImages):
    """Any images, and where their ground_truth come from.

    Args:
        labels: Ground truth per image, as of any set.
        class_names: One name per class.
        transform: From an opened image to a tensor.
        images: The images; their own labels and transform are not asked.
        source: Of the ground_truth.
    """

    labels: Sequence[int]
    class_names: Sequence[str]
    transform: Transform = field(repr=False)
    images: LabeledImages
    source: GroundTruthSource

    def open(self, index: int) -> Image.Image:
        return self.images.open(index)

    def name(self, index: int) -> str:
        return self.images.name(index)

    def box(self, index: int) -> Box | None:
        return self.images.box(index)

    def subset(self, indices: Sequence[int]) -> "ImagesWithGroundTruth":
        return replace(self, images=self.images.subset(indices), labels=[self.labels[i] for i in indices])

    def read_ground_truth(self, index: int, photo: Image.Image) -> Mask:
        answer = self.source.read(self.images, index, photo)
        if answer.shape != (photo.height, photo.width):
            raise ImageError(
                f"expected an answer as large as its image, {photo.width}x{photo.height} pixels, got "
                f"{answer.shape[1]}x{answer.shape[0]} for {self.name(index)}"
            )
        return answer


def attach_ground_truth(images: LabeledImages, preprocessing: Preprocessing) -> LabeledImages:
    """The same images; where a generated task's ground_truth lie beside them, read with these.

    Args:
        images: Any; ground_truth can lie beside files only. A set that has ground_truth keeps its own.
        preprocessing: Of the model, for images that have ground_truth.

    Raises:
        InvalidInputError: Some have an answer and some have none.
    """
    if isinstance(images, GroundTruthImages):
        return images.with_transform(preprocessing)
    if not isinstance(images, LabeledFiles):
        return images
    without = [path for path in images.paths if not has_ground_truth(path)]
    if len(without) == len(images):
        return images
    if without:
        raise InvalidInputError(
            f"expected an answer beside every image or beside none, found none for {len(without)} of {len(images)} images, the first "
            f"{without[0]}; write the task anew by `vitrail generate`, or score copies of the images, away from the folder masks"
        )
    return _paired(images, preprocessing, GeneratedGroundTruth())


def attach_masks(
    images: LabeledImages, preprocessing: Preprocessing, folder: str | Path, root: str | Path, only_masked: bool = False
) -> LabeledImages:
    """The same images, each read with its mask as the answer: of ROOT/a/b.jpg it is FOLDER/a/b.png, or of any other suffix.

    `vitrail.datasets.mask_files.read_mask` says what in a mask is meant. A mask is as large as its image, upright; an image whose mask is
    not, or cannot be read, is unreadable.

    Args:
        images: Files; ground_truth that they had are dropped.
        preprocessing: Of the model.
        folder: The masks, in the same folders as the images.
        root: What the folders are counted from.
        only_masked: Leave images without a mask out, instead of refusing them.

    Raises:
        InvalidInputError: Images that are no files, or cut down to their boxes; no such folder, or no masks in it; or images without
            a mask, unless these are to be left out.
    """
    files = images.images if isinstance(images, ImagesWithGroundTruth) else images
    if not isinstance(files, LabeledFiles):
        raise InvalidInputError(f"expected image files, to which masks can belong by their paths, got {type(files).__name__}")
    if files.crop_to_box:
        raise InvalidInputError(
            "expected whole images, as large as their masks, got some cut down to their boxes; set crop_to_box to false"
        )
    masks = masks_by_image(files.paths, folder, root)
    without = [path for path in files.paths if path not in masks]
    if len(without) == len(files) > 0:
        raise InvalidInputError(
            f"expected the mask of {without[0]} in {folder}, in the same folder as the image is below {root} and under the same name with "
            "any suffix of images, found none, nor one of any other image"
        )
    if without and not only_masked:
        raise InvalidInputError(
            f"expected a mask in {folder} for every image, found none for {len(without)} of {len(files)} images, the first {without[0]}; "
            "add them, or take these images out of the folder"
        )
    if without:
        logger.warning("left out, since there are no masks of them in %s: %d of %d images", folder, len(without), len(files))
        images = images.subset([index for index, path in enumerate(files.paths) if path in masks])
    return _paired(images, preprocessing, MaskGroundTruth({str(path): mask for path, mask in masks.items()}))


def attach_boxes(images: LabeledImages, preprocessing: Preprocessing) -> LabeledImages:
    """The same images, each read with the filled box around its labeled object as the answer.

    A box that reaches out of its image is cut to it; one with no pixel inside makes its image unreadable.

    Args:
        images: Any that know their boxes; ground_truth that they had are dropped.
        preprocessing: Of the model.

    Raises:
        InvalidInputError: Images without a box.
    """
    without = [index for index in range(len(images)) if images.box(index) is None]
    if without:
        raise InvalidInputError(
            f"expected a box around the object of every image, found none for {len(without)} of {len(images)} images, the first "
            f"{images.name(without[0])}; take a data set that knows them (cub-200-2011, stanford-cars), not cut down to its boxes"
        )
    return _paired(images, preprocessing, BoxGroundTruth())


def filled(box: Box, height: int, width: int) -> Mask:
    """A rectangle as a mask of an image of that size, its edges rounded to whole pixels as for a crop."""
    left, top, right, bottom = (max(round(edge), 0) for edge in box)
    mask = np.zeros((height, width), dtype=bool)
    mask[top:bottom, left:right] = True
    return mask


def _paired(images: LabeledImages, preprocessing: Preprocessing, source: GroundTruthSource) -> ImagesWithGroundTruth:
    plain = images.images if isinstance(images, ImagesWithGroundTruth) else images
    return ImagesWithGroundTruth(images.labels, images.class_names, preprocessing, plain, source)
