"""Measures of whether an explanation is true: one file a family."""

from vitrail.metrics.perturbation import Curves, InsertionDeletion, perturbation_curves
from vitrail.metrics.protocols import BASELINES, PROTOCOLS, Protocol

__all__ = ["BASELINES", "PROTOCOLS", "Curves", "InsertionDeletion", "Protocol", "perturbation_curves"]
