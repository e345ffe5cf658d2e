"""`vitrail layers`: what each layer of a HiT gives."""

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vitrail.cli.options import (
    BatchOption,
    DeviceOption,
    ImageSizeOption,
    LimitOption,
    ModelArgOption,
    ModelOption,
    OutOption,
    OverwriteOption,
    WorkersOption,
    load_model,
    report_unreadable,
)

if TYPE_CHECKING:
    from vitrail.adapters import Classifier
    from vitrail.evaluation.layers import LayerReport
    from vitrail.viz.layers import LayerFigures


def layers(
    data: Annotated[
        Path,
        typer.Argument(
            help="A photo, a folder of photos, or a folder with one sub-folder per class, or one that holds such a folder named test or "
            "val.",
        ),
    ],
    model: ModelOption = None,
    model_arg: ModelArgOption = None,
    image_size: ImageSizeOption = None,
    limit: LimitOption = None,
    out: OutOption = Path("vitrail-layers"),
    overwrite: OverwriteOption = False,
    batch_size: BatchOption = 64,
    workers: WorkersOption = 0,
    device: DeviceOption = None,
) -> None:
    """Leave layers of a HiT out, and show what each gives; one forward pass per image; under torchrun, on many devices."""
    from vitrail.core.distributed import process_group, rank  # noqa: PLC0415
    from vitrail.core.files import results_folder  # noqa: PLC0415
    from vitrail.datasets.folder import ImageFolder, split_folder  # noqa: PLC0415 (heavy)
    from vitrail.evaluation.layers import expect_hit, report_layers  # noqa: PLC0415
    from vitrail.viz.layers import layer_page, layer_table, plot_layers, write_layers  # noqa: PLC0415

    with process_group(), ExitStack() as folders:
        classifier = expect_hit(load_model(model, device, model_arg, image_size))
        images = ImageFolder.scan(split_folder(data, ["test", "val"]), classifier.preprocessing).spread(limit)
        first = rank() == 0
        # The folder is claimed before the work, so that a bad one is told at once.
        folder = folders.enter_context(results_folder(out, overwrite)) if first else None
        report = report_layers(classifier, images, batch_size, workers)
        if folder is None:
            return
        figures = _figures(classifier, report)
        lead = _lead(figures)
        write_layers(folder, figures)
        plot_layers(figures, folder / "layers.png")
        layer_page(figures, folder, lead)
    report_unreadable(report.unreadable)
    typer.echo(lead)
    if report.no_labels:
        typer.echo(f"top-1 is left out: {report.no_labels}")
    for line in layer_table(figures):
        typer.echo(f"  {line}")
    typer.echo(f"completeness error: {report.completeness_error:.1e}")
    typer.echo(f"wrote layers.csv, saliency.csv, images.csv, summary.json, layers.png and index.html to {out}")


def _figures(classifier: "Classifier", report: "LayerReport") -> "LayerFigures":
    from vitrail.viz.layers import LayerFigures  # noqa: PLC0415 (heavy)

    settings = {
        "model": classifier.name,
        "no_labels": report.no_labels,
        "completeness_error": report.completeness_error,
        "unreadable": [file._asdict() for file in report.unreadable],
    }
    targets, labels = (
        [classifier.class_name(c) for c in each.tolist()] if each is not None else None
        for each in (report.targets, report.labels)
    )
    return LayerFigures(
        report.ablations,
        report.measures(),
        report.whole(),
        report.layers,
        report.bias,
        report.logits,
        report.paths,
        targets or [],
        labels,
        settings,
    )


def _lead(figures: "LayerFigures") -> str:
    from vitrail.viz.layers import WORDS  # noqa: PLC0415 (heavy)

    whole = ", ".join(
        f"{WORDS[name]} {float(values.double().mean()):.4f}" for name, values in figures.whole.items() if name != "agreement"
    )
    return f"{figures.settings['model']}, {figures.layers.shape[1]} layers, {len(figures.paths)} images: {whole}"
