"""A whole folder of images through a model: how often it is right, and whether its explanations are true."""

from vitrail.evaluation.accuracy import Evaluation, evaluate, with_model_labels
from vitrail.evaluation.scoring import Plan, Scores, score

__all__ = ["Evaluation", "Plan", "Scores", "evaluate", "score", "with_model_labels"]
