"""Score models into a run directory: claim it, measure or resume, and write the results."""

import logging
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from vitrail.adapters import Classifier
from vitrail.core.distributed import rank
from vitrail.core.errors import InvalidInputError
from vitrail.core.files import output_folder
from vitrail.core.json_io import json_text, parse_json
from vitrail.core.listing import count_nouns
from vitrail.core.locking import only_run
from vitrail.datasets.dataset import LabeledImages
from vitrail.datasets.source import TEST_SPLITS, DataSource
from vitrail.evaluation.batches import index_by_name, read_first
from vitrail.evaluation.scoring.ceiling import FOLDER as CEILING_FOLDER
from vitrail.evaluation.scoring.ceiling import check_ceiling, measure_ceiling
from vitrail.evaluation.scoring.cost import count_passes_of_first
from vitrail.evaluation.scoring.engine import score
from vitrail.evaluation.scoring.expected_time import tell_expected_time
from vitrail.evaluation.scoring.measuring import BatchMeasurer
from vitrail.evaluation.scoring.plan import Plan
from vitrail.evaluation.scoring.report import file_name, write_results
from vitrail.evaluation.scoring.scored_model import ScoredModel, describe_setup
from vitrail.evaluation.scoring.scores import Scores
from vitrail.evaluation.scoring.selection import LABEL, Selection
from vitrail.evaluation.scoring.sheets import write_sheets
from vitrail.evaluation.scoring.stale_results import PICTURES
from vitrail.evaluation.scoring.table import Table
from vitrail.explainers import Explainer
from vitrail.runs.claim import RunDirectory, expect_outside
from vitrail.runs.manifest import METRICS, Manifest, describe_environment, describe_method, describe_model, fingerprint_images
from vitrail.runs.shards import FOLDER, remove_shards

logger = logging.getLogger(__name__)

MODELS = "models"
"""Subfolder of a comparison with one run directory per model."""

NamedMethods = tuple[Classifier, Sequence[Explainer]]


@dataclass(frozen=True, eq=False)
class ScoringRun:
    """What to score, and how.

    Attributes:
        plan: What to measure.
        source: Where the images come from.
        selection: Which of them are scored.
        batch_size: Images per batch; part of the settings of a run, since rounding depends on it.
        num_workers: Processes that read images.
        overwrite: Whether earlier results are replaced.
        ceiling: Maximum number of images whose best orders are searched for; 0 searches for none. It does not change other results, so
            that a finished run can be extended.
        ceiling_stride: Number of cells that change at a step of this search.
    """

    plan: Plan
    source: DataSource
    selection: Selection
    batch_size: int = 16
    num_workers: int = 0
    overwrite: bool = False
    ceiling: int = 0
    ceiling_stride: int = 1

    def score(self, classifier: Classifier, explainers: Sequence[Explainer]) -> Scores:
        """Score a model in memory."""
        return self.measure(None, classifier, explainers)

    def measure(
        self,
        folder: Path | None,
        classifier: Classifier,
        explainers: Sequence[Explainer],
        passes: Sequence[float] | None = None,
    ) -> Scores:
        """Score a model in memory, or with shards in a folder; claim nothing and write no report."""
        self._check_ceiling(explainers)
        return self._measure(self.read_images(classifier), classifier, explainers, self._target(classifier), folder, passes)

    def score_into(self, folder: Path, classifier: Classifier, explainers: Sequence[Explainer]) -> Scores:
        """Score a model, or resume an interrupted run with the same settings; write tables, pictures and a page.

        Inside `vitrail.core.distributed.process_group`, the processes share the work; the first one writes the report.

        Args:
            folder: The run directory, shared by all processes.

        Raises:
            InvalidInputError: The folder lies inside the images, or the target is no class of the model.
            OutputError: The folder holds something else or scores of other settings, cannot be written, or is in use by another run.
        """
        with ExitStack() as locks:
            scored = self._measure_into(folder, classifier, explainers, locks)
            if rank() == 0:
                setup = describe_setup([scored], explainers, self.selection, self.source.title)
                write_results(folder, scored.scores.table, scored.captions, setup)
        return scored.scores

    def try_models(self, models: Iterable[NamedMethods]) -> None:
        """Measure one image under every model, so that models that cannot be compared are refused before any is scored.

        Raises:
            InvalidInputError: Two models of the same name, whose results would lie in one folder.
            VitrailError: What is measured is not possible for one of the models.
        """
        folders = set[str]()
        for classifier, explainers in models:
            if file_name(classifier.name) in folders:
                raise InvalidInputError(
                    f"expected models of different names, got two named {classifier.name}; name each by --name in the order of the "
                    "models, as in --name old,new (in Python, by display_name of vitrail.load)"
                )
            folders.add(file_name(classifier.name))
            images = self.read_images(classifier)
            measurer = BatchMeasurer(classifier, explainers, self.plan, self._target(classifier), index_by_name(images))
            measurer.measure_shard(read_first(images), with_effect=False)

    def compare_into(self, folder: Path, names: Sequence[str], models: Iterable[NamedMethods]) -> Table:
        """Score several models like `score_into`, each into a subfolder of its name, and write one report of all.

        Args:
            folder: The run directory, shared by all processes.
            names: Names of the models, as they are recorded.
            models: Models that passed `try_models`, with their methods. They are taken one after the other, so that a generator holds one
                model in memory at a time.

        Raises:
            OutputError: As `score_into`.
        """
        settings = {"compared": list(names), **self.source.describe(), "metrics": self._describe_plan()}
        scored, captions, used = list[ScoredModel](), dict[str, str](), list[Explainer]()
        directory = self._directory(folder, Manifest(settings, {}))
        with ExitStack() as locks:

            def occupy() -> None:
                locks.enter_context(only_run(output_folder(folder)))
                directory.claim()

            if rank() == 0 and folder.exists():
                directory.expect_claimable()
            for classifier, explainers in models:
                subfolder = Path(MODELS) / file_name(classifier.name)
                before_writing = None if scored else occupy
                model = self._measure_into(folder / subfolder, classifier, explainers, locks, before_writing)
                scored.append(model)
                used += explainers
                captions |= {str(subfolder / file): f"{classifier.name}: {caption}" for file, caption in model.captions.items()}
            table = Table.from_scores([model.scores for model in scored])
            if rank() == 0:
                setup = describe_setup(scored, used, self.selection, self.source.title)
                write_results(folder, table, captions, setup)
        return table

    def _measure_into(
        self,
        folder: Path,
        classifier: Classifier,
        explainers: Sequence[Explainer],
        locks: ExitStack,
        before_writing: Callable[[], object] | None = None,
    ) -> ScoredModel:
        """Score a model with shards in a folder, and write its contact sheets.

        Args:
            locks: Holds the lock of the folder.
            before_writing: Called in the first process after all checks, before anything is written.
        """
        self._check_ceiling(explainers)
        if self.selection.root is not None:
            expect_outside(folder, self.selection.root)
        target = self._target(classifier)
        available = self._read_source(classifier)
        images = self._select(available, classifier)
        settings = {
            **describe_model(classifier, None),
            **self.source.describe(),
            **self.selection.describe(),
            "target": target,
            "batch_size": self.batch_size,
            "num_images": len(images),
            "images": fingerprint_images(images),
            METRICS: self._describe_plan(),
        }
        methods = {explainer.name: describe_method(explainer) for explainer in explainers}
        manifest = Manifest(settings, methods, describe_environment(classifier))
        directory = self._directory(folder, manifest)
        if self.selection.limit is not None and len(images) < self.selection.limit:
            logger.info("%s in all, fewer than the limit of %d", count_nouns(len(images), "image"), self.selection.limit)
        if rank() == 0:
            directory.expect_claimable()
        # A trial run, before earlier results are replaced.
        passes = count_passes_of_first(classifier, images, explainers)
        if rank() == 0 and before_writing is not None:
            before_writing()
        locks.enter_context(directory.claimed())
        if rank() == 0:
            measurer = BatchMeasurer(classifier, explainers, self.plan, target, index_by_name(images))
            tell_expected_time(measurer, images, self.batch_size, folder)
        scores = self._measure(images, classifier, explainers, target, folder, passes, manifest.key)
        sheets = write_sheets(folder, scores, self.plan, images, explainers) if rank() == 0 else {}
        height, width = classifier.preprocessing.size
        is_limited = len(images) == self.selection.limit and len(images) < len(available)
        return ScoredModel(scores, sheets, is_limited, f"{height}x{width} pixels, weights {settings['weights']}")

    def _check_ceiling(self, explainers: Sequence[Explainer]) -> None:
        if self.ceiling < 0:
            raise InvalidInputError(f"expected a ceiling on at least 1 image, or 0 for none, got {self.ceiling}")
        if self.ceiling_stride < 1:
            raise InvalidInputError(f"expected a ceiling stride of at least 1 cell, got {self.ceiling_stride}")
        if self.ceiling:
            check_ceiling(self.plan, [explainer.name for explainer in explainers])

    def _measure(
        self,
        images: LabeledImages,
        classifier: Classifier,
        explainers: Sequence[Explainer],
        target: int | str | None,
        folder: Path | None,
        passes: Sequence[float] | None,
        key: str = "",
    ) -> Scores:
        speed = self.batch_size, self.num_workers
        scores = score(classifier, images, explainers, self.plan, target, *speed, folder, passes, key)
        if not self.ceiling:
            return scores
        targets = dict(zip(scores.indices.tolist(), scores.targets.tolist(), strict=True))
        search = self.ceiling, self.ceiling_stride, self.num_workers
        ceiling = measure_ceiling(classifier, images, self.plan, targets, *search, folder, key)
        return replace(scores, ceiling=ceiling)

    def _directory(self, folder: Path, manifest: Manifest) -> RunDirectory:
        def remove_results(methods: Sequence[str]) -> None:
            remove_shards(folder)
            remove_shards(folder / CEILING_FOLDER)

        return RunDirectory(folder, manifest, self.overwrite, remove_results, [FOLDER, CEILING_FOLDER, PICTURES])

    def read_images(self, classifier: Classifier) -> LabeledImages:
        """Read the images and choose those that are scored."""
        return self._select(self._read_source(classifier), classifier)

    def _read_source(self, classifier: Classifier) -> LabeledImages:
        return self.source.read(classifier.preprocessing, TEST_SPLITS)

    def _select(self, images: LabeledImages, classifier: Classifier) -> LabeledImages:
        return self.selection.apply(images, classifier, self.plan, max(self.batch_size, 64), self.num_workers)

    def _target(self, classifier: Classifier) -> int | str | None:
        target = self.selection.explained
        return target if target in (None, LABEL) else classifier.class_index(target)

    def _describe_plan(self) -> object:
        return parse_json(json_text(self.plan.options))
