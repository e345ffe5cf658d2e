"""How far methods get on the way from a floor to a ceiling, with intervals over the same images."""

import numpy as np
from jaxtyping import Float

from vitrail.metrics.statistics.resampling import CHUNK, Intervals, check_values

MOST_UNDEFINED = 0.025
"""An interval has no ends if a larger share of the resamples has a ceiling that is not better than the floor."""


def share_of_way(
    values: Float[np.ndarray, "images columns"],
    floor: Float[np.ndarray, "images columns"],
    ceiling: Float[np.ndarray, "images columns"],
    higher: list[bool],
    resamples: int = 2000,
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
    count, total = defined.sum(0), whole.sum(0)
    possible = total > 0
    share = np.divide(way.sum(0), total, out=np.full(len(total), np.nan), where=possible)
    generator = np.random.Generator(np.random.PCG64(seed))
    ways, wholes = list[np.ndarray](), list[np.ndarray]()
    num_images = len(values)
    rows = max(1, CHUNK // max(num_images, 1))
    for start in range(0, resamples, rows):
        drawn = generator.integers(max(num_images, 1), size=(min(rows, resamples - start), num_images))
        drawn += num_images * np.arange(len(drawn))[:, None]
        counts = (
            np.bincount(drawn.ravel(), minlength=len(drawn) * num_images).reshape(len(drawn), num_images).astype(np.float64)
        )
        ways.append(counts @ way)
        wholes.append(counts @ whole)
    sums, totals = np.concatenate(ways), np.concatenate(wholes)
    ends = np.full((2, len(total)), np.nan)
    for column in np.flatnonzero(possible):
        usable = totals[:, column] > 0
        if usable.mean() >= 1 - MOST_UNDEFINED:
            shares = sums[usable, column] / totals[usable, column]
            ends[:, column] = np.quantile(shares, [(1 - level) / 2, (1 + level) / 2])
    return Intervals(share, ends[0], ends[1], count)
