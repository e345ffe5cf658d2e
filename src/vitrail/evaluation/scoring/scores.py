"""What came out: numbers per method, image and column, and what they cost."""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Float, Int

from vitrail.adapters import Classifier
from vitrail.core.registry import unknown_name
from vitrail.datasets.dataset import LabeledImages, Unreadable
from vitrail.evaluation.scoring.plan import ALWAYS, Column, Plan
from vitrail.evaluation.scoring.shards import CurveShard, Shard, expect_one_grid
from vitrail.metrics import Curves, Protocol
from vitrail.metrics.statistics import Intervals, bootstrap_interval

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Cost:
    """What explanations of a method cost.

    Attributes:
        passes: Floating-point operations of one explanation, over those of a forward pass.
        seconds: Median over batches of the time per image; of this run, on this machine.
    """

    passes: float
    seconds: float


@dataclass(frozen=True, eq=False)
class Scores:
    """Several methods on the same images.

    Attributes:
        model: Its name.
        methods: Their names.
        columns: What was measured; those that are undefined everywhere are left out.
        values: A number per method, image and column; NaN where it is undefined.
        targets: The explained class of every image.
        target_names: Its name.
        paths: File of every image.
        places: Of every image in the set.
        protocols: By name, those whose curves were measured.
        cost: By method.
        effect: Where precision was reduced: per column the mean difference that this made on the first batch, in magnitude.
        unreadable: Files left out.
    """

    model: str
    methods: tuple[str, ...]
    columns: tuple[Column, ...]
    values: Float[np.ndarray, "methods images columns"]
    targets: Int[np.ndarray, " images"]
    target_names: Sequence[str]
    paths: Sequence[str]
    places: Int[np.ndarray, " images"]
    protocols: Mapping[str, Protocol]
    cost: Mapping[str, Cost]
    effect: Mapping[str, float] | None = None
    unreadable: Sequence[Unreadable] = ()
    _curve_parts: Callable[[], Iterator[Shard]] = field(default=lambda: iter(()), repr=False)

    @classmethod
    def of(
        cls,
        classifier: Classifier,
        methods: Sequence[str],
        plan: Plan,
        images: LabeledImages,
        parts: Sequence[Shard],
        passes: Sequence[float],
        curve_shards: Callable[[], Iterator[Shard]],
    ) -> "Scores":
        """Put parts together, in the order of the images.

        Args:
            classifier: The model.
            methods: Their names.
            plan: What was measured.
            images: The whole set.
            parts: Of all batches, with or without curves.
            passes: What each method costs.
            curve_shards: Gives the parts with their curves.
        """
        values = np.concatenate([part.values for part in parts], 1)
        known = [i for i in range(len(plan.columns)) if not np.isnan(values[:, :, i]).all()]
        places, targets = (np.concatenate([getattr(part, name) for part in parts]) for name in ("places", "targets"))
        for metric in dict.fromkeys(column.metric for column in plan.columns):
            # What nobody asked for is not missed.
            if metric != ALWAYS and not any(plan.columns[i].metric == metric for i in known):
                logger.warning("%s is undefined for every image with every method, and left out", metric)
        effect = next((part.effect for part in parts if part.effect is not None), None)
        columns = tuple(plan.columns[i] for i in known)
        times = np.array([part.seconds / len(part.places) for part in parts if len(part.places)])
        cost = {name: Cost(passes[i], float(np.median(times[:, i]))) for i, name in enumerate(methods)}
        return cls(
            model=classifier.name,
            methods=tuple(methods),
            columns=columns,
            values=values[:, :, known],
            targets=targets,
            target_names=[classifier.class_name(int(target)) for target in targets],
            paths=[images.name(int(place)) for place in places],
            places=places,
            protocols=plan.protocols,
            cost=cost,
            effect=None if effect is None else {each.name: float(effect[i]) for each, i in zip(columns, known, strict=True)},
            unreadable=[file for part in parts for file in part.unreadable],
            _curve_parts=curve_shards,
        )

    def __len__(self) -> int:
        return len(self.paths)

    def of_method(self, method: str) -> Float[np.ndarray, "images columns"]:
        """The numbers of one method.

        Raises:
            UnknownNameError: No such method.
        """
        if method not in self.methods:
            raise unknown_name("method", method, list(self.methods))
        return self.values[self.methods.index(method)]

    def column(self, name: str) -> Float[np.ndarray, "methods images"]:
        """One column of all methods.

        Raises:
            UnknownNameError: No such column.
        """
        names = [column.name for column in self.columns]
        if name not in names:
            raise unknown_name("column", name, names)
        return self.values[:, :, names.index(name)]

    @cached_property
    def intervals(self) -> dict[str, Intervals]:
        """Per method the means over images, with 95 % bootstrap intervals."""
        return {name: bootstrap_interval(self.of_method(name)) for name in self.methods}

    def means(self) -> dict[str, dict[str, float]]:
        """Per method and column, the mean over the images where it is defined."""
        return {
            name: {column.name: float(mean) for column, mean in zip(self.columns, found.mean, strict=True)}
            for name, found in self.intervals.items()
        }

    def curves(self, protocol: str) -> dict[str, Curves]:
        """The curves of every image, by method. All of them are in memory then.

        Raises:
            UnknownNameError: No such protocol was measured.
        """
        parts = list(self._of_protocol(protocol))
        scores, ends = (np.concatenate([getattr(part, name) for part in parts], 1) for name in ("scores", "ends"))
        return self._by_method(protocol, parts[0].fractions, scores, ends)

    def mean_curves(self, protocol: str) -> dict[str, Curves]:
        """The mean curve of every method, as those of one image; one batch is in memory at a time.

        Raises:
            UnknownNameError: No such protocol was measured.
        """
        self._expect_measured(protocol)
        return self._means[protocol]

    @cached_property
    def _means(self) -> dict[str, dict[str, Curves]]:
        """Mean curves of all protocols, from one reading of the files."""
        sums, counts = dict[str, CurveShard](), dict[str, np.ndarray]()
        for part in self._curve_parts():
            for name, curves in part.curves.items():
                # An image of which a point is undefined would leave nothing of the mean; tables tell of it by the area.
                known = np.isfinite(curves.scores).all(-1, keepdims=True)
                scores, ends = (
                    np.where(known, array, 0).sum(1, dtype=np.float64, keepdims=True) for array in (curves.scores, curves.ends)
                )
                count = known.sum(1, keepdims=True)
                if name in sums:
                    expect_one_grid(name, [sums[name].fractions, curves.fractions])
                    scores, ends = sums[name].scores + scores, sums[name].ends + ends
                    count = counts[name] + count
                sums[name], counts[name] = CurveShard(curves.fractions, scores, ends), count
        return {
            name: self._by_method(
                name,
                each.fractions,
                *(_quotient(part, counts[name]).astype(np.float32) for part in (each.scores, each.ends)),
            )
            for name, each in sums.items()
        }

    def num_undefined(self) -> dict[str, dict[str, int]]:
        """Per method and column, of how many images it is undefined: those that `means` leaves out."""
        return {
            name: {column.name: len(self) - int(count) for column, count in zip(self.columns, found.count, strict=True)}
            for name, found in self.intervals.items()
        }

    def _of_protocol(self, protocol: str) -> Iterator[CurveShard]:
        self._expect_measured(protocol)
        first: CurveShard | None = None
        for part in self._curve_parts():
            if len(part.places):
                curves = part.curves[protocol]
                first = first or curves
                expect_one_grid(protocol, [first.fractions, curves.fractions])
                yield curves

    def _expect_measured(self, protocol: str) -> None:
        if protocol not in self.protocols:
            raise unknown_name("protocol", protocol, list(self.protocols))

    def _by_method(self, protocol: str, fractions: np.ndarray, scores: np.ndarray, ends: np.ndarray) -> dict[str, Curves]:
        described, at = self.protocols[protocol], torch.from_numpy(fractions)
        return {
            name: Curves(described, at, torch.from_numpy(scores[i]), torch.from_numpy(ends[i]))
            for i, name in enumerate(self.methods)
        }


def _quotient(sums: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Means; NaN of nothing."""
    with np.errstate(invalid="ignore"):
        return sums / counts
