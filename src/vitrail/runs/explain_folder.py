"""Explain a data set by several methods, with results per image; interrupted runs resume."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal, get_args

from vitrail.core.distributed import rank
from vitrail.core.errors import InvalidInputError
from vitrail.datasets.source import DataSource
from vitrail.explainers import Explainer, check_method_names
from vitrail.runs.claim import RunDirectory, expect_apart, expect_none_inside
from vitrail.runs.dataset_photos import DatasetPhotos
from vitrail.runs.explain_files import FilesRun, FolderResults
from vitrail.runs.explain_images import BATCH_SIZE
from vitrail.runs.explain_photos import PhotoReader
from vitrail.runs.explain_shards import IMAGES_PER_SHARD, PICTURES, Pictures, ShardedRun
from vitrail.runs.loop import Batches
from vitrail.runs.manifest import (
    Manifest,
    describe_environment,
    describe_method,
    describe_model,
    describe_options,
    fingerprint_images,
)
from vitrail.runs.parquet_shards import expect_pyarrow
from vitrail.runs.results import remove_results
from vitrail.runs.shards import FOLDER, remove_shards
from vitrail.viz.style import DEFAULT_STYLE, Style

FileFormat = Literal["files", "shards", "parquet"]

logger = logging.getLogger(__name__)


def explain_folder(
    explainers: Sequence[Explainer],
    data: str | Path | DataSource,
    out: str | Path,
    target: int | str | None = None,
    limit: int | None = None,
    batch_size: int = BATCH_SIZE,
    num_workers: int = 0,
    style: Style = DEFAULT_STYLE,
    overwrite: bool = False,
    model_options: Mapping[str, Any] | None = None,
    file_format: FileFormat = "files",
    pictures: Pictures = 100,
    half: bool = False,
) -> FolderResults:
    """Explain every image of a folder or another source by every method; resume an interrupted run with the same settings.

    With the format "files", each image and method gives `out/METHOD/IMAGE.npz`, `.json` (`Explanation.load`) and `.png` (overlay), written
    as soon as they are computed. The table images.csv and a contact sheet follow at the end; run.json records the settings. Batches are a
    fixed partition of the sorted files, and existing results are never rewritten, so a resumed run ends with the same bytes as an
    uninterrupted one.

    With the format "shards", the explanations of `IMAGES_PER_SHARD` images lie in one file, and a sample of the images is drawn into
    `out/pictures`; `vitrail.open_run` reads them by image. Memory does not grow with the number of images.

    Inside `vitrail.core.distributed.process_group`, the processes share the batches; the first one writes table and sheet.

    Other arguments and errors are those of `vitrail.explain_folder`.

    Args:
        explainers: Methods tied to one model.
        data: A folder or another path, or a named data set.
        out: Output folder, outside of `data`, shared by all processes.
    """
    names, model, out = check_method_names(explainers), explainers[0].model, Path(out)
    source = data if isinstance(data, DataSource) else DataSource(Path(data))
    if any(explainer.model is not model for explainer in explainers):
        raise InvalidInputError("expected methods tied to one model, got several models")
    if file_format not in get_args(FileFormat):
        raise InvalidInputError(f"expected file_format 'files', 'shards' or 'parquet', got {file_format!r}")
    if file_format == "parquet":
        expect_pyarrow()
    photos = DatasetPhotos.from_source(source, model.preprocessing, limit)
    expect_apart(source.root, out, names)
    expect_none_inside(photos.images, out)
    per_shard = max(IMAGES_PER_SHARD // max(batch_size, 1), 1) if file_format != "files" else 1
    batches = Batches(PhotoReader(photos, model.preprocessing), batch_size, list, num_workers, per_shard)
    settings = {
        **describe_model(model, target),
        "model_options": describe_options(model_options or {}),
        **(
            source.describe()
            if source.data_set is not None or source.split is not None
            else {"data": source.describe()["data"]}
        ),
        "batch_size": batch_size,
        "style": asdict(style),
    }
    if file_format != "files":
        settings |= {"file_format": file_format, "pictures": pictures, "half": half, "num_images": len(photos)}
        settings |= {"photos": fingerprint_images(photos.images, labeled=False)}
    methods = {name: describe_method(explainer) for name, explainer in zip(names, explainers, strict=True)}

    def remove(methods: Sequence[str]) -> None:
        remove_shards(out)
        for name in methods:
            remove_results(out / name)

    asked = Manifest(settings, methods, describe_environment(explainers[0].model))
    by_name = dict(zip(names, explainers, strict=True))
    directory = RunDirectory(out, asked, overwrite, remove, [FOLDER, PICTURES], can_grow=file_format == "files")
    with directory.claimed() as manifest:
        if file_format != "files":
            sharded = ShardedRun(
                out, photos, batches, by_name, target, pictures, half, style, asked.key, file_format == "parquet"
            )
            num_images, unreadable = sharded.run()
            return FolderResults(num_images, 0, {}, unreadable, names, in_shards=True)
        run = FilesRun(out, photos, batches, list(manifest.methods))
        num_before = run.count_done(names)
        if num_before and rank() == 0:
            logger.info("%d of %d images are already explained", num_before, len(photos))
        run.explain_missing(by_name, target, style)
        return run.summarize(names, num_before, style)
