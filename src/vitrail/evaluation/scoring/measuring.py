"""Measure one batch of images: explain it by every method, and pass the explanations to all metrics."""

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from vitrail.adapters import Classifier
from vitrail.core.autocast import in_precision
from vitrail.core.progress import portion
from vitrail.datasets.dataset import Batch, Unreadable
from vitrail.evaluation.batches import move_readable, unreadable_files
from vitrail.evaluation.scoring.plan import Plan
from vitrail.evaluation.scoring.selection import LABEL
from vitrail.evaluation.scoring.shards import CurveShard, ScoreShard, expect_one_grid
from vitrail.explainers import Explainer
from vitrail.explanation import Explanation
from vitrail.metrics import Curves, InsertionDeletion, MetricBatch

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class BatchMeasurer:
    """Measures batches of images.

    Attributes:
        classifier: The model.
        explainers: Methods tied to it.
        plan: What to measure.
        target: Class to explain; None for the predicted one, "label" for the label of every image.
        indices: Index of every image in the data set, by name.
    """

    classifier: Classifier
    explainers: Sequence[Explainer]
    plan: Plan
    target: int | str | None
    indices: Mapping[str, int]

    def measure_shard(self, batches: Sequence[Batch], with_effect: bool) -> ScoreShard:
        """Measure the images of one loader batch, grouped by size.

        Args:
            batches: One batch per image size.
            with_effect: Whether to measure the effect of reduced precision, if a method has it.
        """
        measured = [self._measure_batch(batch) for batch in move_readable(batches, self.classifier)]
        shard = _merge(measured, self.plan, len(self.explainers), unreadable_files(batches))
        reduced = any(explainer.precision != "full" for explainer in self.explainers)
        return replace(shard, effect=self._measure_effect(batches, shard)) if with_effect and reduced and measured else shard

    def _measure_effect(self, batches: Sequence[Batch], shard: ScoreShard) -> Float[np.ndarray, " columns"]:
        """Return the mean difference in magnitude that reduced precision makes, per column."""
        exact = replace(self, explainers=[replace(explainer, precision="full") for explainer in self.explainers])
        differences = np.abs(shard.values - exact.measure_shard(batches, with_effect=False).values)
        defined = ~np.isnan(differences)
        with np.errstate(invalid="ignore"):
            return np.where(defined, differences, 0).sum((0, 1)) / defined.sum((0, 1))

    def _measure_batch(self, batch: Batch) -> ScoreShard:
        """Measure images of one size."""
        view = MetricBatch(self.classifier, batch.images, batch.ground_truth)
        target: Any = batch.labels.to(batch.images.device) if self.target == LABEL else self.target
        if target is None:
            # One prediction for all methods: in reduced precision or in a tie, each might explain another class.
            target = view.logits.argmax(-1)
        values, curves, seconds = list[Tensor](), dict[str, list[Curves]](), list[float]()
        for i, explainer in enumerate(self.explainers):
            start = time.perf_counter()
            with portion(2 * i, 2 * len(self.explainers)):
                explanation = explainer.explain(batch.images, target)
            _synchronize(batch.images.device)
            seconds.append(time.perf_counter() - start)
            # A method in reduced precision is also measured in it: half of the time goes into the metrics.
            with (
                in_precision(explainer.precision, batch.images.device),
                portion(2 * i + 1, 2 * len(self.explainers)),
            ):
                values.append(torch.cat(self._compute_columns(view, explanation, explainer, curves), 1))
        return ScoreShard(
            np.array([self.indices[path] for path in batch.paths]),
            explanation.targets.cpu().numpy(),
            self._replace_infinite(torch.stack(values).cpu().double().numpy()),
            np.array(seconds),
            {name: _stack_curves(name, per_method) for name, per_method in curves.items()},
        )

    def _compute_columns(
        self, view: MetricBatch, explanation: Explanation, explainer: Explainer, curves: dict[str, list[Curves]]
    ) -> list[Tensor]:
        columns = []
        for i, (name, metric) in enumerate(self.plan.metrics.items()):
            with portion(i, len(self.plan.metrics)):
                if isinstance(metric, InsertionDeletion):
                    measured = metric.measure_curves(view, explanation)
                    curves.setdefault(name, []).append(measured)
                    columns.append(measured.auc().float())
                else:
                    columns.append(metric.measure_batch(view, explanation, explainer).to(view.images.device).float())
        return columns

    def _replace_infinite(self, values: np.ndarray) -> np.ndarray:
        """Replace infinite numbers by NaN, so that means stay finite."""
        for method, column in sorted(set(zip(*np.isinf(values).any(1).nonzero(), strict=True))):
            logger.warning(
                "%s of %s is infinite for some images; they are left out",
                self.plan.columns[column].name,
                self.explainers[method].name,
            )
        return np.where(np.isinf(values), np.nan, values)


def _merge(measured: Sequence[ScoreShard], plan: Plan, num_methods: int, unreadable: tuple[Unreadable, ...]) -> ScoreShard:
    """Merge batches of several image sizes into one shard, in the order of the images."""
    if not measured:
        empty = np.zeros(0, dtype=np.int64)
        values = np.zeros((num_methods, 0, len(plan.columns)))
        return ScoreShard(empty, empty, values, np.zeros(num_methods), unreadable=unreadable)
    indices = np.concatenate([batch.indices for batch in measured])
    order = indices.argsort(kind="stable")
    curves = {}
    for name in plan.protocols:
        parts = [batch.curves[name] for batch in measured]
        expect_one_grid(name, [part.fractions for part in parts])
        scores, ends = (np.concatenate([getattr(part, field) for part in parts], 1)[:, order] for field in ("scores", "ends"))
        curves[name] = CurveShard(parts[0].fractions, scores, ends)
    targets = np.concatenate([batch.targets for batch in measured])
    values = np.concatenate([batch.values for batch in measured], 1)
    seconds = np.sum([batch.seconds for batch in measured], 0)
    return ScoreShard(indices[order], targets[order], values[:, order], seconds, curves, unreadable=unreadable)


def _stack_curves(name: str, curves: Sequence[Curves]) -> CurveShard:
    """Stack the curves of all methods as arrays."""
    expect_one_grid(name, [each.fractions.cpu().numpy() for each in curves])
    scores, ends = (np.stack([getattr(each, field).float().cpu().numpy() for each in curves]) for field in ("scores", "ends"))
    return CurveShard(curves[0].fractions.float().cpu().numpy(), scores, ends)


def _synchronize(device: torch.device) -> None:
    """Wait until the device has finished the work that is being timed."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
