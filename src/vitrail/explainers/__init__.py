"""Methods that explain: one file each."""

from vitrail.explainers import (  # noqa: F401 (registers the methods)
    attcat,
    attention,
    chefer,
    diffmask,
    grad_cam,
    hit,
    intr,
    legrad,
    mutex,
    occlusion,
    random,
    rise,
    rollout,
    token_gradients,
)
from vitrail.explainers.base import EXPLAINERS, Attribution, Explainer, distinct_names, make_explainer, method_name

__all__ = ["EXPLAINERS", "Attribution", "Explainer", "distinct_names", "make_explainer", "method_name"]
