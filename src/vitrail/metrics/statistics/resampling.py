"""How sure a mean over images is: bootstrap intervals and sign-flip tests, of many columns at once.

Random draws are made per image and shared by all columns. So the result of a column does not depend on the other columns or
their order, up to the rounding of sums.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from vitrail.core.errors import InvalidInputError

EXACT_IMAGES = 12
"""Up to so many images all 2^n choices of signs are tried: 4096 at most."""

CHUNK = 2**21
"""Numbers drawn at once; in double precision 16 MiB. Results do not depend on it."""

ROUNDING = 1e-12
"""Sums closer than this share of the sum of magnitudes are the same sum, added up in another order."""


@dataclass(frozen=True, eq=False)
class Intervals:
    """Means over images with their uncertainty, a number per column.

    Attributes:
        mean: Over the images where the column is defined; NaN where it is nowhere.
        low: Lower end of the interval.
        high: Its upper end.
        count: Number of images where the column is defined.
    """

    mean: Float[np.ndarray, " columns"]
    low: Float[np.ndarray, " columns"]
    high: Float[np.ndarray, " columns"]
    count: Int[np.ndarray, " columns"]


def bootstrap_interval(
    values: Float[np.ndarray, "images columns"], resamples: int = 2000, level: float = 0.95, seed: int = 0
) -> Intervals:
    """Percentile bootstrap of the mean over images.

    Images are drawn with replacement, as many as there are. A resample's mean is over its images where the column is defined; a
    resample without any is left out. With few images (below about 20) intervals are too narrow; with one it is a point.

    Args:
        values: A number per image and column; NaN where it is undefined.
        resamples: How often images are drawn.
        level: Share of such intervals that hold the true mean, in (0, 1).
        seed: Of the draws; the same seed gives the same interval.

    Raises:
        InvalidInputError: Infinite values, no resamples, or a level outside of (0, 1).

    Source: Efron 1979, Annals of Statistics 7(1); Efron and Tibshirani 1993, An Introduction to the Bootstrap, chapter 13.
    """
    values = checked(values, resamples)
    if not 0 < level < 1:
        raise InvalidInputError(f"expected a level between 0 and 1, both excluded, got {level}; 0.95 is usual")
    defined = ~np.isnan(values)
    mean, count = defined_mean(values)
    # Deviations from the mean lose no digits to a large mean, and those of a single image are exactly 0.
    deviations = np.where(defined, values - mean, 0.0)
    stacked = np.concatenate([deviations, defined], axis=1)
    sums = np.concatenate([drawn @ stacked for drawn in _times_drawn(len(values), resamples, seed)])
    ends = np.full((2, len(mean)), np.nan)
    for column in range(len(mean)):
        sizes = sums[:, len(mean) + column]
        usable = sizes > 0
        if usable.any():
            means = sums[usable, column] / sizes[usable]
            ends[:, column] = mean[column] + np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return Intervals(mean, ends[0], ends[1], count)


def paired_p_values(
    differences: Float[np.ndarray, "images pairs"], resamples: int = 10_000, seed: int = 0
) -> Float[np.ndarray, " pairs"]:
    """Two-sided sign-flip permutation test of a mean difference of 0.

    If two methods are exchangeable, every image's difference could as well have had the other sign. p is the share of choices
    of signs whose mean is at least as far from 0 as the measured one. Up to `EXACT_IMAGES` images all choices are tried: p is
    exact, and 2^(1-n) or more. Above, random ones: p is `(1 + as far) / (1 + resamples)`, since the measured signs are one of
    the possible choices, so it is never 0.

    Args:
        differences: First method minus second, per image and pair; NaN where one of the two is undefined.
        resamples: How many random choices of signs are tried.
        seed: Of the signs; the same seed gives the same p.

    Returns:
        A p-value per pair: 1 where all differences are 0, NaN where no image is defined.

    Raises:
        InvalidInputError: Infinite differences, or no resamples.

    Source: Fisher 1935, The Design of Experiments, section 21; Pitman 1937, Supplement to the Journal of the Royal Statistical
    Society 4(1). The 1 that is added: Phipson and Smyth 2010, Statistical Applications in Genetics and
    Molecular Biology 9(1).
    """
    differences = checked(differences, resamples)
    defined = ~np.isnan(differences)
    count = defined.sum(0)
    p_values = np.full(len(count), np.nan)
    for pair in np.flatnonzero((count > 0) & (count <= EXACT_IMAGES)):
        p_values[pair] = _exact_p_value(differences[defined[:, pair], pair : pair + 1])
    many = np.flatnonzero(count > EXACT_IMAGES)
    if len(many):
        # An undefined image adds 0 under either sign: it is left out.
        p_values[many] = _sampled_p_values(np.where(defined, differences, 0.0)[:, many], resamples, seed)
    return p_values


def defined_mean(
    values: Float[np.ndarray, "images columns"],
) -> tuple[Float[np.ndarray, " columns"], Int[np.ndarray, " columns"]]:
    """Mean over the images where a column is defined, NaN where it is nowhere, and their number."""
    count = (~np.isnan(values)).sum(0)
    return np.divide(np.nansum(values, axis=0), count, out=np.full(len(count), np.nan), where=count > 0), count


def checked(values: Float[np.ndarray, "images columns"], resamples: int = 1) -> Float[np.ndarray, "images columns"]:
    """The values in double precision, if they can be resampled.

    Raises:
        InvalidInputError: Infinite values, or no resamples.
    """
    if resamples < 1:
        raise InvalidInputError(f"expected at least 1 resample, got {resamples}")
    values = np.asarray(values, dtype=np.float64)
    infinite = np.flatnonzero(np.isinf(values).any(0))
    if len(infinite):
        raise InvalidInputError(
            f"expected finite values, or NaN where a measure is undefined, got infinite ones in column {infinite[0]}; "
            "they have no mean: give NaN for such images, or leave the column out"
        )
    return values


def _exact_p_value(differences: Float[np.ndarray, "n 1"]) -> float:
    images = len(differences)
    negative = np.arange(2**images)[:, None] >> np.arange(images) & 1
    sums = (1 - 2 * negative) @ differences
    return float((np.abs(sums) >= _far(differences)).mean())


def _sampled_p_values(differences: Float[np.ndarray, "images pairs"], resamples: int, seed: int) -> Float[np.ndarray, " pairs"]:
    total, far = differences.sum(0), _far(differences)
    as_far = np.zeros(len(total), dtype=np.int64)
    for positive in _coins(len(differences), resamples, seed):
        # With signs 2 c - 1 of coins c, the sum of signed differences is twice that of the positive ones, less the sum of all.
        as_far += (np.abs(2 * (positive @ differences) - total) >= far).sum(0)
    return (1 + as_far) / (1 + resamples)


def _far(differences: Float[np.ndarray, "images pairs"]) -> Float[np.ndarray, " pairs"]:
    """The size from which on a sum is as far from 0 as the measured one. Sums of few distinct numbers tie often."""
    return np.abs(differences.sum(0)) - ROUNDING * np.abs(differences).sum(0)


def _times_drawn(images: int, resamples: int, seed: int) -> Iterator[Float[np.ndarray, "some images"]]:
    """How often every image is in every resample: multinomial, by counting draws, which is faster than drawing the counts."""
    generator = np.random.Generator(np.random.PCG64(seed))
    for rows in _chunks(images, resamples):
        drawn = generator.integers(max(images, 1), size=(rows, images))
        drawn += images * np.arange(rows)[:, None]
        yield np.bincount(drawn.ravel(), minlength=rows * images).reshape(rows, images).astype(np.float64)


def _coins(images: int, resamples: int, seed: int) -> Iterator[Float[np.ndarray, "some images"]]:
    """Fair coins, 0 or 1, for every image of every resample: the bits of random bytes."""
    generator = np.random.Generator(np.random.PCG64(seed))
    width = 4 * -(-images // 32)  # Whole words of the generator, so that chunks make no difference.
    for rows in _chunks(images, resamples):
        words = np.frombuffer(generator.bytes(rows * width), np.uint8).reshape(rows, width)
        yield np.unpackbits(words, axis=1, count=images).astype(np.float64)


def _chunks(images: int, resamples: int) -> Iterator[int]:
    """Numbers of resamples that are drawn together."""
    rows = max(1, CHUNK // max(images, 1))
    for start in range(0, resamples, rows):
        yield min(rows, resamples - start)
