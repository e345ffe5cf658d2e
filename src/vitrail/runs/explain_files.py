"""Explain images into files of their own: arrays, description and overlay per image and method."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from vitrail.core.distributed import gather, rank
from vitrail.datasets.dataset import Unreadable
from vitrail.datasets.workers import FEWER_WORKERS_HINT, explain_killed_workers
from vitrail.explainers import Explainer
from vitrail.explanation import Explanation
from vitrail.runs.dataset_photos import DatasetPhotos
from vitrail.runs.explain_images import explain_images
from vitrail.runs.explain_photos import SHEET, OpenedPhoto, draw
from vitrail.runs.loop import Batches
from vitrail.runs.results import (
    ImageResult,
    MethodResults,
    expect_readable,
    read_unreadable,
    write_table,
    write_unreadable,
)
from vitrail.viz.sheet import MAX_ROWS, SheetRow, contact_sheet
from vitrail.viz.style import Style

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


@dataclass
class FilesRun:
    """A run that explains images into files of their own.

    Attributes:
        out: The run directory, shared by all processes.
        photos: The images.
        batches: The images in batches.
        methods: Names of all methods with results in the folder.
        results: By method, the results of each image by index.
        unreadable: Images that could not be read, by index.
    """

    out: Path
    photos: DatasetPhotos
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
        self._warn_of_newer_images()
        known = read_unreadable(self.out)
        for index in range(len(self.photos)):
            # Try again, which costs little: the file may have been repaired.
            if self.source(index) in known and isinstance(entry := self.batches.images[index], Unreadable):
                self.unreadable[index] = entry

    def _warn_of_newer_images(self) -> None:
        """Warn of images that have changed since they were explained; their results stay."""
        changed = [
            self.source(index)
            for name in self.methods
            for index in self.results[name]
            if _modified(self.photos[index].path) > _modified(self.files[name].file(self.photos[index].result_name))
        ]
        if changed and rank() == 0:
            logger.warning(
                "%d image(s) are newer than their explanations, such as %s; if they have changed, start over with --overwrite",
                *(len(set(changed)), changed[0]),
            )

    def source(self, index: int) -> str:
        return self.photos[index].key

    def read(self, name: str, index: int) -> Explanation | None:
        return self.files[name].read(self.photos[index].result_name, self.source(index))

    def is_done(self, name: str, index: int) -> bool:
        return index in self.results[name] or index in self.unreadable

    def count_done(self, names: Sequence[str]) -> int:
        return sum(all(index in self.results[name] for name in names) for index in range(len(self.photos)))

    @explain_killed_workers(FEWER_WORKERS_HINT)
    def explain_missing(self, explainers: Mapping[str, Explainer], target: int | str | None, style: Style) -> None:
        """Explain the missing images, in whole batches, so that every image is computed together with the same others."""
        indices = {number: batch for number in range(self.batches.num_shards) for batch in self.batches.indices(number)}
        pending = [
            number
            for number, batch in indices.items()
            if not all(self.is_done(name, index) for name in explainers for index in batch)
        ]
        gather([None])  # All processes must see the same results as missing, before any is written.
        for number, read in self.batches.read(pending, "explaining", self.out):
            entries = dict(zip(indices[number], next(read), strict=True))
            opened = {index: entry for index, entry in entries.items() if isinstance(entry, OpenedPhoto)}
            self._record_unreadable({index: entry for index, entry in entries.items() if isinstance(entry, Unreadable)})
            for name, explainer in explainers.items():
                if not all(self.is_done(name, index) for index in opened):
                    self._explain_batch(name, explainer, opened, target, style)
        self._gather_results()

    def _explain_batch(
        self, name: str, explainer: Explainer, opened: Mapping[int, OpenedPhoto], target: int | str | None, style: Style
    ) -> None:
        images, sources = [entry.image for entry in opened.values()], [self.source(index) for index in opened]
        explanations = explain_images(explainer, images, sources, target)
        for (index, entry), explanation in zip(opened.items(), explanations, strict=True):
            # An existing result stays, even if its batch was composed differently when it was computed.
            if not self.is_done(name, index):
                self.files[name].write(entry.photo.result_name, explanation, draw(entry.row, explanation, style))
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

    def summarize(self, names: Sequence[str], num_before: int, style: Style) -> FolderResults:
        """Write the table, the contact sheet and the list of unreadable files in the first process; return the summary in all."""
        unreadable = [file for _, file in sorted(self.unreadable.items())]
        self._write_unreadable()
        expect_readable(sum(map(len, self.results.values())), len(self.photos), unreadable)
        if rank() == 0:
            photos = [(photo.result_name, self.source(index)) for index, photo in enumerate(self.photos)]
            write_table(self.out, photos, list(self.files.values()), self.results)
            self._write_sheet(style)
        completeness = dict[str, float]()
        for name in names:
            errors = [result.completeness_error for result in self.results[name].values()]
            if known := [error for error in errors if error is not None]:
                completeness[name] = max(known)
        return FolderResults(self.count_done(names), num_before, completeness, unreadable, list(names))

    def _write_sheet(self, style: Style) -> None:
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
            contact_sheet(rows, self.out / f"{SHEET}.png", style)


def _modified(path: Path) -> float:
    """Return when a file was modified; images that have no file of their own count as old."""
    try:
        return path.stat().st_mtime
    except (OSError, ValueError):  # A name with a null character is a ValueError.
        return 0.0
