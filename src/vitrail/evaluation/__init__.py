"""A whole folder of images through a model: how often it is right, and whether its explanations are true."""

from vitrail.evaluation.accuracy import Evaluation, evaluate, with_model_labels
from vitrail.evaluation.curves import Scores, score
from vitrail.evaluation.masks import MaskScores, score_masks

__all__ = ["Evaluation", "MaskScores", "Scores", "evaluate", "score", "score_masks", "with_model_labels"]
