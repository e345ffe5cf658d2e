"""The normal distribution that bootstrap means and sign-flip sums approach, for more images than can be resampled."""

import math
from collections.abc import Iterator
from statistics import NormalDist

import numpy as np
from jaxtyping import Float, Int

BERRY_ESSEEN = 0.56
"""Constant of the Berry-Esseen bound for sums of terms of different distributions (Shevtsova 2010, Doklady Mathematics 82(3))."""


def normal_interval(
    values: Float[np.ndarray, "images columns"],
    mean: Float[np.ndarray, " columns"],
    count: Int[np.ndarray, " columns"],
    level: float,
) -> tuple[Float[np.ndarray, " columns"], Float[np.ndarray, " columns"]]:
    """Return the ends of the interval of the mean, with the standard error that the bootstrap estimates.

    Args:
        values: One number per image and column; NaN where undefined.
        mean: Mean of every column.
        count: Number of images where a column is defined.
        level: Confidence level, in (0, 1).

    Source: Efron and Tibshirani 1993, An Introduction to the Bootstrap, chapters 5 and 13.
    """
    squares = np.array([np.nansum((column - center) ** 2) for column, center in zip(values.T, mean, strict=True)])
    with np.errstate(invalid="ignore", divide="ignore"):
        half_width = NormalDist().inv_cdf((1 + level) / 2) * np.sqrt(squares) / count
    return mean - half_width, mean + half_width


def normal_p_values(differences: Float[np.ndarray, "images pairs"]) -> Float[np.ndarray, " pairs"]:
    """Test mean differences of 0 with the normal distribution of sign-flip sums, two-sided.

    Args:
        differences: First method minus second, per image and pair; NaN where either is undefined.

    Returns:
        One p-value per pair; 1 if all differences are 0.
    """
    return np.array(
        [
            math.erfc(abs(column.sum()) / math.sqrt(2 * squares)) if (squares := float(column @ column)) else 1.0
            for column in _defined_columns(differences)
        ]
    )


def normal_error_bounds(differences: Float[np.ndarray, "images pairs"]) -> Float[np.ndarray, " pairs"]:
    """Bound the error of `normal_p_values`: twice the Berry-Esseen bound, one for each tail."""
    return np.array(
        [
            min(2 * BERRY_ESSEEN * float((np.abs(column) * column**2).sum()) / squares**1.5, 1.0)
            if (squares := float(column @ column))
            else 0.0
            for column in _defined_columns(differences)
        ]
    )


def _defined_columns(differences: Float[np.ndarray, "images pairs"]) -> Iterator[Float[np.ndarray, " images"]]:
    """Yield the columns, with 0 for undefined images, which adds nothing with either sign."""
    return (np.nan_to_num(column, nan=0.0) for column in differences.T)
