"""Multiple comparisons: Holm's correction of p-values, and ranks over several measures."""

from collections.abc import Sequence
from typing import get_args

import numpy as np
from jaxtyping import Float

from vitrail.core.errors import InvalidInputError
from vitrail.core.registry import unknown_name
from vitrail.metrics.base import Better
from vitrail.metrics.statistics.resampling import mean_and_count


def holm(p_values: Float[np.ndarray, " tests"]) -> Float[np.ndarray, " tests"]:
    """Adjust p-values by Holm's method, which controls the family-wise error rate.

    Multiplies the i-th smallest of m p-values by m - i + 1, keeps them monotonic, and limits them to 1. NaN stays NaN and does not
    count as a test.

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
    """Rank the methods on every measure: 1 is best, ties share the average of their ranks.

    Args:
        means: Mean of every method; NaN where a measure is undefined. Undefined methods get NaN, and all others are ranked.
        better: Direction of every measure; measures without a direction get NaN.

    Raises:
        InvalidInputError: Another number of directions than measures.
        UnknownNameError: An unknown direction.

    Source: Demsar 2006, JMLR 7, section 3.2.2, which ranks over data sets.
    """
    means = np.asarray(means, dtype=np.float64)
    check_directions(better, means.shape[1])
    result = np.full(means.shape, np.nan)
    for measure, direction in enumerate(better):
        if direction is None:
            continue
        defined = np.flatnonzero(~np.isnan(means[:, measure]))
        goodness = means[defined, measure] * (1 if direction == "higher" else -1)
        ahead = (goodness > goodness[:, None]).sum(1)
        tied = (goodness == goodness[:, None]).sum(1)
        result[defined, measure] = ahead + (tied + 1) / 2
    return result


def mean_ranks(ranks: Float[np.ndarray, "methods measures"]) -> Float[np.ndarray, " methods"]:
    """Average the `ranks` of every method over the measures where it has one; NaN if it has none.

    This is a summary, not a test: measures of the same images are not independent, and methods with undefined measures are ranked on
    fewer of them.

    Source: Demsar 2006, JMLR 7, section 3.2.2.
    """
    return mean_and_count(np.asarray(ranks, dtype=np.float64).T)[0]


def check_directions(better: Sequence[Better | None], num_measures: int) -> None:
    """Check for one known direction (or None) per measure.

    Raises:
        InvalidInputError: Another number of directions.
        UnknownNameError: An unknown direction.
    """
    if len(better) != num_measures:
        raise InvalidInputError(f"expected a direction (or None) for each of {num_measures} measures, got {len(better)}")
    for direction in better:
        if direction is not None and direction not in get_args(Better):
            raise unknown_name("direction", direction, list(get_args(Better)))
