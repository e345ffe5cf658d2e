"""The ceiling of insertion and deletion curves: the area under the curve whose order was searched for on that very curve.

The search starts from both ends, since each gets stuck where the other does not: on a blank image, no single cell may raise a probability
that needs two, but taking cells from the whole image keeps both; a saturated probability is the opposite case.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from vitrail.adapters import Classifier
from vitrail.core.errors import InvalidInputError
from vitrail.core.float32 import at_least_float32
from vitrail.core.types import Keep
from vitrail.datasets.collate import collate_by_size
from vitrail.datasets.dataset import Batch, LabeledImages
from vitrail.evaluation.batches import Columns, index_by_name, measure_shard
from vitrail.evaluation.scoring.plan import Plan
from vitrail.explainers._greedy import count_runs, find_order
from vitrail.explanation import Explanation
from vitrail.metrics import InsertionDeletion, MetricBatch, Protocol
from vitrail.metrics.curves import score_logits
from vitrail.metrics.perturbation import protocol_steps
from vitrail.metrics.statistics import CONTROL
from vitrail.runs.loop import Batches, Pass
from vitrail.runs.shards import Shard, ShardStore

CEILING = "greedy"
"""Name of the control that is searched for, and not ranked among methods."""

FOLDER = "ceiling"
"""Subfolder of a run directory with the shards of the ceiling."""


@dataclass(frozen=True, eq=False)
class CeilingShard(Shard):
    """The ceiling of one batch of images.

    Attributes:
        indices: Indices of the images in the scored data set.
        values: Area under every curve; NaN in other columns.
        num_runs: How often the network ran to find all orders of an image.
    """

    indices: Int[np.ndarray, " images"]
    values: Float[np.ndarray, "images columns"]
    num_runs: Int[np.ndarray, " images"]


@dataclass(frozen=True, eq=False)
class Ceiling:
    """The ceiling of a sample of the scored images.

    Attributes:
        indices: Indices of the images in the data set.
        values: By column, the area under the curve of every image.
        num_runs: How often the network ran to find the orders of one image, on average.
    """

    indices: Int[np.ndarray, " images"]
    values: Mapping[str, Float[np.ndarray, " images"]]
    num_runs: float


def check_ceiling(plan: Plan, methods: Sequence[str]) -> None:
    """Check that there are curves with a ceiling, and a floor.

    Raises:
        InvalidInputError: No protocol that changes cells, or no control among the methods.
    """
    if not any(protocol.unit == "cells" for protocol in plan.protocols.values()):
        raise InvalidInputError(
            "expected a --protocol that changes cells for --ceiling, which searches for the best order of cells, got "
            f"{', '.join(plan.protocols) or 'none'}"
        )
    if CONTROL not in methods:
        raise InvalidInputError(f"expected {CONTROL} among the methods as the floor of --ceiling, got {', '.join(methods)}")


def measure_ceiling(
    classifier: Classifier,
    images: LabeledImages,
    plan: Plan,
    targets: Mapping[int, int],
    limit: int,
    stride: int,
    num_workers: int,
    folder: Path | None,
    key: str,
) -> Ceiling:
    """Search for the best order of cells for every curve, on some of the images; resume from shards of one image each.

    Args:
        targets: Explained class by index of the image; others are skipped.
        limit: Maximum number of images, evenly spread.
        stride: Number of cells that change at a step of the search, whose cost falls in proportion.
        folder: The run directory, shared by all processes; None keeps the results in memory.
    """
    measure = _CeilingMeasurer(classifier, plan, targets, index_by_name(images), stride)
    batches = Batches(images.subset(sorted(targets)).subsample(limit), 1, collate_by_size, num_workers)
    store = None if folder is None else ShardStore(folder / FOLDER, f"{key} {limit} {stride} from both ends", CeilingShard)
    shards = Pass(batches, measure, "ceiling", store).run()
    values = np.concatenate([shard.values for shard in shards])
    return Ceiling(
        np.concatenate([shard.indices for shard in shards]),
        {column.name: values[:, i] for i, column in enumerate(plan.columns) if not np.isnan(values[:, i]).all()},
        float(np.concatenate([shard.num_runs for shard in shards]).mean()),
    )


def count_ceiling_runs(plan: Plan, num_cells: int, stride: int = 1) -> int:
    """Return how often the network runs to find the orders of one image, from both ends."""
    return sum(2 * count_runs(num_cells, stride) * len(p.curves) for p in plan.protocols.values() if p.unit == "cells")


@dataclass(frozen=True, eq=False)
class _CeilingMeasurer:
    """Measures the shard of a batch."""

    classifier: Classifier
    plan: Plan
    targets: Mapping[int, int]
    indices: Mapping[str, int]
    stride: int

    def __call__(self, number: int, batches: Iterator[Sequence[Batch]]) -> CeilingShard:
        empty = (np.zeros(0, np.int64), np.zeros((0, len(self.plan.columns))), np.zeros(0, np.int64))
        return measure_shard(CeilingShard, empty, self._measure, next(batches), self.classifier)

    def _measure(self, batch: Batch) -> Columns:
        indices = np.array([self.indices[path] for path in batch.paths])
        targets = torch.tensor([self.targets[index] for index in indices.tolist()], device=batch.images.device)
        view = MetricBatch(self.classifier, batch.images)
        values = np.full((len(indices), len(self.plan.columns)), np.nan)
        column = 0
        for metric in self.plan.metrics.values():
            if isinstance(metric, InsertionDeletion) and metric.protocol.unit == "cells":
                for i, curve in enumerate(metric.protocol.curves):
                    found = [self._search(view, metric.protocol, i, targets, inserts) for inserts in (True, False)]
                    areas = torch.stack([metric.measure_curves(view, each).auc()[:, i] for each in found])
                    best = areas.amax(0) if curve.better == "higher" else areas.amin(0)
                    values[:, column + i] = best.cpu().double().numpy()
            column += len(metric.measures)
        num_runs = count_ceiling_runs(self.plan, torch.Size(view.patch_grid).numel(), self.stride)
        return indices, np.where(np.isinf(values), np.nan, values), np.full(len(indices), num_runs)

    def _search(self, view: MetricBatch, protocol: Protocol, index: int, targets: Tensor, inserts: bool) -> Explanation:
        """Return the map whose curve is greedily the best one, searched for by inserting cells or by deleting them."""
        curve, grid = protocol.curves[index], view.patch_grid
        steps = next(each for each in protocol_steps(protocol) if each.baseline == curve.baseline)

        def values(keep: Keep) -> Tensor:
            stepped = steps.masked_logits(self.classifier, view.images, keep.to(targets.device))
            # In double precision, probabilities near 1 still differ.
            logits, original = (at_least_float32(each).cpu().double() for each in (stepped, view.logits))
            return score_logits(logits[:, None], original, targets.cpu(), curve.score, self.classifier.output)[:, 0]

        with self.classifier.inspecting(), torch.no_grad():
            num_cells = torch.Size(grid).numel()
            order = find_order(values, len(targets), num_cells, inserts, curve.better == "higher", self.stride)
        # The last cell that a search in the other direction changes is the first one on the curve.
        position = (order if inserts == (curve.direction == "insertion") else order.flip(1)).argsort(1)
        relevance = (position if curve.order == "least" else num_cells - 1 - position).to(targets.device).float()
        return Explanation(relevance.unflatten(1, grid), targets, view.logits, CEILING)
