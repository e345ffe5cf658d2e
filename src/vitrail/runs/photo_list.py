"""List the photos for `vitrail queries`, with their true classes if known."""

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from vitrail.adapters import Classifier
from vitrail.core.errors import InvalidInputError
from vitrail.datasets.dataset import NO_LABEL, LabeledImages
from vitrail.datasets.keys import image_key, name_results
from vitrail.datasets.photos import PhotoFile, list_photos
from vitrail.datasets.source import DataSource
from vitrail.runs.claim import expect_outside
from vitrail.runs.dataset_photos import DatasetPhotos
from vitrail.runs.explain_photos import refuse_overwriting

logger = logging.getLogger(__name__)

SHEET = "queries"
"""Name of the files about all photos; no photo gets it as its label."""

SUFFIXES = (".png", ".safetensors")
"""Suffixes of the files named by a photo's label."""

MAX_LISTED = 20


class QueriedPhoto(NamedTuple):
    """A photo with the index of its true class, if known."""

    photo: PhotoFile
    true_class: int | None


def list_named_photos(paths: Sequence[Path], classifier: Classifier, wanted: str | None = None) -> list[QueriedPhoto]:
    """List named photos, and the images below named folders.

    Args:
        paths: Files, which must be readable, and folders, whose unreadable files are skipped.
        wanted: Name or index of the true class of all photos, if known.

    Raises:
        InvalidInputError: A folder without images, or no such class.
    """
    true_class = None if wanted is None else classifier.class_index(wanted)
    return [
        QueriedPhoto(photo, true_class)
        for photo in list_photos(paths, [SHEET], SUFFIXES, classifier.preprocessing.num_channels)
    ]


def list_folder_photos(
    data: Path | DataSource, classifier: Classifier, wanted: str | None = None, limit: int | None = None
) -> tuple[list[QueriedPhoto], Classifier]:
    """List the images of a folder or another source; classes named like those of the model give the true classes.

    Args:
        data: A folder, flat or with one folder per class; another path, as `vitrail.datasets.open.open_dataset` takes it; or a named
            data set.
        wanted: Name or index of a class: take the images of its folder only. In a flat folder, all images are of that class.
        limit: Maximum number of images, evenly spread.

    Returns:
        The images, and the model. A model without class names takes the names of the folders if there are as many as classes.

    Raises:
        InvalidInputError: No such folder, no images in it, no such class, or no folder of that class.
    """
    source = data if isinstance(data, DataSource) else DataSource(data)
    images = source.read(classifier.preprocessing)
    folders = images.class_names
    if not classifier.class_names and len(folders) == classifier.num_classes:
        # Published models come without names; their classes are sorted like the folders they were trained on.
        classifier = replace(classifier, class_names=tuple(folders))
    wanted_class = None if wanted is None else classifier.class_index(wanted)
    keys = [image_key(images.name(index), source.folder) for index in range(len(images))]
    names = name_results([SHEET, *keys], SUFFIXES)[1:]  # The first entry reserves the name of the sheet.
    by_key = dict(zip(keys, names, strict=True))
    if folders:
        images = _label_by_class(images, classifier, source.root)
    elif wanted_class is not None:
        images = images.with_labels([wanted_class] * len(images))
    if wanted_class is not None:
        images = images.subset([index for index, label in enumerate(images.labels) if label == wanted_class])
        if not len(images):
            more = f", ... ({len(folders)} in all)" if len(folders) > MAX_LISTED else ""
            raise InvalidInputError(
                f"expected a folder {classifier.class_name(wanted_class)!r} in {source.root}, found {', '.join(folders[:MAX_LISTED])}{more}"
            )
    images = images.subsample(limit)
    keys = [image_key(images.name(index), source.folder) for index in range(len(images))]
    photos = DatasetPhotos(images, source.folder, [by_key[key] for key in keys])
    classes = [None if label == NO_LABEL else label for label in images.labels]
    return list(map(QueriedPhoto, photos, classes)), classifier


def _label_by_class(images: LabeledImages, classifier: Classifier, data: Path) -> LabeledImages:
    """Replace folder labels by class indices of the model; images of unknown or ambiguous folders get no label."""
    folders = images.class_names
    matches = classifier.class_indices(folders)
    ambiguous = [name for name, indices in zip(folders, matches, strict=True) if len(indices) > 1]
    if ambiguous:
        logger.warning(
            "several classes of the model are called %s; images in these folders get no true class",
            ", ".join(map(repr, ambiguous[:MAX_LISTED])),
        )
    classes = [indices[0] if len(indices) == 1 else NO_LABEL for indices in matches]
    images = images.with_labels([classes[label] if label != NO_LABEL else NO_LABEL for label in images.labels])
    if all(label == NO_LABEL for label in images.labels):
        logger.warning("no folder in %s is named like a class of the model; no true class is known", data)
    return images


def refuse_replacing(photos: Sequence[QueriedPhoto], out: Path, data: Path | None = None) -> None:
    """Refuse an output folder where a picture would replace a photo, or be taken for one by a later run.

    Args:
        data: The folder that the photos come from, if they come from one.

    Raises:
        InvalidInputError: A picture would be written over a photo, or results would lie among the photos.
    """
    if data is not None:
        expect_outside(out, data)
    refuse_overwriting([photo for photo, _ in photos], [out], out / f"{SHEET}.png")
