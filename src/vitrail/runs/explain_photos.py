"""Many photos explained and drawn, a batch at a time."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from vitrail.adapters import Preprocessing
from vitrail.core.errors import ImageError, InvalidInputError
from vitrail.core.files import real_path
from vitrail.core.progress import progress
from vitrail.datasets.folder import Unreadable
from vitrail.datasets.photos import PhotoFile
from vitrail.explainers import Explainer, distinct_names
from vitrail.explanation import Explanation
from vitrail.runs.explain_images import BATCH_SIZE, explain_images
from vitrail.viz.overlay import Smoothing, overlay
from vitrail.viz.sheet import MAX_ROWS, SheetRow, contact_sheet

SHEET = "contact_sheet"
EXPLANATIONS = "explanations"
LARGEST_SIDE = 1792
"""Pixels: as large as an overlay gets."""


class Opened(NamedTuple):
    """A photo as the network sees it, and as it is drawn."""

    photo: PhotoFile
    image: Tensor
    row: SheetRow


@dataclass(frozen=True)
class PhotoReader(Dataset[Opened | Unreadable]):
    """Photos, opened and preprocessed one by one, here or in the processes of a loader.

    Attributes:
        photos: Files; one that the user named must be readable.
        preprocessing: Of the model.
    """

    photos: Sequence[PhotoFile]
    preprocessing: Preprocessing

    def __len__(self) -> int:
        return len(self.photos)

    def __getitem__(self, index: int) -> Opened | Unreadable:
        photo = self.photos[index]
        image = photo.open(self.preprocessing)
        if isinstance(image, Unreadable):
            return image
        box = self.preprocessing.visible_box(image.height, image.width)
        # Enough for the overlay: photos of full size would fill the memory.
        row = SheetRow(image, box, [], photo.path.name).reduced(LARGEST_SIDE)
        return Opened(photo, self.preprocessing(image), row)


def explain_photos_into(
    explainers: Sequence[Explainer],
    photos: Sequence[PhotoFile],
    target: int | str | None,
    folder: Path,
    smoothing: Smoothing = "nearest",
    batch_size: int = BATCH_SIZE,
) -> tuple[dict[str, list[Explanation]], list[Unreadable]]:
    """Explain photos and write an overlay each, a contact sheet of the first ones, and the explanations.

    These are one file a method, or, where photos of differing shapes come to maps of differing grids, one a photo.

    Every photo is opened once, for all methods. At any time only one batch of photos is in memory.

    Args:
        explainers: Methods tied to one model.
        photos: Files; one that the user named must be readable, others are skipped and returned.
        target: Class to explain, or None for the predicted one.
        folder: Where to write; of several methods each gets a folder of its name there.
        smoothing: Of the overlays.
        batch_size: Photos that are explained at once.

    Returns:
        The explanations by method, as they are saved: one of all photos, or one a photo; and the files that were skipped.

    Raises:
        ImageError: A named file cannot be read, or nothing could be.
    """
    names = distinct_names(explainers)
    folders = method_folders(names, folder)
    for path in folders.values():
        path.mkdir(exist_ok=True)
    reader = PhotoReader(photos, explainers[0].model.preprocessing)
    found: dict[str, list[Explanation]] = {name: [] for name in names}
    unreadable, rows, labels = list[Unreadable](), list[SheetRow](), list[str]()
    batches = [range(start, min(start + batch_size, len(photos))) for start in range(0, len(photos), batch_size)]
    for batch in progress(batches, len(batches), "explaining"):
        read = [reader[index] for index in batch]
        unreadable += [entry for entry in read if isinstance(entry, Unreadable)]
        opened = [entry for entry in read if isinstance(entry, Opened)]
        images, sources = [entry.image for entry in opened], [str(entry.photo.path) for entry in opened]
        for name, explainer in zip(names, explainers, strict=True):
            found[name] += explain_images(explainer, images, sources, target)
        for i, (photo, _, row) in enumerate(opened, start=len(labels)):
            row = replace(row, explanations=[found[name][i] for name in names])
            for name, one in zip(names, row.explanations, strict=True):
                draw(row, one, smoothing).save(folders[name] / f"{photo.label}.png")
            if len(rows) < MAX_ROWS:
                rows.append(row.reduced())
        labels += [entry.photo.label for entry in opened]
    if not rows:
        raise ImageError(f"not one of {len(photos)} images could be read; the first: {unreadable[0].reason}")
    contact_sheet(rows, folder / f"{SHEET}.png")
    if all(len({one.grid for one in each}) == 1 for each in found.values()):
        found, labels = {name: [Explanation.concatenate(each)] for name, each in found.items()}, [EXPLANATIONS]
    for name, each in found.items():
        for label, explanation in zip(labels, each, strict=True):
            explanation.save(folders[name] / f"{label}.npz")
    return found, unreadable


def refuse_overwriting(photos: Sequence[PhotoFile], folders: Sequence[Path], sheet: Path) -> None:
    """Refuse folders where a picture would take the place of a photo.

    Args:
        photos: What is going to be explained.
        folders: In each of them lies a picture per photo, by its label.
        sheet: The picture of all of them.

    Raises:
        InvalidInputError: A photo lies where its or another's picture, or the one of all, is to be written.
    """
    pictures = {real_path(folder / f"{photo.label}.png") for folder in folders for photo in photos} | {real_path(sheet)}
    for photo in photos:
        if real_path(photo.path) in pictures:
            raise InvalidInputError(
                f"expected results beside no photo of theirs, but a picture would replace {photo.path}; choose another --out"
            )


def method_folders(methods: Sequence[str], folder: Path) -> dict[str, Path]:
    """Where the results of each method go: into `folder` itself, or, of several methods, into one of their own there."""
    return {name: folder if len(methods) == 1 else folder / name for name in methods}


def draw(row: SheetRow, explanation: Explanation, smoothing: Smoothing) -> Image.Image:
    """The overlay of one photo's explanation."""
    return overlay(row.photo, explanation.relevance[0], row.box, smoothing=smoothing, signed=explanation.signed)
