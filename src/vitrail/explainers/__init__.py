"""Methods that explain: one file each."""

from vitrail.explainers import hit, random  # noqa: F401 (registers the methods)
from vitrail.explainers.base import EXPLAINERS, Attribution, Explainer, make_explainer, method_name

__all__ = ["EXPLAINERS", "Attribution", "Explainer", "make_explainer", "method_name"]
