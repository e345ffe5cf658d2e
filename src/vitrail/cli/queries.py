"""`vitrail queries`: show where the class queries of an INTR look."""

from pathlib import Path
from typing import Annotated

from vitrail.cli.model_options import ModelOptions
from vitrail.cli.options import OutputOptions, PhotoOptions, ReadingOptions
from vitrail.cli.panels import DATA, METHODS, option, optional
from vitrail.cli.printing import print_queries, print_unreadable
from vitrail.cli.results import print_result, read_result
from vitrail.core.errors import InvalidInputError

OUT = OutputOptions(Path("vitrail-queries"))


def queries(
    model: ModelOptions,
    images: PhotoOptions,
    speed: ReadingOptions,
    true_class: Annotated[
        str | None,
        optional(
            DATA,
            "--class",
            help="True class of the photos, by name or number (default: the subfolder of --data); takes only this class.",
        ),
    ] = None,
    top: Annotated[
        int,
        option(METHODS, min=1, help="Number of classes: the true one, and the most probable others."),
    ] = 5,
    layer: Annotated[int, option(METHODS, help="Decoder layer, from 0; negative: from the end.")] = -1,
    output: OutputOptions = OUT,
) -> None:
    """Show where the class queries of an INTR look; write a sheet with all heads and the raw maps per photo."""
    if model.model is None:
        raise InvalidInputError(
            "expected an INTR by --model, such as the folder of a run; the bundled vitrail:intr-birds is one"
        )
    source = images.source_options()
    from vitrail import api  # noqa: PLC0415 (heavy)
    from vitrail.core.distributed import process_group, rank  # noqa: PLC0415

    with process_group():
        classifier = model.load(speed.device)
        results, unreadable = api.queries(
            *(classifier, images.photos or [], output.out, true_class, top),
            data=images.data,
            **source,
            layer=layer,
            num_workers=speed.workers,
            overwrite=output.overwrite,
        )
        if rank():
            return
    print_unreadable(unreadable)
    print_result(
        lambda: read_result(output.out, "queries.json"),
        lambda: print_queries(results, classifier.name, output.out, one_by_one=images.data is None),
    )
