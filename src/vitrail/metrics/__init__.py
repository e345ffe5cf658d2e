"""Measures of whether an explanation is true: one file a family."""

from vitrail.metrics import faithfulness, localization, masks, sanity, sensitivity, single_step  # noqa: F401 (fill `METRICS`)
from vitrail.metrics.base import METRICS, ImageMetric, Measure, View
from vitrail.metrics.complexity import Completeness
from vitrail.metrics.curves import Curves
from vitrail.metrics.perturbation import InsertionDeletion, perturbation_curves
from vitrail.metrics.protocols import PROTOCOLS, Curve, Protocol

__all__ = [
    "METRICS",
    "PROTOCOLS",
    "Completeness",
    "Curve",
    "Curves",
    "ImageMetric",
    "InsertionDeletion",
    "Measure",
    "Protocol",
    "View",
    "perturbation_curves",
]
