"""How far methods get on the way from a floor to a ceiling, with intervals over the same images."""

import numpy as np
from jaxtyping import Float

from vitrail.metrics.statistics.resampling import NUM_RESAMPLES, Intervals, check_values, divide, draw_counts, percentile_ends

MOST_UNDEFINED = 0.025
"""An interval has no ends if a larger share of the resamples has a ceiling that is not better than the floor."""


def share_of_way(
    values: Float[np.ndarray, "images columns"],
    floor: Float[np.ndarray, "images columns"],
    ceiling: Float[np.ndarray, "images columns"],
    higher: list[bool],
    resamples: int = NUM_RESAMPLES,
    level: float = 0.95,
    seed: int = 0,
) -> Intervals:
    """Return mean(value - floor) / mean(ceiling - floor), with percentile bootstrap intervals over images.

    Means are over the images where all three are defined; a resample takes the same images for all three. A share may exceed 1.

    Args:
        values: One number per image and column; NaN where undefined.
        floor: The same of the floor.
        ceiling: The same of the ceiling.
        higher: Whether higher numbers are better, by column.
        resamples: Number of resamples.
        level: Confidence level of the intervals.
        seed: Seed of the resamples; the same seed gives the same intervals.

    Returns:
        NaN where the mean of the ceiling is not better than that of the floor. The ends are NaN where this holds for too many resamples
        (`MOST_UNDEFINED`), too.
    """
    values, floor, ceiling = (check_values(each, resamples) for each in (values, floor, ceiling))
    defined = ~np.isnan(values + floor + ceiling)
    sign = np.where(higher, 1.0, -1.0)
    way, whole = (np.where(defined, sign * (each - floor), 0.0) for each in (values, ceiling))
    total = whole.sum(0)
    drawn = [(counts @ way, counts @ whole) for counts in draw_counts(len(values), resamples, seed)]
    sums, totals = map(np.concatenate, zip(*drawn, strict=True))
    low, high = np.where(total > 0, percentile_ends(sums, totals, level, 1 - MOST_UNDEFINED), np.nan)
    return Intervals(divide(way.sum(0), total), low, high, defined.sum(0))
