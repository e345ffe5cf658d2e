"""`vitrail explain`: draw which patches a prediction is based on."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vitrail.cli.options import (
    DATA,
    METHODS,
    OUTPUT,
    LimitOptions,
    MethodOptions,
    ModelOptions,
    OutputOptions,
    SpeedOptions,
)
from vitrail.cli.printing import print_explanations, print_folder, print_unreadable
from vitrail.core.errors import InvalidInputError

if TYPE_CHECKING:
    from vitrail.viz.overlay import Smoothing

OUT = OutputOptions(Path("vitrail-explain"))


def explain(
    model: ModelOptions,
    limit: LimitOptions,
    methods: MethodOptions,
    speed: SpeedOptions,
    photos: Annotated[list[Path] | None, typer.Argument(help="Photos, or folders of photos.", show_default=False)] = None,
    data: Annotated[
        Path | None,
        typer.Option(
            "--data",
            help="Folder of images of any size, instead of photos; interrupted runs resume.",
            show_default=False,
            rich_help_panel=DATA,
        ),
    ] = None,
    target: Annotated[
        str | None,
        typer.Option(
            help="Class to explain, by name or number (default: predicted class).", show_default=False, rich_help_panel=METHODS
        ),
    ] = None,
    output: OutputOptions = OUT,
    top: Annotated[int, typer.Option(min=1, help="Number of classes and patches to print.", rich_help_panel=OUTPUT)] = 3,
    smooth: Annotated[bool, typer.Option(help="Blend patches in overlays.", rich_help_panel=OUTPUT)] = False,
) -> None:
    """Explain predictions: write overlays, a contact sheet and raw relevance; print top classes and strongest patches."""
    if bool(photos) == (data is not None):
        raise InvalidInputError(f"expected photos, or a folder by --data, got {'both' if photos else 'neither'}")
    if data is None and (limit.limit is not None or speed.workers):
        raise InvalidInputError("expected --limit and --workers together with --data, got photos")
    from vitrail import api  # noqa: PLC0415 (heavy)

    smoothing: Smoothing = "bilinear" if smooth else "nearest"
    arguments, options, classifier = model.arguments, methods.options, model.load(speed.device)
    if data is None:
        explanations, unreadable = api.explain_files(
            *(classifier, photos or [], output.out, methods.names, target),
            method_options=options,
            smoothing=smoothing,
            overwrite=output.overwrite,
            batch_size=speed.batch_size,
            precision=methods.precision,
        )
        print_unreadable(unreadable)
        print_explanations(explanations, top, output.out)
        return
    results = api.explain_folder(
        *(classifier, data, output.out, methods.names, target),
        limit=limit.limit,
        method_options=options,
        smoothing=smoothing,
        overwrite=output.overwrite,
        batch_size=speed.batch_size,
        num_workers=speed.workers,
        precision=methods.precision,
        model_options=arguments,
    )
    print_unreadable(results.unreadable)
    print_folder(results, classifier.name, output.out)
