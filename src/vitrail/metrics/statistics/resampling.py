"""Bootstrap intervals of means over images, and sign-flip tests, for many columns at once.

All columns share the random draws of the images, so the result of a column does not depend on other columns, up to rounding. Above
`MAX_RESAMPLED` images, both use the normal distribution that they approach (`vitrail.metrics.statistics.normal`).
"""

# Not scipy.stats: bootstrap and permutation_test would draw anew for each column, average undefined numbers, and double the smaller tail.

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from vitrail.core.errors import InvalidInputError
from vitrail.metrics.statistics.normal import normal_error_bounds, normal_interval, normal_p_values

NUM_RESAMPLES = 2000
"""Resamples of a bootstrap interval."""

NUM_SIGN_FLIPS = 10_000
"""Sign patterns of a test that is not exact."""

EXACT_IMAGES = 12
"""Up to this number of images, tests enumerate all 2^n sign choices (4096 at most)."""

MAX_RESAMPLED = 20_000
"""Up to this number of images, intervals and tests are resampled, in time proportional to images and resamples."""

CHUNK = 2**21
"""How many numbers to draw at once (16 MiB in double precision); results do not depend on it."""

ROUNDING = 1e-12
"""Sums that differ by less than this share of the sum of magnitudes count as equal: the order of summation changes the rounding."""


@dataclass(frozen=True, eq=False)
class Intervals:
    """Means over images with confidence intervals, one per column.

    Attributes:
        mean: Mean over the images where the column is defined; NaN if there are none.
        low: Lower end of the interval.
        high: Upper end of the interval.
        count: Number of images where the column is defined.
    """

    mean: Float[np.ndarray, " columns"]
    low: Float[np.ndarray, " columns"]
    high: Float[np.ndarray, " columns"]
    count: Int[np.ndarray, " columns"]


def bootstrap_interval(
    values: Float[np.ndarray, "images columns"], resamples: int = NUM_RESAMPLES, level: float = 0.95, seed: int = 0
) -> Intervals:
    """Compute percentile bootstrap intervals of the mean over images.

    A resample draws as many images as there are, with replacement; its mean is over the images where the column is defined, and
    resamples without such images are dropped. With fewer than about 20 images intervals are too narrow; with one image they are a
    point. Above `MAX_RESAMPLED` images, the interval is that of the normal distribution with the same standard error.

    Args:
        values: One number per image and column; NaN where undefined.
        resamples: Number of resamples.
        level: Confidence level, in (0, 1).
        seed: Seed of the resamples; the same seed gives the same intervals.

    Raises:
        InvalidInputError: Infinite values, no resamples, or a level outside of (0, 1).

    Source: Efron 1979, Annals of Statistics 7(1); Efron and Tibshirani 1993, An Introduction to the Bootstrap, chapter 13.
    """
    values = check_values(values, resamples)
    if not 0 < level < 1:
        raise InvalidInputError(f"expected a level between 0 and 1, both excluded, got {level}; 0.95 is usual")
    mean, count = mean_and_count(values)
    if len(values) > MAX_RESAMPLED:
        return Intervals(mean, *normal_interval(values, mean, count, level), count)
    defined = ~np.isnan(values)
    # Deviations from the mean keep their digits even if the mean is large, and are exactly 0 for a single image.
    deviations = np.where(defined, values - mean, 0.0)
    stacked = np.concatenate([deviations, defined], axis=1)
    sums = np.concatenate([counts @ stacked for counts in draw_counts(len(values), resamples, seed)])
    low, high = mean + percentile_ends(sums[:, : len(mean)], sums[:, len(mean) :], level)
    return Intervals(mean, low, high, count)


def paired_p_values(
    differences: Float[np.ndarray, "images pairs"], resamples: int = NUM_SIGN_FLIPS, seed: int = 0
) -> Float[np.ndarray, " pairs"]:
    """Test mean differences of 0 with the two-sided sign-flip permutation test.

    If two methods are exchangeable, every difference could equally have the opposite sign. p is the share of sign choices whose mean
    is at least as far from 0 as the observed one. Up to `EXACT_IMAGES` images, all choices are enumerated and p is exact, at least
    2^(1-n). With more images, choices are random and p is `(1 + num_as_far) / (1 + resamples)`, which counts the observed signs as
    one choice, so p is never 0. Above `MAX_RESAMPLED` images, p is that of the normal distribution; `p_value_errors` bounds its error.

    Args:
        differences: First method minus second, per image and pair; NaN where either is undefined.
        resamples: Number of random sign choices.
        seed: Seed of the signs; the same seed gives the same p-values.

    Returns:
        One p-value per pair: 1 if all differences are 0, NaN if no image is defined.

    Raises:
        InvalidInputError: Infinite differences, or no resamples.

    Source: Fisher 1935, The Design of Experiments, section 21; Pitman 1937, Supplement to the Journal of the Royal Statistical
    Society 4(1). Adding 1: Phipson and Smyth 2010, Statistical Applications in Genetics and
    Molecular Biology 9(1).
    """
    differences = check_values(differences, resamples)
    defined = ~np.isnan(differences)
    count = defined.sum(0)
    p_values = np.full(len(count), np.nan)
    for pair in np.flatnonzero((count > 0) & (count <= EXACT_IMAGES)):
        p_values[pair] = _exact_p_value(differences[defined[:, pair], pair : pair + 1])
    very_many = np.flatnonzero(count > MAX_RESAMPLED)
    p_values[very_many] = normal_p_values(differences[:, very_many])
    many = np.flatnonzero((count > EXACT_IMAGES) & (count <= MAX_RESAMPLED))
    if len(many):
        # An undefined image adds 0 with either sign.
        p_values[many] = _sampled_p_values(np.where(defined, differences, 0.0)[:, many], resamples, seed)
    return p_values


def p_value_errors(
    differences: Float[np.ndarray, "images pairs"], p_values: Float[np.ndarray, " pairs"], resamples: int = NUM_SIGN_FLIPS
) -> Float[np.ndarray, " pairs"]:
    """Return how far the p-values of `paired_p_values` may be from those of all sign choices.

    0 where all choices were enumerated; the standard error where they were drawn; a bound on the error of the normal distribution above
    `MAX_RESAMPLED` images.
    """
    count = (~np.isnan(differences)).sum(0)
    errors = np.where(count <= EXACT_IMAGES, 0.0, np.sqrt(p_values * (1 - p_values) / resamples))
    very_many = np.flatnonzero(count > MAX_RESAMPLED)
    errors[very_many] = normal_error_bounds(differences[:, very_many])
    return np.where(count > 0, errors, np.nan)


def mean_and_count(
    values: Float[np.ndarray, "images columns"],
) -> tuple[Float[np.ndarray, " columns"], Int[np.ndarray, " columns"]]:
    """Return the mean over the images where a column is defined (NaN if there are none), and the number of these images."""
    count = (~np.isnan(values)).sum(0)
    return divide(np.nansum(values, axis=0), count), count


def divide(sums: np.ndarray, totals: np.ndarray) -> np.ndarray:
    """Return the ratios; NaN where a total is not positive."""
    return np.divide(sums, totals, out=np.full(np.broadcast_shapes(sums.shape, totals.shape), np.nan), where=totals > 0)


def percentile_ends(
    sums: Float[np.ndarray, "resamples columns"], totals: Float[np.ndarray, "resamples columns"], level: float, least: float = 0
) -> Float[np.ndarray, "2 columns"]:
    """Return the ends of the intervals of `sums / totals`, over the resamples with a positive total.

    Args:
        least: The ends are NaN where a smaller share of the resamples has a positive total, or none.
    """
    ends = np.full((2, sums.shape[1]), np.nan)
    for column, usable in enumerate(totals.T > 0):
        if usable.any() and usable.mean() >= least:
            ratios = sums[usable, column] / totals[usable, column]
            ends[:, column] = np.quantile(ratios, [(1 - level) / 2, (1 + level) / 2])
    return ends


def check_values(values: Float[np.ndarray, "images columns"], resamples: int = 1) -> Float[np.ndarray, "images columns"]:
    """Convert values to double precision, after checking that they can be resampled.

    Raises:
        InvalidInputError: Infinite values, or no resamples.
    """
    if resamples < 1:
        raise InvalidInputError(f"expected at least 1 resample, got {resamples}")
    values = np.asarray(values, dtype=np.float64)
    infinite = np.flatnonzero(np.isinf(values).any(0))
    if len(infinite):
        raise InvalidInputError(
            f"expected finite values, or NaN where a measure is undefined, got infinite ones in column {infinite[0]}, which have no mean; "
            "pass NaN for these images, or drop the column"
        )
    return values


def _exact_p_value(differences: Float[np.ndarray, "n 1"]) -> float:
    images = len(differences)
    negative = np.arange(2**images)[:, None] >> np.arange(images) & 1
    sums = (1 - 2 * negative) @ differences
    return float((np.abs(sums) >= _find_threshold(differences)).mean())


def _sampled_p_values(differences: Float[np.ndarray, "images pairs"], resamples: int, seed: int) -> Float[np.ndarray, " pairs"]:
    total, threshold = differences.sum(0), _find_threshold(differences)
    num_as_far = np.zeros(len(total), dtype=np.int64)
    for positive in _draw_coins(len(differences), resamples, seed):
        # With signs 2 c - 1 for coins c, the sum of signed differences is twice the sum of the positive ones, minus the total.
        num_as_far += (np.abs(2 * (positive @ differences) - total) >= threshold).sum(0)
    return (1 + num_as_far) / (1 + resamples)


def _find_threshold(differences: Float[np.ndarray, "images pairs"]) -> Float[np.ndarray, " pairs"]:
    """Return the magnitude from which on a sum counts as far from 0 as the observed one, up to rounding; ties are frequent."""
    return np.abs(differences.sum(0)) - ROUNDING * np.abs(differences).sum(0)


def draw_counts(images: int, resamples: int, seed: int) -> Iterator[Float[np.ndarray, "some images"]]:
    """Yield how often every image is in every resample. Counting draws is faster than sampling multinomial counts."""
    generator = np.random.Generator(np.random.PCG64(seed))
    for rows in _chunk_resamples(images, resamples):
        drawn = generator.integers(max(images, 1), size=(rows, images))
        drawn += images * np.arange(rows)[:, None]
        yield np.bincount(drawn.ravel(), minlength=rows * images).reshape(rows, images).astype(np.float64)


def _draw_coins(images: int, resamples: int, seed: int) -> Iterator[Float[np.ndarray, "some images"]]:
    """Yield fair coins, 0 or 1, for every image of every resample, from the bits of random bytes."""
    generator = np.random.Generator(np.random.PCG64(seed))
    width = 4 * -(-images // 32)  # whole words of the generator, so that results do not depend on chunks
    for rows in _chunk_resamples(images, resamples):
        words = np.frombuffer(generator.bytes(rows * width), np.uint8).reshape(rows, width)
        yield np.unpackbits(words, axis=1, count=images).astype(np.float64)


def _chunk_resamples(images: int, resamples: int) -> Iterator[int]:
    """Yield how many resamples to draw together."""
    rows = max(1, CHUNK // max(images, 1))
    for start in range(0, resamples, rows):
        yield min(rows, resamples - start)
