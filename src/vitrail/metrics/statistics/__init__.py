"""Whether methods differ on the same images: intervals, tests, corrections and ranks."""

from vitrail.metrics.statistics.comparison import Comparison, Unproven, compare_pairs, not_beating_control
from vitrail.metrics.statistics.multiplicity import holm, mean_ranks, ranks
from vitrail.metrics.statistics.resampling import Intervals, bootstrap_interval, paired_p_values

__all__ = [
    "Comparison",
    "Intervals",
    "Unproven",
    "bootstrap_interval",
    "compare_pairs",
    "holm",
    "mean_ranks",
    "not_beating_control",
    "paired_p_values",
    "ranks",
]
