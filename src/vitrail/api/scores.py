"""Score how faithful explanations are, for one model or several."""

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypedDict, Unpack

from torch import nn

from vitrail.adapters import Classifier
from vitrail.api.models import (
    Model,
    Options,
    as_classifier,
    as_list,
    default_method,
    default_protocol,
    make_capable_explainers,
    make_explainers,
)
from vitrail.core.errors import InvalidInputError
from vitrail.datasets.source import DataSource
from vitrail.evaluation import Scores
from vitrail.evaluation.scoring.plan import create_plan
from vitrail.evaluation.scoring.run import ScoringRun
from vitrail.evaluation.scoring.selection import Selection
from vitrail.evaluation.scoring.table import Table
from vitrail.evaluation.scoring.text import describe_undefined, metric_names
from vitrail.explainers import Explainer
from vitrail.metrics import Protocol
from vitrail.metrics.base import check_outputs
from vitrail.metrics.statistics import CONTROL

logger = logging.getLogger(__name__)


class ScoreOptions(TypedDict, total=False):
    """Further options of `score`, `compare`, `recommend` and `estimate_scores`, by keyword.

    Attributes:
        limit: Maximum number of images, evenly spread over the folder (default: all).
        target: Class to explain; None for the predicted one, "label" for the label of every image.
        options: Options by metric.
        mosaic: Grid pointing game: cells per side of mosaics, made of images that the model classifies confidently. Not for `compare`.
        method_options: Options by method.
        steps: Number of steps of all protocols (default: the protocol's); results are then not comparable to published ones.
        order: Which cells change first, "most" or "least" relevant, for all protocols (default: the protocol's).
        baseline: What replaces cells or pixels, for all protocols: one or several of "zero", "black", "blur", "imputed", "removed", ...
            (default: the protocol's).
        masks: Ground truth: a folder of masks, laid out like the images.
        boxes: Ground truth: the boxes of a data set that has them.
        data_set: Name of a data set; `data` is its root.
        split: Split of the data set; test if not given, or val if there is no test split.
        data_options: Options of the data set.
        out: Run directory for results and a report. An interrupted run with the same settings resumes. None: only return the scores.
        overwrite: Replace earlier results in `out`.
        batch_size: Images per batch (default: 16).
        num_workers: Processes that read images (default: 0).
        precision: Precision of the network: "full" (default), "bf16" or "fp16".
        ceiling: Number of images, evenly spread, on which the best order of cells is searched for on every curve, and methods are placed
            between random and it (default: 0). This takes very many passes; see `Scores.ceiling`.
        ceiling_stride: Number of cells that change at a step of this search (default: 1), whose cost falls in proportion.
        device: Device for models given by name (default: the fastest available).
    """

    limit: int | None
    target: int | str | None
    options: Options | None
    mosaic: int | None
    method_options: Options | None
    steps: int | None
    order: Literal["most", "least"] | None
    baseline: str | Sequence[str] | None
    masks: str | Path | None
    boxes: bool
    data_set: str | None
    split: str | None
    data_options: Mapping[str, Any] | None
    out: str | Path | None
    overwrite: bool
    batch_size: int
    num_workers: int
    precision: str
    ceiling: int
    ceiling_stride: int
    device: str | None


def score(
    model: Model,
    data: str | Path,
    methods: str | Iterable[str] | None = None,
    protocol: str | Protocol | Iterable[str] | None = None,
    metrics: str | Iterable[str] = (),
    **more: Unpack[ScoreOptions],
) -> Scores:
    """Measure how faithful the explanations of methods are.

    Inside `vitrail.core.distributed.process_group`, the processes share the work.

    Args:
        model: A name (`vitrail.load`), a network, or an adapted network.
        data: A folder of images, with or without class folders, or the root of a named data set. Ground truth of `vitrail generate` beside
            the images is used.
        methods: Names of methods; if None, the default method, and random as the control.
        protocol: Names of protocols of insertion and deletion, or one of your own; if neither protocol nor metrics are named, "tokens" for
            a Vision Transformer and "hit" for a HiT and all others.
        metrics: Names of other metrics.
        more: `limit`, `target`, `out` and others, see `ScoreOptions`.
    """
    metrics = as_list(metrics)
    run = make_run(data, protocol, metrics, more)
    classifier, explainers = _prepare(model, methods, more, make_explainers)
    if protocol is None and not metrics:
        run = make_run(data, default_protocol(classifier), metrics, more)
    if (out := more.get("out")) is not None:
        return run.score_into(Path(out), classifier, explainers)
    scores = run.score(classifier, explainers)
    if scores.columns:
        for line in (line for metric in metric_names(scores.table) for line in describe_undefined(scores.table, metric)):
            logger.warning("%s", line)
    return scores


def compare(
    models: Iterable[Model],
    data: str | Path,
    methods: str | Iterable[str] | None = None,
    protocol: str | Protocol | Iterable[str] | None = None,
    metrics: str | Iterable[str] = (),
    **more: Unpack[ScoreOptions],
) -> Table:
    """Score the methods of several models on the same images, and put them into one table.

    Arguments that are not listed are those of `score`.

    Args:
        models: Models with distinct names, each as for `score`. Models given by name are loaded one after the other.
        methods: Names of methods; each is used for the models that it can explain, and skipped for others with a warning. If None, the
            default method of each model, and random as the control.
        protocol: As for `score`, but "hit" if neither protocol nor metrics are named, which measures all models alike.
    """
    if more.get("mosaic") is not None:
        raise InvalidInputError(
            "expected no mosaic for compare, since mosaics differ from model to model; score one model at a time"
        )
    run = make_run(data, protocol, metrics, more)
    models = list(models)
    if len(models) > 1:
        run.try_models(prepare_models(models, [CONTROL], {**more, "method_options": None}))
    prepared = prepare_models(models, methods, more)
    if (out := more.get("out")) is not None:
        return run.compare_into(Path(out), [_describe(model) for model in models], prepared)
    return Table.from_scores([run.score(classifier, explainers) for classifier, explainers in prepared])


def prepare_models(
    models: Sequence[Model], methods: str | Iterable[str] | None, more: ScoreOptions
) -> Iterator[tuple[Classifier, Sequence[Explainer]]]:
    """Load one model after the other, and create the methods that can explain it."""
    names = None if methods is None else as_list(methods)
    for model in models:
        yield _prepare(model, names, more, make_capable_explainers)


def _prepare(
    model: Model, methods: str | Iterable[str] | None, more: ScoreOptions, create: Callable[..., list[Explainer]]
) -> tuple[Classifier, list[Explainer]]:
    """Load a model, and create the named methods, or its own default and the control."""
    classifier = as_classifier(model, more.get("device"))
    check_outputs(classifier)
    if methods is None:
        methods, create = [default_method(classifier), CONTROL], make_explainers
    return classifier, create(classifier, as_list(methods), more.get("method_options"), more.get("precision", "full"))


def _describe(model: Model) -> str:
    if isinstance(model, Classifier):
        return model.name
    return type(model).__name__ if isinstance(model, nn.Module) else str(model)


def make_run(
    data: str | Path,
    protocol: str | Protocol | Iterable[str] | None,
    metrics: str | Iterable[str],
    more: ScoreOptions,
) -> ScoringRun:
    """Put the arguments of `score` together as a run."""
    if unknown := more.keys() - ScoreOptions.__annotations__.keys():
        raise InvalidInputError(f"expected options of score, got {', '.join(sorted(unknown))}; see vitrail.api.ScoreOptions")
    protocols = protocol if protocol is None or isinstance(protocol, str | Protocol) else list(protocol)
    masks = more.get("masks")
    return ScoringRun(
        plan=create_plan(
            protocols, as_list(metrics), more.get("options"), more.get("steps"), more.get("order"), more.get("baseline")
        ),
        source=DataSource(Path(data), more.get("data_set"), more.get("split"), more.get("data_options") or {}),
        selection=Selection(
            limit=more.get("limit"),
            target=more.get("target"),
            masks=None if masks is None else Path(masks),
            root=Path(data),
            boxes=more.get("boxes", False),
            mosaic=more.get("mosaic"),
        ),
        batch_size=more.get("batch_size", 16),
        num_workers=more.get("num_workers", 0),
        overwrite=more.get("overwrite", False),
        ceiling=more.get("ceiling", 0),
        ceiling_stride=more.get("ceiling_stride", 1),
    )
