"""A table of methods of one or several models on the same images, with ranks and comparisons."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Float, Int

from vitrail.core.errors import InvalidInputError
from vitrail.core.listing import count_nouns
from vitrail.evaluation.scoring.ceiling import CEILING, Ceiling
from vitrail.evaluation.scoring.cost import Cost
from vitrail.evaluation.scoring.plan import Column
from vitrail.evaluation.scoring.scores import Scores
from vitrail.metrics.base import Better
from vitrail.metrics.statistics import (
    CONTROL,
    Comparison,
    Intervals,
    UnprovenMethod,
    bootstrap_interval,
    compare_pairs,
    find_unproven_methods,
    mean_ranks,
    ranks,
    share_of_way,
)


@dataclass(frozen=True, eq=False, repr=False)
class Table:
    """Methods on the same images. With several models, a method is named "model/method".

    Attributes:
        scores: The scores of every model.
        columns: What was measured.
        values: By method, one number per image and column; NaN where it is undefined.
        cost: Cost by method.
        controls: By method, the name of the control of its model; methods without a control are left out.
    """

    scores: Sequence[Scores]
    columns: tuple[Column, ...]
    values: Mapping[str, Float[np.ndarray, "images columns"]]
    cost: Mapping[str, Cost]
    controls: Mapping[str, str]

    def __repr__(self) -> str:
        from vitrail.evaluation.scoring.text import table_lines  # noqa: PLC0415 (circular)

        models = ", ".join(scores.model for scores in self.scores)
        return "\n".join([f"{models}, {count_nouns(self.num_images, 'image')}", *table_lines(self, {})])

    @classmethod
    def from_scores(cls, scores: Sequence[Scores]) -> "Table":
        """Put the scores of one or several models into one table.

        Raises:
            InvalidInputError: The scores are of different images, or of two models of the same name.
        """
        models = [each.model for each in scores]
        if not models or len(set(models)) < len(models):
            raise InvalidInputError(f"expected at least one model, all of different names, got {', '.join(models) or 'none'}")
        if any(list(each.paths) != list(scores[0].paths) for each in scores):
            raise InvalidInputError(
                "expected scores of the same images for all models, got models that could read other images"
            )
        columns = tuple({column.name: column for each in scores for column in each.columns}.values())
        if not columns:
            raise InvalidInputError(
                "expected a measure that is defined for at least one image, got none: no method accounts for the whole logit, or no image "
                "has ground truth; add a --protocol or another --metric"
            )
        values, cost, controls = dict[str, np.ndarray](), dict[str, Cost](), dict[str, str]()
        for each in scores:
            names = {method: f"{each.model}/{method}" if len(scores) > 1 else method for method in each.methods}
            positions = {column.name: i for i, column in enumerate(each.columns)}
            undefined = np.full(len(each), np.nan)
            for method in each.methods:
                numbers = each.method_values(method)
                # Without a copy where there is one model: the scores of a million images take a gigabyte.
                values[names[method]] = (
                    numbers
                    if len(scores) == 1
                    else np.stack(
                        [numbers[:, positions[column.name]] if column.name in positions else undefined for column in columns], 1
                    )
                )
                cost[names[method]] = each.cost[method]
                if CONTROL in each.methods and method not in (CONTROL, CEILING):
                    controls[names[method]] = names[CONTROL]
        return cls(scores, columns, values, cost, controls)

    @property
    def num_compared(self) -> int:
        """Number of methods compared with the same control (the smallest group): it limits what can be significant."""
        return min(Counter(self.controls.values()).values(), default=0)

    @property
    def methods(self) -> list[str]:
        """Names of all methods."""
        return list(self.values)

    def model_of(self, method: str) -> str:
        """Return the model of a method."""
        return self.scores[0].model if len(self.scores) == 1 else method.rpartition("/")[0]

    @property
    def num_images(self) -> int:
        """Number of images, the same for every method."""
        return len(next(iter(self.values.values())))

    @property
    def names(self) -> list[str]:
        """Names of all columns."""
        return [column.name for column in self.columns]

    @cached_property
    def intervals(self) -> dict[str, Intervals]:
        """By method, the means over images with 95% bootstrap intervals."""
        return {name: bootstrap_interval(numbers) for name, numbers in self.values.items()}

    @cached_property
    def ranks(self) -> Float[np.ndarray, "methods columns"]:
        """The rank of every method by its mean, 1 = best; NaN for columns without a direction or with only one method.

        `greedy` has no ranks: it searches for what the columns measure.
        """
        means = self._means
        means[[i for i, method in enumerate(self.methods) if _is_ceiling(method)]] = np.nan
        alone = (~np.isnan(means)).sum(0) < 2
        return np.where(alone, np.nan, ranks(means, self._better))

    @cached_property
    def shared(self) -> Bool[np.ndarray, " columns"]:
        """The columns that compare methods and are defined for all of them but `greedy`: only there can all be ranked."""
        counts = [intervals.count > 0 for method, intervals in self.intervals.items() if not _is_ceiling(method)]
        return self.comparing & np.all(counts, 0)

    @cached_property
    def mean_ranks(self) -> Float[np.ndarray, " methods"]:
        """The mean rank of every method over the `shared` columns, or over all that have a direction if there are none."""
        return mean_ranks(self.ranks[:, self.shared] if self.shared.any() else self.ranks)

    @cached_property
    def comparisons(self) -> list[Comparison]:
        """All pairs of methods on every column that has a direction."""
        directed = [i for i, column in enumerate(self.columns) if column.measure.better]
        compared = [method for method in self.methods if not _is_ceiling(method)]
        if len(compared) < 2 or not directed:
            return []
        return compare_pairs(self._select(compared, directed), [self.names[i] for i in directed])

    @cached_property
    def ceilings(self) -> dict[str, Intervals]:
        """By model, the means of the ceiling over the sample of images where it was searched for, with intervals."""
        return {
            each.model: bootstrap_interval(self._align_ceiling(each.ceiling))
            for each in self.scores
            if each.ceiling is not None
        }

    @cached_property
    def shares(self) -> dict[str, Intervals]:
        """By method, its share of the way from the floor to the ceiling on that sample; NaN where there is none."""
        shares = dict[str, Intervals]()
        for each in self.scores:
            if each.ceiling is None:
                continue
            prefix = f"{each.model}/" if len(self.scores) > 1 else ""
            # Images and their order are those of the ceiling.
            sample = np.searchsorted(each.indices, each.ceiling.indices)
            ceiling = self._align_ceiling(each.ceiling)
            floor = self.values[prefix + CONTROL][sample]
            higher = [better == "higher" for better in self._better]
            for method in each.methods:
                shares[prefix + method] = share_of_way(self.values[prefix + method][sample], floor, ceiling, higher)
        return shares

    def _align_ceiling(self, ceiling: Ceiling) -> Float[np.ndarray, "images columns"]:
        undefined = np.full(len(ceiling.indices), np.nan)
        return np.stack([ceiling.values.get(name, undefined) for name in self.names], 1)

    @cached_property
    def unproven(self) -> list[UnprovenMethod]:
        """Methods that are not significantly better than the control of their model, by measure."""
        unproven = list[UnprovenMethod]()
        for control in dict.fromkeys(self.controls.values()):
            group = [control, *(name for name, own_control in self.controls.items() if own_control == control)]
            defined = np.flatnonzero(self.intervals[control].count * self.comparing)
            values = self._select(group, defined)
            names, better = [self.names[i] for i in defined], [self._better[i] for i in defined]
            unproven += find_unproven_methods(values, names, better, control)
        return unproven

    def _select(self, methods: Sequence[str], columns: Sequence[int] | Int[np.ndarray, " some"]) -> dict[str, np.ndarray]:
        """Return the numbers of some methods and columns; without a copy where these are all columns."""
        everything = len(columns) == len(self.columns)
        return {name: self.values[name] if everything else self.values[name][:, columns] for name in methods}

    @property
    def _means(self) -> Float[np.ndarray, "methods columns"]:
        return np.stack([intervals.mean for intervals in self.intervals.values()])

    @property
    def comparing(self) -> Bool[np.ndarray, " columns"]:
        """The columns that have a direction and do not depend on the scale of maps."""
        return np.array([bool(column.measure.better) and not column.measure.depends_on_scale for column in self.columns])

    @property
    def _better(self) -> list[Better | None]:
        return [column.measure.better for column in self.columns]


def _is_ceiling(method: str) -> bool:
    return method.split("/")[-1] == CEILING
