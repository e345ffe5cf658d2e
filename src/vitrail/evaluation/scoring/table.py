"""Several methods, of one model or of several, on the same images: what statistics and reports are made of."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Float

from vitrail.core.errors import InvalidInputError
from vitrail.evaluation.scoring.plan import Column
from vitrail.evaluation.scoring.scores import Cost, Scores
from vitrail.metrics.base import Better
from vitrail.metrics.statistics import (
    Comparison,
    Intervals,
    Unproven,
    bootstrap_interval,
    compare_pairs,
    mean_ranks,
    not_beating_control,
    ranks,
)

CONTROL = "random"


@dataclass(frozen=True, eq=False)
class Table:
    """Numbers of methods on the same images.

    Attributes:
        columns: What was measured.
        values: Per method a number an image and column; NaN where it is undefined. Of several models, methods are named
            "model/method".
        cost: By the same names.
        controls: By the same names, the control of the model; a method without one is left out.
    """

    columns: tuple[Column, ...]
    values: Mapping[str, Float[np.ndarray, "images columns"]]
    cost: Mapping[str, Cost]
    controls: Mapping[str, str]

    @classmethod
    def of(cls, scores: Sequence[Scores]) -> "Table":
        """Put the scores of one or several models beside each other.

        Raises:
            InvalidInputError: They are of different images, or of two models of one name.
        """
        models = [each.model for each in scores]
        if not models or len(set(models)) < len(models):
            raise InvalidInputError(f"expected at least one model, all of different names, got {', '.join(models) or 'none'}")
        if any(list(each.paths) != list(scores[0].paths) for each in scores):
            raise InvalidInputError("expected scores of the same images by all models, got some that could read others")
        columns = tuple({column.name: column for each in scores for column in each.columns}.values())
        if not columns:
            raise InvalidInputError(
                "expected something that is defined on an image, got nothing: no method promises what was asked for, or no image has an "
                "answer; ask for a --protocol or another --metric as well"
            )
        values, cost, controls = dict[str, np.ndarray](), dict[str, Cost](), dict[str, str]()
        for each in scores:
            name = {method: f"{each.model}/{method}" if len(scores) > 1 else method for method in each.methods}
            places = {column.name: i for i, column in enumerate(each.columns)}
            for method in each.methods:
                own = each.of_method(method)
                missing = np.full(len(each), np.nan)
                values[name[method]] = np.stack(
                    [own[:, places[column.name]] if column.name in places else missing for column in columns], 1
                )
                cost[name[method]] = each.cost[method]
                if CONTROL in each.methods and method != CONTROL:
                    controls[name[method]] = name[CONTROL]
        return cls(columns, values, cost, controls)

    @property
    def num_compared(self) -> int:
        """Of the methods that are compared with one control, the fewest: what can be shown at all hangs on their number."""
        return min(Counter(self.controls.values()).values(), default=0)

    @property
    def methods(self) -> list[str]:
        """Names of all methods."""
        return list(self.values)

    @property
    def num_images(self) -> int:
        """Images of every method."""
        return len(next(iter(self.values.values())))

    @property
    def names(self) -> list[str]:
        """Names of all columns."""
        return [column.name for column in self.columns]

    @cached_property
    def intervals(self) -> dict[str, Intervals]:
        """Per method the means over images, with 95 % bootstrap intervals."""
        return {name: bootstrap_interval(each) for name, each in self.values.items()}

    @cached_property
    def ranks(self) -> Float[np.ndarray, "methods columns"]:
        """The place of every method by its mean, 1 = best; NaN for columns that have no direction, or only one method."""
        alone = (~np.isnan(self._means)).sum(0) < 2
        return np.where(alone, np.nan, ranks(self._means, self._better))

    @cached_property
    def mean_ranks(self) -> Float[np.ndarray, " methods"]:
        """The mean place of every method over all columns that have a direction."""
        return mean_ranks(self.ranks)

    @cached_property
    def comparisons(self) -> list[Comparison]:
        """Every two methods on every column that has a direction."""
        directed = [i for i, column in enumerate(self.columns) if column.measure.better]
        if len(self.values) < 2 or not directed:
            return []
        values = {name: each[:, directed] for name, each in self.values.items()}
        return compare_pairs(values, [self.names[i] for i in directed])

    @cached_property
    def unproven(self) -> list[Unproven]:
        """What is not shown to beat the control of its model, on the measures that the control has."""
        found = list[Unproven]()
        for control in dict.fromkeys(self.controls.values()):
            own = [control, *(name for name, of in self.controls.items() if of == control)]
            known = np.flatnonzero(self.intervals[control].count)
            values = {name: self.values[name][:, known] for name in own}
            found += not_beating_control(values, [self.names[i] for i in known], [self._better[i] for i in known], control)
        return found

    @property
    def _means(self) -> Float[np.ndarray, "methods columns"]:
        return np.stack([each.mean for each in self.intervals.values()])

    @property
    def _better(self) -> list[Better | None]:
        return [column.measure.better for column in self.columns]
