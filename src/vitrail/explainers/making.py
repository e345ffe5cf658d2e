"""Make methods by name, with their options."""

from collections.abc import Sequence
from dataclasses import fields
from typing import Any

from vitrail.adapters import Classifier
from vitrail.core.errors import InvalidInputError
from vitrail.core.options import check_known
from vitrail.explainers.base import EXPLAINERS, Explainer


def check_method_names(explainers: Sequence[Explainer]) -> list[str]:
    """Return the names of methods, which key their results.

    Raises:
        InvalidInputError: No method, or the same name twice.
    """
    names = [explainer.name for explainer in explainers]
    if not names or len(set(names)) < len(names):
        raise InvalidInputError(f"expected at least one method, each once, got {', '.join(names) or 'none'}")
    return names


def make_explainer(name: str, model: Classifier, **options: Any) -> Explainer:
    """Build a method by name.

    Args:
        name: One of `EXPLAINERS`.
        model: The network to explain.
        **options: The method's options, and `precision`.

    Raises:
        UnknownNameError: No such method.
        UnsupportedModelError: The method cannot explain this model.
        InvalidInputError: An option that the method does not have, or a value that does not fit.
    """
    method = EXPLAINERS[name]
    check_known(f"method {name!r}", [option.name for option in fields(method) if option.name != "model"], options)
    return method(model, **options)
