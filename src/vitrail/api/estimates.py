"""Estimate what a run will cost, from its first images, without writing anything where the results would go."""

import logging
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Unpack

import torch

from vitrail.adapters import Classifier
from vitrail.api.explanations import explain_folder
from vitrail.api.models import Model, as_classifier, as_list, default_method, default_protocol, make_explainers
from vitrail.api.scores import ScoreOptions, make_run, prepare_models
from vitrail.core.errors import ImageError
from vitrail.core.listing import count_nouns
from vitrail.datasets.dataset import Sample, Unreadable
from vitrail.datasets.source import DataSource
from vitrail.evaluation.estimate import Estimate
from vitrail.evaluation.scoring.ceiling import count_ceiling_runs
from vitrail.evaluation.scoring.cost import count_passes, count_passes_of_first
from vitrail.evaluation.scoring.run import NamedMethods
from vitrail.explainers import Explainer
from vitrail.metrics import Protocol
from vitrail.runs.dataset_photos import DatasetPhotos

logger = logging.getLogger(__name__)

NUM_BATCHES = 2
"""Batches that are measured after the first image, if that is quick."""

MAX_SECONDS = 30.0
"""Expected seconds of these batches from which the first image has to do."""


def estimate_folder(
    model: Model, data: str | Path, methods: str | Iterable[str] | None = None, target: int | str | None = None, **options: Any
) -> Estimate:
    """Estimate the cost of `explain_folder` on the device of the model.

    Arguments are those of `explain_folder`; `overwrite` has no effect. One image is measured, and two batches if that is quick; the time of
    one image is an upper bound. The first look at the network does not count. Pictures of shards are not drawn.

    Raises:
        ImageError: The first image cannot be read.
    """
    classifier = as_classifier(model, options.pop("device", None))
    names = [default_method(classifier)] if methods is None else as_list(methods)
    explainers = make_explainers(classifier, names, options.get("method_options"), options.get("precision", "full"))
    source = DataSource(
        Path(data), options.pop("data_set", None), options.pop("split", None), options.pop("data_options", None) or {}
    )
    photos = DatasetPhotos.from_source(source, classifier.preprocessing, options.pop("limit", None))
    first = photos[0].open(classifier.preprocessing)
    if isinstance(first, Unreadable):
        raise ImageError(f"expected a first image that can be read, got {first.path}: {first.reason}")
    passes = count_passes(classifier, explainers, classifier.prepare(first))
    batch_size = options.get("batch_size", 16)
    options |= {"pictures": "none"} if options.get("file_format", "files") != "files" else {}

    def explain_first(count: int, folder: Path) -> None:
        explain_folder(classifier, source, folder / "out", names, target, **{**options, "limit": count})

    measured = _measure_first(explain_first, len(photos), batch_size, "*")
    return _make_estimate(classifier, explainers, passes, len(photos), batch_size, measured)


def estimate_scores(
    models: Iterable[Model],
    data: str | Path,
    methods: str | Iterable[str] | None = None,
    protocol: str | Protocol | Iterable[str] | None = None,
    metrics: str | Iterable[str] = (),
    **more: Unpack[ScoreOptions],
) -> list[Estimate]:
    """Estimate the cost of `score` or `compare`, one estimate per model.

    Arguments are those of `score` and `compare`; `out` and `overwrite` have no effect. One image is measured, and two batches if that is
    quick. Tables and pictures at the end of a run do not count.
    """
    models, metrics = list(models), as_list(metrics)
    if protocol is None and not metrics and len(models) == 1:  # As `score`; `compare` measures all models alike.
        classifier = as_classifier(models[0], more.get("device"))
        models, protocol = [classifier], default_protocol(classifier)
    run = make_run(data, protocol, metrics, more)
    estimates = list[Estimate]()
    for classifier, explainers in prepare_models(models, methods, more):
        images = run.read_images(classifier)
        passes = count_passes_of_first(classifier, images, explainers)  # Includes the first look at the network.
        num_images = len(images)

        def score_first(
            count: int, folder: Path, named: NamedMethods = (classifier, explainers), passes: Sequence[float] = passes
        ) -> None:
            replace(run, ceiling=0, selection=replace(run.selection, limit=count)).measure(folder, *named, passes)

        measured = _measure_first(score_first, num_images, run.batch_size, "*.npz")
        estimate = _make_estimate(classifier, explainers, passes, num_images, run.batch_size, measured)
        if run.ceiling:
            first = next(sample for sample in map(images.__getitem__, range(num_images)) if isinstance(sample, Sample))
            num_cells = torch.Size(classifier.grid_size(first.image[None])).numel()
            runs = count_ceiling_runs(run.plan, num_cells, run.ceiling_stride)
            estimate = replace(estimate, num_ceiling=min(run.ceiling, num_images), ceiling_runs=runs)
        estimates.append(estimate)
    return estimates


def _measure_first(
    measure: Callable[[int, Path], None], num_images: int, batch_size: int, pattern: str
) -> tuple[int, float, int]:
    """Measure the first image, and some batches if that takes less than `MAX_SECONDS`.

    Args:
        measure: Runs on a number of images, with results in a folder.
        pattern: Of the files that count.

    Returns:
        Number of images that were measured together, seconds, and bytes of the results.
    """
    most = min(NUM_BATCHES * batch_size, num_images)
    for count in sorted({1, most}):
        logger.info("measuring %s", count_nouns(count, "image"))
        with TemporaryDirectory() as folder:
            start = time.perf_counter()
            try:
                measure(count, Path(folder))
            except ImageError:  # The others may be readable.
                if count == most:
                    raise
                continue
            seconds = time.perf_counter() - start
            num_bytes = sum(path.stat().st_size for path in Path(folder).rglob(pattern) if path.is_file())
        if seconds * most > MAX_SECONDS:
            break
    return count, seconds, num_bytes


def _make_estimate(
    classifier: Classifier,
    explainers: Sequence[Explainer],
    passes: Sequence[float],
    num_images: int,
    batch_size: int,
    measured: tuple[int, float, int],
) -> Estimate:
    num_measured, seconds, num_bytes = measured
    return Estimate(
        model=classifier.name,
        device=str(classifier.device),
        num_images=num_images,
        num_measured=num_measured,
        num_batches=-(-num_images // batch_size),
        passes={explainer.name: count for explainer, count in zip(explainers, passes, strict=True)},
        seconds_per_image=seconds / num_measured,
        bytes_per_image=num_bytes / num_measured,
    )
