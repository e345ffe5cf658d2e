"""The front door: photos in, explanations and scores out, in one call each."""

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, get_type_hints

from PIL import Image
from pydantic import ConfigDict, TypeAdapter, ValidationError
from torch import Tensor, nn

from vitrail.adapters import Classifier, adapt, load
from vitrail.core.errors import InvalidInputError
from vitrail.core.types import Targets
from vitrail.datasets.folder import ImageFolder
from vitrail.datasets.image_io import open_image, to_rgb
from vitrail.evaluation import Plan, Scores
from vitrail.evaluation import score as score_images
from vitrail.evaluation.scoring.plan import metric_options
from vitrail.evaluation.scoring.selection import Selection
from vitrail.evaluation.scoring.table import Table
from vitrail.evaluation.scoring.text import metric_names, undefined_lines
from vitrail.explainers import EXPLAINERS, Explainer, make_explainer
from vitrail.explanation import Explanation
from vitrail.metrics import METRICS, PROTOCOLS, Protocol
from vitrail.models.hit import HiT
from vitrail.models.intr import INTR
from vitrail.runs.explain_images import explain_photos

logger = logging.getLogger(__name__)

Model = str | Path | nn.Module | Classifier
Photo = str | Path | Image.Image


def explain(
    model: Model,
    photos: Photo | Sequence[Photo] | Tensor,
    method: str | None = None,
    target: int | str | Targets | None = None,
    **options: Any,
) -> Explanation:
    """Explain what a model sees in photos.

    Args:
        model: A name (`vitrail.load`), a network, or an adapted one.
        photos: Files, opened photos, or a normalized batch.
        method: Name of a method (`vitrail.list_methods`); if None `default_method`: hit for a HiT, intr for an INTR, else chefer.
        target: Class index or name for all, an index per image, or None for the predicted class.
        options: Of the method.

    Raises:
        VitrailError: Says what was expected, what came, and what to do.

    Example:
        >>> import vitrail
        >>> explanation = vitrail.explain("vitrail:hit-cifar10", "cat.jpg")  # doctest: +SKIP
    """
    classifier = as_classifier(model)
    explainer = make_explainer(method or default_method(classifier), classifier, **options)
    if isinstance(photos, Tensor):
        if not photos.is_floating_point():  # Before `to` would make it so.
            raise InvalidInputError(f"expected a normalized batch of floats, got {photos.dtype}; give pixels as opened photos")
        return explainer.explain(photos.to(classifier.device, classifier.dtype), target)
    if isinstance(photos, str | Path | Image.Image):
        photos = [photos]
    opened = [to_rgb(photo) if isinstance(photo, Image.Image) else open_image(photo) for photo in photos]
    sources = ["" if isinstance(photo, Image.Image) else str(photo) for photo in photos]
    return explain_photos(explainer, opened, sources, target)


def score(
    model: Model,
    data: str | Path,
    methods: str | Iterable[str] | None = None,
    protocol: str | Protocol | Iterable[str] | None = None,
    metrics: str | Iterable[str] = (),
    limit: int | None = None,
    target: int | str | None = None,
    options: Mapping[str, Mapping[str, Any]] | None = None,
) -> Scores:
    """Measure whether the maps of methods are true.

    Args:
        model: As `explain` takes it.
        data: A folder of images, with or without class folders; ground_truth of `vitrail generate` beside it are found.
        methods: Names of methods; if None `default_method`, and random as the control.
        protocol: Names of protocols of insertion and deletion, or one of your own; "hit" if no metrics are named either.
        metrics: Names of other metrics.
        limit: At most so many images, evenly spread over the folder.
        target: Class to explain; None for the predicted one, "label" for the label of every image.
        options: Per metric, its options.
    """
    classifier = as_classifier(model)
    methods = (default_method(classifier), "random") if methods is None else methods
    explainers = make_explainers(classifier, _names(methods))
    if isinstance(protocol, Protocol):
        protocols: Mapping[str, Protocol] = {"own": protocol}
    else:
        named = _names(protocol) if protocol is not None else [] if metrics else ["hit"]
        if len(set(named)) < len(named) or not all(isinstance(name, str) for name in named):
            raise InvalidInputError(f"expected names of protocols, each once, or one protocol of your own, got {named}")
        protocols = {name: PROTOCOLS[name] for name in named}
    plan = Plan.of(protocols, _names(metrics), options)
    choice = Selection(limit=limit, target=target)
    images = choice.apply(ImageFolder.scan(data, classifier.preprocessing), classifier, plan)
    scores = score_images(classifier, images, explainers, plan, choice.explained)
    if scores.columns:
        table = Table.of([scores])
        for line in (line for metric in metric_names(table) for line in undefined_lines(table, metric)):
            logger.warning("%s", line)
    return scores


def compare(
    models: Iterable[Model],
    data: str | Path,
    methods: str | Iterable[str] | None = None,
    protocol: str | Protocol | Iterable[str] | None = None,
    metrics: str | Iterable[str] = (),
    limit: int | None = None,
    target: int | str | None = None,
    options: Mapping[str, Mapping[str, Any]] | None = None,
) -> Table:
    """Put the methods of several models beside each other: `score` of each, on the same images.

    Args:
        models: Each as `explain` takes it, under different names.
        data: As `score` takes it, as well as the other arguments; methods have to be able to explain every model.
        methods: See there.
        protocol: See there.
        metrics: See there.
        limit: See there.
        target: See there.
        options: See there.
    """
    return Table.of([score(model, data, methods, protocol, metrics, limit, target, options) for model in models])


def _names(names: str | Iterable[str]) -> list[str]:
    return [names] if isinstance(names, str) else list(names)


def list_methods() -> list[dict[str, Any]]:
    """Every method: its name, paper, what it needs, and its options with their defaults; all of them also take `precision`."""
    return [
        {
            "name": name,
            "paper": method.paper,
            "needs_gradients": method.needs_gradients,
            "needs_training": method.needs_training,
            "model": method.needs_model,
            "options": {
                option.name: list(option.default) if isinstance(option.default, tuple) else option.default
                for option in fields(method)
                if option.name not in ("model", "precision")
            },
            "summary": (method.__doc__ or "").strip().splitlines()[0],
        }
        for name, method in EXPLAINERS.items()
    ]


def list_protocols() -> list[dict[str, str]]:
    """Every protocol: its name, what it does, and where it comes from."""
    return [
        {"name": name, "description": protocol.description, "source": protocol.source} for name, protocol in PROTOCOLS.items()
    ]


def list_metrics() -> list[dict[str, Any]]:
    """Every metric besides the protocols' curves: what it measures, what is better, what it needs, and its options."""
    return [
        {
            "name": name,
            "summary": (metric.__doc__ or "").strip().splitlines()[0],
            "measures": {measure.name: measure.better for measure in metric.measures},
            "needs_ground_truth": metric.needs_ground_truth,
            "options": metric_options(name),
        }
        for name, metric in METRICS.items()
    ]


def default_method(classifier: Classifier) -> str:
    """The method that is meant where none is named: hit for a HiT and intr for an INTR, which explain themselves, else chefer."""
    return next((name for kind, name in ((HiT, "hit"), (INTR, "intr")) if isinstance(classifier.module, kind)), "chefer")


def make_explainers(
    classifier: Classifier,
    names: Sequence[str],
    options: Mapping[str, Mapping[str, Any]] | None = None,
    precision: str = "full",
) -> list[Explainer]:
    """Build several methods for one model.

    Args:
        classifier: The model.
        names: Of the methods.
        options: Per method, its options; texts and numbers are brought to the option's type.
        precision: Of all of them that have none among their options: full, bf16 or fp16.

    Raises:
        UnknownNameError: No such method.
        UnsupportedModelError: A method cannot explain this model.
        InvalidInputError: An option of a method that is not named, one that it does not have, or a value that does not fit.
    """
    options = options or {}
    for name in options:
        if name not in names:
            raise InvalidInputError(
                f"expected options of {' or '.join(names)}, got options of {name!r}, which is not asked for"
            )
    common = {} if precision == "full" else {"precision": precision}
    return [
        make_explainer(
            name, classifier, **common | {key: _fitting(name, key, value) for key, value in options.get(name, {}).items()}
        )
        for name in names
    ]


def _fitting(method: str, option: str, value: Any) -> Any:
    types = get_type_hints(EXPLAINERS[method])
    if option == "model":  # `make_explainer` takes it by itself.
        raise InvalidInputError(f"method {method!r} has no option model; the model is given once for all methods")
    if option not in types:
        return value  # `make_explainer` names the options that there are.
    try:
        return TypeAdapter(types[option], config=ConfigDict(arbitrary_types_allowed=True)).validate_python(value)
    except ValidationError as error:
        raise InvalidInputError(f"cannot use {value!r} for {method}.{option}: {error.errors()[0]['msg']}") from error


def as_classifier(model: Model) -> Classifier:
    """Load a name, adapt a network, pass an adapted one through."""
    if isinstance(model, Classifier):
        return model
    return adapt(model) if isinstance(model, nn.Module) else load(model)
