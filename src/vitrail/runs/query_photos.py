"""Show where an INTR's class queries look in photos: choose the classes, draw the sheets, save the attention maps."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor

from vitrail.core.errors import InvalidInputError
from vitrail.core.files import output_folder, write_text
from vitrail.core.json_io import json_text
from vitrail.core.progress import progress
from vitrail.core.types import Logits
from vitrail.datasets.dataset import Unreadable
from vitrail.datasets.photos import PhotoFile
from vitrail.explainers.intr import INTRQueries
from vitrail.models.checkpoints import write_tensors
from vitrail.runs.explain_photos import OpenedPhoto, PhotoReader
from vitrail.runs.photo_list import SHEET, QueriedPhoto
from vitrail.runs.results import expect_readable
from vitrail.viz.queries import MAX_PHOTOS, ClassView, PhotoView, query_overview, query_sheet

FORMAT = "vitrail queries 1"
MAPS = "maps"
"""Name of the tensor in a photo's file."""

QueryAttention = Float[Tensor, "k h rows cols"]
"""Cross-attention of the queries of k classes, per head; each map sums to 1."""


@dataclass(frozen=True)
class QueriedClass:
    """A class whose query is shown, with the model's prediction for it."""

    name: str
    index: int
    logit: float
    probability: float


@dataclass(frozen=True)
class PhotoQueries:
    """The classes shown for a photo. Attention maps stay on disk, since those of many photos would fill the memory.

    Attributes:
        photo: The file.
        true_class: Index of the true class, if known.
        predicted: Index of the most probable class.
        classes: The classes, in the order of `choose_classes`.
    """

    photo: PhotoFile
    true_class: int | None
    predicted: int
    classes: Sequence[QueriedClass]

    @property
    def maps_file(self) -> str:
        """Name of the file of attention maps, relative to the output folder."""
        return f"{self.photo.result_name}.safetensors"

    def describe_class(self, index: int) -> str:
        """Return "true class", "predicted", or an empty text for other classes."""
        return "true class" if index == self.true_class else "predicted" if index == self.predicted else ""


def query_photos(
    explainer: INTRQueries, photos: Sequence[QueriedPhoto], folder: Path, top: int = 5
) -> tuple[list[PhotoQueries], list[Unreadable]]:
    """Draw the query attention of photos, one photo at a time.

    Each photo gives a sheet and a file of attention maps, written as soon as they are computed. A sheet of all photos and queries.json
    follow at the end; if the run is interrupted, queries.json is missing.

    Args:
        explainer: The model, and the decoder layer whose attention is shown.
        photos: Photos with distinct labels.
        folder: Output folder.
        top: Number of classes; all classes if the model has fewer.

    Returns:
        The classes shown for each readable photo, and the files that were skipped.

    Raises:
        InvalidInputError: Less than one class, or logits that are not finite.
        ImageError: A named file cannot be read, or none of the files.
        OutputError: A result cannot be written.
    """
    if top < 1:
        raise InvalidInputError(f"expected at least one class to show, got top={top}")
    depth = explainer.intr.config.decoder_depth
    caption = f"Cross-attention of decoder layer {explainer.layer % depth + 1} of {depth}."
    results, unreadable, views = list[PhotoQueries](), list[Unreadable](), list[PhotoView]()
    table = folder / f"{SHEET}.json"
    reader = PhotoReader([photo for photo, _ in photos], explainer.model.preprocessing)
    for index in progress(range(len(photos)), len(photos), "explaining"):
        opened = reader[index]
        if isinstance(opened, Unreadable):
            unreadable.append(opened)
            continue
        result, maps = _query(explainer, opened, photos[index].true_class, top)
        view = _make_view(opened, result, maps)
        sheet = folder / f"{opened.photo.result_name}.png"
        output_folder(sheet.parent)
        if not results:
            table.unlink(missing_ok=True)  # The table of an earlier run would describe other maps.
        query_sheet(view, sheet, caption)
        write_tensors(folder / result.maps_file, {MAPS: maps})
        results.append(result)
        # Keep only those that are drawn: more would fill the memory.
        views += [view] if len(views) < MAX_PHOTOS else []
    expect_readable(len(results), len(photos), unreadable)
    if len(results) > 1:
        cut = f" The first {len(views)} of {len(results)} photos." if len(views) < len(results) else ""
        query_overview(views, folder / f"{SHEET}.png", caption + cut)
    _write_table(table, explainer, results, unreadable)
    return results, unreadable


def choose_classes(logits: Float[Tensor, " c"], true_class: int | None, top: int) -> list[int]:
    """Choose the classes whose queries are compared: first the true class (or the predicted one), then others by logit.

    A true class that is not among the `top` most probable ones takes the place of the last.
    """
    by_logit: list[int] = logits.argsort(descending=True, stable=True).tolist()
    first = by_logit[0] if true_class is None else true_class
    return [first, *(index for index in by_logit if index != first)][:top]


def _query(
    explainer: INTRQueries, opened: OpenedPhoto, true_class: int | None, top: int
) -> tuple[PhotoQueries, QueryAttention]:
    model, indices = explainer.model, list[int]()

    def choose(logits: Logits) -> Int[Tensor, "b k"]:
        if not torch.isfinite(logits).all():
            raise InvalidInputError(f"{model.name} gave logits that are not finite; check its weights and the images")
        indices.extend(choose_classes(logits[0], true_class, top))
        return torch.tensor([indices])

    logits, maps = explainer.maps(opened.image[None].to(model.device, model.dtype), choose)
    probabilities = model.probabilities(logits[0])
    classes = [
        QueriedClass(model.class_name(index), index, float(logits[0, index]), float(probabilities[index])) for index in indices
    ]
    predicted = choose_classes(logits[0], None, 1)[0]
    return PhotoQueries(opened.photo, true_class, predicted, classes), maps[0].cpu().contiguous()


def _make_view(opened: OpenedPhoto, result: PhotoQueries, maps: QueryAttention) -> PhotoView:
    classes = [
        ClassView(queried.name, queried.probability, attention, result.describe_class(queried.index))
        for queried, attention in zip(result.classes, maps, strict=True)
    ]
    row = opened.row.reduced()
    return PhotoView(row.photo, row.box, classes, row.title)


def _write_table(path: Path, explainer: INTRQueries, results: Sequence[PhotoQueries], unreadable: Sequence[Unreadable]) -> None:
    config, model = explainer.intr.config, explainer.model

    def describe(index: int) -> dict[str, str | int]:
        return {"name": model.class_name(index), "index": index}

    photos = [
        {
            "source": str(result.photo.path),
            "maps": result.maps_file,
            "true_class": None if result.true_class is None else describe(result.true_class),
            "predicted": describe(result.predicted),
            "classes": [vars(queried) for queried in result.classes],
        }
        for result in results
    ]
    content = {
        "format": FORMAT,
        "model": model.name,
        "layer": explainer.layer % config.decoder_depth,
        "num_layers": config.decoder_depth,
        "num_heads": config.num_heads,
        "photos": photos,
        "unreadable": [file._asdict() for file in unreadable],
    }
    write_text(path, json_text(content, indent=2))
