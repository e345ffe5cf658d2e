"""What `vitrail score` and `vitrail compare` share."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from vitrail.cli.options import data_options, make_explainers_from_options, metric_options
from vitrail.core.errors import InvalidInputError, UnknownNameError, UnsupportedModelError

if TYPE_CHECKING:
    from vitrail.adapters import Classifier, Preprocessing
    from vitrail.datasets.dataset import LabeledImages
    from vitrail.evaluation.scoring.plan import Plan
    from vitrail.evaluation.scoring.scores import Scores
    from vitrail.evaluation.scoring.table import Table
    from vitrail.explainers import Explainer

logger = logging.getLogger("vitrail")

ProtocolOption = Annotated[
    str | None,
    typer.Option(
        help="Protocols of insertion and deletion, separated by commas; `vitrail list` names them. If neither this nor --metric is "
        "given: hit.",
        show_default=False,
    ),
]
MetricOption = Annotated[
    str | None,
    typer.Option(help="Other metrics, separated by commas; `vitrail list` names them.", show_default=False),
]
MetricOptionOption = Annotated[
    list[str] | None,
    typer.Option(
        "--metric-option",
        metavar="METRIC.OPTION=VALUE",
        help="An option of a metric, e.g. masks.threshold=0.3; may be repeated.",
        show_default=False,
    ),
]
StepsOption = Annotated[
    int | None,
    typer.Option(
        min=1, help="Of the protocols: so many steps instead of their own. Its error has no bound.", show_default=False
    ),
]
OrderOption = Annotated[
    Literal["most", "least"] | None,
    typer.Option(help="Of the protocols: which cells change first, instead of their own.", show_default=False),
]
TargetOption = Annotated[
    str | None,
    typer.Option(
        help='Class to explain, by name or number; "label" for the label of every image; the predicted one if not given.',
        show_default=False,
    ),
]
MasksOption = Annotated[
    Path | None,
    typer.Option(
        help="What is known to decide: a folder of masks that lie in it as the images in DATA, under the same names.",
        show_default=False,
    ),
]
BoxesOption = Annotated[bool, typer.Option("--boxes", help="What is known to decide: the boxes of a data set that has them.")]
MosaicOption = Annotated[
    int | None,
    typer.Option(
        min=2,
        help="Grid pointing game: mosaics of so many images a side, made of those that the model is sure of.",
        show_default=False,
    ),
]
DataSetOption = Annotated[
    str | None,
    typer.Option("--data-set", help="DATA is the root of a data set by its name; see vitrail list data.", show_default=False),
]
SplitOption = Annotated[str | None, typer.Option(help="Of --data-set; test if not given.", show_default=False)]
DataOptionOption = Annotated[
    list[str] | None,
    typer.Option("--data-option", metavar="KEY=VALUE", help="Of --data-set; may be repeated.", show_default=False),
]


def make_plan(
    protocol: str | None,
    metric: str | None,
    options: Sequence[str] | None,
    steps: int | None,
    order: Literal["most", "least"] | None,
) -> "Plan":
    """Build what `--protocol`, `--metric` and their options name.

    Raises:
        UnknownNameError: No such protocol or metric.
        InvalidInputError: Options that do not fit.
    """
    from vitrail.evaluation.scoring import Plan  # noqa: PLC0415 (heavy)
    from vitrail.metrics import METRICS, PROTOCOLS  # noqa: PLC0415

    metrics = [] if metric is None else _names(metric)
    for name in metrics:
        if name in PROTOCOLS and name not in METRICS:
            raise InvalidInputError(f"{name} is a protocol; give it by --protocol")
    protocols = _names(protocol) if protocol is not None else [] if metrics else ["hit"]
    for name in protocols:
        if name in METRICS and name not in PROTOCOLS:
            raise InvalidInputError(f"{name} is a metric; give it by --metric")
    if (steps or order) and not protocols:
        raise InvalidInputError("expected --steps and --order together with --protocol, got none")
    chosen = {
        name: PROTOCOLS[name].changed(num_steps=steps, orders=(order,) if order else None) for name in dict.fromkeys(protocols)
    }
    return Plan.of(chosen, list(dict.fromkeys(metrics)), metric_options(options))


def read_images(
    root: Path, name: str | None, split: str | None, options: list[str] | None, preprocessing: "Preprocessing"
) -> "LabeledImages":
    """All images of a folder, or of a data set by its name."""
    if name is None:
        if split is not None or options:
            raise InvalidInputError("expected --split and --data-option together with --data-set, got no --data-set")
        from vitrail.datasets.folder import ImageFolder  # noqa: PLC0415 (heavy)

        return ImageFolder.scan(root, preprocessing)
    from vitrail.datasets.named import read_data  # noqa: PLC0415 (heavy)

    return read_data(name, root, split or "test", preprocessing, **data_options(options))


def describe_data(root: Path, name: str | None, split: str | None, options: list[str] | None) -> dict[str, Any]:
    """What tells these images from others."""
    from vitrail.core.files import real_path  # noqa: PLC0415 (only where it is needed)

    return {"data": str(real_path(root)), "data_set": name, "split": split, "data_options": data_options(options)}


def able_methods(
    classifier: "Classifier", methods: str | None, options: Sequence[str] | None, precision: str
) -> "list[Explainer]":
    """Build those of the named methods that can explain a model; the others are said to be left out.

    Raises:
        UnknownNameError: No such method.
        UnsupportedModelError: None can.
        InvalidInputError: An option of a method that is not named, or one that does not fit.
    """
    if methods is None:
        return make_explainers_from_options(classifier, None, ["random"], options, precision)
    from vitrail.explainers import EXPLAINERS  # noqa: PLC0415 (heavy)

    able, refused, names = list["Explainer"](), dict[str, str](), list(dict.fromkeys(_names(methods)))
    owner = {option: option.partition(".")[0].strip() for option in options or ()}
    if strangers := [name for name in owner.values() if name not in names]:
        raise InvalidInputError(
            f"expected options of {' or '.join(names)}, got options of {strangers[0]!r}, which is not asked for"
        )
    for name in names:
        own = [option for option in owner if owner[option] == name]
        try:
            EXPLAINERS[name]
            able += make_explainers_from_options(classifier, name, [], own, precision)
        except UnknownNameError as error:
            if name not in EXPLAINERS:
                raise
            refused[name] = str(error)  # It has learned nothing of this model.
        except UnsupportedModelError as error:
            refused[name] = str(error)
    if not able:
        raise UnsupportedModelError(f"none of {methods} can explain {classifier.name}: {next(iter(refused.values()))}")
    for reason in refused.values():
        logger.warning("left out for %s: %s", classifier.name, reason)
    return able


def print_table(table: "Table", changed: Mapping[str, str]) -> None:
    """Print per metric the means and what they leave out, then ranks and costs, then what is not shown to beat chance."""
    from vitrail.evaluation.scoring.text import (  # noqa: PLC0415
        aligned,
        metric_names,
        metric_rows,
        overview_rows,
        undefined_lines,
        warnings,
    )

    for metric in metric_names(table):
        typer.echo(f"{metric}{changed.get(metric, '')}")
        for line in (*aligned(*metric_rows(table, metric)), *undefined_lines(table, metric)):
            typer.echo(f"  {line}")
    typer.echo("±: half of the 95 % bootstrap interval of the mean over images")
    for line in aligned(*overview_rows(table)):
        typer.echo(f"  {line}")
    for line in warnings(table.unproven, table.num_images, table.num_compared):
        typer.echo(f"warning: {line}", err=True)


def print_effect(scores: "Scores") -> None:
    """Print what reduced precision does to the numbers, where it was asked for."""
    if scores.effect is not None:
        words = ", ".join(f"{name} {value:.1e}" for name, value in scores.effect.items())
        typer.echo(f"{scores.model}: mean difference that reduced precision makes, on the first batch: {words}")


def changes(plan: "Plan") -> dict[str, str]:
    """What of a protocol is not as published, in words."""
    from vitrail.metrics import PROTOCOLS  # noqa: PLC0415 (heavy)

    found = {}
    for name, protocol in plan.protocols.items():
        words = []
        if protocol.num_steps != PROTOCOLS[name].num_steps:
            words.append(f"{protocol.num_steps} steps: the error of other steps has no bound")
        if protocol.orders != PROTOCOLS[name].orders:
            words.append(f"{' and '.join(protocol.orders)} relevant first")
        if words:
            found[name] = f" (changed: {'; '.join(words)})"
    return found


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",")]
