"""`vitrail layers`: measure what each layer of a HiT contributes."""

from pathlib import Path
from typing import Annotated

import typer

from vitrail.cli.model_options import ModelOptions
from vitrail.cli.options import LARGE_BATCHES, LimitOptions, OutputOptions, SpeedOptions
from vitrail.cli.printing import print_unreadable
from vitrail.cli.results import print_result, read_result

OUT = OutputOptions(Path("vitrail-layers"))


def layers(
    data: Annotated[
        Path,
        typer.Argument(
            help="Photo, folder of photos, or folder with one subfolder per class, or with such a folder named test or val."
        ),
    ],
    model: ModelOptions,
    limit: LimitOptions,
    output: OutputOptions = OUT,
    speed: SpeedOptions = LARGE_BATCHES,
) -> None:
    """Measure what each layer of a HiT contributes, and what is predicted without it; one forward pass per image."""
    from vitrail import api  # noqa: PLC0415 (heavy)
    from vitrail.core.distributed import process_group, rank  # noqa: PLC0415
    from vitrail.evaluation.layer_files import layer_lines  # noqa: PLC0415

    with process_group():
        report = api.layers(
            *(model.load(speed.device), data, limit.limit),
            batch_size=speed.batch_size,
            num_workers=speed.workers,
            out=output.out,
            overwrite=output.overwrite,
        )
        if rank():
            return
    print_unreadable(report.unreadable)

    def print_text() -> None:
        for line in layer_lines(report):
            typer.echo(line)
        typer.echo(f"completeness error: {report.completeness_error:.1e}")
        typer.echo(f"wrote layers.csv, saliency.csv, images.csv, summary.json, layers.png and index.html to {output.out}")

    print_result(lambda: read_result(output.out, "summary.json"), print_text)
