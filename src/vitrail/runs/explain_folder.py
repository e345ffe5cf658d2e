"""A whole folder of images explained by several methods: results of their own per image, written as it goes, and gone on with."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, get_args

from torch.utils.data import DataLoader

from vitrail.core.errors import ImageError, InvalidInputError
from vitrail.core.files import output_folder, real_path
from vitrail.core.locking import only_run
from vitrail.core.progress import progress
from vitrail.datasets.file_search import expect_exists, images_below
from vitrail.datasets.folder import NO_LABEL, ImageFolder, Unreadable
from vitrail.datasets.photos import PhotoFile, relative_name, result_labels
from vitrail.datasets.sampler import fixed_generator, read_on_cpu
from vitrail.datasets.workers import AGAIN, explain_killed_workers
from vitrail.explainers import Explainer, distinct_names
from vitrail.explanation import Explanation
from vitrail.runs.claim import claim
from vitrail.runs.explain_images import BATCH_SIZE, explain_images
from vitrail.runs.explain_photos import SHEET, Opened, PhotoReader, draw
from vitrail.runs.manifest import Run, describe_method, describe_model, describe_options
from vitrail.runs.results import Found, MethodResults, read_unreadable, write_table, write_unreadable
from vitrail.viz.overlay import Smoothing
from vitrail.viz.sheet import MAX_ROWS, SheetRow, contact_sheet

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class FolderResults:
    """What became of a folder.

    Attributes:
        num_images: Images that are explained by every method that was asked for.
        num_before: How many of them were so before.
        completeness: Per method that accounts for the whole logit: the largest completeness error.
        unreadable: Files left out.
        methods: Their names.
    """

    num_images: int
    num_before: int
    completeness: dict[str, float]
    unreadable: list[Unreadable]
    methods: list[str]


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
) -> FolderResults:
    """Explain every image below a folder by every method, or go on where an earlier call of the same kind was stopped.

    Written are, per image and method, `out/METHOD/IMAGE.npz`, `.json` (`Explanation.load`) and `.png` (overlay) as soon as they are
    known, and at the end the table images.csv and a contact sheet. run.json says how they were made. Batches are a fixed partition of
    the sorted files, and what is there is never written again: a run that was stopped ends with the same bytes as one that was not.

    Args:
        explainers: Methods tied to one model.
        data: A folder of images, with or without class folders.
        out: Where to write, outside of `data`.
        target: Class to explain, or None for the predicted one.
        limit: At most so many images, evenly spread over the folder.
        batch_size: Images that are explained at once.
        num_workers: Processes that read images.
        smoothing: Of the overlays.
        overwrite: Start afresh: earlier results of these methods are removed.
        model_options: What the model was loaded with, for the record.

    Raises:
        OutputError: `out` holds something else, or results that were made otherwise, or cannot be written, or another run writes there.
        ImageError: Not one image could be read.
        ProcessError: A process that reads images was killed.
    """
    names, model, data, out = distinct_names(explainers), explainers[0].model, Path(data), Path(out)
    if any(explainer.model is not model for explainer in explainers):
        raise InvalidInputError("expected methods tied to one model, got several models")
    if batch_size < 1 or num_workers < 0 or smoothing not in get_args(Smoothing):
        raise InvalidInputError(
            f"expected a batch_size of at least 1, num_workers of at least 0 and smoothing 'nearest' or 'bilinear', got {batch_size}, "
            f"{num_workers} and {smoothing!r}"
        )
    expect_exists(data)
    place = real_path(data)
    if real_path(out).is_relative_to(place):
        raise InvalidInputError(
            f"expected the results outside of the images, got {out} inside {data}, where overlays would be taken for images; "
            "choose another --out"
        )
    for name in names:
        results = real_path(out / name)
        if results.is_relative_to(place) or place.is_relative_to(results):
            raise InvalidInputError(
                f"expected the images outside of the results, got {data} where those of {name} go, {out / name}; choose another --out"
            )
    # Classes do not matter here, so that photos may lie beside folders of them.
    paths = [data] if data.is_file() else images_below(data)
    if not paths:
        raise InvalidInputError(f"expected images in {data}, found none")
    images = ImageFolder(paths, [NO_LABEL] * len(paths), [], model.preprocessing)
    labels = result_labels(images.paths, data)
    photos = [PhotoFile(path, labels[path], required=False) for path in images.spread(limit).paths]
    settings = {
        **describe_model(model, target),
        "model_options": describe_options(model_options or {}),
        "data": str(place),
        "batch_size": batch_size,
        "smoothing": smoothing,
    }
    methods = {name: describe_method(explainer) for name, explainer in zip(names, explainers, strict=True)}
    with only_run(output_folder(out)), explain_killed_workers(AGAIN):
        run = claim(out, Run(settings, methods), overwrite)
        work = _Work(out, data, photos, PhotoReader(photos, model.preprocessing), list(run.methods))
        before = work.num_done(names)
        if before:
            logger.info("%d of %d images are explained already", before, len(photos))
        work.run(dict(zip(names, explainers, strict=True)), target, batch_size, num_workers, smoothing)
        return work.finish(names, before)


@dataclass
class _Work:
    """A run in progress: which images are done by which method, and which cannot be."""

    out: Path
    data: Path
    photos: Sequence[PhotoFile]
    reader: PhotoReader
    methods: Sequence[str]
    found: dict[str, dict[int, Found]] = field(default_factory=dict)
    unreadable: dict[int, Unreadable] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.results = {name: MethodResults(self.out / name, name) for name in self.methods}
        for name in self.methods:
            read = ((index, self.read(name, index)) for index in range(len(self.photos)))
            self.found[name] = {index: Found.of(explanation) for index, explanation in read if explanation is not None}
        known = read_unreadable(self.out)
        for index in range(len(self.photos)):
            # Looked at again, which costs little: it may have been mended.
            if self.source(index) in known and isinstance(entry := self.reader[index], Unreadable):
                self.unreadable[index] = entry

    def source(self, index: int) -> str:
        return relative_name(self.photos[index].path, self.data)

    def read(self, name: str, index: int) -> Explanation | None:
        return self.results[name].read(self.photos[index].label, self.source(index))

    def is_done(self, name: str, index: int) -> bool:
        return index in self.found[name] or index in self.unreadable

    def num_done(self, names: Sequence[str]) -> int:
        return sum(all(index in self.found[name] for name in names) for index in range(len(self.photos)))

    def run(
        self,
        explainers: Mapping[str, Explainer],
        target: int | str | None,
        batch_size: int,
        num_workers: int,
        smoothing: Smoothing,
    ) -> None:
        """Explain what is not done, in whole batches, so that every image is computed beside the same others."""
        starts = range(0, len(self.photos), batch_size)
        batches = [list(range(start, min(start + batch_size, len(self.photos)))) for start in starts]
        pending = [batch for batch in batches if not all(self.is_done(name, index) for name in explainers for index in batch)]
        loader: DataLoader[Any] = DataLoader(
            self.reader, batch_sampler=pending, num_workers=num_workers, collate_fn=_as_they_are, generator=fixed_generator()
        )
        for batch, entries in zip(pending, progress(read_on_cpu(loader), len(pending), "explaining"), strict=True):
            read = dict(zip(batch, entries, strict=True))
            opened = {index: entry for index, entry in read.items() if isinstance(entry, Opened)}
            self._remember({index: entry for index, entry in read.items() if isinstance(entry, Unreadable)})
            for name, explainer in explainers.items():
                if not all(self.is_done(name, index) for index in opened):
                    self._explain(name, explainer, opened, target, smoothing)

    def _explain(
        self, name: str, explainer: Explainer, opened: Mapping[int, Opened], target: int | str | None, smoothing: Smoothing
    ) -> None:
        images, sources = [entry.image for entry in opened.values()], [self.source(index) for index in opened]
        found = explain_images(explainer, images, sources, target)
        for (index, entry), one in zip(opened.items(), found, strict=True):
            # A result that is there stays, also when this batch has another composition than that which it was made in.
            if not self.is_done(name, index):
                self.results[name].write(entry.photo.label, one, draw(entry.row, one, smoothing))
                # As it is read again: a table must not depend on when it is written.
                self.found[name][index] = Found.of(Explanation.load(self.results[name].file(entry.photo.label)))

    def _remember(self, unreadable: Mapping[int, Unreadable]) -> None:
        if unreadable.keys() - self.unreadable.keys():
            self.unreadable |= unreadable
            self._write_unreadable()

    def _write_unreadable(self) -> None:
        write_unreadable(self.out, [(self.source(index), file.reason) for index, file in sorted(self.unreadable.items())])

    def finish(self, names: Sequence[str], before: int) -> FolderResults:
        """Write what sums up: the table, the contact sheet, the unreadable files."""
        unreadable = [file for _, file in sorted(self.unreadable.items())]
        self._write_unreadable()
        if not any(self.found.values()):
            raise ImageError(f"not one of {len(self.photos)} images could be read; the first: {unreadable[0].reason}")
        photos = [(photo.label, self.source(index)) for index, photo in enumerate(self.photos)]
        write_table(self.out, photos, list(self.results.values()), self.found)
        self._write_sheet()
        completeness = dict[str, float]()
        for name in names:
            errors = [found.completeness_error for found in self.found[name].values()]
            if promised := [error for error in errors if error is not None]:
                completeness[name] = max(promised)
        return FolderResults(self.num_done(names), before, completeness, unreadable, list(names))

    def _write_sheet(self) -> None:
        rows = list[SheetRow]()
        for index in range(len(self.photos)):
            explanations = [one for name in self.methods if index in self.found[name] and (one := self.read(name, index))]
            if explanations and isinstance(entry := self.reader[index], Opened):
                rows.append(replace(entry.row, explanations=explanations).reduced())
            if len(rows) == MAX_ROWS:
                break
        if rows:
            contact_sheet(rows, self.out / f"{SHEET}.png")


def _as_they_are(entries: list[Opened | Unreadable]) -> list[Opened | Unreadable]:
    return entries
