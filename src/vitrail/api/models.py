"""Models and methods as users name them."""

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_type_hints

import torch
from torch import nn

from vitrail.adapters import Classifier, PlainClassifier, ViTAdapter, adapt
from vitrail.adapters.feature_maps import has_feature_map
from vitrail.api.loading import load
from vitrail.core.errors import InvalidInputError, UnknownNameError, UnsupportedModelError, VitrailError
from vitrail.core.options import convert_option
from vitrail.explainers import EXPLAINERS, Explainer, make_explainer
from vitrail.models.hit import HiT
from vitrail.models.intr import INTR

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class NamedModel:
    """A model by name, with options of `vitrail.load`, to be loaded when it is needed.

    Attributes:
        name: See `vitrail.load`.
        options: Keyword arguments of `vitrail.load`.
    """

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def each(
        cls, names: Sequence[str], options: Mapping[str, Any], display_names: Sequence[str] | None = None
    ) -> "list[NamedModel]":
        """Return several models with the same options, except for their names in results."""
        if display_names is None:
            return [cls(name, options) for name in names]
        return [cls(name, {**options, "display_name": own}) for name, own in zip(names, display_names, strict=True)]

    def __str__(self) -> str:
        return f"{self.name} {dict(self.options)}" if self.options else self.name


Model = str | Path | nn.Module | Classifier | NamedModel
"""A name or file (`vitrail.load`), also with options, a network (`vitrail.adapt`), or an adapted network."""

Options = Mapping[str, Mapping[str, Any]]
"""Options by the name of their method or metric."""


def as_classifier(model: Model, device: str | torch.device | None = None) -> Classifier:
    """Load a model by name, or adapt a network; return an adapted network as it is.

    Args:
        model: A name or file, also with options, a network, or an adapted network.
        device: Device for a model that is loaded by name (default: the fastest available); others stay where they are.
    """
    if isinstance(model, Classifier):
        return model
    if isinstance(model, nn.Module):
        return adapt(model)
    named = model if isinstance(model, NamedModel) else NamedModel(str(model))
    return load(named.name, device=device, **named.options)


def default_method(classifier: Classifier) -> str:
    """Return the method that is used if none is named.

    hit for a HiT and intr for an INTR, which explain themselves; rollout for a network that gives an embedding, which has no class to
    explain; for a network that vitrail cannot look into, grad-cam if its logits follow from one feature map, else occlusion; else chefer.
    """
    if isinstance(classifier, PlainClassifier):
        return "grad-cam" if classifier.output != "embedding" and has_feature_map(classifier) else "occlusion"
    if classifier.output == "embedding":
        return "rollout"
    return next((name for kind, name in ((HiT, "hit"), (INTR, "intr")) if isinstance(classifier.module, kind)), "chefer")


def default_protocol(classifier: Classifier) -> str:
    """Return the protocol of insertion and deletion that is used if neither a protocol nor a metric is named.

    tokens for a Vision Transformer whose patches can be removed: 20 steps, most of them with fewer tokens, and no baseline to choose; hit
    for a HiT, which computes its steps without new forward passes, and for all others.
    """
    if not isinstance(classifier, ViTAdapter) or isinstance(classifier.module, HiT):
        return "hit"
    try:
        with classifier.verified("parts", "removal"):
            return "tokens"
    except VitrailError:  # It needs all its patches.
        return "hit"


def make_explainers(
    classifier: Classifier, names: Sequence[str], options: Options | None = None, precision: str = "full"
) -> list[Explainer]:
    """Create several methods for one model.

    Args:
        options: Options by method; texts and numbers are converted to the type of the option.
        precision: Precision of methods that have none among their options: full, bf16 or fp16.

    Raises:
        UnknownNameError: No such method.
        UnsupportedModelError: A method cannot explain this model.
        InvalidInputError: Options of a method that is not named, an unknown option, or a value that does not fit.
    """
    options = options or {}
    _expect_named(options, names)
    common = {} if precision == "full" else {"precision": precision}
    return [
        make_explainer(
            name, classifier, **common | {key: _convert(name, key, value) for key, value in options.get(name, {}).items()}
        )
        for name in names
    ]


def make_capable_explainers(
    classifier: Classifier, names: Sequence[str], options: Options | None = None, precision: str = "full"
) -> list[Explainer]:
    """Create those of several methods that can explain a model; skip the others with a warning.

    Arguments are those of `make_explainers`.

    Raises:
        UnknownNameError: No such method.
        UnsupportedModelError: None of the methods can explain this model.
        InvalidInputError: Options of a method that is not named, an unknown option, or a value that does not fit.
    """
    options = options or {}
    _expect_named(options, names)
    explainers, reasons = list[Explainer](), list[str]()
    for name in names:
        EXPLAINERS[name]  # Raises for an unknown method.
        try:
            explainers += make_explainers(classifier, [name], {name: options.get(name, {})}, precision)
        except (UnknownNameError, UnsupportedModelError) as error:  # Also a method without learned weights for this model.
            reasons.append(str(error))
    if not explainers:
        raise UnsupportedModelError(f"none of {','.join(names)} can explain {classifier.name}: {', '.join(reasons[:1])}")
    for reason in reasons:
        logger.warning("skipped for %s: %s", classifier.name, reason)
    return explainers


def as_list(names: str | Iterable[str]) -> list[str]:
    """Return one name or several names as a list."""
    return [names] if isinstance(names, str) else list(names)


def _expect_named(options: Options, names: Sequence[str]) -> None:
    for name in options:
        if name not in names:
            raise InvalidInputError(
                f"expected options of {' or '.join(names)}, got options of {name!r}, which is not among the methods"
            )


def _convert(method: str, option: str, value: Any) -> Any:
    types = get_type_hints(EXPLAINERS[method])
    if option == "model":  # `make_explainer` takes it separately.
        raise InvalidInputError(f"method {method!r} has no option model; the model is given once for all methods")
    if option not in types:
        return value  # `make_explainer` lists the valid options.
    return convert_option(method, option, value, types[option])
