"""Show where an INTR's class queries look in photos: choose the classes, draw the sheets, save the attention maps."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from safetensors.torch import load
from torch import Tensor

from vitrail.core.distributed import rank
from vitrail.core.errors import InvalidInputError
from vitrail.core.files import output_folder
from vitrail.core.json_io import json_text, parse_json
from vitrail.core.outputs import has_probabilities
from vitrail.core.types import Logits
from vitrail.datasets.dataset import Unreadable
from vitrail.explainers.intr import INTRQueries
from vitrail.models.checkpoints import write_tensors
from vitrail.runs.explain_photos import OpenedPhoto, PhotoReader
from vitrail.runs.loop import Batches, Pass
from vitrail.runs.photo_list import SHEET, QueriedPhoto
from vitrail.runs.query_results import PhotoQueries, QueriedClass, write_table
from vitrail.runs.shards import Shard, ShardStore, list_unreadable
from vitrail.viz.queries import MAX_PHOTOS, ClassView, PhotoView, query_overview, query_sheet

PER_SHARD = 8
"""Photos per shard: what is computed again after an interruption."""

MAPS = "maps"
"""Name of the tensor in a photo's file."""

QueryAttention = Float[Tensor, "k h rows cols"]
"""Cross-attention of the queries of k classes, per head; each map sums to 1."""


@dataclass(frozen=True, eq=False)
class _QueryShard(Shard):
    """The classes shown for some photos.

    Attributes:
        entries: As JSON: per readable photo its index, the predicted class, and the fields of its `QueriedClass`es.
    """

    entries: Any

    @property
    def num_images(self) -> int:
        return len(self.read())

    def read(self) -> list[tuple[int, int, list[QueriedClass]]]:
        """Return index, predicted class and shown classes of every photo."""
        entries = parse_json(str(self.entries))
        return [(index, predicted, [QueriedClass(**fields) for fields in classes]) for index, predicted, classes in entries]


def query_photos(
    explainer: INTRQueries, photos: Sequence[QueriedPhoto], folder: Path, top: int = 5, key: str = "", num_workers: int = 0
) -> tuple[list[PhotoQueries], list[Unreadable]]:
    """Draw the query attention of photos, one photo at a time; an interrupted run resumes.

    Each photo gives a sheet and a file of attention maps, written as soon as they are computed. A sheet of all photos and queries.json
    follow at the end; if the run is interrupted, queries.json is missing.

    Inside `vitrail.core.distributed.process_group`, the processes share the photos and all return the same.

    Args:
        explainer: The model, and the decoder layer whose attention is shown.
        photos: Photos with distinct labels.
        folder: Output folder, shared by all processes.
        top: Number of classes; all classes if the model has fewer.
        key: Identifies the run; results in the folder with another key are computed again.
        num_workers: Processes that read photos ahead of the network.

    Returns:
        The classes shown for each readable photo, and the files that were skipped.

    Raises:
        InvalidInputError: Less than one class, or logits that are not finite.
        ImageError: A named file cannot be read, or none of the files.
        OutputError: A result cannot be written.
        ProcessError: A process that reads photos was killed.
    """
    if top < 1:
        raise InvalidInputError(f"expected at least one class to show, got top={top}")
    run = _QueryRun(explainer, photos, folder, top)
    batches = Batches(run.reader, 1, itemgetter(0), num_workers, PER_SHARD)
    shards = Pass(batches, run.compute, "explaining", ShardStore(folder, key, _QueryShard), run.has_files).run()
    results = [
        PhotoQueries(photos[index].photo, photos[index].true_class, predicted, classes)
        for shard in shards
        for index, predicted, classes in shard.read()
    ]
    unreadable = list_unreadable(shards)
    if rank() == 0:
        indices = [index for shard in shards for index, *_ in shard.read()]
        run.write_summary(dict(zip(indices, results, strict=True)), unreadable)
    return results, unreadable


@dataclass(frozen=True, eq=False)
class _QueryRun:
    """A run in progress."""

    explainer: INTRQueries
    photos: Sequence[QueriedPhoto]
    folder: Path
    top: int

    @property
    def reader(self) -> PhotoReader:
        return PhotoReader([photo for photo, _ in self.photos], self.explainer.model.preprocessing)

    @property
    def table(self) -> Path:
        return self.folder / f"{SHEET}.json"

    @property
    def caption(self) -> str:
        depth = self.explainer.intr.config.decoder_depth
        return f"Cross-attention of decoder layer {self.explainer.layer % depth + 1} of {depth}."

    def sheet(self, index: int) -> Path:
        return self.folder / f"{self.photos[index].photo.result_name}.png"

    def maps(self, index: int) -> Path:
        return self.sheet(index).with_suffix(".safetensors")

    def has_files(self, shard: _QueryShard) -> bool:
        """Return whether the files of all photos of a shard are there."""
        return all(path.is_file() for index, *_ in shard.read() for path in (self.sheet(index), self.maps(index)))

    def compute(self, number: int, read: Iterator[OpenedPhoto | Unreadable]) -> _QueryShard:
        """Draw the photos of a shard, and save their maps."""
        entries, unreadable = list[Any](), list[Unreadable]()
        for index, opened in enumerate(read, start=number * PER_SHARD):
            if isinstance(opened, Unreadable):
                unreadable.append(opened)
                continue
            result, maps = _query(self.explainer, opened, self.photos[index].true_class, self.top)
            output_folder(self.sheet(index).parent)
            self.table.unlink(missing_ok=True)  # The table of an earlier run would describe other maps.
            query_sheet(_make_view(opened, result, maps), self.sheet(index), self.caption)
            write_tensors(self.maps(index), {MAPS: maps})
            entries.append((index, result.predicted, [vars(queried) for queried in result.classes]))
        return _QueryShard(np.array(json_text(entries)), unreadable=tuple(unreadable))

    def write_summary(self, results: Mapping[int, PhotoQueries], unreadable: Sequence[Unreadable]) -> None:
        """Draw the sheet of all photos, and write the table."""
        if len(results) > 1:
            reader = self.reader
            views = [
                _make_view(
                    opened, results[index], load(self.maps(index).read_bytes())[MAPS]
                )  # Not by name, which need not be UTF-8.
                for index in list(results)[:MAX_PHOTOS]
                if isinstance(opened := reader[index], OpenedPhoto)
            ]
            cut = f" The first {len(views)} of {len(results)} photos." if len(views) < len(results) else ""
            query_overview(views, self.folder / f"{SHEET}.png", self.caption + cut)
        write_table(self.table, self.explainer, list(results.values()), unreadable)


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
    probabilities = model.probabilities(logits[0]).tolist() if has_probabilities(model.output) else [None] * logits.shape[1]
    classes = [QueriedClass(model.class_name(index), index, float(logits[0, index]), probabilities[index]) for index in indices]
    predicted = choose_classes(logits[0], None, 1)[0]
    return PhotoQueries(opened.photo, true_class, predicted, classes), maps[0].cpu().contiguous()


def _make_view(opened: OpenedPhoto, result: PhotoQueries, maps: QueryAttention) -> PhotoView:
    classes = [
        ClassView(queried.name, queried.format_value(), attention, result.describe_class(queried.index))
        for queried, attention in zip(result.classes, maps, strict=True)
    ]
    row = opened.row.reduced()
    return PhotoView(row.photo, row.box, classes, row.title)
