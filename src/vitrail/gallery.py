"""Many photos explained and drawn, a batch at a time."""

from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from vitrail.api import BATCH_SIZE
from vitrail.data.folders import Unreadable
from vitrail.data.photos import PhotoFile
from vitrail.errors import ImageError
from vitrail.explainers import Explainer
from vitrail.explanation import Explanation
from vitrail.progress import progress
from vitrail.viz.overlay import Smoothing, overlay
from vitrail.viz.sheet import MAX_ROWS, SheetRow, contact_sheet

SHEET = "contact_sheet"


def explain_gallery(
    explainer: Explainer, photos: Sequence[PhotoFile], target: int | str | None, folder: Path, smoothing: Smoothing = "nearest"
) -> tuple[Explanation, list[Unreadable]]:
    """Explain photos and write an overlay each, a contact sheet of the first ones, and the explanation.

    At any time only one batch of photos is in memory.

    Args:
        explainer: A method tied to a model.
        photos: Files; one that the user named must be readable, others are skipped and returned.
        target: Class to explain, or None for the predicted one.
        folder: Where to write.
        smoothing: Of the overlays.

    Raises:
        ImageError: A named file cannot be read, or nothing could be.
    """
    parts, unreadable, rows = list[Explanation](), list[Unreadable](), list[SheetRow]()
    batches = [photos[start : start + BATCH_SIZE] for start in range(0, len(photos), BATCH_SIZE)]
    preprocessing = explainer.model.preprocessing
    for batch in progress(batches, len(batches), "explaining"):
        opened = [(photo, photo.open(preprocessing)) for photo in batch]
        unreadable += [image for _, image in opened if isinstance(image, Unreadable)]
        read = [(photo, image) for photo, image in opened if isinstance(image, Image.Image)]
        if not read:
            continue
        part = explainer.explain(explainer.model.prepare([image for _, image in read]), target)
        parts.append(part.with_sources([str(photo.path) for photo, _ in read]))
        for (photo, image), one in zip(read, parts[-1], strict=True):
            box = preprocessing.visible_box(image.height, image.width)
            picture = overlay(image, one.relevance[0], box, smoothing=smoothing, signed=one.signed)
            picture.save(folder / f"{photo.label}.png")
            if len(rows) < MAX_ROWS:
                rows.append(SheetRow(image, box, [one], photo.path.name).reduced())
    if not parts:
        raise ImageError(f"not one of {len(photos)} images could be read; the first: {unreadable[0].reason}")
    contact_sheet(rows, folder / f"{SHEET}.png")
    explanation = Explanation.concatenate(parts)
    explanation.save(folder / "explanations.npz")
    return explanation, unreadable
