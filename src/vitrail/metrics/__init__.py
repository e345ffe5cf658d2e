"""Metrics of explanations, one file per family."""

from vitrail.metrics import (  # noqa: F401 (registers the metrics)
    faithfulness,
    localization,
    masks,
    saco,
    sanity,
    sensitivity,
    single_step,
)
from vitrail.metrics.base import METRICS, ImageMetric, Measure, MetricBatch
from vitrail.metrics.complexity import Completeness
from vitrail.metrics.curves import Curves
from vitrail.metrics.perturbation import InsertionDeletion, perturbation_curves
from vitrail.metrics.protocol import Curve, Protocol
from vitrail.metrics.protocols import PROTOCOLS

__all__ = [
    "METRICS",
    "PROTOCOLS",
    "Completeness",
    "Curve",
    "Curves",
    "ImageMetric",
    "InsertionDeletion",
    "Measure",
    "MetricBatch",
    "Protocol",
    "perturbation_curves",
]
