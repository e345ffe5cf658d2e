"""`vitrail explain`: draw which patches a prediction is based on."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vitrail.cli.model_options import ModelOptions
from vitrail.cli.options import OUTPUT, MethodOptions, OutputOptions, PhotoOptions, SpeedOptions, TargetOptions
from vitrail.cli.printing import print_explanations, print_folder, print_unreadable
from vitrail.core.errors import InvalidInputError

if TYPE_CHECKING:
    from vitrail.viz.overlay import Smoothing

OUT = OutputOptions(Path("vitrail-explain"))


def explain(
    model: ModelOptions,
    images: PhotoOptions,
    methods: MethodOptions,
    speed: SpeedOptions,
    target: TargetOptions,
    output: OutputOptions = OUT,
    top: Annotated[int, typer.Option(min=1, help="Number of classes and patches to print.", rich_help_panel=OUTPUT)] = 3,
    smooth: Annotated[bool, typer.Option(help="Blend patches in overlays.", rich_help_panel=OUTPUT)] = False,
) -> None:
    """Explain predictions: write overlays, a contact sheet and raw relevance; print top classes and strongest patches."""
    if bool(images.photos) == (images.data is not None):
        raise InvalidInputError(f"expected photos, or a folder by --data, got {'both' if images.photos else 'neither'}")
    if images.data is None and (images.limit is not None or speed.workers):
        raise InvalidInputError("expected --limit and --workers together with --data, got photos")
    from vitrail import api  # noqa: PLC0415 (heavy)

    smoothing: Smoothing = "bilinear" if smooth else "nearest"
    options, overwrite, classifier = methods.options, output.overwrite, model.load(speed.device)
    where = (output.out, methods.names, target.target)
    if images.data is None:
        explanations, unreadable = api.explain_files(
            *(classifier, images.photos or [], *where),
            method_options=options,
            smoothing=smoothing,
            overwrite=overwrite,
            batch_size=speed.batch_size,
            precision=methods.precision,
        )
        print_unreadable(unreadable)
        print_explanations(explanations, top, output.out)
        return
    results = api.explain_folder(
        *(classifier, images.data, *where),
        limit=images.limit,
        method_options=options,
        smoothing=smoothing,
        overwrite=overwrite,
        batch_size=speed.batch_size,
        num_workers=speed.workers,
        precision=methods.precision,
        model_options=model.arguments,
    )
    print_unreadable(results.unreadable)
    print_folder(results, classifier.name, output.out)
