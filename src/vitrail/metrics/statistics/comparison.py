"""Which methods differ, and which do not even beat a control, from their numbers on the same images."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from jaxtyping import Float

from vitrail.core.errors import InvalidInputError
from vitrail.core.registry import unknown_name
from vitrail.metrics.base import Better
from vitrail.metrics.statistics.multiplicity import check_directions, holm
from vitrail.metrics.statistics.resampling import CHUNK, bootstrap_interval, checked, defined_mean, paired_p_values

Table = Mapping[str, Float[np.ndarray, "images columns"]]
"""By method, a number per image and measure; NaN where it is undefined. The images are the same, in the same order."""

Contrast = tuple[int, str, str]
"""Number of a measure, and the two methods that are compared on it."""


@dataclass(frozen=True)
class Comparison:
    """Two methods on one measure, over the images where both are defined.

    Attributes:
        measure: Name of the measure.
        first: Name of a method.
        second: Name of the other.
        difference: Mean over images of first - second.
        low: Lower end of its bootstrap interval, for this pair alone: not corrected for the number of pairs.
        high: Its upper end.
        p: Of the sign-flip test that the difference is 0.
        p_adjusted: The same after Holm's correction over all pairs of this measure.
        count: Number of images where both are defined.
    """

    measure: str
    first: str
    second: str
    difference: float
    low: float
    high: float
    p: float
    p_adjusted: float
    count: int


@dataclass(frozen=True)
class Unproven:
    """A method that is not shown to beat the control on a measure.

    Attributes:
        method: Its name.
        measure: Name of the measure.
        difference: Mean over images of method - control; NaN where they share no image.
        p_adjusted: Of the sign-flip test, after Holm's correction over the methods of this measure.
    """

    method: str
    measure: str
    difference: float
    p_adjusted: float


def compare_pairs(
    values: Table,
    measures: Sequence[str],
    level: float = 0.95,
    bootstrap_resamples: int = 2000,
    permutation_resamples: int = 10_000,
    seed: int = 0,
) -> list[Comparison]:
    """Compare every two methods on every measure.

    P-values are corrected over all pairs of a measure, not over measures: a table of many measures holds more false findings.
    With more than 12 images the smallest adjusted p is at least pairs / (1 + permutation_resamples): many methods want more of
    them.

    Args:
        values: The numbers of every method.
        measures: Names of the columns.
        level: Of the intervals, in (0, 1).
        bootstrap_resamples: Behind every interval.
        permutation_resamples: Behind every p-value, where the test is not exact.
        seed: Of both; the same seed gives the same numbers.

    Returns:
        By measure, then by pair in the order of the methods.

    Raises:
        InvalidInputError: Methods with differing images or columns, infinite values, or options that cannot be used.

    Source: `bootstrap_interval`, `paired_p_values` and `holm`. Demsar 2006, JMLR 7, on comparing many methods.

    Differs: Demsar compares over data sets, by ranks; here over images of one data set, by means.
    """
    table = _checked_table(values, len(measures))
    pairs = list(combinations(table, 2))
    contrasts = [(column, first, second) for column in range(len(measures)) for first, second in pairs]
    comparisons = []
    p_values = []
    for some, differences in _blocks(table, contrasts):
        found = bootstrap_interval(differences, bootstrap_resamples, level, seed)
        p_values.append(paired_p_values(differences, permutation_resamples, seed))
        comparisons += list(zip(some, found.mean, found.low, found.high, found.count, strict=True))
    if not comparisons:
        return []
    tests = np.concatenate(p_values).reshape(len(measures), len(pairs))
    adjusted = [float(p) for row in tests for p in holm(row)]
    return [
        Comparison(measures[column], first, second, float(mean), float(low), float(high), float(p), corrected, int(count))
        for ((column, first, second), mean, low, high, count), p, corrected in zip(
            comparisons, tests.ravel(), adjusted, strict=True
        )
    ]


def not_beating_control(
    values: Table,
    measures: Sequence[str],
    better: Sequence[Better | None],
    control: str = "random",
    level: float = 0.05,
    resamples: int = 10_000,
    seed: int = 0,
) -> list[Unproven]:
    """The methods that are not shown to beat a control: what their maps add to chance is not visible on these images.

    A method beats the control on a measure if its mean is better, over the images where both are defined, and the adjusted
    p-value of the two-sided test is below `level`. P-values are corrected over the methods of a measure. Measures without
    direction are left out.

    Args:
        values: The numbers of every method, the control among them.
        measures: Names of the columns.
        better: Their directions.
        control: Name of the control.
        level: Of significance, in (0, 1).
        resamples: Behind every p-value, where the test is not exact.
        seed: The same seed gives the same numbers.

    Returns:
        By measure, then in the order of the methods. Also methods that share no defined image with the control.

    Raises:
        InvalidInputError: Methods with differing images or columns, infinite values, not one direction a measure, a level
            outside of (0, 1), or too few resamples for any method to beat the control.
        UnknownNameError: The control is not among the methods.

    Source: `paired_p_values` and `holm`; Demsar 2006, JMLR 7, section 3.2.2, on comparing with a control.
    """
    table = _checked_table(values, len(measures))
    check_directions(better, len(measures))
    if control not in table:
        raise unknown_name("control", control, list(table))
    if not 0 < level < 1:
        raise InvalidInputError(f"expected a level between 0 and 1, both excluded, got {level}; 0.05 is usual")
    methods = [method for method in table if method != control]
    if len(methods) >= level * (1 + resamples):
        raise InvalidInputError(
            f"expected resamples that let {len(methods)} methods be significant at {level}, got {resamples}; "
            f"give at least {int(len(methods) / level)}"
        )
    directed = [column for column, direction in enumerate(better) if direction is not None]
    contrasts = [(column, method, control) for column in directed for method in methods]
    means, p_values = [], []
    for _, differences in _blocks(table, contrasts):
        means.append(defined_mean(differences)[0])
        p_values.append(paired_p_values(differences, resamples, seed))
    if not means:
        return []
    adjusted = np.concatenate([holm(row) for row in np.concatenate(p_values).reshape(len(directed), len(methods))])
    unproven = []
    for (column, method, _), mean, p in zip(contrasts, np.concatenate(means), adjusted, strict=True):
        ahead = mean > 0 if better[column] == "higher" else mean < 0
        if not (ahead and p < level):  # NaN is no evidence.
            unproven.append(Unproven(method, measures[column], float(mean), float(p)))
    return unproven


def _blocks(
    table: Table, contrasts: Sequence[Contrast]
) -> Iterator[tuple[Sequence[Contrast], Float[np.ndarray, "images some"]]]:
    """Differences of as many contrasts as memory allows; a contrast's results do not depend on its block."""
    images = max((len(numbers) for numbers in table.values()), default=0)
    width = max(1, 4 * CHUNK // max(images, 1))  # Every block draws the same luck anew: few are better.
    for start in range(0, len(contrasts), width):
        some = contrasts[start : start + width]
        yield some, np.stack([table[first][:, column] - table[second][:, column] for column, first, second in some], axis=1)


def _checked_table(values: Table, num_measures: int) -> dict[str, Float[np.ndarray, "images columns"]]:
    table = {method: checked(numbers) for method, numbers in values.items()}
    shapes = {numbers.shape for numbers in table.values()}
    if len(shapes) > 1 or any(columns != num_measures for _, columns in shapes):
        got = ", ".join(f"{method}: {' x '.join(map(str, numbers.shape))}" for method, numbers in table.items())
        raise InvalidInputError(f"expected the same images for every method, and {num_measures} measures of each, got {got}")
    return table
