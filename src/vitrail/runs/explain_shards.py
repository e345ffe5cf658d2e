"""Explain very many images by several methods into shards; interrupted runs resume."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from vitrail.core.csv_io import write_csv
from vitrail.core.distributed import rank
from vitrail.core.files import output_folder, write_text
from vitrail.core.json_io import json_text
from vitrail.datasets.dataset import Unreadable
from vitrail.datasets.keys import image_key
from vitrail.explainers import Explainer
from vitrail.explanation import Explanation
from vitrail.runs.dataset_photos import DatasetPhotos
from vitrail.runs.explain_images import explain_images
from vitrail.runs.explain_photos import OpenedPhoto, draw
from vitrail.runs.explanation_shards import ExplanationShard, ExplanationStore
from vitrail.runs.loop import Batches, Pass
from vitrail.runs.parquet_shards import ParquetStore
from vitrail.runs.results import IMAGES_FILE, ImageResult, write_unreadable
from vitrail.runs.saved_run import MODEL_FILE
from vitrail.runs.shards import ShardStore, list_unreadable
from vitrail.viz.style import Style

PICTURES = "pictures"
IMAGES_PER_SHARD = 1024

Pictures = int | Literal["all", "none"]
"""How many images are drawn, evenly spread."""


@dataclass(frozen=True, eq=False)
class ShardedRun:
    """A run that explains images into shards.

    Attributes:
        out: The run directory, shared by all processes.
        photos: The images.
        batches: The images in batches.
        explainers: Methods by name, tied to one model.
        target: Class to explain, or None for the predicted one.
        pictures: How many images are drawn.
        half: Whether relevance and logits are stored in half precision.
        style: How pictures look.
        key: Identifies the run.
        parquet: Whether shards are Parquet files.
    """

    out: Path
    photos: DatasetPhotos
    batches: Batches
    explainers: Mapping[str, Explainer]
    target: int | str | None
    pictures: Pictures
    half: bool
    style: Style
    key: str
    parquet: bool = False

    def run(self) -> tuple[int, list[Unreadable]]:
        """Explain what is missing; write images.csv. Return the number of explained images, and the files that were skipped.

        Raises:
            ImageError: Not a single image could be read.
            OutputError: A result cannot be written.
        """
        model = next(iter(self.explainers.values())).model
        names = {"model": model.name, "class_names": list(model.class_names), "output": model.output}
        kind = ParquetStore if self.parquet else ExplanationStore
        store: ShardStore[ExplanationShard] = kind(self.out, self.key, ExplanationShard)
        if rank() == 0:
            write_text(self.out / MODEL_FILE, json_text(names, indent=2))
        run = Pass(self.batches, self._compute, "explaining", store)
        shards = run.run()
        unreadable = list_unreadable(shards)
        if rank() == 0:
            write_unreadable(self.out, [(image_key(file.path, self.photos.root), file.reason) for file in unreadable])
            write_csv(self.out / IMAGES_FILE, HEAD, self._rows(run.reader(shards)(), store, names))
        return sum(shard.num_images for shard in shards), unreadable

    def _compute(self, number: int, read: Iterator[list[OpenedPhoto | Unreadable]]) -> ExplanationShard:
        indices, unreadable = list[int](), list[Unreadable]()
        explanations: dict[str, list[Explanation]] = {name: [] for name in self.explainers}
        for batch, entries in zip(self.batches.indices(number), read, strict=True):
            opened = {i: entry for i, entry in zip(batch, entries, strict=True) if isinstance(entry, OpenedPhoto)}
            unreadable += [entry for entry in entries if isinstance(entry, Unreadable)]
            images = [entry.image for entry in opened.values()]
            sources = [self.photos[index].key for index in opened]
            indices += opened
            for name, explainer in self.explainers.items():
                explained = explain_images(explainer, images, sources, self.target)
                self._draw(name, opened, explained)
                explanations[name] += [explanation.to("cpu") for explanation in explained]
        return ExplanationShard.pack(indices, explanations, tuple(unreadable), self.half)

    def _draw(self, method: str, opened: Mapping[int, OpenedPhoto], explanations: Sequence[Explanation]) -> None:
        for (index, entry), explanation in zip(opened.items(), explanations, strict=True):
            if is_drawn(index, self.batches.num_images, self.pictures):
                path = self.out / PICTURES / method / f"{entry.photo.result_name}.png"
                output_folder(path.parent)
                draw(entry.row, explanation, self.style).save(path)

    def _rows(
        self, shards: Iterator[ExplanationShard], store: ShardStore[ExplanationShard], names: Mapping[str, Any]
    ) -> Iterator[list[Any]]:
        """Yield the rows of images.csv; one shard is in memory at a time."""
        method = next(iter(self.explainers))
        for number, shard in enumerate(shards):
            for row, source in enumerate(shard.sources):
                result = ImageResult.from_explanation(
                    Explanation(
                        shard.logits.new_zeros(1, 1, 1).float(),
                        shard.tensors[f"{method}.targets"][row : row + 1],
                        shard.logits[row : row + 1].float(),
                        method,
                        class_names=tuple(names["class_names"]),
                        output=names["output"],
                    )
                )
                numbers = [f"{result.probability:.6g}", f"{result.logit:.6g}"]
                yield [source, result.target, result.target_name, *numbers, store.file(number).name, row]


HEAD = ["image", "target", "target_name", "probability", "logit", "shard", "row"]


def is_drawn(index: int, num_images: int, pictures: Pictures) -> bool:
    """Return whether an image is among those that are drawn: all, none, or so many, evenly spread."""
    if isinstance(pictures, str):
        return pictures == "all"
    count = min(pictures, num_images)
    return count > 0 and (index * count) % num_images < count
