"""The scores of one model: numbers per method, image and column, with their cost."""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float, Int

from vitrail.adapters import Classifier
from vitrail.core.registry import unknown_name
from vitrail.datasets.dataset import LabeledImages, Unreadable
from vitrail.evaluation.scoring.ceiling import Ceiling
from vitrail.evaluation.scoring.cost import Cost
from vitrail.evaluation.scoring.plan import ALWAYS, Column, Plan
from vitrail.evaluation.scoring.shards import CurveShard, ScoreShard, expect_one_grid
from vitrail.metrics import Curves, Protocol
from vitrail.metrics.statistics import Intervals, bootstrap_interval
from vitrail.metrics.statistics.resampling import divide
from vitrail.runs.shards import list_unreadable

if TYPE_CHECKING:
    from vitrail.evaluation.scoring.table import Table

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False, repr=False)
class Scores:
    """Scores of several methods for one model on the same images.

    Attributes:
        model: Name of the model.
        methods: Names of the methods.
        columns: What was measured; columns that are undefined for all images are left out.
        values: One number per method, image and column; NaN where it is undefined.
        targets: Explained class of every image.
        target_names: Its name.
        paths: File of every image.
        indices: Index of every image in the data set.
        protocols: The protocols whose curves were measured, by name.
        cost: Cost by method.
        effect: If precision was reduced: the mean difference in magnitude that this makes on the first batch, per column.
        unreadable: Files that were skipped.
        ceiling: Areas under the curves of greedy orders on a sample of the images, if they were searched for.
    """

    model: str
    methods: tuple[str, ...]
    columns: tuple[Column, ...]
    values: Float[np.ndarray, "methods images columns"]
    targets: Int[np.ndarray, " images"]
    target_names: Sequence[str]
    paths: Sequence[str]
    indices: Int[np.ndarray, " images"]
    protocols: Mapping[str, Protocol]
    cost: Mapping[str, Cost]
    effect: Mapping[str, float] | None = None
    unreadable: Sequence[Unreadable] = ()
    ceiling: Ceiling | None = None
    _read_shards: Callable[[], Iterator[ScoreShard]] = field(default=lambda: iter(()))

    def __repr__(self) -> str:
        return repr(self.table) if self.columns else f"{self.model}, {len(self)} images, without a measure that is defined"

    @classmethod
    def from_shards(
        cls,
        classifier: Classifier,
        methods: Sequence[str],
        plan: Plan,
        images: LabeledImages,
        shards: Sequence[ScoreShard],
        passes: Sequence[float],
        read_shards: Callable[[], Iterator[ScoreShard]],
    ) -> "Scores":
        """Concatenate shards, in the order of the images.

        Args:
            shards: The shards of all batches, with or without their bulk.
            passes: Cost of each method.
            read_shards: Returns the shards with their bulk, one after the other.
        """
        # Filled shard by shard: the numbers of a million images take a gigabyte, which a concatenation would double.
        values, start = np.empty((len(methods), sum(shard.num_images for shard in shards), len(plan.columns))), 0
        for shard in read_shards():
            values[:, start : start + shard.num_images] = shard.values
            start += shard.num_images
        defined = [i for i in range(len(plan.columns)) if not np.isnan(values[:, :, i]).all()]
        indices, targets = (np.concatenate([getattr(shard, name) for shard in shards]) for name in ("indices", "targets"))
        for metric in dict.fromkeys(column.metric for column in plan.columns):
            if metric != ALWAYS and not any(plan.columns[i].metric == metric for i in defined):
                logger.warning("%s is left out: it is undefined for every image and method", metric)
        effect = next((shard.effect for shard in shards if shard.effect is not None), None)
        columns = tuple(plan.columns[i] for i in defined)
        times = np.array([shard.seconds / len(shard.indices) for shard in shards if len(shard.indices)])
        return cls(
            model=classifier.name,
            methods=tuple(methods),
            columns=columns,
            values=values if len(defined) == len(plan.columns) else values[:, :, defined],
            targets=targets,
            target_names=[classifier.class_name(int(target)) for target in targets],
            paths=[images.name(int(index)) for index in indices],
            indices=indices,
            protocols=plan.protocols,
            # The first batch includes what libraries prepare at the first use of the network.
            cost={
                name: Cost(passes[i], float(np.median(times[1:, i] if len(times) > 1 else times[:, i])), len(times) == 1)
                for i, name in enumerate(methods)
            },
            effect=None
            if effect is None
            else {column.name: float(effect[i]) for column, i in zip(columns, defined, strict=True)},
            unreadable=list_unreadable(shards),
            _read_shards=read_shards,
        )

    def __len__(self) -> int:
        return len(self.paths)

    def method_values(self, method: str) -> Float[np.ndarray, "images columns"]:
        """Return the numbers of one method.

        Raises:
            UnknownNameError: No such method.
        """
        if method not in self.methods:
            raise unknown_name("method", method, list(self.methods))
        return self.values[self.methods.index(method)]

    def column(self, name: str) -> Float[np.ndarray, "methods images"]:
        """Return one column of all methods.

        Raises:
            UnknownNameError: No such column.
        """
        names = [column.name for column in self.columns]
        if name not in names:
            raise unknown_name("column", name, names)
        return self.values[:, :, names.index(name)]

    @cached_property
    def table(self) -> "Table":
        """The scores as a table, with ranks and comparisons."""
        from vitrail.evaluation.scoring.table import Table  # noqa: PLC0415 (tables are made of scores)

        return Table.from_scores([self])

    @cached_property
    def intervals(self) -> dict[str, Intervals]:
        """By method, the means over images with 95% bootstrap intervals."""
        return {name: bootstrap_interval(self.method_values(name)) for name in self.methods}

    def means(self) -> dict[str, dict[str, float]]:
        """Return the mean over images by method and column, where it is defined."""
        return {
            name: {column.name: float(mean) for column, mean in zip(self.columns, intervals.mean, strict=True)}
            for name, intervals in self.intervals.items()
        }

    def num_undefined(self) -> dict[str, dict[str, int]]:
        """Return by method and column the number of images that `means` leaves out, since the number is undefined."""
        return {
            name: {column.name: len(self) - int(count) for column, count in zip(self.columns, intervals.count, strict=True)}
            for name, intervals in self.intervals.items()
        }

    def curves(self, protocol: str) -> dict[str, Curves]:
        """Return the curves of every image by method; all of them are held in memory.

        Raises:
            UnknownNameError: The protocol was not measured.
        """
        shards = list(self._read_curves(protocol))
        scores, ends = (np.concatenate([getattr(shard, name) for shard in shards], 1) for name in ("scores", "ends"))
        return self._split_by_method(protocol, shards[0].fractions, scores, ends)

    def mean_curves(self, protocol: str) -> dict[str, Curves]:
        """Return the mean curves by method, as the curves of one image; one batch is held in memory at a time.

        Raises:
            UnknownNameError: The protocol was not measured.
        """
        self._expect_measured(protocol)
        total, _, counts = self._curve_sums[protocol]
        means = [divide(array, counts).astype(np.float32) for array in (total.scores, total.ends)]
        return self._split_by_method(protocol, total.fractions, *means)

    def curve_errors(self, protocol: str) -> dict[str, Float[np.ndarray, "curves s"]]:
        """Return the standard errors of the mean curves by method; NaN with fewer than two images.

        Raises:
            UnknownNameError: The protocol was not measured.
        """
        self._expect_measured(protocol)
        total, squares, counts = self._curve_sums[protocol]
        means = divide(total.scores, counts)
        variances = divide(squares - counts * means**2, counts - 1).clip(0)
        errors = divide(variances, counts) ** 0.5
        return {name: errors[i, 0] for i, name in enumerate(self.methods)}

    @cached_property
    def _curve_sums(self) -> dict[str, tuple[CurveShard, np.ndarray, np.ndarray]]:
        """Sums over images of curves and squared curves, with the number of images, of all protocols, from one pass over the files."""
        sums = dict[str, tuple[CurveShard, np.ndarray, np.ndarray]]()
        for shard in self._read_shards():
            for name, curves in shard.curves.items():
                # Images with an undefined point are left out of the mean; tables report them by the undefined area.
                defined = np.isfinite(curves.scores).all(-1, keepdims=True)
                scores, ends = (np.where(defined, array, 0).astype(np.float64) for array in (curves.scores, curves.ends))
                added = [array.sum(1, keepdims=True) for array in (scores, ends, scores**2, defined)]
                if name in sums:
                    before, squares, counts = sums[name]
                    expect_one_grid(name, [before.fractions, curves.fractions])
                    added = [old + new for old, new in zip((before.scores, before.ends, squares, counts), added, strict=True)]
                sums[name] = CurveShard(curves.fractions, added[0], added[1]), added[2], added[3]
        return sums

    def _read_curves(self, protocol: str) -> Iterator[CurveShard]:
        self._expect_measured(protocol)
        first: CurveShard | None = None
        for shard in self._read_shards():
            if len(shard.indices):
                curves = shard.curves[protocol]
                first = first or curves
                expect_one_grid(protocol, [first.fractions, curves.fractions])
                yield curves

    def _expect_measured(self, protocol: str) -> None:
        if protocol not in self.protocols:
            raise unknown_name("protocol", protocol, list(self.protocols))

    def _split_by_method(self, protocol: str, fractions: np.ndarray, scores: np.ndarray, ends: np.ndarray) -> dict[str, Curves]:
        points = torch.from_numpy(fractions)
        return {
            name: Curves(self.protocols[protocol], points, torch.from_numpy(scores[i]), torch.from_numpy(ends[i]))
            for i, name in enumerate(self.methods)
        }
