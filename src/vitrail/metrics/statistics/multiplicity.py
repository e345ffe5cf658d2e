"""Many tests and many measures at once: Holm's correction, and ranks."""

from collections.abc import Sequence
from typing import get_args

import numpy as np
from jaxtyping import Float

from vitrail.core.errors import InvalidInputError
from vitrail.core.registry import unknown_name
from vitrail.metrics.base import Better
from vitrail.metrics.statistics.resampling import defined_mean


def holm(p_values: Float[np.ndarray, " tests"]) -> Float[np.ndarray, " tests"]:
    """Adjusted p-values: if those below alpha are called findings, a false one is among them with probability alpha at most.

    The i-th smallest of m is multiplied by m - i + 1; none becomes smaller than one before it, or larger than 1. NaN stays NaN
    and does not count as a test.

    Raises:
        InvalidInputError: A p-value outside of [0, 1].

    Source: Holm 1979, Scandinavian Journal of Statistics 6(2).
    """
    p_values = np.asarray(p_values, dtype=np.float64)
    defined = np.flatnonzero(~np.isnan(p_values))
    outside = p_values[defined][(p_values[defined] < 0) | (p_values[defined] > 1)]
    if len(outside):
        raise InvalidInputError(f"expected p-values between 0 and 1, got {outside[0]}")
    ascending = defined[np.argsort(p_values[defined], kind="stable")]
    factors = np.arange(len(ascending), 0, -1)
    adjusted = np.full(len(p_values), np.nan)
    adjusted[ascending] = np.minimum(np.maximum.accumulate(factors * p_values[ascending]), 1.0)
    return adjusted


def ranks(
    means: Float[np.ndarray, "methods measures"], better: Sequence[Better | None]
) -> Float[np.ndarray, "methods measures"]:
    """Rank of every method per measure: 1 is best, equal means share the average of their ranks.

    Args:
        means: Of every method; NaN where a measure is undefined. Such a method has no rank (NaN) there, and the others are
            ranked among themselves.
        better: Direction of every measure. One without has no ranks: its column is NaN.

    Raises:
        InvalidInputError: Not one direction a measure.
        UnknownNameError: A direction that does not exist.

    Source: Demsar 2006, JMLR 7, section 3.2.2 (there over data sets).
    """
    means = np.asarray(means, dtype=np.float64)
    check_directions(better, means.shape[1])
    found = np.full(means.shape, np.nan)
    for measure, direction in enumerate(better):
        if direction is None:
            continue
        defined = np.flatnonzero(~np.isnan(means[:, measure]))
        goodness = means[defined, measure] * (1 if direction == "higher" else -1)
        ahead = (goodness > goodness[:, None]).sum(1)
        level = (goodness == goodness[:, None]).sum(1)
        found[defined, measure] = ahead + (level + 1) / 2
    return found


def mean_ranks(ranks: Float[np.ndarray, "methods measures"]) -> Float[np.ndarray, " methods"]:
    """Mean of every method's `ranks` over the measures where it has one; NaN where it has none.

    A summary, no test: measures of the same images are not independent. Methods that miss measures were ranked on others.

    Source: Demsar 2006, JMLR 7, section 3.2.2.
    """
    return defined_mean(np.asarray(ranks, dtype=np.float64).T)[0]


def check_directions(better: Sequence[Better | None], num_measures: int) -> None:
    """Refuse directions that are not one a measure.

    Raises:
        InvalidInputError: Their number is another.
        UnknownNameError: One does not exist.
    """
    if len(better) != num_measures:
        raise InvalidInputError(f"expected a direction (or None) for each of {num_measures} measures, got {len(better)}")
    for direction in better:
        if direction is not None and direction not in get_args(Better):
            raise unknown_name("direction", direction, list(get_args(Better)))
