"""Measures of whether an explanation is true: one file a family."""

from vitrail.metrics.curves import Curves
from vitrail.metrics.perturbation import InsertionDeletion, perturbation_curves
from vitrail.metrics.protocols import PROTOCOLS, Curve, Protocol

__all__ = ["PROTOCOLS", "Curve", "Curves", "InsertionDeletion", "Protocol", "perturbation_curves"]
