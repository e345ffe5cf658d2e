"""Measures of whether an explanation is true: one file a family."""

from vitrail.metrics.perturbation import Curves, InsertionDeletion, perturbation_curves
from vitrail.metrics.protocols import PROTOCOLS, Protocol

__all__ = ["PROTOCOLS", "Curves", "InsertionDeletion", "Protocol", "perturbation_curves"]
