"""Statistics of methods on the same images: intervals, tests, corrections and ranks."""

from vitrail.metrics.statistics.comparison import CONTROL, Comparison, UnprovenMethod, compare_pairs, find_unproven_methods
from vitrail.metrics.statistics.multiplicity import holm, mean_ranks, ranks
from vitrail.metrics.statistics.resampling import Intervals, bootstrap_interval, p_value_errors, paired_p_values
from vitrail.metrics.statistics.shares import share_of_way

__all__ = [
    "CONTROL",
    "Comparison",
    "Intervals",
    "UnprovenMethod",
    "bootstrap_interval",
    "compare_pairs",
    "find_unproven_methods",
    "holm",
    "mean_ranks",
    "p_value_errors",
    "paired_p_values",
    "ranks",
    "share_of_way",
]
