"""Explain and draw many photos in batches."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from vitrail.adapters import Preprocessing
from vitrail.core.errors import InvalidInputError
from vitrail.core.files import real_path
from vitrail.core.progress import progress
from vitrail.datasets.dataset import Unreadable
from vitrail.datasets.photos import PhotoFile
from vitrail.explainers import Explainer, check_method_names
from vitrail.explanation import Explanation
from vitrail.runs.explain_images import BATCH_SIZE, explain_images
from vitrail.runs.manifest import describe_provenance
from vitrail.runs.results import expect_readable
from vitrail.viz.annotate import annotate
from vitrail.viz.panel import draw_panel
from vitrail.viz.sheet import MAX_ROWS, SheetRow, contact_sheet
from vitrail.viz.style import DEFAULT_STYLE, Style

SHEET = "contact_sheet"
EXPLANATIONS = "explanations"
MAX_OVERLAY_SIDE = 1792
"""Longer side of an overlay in pixels, at most."""


class OpenedPhoto(NamedTuple):
    """A photo with its normalized image and its row of the contact sheet."""

    photo: PhotoFile
    image: Tensor
    row: SheetRow


@dataclass(frozen=True)
class PhotoReader(Dataset[OpenedPhoto | Unreadable]):
    """A data set that opens and preprocesses photos one by one.

    Attributes:
        photos: Files; one that the user named must be readable.
        preprocessing: The preprocessing of the model.
    """

    photos: Sequence[PhotoFile]
    preprocessing: Preprocessing

    def __len__(self) -> int:
        return len(self.photos)

    def __getitem__(self, index: int) -> OpenedPhoto | Unreadable:
        photo = self.photos[index]
        image = photo.open(self.preprocessing)
        if isinstance(image, Unreadable):
            return image
        box = self.preprocessing.visible_box(image.height, image.width)
        # Only as large as the overlay: photos of full size would fill the memory.
        row = SheetRow(image, box, [], photo.path.name).reduced(MAX_OVERLAY_SIDE)
        # A photo of a data set refers to all others, and would take them along from each process that reads.
        alone = PhotoFile(photo.path, photo.result_name, photo.required)
        return OpenedPhoto(alone, self.preprocessing(image), row)


def explain_photos_into(
    explainers: Sequence[Explainer],
    photos: Sequence[PhotoFile],
    target: int | str | None,
    folder: Path,
    style: Style = DEFAULT_STYLE,
    batch_size: int = BATCH_SIZE,
) -> tuple[dict[str, list[Explanation]], list[Unreadable]]:
    """Explain photos; write one overlay per photo, a contact sheet of the first photos, and the explanations.

    Explanations are saved as one file per method, or, if the grids of relevance differ between photos, as one file per photo. Each photo
    is opened once for all methods, and one batch of photos is in memory at a time.

    Args:
        explainers: Methods tied to one model.
        photos: Files; one that the user named must be readable, others are skipped and returned.
        target: Class to explain, or None for the predicted one.
        folder: Output folder; with several methods, each writes into a subfolder of its name.
        style: How pictures look.
        batch_size: Photos per batch.

    Returns:
        By method, the explanations as they are saved: one of all photos, or one per photo; and the files that were skipped.

    Raises:
        ImageError: A named file cannot be read, or none of the files.
    """
    names = check_method_names(explainers)
    folders = method_folders(names, folder)
    for path in folders.values():
        path.mkdir(exist_ok=True)
    reader = PhotoReader(photos, explainers[0].model.preprocessing)
    explanations: dict[str, list[Explanation]] = {name: [] for name in names}
    unreadable, rows, labels = list[Unreadable](), list[SheetRow](), list[str]()
    batches = [range(start, min(start + batch_size, len(photos))) for start in range(0, len(photos), batch_size)]
    for batch in progress(batches, len(batches), "explaining"):
        entries = [reader[index] for index in batch]
        unreadable += [entry for entry in entries if isinstance(entry, Unreadable)]
        opened = [entry for entry in entries if isinstance(entry, OpenedPhoto)]
        images, sources = [entry.image for entry in opened], [str(entry.photo.path) for entry in opened]
        for name, explainer in zip(names, explainers, strict=True):
            explanations[name] += explain_images(explainer, images, sources, target)
        for i, (photo, _, row) in enumerate(opened, start=len(labels)):
            row = replace(row, explanations=[explanations[name][i] for name in names])
            for name, explanation in zip(names, row.explanations, strict=True):
                draw(row, explanation, style).save(folders[name] / f"{photo.result_name}.png")
            if len(rows) < MAX_ROWS:
                rows.append(row.reduced())
        labels += [entry.photo.result_name for entry in opened]
    expect_readable(len(labels), len(photos), unreadable)
    contact_sheet(rows, folder / f"{SHEET}.png", style)
    if all(len({explanation.grid for explanation in per_photo}) == 1 for per_photo in explanations.values()):
        explanations = {name: [Explanation.concatenate(per_photo)] for name, per_photo in explanations.items()}
        labels = [EXPLANATIONS]
    for name, made in zip(names, describe_provenance(explainers), strict=True):
        explanations[name] = [replace(explanation, provenance=made) for explanation in explanations[name]]
    for name, saved in explanations.items():
        for label, explanation in zip(labels, saved, strict=True):
            explanation.save(folders[name] / f"{label}.npz")
    return explanations, unreadable


def refuse_overwriting(photos: Sequence[PhotoFile], folders: Sequence[Path], sheet: Path) -> None:
    """Refuse output folders where a picture would replace a photo.

    Args:
        photos: The photos to explain.
        folders: The output folders, each with one picture per photo, named by its label.
        sheet: The picture of all photos.

    Raises:
        InvalidInputError: A picture would be written over one of the photos.
    """
    pictures = {real_path(folder / f"{photo.result_name}.png") for folder in folders for photo in photos} | {real_path(sheet)}
    for photo in photos:
        if real_path(photo.path) in pictures:
            raise InvalidInputError(
                f"expected an output folder apart from the photos, got one where a picture would replace {photo.path}; choose another --out"
            )


def method_folders(methods: Sequence[str], folder: Path) -> dict[str, Path]:
    """Return the output folder of each method: `folder` itself for one method, a subfolder of its name for several."""
    return {name: folder if len(methods) == 1 else folder / name for name in methods}


def draw(row: SheetRow, explanation: Explanation, style: Style) -> Image.Image:
    """Draw the explanation of one photo over it, with title and color bar."""
    return annotate(draw_panel(explanation, style, row.photo, row.box))
