"""What an INTR's queries look at in photos: which classes are asked, and what is written of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor

from vitrail.core.errors import ImageError, InvalidInputError
from vitrail.core.files import output_folder, write_text
from vitrail.core.json_io import json_text
from vitrail.core.progress import progress
from vitrail.core.types import Logits
from vitrail.datasets.folder import Unreadable
from vitrail.datasets.photos import PhotoFile
from vitrail.explainers.intr import INTRQueries
from vitrail.models.checkpoints import write_tensors
from vitrail.runs.explain_photos import Opened, PhotoReader
from vitrail.runs.photo_list import SHEET, QueriedPhoto
from vitrail.viz.queries import MAX_PHOTOS, ClassView, PhotoView, query_overview, query_sheet

FORMAT = "vitrail queries 1"
MAPS = "maps"
"""Name of the one tensor in a photo's file."""

QueryAttention = Float[Tensor, "k h rows cols"]
"""Cross-attention of the queries of some classes, per head; each map sums to 1."""


@dataclass(frozen=True)
class QueriedClass:
    """A class that was looked for in a photo."""

    name: str
    index: int
    logit: float
    probability: float


@dataclass(frozen=True)
class PhotoQueries:
    """For which classes a photo was looked at; their maps are on disk, since those of many photos would fill the memory.

    Attributes:
        photo: The file.
        true_class: Index of the class that it shows, where that is known.
        predicted: Index of the most probable class.
        classes: As `choose_classes` orders them.
    """

    photo: PhotoFile
    true_class: int | None
    predicted: int
    classes: Sequence[QueriedClass]

    @property
    def maps_file(self) -> str:
        """The file of its maps, below the folder of the results."""
        return f"{self.photo.label}.safetensors"

    def note(self, index: int) -> str:
        """What sets a class apart; nothing for most."""
        return "true class" if index == self.true_class else "predicted" if index == self.predicted else ""


def query_photos(
    explainer: INTRQueries, asked: Sequence[QueriedPhoto], folder: Path, top: int = 5
) -> tuple[list[PhotoQueries], list[Unreadable]]:
    """Let classes look at photos, one photo at a time.

    Written are, as soon as they are known, a sheet and the maps of every photo, and at the end a sheet of several photos together and
    the numbers of all. So what is there when the work is interrupted stays; without a table it is not complete.

    Args:
        explainer: The model, and the layer whose attention is shown.
        asked: Photos, each with a label of its own.
        folder: Where to write.
        top: How many classes; all of the model's where it has fewer.

    Returns:
        What was found in the photos that could be read, and the files that were skipped.

    Raises:
        InvalidInputError: Less than one class, or a model whose logits are not finite.
        ImageError: A named file cannot be read, or nothing could be.
        OutputError: A result cannot be written.
    """
    if top < 1:
        raise InvalidInputError(f"expected at least one class to show, got top={top}")
    depth = explainer.intr.config.decoder_depth
    caption = f"Cross-attention of decoder layer {explainer.layer % depth + 1} of {depth}."
    found, unreadable, views = list[PhotoQueries](), list[Unreadable](), list[PhotoView]()
    table = folder / f"{SHEET}.json"
    reader = PhotoReader([photo for photo, _ in asked], explainer.model.preprocessing)
    for index in progress(range(len(asked)), len(asked), "explaining"):
        opened = reader[index]
        if isinstance(opened, Unreadable):
            unreadable.append(opened)
            continue
        one, maps = _query(explainer, opened, asked[index].true_class, top)
        view = _view(opened, one, maps)
        sheet = folder / f"{opened.photo.label}.png"
        output_folder(sheet.parent)
        if not found:
            table.unlink(missing_ok=True)  # An earlier one would tell of other maps from now on.
        query_sheet(view, sheet, caption)
        write_tensors(folder / one.maps_file, {MAPS: maps})
        found.append(one)
        # More than are drawn would fill the memory.
        views += [view] if len(views) < MAX_PHOTOS else []
    if not found:
        raise ImageError(f"not one of {len(asked)} images could be read; the first: {unreadable[0].reason}")
    if len(found) > 1:
        cut = f" The first {len(views)} of {len(found)} photos." if len(views) < len(found) else ""
        query_overview(views, folder / f"{SHEET}.png", caption + cut)
    _write_table(table, explainer, found, unreadable)
    return found, unreadable


def choose_classes(logits: Float[Tensor, " c"], true_class: int | None, top: int) -> list[int]:
    """The classes whose queries are compared: the true one, or the most probable one where it is not known, then others by logit.

    These are the `top` most probable ones; a true class that is not among them takes the place of the last.
    """
    by_logit: list[int] = logits.argsort(descending=True, stable=True).tolist()
    first = by_logit[0] if true_class is None else true_class
    return [first, *(index for index in by_logit if index != first)][:top]


def _query(explainer: INTRQueries, opened: Opened, true_class: int | None, top: int) -> tuple[PhotoQueries, QueryAttention]:
    model, chosen = explainer.model, list[int]()

    def choose(logits: Logits) -> Int[Tensor, "b k"]:
        if not torch.isfinite(logits).all():
            raise InvalidInputError(f"{model.name} gave logits that are not finite; check its weights and the images")
        chosen.extend(choose_classes(logits[0], true_class, top))
        return torch.tensor([chosen])

    logits, maps = explainer.maps(opened.image[None].to(model.device, model.dtype), choose)
    probabilities = model.probabilities(logits[0])
    classes = [
        QueriedClass(model.class_name(index), index, float(logits[0, index]), float(probabilities[index])) for index in chosen
    ]
    predicted = choose_classes(logits[0], None, 1)[0]
    return PhotoQueries(opened.photo, true_class, predicted, classes), maps[0].cpu().contiguous()


def _view(opened: Opened, found: PhotoQueries, maps: QueryAttention) -> PhotoView:
    classes = [
        ClassView(one.name, one.probability, each, found.note(one.index)) for one, each in zip(found.classes, maps, strict=True)
    ]
    row = opened.row.reduced()
    return PhotoView(row.photo, row.box, classes, row.title)


def _write_table(path: Path, explainer: INTRQueries, found: Sequence[PhotoQueries], unreadable: Sequence[Unreadable]) -> None:
    config, model = explainer.intr.config, explainer.model

    def described(index: int) -> dict[str, str | int]:
        return {"name": model.class_name(index), "index": index}

    photos = [
        {
            "source": str(one.photo.path),
            "maps": one.maps_file,
            "true_class": None if one.true_class is None else described(one.true_class),
            "predicted": described(one.predicted),
            "classes": [vars(each) for each in one.classes],
        }
        for one in found
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
