"""Explanation methods, one file each."""

from vitrail.explainers import (  # noqa: F401 (registers the methods)
    attcat,
    attention,
    chefer,
    diffmask,
    grad_cam,
    greedy,
    hit,
    intr,
    legrad,
    mutex,
    occlusion,
    random,
    rise,
    rollout,
    shapley,
    token_gradients,
)
from vitrail.explainers._usable import usable_methods
from vitrail.explainers.base import EXPLAINERS, Attribution, Explainer
from vitrail.explainers.making import check_method_names, make_explainer

__all__ = ["EXPLAINERS", "Attribution", "Explainer", "check_method_names", "make_explainer", "usable_methods"]
