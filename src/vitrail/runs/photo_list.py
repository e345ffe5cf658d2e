"""Photos to look at, and what they truly show, where that is known."""

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from vitrail.adapters import Classifier
from vitrail.core.errors import InvalidInputError
from vitrail.core.files import real_path
from vitrail.datasets.folder import NO_LABEL, ImageFolder
from vitrail.datasets.photos import PhotoFile, list_photos, result_labels
from vitrail.runs.explain_photos import refuse_overwriting

logger = logging.getLogger(__name__)

SHEET = "queries"
"""Name of the files about all photos; no photo's own results may have it."""

SUFFIXES = (".png", ".safetensors")
"""Of the files that are named by a photo's label."""

MAX_LISTED = 20


class QueriedPhoto(NamedTuple):
    """A photo to look at, and the index of its true class where that is known."""

    photo: PhotoFile
    true_class: int | None


def named_photos(paths: Sequence[Path], classifier: Classifier, wanted: str | None = None) -> list[QueriedPhoto]:
    """List photos, and the images below folders, which have no classes of their own.

    Args:
        paths: Files, which must be readable, and folders, of which the unreadable files are skipped.
        classifier: The model.
        wanted: Name or index of the true class of all of them, if known.

    Raises:
        InvalidInputError: A folder without images, or no such class.
    """
    true_class = None if wanted is None else classifier.class_index(wanted)
    return [QueriedPhoto(photo, true_class) for photo in list_photos(paths, [SHEET], SUFFIXES)]


def folder_photos(
    data: Path, classifier: Classifier, wanted: str | None = None, limit: int | None = None
) -> tuple[list[QueriedPhoto], Classifier]:
    """List the images of a folder; where they lie in folders named like classes of the model, these are their true classes.

    Args:
        data: A folder, flat or with a folder per class.
        classifier: The model.
        wanted: Name or index of a class: only the images of its folder are taken. Those of a flat folder are all of that class.
        limit: At most so many images, evenly spread.

    Returns:
        The images, and the model: where it has no names and there are as many folders, with their names.

    Raises:
        InvalidInputError: No such folder, no images in it, no such class, or no folder of that class.
    """
    images = ImageFolder.scan(data, classifier.preprocessing)
    folders = images.class_names
    if not classifier.class_names and len(folders) == classifier.num_classes:
        # Published models come without names; their classes are sorted as the folders are that they were trained on.
        classifier = replace(classifier, class_names=tuple(folders))
    chosen = None if wanted is None else classifier.class_index(wanted)
    labels = result_labels([data / SHEET, *images.paths], data, SUFFIXES)  # What comes first keeps its name.
    if folders:
        found = classifier.class_indices(folders)
        classes = [each[0] if len(each) == 1 else NO_LABEL for each in found]
        several = [name for name, each in zip(folders, found, strict=True) if len(each) > 1]
        if several:
            logger.warning(
                "several classes of the model are called %s, so that the true class is not known there",
                ", ".join(map(repr, several[:MAX_LISTED])),
            )
        images = images.with_labels([classes[label] if label != NO_LABEL else NO_LABEL for label in images.labels])
        if all(label == NO_LABEL for label in images.labels):
            logger.warning("no folder in %s is named like a class of the model, so that no true class is known", data)
    elif chosen is not None:
        images = images.with_labels([chosen] * len(images))
    if chosen is not None:
        images = images.subset([place for place, label in enumerate(images.labels) if label == chosen])
        if not len(images):
            more = f", ... ({len(folders)} in all)" if len(folders) > MAX_LISTED else ""
            raise InvalidInputError(
                f"expected a folder {classifier.class_name(chosen)!r} in {data}, found {', '.join(folders[:MAX_LISTED])}{more}"
            )
    images = images.spread(limit)
    asked = [
        QueriedPhoto(PhotoFile(path, labels[path], required=False), None if label == NO_LABEL else label)
        for path, label in zip(images.paths, images.labels, strict=True)
    ]
    return asked, classifier


def refuse_replacing(asked: Sequence[QueriedPhoto], out: Path, data: Path | None = None) -> None:
    """Refuse a folder where a picture would take the place of a photo, or be taken for one the next time.

    Args:
        asked: The photos.
        out: Where the results will lie.
        data: The folder that the photos come from, if they come from one.

    Raises:
        InvalidInputError: A photo lies where a picture is to be written, or results would lie among the photos.
    """
    if data is not None and real_path(out).is_relative_to(real_path(data)):
        raise InvalidInputError(f"expected the results outside of the images, got {out} inside {data}; choose another --out")
    refuse_overwriting([photo for photo, _ in asked], [out], out / f"{SHEET}.png")
