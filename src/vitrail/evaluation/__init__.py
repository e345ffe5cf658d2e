"""Evaluate models and explanations on many images: accuracy, layer ablation, and faithfulness scores."""

from vitrail.evaluation.accuracy import Evaluation, evaluate, with_model_labels
from vitrail.evaluation.scoring import Plan, Scores, score

__all__ = ["Evaluation", "Plan", "Scores", "evaluate", "score", "with_model_labels"]
