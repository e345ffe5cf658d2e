"""The public functions of vitrail: everything that the command line does, in one call each."""

from vitrail.api.catalog import list_methods, list_metrics, list_models, list_protocols, list_recipes
from vitrail.api.embeddings import similarity
from vitrail.api.estimates import estimate_folder, estimate_scores
from vitrail.api.evaluation import layers, queries, test
from vitrail.api.explanations import explain, explain_files, explain_folder
from vitrail.api.models import Model, NamedModel, as_classifier, default_method, default_protocol, make_explainers
from vitrail.api.recommendation import DEFAULT_LIMIT, Recommendation, recommend
from vitrail.api.scores import ScoreOptions, compare, score
from vitrail.api.training import read_recipe, train

__all__ = [
    "DEFAULT_LIMIT",
    "Model",
    "NamedModel",
    "Recommendation",
    "ScoreOptions",
    "as_classifier",
    "compare",
    "default_method",
    "default_protocol",
    "estimate_folder",
    "estimate_scores",
    "explain",
    "explain_files",
    "explain_folder",
    "layers",
    "list_methods",
    "list_metrics",
    "list_models",
    "list_protocols",
    "list_recipes",
    "make_explainers",
    "queries",
    "read_recipe",
    "recommend",
    "score",
    "similarity",
    "test",
    "train",
]
