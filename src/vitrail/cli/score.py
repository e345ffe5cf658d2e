"""`vitrail score`: whether explanations are true."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, NamedTuple

import typer

from vitrail.cli.options import (
    BatchOption,
    DeviceOption,
    ImageSizeOption,
    LimitOption,
    MethodOptionOption,
    ModelArgOption,
    ModelOption,
    OutOption,
    OverwriteOption,
    PrecisionOption,
    WorkersOption,
    load_model,
    make_methods,
    report_unreadable,
)
from vitrail.errors import InvalidInputError
from vitrail.registry import Registry

if TYPE_CHECKING:
    from vitrail.adapters import Classifier
    from vitrail.data.folders import ImageFolder, Unreadable
    from vitrail.explainers import Explainer


@dataclass(frozen=True)
class Work:
    """What is to be measured, and how; None stands for what a metric takes by itself."""

    classifier: "Classifier"
    images: "ImageFolder"
    explainers: "Sequence[Explainer]"
    batch_size: int
    workers: int
    protocol: str | None
    steps: int | None
    order: Literal["most", "least"] | None
    threshold: float | None


class Done(NamedTuple):
    """What to say of a measurement: its lines, the files it wrote, and those it could not read."""

    lines: list[str]
    files: str
    unreadable: "Sequence[Unreadable]"


METRICS: Registry[Callable[[Work, Path], Done]] = Registry("metric")
"""What `--metric` chooses from: each measures, and writes into a folder."""

OPTIONS = {"protocol": "curves", "steps": "curves", "order": "curves", "threshold": "masks"}
"""The metric that an option belongs to."""


def score(
    data: Annotated[Path, typer.Argument(help="A photo, a folder of photos, or a folder with one sub-folder per class.")],
    model: ModelOption = None,
    model_arg: ModelArgOption = None,
    image_size: ImageSizeOption = None,
    method: Annotated[
        str | None,
        typer.Option(
            help="Methods, separated by commas; keep random as the control. If not given: hit for a HiT, intr for an INTR, else chefer; "
            "and random.",
            show_default=False,
        ),
    ] = None,
    method_option: MethodOptionOption = None,
    metric: Annotated[
        str,
        typer.Option(
            help="curves: insertion and deletion; masks: maps cut into masks, their decisions, and their answers if known."
        ),
    ] = "curves",
    protocol: Annotated[
        str | None,
        typer.Option(help="Of curves: a protocol, hit if not given; `vitrail list` names them.", show_default=False),
    ] = None,
    steps: Annotated[
        int | None, typer.Option(min=1, help="Of curves: other than the protocol's number of steps.", show_default=False)
    ] = None,
    order: Annotated[
        Literal["most", "least"] | None, typer.Option(help="Of curves: which cells change first.", show_default=False)
    ] = None,
    threshold: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="Of masks: where maps are cut, 0.5 if not given.", show_default=False),
    ] = None,
    limit: LimitOption = None,
    out: OutOption = Path("vitrail-score"),
    overwrite: OverwriteOption = False,
    batch_size: BatchOption = 16,
    workers: WorkersOption = 0,
    precision: PrecisionOption = "full",
    device: DeviceOption = None,
) -> None:
    """Measure whether maps are true, by curves or as masks; write tables and pictures, and print the means."""
    from vitrail.data.folders import ImageFolder  # noqa: PLC0415 (heavy)
    from vitrail.files import results_folder  # noqa: PLC0415

    measure = METRICS[metric]
    given = {"protocol": protocol, "steps": steps, "order": order, "threshold": threshold}
    for option, owner in OPTIONS.items():
        if given[option] is not None and owner != metric:
            raise InvalidInputError(f"expected --{option} together with --metric {owner}, got --metric {metric}")
    if protocol is not None:
        from vitrail.metrics import PROTOCOLS  # noqa: PLC0415

        PROTOCOLS[protocol]  # A name that there is not is told before the model is loaded.
    classifier = load_model(model, device, model_arg, image_size)
    explainers = make_methods(classifier, method, ["random"], method_option, precision)
    images = ImageFolder.scan(data, classifier.preprocessing).spread(limit)
    # The folder is claimed before the work, so that a bad one is told at once.
    with results_folder(out, overwrite) as folder:
        work = Work(classifier, images, explainers, batch_size, workers, protocol, steps, order, threshold)
        done = measure(work, folder)
    report_unreadable(list(done.unreadable))
    for line in done.lines:
        typer.echo(line)
    typer.echo(f"wrote {done.files} to {out}")


@METRICS.register("curves")
def _curves(work: Work, folder: Path) -> Done:
    """Insertion and deletion."""
    from vitrail.evaluation import score as score_folder  # noqa: PLC0415 (heavy)
    from vitrail.metrics import PROTOCOLS  # noqa: PLC0415
    from vitrail.viz.curves import plot_perturbation  # noqa: PLC0415
    from vitrail.viz.tables import write_scores  # noqa: PLC0415

    name, classifier = work.protocol or "hit", work.classifier
    chosen = PROTOCOLS[name].changed(num_steps=work.steps, orders=(work.order,) if work.order else None)
    scores = score_folder(classifier, work.images, work.explainers, chosen, work.batch_size, work.workers)
    targets = [classifier.class_name(target) for target in scores.targets.tolist()]
    write_scores(folder, scores.curves, scores.paths, targets, classifier.name, name, scores.unreadable, scores.completeness)
    plot_perturbation(scores.curves, folder / "curves.png")
    changed = "" if chosen == PROTOCOLS[name] else " (changed)"
    pace = f"{chosen.num_steps} steps" if chosen.num_steps else f"{chosen.cells_per_step} cells a step"
    lines = [f"{classifier.name}, protocol {name}{changed}, {pace}, {len(scores.paths)} images"]
    for word in ("higher", "lower"):
        if better := [curve.name for curve in chosen.curves if curve.better == word]:
            lines.append(f"{word} is better: {', '.join(better)}")
    for method, measured in scores.curves.items():
        areas = measured.summary()
        lines.append(f"  {method:<22}" + "  ".join(f"{curve} {areas[curve]:.4f}" for curve in measured.names))
    lines += [f"completeness error of {method}: {error:.1e}" for method, error in scores.completeness.items()]
    return Done(lines, "scores.csv, curves.csv, curves.npz, summary.json and curves.png", scores.unreadable)


@METRICS.register("masks")
def _masks(work: Work, folder: Path) -> Done:
    """Maps cut into masks."""
    from vitrail.evaluation import score_masks  # noqa: PLC0415 (heavy)
    from vitrail.viz.measures import mask_table, plot_masks, write_masks  # noqa: PLC0415
    from vitrail.viz.sheet import contact_sheet  # noqa: PLC0415

    classifier, threshold = work.classifier, 0.5 if work.threshold is None else work.threshold
    scores = score_masks(classifier, work.images, work.explainers, threshold, work.batch_size, work.workers)
    targets = [classifier.class_name(target) for target in scores.targets.tolist()]
    settings = {"model": classifier.name, "metric": "masks", "threshold": threshold}
    known = {"answers": scores.answered, "num_empty_answers": scores.num_empty}
    write_masks(folder, scores.per_image, scores.paths, targets, settings | known, scores.unreadable)
    plot_masks(scores.per_image, folder / "scores.png")
    contact_sheet(scores.shown, folder / "masks.png")
    lines = [f"{classifier.name}, masks cut at {threshold:g}, {len(scores.paths)} images"]
    if not scores.answered:
        lines.append("no answers lie beside the images: whether masks are right is not measured")
    elif scores.num_empty:
        lines.append(f"left out of iou, iou_at_size and pointing, since their answer is empty: {scores.num_empty}")
    lines += [f"  {line}" for line in mask_table(scores.per_image)]
    return Done(lines, "masks.csv, summary.json, scores.png and masks.png", scores.unreadable)
