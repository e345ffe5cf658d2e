"""Explain a folder of images by several methods, with results per image; interrupted runs resume."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, get_args

from vitrail.adapters import Preprocessing
from vitrail.core.distributed import gather, rank
from vitrail.core.errors import InvalidInputError
from vitrail.core.files import real_path
from vitrail.datasets.dataset import NO_LABEL, Unreadable
from vitrail.datasets.file_search import expect_exists, images_below
from vitrail.datasets.folder import ImageFolder
from vitrail.datasets.photos import PhotoFile, relative_name, result_names
from vitrail.datasets.workers import FEWER_WORKERS_HINT, explain_killed_workers
from vitrail.explainers import Explainer, check_method_names
from vitrail.explanation import Explanation
from vitrail.runs.explain_images import BATCH_SIZE, explain_images
from vitrail.runs.explain_photos import SHEET, OpenedPhoto, PhotoReader, draw
from vitrail.runs.explain_shards import IMAGES_PER_SHARD, PICTURES, Pictures, ShardedRun
from vitrail.runs.loop import Batches
from vitrail.runs.manifest import Manifest, describe_method, describe_model, describe_options, fingerprint_files
from vitrail.runs.results import (
    ImageResult,
    MethodResults,
    expect_readable,
    read_unreadable,
    remove_results,
    write_table,
    write_unreadable,
)
from vitrail.runs.run_dir import RunDirectory, expect_apart
from vitrail.runs.shards import FOLDER, remove_shards
from vitrail.viz.overlay import Smoothing
from vitrail.viz.sheet import MAX_ROWS, SheetRow, contact_sheet

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class FolderResults:
    """Summary of an explained folder.

    Attributes:
        num_images: Number of images that are explained by all requested methods.
        num_before: How many of them were explained by an earlier run.
        completeness: The largest completeness error of each method that accounts for the whole logit.
        unreadable: Files that were skipped.
        methods: Names of the methods.
        in_shards: Whether explanations lie in shards, or in files of their own.
    """

    num_images: int
    num_before: int
    completeness: dict[str, float]
    unreadable: list[Unreadable]
    methods: list[str]
    in_shards: bool = False


def explain_folder(
    explainers: Sequence[Explainer],
    data: str | Path,
    out: str | Path,
    target: int | str | None = None,
    limit: int | None = None,
    batch_size: int = BATCH_SIZE,
    num_workers: int = 0,
    smoothing: Smoothing = "nearest",
    overwrite: bool = False,
    model_options: Mapping[str, Any] | None = None,
    file_format: Literal["files", "shards"] = "files",
    pictures: Pictures = 100,
    half: bool = False,
) -> FolderResults:
    """Explain every image below a folder by every method; resume an interrupted run with the same settings.

    With the format "files", each image and method gives `out/METHOD/IMAGE.npz`, `.json` (`Explanation.load`) and `.png` (overlay), written
    as soon as they are computed. The table images.csv and a contact sheet follow at the end; run.json records the settings. Batches are a
    fixed partition of the sorted files, and existing results are never rewritten, so a resumed run ends with the same bytes as an
    uninterrupted one.

    With the format "shards", the explanations of `IMAGES_PER_SHARD` images lie in one file, and a sample of the images is drawn into
    `out/pictures`; `vitrail.open_run` reads them by image. Memory does not grow with the number of images.

    Inside `vitrail.core.distributed.process_group`, the processes share the batches; the first one writes table and sheet.

    Args:
        explainers: Methods tied to one model.
        data: A folder of images, with or without class folders.
        out: Output folder, outside of `data`, shared by all processes.
        target: Class to explain, or None for the predicted one.
        limit: Maximum number of images, evenly spread over the folder.
        batch_size: Images per batch.
        num_workers: Processes that read images.
        smoothing: How overlays are enlarged.
        overwrite: Start over: remove earlier results of these methods.
        model_options: Options the model was loaded with, to record in run.json.
        file_format: "files": three files per image and method; or "shards".
        pictures: Of shards: how many images to draw, evenly spread; or "all" or "none".
        half: Of shards: whether to store relevance and logits in half precision.

    Raises:
        OutputError: `out` holds something else or results of other settings, cannot be written, or is in use by another run.
        ImageError: Not a single image could be read.
        ProcessError: A process that reads images was killed.
    """
    names, model, data, out = check_method_names(explainers), explainers[0].model, Path(data), Path(out)
    if any(explainer.model is not model for explainer in explainers):
        raise InvalidInputError("expected methods tied to one model, got several models")
    if smoothing not in get_args(Smoothing):
        raise InvalidInputError(f"expected smoothing 'nearest' or 'bilinear', got {smoothing!r}")
    expect_exists(data)
    expect_apart(data, out, names)
    photos = list_folder(data, model.preprocessing, limit)
    per_shard = max(IMAGES_PER_SHARD // max(batch_size, 1), 1) if file_format == "shards" else 1
    batches = Batches(PhotoReader(photos, model.preprocessing), batch_size, _keep_list, num_workers, per_shard)
    settings = {
        **describe_model(model, target),
        "model_options": describe_options(model_options or {}),
        "data": str(real_path(data)),
        "batch_size": batch_size,
        "smoothing": smoothing,
    }
    if file_format == "shards":
        settings |= {"file_format": file_format, "pictures": pictures, "half": half, "num_images": len(photos)}
        settings |= {"photos": fingerprint_files([photo.path for photo in photos])}
    methods = {name: describe_method(explainer) for name, explainer in zip(names, explainers, strict=True)}

    def remove(methods: Sequence[str]) -> None:
        remove_shards(out)
        for name in methods:
            remove_results(out / name)

    asked = Manifest(settings, methods)
    by_name = dict(zip(names, explainers, strict=True))
    directory = RunDirectory(out, asked, overwrite, remove, [FOLDER, PICTURES], can_grow=file_format == "files")
    with directory.claimed() as manifest:
        if file_format == "shards":
            sharded = ShardedRun(out, data, batches, by_name, target, pictures, half, smoothing, asked.key)
            num_images, unreadable = sharded.run()
            return FolderResults(num_images, 0, {}, unreadable, names, in_shards=True)
        run = _FolderRun(out, data, photos, batches, list(manifest.methods))
        num_before = run.count_done(names)
        if num_before and rank() == 0:
            logger.info("%d of %d images are already explained", num_before, len(photos))
        run.explain_missing(by_name, target, smoothing)
        return run.summarize(names, num_before)


def list_folder(data: Path, preprocessing: Preprocessing, limit: int | None = None) -> list[PhotoFile]:
    """List the images below a folder, or at most `limit` of them, evenly spread.

    Raises:
        InvalidInputError: There are none.
    """
    # Classes do not matter here: images may lie beside class folders.
    paths = [data] if data.is_file() else images_below(data)
    if not paths:
        raise InvalidInputError(f"expected images in {data}, found none")
    images = ImageFolder(paths, [NO_LABEL] * len(paths), [], preprocessing)
    labels = result_names(images.paths, data)
    return [PhotoFile(path, labels[path], required=False) for path in images.subsample(limit).paths]


@dataclass
class _FolderRun:
    """A run in progress: the results of each method by image index, and the unreadable images."""

    out: Path
    data: Path
    photos: Sequence[PhotoFile]
    batches: Batches
    methods: Sequence[str]
    results: dict[str, dict[int, ImageResult]] = field(default_factory=dict)
    unreadable: dict[int, Unreadable] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.files = {name: MethodResults(self.out / name, name) for name in self.methods}
        for name in self.methods:
            saved = ((index, self.read(name, index)) for index in range(len(self.photos)))
            self.results[name] = {
                index: ImageResult.from_explanation(explanation) for index, explanation in saved if explanation is not None
            }
        known = read_unreadable(self.out)
        for index in range(len(self.photos)):
            # Try again, which costs little: the file may have been repaired.
            if self.source(index) in known and isinstance(entry := self.batches.images[index], Unreadable):
                self.unreadable[index] = entry

    def source(self, index: int) -> str:
        return relative_name(self.photos[index].path, self.data)

    def read(self, name: str, index: int) -> Explanation | None:
        return self.files[name].read(self.photos[index].result_name, self.source(index))

    def is_done(self, name: str, index: int) -> bool:
        return index in self.results[name] or index in self.unreadable

    def count_done(self, names: Sequence[str]) -> int:
        return sum(all(index in self.results[name] for name in names) for index in range(len(self.photos)))

    @explain_killed_workers(FEWER_WORKERS_HINT)
    def explain_missing(self, explainers: Mapping[str, Explainer], target: int | str | None, smoothing: Smoothing) -> None:
        """Explain the missing images, in whole batches, so that every image is computed together with the same others."""
        indices = {number: batch for number in range(self.batches.num_shards) for batch in self.batches.indices(number)}
        pending = [
            number
            for number, batch in indices.items()
            if not all(self.is_done(name, index) for name in explainers for index in batch)
        ]
        gather([None])  # All processes must see the same results as missing, before any is written.
        for number, read in self.batches.read(pending, "explaining"):
            entries = dict(zip(indices[number], next(read), strict=True))
            opened = {index: entry for index, entry in entries.items() if isinstance(entry, OpenedPhoto)}
            self._record_unreadable({index: entry for index, entry in entries.items() if isinstance(entry, Unreadable)})
            for name, explainer in explainers.items():
                if not all(self.is_done(name, index) for index in opened):
                    self._explain_batch(name, explainer, opened, target, smoothing)
        self._gather_results()

    def _explain_batch(
        self, name: str, explainer: Explainer, opened: Mapping[int, OpenedPhoto], target: int | str | None, smoothing: Smoothing
    ) -> None:
        images, sources = [entry.image for entry in opened.values()], [self.source(index) for index in opened]
        explanations = explain_images(explainer, images, sources, target)
        for (index, entry), explanation in zip(opened.items(), explanations, strict=True):
            # An existing result stays, even if its batch was composed differently when it was computed.
            if not self.is_done(name, index):
                self.files[name].write(entry.photo.result_name, explanation, draw(entry.row, explanation, smoothing))
                # As it will be read again: the table must not depend on when it is written.
                saved = Explanation.load(self.files[name].file(entry.photo.result_name))
                self.results[name][index] = ImageResult.from_explanation(saved)

    def _record_unreadable(self, unreadable: Mapping[int, Unreadable]) -> None:
        if unreadable.keys() - self.unreadable.keys():
            self.unreadable |= unreadable
            self._write_unreadable()

    def _write_unreadable(self) -> None:
        if rank() == 0:
            write_unreadable(self.out, [(self.source(index), file.reason) for index, file in sorted(self.unreadable.items())])

    def _gather_results(self) -> None:
        """Exchange results between the processes; also waits until all have written theirs."""
        for name in self.methods:
            self.results[name] = dict(gather(list(self.results[name].items())))
        self.unreadable = dict(gather(list(self.unreadable.items())))

    def summarize(self, names: Sequence[str], num_before: int) -> FolderResults:
        """Write the table, the contact sheet and the list of unreadable files in the first process; return the summary in all."""
        unreadable = [file for _, file in sorted(self.unreadable.items())]
        self._write_unreadable()
        expect_readable(sum(map(len, self.results.values())), len(self.photos), unreadable)
        if rank() == 0:
            photos = [(photo.result_name, self.source(index)) for index, photo in enumerate(self.photos)]
            write_table(self.out, photos, list(self.files.values()), self.results)
            self._write_sheet()
        completeness = dict[str, float]()
        for name in names:
            errors = [result.completeness_error for result in self.results[name].values()]
            if known := [error for error in errors if error is not None]:
                completeness[name] = max(known)
        return FolderResults(self.count_done(names), num_before, completeness, unreadable, list(names))

    def _write_sheet(self) -> None:
        rows = list[SheetRow]()
        for index in range(len(self.photos)):
            explanations = [
                explanation for name in self.methods if index in self.results[name] and (explanation := self.read(name, index))
            ]
            if explanations and isinstance(entry := self.batches.images[index], OpenedPhoto):
                rows.append(replace(entry.row, explanations=explanations).reduced())
            if len(rows) == MAX_ROWS:
                break
        if rows:
            contact_sheet(rows, self.out / f"{SHEET}.png")


def _keep_list(entries: list[OpenedPhoto | Unreadable]) -> list[OpenedPhoto | Unreadable]:
    return entries
