"""The public functions of vitrail: everything that the command line does, in one call each.

They are imported on first use, because explaining needs neither metrics nor training, whose libraries take seconds to import.
"""

from typing import TYPE_CHECKING

from vitrail.core.lazy import lazy_names

if TYPE_CHECKING:
    from vitrail.api.catalog import list_methods, list_metrics, list_models, list_protocols, list_recipes
    from vitrail.api.embeddings import similarity
    from vitrail.api.estimates import estimate_folder, estimate_scores
    from vitrail.api.evaluation import layers, queries, test
    from vitrail.api.explanations import explain, explain_files, explain_folder
    from vitrail.api.models import Model, NamedModel, as_classifier, default_method, default_protocol, make_explainers
    from vitrail.api.recommendation import DEFAULT_LIMIT, Recommendation, recommend
    from vitrail.api.scores import ScoreOptions, compare, score
    from vitrail.api.training import read_recipe, train

_MODULES = {
    "DEFAULT_LIMIT": "vitrail.api.recommendation",
    "Model": "vitrail.api.models",
    "NamedModel": "vitrail.api.models",
    "Recommendation": "vitrail.api.recommendation",
    "ScoreOptions": "vitrail.api.scores",
    "as_classifier": "vitrail.api.models",
    "compare": "vitrail.api.scores",
    "default_method": "vitrail.api.models",
    "default_protocol": "vitrail.api.models",
    "estimate_folder": "vitrail.api.estimates",
    "estimate_scores": "vitrail.api.estimates",
    "explain": "vitrail.api.explanations",
    "explain_files": "vitrail.api.explanations",
    "explain_folder": "vitrail.api.explanations",
    "layers": "vitrail.api.evaluation",
    "list_methods": "vitrail.api.catalog",
    "list_metrics": "vitrail.api.catalog",
    "list_models": "vitrail.api.catalog",
    "list_protocols": "vitrail.api.catalog",
    "list_recipes": "vitrail.api.catalog",
    "make_explainers": "vitrail.api.models",
    "queries": "vitrail.api.evaluation",
    "read_recipe": "vitrail.api.training",
    "recommend": "vitrail.api.recommendation",
    "score": "vitrail.api.scores",
    "similarity": "vitrail.api.embeddings",
    "test": "vitrail.api.evaluation",
    "train": "vitrail.api.training",
}

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

__getattr__, __dir__ = lazy_names(__name__, _MODULES)
