"""What an INTR's queries look at in photos: which classes are asked, and what is written of them."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float, Int
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from vitrail.adapters import Classifier
from vitrail.data.folders import Unreadable
from vitrail.data.photos import PhotoFile
from vitrail.errors import ImageError, InvalidInputError, OutputError
from vitrail.explainers.intr import INTRQueries
from vitrail.explaining.asked import SHEET, Asked
from vitrail.files import atomic_write, output_folder, write_text
from vitrail.gallery import Opened, PhotoReader
from vitrail.progress import progress
from vitrail.types import Logits
from vitrail.viz.queries import MAX_PHOTOS, ClassView, PhotoView, query_overview, query_sheet

FORMAT = "vitrail queries 1"


@dataclass(frozen=True)
class QueriedClass:
    """A class that was looked for in a photo."""

    name: str
    index: int
    logit: float
    probability: float


@dataclass(frozen=True, eq=False)
class PhotoQueries:
    """What the queries of some classes looked at in a photo.

    Attributes:
        photo: The file.
        true_class: Index of the class that it shows, where that is known.
        predicted: Index of the most probable class.
        classes: As `choose_classes` orders them.
        maps: Cross-attention of their queries, per head; each map sums to 1.
    """

    photo: PhotoFile
    true_class: int | None
    predicted: int
    classes: Sequence[QueriedClass]
    maps: Float[Tensor, "k h rows cols"]

    @property
    def key(self) -> str:
        """The photo's label, under which its maps are kept; names of files need not be UTF-8, but keys have to."""
        return self.photo.label.encode(errors="backslashreplace").decode()

    def note(self, index: int) -> str:
        """What sets a class apart; nothing for most."""
        return "true class" if index == self.true_class else "predicted" if index == self.predicted else ""


def query_photos(
    explainer: INTRQueries, asked: Sequence[Asked], folder: Path, top: int = 5
) -> tuple[list[PhotoQueries], list[Unreadable]]:
    """Let classes look at photos, one photo at a time.

    Written are a sheet per photo, one of several photos together, and the numbers and maps of all.

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
    reader = PhotoReader([photo for photo, _ in asked], explainer.model.preprocessing)
    for index in progress(range(len(asked)), len(asked), "explaining"):
        opened = _open(reader, index, explainer.model)
        if isinstance(opened, Unreadable):
            unreadable.append(opened)
            continue
        found.append(_query(explainer, opened, asked[index].true_class, top))
        view = _view(opened, found[-1])
        sheet = folder / f"{opened.photo.label}.png"
        output_folder(sheet.parent)
        query_sheet(view, sheet, caption)
        # More than are drawn would fill the memory.
        views += [view] if len(views) < MAX_PHOTOS else []
    if not found:
        raise ImageError(f"not one of {len(asked)} images could be read; the first: {unreadable[0].reason}")
    if len(found) > 1:
        cut = f" The first {len(views)} of {len(found)} photos." if len(views) < len(found) else ""
        query_overview(views, folder / f"{SHEET}.png", caption + cut)
    _write_maps(folder / f"{SHEET}.safetensors", {one.key: one.maps for one in found})
    _write_table(folder / f"{SHEET}.json", explainer, found, unreadable)
    return found, unreadable


def choose_classes(logits: Float[Tensor, " c"], true_class: int | None, top: int) -> list[int]:
    """The classes whose queries are compared: the true one, or the most probable one where it is not known, then others by logit.

    These are the `top` most probable ones; a true class that is not among them takes the place of the last.
    """
    by_logit: list[int] = logits.argsort(descending=True, stable=True).tolist()
    first = by_logit[0] if true_class is None else true_class
    return [first, *(index for index in by_logit if index != first)][:top]


def _open(reader: PhotoReader, index: int, model: Classifier) -> Opened | Unreadable:
    opened = reader[index]
    if isinstance(opened, Unreadable):
        return opened
    try:
        model.grid_size(opened.image[None])
    except InvalidInputError as error:  # A photo so thin that it holds no cell.
        reason = f"cannot use {opened.photo.path}: {error}"
        if opened.photo.required:
            raise ImageError(reason) from error
        return Unreadable(str(opened.photo.path), reason)
    return opened


def _query(explainer: INTRQueries, opened: Opened, true_class: int | None, top: int) -> PhotoQueries:
    model, chosen = explainer.model, list[int]()

    def choose(logits: Logits) -> Int[Tensor, "b k"]:
        if not torch.isfinite(logits).all():
            raise InvalidInputError(f"{model.name} gave logits that are not finite; check its weights and the images")
        chosen.extend(choose_classes(logits[0], true_class, top))
        return torch.tensor([chosen])

    logits, maps = explainer.maps(opened.image[None].to(model.device, model.dtype), choose)
    probabilities = logits[0].softmax(-1)
    classes = [
        QueriedClass(model.class_name(index), index, float(logits[0, index]), float(probabilities[index])) for index in chosen
    ]
    predicted = choose_classes(logits[0], None, 1)[0]
    return PhotoQueries(opened.photo, true_class, predicted, classes, maps[0].cpu().contiguous())


def _view(opened: Opened, found: PhotoQueries) -> PhotoView:
    classes = [
        ClassView(one.name, one.probability, maps, found.note(one.index))
        for one, maps in zip(found.classes, found.maps, strict=True)
    ]
    row = opened.row.reduced()
    return PhotoView(row.photo, row.box, classes, row.title)


def _write_maps(path: Path, maps: Mapping[str, Tensor]) -> None:
    with atomic_write(path) as partial:
        try:
            save_file(dict(maps), partial)
        except SafetensorError as error:  # A full disk comes as one of these, not as an OSError.
            raise OutputError(f"cannot write {path}: {error}; what was there before is unchanged") from error


def _write_table(path: Path, explainer: INTRQueries, found: Sequence[PhotoQueries], unreadable: Sequence[Unreadable]) -> None:
    config, model = explainer.intr.config, explainer.model

    def described(index: int) -> dict[str, str | int]:
        return {"name": model.class_name(index), "index": index}

    photos = [
        {
            "key": one.key,
            "source": str(one.photo.path),
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
    write_text(path, json.dumps(content, indent=2))
