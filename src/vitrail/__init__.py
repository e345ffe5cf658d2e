"""vitrail explains decisions of Vision Transformers, and measures how faithful the explanations are.

Public names are imported on first use, to keep `import vitrail` fast.
"""

from typing import TYPE_CHECKING

from vitrail.core.lazy import lazy_names
from vitrail.version import __version__

if TYPE_CHECKING:
    from vitrail.adapters import Classifier, Preprocessing, ViTAdapter, adapt, bundled_models, save
    from vitrail.api import (
        compare,
        explain,
        list_methods,
        list_metrics,
        list_protocols,
        list_recipes,
        recommend,
        score,
        similarity,
        train,
    )
    from vitrail.api.loading import load
    from vitrail.core.errors import VitrailError
    from vitrail.explanation import Explanation
    from vitrail.metrics import Protocol
    from vitrail.runs.saved_run import open_run

_MODULES = {
    "Classifier": "vitrail.adapters",
    "Explanation": "vitrail.explanation",
    "Preprocessing": "vitrail.adapters",
    "Protocol": "vitrail.metrics",
    "ViTAdapter": "vitrail.adapters",
    "VitrailError": "vitrail.core.errors",
    "adapt": "vitrail.adapters",
    "bundled_models": "vitrail.adapters",
    "compare": "vitrail.api",
    "explain": "vitrail.api",
    "list_methods": "vitrail.api",
    "list_metrics": "vitrail.api",
    "list_protocols": "vitrail.api",
    "list_recipes": "vitrail.api",
    "load": "vitrail.api.loading",
    "open_run": "vitrail.runs.saved_run",
    "recommend": "vitrail.api",
    "save": "vitrail.adapters",
    "score": "vitrail.api",
    "similarity": "vitrail.api",
    "train": "vitrail.api",
}

__all__ = [
    "Classifier",
    "Explanation",
    "Preprocessing",
    "Protocol",
    "ViTAdapter",
    "VitrailError",
    "__version__",
    "adapt",
    "bundled_models",
    "compare",
    "explain",
    "list_methods",
    "list_metrics",
    "list_protocols",
    "list_recipes",
    "load",
    "open_run",
    "recommend",
    "save",
    "score",
    "similarity",
    "train",
]

__getattr__, __dir__ = lazy_names(__name__, _MODULES)
