"""Which methods explain a network, found out on noise."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from vitrail.adapters import Classifier, PlainClassifier, ViTAdapter
from vitrail.adapters.feature_maps import has_feature_map
from vitrail.core.errors import VitrailError

if TYPE_CHECKING:
    from vitrail.explainers.base import Explainer


def usable_methods(model: Classifier) -> list[str]:
    """List the methods that explain a model as it is, with their default options; `shapley` asks for more passes on fine grids.

    Checks run on noise, and are remembered.
    """
    return [name for name in _methods() if _runs_on(name, model)]


def explain_need_of_vit(model: Classifier) -> str:
    """Explain that a method needs a Vision Transformer, and which methods explain a model that is none."""
    reason = f", and {model.reason}" if isinstance(model, PlainClassifier) and model.reason else ""
    others = [name for name, method in _methods().items() if method.needs_model in ("any", "INTR") and _runs_on(name, model)]
    return f"it needs a Vision Transformer{reason}" + (f"; methods that explain it: {', '.join(others)}" if others else "")


def _runs_on(name: str, model: Classifier) -> bool:
    try:
        explainer = _methods()[name](model)
        with model.verified(*explainer.checks):
            return not explainer.needs_feature_map or isinstance(model, ViTAdapter) or has_feature_map(model)
    except VitrailError:
        return False


def _methods() -> "Mapping[str, type[Explainer]]":
    from vitrail.explainers.base import EXPLAINERS  # noqa: PLC0415 (circular)

    return EXPLAINERS
