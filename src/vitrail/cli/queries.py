"""`vitrail queries`: show where the class queries of an INTR look."""

from pathlib import Path
from typing import Annotated

import typer

from vitrail.cli.options import DATA, METHODS, DeviceOptions, LimitOptions, ModelOptions, OutputOptions
from vitrail.cli.printing import print_queries, print_unreadable
from vitrail.core.errors import InvalidInputError

OUT = OutputOptions(Path("vitrail-queries"))


def queries(
    model: ModelOptions,
    limit: LimitOptions,
    speed: DeviceOptions,
    photos: Annotated[list[Path] | None, typer.Argument(help="Photos, or folders of photos.", show_default=False)] = None,
    data: Annotated[
        Path | None,
        typer.Option(
            "--data",
            help="Folder of images instead of photos; subfolders are true classes.",
            show_default=False,
            rich_help_panel=DATA,
        ),
    ] = None,
    true_class: Annotated[
        str | None,
        typer.Option(
            "--class",
            help="True class of the photos, by name or number; takes only this class of --data.",
            show_default=False,
            rich_help_panel=DATA,
        ),
    ] = None,
    top: Annotated[
        int,
        typer.Option(min=1, help="Number of classes: the true one, and the most probable others.", rich_help_panel=METHODS),
    ] = 5,
    layer: Annotated[int, typer.Option(help="Decoder layer, from 0; negative: from the end.", rich_help_panel=METHODS)] = -1,
    output: OutputOptions = OUT,
) -> None:
    """Show where the class queries of an INTR look; write a sheet with all heads and the raw maps per photo."""
    if model.model is None:
        raise InvalidInputError(
            "expected an INTR by --model, such as the folder of a run; the bundled vitrail:intr-birds is one"
        )
    from vitrail import api  # noqa: PLC0415 (heavy)

    classifier = model.load(speed.device)
    results, unreadable = api.queries(
        *(classifier, photos or [], output.out, true_class, top),
        data=data,
        limit=limit.limit,
        layer=layer,
        overwrite=output.overwrite,
    )
    print_unreadable(unreadable)
    print_queries(results, classifier.name, output.out, one_by_one=data is None)
