"""Many photos explained and drawn, a batch at a time."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

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
LARGEST_SIDE = 1792
"""Pixels: as large as an overlay gets."""


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
        images, opened = list[Tensor](), list[tuple[PhotoFile, SheetRow]]()
        for photo in batch:
            image = photo.open(preprocessing)
            if isinstance(image, Unreadable):
                unreadable.append(image)
                continue
            images.append(preprocessing(image))
            box = preprocessing.visible_box(image.height, image.width)
            # Enough for the overlay: photos of full size would fill the memory.
            opened.append((photo, SheetRow(image, box, [], photo.path.name).reduced(LARGEST_SIDE)))
        if not opened:
            continue
        batch_images = torch.stack(images).to(explainer.model.device, explainer.model.dtype)
        part = explainer.explain(batch_images, target).with_sources([str(photo.path) for photo, _ in opened])
        parts.append(part)
        for (photo, row), one in zip(opened, part, strict=True):
            picture = overlay(row.photo, one.relevance[0], row.box, smoothing=smoothing, signed=one.signed)
            picture.save(folder / f"{photo.label}.png")
            if len(rows) < MAX_ROWS:
                rows.append(replace(row, explanations=[one]).reduced())
    if not parts:
        raise ImageError(f"not one of {len(photos)} images could be read; the first: {unreadable[0].reason}")
    contact_sheet(rows, folder / f"{SHEET}.png")
    explanation = Explanation.concatenate(parts)
    explanation.save(folder / "explanations.npz")
    return explanation, unreadable
