"""One pass over the images: every batch is read once, explained once by every method, and shown to all metrics."""

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from vitrail.adapters import Classifier
from vitrail.core.autocast import in_precision
from vitrail.core.distributed import gather, rank, world_size
from vitrail.core.errors import InvalidInputError, OutputError
from vitrail.core.files import output_folder
from vitrail.core.progress import progress
from vitrail.datasets.collate import collate_by_size
from vitrail.datasets.dataset import Batch, LabeledImages, Unreadable
from vitrail.datasets.sampler import fixed_generator, read_on_cpu
from vitrail.datasets.workers import AGAIN, explain_killed_workers
from vitrail.evaluation.batches import expect_readable, places
from vitrail.evaluation.scoring.cost import passes_of_first
from vitrail.evaluation.scoring.plan import Plan
from vitrail.evaluation.scoring.scores import Scores
from vitrail.evaluation.scoring.shards import FOLDER, CurveShard, Shard, expect_one_grid, shard_file
from vitrail.explainers import Explainer, distinct_names
from vitrail.explanation import Explanation
from vitrail.metrics import Curves, InsertionDeletion, View

logger = logging.getLogger(__name__)

LABEL = "label"
"""As a target: the label of every image."""


@explain_killed_workers(AGAIN)
def score(
    classifier: Classifier,
    images: LabeledImages,
    explainers: Sequence[Explainer],
    plan: Plan,
    target: int | str | None = None,
    batch_size: int = 16,
    num_workers: int = 0,
    folder: Path | None = None,
    passes: Sequence[float] | None = None,
    key: str = "",
) -> Scores:
    """Explain every image by every method, and measure all maps by all metrics.

    Batches are a fixed partition of the images, and a batch is measured in one piece: by one process or another, now or in a run
    that goes on later, with the same numbers. Inside `vitrail.core.distributed.process_group` each process takes its share of the
    batches, and all get the same scores.

    Args:
        classifier: The model.
        images: With the model's preprocessing; with ground_truth where a metric needs them.
        explainers: Methods tied to the model.
        plan: What to measure.
        target: Class to explain; None for the predicted one, or "label" for the label of every image.
        batch_size: Images that are explained at once.
        num_workers: Processes that read images.
        folder: Where the results of every batch are kept as they come; what is there already is not measured again. It has to
            be one that all processes share.
        passes: What each method costs, where `passes_of_first` was asked before.
        key: What tells this run from others; batches in the folder that have another are measured again.

    Raises:
        InvalidInputError: A method twice, labels that are asked for and not there, ground_truth that a metric needs and nobody knows,
            or maps of several grids, where points of a curve are counted in cells.
        ImageError: Not one image could be read.
        ProcessError: A process that reads images was killed.
    """
    names = distinct_names(explainers)
    if batch_size < 1 or num_workers < 0:
        raise InvalidInputError(
            f"expected a batch_size of at least 1 and num_workers of at least 0, got {batch_size} and {num_workers}"
        )
    work = _Work(classifier, images, explainers, plan, target, batch_size, num_workers, folder, key)
    parts = work.run()
    expect_readable(sum(len(part.places) for part in parts), images, [file for part in parts for file in part.unreadable])
    passes = passes_of_first(classifier, images, explainers) if passes is None else passes
    return Scores.of(classifier, names, plan, images, parts, passes, work.curve_shards(parts))


@dataclass(frozen=True, eq=False)
class _Work:
    classifier: Classifier
    images: LabeledImages
    explainers: Sequence[Explainer]
    plan: Plan
    target: int | str | None
    batch_size: int
    num_workers: int
    folder: Path | None
    key: str

    def run(self) -> list[Shard]:
        """Measure what is not measured yet; the parts of all processes, in order; without curves where these lie in files."""
        numbers = range(-(-len(self.images) // self.batch_size))
        found = dict[int, Shard]()
        if self.folder is not None:
            output_folder(self.folder / FOLDER)
            read = (
                (number, Shard.load(shard_file(self.folder, number), with_curves=False, key=self.key)) for number in numbers
            )
            found = {number: part for number, part in read if part is not None}
        # Before anything is written: all processes have to see the same files as done.
        gather([None])
        pending = [number for number in numbers if number not in found][rank() :: world_size()]
        fractions = dict[str, Any]()
        for number, part in zip(pending, self._measure_shards(pending), strict=True):
            for name, curves in part.curves.items():  # Told now, not when all is done.
                expect_one_grid(name, [fractions.setdefault(name, curves.fractions), curves.fractions])
            if self.folder is None:
                found[number] = part
            else:
                part.save(shard_file(self.folder, number), self.key)
                found[number] = part.without_curves()
        return self._collect_shards(found, len(numbers))

    def _collect_shards(self, found: dict[int, Shard], count: int) -> list[Shard]:
        if self.folder is None:
            return [part for _, part in sorted(gather(list(found.items())), key=lambda entry: entry[0])]
        gather([None])  # Until the last process has written its last part.
        return [found.get(number) or self._read_shard(self.folder, number, with_curves=False) for number in range(count)]

    def curve_shards(self, parts: Sequence[Shard]) -> Callable[[], Iterator[Shard]]:
        """What gives the parts with their curves, one after the other."""
        folder = self.folder
        if folder is None:
            return lambda: iter(parts)
        return lambda: (self._read_shard(folder, number) for number in range(len(parts)))

    def _read_shard(self, folder: Path, number: int, with_curves: bool = True) -> Shard:
        path = shard_file(folder, number)
        part = Shard.load(path, with_curves, self.key)
        if part is None:
            raise OutputError(f"expected {path}, which another process wrote; give all processes one --out that they share")
        return part

    def _measure_shards(self, numbers: Sequence[int]) -> Iterator[Shard]:
        size, place = self.batch_size, places(self.images)
        batches = [list(range(at * size, min((at + 1) * size, len(self.images)))) for at in numbers]
        loader: DataLoader[Any] = DataLoader(
            self.images,
            batch_sampler=batches,
            num_workers=self.num_workers,
            collate_fn=collate_by_size,
            generator=fixed_generator(),
        )
        read = read_on_cpu(loader)
        shown = progress(read, len(batches), "scoring") if rank() == 0 else read
        for number, of_one_size in zip(numbers, shown, strict=True):
            yield self._measure_shard(of_one_size, place, first=number == 0)

    def _measure_shard(self, batches: Sequence[Batch], place: dict[str, int], first: bool) -> Shard:
        """Measure one batch; its images may be of several sizes."""
        measured, unreadable = list[_Measured](), list[Unreadable]()
        for batch in batches:
            unreadable += batch.unreadable
            if len(batch.images):
                device, dtype = self.classifier.device, self.classifier.dtype
                ground_truth = None if batch.ground_truth is None else batch.ground_truth.to(device)
                measured.append(
                    self._measure_batch(batch._replace(images=batch.images.to(device, dtype), ground_truth=ground_truth), place)
                )
        seconds = np.sum([each.seconds for each in measured], 0) if measured else np.zeros(len(self.explainers))
        part = _join(measured, self.plan, len(self.explainers), seconds, tuple(unreadable))
        reduced = any(explainer.precision != "full" for explainer in self.explainers)
        return replace(part, effect=self._effect(batches, place, part)) if first and reduced and measured else part

    def _effect(self, batches: Sequence[Batch], place: dict[str, int], part: Shard) -> np.ndarray:
        """The mean difference, in magnitude, that reduced precision makes on a batch."""
        exact = replace(self, explainers=[replace(explainer, precision="full") for explainer in self.explainers])
        full = exact._measure_shard(batches, place, first=False)
        differences = np.abs(part.values - full.values)
        known = ~np.isnan(differences)
        with np.errstate(invalid="ignore"):
            return np.where(known, differences, 0).sum((0, 1)) / known.sum((0, 1))

    def _measure_batch(self, batch: Batch, place: dict[str, int]) -> "_Measured":
        view = View(self.classifier, batch.images, batch.ground_truth)
        target: Any = batch.labels.to(batch.images.device) if self.target == LABEL else self.target
        if target is None:
            # Once for all: in reduced precision, or in a tie, each method would see a class of its own.
            target = view.logits.argmax(-1)
        values, curves, seconds = list[Tensor](), dict[str, list[Curves]](), list[float]()
        for explainer in self.explainers:
            started = time.perf_counter()
            explanation = explainer.explain(batch.images, target)
            _wait(batch.images.device)
            seconds.append(time.perf_counter() - started)
            # A method in reduced precision is measured in it too: half of the work is the metrics'.
            with in_precision(explainer.precision, batch.images.device):
                values.append(torch.cat(self._columns(view, explanation, explainer, curves), 1))
        return _Measured(
            np.array([place[path] for path in batch.paths]),
            explanation.targets.cpu().numpy(),
            self._finite(torch.stack(values).cpu().double().numpy()),
            {name: _stack_curves(name, each) for name, each in curves.items()},
            np.array(seconds),
        )

    def _finite(self, values: np.ndarray) -> np.ndarray:
        """Undefined in place of infinite, which no mean survives."""
        for method, column in sorted(set(zip(*np.isinf(values).any(1).nonzero(), strict=True))):
            logger.warning(
                "%s of %s is infinite on some images, and left out there",
                self.plan.columns[column].name,
                self.explainers[method].name,
            )
        return np.where(np.isinf(values), np.nan, values)

    def _columns(
        self, view: View, explanation: Explanation, explainer: Explainer, curves: dict[str, list[Curves]]
    ) -> list[Tensor]:
        found = []
        for name, metric in self.plan.metrics.items():
            if isinstance(metric, InsertionDeletion):
                measured = metric.measure_curves(view, explanation)
                curves.setdefault(name, []).append(measured)
                found.append(measured.auc().float())
            else:
                found.append(metric.checked(view, explanation, explainer).to(view.images.device).float())
        return found


@dataclass(frozen=True, eq=False)
class _Measured:
    """What was measured of images of one size."""

    places: np.ndarray
    targets: np.ndarray
    values: np.ndarray
    curves: dict[str, CurveShard]
    seconds: np.ndarray


def _join(
    measured: Sequence[_Measured], plan: Plan, num_methods: int, seconds: np.ndarray, unreadable: tuple[Unreadable, ...]
) -> Shard:
    """One part of a batch's images, in their order."""
    if not measured:
        empty = np.zeros(0, dtype=np.int64)
        return Shard(empty, empty, np.zeros((num_methods, 0, len(plan.columns))), seconds, {}, None, unreadable)
    at = np.concatenate([each.places for each in measured])
    order = at.argsort(kind="stable")
    curves = {}
    for name in plan.protocols:
        each = [part.curves[name] for part in measured]
        expect_one_grid(name, [part.fractions for part in each])
        scores, ends = (np.concatenate([getattr(part, field) for part in each], 1)[:, order] for field in ("scores", "ends"))
        curves[name] = CurveShard(each[0].fractions, scores, ends)
    targets, values = np.concatenate([part.targets for part in measured]), np.concatenate([part.values for part in measured], 1)
    return Shard(at[order], targets[order], values[:, order], seconds, curves, None, unreadable)


def _stack_curves(name: str, measured: Sequence[Curves]) -> CurveShard:
    """The curves of all methods, as arrays."""
    expect_one_grid(name, [each.fractions.cpu().numpy() for each in measured])
    scores, ends = (np.stack([getattr(each, name).float().cpu().numpy() for each in measured]) for name in ("scores", "ends"))
    return CurveShard(measured[0].fractions.float().cpu().numpy(), scores, ends)


def _wait(device: torch.device) -> None:
    """Until the device has done its work, which is being timed."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
