"""Compare methods with each other and with a control, by their numbers on the same images."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from jaxtyping import Float

from vitrail.core.errors import InvalidInputError
from vitrail.core.registry import unknown_name
from vitrail.metrics.base import Better
from vitrail.metrics.statistics.multiplicity import check_directions, holm
from vitrail.metrics.statistics.resampling import (
    CHUNK,
    NUM_RESAMPLES,
    NUM_SIGN_FLIPS,
    bootstrap_interval,
    check_values,
    mean_and_count,
    p_value_errors,
    paired_p_values,
)

CONTROL = "random"
"""Name of the method that every other method should beat."""

Table = Mapping[str, Float[np.ndarray, "images columns"]]
"""One number per image and measure for every method; NaN where undefined. All methods share the images and their order."""

Contrast = tuple[int, str, str]
"""Index of a measure, and the two methods to compare."""


@dataclass(frozen=True)
class Comparison:
    """The difference of two methods on one measure, over the images where both are defined.

    Attributes:
        measure: Name of the measure.
        first: Name of the first method.
        second: Name of the second method.
        difference: Mean over images of first - second.
        low: Lower end of the bootstrap interval of this pair, not corrected for the number of pairs.
        high: Upper end of the interval.
        p: P-value of the sign-flip test for a difference of 0.
        p_error: How far p may be from that of all sign choices, see `p_value_errors`.
        p_adjusted: The p-value after Holm's correction over all pairs of this measure.
        count: Number of images where both are defined.
    """

    measure: str
    first: str
    second: str
    difference: float
    low: float
    high: float
    p: float
    p_error: float
    p_adjusted: float
    count: int


@dataclass(frozen=True)
class UnprovenMethod:
    """A method that is not significantly better than the control on a measure.

    Attributes:
        method: Name of the method.
        measure: Name of the measure.
        difference: Mean over images of method - control; NaN if they share no image.
        p_adjusted: P-value of the two-sided sign-flip test after Holm's correction over the methods of this measure.
        significantly_worse: Whether the control is significantly better than the method; else neither is significantly better.
    """

    method: str
    measure: str
    difference: float
    p_adjusted: float
    significantly_worse: bool = False


def compare_pairs(
    values: Table,
    measures: Sequence[str],
    level: float = 0.95,
    bootstrap_resamples: int = NUM_RESAMPLES,
    permutation_resamples: int = NUM_SIGN_FLIPS,
    seed: int = 0,
) -> list[Comparison]:
    """Compare all pairs of methods on every measure.

    P-values are corrected over the pairs of a measure, not over measures, so a table of many measures contains more false findings.
    With more than 12 images the smallest adjusted p is at least pairs / (1 + permutation_resamples): use more resamples for many
    methods.

    Args:
        values: The numbers of every method.
        measures: Names of the columns.
        level: Confidence level of the intervals, in (0, 1).
        bootstrap_resamples: Number of resamples per interval.
        permutation_resamples: Number of resamples per p-value, unless the test is exact.
        seed: Seed of both; the same seed gives the same numbers.

    Returns:
        Comparisons by measure, then by pair in the order of the methods.

    Raises:
        InvalidInputError: Methods with different images or columns, infinite values, or options outside their range.

    Source: `bootstrap_interval`, `paired_p_values` and `holm`. Demsar 2006, JMLR 7, on comparing many methods.

    Differs: compares means over images of one data set; Demsar compares ranks over data sets.
    """
    table = _check_table(values, len(measures))
    pairs = list(combinations(table, 2))
    contrasts = [(column, first, second) for column in range(len(measures)) for first, second in pairs]
    comparisons = []
    p_values = []
    for block, differences in _compute_differences(table, contrasts):
        intervals = bootstrap_interval(differences, bootstrap_resamples, level, seed)
        p_values.append(paired_p_values(differences, permutation_resamples, seed))
        errors = p_value_errors(differences, p_values[-1], permutation_resamples)
        numbers = (intervals.mean, intervals.low, intervals.high, errors, intervals.count)
        comparisons += list(zip(block, *(each.tolist() for each in numbers), strict=True))
    if not comparisons:
        return []
    tests = np.concatenate(p_values).reshape(len(measures), len(pairs))
    adjusted = np.concatenate([holm(row) for row in tests])
    return [
        Comparison(measures[column], first, second, mean, low, high, p, error, corrected, count)
        for ((column, first, second), mean, low, high, error, count), p, corrected in zip(
            comparisons, tests.ravel().tolist(), adjusted.tolist(), strict=True
        )
    ]


def find_unproven_methods(
    values: Table,
    measures: Sequence[str],
    better: Sequence[Better | None],
    control: str = CONTROL,
    level: float = 0.05,
    resamples: int = NUM_SIGN_FLIPS,
    seed: int = 0,
) -> list[UnprovenMethod]:
    """Find the methods that are not significantly better than a control on these images.

    A method is better than the control on a measure if its mean is better, over the images where both are defined, and the adjusted
    p-value of the two-sided test is below `level`. P-values are corrected over the methods of a measure. Measures without a
    direction are skipped.

    Args:
        values: The numbers of every method, including the control.
        measures: Names of the columns.
        better: Direction of every measure.
        control: Name of the control.
        level: Significance level, in (0, 1).
        resamples: Number of resamples per p-value, unless the test is exact.
        seed: Seed of the resamples; the same seed gives the same numbers.

    Returns:
        The methods by measure, then in their order, including methods that share no defined image with the control.

    Raises:
        InvalidInputError: Methods with different images or columns, infinite values, another number of directions than measures, a
            level outside of (0, 1), or too few resamples for any method to be significant.
        UnknownNameError: The control is not among the methods.

    Source: `paired_p_values` and `holm`; Demsar 2006, JMLR 7, section 3.2.2, on comparing with a control.
    """
    table = _check_table(values, len(measures))
    check_directions(better, len(measures))
    if control not in table:
        raise unknown_name("control", control, list(table))
    if not 0 < level < 1:
        raise InvalidInputError(f"expected a level between 0 and 1, both excluded, got {level}; 0.05 is usual")
    methods = [method for method in table if method != control]
    if len(methods) >= level * (1 + resamples):
        raise InvalidInputError(
            f"expected enough resamples for {len(methods)} methods to reach significance at {level}, got {resamples}; "
            f"use at least {int(len(methods) / level)}"
        )
    directed = [column for column, direction in enumerate(better) if direction is not None]
    contrasts = [(column, method, control) for column in directed for method in methods]
    means, p_values = [], []
    for _, differences in _compute_differences(table, contrasts):
        means.append(mean_and_count(differences)[0])
        p_values.append(paired_p_values(differences, resamples, seed))
    if not means:
        return []
    adjusted = np.concatenate([holm(row) for row in np.concatenate(p_values).reshape(len(directed), len(methods))])
    unproven = []
    for (column, method, _), mean, p in zip(contrasts, np.concatenate(means), adjusted, strict=True):
        ahead = mean > 0 if better[column] == "higher" else mean < 0
        if not (ahead and p < level):  # NaN is not significant
            unproven.append(UnprovenMethod(method, measures[column], float(mean), float(p), bool(p < level)))
    return unproven


def _compute_differences(
    table: Table, contrasts: Sequence[Contrast]
) -> Iterator[tuple[Sequence[Contrast], Float[np.ndarray, "images some"]]]:
    """Yield the differences of as many contrasts at a time as memory allows; results do not depend on it."""
    images = max((len(numbers) for numbers in table.values()), default=0)
    width = max(1, 4 * CHUNK // max(images, 1))  # Every block draws the same random numbers again, so few blocks are faster.
    for start in range(0, len(contrasts), width):
        block = contrasts[start : start + width]
        yield block, np.stack([table[first][:, column] - table[second][:, column] for column, first, second in block], axis=1)


def _check_table(values: Table, num_measures: int) -> dict[str, Float[np.ndarray, "images columns"]]:
    table = {method: check_values(numbers) for method, numbers in values.items()}
    shapes = {numbers.shape for numbers in table.values()}
    if len(shapes) > 1 or any(columns != num_measures for _, columns in shapes):
        got = ", ".join(f"{method}: {' x '.join(map(str, numbers.shape))}" for method, numbers in table.items())
        raise InvalidInputError(f"expected the same images and {num_measures} measures for every method, got {got}")
    return table
