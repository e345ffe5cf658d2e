"""Measure many methods by many metrics on the same images, in one pass, with intervals and comparisons."""

from vitrail.evaluation.scoring.engine import score
from vitrail.evaluation.scoring.plan import Column, Plan
from vitrail.evaluation.scoring.scores import Scores

__all__ = ["Column", "Plan", "Scores", "score"]
