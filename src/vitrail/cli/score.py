"""`vitrail score`: whether explanations are true."""

from pathlib import Path
from typing import Annotated, Literal

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


def score(
    data: Annotated[Path, typer.Argument(help="A photo, a folder of photos, or a folder with one sub-folder per class.")],
    model: ModelOption = None,
    model_arg: ModelArgOption = None,
    image_size: ImageSizeOption = None,
    method: Annotated[
        str | None,
        typer.Option(
            help="Methods, separated by commas; keep random as the control. If not given: hit for a HiT, else chefer; and random.",
            show_default=False,
        ),
    ] = None,
    method_option: MethodOptionOption = None,
    protocol: Annotated[str, typer.Option(help="A protocol; `vitrail list` names them.")] = "hit",
    steps: Annotated[
        int | None, typer.Option(min=1, help="Other than the protocol's number of steps.", show_default=False)
    ] = None,
    order: Annotated[
        Literal["most", "least"] | None, typer.Option(help="Which cells change first.", show_default=False)
    ] = None,
    limit: LimitOption = None,
    out: OutOption = Path("vitrail-score"),
    overwrite: OverwriteOption = False,
    batch_size: BatchOption = 16,
    workers: WorkersOption = 0,
    precision: PrecisionOption = "full",
    device: DeviceOption = None,
) -> None:
    """Measure insertion and deletion curves; write them as CSV, arrays and a plot, and print the areas under them."""
    from vitrail.data.folders import ImageFolder  # noqa: PLC0415 (heavy)
    from vitrail.evaluation import score as score_folder  # noqa: PLC0415
    from vitrail.files import results_folder  # noqa: PLC0415
    from vitrail.metrics import PROTOCOLS  # noqa: PLC0415
    from vitrail.viz.curves import plot_perturbation  # noqa: PLC0415
    from vitrail.viz.tables import write_scores  # noqa: PLC0415

    chosen = PROTOCOLS[protocol].changed(num_steps=steps, orders=(order,) if order else None)
    classifier = load_model(model, device, model_arg, image_size)
    explainers = make_methods(classifier, method, ["random"], method_option, precision)
    images = ImageFolder.scan(data, classifier.preprocessing).spread(limit)
    # The folder is claimed before the work, so that a bad one is told at once.
    with results_folder(out, overwrite) as folder:
        scores = score_folder(classifier, images, explainers, chosen, batch_size, workers)
        names = [classifier.class_name(target) for target in scores.targets.tolist()]
        write_scores(
            folder, scores.curves, scores.paths, names, classifier.name, protocol, scores.unreadable, scores.completeness
        )
        plot_perturbation(scores.curves, folder / "curves.png")
    report_unreadable(scores.unreadable)
    changed = "" if chosen == PROTOCOLS[protocol] else " (changed)"
    pace = f"{chosen.num_steps} steps" if chosen.num_steps else f"{chosen.cells_per_step} cells a step"
    typer.echo(f"{classifier.name}, protocol {protocol}{changed}, {pace}, {len(scores.paths)} images")
    for word in ("higher", "lower"):
        if better := [curve.name for curve in chosen.curves if curve.better == word]:
            typer.echo(f"{word} is better: {', '.join(better)}")
    for name, measured in scores.curves.items():
        areas = measured.summary()
        typer.echo(f"  {name:<22}" + "  ".join(f"{curve} {areas[curve]:.4f}" for curve in measured.names))
    for name, error in scores.completeness.items():
        typer.echo(f"completeness error of {name}: {error:.1e}")
    typer.echo(f"wrote scores.csv, curves.csv, curves.npz, summary.json and curves.png to {out}")
